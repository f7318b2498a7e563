//! An operator moves the active: planned by the planner, decided at apply, and watched here to its end.

use axum::extract::State;
use axum::http::StatusCode;
use baton_client::view::{MoveAnswer, MoveRequest, Problem};
use baton_core::command::{Command, Done};
use baton_core::id::{ServiceName, TransitionId};
use baton_core::json::{FieldError, Json, read as read_fields};
use baton_core::planner::{ManualMove, ManualRequest, plan_manual};
use baton_core::policy::ProofKind;
use baton_core::time::Millis;
use baton_core::transition::{Transition, TransitionStatus};
use tokio::time::Instant;

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::{Asker, JsonBody, OfService, Unrepeated};
use super::longpoll::read;
use super::query::{Consistency, Query};
use super::reason::reason;

/// How long an answer waits for the move's end, at most and where the request does not say. A move that waits for a proof
/// may take longer: the record says how it stands. Longer would only hold a connection.
const MOVE_WAIT: Millis = Millis::secs(10);

/// Replace the active, well or not
///
/// Forced: it works on a well active too. It bypasses waiting for the active to be down, never mutual exclusion and
/// never the need for a proof. `dry_run` only tells what would be done.
#[utoipa::path(post, path = "/v1/services/{service}/failover", tag = "moves",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = MoveRequest, example = json!({"to": "b", "reason": "kernel update on db-1"})),
    responses(
        (status = 200, description = "The move is made: its record. With `dry_run`, the plan",
            body = MoveAnswer),
        (status = 202, description = "The move is still open after `wait`: it waits for a proof, a candidate or an \
            acknowledgement, and goes on. Its record so far", body = Transition),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`already_active`, `transition_in_progress`, `not_eligible`, `no_candidate`, \
            `proof_refused` and others: why not", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn failover(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    make(&state, &service, ManualMove::Failover, actor, &body).await
}

/// Move the active, both sides being well
#[utoipa::path(post, path = "/v1/services/{service}/switchover", tag = "moves",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = MoveRequest, example = json!({"to": "b", "reason": "kernel update on db-1"})),
    responses(
        (status = 200, description = "The move is made: its record. With `dry_run`, the plan",
            body = MoveAnswer),
        (status = 202, description = "The move is still open after `wait`: it waits for a proof, a candidate or an \
            acknowledgement, and goes on. Its record so far", body = Transition),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`already_active`, `active_not_well`, `transition_in_progress`, `not_eligible`, \
            `no_candidate`, `proof_refused` and others: why not", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn switchover(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    make(&state, &service, ManualMove::Switchover, actor, &body).await
}

/// Move the active back to an instance that is preferred to it
///
/// Preferred is who has a lower tier or, within the tier, a higher priority. Both sides must be well. Without `to`, the most
/// preferred of those that may be promoted. Where `failback.mode` is `never` this is refused; a switchover is not.
#[utoipa::path(post, path = "/v1/services/{service}/failback", tag = "moves",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it may act twice"),
    ),
    request_body(content = MoveRequest, example = json!({"reason": "db-1 is repaired"})),
    responses(
        (status = 200, description = "The move is made: its record. With `dry_run`, the plan",
            body = MoveAnswer),
        (status = 202, description = "The move is still open after `wait`: it waits for a proof, a candidate or an \
            acknowledgement, and goes on. Its record so far", body = Transition),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 409, description = "`already_active`: nobody is preferred to the active. `active_not_well`, \
            `transition_in_progress`, `not_eligible`, `no_candidate`, `proof_refused` and others: why not", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn failback(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    make(&state, &service, ManualMove::Failback, actor, &body).await
}

fn parse(body: &Json) -> Result<MoveRequest, Vec<FieldError>> {
    read_fields(body, |fields| {
        let to = fields.parsed("to");
        let reason = reason(fields, "\"kernel update on db-1\"");
        let dry_run = fields.boolean("dry_run", false);
        let proof = fields.field("proof").and_then(|mut slot| {
            if *slot.json() == Json::String(ProofKind::Operator.as_str().to_owned()) {
                return Some(ProofKind::Operator);
            }
            slot.refuse("cannot be asserted: the only proof that a request can bring is \"operator\"");
            None
        });
        let wait = fields.field("wait").and_then(|slot| slot.millis(Millis::ZERO..=MOVE_WAIT));
        Some(MoveRequest { to, reason: reason?, dry_run, proof, wait })
    })
}

async fn make(
    state: &ApiState,
    service: &ServiceName,
    wanted: ManualMove,
    actor: String,
    body: &Json,
) -> Result<Answer, ApiError> {
    let asked = parse(body).map_err(ApiError::Invalid)?;
    let wait = asked.wait.unwrap_or(MOVE_WAIT);
    let request =
        ManualRequest { wanted, to: asked.to, reason: asked.reason, actor, asserts_stopped: asked.proof.is_some() };
    let facts = state.reports.facts(service).await;
    let view = read(state, Consistency::Linearizable).await?;
    let revision = view.state.meta.revision;
    let mut plan = plan_manual(&view.state, service, &request, &facts, state.consensus.now().time, revision)?;
    let command = plan.command.take().filter(|_| !asked.dry_run);
    let Some(command) = command else {
        return Ok(Answer::json(&MoveAnswer::Planned(Box::new(plan)))?.at(revision));
    };
    // The move was open already where this only completes it.
    let completed = if let Command::TransitionTake(take) = &command { Some(take.transition) } else { None };
    let done = state.consensus.propose(command).await??;
    let transition = match (&done, completed) {
        (Done::Started { transition }, _) => *transition,
        (Done::Promoted { .. }, Some(transition)) => transition,
        (Done::Ok | Done::Stored { .. } | Done::Granted { .. } | Done::Promoted { .. }, _) => {
            return Err(ApiError::Reply(done));
        }
    };
    to_its_end(state, transition, wait).await
}

/// Waits so long for a transition's end, and answers with its record: 200 at its end, 202 while it is open.
pub(super) async fn to_its_end(state: &ApiState, id: TransitionId, wait: Millis) -> Result<Answer, ApiError> {
    let reader = state.consensus.reader();
    let mut applied = reader.watch();
    let deadline = Instant::now() + wait.as_duration();
    loop {
        applied.borrow_and_update();
        let view = reader.view();
        let record = view.state.transitions.get(&id);
        let open = record.is_none_or(|record| record.status == TransitionStatus::Running);
        let over = if open {
            tokio::select! {
                news = applied.changed() => news.is_err(),
                () = tokio::time::sleep_until(deadline) => true,
                () = state.shutdown.cancelled() => true,
            }
        } else {
            true
        };
        if over {
            // It is committed: that this node has not come so far says nothing against it.
            let record = record.ok_or(ApiError::MoveUnseen(id))?;
            let status = if open { StatusCode::ACCEPTED } else { StatusCode::OK };
            let told = MoveAnswer::Made(Box::new(record.as_ref().clone()));
            return Ok(Answer::json(&told)?.at(view.state.meta.revision).status(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<MoveRequest, Vec<String>> {
        let body = Json::parse(text.as_bytes()).expect("JSON");
        parse(&body).map_err(|errors| errors.into_iter().map(|error| error.path).collect())
    }

    #[test]
    fn a_move_needs_a_reason_and_takes_no_other_proof_than_a_word() {
        let wish = asked(r#"{"to":"b","reason":"x","dry_run":true,"proof":"operator","wait":"250ms"}"#).expect("valid");
        assert_eq!(wish.wait, Some(Millis(250)));
        assert_eq!((wish.dry_run, wish.proof), (true, Some(ProofKind::Operator)));
        assert_eq!(wish.to.map(|to| to.to_string()).as_deref(), Some("b"));
        for (bad, paths) in [
            ("{}", vec!["reason"]),
            (r#"{"reason":""}"#, vec!["reason"]),
            (r#"{"reason":" \t"}"#, vec!["reason"]),
            (r#"{"reason":"a\u001b[2Jb"}"#, vec!["reason"]),
            (r#"{"reason":"x","proof":"lease"}"#, vec!["proof"]),
            (r#"{"reason":"x","proof":1}"#, vec!["proof"]),
            (r#"{"reason":"x","wait":"10001ms"}"#, vec!["wait"]),
            (r#"{"reason":"x","wait":10}"#, vec!["wait"]),
            (r#"{"to":"B!","dry_run":"yes"}"#, vec!["to", "reason", "dry_run"]),
            (r#"{"reason":"x","force":true}"#, vec!["force"]),
            ("[]", vec!["$"]),
        ] {
            assert_eq!(asked(bad), Err(paths.into_iter().map(str::to_owned).collect()), "{bad}");
        }
    }
}
