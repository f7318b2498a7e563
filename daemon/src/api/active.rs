//! Who is active: for clients that ask, and for load balancers that only look at the status.

use axum::extract::State;
use axum::http::StatusCode;
use baton_client::view::{ActiveView, InstanceState, Problem, Role};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::probe::Health;

use super::answer::Answer;
use super::error::ApiError;
use super::extract::{OfInstance, OfService};
use super::longpoll::{instance_in, read, service_in};
use super::query::{Consistency, Query};
use super::{ApiState, views};

/// The active instance, with its token
///
/// 503 `no_active` with the `phase` when there is none. Services with `active_active` have none: `endpoints` lists who
/// serves, `pick` names one of them.
#[utoipa::path(get, path = "/v1/services/{service}/active", tag = "active", operation_id = "get_active",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses(
        (status = 200, description = "The active", body = ActiveView),
        (status = 503, description = "`no_active`, with the `phase`; or `no_quorum`", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn active(
    State(state): State<ApiState>,
    OfService(name): OfService,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    let view = read(&state, consistency).await?;
    let service = service_in(&view, &name)?;
    let mut active = views::active(service).ok_or_else(|| ApiError::NoActive {
        service: name.clone(),
        mode: service.spec.mode,
        phase: service.assignment.phase,
    })?;
    // Only the leader knows, and only where there is a lease is it worth asking.
    let leased = service.assignment.last_holder.as_ref().is_some_and(|holder| holder.lease.is_some());
    if leased && consistency == Consistency::Linearizable {
        let facts = state.reports.facts(&name).await;
        active.lease_expires_in_ms = facts.lease_expires_in(service).map(|left| left.0);
    }
    Ok(Answer::json(&active)?.at(view.state.meta.revision))
}

/// 200 where `holds`, else 503, with the same body: a load balancer reads the status, a person the rest.
async fn check(
    state: &ApiState,
    consistency: Consistency,
    service: &ServiceName,
    instance: &InstanceId,
    holds: impl Fn(&InstanceState) -> bool,
) -> Result<Answer, ApiError> {
    let view = read(state, consistency).await?;
    let (service, instance) = instance_in(&view, service, instance)?;
    let told = views::state_of(service, instance, state.consensus.now().time);
    let status = if holds(&told) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Ok(Answer::json(&told)?.at(view.state.meta.revision).status(status))
}

/// Is it the active?
///
/// This is the role that was agreed on, and not whether it may act. A holder keeps it until the move that takes it away
/// begins, which a pause, for one, holds back: so the answer may be yes when its lease is known to have ended and the holder
/// has stopped by itself. `pick` and `endpoints` refuse such a holder, as soon as its silence has made it `unhealthy`;
/// `lease_expires_in_ms` of `…/active` tells what is left of the lease, 0 where it has ended.
///
/// In an `active_active` service every instance is that calls may go to: `healthy` or `suspect`, not cooling down,
/// enabled, its breaker not open.
#[utoipa::path(method(get, head), path = "/v1/services/{service}/instances/{instance}/is-active", tag = "active",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses(
        (status = 200, description = "Yes", body = InstanceState),
        (status = 503, description = "No", body = InstanceState),
    ))]
pub(crate) async fn is_active(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    check(&state, consistency, &service, &instance, |told| told.role == Role::Active).await
}

/// Is it passive and healthy: may it serve what a standby may, such as reads?
///
/// Here a doubt is enough for a no: others can do the same.
#[utoipa::path(method(get, head), path = "/v1/services/{service}/instances/{instance}/is-passive", tag = "active",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses(
        (status = 200, description = "Yes", body = InstanceState),
        (status = 503, description = "No: it is the active, or it is not healthy", body = InstanceState),
    ))]
pub(crate) async fn is_passive(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    check(&state, consistency, &service, &instance, |told| told.role == Role::Passive && told.health == Health::Healthy)
        .await
}

/// Is it healthy?
///
/// `suspect` is not `unhealthy`: until a verdict quorum says down, the answer is yes.
#[utoipa::path(method(get, head), path = "/v1/services/{service}/instances/{instance}/is-healthy", tag = "active",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses(
        (status = 200, description = "Yes: `healthy` or `suspect`", body = InstanceState),
        (status = 503, description = "No: `unhealthy`, `isolated` or `unknown`", body = InstanceState),
    ))]
pub(crate) async fn is_healthy(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(consistency): Query<Consistency>,
) -> Result<Answer, ApiError> {
    check(&state, consistency, &service, &instance, |told| match told.health {
        Health::Healthy | Health::Suspect => true,
        Health::Unhealthy | Health::Isolated | Health::Unknown => false,
    })
    .await
}
