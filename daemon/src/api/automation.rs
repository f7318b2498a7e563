//! When Baton may not move services by itself: an operator pauses it, and lets it go on. Decided at apply and in the rules;
//! here words become commands.

use axum::extract::State;
use baton_client::view::{ClusterAutomation, PauseRequest, Problem, ResumeRequest, ServiceAutomation};
use baton_core::command::{AutomationPause, AutomationResume, Command};
use baton_core::id::ServiceName;
use baton_core::json::{FieldError, Json, read as read_fields};
use baton_core::time::{Millis, WallTime};

use super::answer::Answer;
use super::ending::{Ending, Longest};
use super::error::ApiError;
use super::extract::{Asker, JsonBody, OfService, Unrepeated};
use super::longpoll::{read, service_in};
use super::query::{Consistency, Query};
use super::reason::{owner_if_any, reason};
use super::{ApiState, views};
use crate::consensus::ProposeError;

/// The longest pause. Who wants nothing moved for longer than that wants `failover.automatic: false`, which does not end
/// unseen.
const THIRTY_DAYS: Longest = Longest { length: Millis::secs(30 * 86_400), told: "30 days" };

/// Keep Baton from moving a service by itself, for a while
///
/// No failover, no failback and no placement by itself until the end, which must be given. Operators move it all the same, and
/// a move that is open waits. A pause replaces the one before it.
#[utoipa::path(post, path = "/v1/services/{service}/pause", tag = "moves", operation_id = "pause_service",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = PauseRequest, example = json!({"reason": "the switches are being replaced", "for": "2h"})),
    responses(
        (status = 200, description = "What keeps Baton from moving the service now", body = ServiceAutomation),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn pause(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    state.consensus.propose(pausing(&state, Some(service.clone()), actor, &body)?).await??;
    told_of(&state, &service).await
}

/// Let Baton move a service by itself again
///
/// Ends its pause, and acknowledges its latch: the count of its moves begins anew.
#[utoipa::path(post, path = "/v1/services/{service}/resume", tag = "moves", operation_id = "resume_service",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = ResumeRequest, example = json!({"reason": "the new switches are in"})),
    responses(
        (status = 200, description = "What keeps Baton from moving the service now: nothing", body = ServiceAutomation),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`nothing_to_do`: it is neither paused nor latched", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn resume(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    state.consensus.propose(resuming(Some(service.clone()), actor, &body)?).await??;
    told_of(&state, &service).await
}

/// Keep Baton from moving any service by itself, for a while
#[utoipa::path(post, path = "/v1/automation/pause", tag = "moves", operation_id = "pause_all",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = PauseRequest,
        example = json!({"reason": "the switches are being replaced", "for": "2h", "owner": "network team"})),
    responses(
        (status = 200, description = "What keeps Baton from moving any service now", body = ClusterAutomation),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn pause_all(
    State(state): State<ApiState>,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    state.consensus.propose(pausing(&state, None, actor, &body)?).await??;
    told_of_all(&state).await
}

/// Let Baton move services by itself again
///
/// Ends the pause of all, and releases the brake. What a service has of its own stays.
#[utoipa::path(post, path = "/v1/automation/resume", tag = "moves", operation_id = "resume_all",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = ResumeRequest, example = json!({"reason": "the new switches are in"})),
    responses(
        (status = 200, description = "What keeps Baton from moving any service now: nothing", body = ClusterAutomation),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`nothing_to_do`: automation is neither paused nor braked", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn resume_all(
    State(state): State<ApiState>,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    state.consensus.propose(resuming(None, actor, &body)?).await??;
    told_of_all(&state).await
}

fn pausing(state: &ApiState, service: Option<ServiceName>, actor: String, body: &Json) -> Result<Command, ApiError> {
    let now = state.consensus.now().wall;
    let (PauseRequest { reason, until, owner, .. }, lasts) = parse_pause(body, now).map_err(ApiError::Invalid)?;
    let owner = owner.unwrap_or_else(|| actor.clone());
    Ok(Command::AutomationPause(AutomationPause { service, reason, owner, lasts, until, actor }))
}

fn resuming(service: Option<ServiceName>, actor: String, body: &Json) -> Result<Command, ApiError> {
    let ResumeRequest { reason } = parse_resume(body).map_err(ApiError::Invalid)?;
    Ok(Command::AutomationResume(AutomationResume { service, reason, actor }))
}

/// It is done: that a quorum was lost since says nothing against it, and "nothing was changed" would be a lie.
async fn told_of(state: &ApiState, name: &ServiceName) -> Result<Answer, ApiError> {
    let view = read(state, Consistency::Linearizable).await.map_err(|_| ProposeError::Unknown)?;
    let told = views::automation(service_in(&view, name)?, state.consensus.now().time);
    Ok(Answer::json(&told)?.at(view.state.meta.revision))
}

async fn told_of_all(state: &ApiState) -> Result<Answer, ApiError> {
    let view = read(state, Consistency::Linearizable).await.map_err(|_| ProposeError::Unknown)?;
    let told = views::cluster_automation(&view.state, state.consensus.now().time);
    Ok(Answer::json(&told)?.at(view.state.meta.revision))
}

/// A pause, and how long it lasts from `now`.
fn parse_pause(body: &Json, now: WallTime) -> Result<(PauseRequest, Millis), Vec<FieldError>> {
    read_fields(body, |fields| {
        let reason = reason(fields, "\"the switches are being replaced\"");
        let ending = Ending::read(fields, now, THIRTY_DAYS);
        let owner = owner_if_any(fields);
        if !fields.has("for") && !fields.has("until") {
            let why = "is missing: a pause needs an end, write \"for\": \"2h\" or \"until\": an RFC 3339 time";
            fields.error("for", why);
        }
        let length = ending.length(now, THIRTY_DAYS)?;
        Some((PauseRequest { reason: reason?, until: ending.until, lasts: ending.lasts, owner }, length))
    })
}

fn parse_resume(body: &Json) -> Result<ResumeRequest, Vec<FieldError>> {
    read_fields(body, |fields| Some(ResumeRequest { reason: reason(fields, "\"the new switches are in\"")? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20T10:42:00.123Z.
    const NOW: WallTime = WallTime(1_795_171_320_123);

    fn asked(text: &str) -> Result<(PauseRequest, Millis), Vec<(String, String)>> {
        let body = Json::parse(text.as_bytes()).expect("JSON");
        let told = |error: FieldError| (error.path, error.message);
        parse_pause(&body, NOW).map_err(|errors| errors.into_iter().map(told).collect())
    }

    #[test]
    fn a_pause_has_a_reason_and_an_end() {
        let (pause, lasts) = asked(r#"{"reason":"x","for":"2h","owner":"ops"}"#).expect("valid");
        assert_eq!((pause.owner.as_deref(), lasts), (Some("ops"), Millis::secs(7_200)));
        let (pause, lasts) = asked(r#"{"reason":"x","until":"2026-11-20T10:42:01Z"}"#).expect("valid");
        assert_eq!((pause.until, lasts), (Some(WallTime(NOW.0 + 877)), Millis(877)));
        assert!(asked(r#"{"reason":"x","for":"720h"}"#).is_ok(), "30 days are not too long");
    }

    #[test]
    fn what_is_wrong_is_named_with_a_remedy() {
        let long = "x".repeat(101);
        let too_long = format!(r#"{{"reason":"x","for":"1m","owner":"{long}"}}"#);
        for (bad, path, remedy) in [
            (r#"{"reason":"x"}"#, "for", "\"2h\""),
            (r#"{"for":"2h"}"#, "reason", "switches"),
            (r#"{"reason":"x","for":"721h"}"#, "for", "30d"),
            (r#"{"reason":"x","for":"0s"}"#, "for", "1ms"),
            (r#"{"reason":"x","until":"2026-12-21T10:42:00Z"}"#, "until", "30 days"),
            (r#"{"reason":"x","until":"2026-11-20T10:42:00Z"}"#, "until", "future"),
            (r#"{"reason":"x","for":"1m","until":"2026-11-21T10:42:00Z"}"#, "until", "one of"),
            (r#"{"reason":"x","for":"1m","owner":" "}"#, "owner", "leave it out"),
            (r#"{"reason":"x","for":"1m","owner":"a\nb"}"#, "owner", "one line"),
            (too_long.as_str(), "owner", "100"),
            (r#"{"reason":"x","for":"1m","service":"a"}"#, "service", "reason, for, until, owner"),
        ] {
            let errors = asked(bad).expect_err(bad);
            assert!(errors.iter().any(|(at, why)| at == path && why.contains(remedy)), "{bad}: {errors:?}");
        }
        let resume = |text: &str| parse_resume(&Json::parse(text.as_bytes()).expect("JSON"));
        assert!(resume(r#"{"reason":"x"}"#).is_ok());
        assert!(resume("{}").is_err() && resume(r#"{"reason":"x","for":"1m"}"#).is_err());
    }
}
