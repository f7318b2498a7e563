//! What stands for and against calling an instance. No order and no turn: that is the picker's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::breaker::{BreakerState, Lets};
use crate::id::{InstanceId, ServiceName};
use crate::policy::{Liveness, Mode};
use crate::probe::Health;
use crate::state::{AdminState, Instance, Service};
use crate::time::{ClusterTime, Millis};

/// How an instance stands, its trial places left aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may be called.
    Well,
    /// It is doubted, or nobody knows: it may be called where nobody better may.
    Doubted,
    /// What is seen of it stands against it.
    Sick(Obstacle),
    /// An operator, its breaker or its role stands against it.
    Refused(Obstacle),
}

/// What stands against calling an instance. The order is the order in which they are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    Unhealthy,
    HeldBack,
    CoolingDown,
    BreakerOpen,
    TrialsOut,
    Draining,
    Maintenance,
    Isolated,
    Passive,
    Excluded,
}

impl Obstacle {
    const fn told(self) -> &'static str {
        match self {
            Self::Unhealthy => "unhealthy",
            Self::HeldBack => "held back after a failure",
            Self::CoolingDown => "cooling down",
            Self::BreakerOpen => "breaker open",
            Self::TrialsOut => "breaker half open with all trial calls out",
            Self::Draining => "draining",
            Self::Maintenance => "in maintenance",
            Self::Isolated => "isolated",
            Self::Passive => "passive",
            Self::Excluded => "excluded by this request",
        }
    }

    /// What its end is called, where time alone ends it.
    const fn ends(self) -> &'static str {
        match self {
            Self::BreakerOpen => "half open",
            Self::Unhealthy
            | Self::HeldBack
            | Self::CoolingDown
            | Self::TrialsOut
            | Self::Draining
            | Self::Maintenance
            | Self::Isolated
            | Self::Passive
            | Self::Excluded => "over",
        }
    }
}

/// How `instance` stands. The operator's word comes first, then the breaker, then what is seen of it.
pub(super) fn standing(service: &Service, instance: &Instance, now: ClusterTime) -> Standing {
    match instance.admin.state {
        AdminState::Enabled => {}
        AdminState::Draining => return Standing::Refused(Obstacle::Draining),
        AdminState::Maintenance => return Standing::Refused(Obstacle::Maintenance),
        AdminState::Isolated => return Standing::Refused(Obstacle::Isolated),
    }
    let serves_all = match service.spec.mode {
        Mode::ActivePassive if !service.is_active(&instance.id) => return Standing::Refused(Obstacle::Passive),
        Mode::ActivePassive => false,
        Mode::ActiveActive => true,
    };
    if instance.breaker.state == BreakerState::Open {
        return Standing::Refused(Obstacle::BreakerOpen);
    }
    match instance.health {
        Health::Unhealthy => {
            let waits = instance.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some());
            Standing::Sick(if waits { Obstacle::HeldBack } else { Obstacle::Unhealthy })
        }
        Health::Isolated => Standing::Refused(Obstacle::Isolated),
        // Whoever is active was chosen, and stays so until it is agreed to be down: there is nobody else to call. Its
        // cool-down, too, was weighed when it was chosen.
        Health::Healthy | Health::Suspect | Health::Unknown if !serves_all => Standing::Well,
        Health::Healthy | Health::Suspect | Health::Unknown if cooldown_end(instance, now).is_some() => {
            Standing::Sick(Obstacle::CoolingDown)
        }
        Health::Healthy => Standing::Well,
        // Only calls can show how it is, so calls must go there as to everybody else.
        Health::Unknown if instance.registration.liveness == Liveness::Probe && !service.probes(instance) => {
            Standing::Well
        }
        // Nobody has anything against one of whom nobody knows.
        Health::Suspect | Health::Unknown => Standing::Doubted,
    }
}

/// Whether calls may go to `instance` at all: as a matter of course, with a trial, or where nobody better may be called.
pub fn may_be_called(service: &Service, instance: &Instance, now: ClusterTime) -> bool {
    match standing(service, instance, now) {
        Standing::Well | Standing::Doubted => true,
        Standing::Sick(_) | Standing::Refused(_) => false,
    }
}

/// When its cool-down ends, if it cools down at `now`.
pub(super) fn cooldown_end(instance: &Instance, now: ClusterTime) -> Option<ClusterTime> {
    instance.recovery.as_ref().and_then(|recovery| recovery.cooling(now)).map(|left| now.plus(left))
}

/// Free places for calls: without a bound where the breaker is closed, none where it is open.
pub(super) fn places(service: &Service, instance: &Instance, now: ClusterTime) -> u32 {
    let policy = &service.spec.breaker;
    match instance.breaker.lets_through(policy, now) {
        Lets::Freely => u32::MAX,
        Lets::ATrial => policy.half_open_max_calls.saturating_sub(instance.breaker.trials_out(policy, now)),
        Lets::Nothing => 0,
    }
}

/// Whether the sick are offered where nobody else may be called.
pub(super) fn fails_open(service: &Service) -> bool {
    match service.spec.mode {
        Mode::ActivePassive => false,
        Mode::ActiveActive => service.spec.fail_open,
    }
}

/// An instance that may be called now.
#[derive(Clone, Debug)]
pub struct Callable<'s> {
    /// The instance.
    pub instance: &'s Arc<Instance>,
    /// Its weight now, in thousandths of the registered unit.
    pub weight: u64,
    /// Its breaker is half open: a call must be granted first, which is what a pick does.
    pub trial: bool,
    /// It is sick, and offered only because all are.
    pub degraded: bool,
}

/// Every instance that may be called at `now`, in order of ids, of every tier and zone: those that are well; where there
/// are none the doubted; where there are none of these either and the service fails open, the sick.
pub fn callable(service: &Service, now: ClusterTime) -> Vec<Callable<'_>> {
    let (mut well, mut doubted, mut sick) = (Vec::new(), Vec::new(), Vec::new());
    let open = fails_open(service);
    for instance in service.instances.values() {
        let list = match standing(service, instance, now) {
            Standing::Well => &mut well,
            Standing::Doubted => &mut doubted,
            Standing::Sick(_) if open => &mut sick,
            Standing::Sick(_) | Standing::Refused(_) => continue,
        };
        let places = places(service, instance, now);
        if places > 0 {
            list.push(Callable {
                instance,
                weight: instance.effective_weight(&service.spec.recovery, now),
                trial: places < u32::MAX,
                degraded: false,
            });
        }
    }
    sick.iter_mut().for_each(|callable| callable.degraded = true);
    let mut best = if !well.is_empty() {
        well
    } else if !doubted.is_empty() {
        doubted
    } else {
        sick
    };
    // Whoever takes from this list asks for no trial, so those on trial are in it only where there is nobody else.
    if best.iter().any(|callable| !callable.trial) {
        best.retain(|callable| !callable.trial);
    }
    best
}

/// Nobody may be called.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no instance of \"{service}\" may be called now: {why}")]
pub struct NoInstance {
    /// The service.
    pub service: ServiceName,
    /// How many there are and what stands against them, in a sentence.
    pub why: String,
}

/// Why nobody may be called: what stands against each instance, counted. `exclude` are those that the caller does not want.
pub fn why_nobody(service: &Service, now: ClusterTime, exclude: &[InstanceId]) -> NoInstance {
    let why = match service.spec.mode {
        Mode::ActivePassive => why_not_the_active(service, now, exclude),
        Mode::ActiveActive => why_none_of_all(service, now, exclude),
    };
    NoInstance { service: service.name.clone(), why }
}

fn why_not_the_active(service: &Service, now: ClusterTime, exclude: &[InstanceId]) -> String {
    let active = service.assignment.active.as_ref().and_then(|active| service.instances.get(&active.instance));
    match active {
        None => format!("none is active, its phase is {}", service.assignment.phase),
        Some(active) => {
            let (obstacle, left) = against(service, active, now, exclude.contains(&active.id));
            format!("its active \"{}\" is not to be called: {}", active.id, told(obstacle, left))
        }
    }
}

fn why_none_of_all(service: &Service, now: ClusterTime, exclude: &[InstanceId]) -> String {
    if service.instances.is_empty() {
        return "none is registered".to_owned();
    }
    let mut excluded: Vec<&InstanceId> = exclude.iter().collect();
    excluded.sort_unstable();
    let mut counts: BTreeMap<Obstacle, (usize, Option<Millis>)> = BTreeMap::new();
    for instance in service.instances.values() {
        let (obstacle, left) = against(service, instance, now, excluded.binary_search(&&instance.id).is_ok());
        let (count, soonest) = counts.entry(obstacle).or_default();
        *count += 1;
        *soonest = [*soonest, left].into_iter().flatten().min();
    }
    let mut why = format!("{} registered", service.instances.len());
    for (at, (obstacle, (count, soonest))) in counts.into_iter().enumerate() {
        // Writing to a text does not fail.
        let _ = write!(why, "{}{count} {}", if at == 0 { ": " } else { ", " }, told(obstacle, soonest));
    }
    why
}

/// What stands against calling an instance, and how long it will where time ends it.
fn against(service: &Service, instance: &Instance, now: ClusterTime, excluded: bool) -> (Obstacle, Option<Millis>) {
    let obstacle = match standing(service, instance, now) {
        Standing::Refused(obstacle) => obstacle,
        Standing::Sick(obstacle) if !(excluded && fails_open(service)) => obstacle,
        Standing::Well | Standing::Doubted | Standing::Sick(_) if excluded => Obstacle::Excluded,
        Standing::Well | Standing::Doubted | Standing::Sick(_) => Obstacle::TrialsOut,
    };
    let ends = match obstacle {
        Obstacle::BreakerOpen => instance.breaker.open_until(),
        Obstacle::CoolingDown => cooldown_end(instance, now),
        Obstacle::HeldBack => instance.recovery.as_ref().and_then(|recovery| recovery.due(&service.spec.recovery)),
        Obstacle::Maintenance | Obstacle::Draining | Obstacle::Isolated => instance.admin.ends,
        Obstacle::TrialsOut | Obstacle::Unhealthy | Obstacle::Passive | Obstacle::Excluded => None,
    };
    (obstacle, ends.map(|ends| ends.since(now)))
}

fn told(obstacle: Obstacle, left: Option<Millis>) -> String {
    match left {
        None => obstacle.told().to_owned(),
        // In whole seconds, rounded up: nobody plans by milliseconds of a wait.
        Some(left) => {
            format!("{} ({} in {})", obstacle.told(), obstacle.ends(), Millis::secs(left.0.div_ceil(1_000)))
        }
    }
}
