//! What an operator says of one instance: it is taken out, let in again, or cleared of what speaks against it. Decided at
//! apply, like everything; here words become commands.

use axum::extract::State;
use baton_client::view::{AdminRequest, InstanceView, Problem, ResetRequest};
use baton_core::command::{Command, InstanceAdmin, InstanceReset};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::json::{FieldError, Json, read as read_fields};
use baton_core::state::AdminState;
use baton_core::time::{LONGEST, WallTime};

use super::answer::Answer;
use super::ending::{Ending, Longest};
use super::error::ApiError;
use super::extract::{Asker, JsonBody, OfInstance, Unrepeated};
use super::longpoll::{counts, instance_in, read};
use super::query::{Consistency, Query};
use super::reason::reason;
use super::{ApiState, views};
use crate::consensus::ProposeError;

/// An operator's word about an instance may stand for as long as anything may.
const TEN_YEARS: Longest = Longest { length: LONGEST, told: "ten years" };

/// Take an instance out, or let it in again
///
/// `draining`: not chosen any more and not cut off; an active stays active. `maintenance`: not probed and not chosen,
/// until an end that must be given; the active cannot be maintained. `isolated`: out, and a service that it is the active
/// of is moved. `enabled`: nothing of it.
#[utoipa::path(post, path = "/v1/services/{service}/instances/{instance}/admin", tag = "instances",
    operation_id = "set_instance_admin",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = AdminRequest,
        example = json!({"state": "maintenance", "reason": "kernel update on db-1", "for": "30m"})),
    responses(
        (status = 200, description = "The instance as it is now", body = InstanceView),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`is_active`: the active cannot be maintained, move the service first",
            body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn admin(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let now = state.consensus.now().wall;
    let AdminRequest { state: wanted, reason, until, lasts } = parse_admin(&body, now).map_err(ApiError::Invalid)?;
    let lasts = Ending { lasts, until }.length(now, TEN_YEARS);
    let command = InstanceAdmin { service, instance, state: wanted, reason, lasts, until, actor };
    let (service, instance) = (command.service.clone(), command.instance.clone());
    carry_out(&state, Command::InstanceAdmin(command), &service, &instance).await
}

/// Forget all that speaks against an instance
///
/// Closes its breaker, ends its cool-down and its recovery's delay, and begins every observation of it anew: its health
/// is `unknown` until somebody has looked.
#[utoipa::path(post, path = "/v1/services/{service}/instances/{instance}/reset", tag = "instances",
    operation_id = "reset_instance",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = ResetRequest, example = json!({"reason": "the switch was repaired"})),
    responses(
        (status = 200, description = "The instance as it is now", body = InstanceView),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn reset(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let ResetRequest { reason } = parse_reset(&body).map_err(ApiError::Invalid)?;
    let command = InstanceReset { service: service.clone(), instance: instance.clone(), reason, actor };
    carry_out(&state, Command::InstanceReset(command), &service, &instance).await
}

/// Proposes, and answers with the instance as this node holds it once the command is in its view.
async fn carry_out(
    state: &ApiState,
    command: Command,
    service: &ServiceName,
    instance: &InstanceId,
) -> Result<Answer, ApiError> {
    state.consensus.propose(command).await??;
    // It is done: that a quorum was lost since says nothing against it, and "nothing was changed" would be a lie.
    let view = read(state, Consistency::Linearizable).await.map_err(|_| ProposeError::Unknown)?;
    let (service, instance) = instance_in(&view, service, instance)?;
    let mut told = views::instance(&view.state, service, instance, state.consensus.now().time);
    let counts = counts(state, Consistency::Linearizable, &service.name, Some(vec![instance.id.clone()])).await;
    views::count(std::slice::from_mut(&mut told), &counts);
    let answer = Answer::json(&told)?;
    Ok(answer.at(view.state.meta.revision).generation(instance.generation))
}

fn parse_reset(body: &Json) -> Result<ResetRequest, Vec<FieldError>> {
    read_fields(body, |fields| Some(ResetRequest { reason: reason(fields, "\"the switch was repaired\"")? }))
}

fn parse_admin(body: &Json, now: WallTime) -> Result<AdminRequest, Vec<FieldError>> {
    read_fields(body, |fields| {
        let state = fields.required("state", "\"draining\"").and_then(|slot| slot.word::<AdminState>());
        let reason = reason(fields, "\"kernel update on db-1\"");
        let Ending { lasts, until } = Ending::read(fields, now, TEN_YEARS);
        let given = |name| fields.has(name);
        match (state, given("until"), given("for")) {
            (Some(AdminState::Enabled), until, lasts) if until || lasts => {
                let name = if until { "until" } else { "for" };
                fields.error(name, "says when something ends, and \"enabled\" has no end: leave it out");
            }
            (Some(AdminState::Maintenance), false, false) => {
                let why = "is missing: maintenance needs an end, write \"for\": \"30m\" or \"until\": an RFC 3339 time";
                fields.error("for", why);
            }
            (_, _, _) => {}
        }
        Some(AdminRequest { state: state?, reason: reason?, until, lasts })
    })
}

#[cfg(test)]
mod tests {
    use baton_core::time::Millis;

    use super::*;

    /// 2026-11-20T10:42:00.123Z.
    const NOW: WallTime = WallTime(1_795_171_320_123);

    fn asked(text: &str) -> Result<AdminRequest, Vec<(String, String)>> {
        let body = Json::parse(text.as_bytes()).expect("JSON");
        let told = |error: FieldError| (error.path, error.message);
        parse_admin(&body, NOW).map_err(|errors| errors.into_iter().map(told).collect())
    }

    #[test]
    fn an_operators_word_may_have_an_end() {
        let word = asked(r#"{"state":"maintenance","reason":"x","for":"30m"}"#).expect("valid");
        assert_eq!((word.state, word.lasts), (AdminState::Maintenance, Some(Millis::secs(1_800))));
        let word = asked(r#"{"state":"draining","reason":"x","until":"2026-11-20T11:42:01+01:00"}"#).expect("valid");
        assert_eq!(Ending { lasts: None, until: word.until }.length(NOW, TEN_YEARS), Some(Millis(877)));
        assert!(asked(r#"{"state":"isolated","reason":"x"}"#).is_ok(), "until somebody says otherwise");
        assert!(asked(r#"{"state":"enabled","reason":"x"}"#).is_ok());
    }

    #[test]
    fn what_is_wrong_is_named_with_a_remedy() {
        let long = "x".repeat(501);
        let too_long = format!(r#"{{"state":"draining","reason":"{long}"}}"#);
        for (bad, path, remedy) in [
            (r#"{"reason":"x"}"#, "state", "\"draining\""),
            (r#"{"state":"off","reason":"x"}"#, "state", "maintenance"),
            (r#"{"state":"draining"}"#, "reason", "kernel update"),
            (r#"{"state":"draining","reason":""}"#, "reason", "1"),
            (r#"{"state":"draining","reason":"  "}"#, "reason", "blank"),
            (too_long.as_str(), "reason", "500"),
            (r#"{"state":"maintenance","reason":"x"}"#, "for", "\"30m\""),
            (r#"{"state":"maintenance","reason":"x","for":"0s"}"#, "for", "1ms"),
            (r#"{"state":"maintenance","reason":"x","for":30}"#, "for", "duration"),
            (r#"{"state":"maintenance","reason":"x","for":"30m","until":"2027-01-01T00:00:00Z"}"#, "until", "one of"),
            (r#"{"state":"maintenance","reason":"x","until":"2026-11-20T10:42:00Z"}"#, "until", "future"),
            (r#"{"state":"maintenance","reason":"x","until":"9026-11-20T10:42:00Z"}"#, "until", "ten years"),
            (r#"{"state":"maintenance","reason":"x","until":"tomorrow"}"#, "until", "RFC 3339"),
            (r#"{"state":"maintenance","reason":"x","until":"9999999999999ms"}"#, "until", "RFC 3339"),
            (r#"{"state":"maintenance","reason":"x","until":"2027-01-01T00:00:00Z[UTC]"}"#, "until", "RFC 3339"),
            (r#"{"state":"enabled","reason":"x","for":"1m"}"#, "for", "leave it out"),
            (r#"{"state":"draining","reason":"x","forever":true}"#, "forever", "state, reason, for, until"),
            ("[]", "$", "object"),
        ] {
            let errors = asked(bad).expect_err(bad);
            assert!(errors.iter().any(|(at, why)| at == path && why.contains(remedy)), "{bad}: {errors:?}");
        }
    }

    #[test]
    fn a_reset_needs_a_reason_and_nothing_else() {
        let reset = |text: &str| parse_reset(&Json::parse(text.as_bytes()).expect("JSON"));
        assert_eq!(reset(r#"{"reason":"x"}"#).expect("valid").reason, "x");
        for bad in ["{}", r#"{"reason":"a\nb"}"#, r#"{"reason":7}"#, r#"{"reason":"x","state":"enabled"}"#, "null"] {
            assert!(reset(bad).is_err(), "{bad}");
        }
    }
}
