//! From the state to the words of the wire. Only telling: nothing is decided here.

use std::collections::BTreeMap;

use baton_client::view::{
    ActiveView, InstanceState, InstanceSummary, InstanceView, Role, ServiceSummary, ServiceView, VerdictView,
};
use baton_core::id::InstanceId;
use baton_core::probe::Health;
use baton_core::state::{Instance, Service, State};

use crate::reports::wire::Known;

/// The active of a service, if there is one.
pub(crate) fn active(service: &Service) -> Option<ActiveView> {
    let active = service.assignment.active.as_ref()?;
    // `apply` removes an instance from the assignment before it removes the instance, so it is always found.
    let instance = service.instances.get(&active.instance);
    Some(ActiveView {
        service: service.name.clone(),
        instance: active.instance.clone(),
        address: instance.and_then(|instance| instance.registration.address.clone()),
        token: active.token,
        since: active.since,
        fencing: active.fencing,
        phase: service.assignment.phase,
        health: instance.map_or(Health::Unknown, |instance| instance.health),
        transition: active.transition,
        revision: service.changed,
    })
}

/// What the leader knows of a service's instances beside the log, where it could be asked.
pub(crate) type CountsOf = Option<BTreeMap<InstanceId, Known>>;

/// Adds what is counted to what is told of instances.
pub(crate) fn count(views: &mut [InstanceView], counts: &CountsOf) {
    for view in views {
        let known = counts.as_ref().and_then(|counts| counts.get(&view.id));
        view.failure_counts = known.map(|known| known.counts);
        view.lag = known.and_then(|known| known.lag);
    }
}

/// An instance with all that is known of it.
pub(crate) fn instance(state: &State, service: &Service, instance: &Instance) -> InstanceView {
    let registration = &instance.registration;
    InstanceView {
        id: instance.id.clone(),
        service: service.name.clone(),
        address: registration.address.clone(),
        role: Role::of(service, instance),
        health: instance.health,
        counts: state.count(service, instance),
        verdicts: instance
            .verdicts
            .iter()
            .map(|(observer, record)| VerdictView {
                observer: *observer,
                verdict: record.verdict,
                since: record.since,
                evidence: record.evidence.clone(),
            })
            .collect(),
        zone: registration.zone.clone(),
        tier: registration.tier,
        priority: registration.priority,
        weight: registration.weight,
        effective_weight: registration.weight,
        failure_counts: None,
        liveness: registration.liveness,
        deregister_after: registration.deregister_after,
        metadata: registration.metadata.clone(),
        overrides: registration.overrides.clone(),
        session: instance.session.clone(),
        lag: None,
        generation: instance.generation,
        registered_at: instance.registered_at,
    }
}

/// A service with all that is known of it.
pub(crate) fn service(state: &State, service: &Service) -> ServiceView {
    ServiceView {
        name: service.name.clone(),
        mode: service.spec.mode,
        spec: service.spec.as_ref().clone(),
        generation: service.generation,
        created_at: service.created_at,
        updated_at: service.updated_at,
        revision: service.changed,
        phase: service.assignment.phase,
        active: active(service),
        transition: service.assignment.transition,
        instances: service.instances.values().map(|one| instance(state, service, one)).collect(),
    }
}

/// A service in a snapshot.
pub(crate) fn summary(service: &Service) -> ServiceSummary {
    ServiceSummary {
        name: service.name.clone(),
        mode: service.spec.mode,
        generation: service.generation,
        revision: service.changed,
        phase: service.assignment.phase,
        active: active(service),
        transition: service.assignment.transition,
        instances: service
            .instances
            .values()
            .map(|instance| InstanceSummary {
                id: instance.id.clone(),
                address: instance.registration.address.clone(),
                role: Role::of(service, instance),
                health: instance.health,
                tier: instance.registration.tier,
                priority: instance.registration.priority,
                effective_weight: instance.registration.weight,
                generation: instance.generation,
            })
            .collect(),
    }
}

/// An instance in the few words that a load balancer's check gets.
pub(crate) fn state_of(service: &Service, instance: &Instance) -> InstanceState {
    InstanceState {
        service: service.name.clone(),
        instance: instance.id.clone(),
        role: Role::of(service, instance),
        health: instance.health,
        phase: service.assignment.phase,
        token: service.active_token().filter(|_| service.is_active(&instance.id)),
    }
}
