//! Instances: registered, read, listed, removed.

use axum::extract::State;
use baton_client::view::{InstancePage, InstanceView, Problem, Removed, Stored};
use baton_core::command::{Command, Done, InstanceChange, InstanceDelete, InstancePut, Refusal};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::{Registration, parse_registration, parse_registration_patch};

use super::answer::Answer;
use super::error::ApiError;
use super::extract::{Asker, JsonBody, NoBody, OfInstance, OfService, Precondition};
use super::longpoll::{counts, instance_in, page_after, read, read_changed, service_in};
use super::query::{Consistency, Listing, Query};
use super::write::{applied_here, propose_if, removed, stored};
use super::{ApiState, views};
use crate::store::View;

/// How often a PATCH looks again when the registration changes under it.
const PATCH_TRIES: usize = 8;

/// A service's instances
///
/// In order of their ids. With `after`, a long poll on the service.
#[utoipa::path(get, path = "/v1/services/{service}/instances", tag = "instances", operation_id = "list_instances",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
        ("after" = Option<u64>, Query, description = "Answer when the service has changed after this revision"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, at most `5m` (default `30s`)"),
        ("limit" = Option<u32>, Query, description = "Items on a page, 1 to 1000 (default 100)"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
    ),
    responses((status = 200, description = "A page of instances", body = InstancePage)))]
pub(crate) async fn list(
    State(state): State<ApiState>,
    OfService(name): OfService,
    Query(listing): Query<Listing<InstanceId>>,
) -> Result<Answer, ApiError> {
    let changed = |view: &View| view.state.service(&name).map(|service| service.changed);
    let view = read_changed(&state, &listing.fresh, changed).await?;
    let service = service_in(&view, &name)?;
    let now = state.consensus.now().time;
    let mut rest = page_after(&service.instances, listing.cursor.as_ref());
    let mut items: Vec<InstanceView> =
        rest.by_ref().take(listing.limit).map(|(_, one)| views::instance(&view.state, service, one, now)).collect();
    let more = rest.next().is_some();
    let ids = items.iter().map(|item| item.id.clone()).collect();
    views::count(&mut items, &counts(&state, listing.fresh.consistency, &name, Some(ids)).await);
    let next_cursor = items.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Answer::json(&InstancePage { items, next_cursor })?.at(view.state.meta.revision))
}

/// Register an instance or replace its registration
///
/// What is left out gets its default. A `heartbeat` instance gets a new session by every PUT; for a `probe` instance
/// the same registration again changes nothing.
#[utoipa::path(put, path = "/v1/services/{service}/instances/{instance}", tag = "instances",
    operation_id = "put_instance",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("If-Match" = Option<String>, Header, description = "Only if its generation is this one, as in `\"3\"`"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only create"),
    ),
    request_body(content = Registration, description = "Where it listens, and what else is said of it",
        example = json!({"address": "10.0.0.7:5432", "priority": 200})),
    responses(
        (status = 200, description = "It was there; its registration is this one now", body = Stored),
        (status = 201, description = "It is new", body = Stored),
        (status = 412, description = "The generation is another one", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn put(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Asker(actor): Asker,
    precondition: Precondition,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let registration = Box::new(parse_registration(&body).map_err(ApiError::Invalid)?);
    let session = uuid::Uuid::now_v7().to_string();
    let generation_now = |view: &View| view.state.instance(&service, &instance).map(|instance| instance.generation);
    let done = propose_if(&state, precondition, generation_now, |if_generation| {
        Command::InstancePut(InstancePut {
            service: service.clone(),
            instance: instance.clone(),
            registration: registration.clone(),
            session: session.clone(),
            if_generation,
            actor: actor.clone(),
        })
    })
    .await?;
    let (created, generation, session) = match done {
        Done::Stored { created, generation, session } => (created, generation, session),
        Done::Ok | Done::Started { .. } | Done::Granted { .. } | Done::Promoted { .. } => {
            return Err(ApiError::Reply(done));
        }
    };
    let revision = applied_here(&state, |view| generation_now(view).is_some_and(|now| now >= generation)).await;
    stored(&Stored { service, instance: Some(instance), generation, created, session, revision })
}

/// Change what is said of a registered instance
///
/// Merged into its registration (RFC 7396): what is left out stays, null takes away what may be absent, labels are merged one
/// by one. It goes on in its session, and an active stays the active; another address or other checks are looked at anew.
/// `liveness` cannot be changed so.
#[utoipa::path(patch, path = "/v1/services/{service}/instances/{instance}", tag = "instances",
    operation_id = "patch_instance",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("If-Match" = Option<String>, Header, description = "Only if its generation is this one, as in `\"3\"`"),
    ),
    request_body(content = Registration, description = "What is to be another from now on",
        example = json!({"priority": 50, "metadata": {"rack": "r7", "old": null}})),
    responses(
        (status = 200, description = "Its registration is this one now", body = Stored),
        (status = 412, description = "The generation is another one", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn patch(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Asker(actor): Asker,
    precondition: Precondition,
    Query(()): Query<()>,
    JsonBody(body): JsonBody,
) -> Result<Answer, ApiError> {
    let generation_now = |view: &View| view.state.instance(&service, &instance).map(|instance| instance.generation);
    let mut last = Refusal::MovedOn { what: "the instance".to_owned() };
    for _ in 0..PATCH_TRIES {
        let view = read(&state, Consistency::Linearizable).await?;
        let seen = instance_in(&view, &service, &instance)?.1;
        let insisted = match precondition {
            Precondition::Any | Precondition::Exists => None,
            Precondition::Absent => Some(0),
            Precondition::Generation(generation) => Some(generation),
        };
        if let Some(expected) = insisted.filter(|expected| *expected != seen.generation) {
            return Err(Refusal::GenerationMismatch { expected, actual: seen.generation }.into());
        }
        let merged = parse_registration_patch(&body, &seen.registration).map_err(ApiError::Invalid)?;
        let change = InstanceChange {
            service: service.clone(),
            instance: instance.clone(),
            registration: Box::new(merged),
            if_generation: seen.generation,
            actor: actor.clone(),
        };
        let (generation, session) = match state.consensus.propose(Command::InstanceChange(change)).await? {
            Ok(Done::Stored { generation, session, created: _ }) => (generation, session),
            Ok(done @ (Done::Ok | Done::Started { .. } | Done::Granted { .. } | Done::Promoted { .. })) => {
                return Err(ApiError::Reply(done));
            }
            // Somebody else was faster: what was merged was made from what is no longer there.
            Err(refusal @ Refusal::GenerationMismatch { .. }) => {
                last = refusal;
                continue;
            }
            Err(refusal) => return Err(refusal.into()),
        };
        let revision = applied_here(&state, |view| generation_now(view).is_some_and(|now| now >= generation)).await;
        return stored(&Stored { service, instance: Some(instance), generation, created: false, session, revision });
    }
    Err(last.into())
}

/// An instance
#[utoipa::path(get, path = "/v1/services/{service}/instances/{instance}", tag = "instances",
    operation_id = "get_instance",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses((status = 200, description = "The instance", body = InstanceView)))]
pub(crate) async fn get(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    let view = read(&state, consistency).await?;
    let (service, instance) = instance_in(&view, &service, &instance)?;
    let mut told = views::instance(&view.state, service, instance, state.consensus.now().time);
    let counts = counts(&state, consistency, &service.name, Some(vec![instance.id.clone()])).await;
    views::count(std::slice::from_mut(&mut told), &counts);
    let answer = Answer::json(&told)?;
    Ok(answer.at(view.state.meta.revision).generation(instance.generation))
}

/// Deregister an instance
///
/// If it is the active, the service has none until the next promotion.
#[utoipa::path(delete, path = "/v1/services/{service}/instances/{instance}", tag = "instances",
    operation_id = "delete_instance",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("If-Match" = Option<String>, Header, description = "Only if its generation is this one, as in `\"3\"`"),
    ),
    responses((status = 200, description = "It is gone", body = Removed)))]
pub(crate) async fn delete(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Asker(actor): Asker,
    precondition: Precondition,
    Query(()): Query<()>,
    _: NoBody,
) -> Result<Answer, ApiError> {
    let generation_now = |view: &View| view.state.instance(&service, &instance).map(|instance| instance.generation);
    propose_if(&state, precondition, generation_now, |if_generation| {
        Command::InstanceDelete(InstanceDelete {
            service: service.clone(),
            instance: instance.clone(),
            if_generation,
            actor: actor.clone(),
        })
    })
    .await?;
    let revision = applied_here(&state, |view| generation_now(view).is_none()).await;
    removed(&Removed { service, instance: Some(instance), removed: true, revision })
}
