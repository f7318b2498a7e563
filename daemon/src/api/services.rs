//! Services: their specs, their status, their list.

use axum::extract::State;
use baton_client::view::{Problem, Removed, ServicePage, ServiceView, Stored};
use baton_core::command::{Command, Done, ServiceDelete, ServicePut};
use baton_core::id::ServiceName;
use baton_core::policy::{Spec, parse_spec};

use super::answer::Answer;
use super::error::ApiError;
use super::extract::{Asker, JsonBody, NoBody, OfService, Precondition};
use super::longpoll::{counts, page_after, read_changed, service_in};
use super::query::{Fresh, Listing, Query};
use super::write::{applied_here, propose_if, removed, stored};
use super::{ApiState, views};
use crate::store::View;

/// All services
///
/// In order of their names. With `after`, a long poll: the answer comes when any service has changed after that
/// revision, or when `wait` is over.
#[utoipa::path(get, path = "/v1/services", tag = "services", operation_id = "list_services",
    params(
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
        ("after" = Option<u64>, Query, description = "Answer when something has changed after this revision"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, at most `5m` (default `30s`)"),
        ("limit" = Option<u32>, Query, description = "Items on a page, 1 to 1000 (default 100)"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of services", body = ServicePage)))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    Query(listing): Query<Listing<ServiceName>>,
) -> Result<Answer, ApiError> {
    let view = read_changed(&state, &listing.fresh, |view| Some(view.state.meta.services_changed)).await?;
    let now = state.consensus.now().time;
    let mut rest = page_after(&view.state.services, listing.cursor.as_ref());
    let items: Vec<ServiceView> =
        rest.by_ref().take(listing.limit).map(|(_, service)| views::service(&view.state, service, now)).collect();
    let more = rest.next().is_some();
    let next_cursor = items.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(Answer::json(&ServicePage { items, next_cursor })?.at(view.state.meta.revision))
}

/// Create a service or replace its spec
///
/// The whole spec: what is left out gets its default. Putting the same spec again changes nothing. `If-Match` with the
/// `ETag` of an earlier answer insists on that version; `If-None-Match: *` only creates.
#[utoipa::path(put, path = "/v1/services/{service}", tag = "services", operation_id = "put_service",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("If-Match" = Option<String>, Header, description = "Only if its generation is this one, as in `\"3\"`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create"),
    ),
    request_body(content = Spec, description = "What is wanted of it; `{}` for all defaults",
        example = json!({"checks": [{"type": "http", "path": "/health", "interval": "1s"}]})),
    responses(
        (status = 200, description = "It was there; its spec is this one now", body = Stored),
        (status = 201, description = "It is new", body = Stored),
        (status = 412, description = "The generation is another one", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn put(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    precondition: Precondition,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let spec = Box::new(parse_spec(&body).map_err(ApiError::Invalid)?);
    let generation_now = |view: &View| view.state.service(&service).map(|service| service.generation);
    let done = propose_if(&state, precondition, generation_now, |if_generation| {
        Command::ServicePut(ServicePut {
            service: service.clone(),
            spec: spec.clone(),
            if_generation,
            actor: actor.clone(),
        })
    })
    .await?;
    let (created, generation) = match done {
        Done::Stored { created, generation, session: _ } => (created, generation),
        Done::Ok | Done::Started { .. } | Done::Granted { .. } | Done::Promoted { .. } => {
            return Err(ApiError::Reply(done));
        }
    };
    let revision = applied_here(&state, |view| generation_now(view).is_some_and(|now| now >= generation)).await;
    let told = Stored { service, instance: None, generation, created, session: None, revision };
    stored(&told)
}

/// A service's status
///
/// With `after`, a long poll: the answer comes when the service has changed after that revision, or when `wait` is
/// over.
#[utoipa::path(get, path = "/v1/services/{service}", tag = "services", operation_id = "get_service",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
        ("after" = Option<u64>, Query, description = "Answer when it has changed after this revision"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, at most `5m` (default `30s`)"),
    ),
    responses((status = 200, description = "The service", body = ServiceView)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    OfService(name): OfService,
    Query(fresh): Query<Fresh>,
) -> Result<Answer, ApiError> {
    let view = read_changed(&state, &fresh, |view| view.state.service(&name).map(|service| service.changed)).await?;
    let service = service_in(&view, &name)?;
    let mut told = views::service(&view.state, service, state.consensus.now().time);
    views::count(&mut told.instances, &counts(&state, fresh.consistency, &name, None).await);
    let answer = Answer::json(&told)?;
    Ok(answer.at(view.state.meta.revision).generation(service.generation))
}

/// Remove a service and its instances
#[utoipa::path(delete, path = "/v1/services/{service}", tag = "services", operation_id = "delete_service",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("If-Match" = Option<String>, Header, description = "Only if its generation is this one, as in `\"3\"`"),
    ),
    responses((status = 200, description = "It is gone", body = Removed)))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    OfService(service): OfService,
    Asker(actor): Asker,
    precondition: Precondition,
    Query(()): Query<()>,
    _: NoBody,
) -> Result<Answer, ApiError> {
    let generation_now = |view: &View| view.state.service(&service).map(|service| service.generation);
    propose_if(&state, precondition, generation_now, |if_generation| {
        Command::ServiceDelete(ServiceDelete { service: service.clone(), if_generation, actor: actor.clone() })
    })
    .await?;
    let revision = applied_here(&state, |view| generation_now(view).is_none()).await;
    removed(&Removed { service, instance: None, removed: true, revision })
}
