//! The rails: what keeps Baton from moving services by itself at a bad moment. They bind automatic moves only; an operator's
//! move asks none of them.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, TransitionId};
use crate::policy::{Mode, ProofKind, words};
use crate::probe::Health;
use crate::state::{Active, Instance, Pause, ReleaseHow, Service, State};
use crate::time::{ClusterTime, Millis};
use crate::transition::{Transition, TransitionKind, TransitionStatus};

/// So many services must want to fail over at once before it counts as a mass failure: two may well be a coincidence.
pub const BRAKE_AT_LEAST: usize = 3;

/// Services that failed over within this time count as wanting it at once with those that want it now: detection takes
/// seconds, and differs from service to service.
pub const BRAKE_WITHIN: Millis = Millis::secs(10);

words! {
    /// What keeps Baton from moving a service.
    RailKind {
        /// An operator has paused the automation of this service, or of all.
        Paused = "paused",
        /// Too many services wanted to fail over at once.
        Brake = "brake",
        /// It was moved too often, and nobody has looked since.
        Latch = "latch",
        /// It was moved just now.
        MinInterval = "min_interval",
        /// It would be moved too often.
        MaxInWindow = "max_in_window",
    }
}

words! {
    /// What an operator's word was said of, and so what ends it.
    PauseScope {
        /// This service.
        Service = "service",
        /// All services.
        All = "all",
    }
}

words! {
    /// What is to be set, so that everybody sees that a rail holds.
    Sets {
        /// The brake, for all services.
        Brake = "brake",
        /// The latch of this service.
        Latch = "latch",
    }
}

/// One rail, with what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rail {
    /// Which one.
    pub rail: RailKind,
    /// Whether it lets the move through.
    pub pass: bool,
    /// The measured values, in a sentence. That it does not bind an operator goes for each of them: see [`Rail::told`].
    pub why: String,
    /// When time alone changes that.
    pub until: Option<ClusterTime>,
    /// What is to be set.
    pub sets: Option<Sets>,
    /// Whose pause it is, where it is one.
    pub scope: Option<PauseScope>,
}

impl Rail {
    /// The sentence for whoever is refused, with what would override it.
    pub fn told(&self) -> String {
        format!("{}; what an operator asks for does not wait for it", self.why)
    }
}

fn rail(rail: RailKind, pass: bool, why: impl Into<String>) -> Rail {
    Rail { rail, pass, why: why.into(), until: None, sets: None, scope: None }
}

/// How many services want to fail over at once, and of how many. Those that are about to are among them, so that the brake
/// is decided by what would be, and not by what was before the move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wave {
    /// Want to now, or failed over within [`BRAKE_WITHIN`].
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

/// Looks at all services. What was wanted before an operator released the brake does not count again, nor does it when it is
/// carried out after that. A service whose active an operator isolated, or said itself that
/// it stops, does not count at all: nothing failed there.
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
        let failure = |id: TransitionId| {
            state.transitions.get(&id).is_some_and(|it| {
                let automatic = it.kind == TransitionKind::Failover && it.actor.is_none();
                if !automatic || !fresh(it.agreed) || said_so(service, it) {
                    return false;
                }
                let from = it.from.as_ref().and_then(|from| service.instances.get(from));
                from.is_none_or(|from| from.health != Health::Isolated)
            })
        };
        // All services are looked at for each move: whatever is enough comes first.
        if ill {
            wave.wanting += 1;
            continue;
        }
        let open = service.assignment.transition.is_some_and(failure);
        // By the record and not by the count of moves: a failback is no failure, and what was wanted before the brake was
        // released does not count because it is done now.
        let lately = |active: &&Active| now.since(active.at) < BRAKE_WITHIN;
        let moved = service.assignment.active.as_ref().filter(lately).is_some_and(|active| failure(active.transition));
        wave.wanting += usize::from(open || moved);
    }
    wave
}

/// Whether the move began because the holder itself said that it stops: a host that is shut down with all its services is
/// no mass failure, and nobody can have been mistaken about it.
fn said_so(service: &Service, transition: &Transition) -> bool {
    let proved = transition.proof.as_ref().is_some_and(|proof| proof.proof == ProofKind::Release);
    let holder = service.assignment.last_holder.as_ref();
    let released = holder.and_then(|holder| holder.released.as_ref()).is_some_and(|it| it.how == ReleaseHow::Said);
    proved || (released && transition.status == TransitionStatus::Running)
}

/// Every rail that an automatic move of that kind must pass, in the order in which they are told. A transition that has
/// promoted somebody already (who did not acknowledge) has been counted, and need not pass the last ones again.
pub fn rails_of(state: &State, service: &Service, kind: TransitionKind, counted: bool, now: ClusterTime) -> Vec<Rail> {
    let mut rails = paused(state, service, now);
    match kind {
        TransitionKind::Placement => return rails,
        TransitionKind::Failover | TransitionKind::Switchover | TransitionKind::Failback => {}
    }
    // While the brake is set nothing is moved: whoever looks well then may not be. What sets it are failovers alone.
    let counts = kind == TransitionKind::Failover || state.meta.brake.is_some();
    rails.push(if counts { brake(state, now) } else { rail(RailKind::Brake, true, "the brake is not set") });
    if !counted {
        rails.push(latch(service, now));
        rails.push(min_interval(service, now));
    }
    rails
}

/// The service's own pause and that of all: each is told where it holds, since each has its own end.
fn paused(state: &State, service: &Service, now: ClusterTime) -> Vec<Rail> {
    let tell = |pause: &Pause, scope: PauseScope| {
        let what = match scope {
            PauseScope::Service => "of this service",
            PauseScope::All => "of all services",
        };
        let why = format!(
            "the automation {what} is paused until {} by {}: {}; a resume {what} ends that",
            pause.until, pause.owner, pause.reason
        );
        Rail { until: Some(pause.ends), scope: Some(scope), ..rail(RailKind::Paused, false, why) }
    };
    let both = [(service.rails.pause.as_ref(), PauseScope::Service), (state.meta.pause.as_ref(), PauseScope::All)];
    let holds = both.into_iter().filter_map(|(pause, scope)| Some((pause.filter(|pause| pause.holds(now))?, scope)));
    let rails: Vec<Rail> = holds.map(|(pause, scope)| tell(pause, scope)).collect();
    if rails.is_empty() { vec![rail(RailKind::Paused, true, "automation is not paused")] } else { rails }
}

fn brake(state: &State, now: ClusterTime) -> Rail {
    if let Some(brake) = &state.meta.brake {
        let why = format!(
            "the brake is set: {} of {} services wanted to fail over at once, which looks like one cause and not many; a \
             resume of all services releases it",
            brake.wanting, brake.of
        );
        return rail(RailKind::Brake, false, why);
    }
    let wave = wave(state, now);
    let why = format!(
        "{} of {} services want to fail over at once or did so within {BRAKE_WITHIN}; the brake is set where they are at \
         least {BRAKE_AT_LEAST} and more than half",
        wave.wanting, wave.of
    );
    Rail { sets: wave.breaks().then_some(Sets::Brake), ..rail(RailKind::Brake, !wave.breaks(), why) }
}

fn latch(service: &Service, now: ClusterTime) -> Rail {
    let policy = &service.spec.failover;
    let (max, window) = (policy.max_in_window, policy.window);
    if let Some(latch) = &service.rails.latch {
        let why = format!(
            "it was moved {} within {}, and max_in_window is {max}: an operator must look, and then resume it",
            times(latch.moves as usize),
            latch.window
        );
        return rail(RailKind::Latch, false, why);
    }
    let moves = service.rails.moves_within(window, now);
    let pass = moves < max as usize;
    let told = if moves == 0 { "not moved".to_owned() } else { format!("moved {}", times(moves)) };
    let why = format!("it was {told} within {window}, max_in_window is {max}");
    Rail { sets: (!pass).then_some(Sets::Latch), ..rail(RailKind::MaxInWindow, pass, why) }
}

/// How often, as people say it.
pub fn times(number: usize) -> String {
    match number {
        1 => "once".to_owned(),
        _ => format!("{number} times"),
    }
}

fn min_interval(service: &Service, now: ClusterTime) -> Rail {
    let min = service.spec.failover.min_interval;
    match service.rails.moves.last() {
        None => rail(RailKind::MinInterval, true, "it was not moved automatically yet"),
        Some(last) => {
            let ago = now.since(*last);
            let free = last.plus(min);
            let why = format!("the last automatic move was {} ago, min_interval is {min}", ago.passed());
            Rail { until: (now < free).then_some(free), ..rail(RailKind::MinInterval, now >= free, why) }
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
