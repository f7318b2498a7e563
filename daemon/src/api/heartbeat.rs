//! Signs of life, as instances give them themselves.

use axum::extract::State;
use baton_client::view::{HeartbeatAnswer, HeartbeatRequest, Problem};
use baton_core::command::Refusal;
use baton_core::detector::HeartbeatState;
use baton_core::id::{InstanceId, ServiceName};
use baton_core::json::{FieldError, Fields, Json, read as read_fields};
use baton_core::policy::LAG_MAX;

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::{JsonBody, OfInstance};
use super::query::Query;
use crate::reports::HeartbeatError;
use crate::reports::wire::Beat;

/// The longest session in bytes: longer than any that was ever given out.
pub(super) const SESSION_MAX: usize = 128;

/// Say that an instance lives
///
/// For instances with `"liveness": "heartbeat"`, in the session that their registration returned. How often is agreed by
/// the service's check of type `heartbeat` (its `interval`; missing after `fall` of them and its `timeout`), else by its
/// lease (a third of its `ttl`; missing after all of it). Any node takes it to the leader, who answers. The leader may know
/// better: an instance whose heartbeats always came regularly is suspected sooner, by `detection.accrual`.
#[utoipa::path(post, path = "/v1/services/{service}/instances/{instance}/heartbeat", tag = "calls",
    operation_id = "post_heartbeat",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Neither needed nor read: to say twice that an \
            instance lives is as good as once"),
    ),
    request_body(content = HeartbeatRequest,
        example = json!({"session": "01993b6e-7a5c-7f3e-9d7c-0c9d2e6a1b52", "state": "ok"})),
    responses(
        (status = 200, description = "It counts; what the instance is now", body = HeartbeatAnswer),
        (status = 409, description = "`unknown_session`: another registration has taken its place. `not_heartbeat`: the \
            instance is probed", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn post(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let HeartbeatRequest { session, state: said, lag } = parse(&body).map_err(ApiError::Invalid)?;
    let said = said.unwrap_or(HeartbeatState::Ok);
    let beat = Beat { number: 0, service: service.clone(), instance: instance.clone(), session, state: said, lag };
    let told = state.reports.heartbeat(beat).await.map_err(|error| match error {
        HeartbeatError::NoSuchService => Refusal::NoSuchService { service }.into(),
        HeartbeatError::NoSuchInstance => Refusal::NoSuchInstance { service, instance }.into(),
        HeartbeatError::NotHeartbeat => ApiError::NotHeartbeat { instance },
        HeartbeatError::UnknownSession => ApiError::UnknownSession { instance },
        other @ (HeartbeatError::NoLeader | HeartbeatError::Overloaded | HeartbeatError::Stopped) => {
            ApiError::Heartbeat(other)
        }
    })?;
    Answer::json(&told)
}

/// The `session` of a request of an instance that may have none.
pub(super) fn session_if_any(fields: &mut Fields<'_, '_>) -> Option<String> {
    fields.text("session", 1..=SESSION_MAX).map(str::to_owned)
}

fn parse(body: &Json) -> Result<HeartbeatRequest, Vec<FieldError>> {
    read_fields(body, |fields| {
        let session = fields
            .required("session", "\"01993b6e-7a5c-7f3e-9d7c-0c9d2e6a1b52\"")
            .and_then(|slot| slot.text(1..=SESSION_MAX))
            .map(str::to_owned);
        let state = fields.field("state").and_then(baton_core::json::Slot::word);
        let lag = fields.field("lag").and_then(|slot| slot.whole(0..=LAG_MAX));
        Some(HeartbeatRequest { session: session?, state, lag })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_names_its_session() {
        let parsed = |text: &str| parse(&Json::parse(text.as_bytes()).expect("JSON"));
        let good = parsed(r#"{"session":"s","state":"degraded","lag":7}"#).expect("valid");
        assert_eq!((good.session.as_str(), good.state, good.lag), ("s", Some(HeartbeatState::Degraded), Some(7)));
        for (bad, path) in [
            ("{}", "session"),
            (r#"{"session":""}"#, "session"),
            (r#"{"session":7}"#, "session"),
            (r#"{"session":"s","state":"fine"}"#, "state"),
            (r#"{"session":"s","lag":-1}"#, "lag"),
            (r#"{"session":"s","lag":9007199254740993}"#, "lag"),
            (r#"{"session":"s","role":"active"}"#, "role"),
        ] {
            let errors = parsed(bad).expect_err(bad);
            assert!(errors.iter().any(|error| error.path == path), "{bad}: {errors:?}");
        }
    }
}
