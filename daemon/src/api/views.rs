//! From the state to the words of the wire. Only telling: nothing is decided here.

use std::collections::BTreeMap;

use baton_client::view::{
    ActiveView, AdminView, BreakerView, ClusterAutomation, InstanceState, InstanceSummary, InstanceView, JudgedView,
    PauseView, RecoveryView, Role, RoleView, ServiceAutomation, ServiceSummary, ServiceView, VerdictView,
};
use baton_core::breaker::Breaker;
use baton_core::id::InstanceId;
use baton_core::policy::BreakerPolicy;
use baton_core::probe::Health;
use baton_core::state::{Admin, Instance, Pause, Service, State};
use baton_core::time::{ClusterTime, Millis};

use crate::reports::wire::Known;

/// A weight as it is told, in units of the registered one, or a share: to the thousandth.
#[expect(clippy::cast_precision_loss, reason = "weights are at most 1,000 units of a thousand")]
pub(crate) fn weight(thousandths: u64) -> f64 {
    thousandths as f64 / 1_000.0
}

/// The share of its weight that an instance is told to have, in thousandths: none while it is unhealthy or held back after
/// that, whatever it will get at first when it is taken back. Where a service fails open, `endpoints` and `pick` tell by
/// which weight such a one is called all the same.
fn told_share(service: &Service, instance: &Instance, now: ClusterTime) -> u64 {
    let out = instance.recovery.as_ref().is_some_and(|recovery| recovery.back_since.is_none());
    if out { 0 } else { instance.share(&service.spec.recovery, now) }
}

fn told_weight(service: &Service, instance: &Instance, now: ClusterTime) -> f64 {
    weight(u64::from(instance.registration.weight) * told_share(service, instance, now))
}

fn breaker(breaker: &Breaker, policy: &BreakerPolicy, now: ClusterTime) -> BreakerView {
    let until = breaker.open_until();
    BreakerView {
        state: breaker.state,
        generation: breaker.generation,
        since_ms: now.since(breaker.since).0,
        trips: breaker.trips,
        open_for_ms: until.map(|_| breaker.open_for.0),
        half_open_in_ms: until.map(|until| until.since(now).0),
        trials_out: breaker.trials_out(policy, now),
        successes: breaker.successes,
        numbers: breaker.numbers,
    }
}

fn admin(admin: &Admin, now: ClusterTime) -> AdminView {
    AdminView {
        state: admin.state,
        reason: admin.reason.clone(),
        actor: admin.actor.clone(),
        since: admin.since,
        until: admin.until,
        ends_in_ms: admin.ends.map(|ends| ends.since(now).0),
    }
}

fn recovery(service: &Service, instance: &Instance, now: ClusterTime) -> Option<RecoveryView> {
    let (recovery, policy) = (instance.recovery.as_ref()?, &service.spec.recovery);
    let ms = |length: Option<Millis>| length.map(|length| length.0);
    Some(RecoveryView {
        failures: recovery.failures,
        held_back: recovery.back_since.is_none(),
        back_in_ms: ms(recovery.due(policy).map(|due| due.since(now))),
        cooldown_ms: ms(recovery.cooling(now)),
        share: weight(told_share(service, instance, now)),
    })
}

fn pause(pause: &Pause, now: ClusterTime) -> PauseView {
    PauseView {
        reason: pause.reason.clone(),
        owner: pause.owner.clone(),
        actor: pause.actor.clone(),
        since: pause.since,
        until: pause.until,
        ends_in_ms: pause.ends.since(now).0,
    }
}

/// What keeps Baton from moving a service by itself at `now`. A pause that has come to its end is none, even where nobody has
/// said so in the log yet.
pub(crate) fn automation(service: &Service, now: ClusterTime) -> ServiceAutomation {
    let paused = service.rails.pause.as_ref().filter(|pause| pause.holds(now));
    ServiceAutomation { paused: paused.map(|one| pause(one, now)), latched: service.rails.latch.clone() }
}

/// What keeps Baton from moving any service by itself at `now`.
pub(crate) fn cluster_automation(state: &State, now: ClusterTime) -> ClusterAutomation {
    let paused = state.meta.pause.as_ref().filter(|pause| pause.holds(now));
    ClusterAutomation { paused: paused.map(|one| pause(one, now)), braked: state.meta.brake.clone() }
}

/// What an instance is to its service now, in the words of its role stream.
pub(crate) fn role(service: &Service, instance: &Instance, now: ClusterTime) -> RoleView {
    RoleView {
        service: service.name.clone(),
        instance: instance.id.clone(),
        role: Role::of(service, instance, now),
        token: service.active_token().filter(|_| service.is_active(&instance.id)),
        phase: service.assignment.phase,
        revision: service.changed,
    }
}

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
        lease_expires_in_ms: None,
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

/// An instance with all that is known of it at `now`.
pub(crate) fn instance(state: &State, service: &Service, instance: &Instance, now: ClusterTime) -> InstanceView {
    let registration = &instance.registration;
    InstanceView {
        id: instance.id.clone(),
        service: service.name.clone(),
        address: registration.address.clone(),
        role: Role::of(service, instance, now),
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
        judged: instance
            .judged
            .iter()
            .map(|(source, record)| JudgedView {
                source: *source,
                verdict: record.verdict,
                since: record.since,
                evidence: record.evidence.clone(),
            })
            .collect(),
        breaker: breaker(&instance.breaker, &service.spec.breaker, now),
        admin: admin(&instance.admin, now),
        recovery: recovery(service, instance, now),
        zone: registration.zone.clone(),
        tier: registration.tier,
        priority: registration.priority,
        weight: registration.weight,
        effective_weight: told_weight(service, instance, now),
        failure_counts: None,
        liveness: registration.liveness,
        deregister_after: registration.deregister_after,
        metadata: registration.metadata.clone(),
        overrides: registration.overrides.clone(),
        session: instance.session.clone(),
        lag: None,
        left: instance.left,
        generation: instance.generation,
        registered_at: instance.registered_at,
    }
}

/// A service with all that is known of it at `now`.
pub(crate) fn service(state: &State, service: &Service, now: ClusterTime) -> ServiceView {
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
        automation: automation(service, now),
        instances: service.instances.values().map(|one| instance(state, service, one, now)).collect(),
    }
}

/// A service in a snapshot.
pub(crate) fn summary(service: &Service, now: ClusterTime) -> ServiceSummary {
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
                role: Role::of(service, instance, now),
                health: instance.health,
                tier: instance.registration.tier,
                priority: instance.registration.priority,
                effective_weight: told_weight(service, instance, now),
                breaker: instance.breaker.state,
                admin: instance.admin.state,
                generation: instance.generation,
            })
            .collect(),
    }
}

/// An instance in the few words that a load balancer's check gets.
pub(crate) fn state_of(service: &Service, instance: &Instance, now: ClusterTime) -> InstanceState {
    InstanceState {
        service: service.name.clone(),
        instance: instance.id.clone(),
        role: Role::of(service, instance, now),
        health: instance.health,
        phase: service.assignment.phase,
        token: service.active_token().filter(|_| service.is_active(&instance.id)),
    }
}
