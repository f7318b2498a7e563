//! What supervisors and load balancers ask of the node itself.

use axum::extract::State;
use baton_client::view::{Problem, ProcessLiveness, Readiness};

use super::ApiState;
use super::answer::Answer;
use super::cluster::leader_heard;
use super::error::ApiError;
use super::query::Query;

/// How many log entries this node may be behind for it to be ready: what a busy cluster has under way at any time.
const READY_BEHIND: u64 = 10_000;

/// Is the process alive?
///
/// Says nothing of the cluster: a node without a quorum is alive, and a restart would not help it.
#[utoipa::path(get, path = "/livez", tag = "node",
    responses((status = 200, description = "Yes", body = ProcessLiveness)))]
pub(crate) async fn livez(State(state): State<ApiState>, Query(()): Query<()>) -> Result<Answer, ApiError> {
    Answer::json(&ProcessLiveness {
        status: "alive".to_owned(),
        node: state.consensus.status().node_id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

/// Has the node a leader, and is it caught up?
///
/// From what the node knows itself: nobody else is asked.
#[utoipa::path(get, path = "/readyz", tag = "node",
    responses(
        (status = 200, description = "Yes", body = Readiness),
        (status = 503, description = "`not_ready`, and why", body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn readyz(State(state): State<ApiState>, Query(()): Query<()>) -> Result<Answer, ApiError> {
    let not_ready = |why: String| Err(ApiError::NotReady(why));
    if state.shutdown.is_cancelled() {
        return not_ready("it is stopping".to_owned());
    }
    let Some(leader) = leader_heard(&state) else {
        return not_ready(match state.consensus.staleness() {
            Some(age) => format!("the last sign of a leader with a quorum is {} ms old", age.as_millis()),
            None => "it has not heard a leader yet".to_owned(),
        });
    };
    let status = state.consensus.status();
    let view = state.consensus.reader().view();
    let behind = status.last_log_index.unwrap_or(0).saturating_sub(view.applied_index);
    if behind > READY_BEHIND {
        return not_ready(format!("it has {behind} log entries still to apply"));
    }
    let told = Readiness { status: "ready".to_owned(), leader, applied_index: view.applied_index };
    Ok(Answer::json(&told)?.at(view.state.meta.revision))
}
