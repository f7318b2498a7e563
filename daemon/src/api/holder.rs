//! What holders say of their tenures: that they serve, that they have stopped. Programs say it at bad moments, so nothing is
//! read before it is proposed; session and token are compared at apply.

use axum::extract::State;
use baton_client::view::{AckRequest, Problem, ReleaseRequest, Released};
use baton_core::command::{Ack, Command, Done, InstanceLeft, Release};
use baton_core::id::{InstanceId, ServiceName, Token};
use baton_core::json::{FieldError, Fields, Json, read as read_fields};
use baton_core::state::ReleaseHow;
use baton_core::transition::{Transition, TransitionStatus};

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::{JsonBody, OfInstance};
use super::heartbeat::session_if_any;
use super::query::Query;
use super::reason::reason_if_any;
use super::write::applied_here;
use crate::store::View;

/// Say that a promoted instance serves
///
/// Where the service asks for it (`failover.require_ack`), the move is done with this; if it does not come within
/// `failover.activation_timeout`, the next candidate is tried, with a new token. To say it twice is as good as once, and
/// where nobody asked for it, it does no harm.
#[utoipa::path(post, path = "/v1/services/{service}/instances/{instance}/ack", tag = "calls",
    operation_id = "post_ack",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Neither needed nor read: to say twice that an \
            instance serves is as good as once"),
    ),
    request_body(content = AckRequest,
        example = json!({"token": 57, "session": "01993b6e-7a5c-7f3e-9d7c-0c9d2e6a1b52"})),
    responses(
        (status = 200, description = "It counts; the record of the move that promoted it", body = Transition),
        (status = 409, description = "`unknown_session`: another registration has taken its place. `not_holder`: that \
            token is not the active's", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn ack(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let AckRequest { token, session } = parse_ack(&body).map_err(ApiError::Invalid)?;
    let done = state.consensus.propose(Command::Ack(Ack { service, instance, session, token })).await??;
    let id = match done {
        Done::Started { transition } => transition,
        Done::Ok | Done::Stored { .. } | Done::Granted { .. } | Done::Promoted { .. } => {
            return Err(ApiError::Reply(done));
        }
    };
    // An acknowledgement closes the record; this node is to have seen that before it tells it.
    let closed =
        |view: &View| view.state.transitions.get(&id).is_some_and(|record| record.status != TransitionStatus::Running);
    applied_here(&state, closed).await;
    let view = state.consensus.reader().view();
    let record = view.state.transitions.get(&id).ok_or(ApiError::MoveUnseen(id))?;
    Ok(Answer::json(record.as_ref())?.at(view.state.meta.revision))
}

/// Say that a holder has stopped
///
/// The service is free for the next one at once, and nobody waits for a lease. Said by the holder itself, or by whoever has
/// seen it stop; say it only then. It counts for the token that is named, in the session that held it: from there on the
/// holder acts on no answer that names that token or a lower one. `leaving` says that the instance goes away: it is no
/// candidate until its next heartbeat in a session. Without it, it only steps down, and stays a candidate. An instance that
/// holds nothing says with `leaving` and its session alone that it goes away.
#[utoipa::path(post, path = "/v1/services/{service}/instances/{instance}/release", tag = "calls",
    operation_id = "post_release",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Neither needed nor read: to say twice that a holder \
            has stopped is as good as once"),
    ),
    request_body(content = ReleaseRequest,
        example = json!({"token": 57, "session": "01993b6e-7a5c-7f3e-9d7c-0c9d2e6a1b52", "leaving": true,
            "reason": "shutting down"})),
    responses(
        (status = 200, description = "It counts", body = Released),
        (status = 409, description = "`unknown_session`: that session does not hold the token. `not_holder`: somebody else \
            is the last holder, or by another token. `is_active`: it holds the service, and must name the token", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn release(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let ReleaseRequest { token, session, leaving, reason } = parse_release(&body).map_err(ApiError::Invalid)?;
    let reason = reason.unwrap_or_else(|| if leaving { "it leaves" } else { "it stepped down" }.to_owned());
    let how = ReleaseHow::Said;
    let command = match (token, session) {
        (Some(token), session) => Command::Release(Release { service, instance, session, token, leaving, how, reason }),
        (None, Some(session)) => Command::InstanceLeft(InstanceLeft { service, instance, session, reason }),
        (None, None) => {
            let path = "session".to_owned();
            let message = "whoever leaves without a token names its session".to_owned();
            return Err(ApiError::Invalid(vec![FieldError { path, message }]));
        }
    };
    state.consensus.propose(command).await??;
    Answer::json(&Released { released: true })
}

/// The `token` of a request.
pub(super) fn token(fields: &mut Fields<'_, '_>) -> Option<Token> {
    fields.required("token", "57").and_then(|slot| slot.whole(0..=u64::MAX)).map(Token)
}

fn parse_ack(body: &Json) -> Result<AckRequest, Vec<FieldError>> {
    read_fields(body, |fields| {
        let (token, session) = (token(fields), session_if_any(fields));
        Some(AckRequest { token: token?, session })
    })
}

fn parse_release(body: &Json) -> Result<ReleaseRequest, Vec<FieldError>> {
    read_fields(body, |fields| {
        let leaving = fields.boolean("leaving", false);
        let token = if leaving {
            fields.field("token").and_then(|slot| slot.whole(0..=u64::MAX)).map(Token)
        } else {
            token(fields)
        };
        let (session, reason) = (session_if_any(fields), reason_if_any(fields));
        Some(ReleaseRequest { token, session, leaving, reason })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_names_its_token() {
        let release = |text: &str| parse_release(&Json::parse(text.as_bytes()).expect("JSON"));
        let good = release(r#"{"token":57,"session":"s","leaving":true,"reason":"shutting down"}"#).expect("valid");
        assert_eq!((good.token, good.session.as_deref(), good.leaving), (Some(Token(57)), Some("s"), true));
        let leaves = release(r#"{"session":"s","leaving":true}"#).expect("it holds none");
        assert_eq!((leaves.token, leaves.leaving), (None, true));
        let short = release(r#"{"token":57}"#).expect("a probed instance has no session");
        assert_eq!((short.session, short.leaving, short.reason), (None, false, None));
        for (bad, path) in [
            ("{}", "token"),
            (r#"{"session":"s","leaving":false}"#, "token"),
            (r#"{"session":"s","leaving":true,"token":"57"}"#, "token"),
            (r#"{"token":"57"}"#, "token"),
            (r#"{"token":-1}"#, "token"),
            (r#"{"token":5.5}"#, "token"),
            (r#"{"token":1,"session":""}"#, "session"),
            (r#"{"token":1,"session":null}"#, "session"),
            (r#"{"token":1,"leaving":"yes"}"#, "leaving"),
            (r#"{"token":1,"reason":" "}"#, "reason"),
            (r#"{"token":1,"how":"said"}"#, "how"),
        ] {
            let errors = release(bad).expect_err(bad);
            assert!(errors.iter().any(|error| error.path == path), "{bad}: {errors:?}");
        }
        let ack = |text: &str| parse_ack(&Json::parse(text.as_bytes()).expect("JSON"));
        assert_eq!(ack(r#"{"token":9}"#).expect("valid").token, Token(9));
        assert!(ack(r#"{"token":9,"leaving":true}"#).is_err(), "who serves does not leave");
    }
}
