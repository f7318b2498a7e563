//! The rails: what keeps Baton from moving services by itself at a bad moment. They bind automatic moves only; an operator's
//! move asks none of them.

use serde::{Deserialize, Serialize};

use crate::id::InstanceId;
use crate::policy::Mode;
use crate::probe::Health;
use crate::state::{Instance, Service, State};
use crate::time::{ClusterTime, Millis};
use crate::transition::{TransitionKind, TransitionStatus};

/// So many services must want to fail over at once before it counts as a mass failure: two may well be a coincidence.
pub const BRAKE_AT_LEAST: usize = 3;

/// Services that failed over within this time count as wanting it at once with those that want it now: detection takes
/// seconds, and differs from service to service.
pub const BRAKE_WITHIN: Millis = Millis::secs(10);

/// One rail, with what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rail {
    /// The rail's word: `paused`, `brake`, `latch`, `min_interval`, `max_in_window`.
    pub rail: String,
    /// Whether it lets the move through.
    pub pass: bool,
    /// The measured values, and what would override it, in a sentence.
    pub why: String,
    /// When time alone changes that.
    pub until: Option<ClusterTime>,
    /// The latch, or the brake, is to be set.
    pub sets: bool,
}

fn rail(rail: &str, pass: bool, why: impl Into<String>) -> Rail {
    Rail { rail: rail.to_owned(), pass, why: why.into(), until: None, sets: false }
}

/// How many services want to fail over at once, and of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wave {
    /// Want to now, or did within [`BRAKE_WITHIN`].
    pub wanting: usize,
    /// Services that somebody holds or held.
    pub of: usize,
}

impl Wave {
    /// Whether it is a mass failure: at least three, and more than half.
    pub const fn breaks(&self) -> bool {
        self.wanting >= BRAKE_AT_LEAST && self.wanting * 2 > self.of
    }
}

/// Looks at all services. What was wanted before an operator released the brake does not count again.
pub fn wave(state: &State, now: ClusterTime) -> Wave {
    let released = state.meta.brake_released;
    let mut wave = Wave::default();
    for service in state.services.values() {
        if service.spec.mode == Mode::ActiveActive || service.assignment.last_holder.is_none() {
            continue;
        }
        wave.of += 1;
        let fresh = |since: ClusterTime| released == ClusterTime(0) || since > released;
        let active = service.assignment.active.as_ref().and_then(|active| service.instances.get(&active.instance));
        let ill = active.is_some_and(|it| it.health == Health::Unhealthy && fresh(it.health_since));
        let open = state.open_transition(service).is_some_and(|open| {
            open.kind == TransitionKind::Failover
                && open.actor.is_none()
                && open.status == TransitionStatus::Running
                && fresh(open.agreed)
        });
        let moved = service.rails.moves.last().is_some_and(|at| now.since(*at) < BRAKE_WITHIN && fresh(*at));
        wave.wanting += usize::from(ill || open || moved);
    }
    wave
}

/// Every rail that an automatic move of that kind must pass, in the order in which they are told. A transition that has
/// promoted somebody already (who did not acknowledge) has been counted, and need not pass the last ones again.
pub fn rails_of(state: &State, service: &Service, kind: TransitionKind, counted: bool, now: ClusterTime) -> Vec<Rail> {
    let mut rails = vec![paused(state, service, now)];
    match kind {
        TransitionKind::Placement => return rails,
        TransitionKind::Failover | TransitionKind::Switchover | TransitionKind::Failback => {}
    }
    if kind == TransitionKind::Failover {
        rails.push(brake(state, now));
    }
    if !counted {
        rails.push(latch(service, now));
        rails.push(min_interval(service, now));
    }
    rails
}

fn paused(state: &State, service: &Service, now: ClusterTime) -> Rail {
    let own = service.rails.pause.as_ref().filter(|pause| pause.holds(now)).map(|pause| (pause, "of this service"));
    let all = state.meta.pause.as_ref().filter(|pause| pause.holds(now)).map(|pause| (pause, "of all services"));
    match own.or(all) {
        None => rail("paused", true, "automation is not paused"),
        Some((pause, what)) => {
            let resume = if own.is_some() { "POST …/resume" } else { "POST /v1/automation/resume" };
            let why = format!(
                "the automation {what} is paused until {} by {}: {}; {resume} ends that",
                pause.until, pause.owner, pause.reason
            );
            Rail { until: Some(pause.ends), ..rail("paused", false, why) }
        }
    }
}

fn brake(state: &State, now: ClusterTime) -> Rail {
    if let Some(brake) = &state.meta.brake {
        let why = format!(
            "{} of {} services wanted to fail over at once, which looks like one cause and not many: POST \
             /v1/automation/resume releases the brake; an operator's failover does not wait for it",
            brake.wanting, brake.of
        );
        return rail("brake", false, why);
    }
    let wave = wave(state, now);
    let why = format!(
        "{} of {} services want to fail over at once; the brake is set from {BRAKE_AT_LEAST} on and more than half",
        wave.wanting, wave.of
    );
    Rail { sets: wave.breaks(), ..rail("brake", !wave.breaks(), why) }
}

fn latch(service: &Service, now: ClusterTime) -> Rail {
    let policy = &service.spec.failover;
    let (max, window) = (policy.max_in_window, policy.window);
    if let Some(latch) = &service.rails.latch {
        let why = format!(
            "it was moved {} times within {} (max_in_window is {max}): an operator must look, and POST …/resume",
            latch.moves, latch.window
        );
        return rail("latch", false, why);
    }
    let moves = service.rails.moves_within(window, now);
    let pass = moves < max as usize;
    let why = format!("moved {moves} times within {window}, max_in_window is {max}");
    Rail { sets: !pass, ..rail("max_in_window", pass, why) }
}

fn min_interval(service: &Service, now: ClusterTime) -> Rail {
    let min = service.spec.failover.min_interval;
    match service.rails.moves.last() {
        None => rail("min_interval", true, "it was not moved automatically yet"),
        Some(last) => {
            let ago = now.since(*last);
            let free = last.plus(min);
            let why = format!(
                "the last automatic move was {} ago, min_interval is {min}; an operator's move does not wait for it",
                ago.told()
            );
            Rail { until: (now < free).then_some(free), ..rail("min_interval", now >= free, why) }
        }
    }
}

/// The instances that are strictly preferred to `active`, best first: by tier, then priority, then id. That is what a
/// failback goes back to.
pub fn preferred_over<'a>(service: &'a Service, active: &InstanceId) -> Vec<&'a Instance> {
    let key = |it: &Instance| (it.registration.tier, std::cmp::Reverse(it.registration.priority));
    let Some(held) = service.instances.get(active) else { return Vec::new() };
    let mut preferred: Vec<&Instance> =
        service.instances.values().map(AsRef::as_ref).filter(|it| key(it) < key(held)).collect();
    preferred.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id)));
    preferred
}
