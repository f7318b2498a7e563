//! Why, and why not: the planner's own report, to the letter.

use axum::extract::State;
use baton_core::id::ServiceName;
use baton_core::planner::{ServiceReport, plan_service};

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::OfService;
use super::longpoll::{read, service_in};
use super::query::{Consistency, Query};

/// Every gate and every candidate, why and why not
///
/// It is the report of the very plan by which the controller acts, made from the state that this node holds.
#[utoipa::path(get, path = "/v1/services/{service}/explain", tag = "active",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses((status = 200, description = "The report", body = ServiceReport)))]
pub(crate) async fn explain(
    State(state): State<ApiState>,
    OfService(name): OfService,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    // Before the state, so that what the leader knows is never newer than what it is about.
    let facts = state.reports.facts(&name).await;
    let view = read(&state, consistency).await?;
    let service = service_in(&view, &name)?;
    let now = state.consensus.now().time;
    // The revision as seed, as the controller does it: what is named here is what is done.
    let plan = plan_service(&view.state, service, &facts, now, view.state.meta.revision);
    Ok(Answer::json(&plan.report)?.at(view.state.meta.revision))
}
