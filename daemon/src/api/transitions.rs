//! The records of transitions.

use axum::extract::State;
use baton_client::view::{Problem, TransitionPage};
use baton_core::command::Refusal;
use baton_core::id::{ServiceName, TransitionId};
use baton_core::transition::Transition;
use imbl::OrdMap;
use std::sync::Arc;

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::OfTransition;
use super::longpoll::read;
use super::query::{Args, Consistency, FromArgs, Query, cursor};

/// The parameters of the list.
pub(crate) struct Wanted {
    consistency: Consistency,
    service: Option<ServiceName>,
    limit: usize,
    cursor: Option<TransitionId>,
}

impl FromArgs for Wanted {
    fn from_args(args: &mut Args) -> Self {
        Self {
            consistency: args.consistency(),
            service: args.parsed("service"),
            limit: args.limit(),
            cursor: cursor(args),
        }
    }
}

/// Transitions, the newest first
///
/// Those of a service that was deleted are still told. Where there is neither a service nor a record of that name: 404.
#[utoipa::path(get, path = "/v1/transitions", tag = "transitions", operation_id = "list_transitions",
    params(
        ("service" = Option<String>, Query, description = "Only those of this service"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
        ("limit" = Option<u32>, Query, description = "Items on a page, 1 to 1000 (default 100)"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of records", body = TransitionPage),
        (status = 404, description = "`no_such_service`: there is no such service, and no record of one", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(State(state): State<ApiState>, Query(wanted): Query<Wanted>) -> Result<Answer, ApiError> {
    let view = read(&state, wanted.consistency).await?;
    let records = &view.state.transitions;
    let page = page(records, &wanted);
    if let Some(service) = &wanted.service
        && page.items.is_empty()
        && view.state.service(service).is_none()
        // A page may be empty because the ones before it were all.
        && !records.values().any(|record| record.service == *service)
    {
        return Err(Refusal::NoSuchService { service: service.clone() }.into());
    }
    Ok(Answer::json(&page)?.at(view.state.meta.revision))
}

fn page(records: &OrdMap<TransitionId, Arc<Transition>>, wanted: &Wanted) -> TransitionPage {
    // The range ends before the cursor: ids rise with time, and the list goes back in time.
    let before = TransitionId(wanted.cursor.map_or(u64::MAX, |id| id.0));
    let mut rest = records
        .range(..before)
        .rev()
        .map(|(_, record)| record)
        .filter(|record| wanted.service.as_ref().is_none_or(|service| record.service == *service));
    let items: Vec<Transition> = rest.by_ref().take(wanted.limit).map(|record| record.as_ref().clone()).collect();
    let more = rest.next().is_some();
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    TransitionPage { items, next_cursor }
}

/// One transition's record
#[utoipa::path(get, path = "/v1/transitions/{id}", tag = "transitions", operation_id = "get_transition",
    params(
        ("id" = TransitionId, Path, description = "The transition's id"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses((status = 200, description = "The record", body = Transition)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    OfTransition(id): OfTransition,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    let view = read(&state, consistency).await?;
    let record = view.state.transitions.get(&id).ok_or(ApiError::NoSuchTransition(id))?;
    Ok(Answer::json(record.as_ref())?.at(view.state.meta.revision))
}
