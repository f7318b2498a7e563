//! What to do about a service, and why not more: the plan and the report are made by one pass over the same gates, so
//! that `explain` can never disagree with what is done. Nothing here changes anything: a plan is a proposal that names
//! what it saw, and `apply` refuses it when that has moved on.

mod candidates;
mod due;
mod facts;
mod manual;
mod moving;
mod report;
mod tell;
mod upkeep;

pub use candidates::rank;
pub use due::{Due, instances_due};
pub use facts::{Facts, debts_due};
pub use manual::{ManualMove, ManualPlan, ManualRequest, plan_manual};
pub use report::{CandidateReport, Decision, Gate, GateVerdict, OpenMove, OperatorMay, ServiceReport};
pub use upkeep::{BACK_WITHIN, EVENTS_KEPT, LOST_AFTER, observers, pauses_due, retention};

use crate::command::{ActivationExpire, Command, Target, TransitionStart};
use crate::id::InstanceId;
use crate::lease::{LeaseClaim, LeaseStanding};
use crate::pick::{callable, why_nobody};
use crate::policy::{FailbackMode, Mode, ProofKind, inactive_parts};
use crate::probe::{Health, Verdict};
use crate::rules::{
    Asker, Grounds, NoProof, Seek, Sets, hook_over, may_be_promoted, not_eligible, only_lag_is_missing, preferred_over,
    proof_that_holds, rails_of, word_is_about,
};
use crate::state::{Active, HealthInputs, Holder, Instance, Phase, Service, Source, State};
use crate::time::{ClusterTime, Millis};
use crate::transition::{ProofRecord, Transition, TransitionKind, Trigger};

/// How soon a candidate is looked at again of which only the lag is not known, or too large: heartbeats tell it, and no log
/// entry does.
const LAG_AGAIN: Millis = Millis(100);

/// What to propose for one service, why, and when to look again if nothing changes before.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePlan {
    /// At most one command: the next step follows from what it comes to. One that carries a claim about a lease may be
    /// proposed only after its token was sealed (`Leases::seal`), with the claim that the seal gives.
    pub command: Option<Command>,
    /// Every gate and every candidate.
    pub report: ServiceReport,
    /// When time alone may change the plan.
    pub wake_at: Option<ClusterTime>,
}

/// Plans one service at `now`, by the state and by what the leader knows beside it. `seed` decides where the strategy is
/// `random`; the same seed, the same choice.
///
/// Everybody who asks about a state takes its revision as the seed, so that what `explain` names is what is done. The
/// choice may therefore be another one after the next event, whatever that event was about.
pub fn plan_service(state: &State, service: &Service, facts: &Facts, now: ClusterTime, seed: u64) -> ServicePlan {
    let mut plan = Planner { state, service, facts, now, seed, gates: Vec::new(), wake_at: None };
    let (decision, summary, command) = match service.spec.mode {
        Mode::ActiveActive => plan.active_active(),
        Mode::ActivePassive => match (service.assignment.phase, &service.assignment.active) {
            (Phase::Promoting, Some(active)) => plan.promoting(active),
            (Phase::Active, Some(active)) => plan.held(active),
            (Phase::Switching | Phase::FailingOver | Phase::Promoting, _)
                if service.assignment.transition.is_some() =>
            {
                plan.moving()
            }
            (Phase::Vacant | Phase::Active | Phase::Promoting | Phase::Switching | Phase::FailingOver, _) => {
                plan.vacant()
            }
        },
    };
    let leaving = plan.left_out();
    let seek = Seek { service, leaving: leaving.as_ref(), now, asker: Asker::Baton };
    let candidates = candidates::report(&seek, facts, seed);
    // Nobody is promoted by the word that it has stopped itself.
    let first = candidates.first().filter(|first| first.eligible);
    if first.is_some_and(|first| word_is_about(service, &first.instance)) {
        for gate in plan.gates.iter_mut().filter(|gate| gate.operator == Some(OperatorMay::SayStopped)) {
            gate.operator = None;
        }
    }
    let callers = service.assignment.active.as_ref().and_then(|_| nobody_may_call(service, now));
    let report = ServiceReport {
        service: service.name.clone(),
        mode: service.spec.mode,
        phase: service.assignment.phase,
        active: service.assignment.active.as_ref().map(|active| active.instance.clone()),
        token: service.active_token(),
        since: service.assignment.active.as_ref().map(|active| active.since),
        health: service
            .assignment
            .active
            .as_ref()
            .and_then(|active| service.instances.get(&active.instance))
            .map(|active| active.health),
        last_holder: service.assignment.last_holder.as_ref().map(|holder| holder.instance.clone()),
        transition: service.assignment.transition,
        open: state.open_transition(service).map(|open| OpenMove {
            kind: open.kind,
            started_at: open.started_at,
            actor: open.actor.clone(),
            from: open.from.clone(),
            to: open.to.clone(),
            reason: open.trigger.reason.clone(),
        }),
        decision,
        summary,
        callers,
        candidates,
        gates: plan.gates,
        inactive: inactive_parts(&service.spec),
        revision: state.meta.revision,
    };
    ServicePlan { command, report, wake_at: plan.wake_at }
}

struct Planner<'a> {
    state: &'a State,
    service: &'a Service,
    facts: &'a Facts,
    now: ClusterTime,
    seed: u64,
    gates: Vec<Gate>,
    wake_at: Option<ClusterTime>,
}

/// What the rails come to.
enum Rails {
    /// They let the move through.
    Pass,
    /// They hold it.
    Hold {
        /// Which and why, in a sentence.
        why: String,
        /// What is to be set, so that everybody sees it.
        set: Option<Box<Command>>,
    },
}

/// What holds a move, in a sentence, and what is to be set for that.
type HeldBack = (String, Option<Box<Command>>);

type Planned = (Decision, String, Option<Command>);

impl<'a> Planner<'a> {
    fn gate(&mut self, gate: &str, pass: bool, why: impl Into<String>) -> bool {
        self.gate_until(gate, pass, why, None)
    }

    /// A gate that time alone lets through at `until`, if it holds.
    fn gate_until(&mut self, gate: &str, pass: bool, why: impl Into<String>, until: Option<ClusterTime>) -> bool {
        let at_most = until.filter(|_| !pass).map(|until| until.since(self.now));
        self.gates.push(Gate { at_most, ..Gate::new(gate, pass, why) });
        pass
    }

    fn wake(&mut self, at: ClusterTime) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// The instance that a move leaves: the present active; or the one that an operator's open transition moves away from,
    /// that released the service by itself, or that the fencing hook has cut off or is to cut off.
    fn leaving(&self) -> Option<InstanceId> {
        let active = self.service.assignment.active.as_ref().map(|active| active.instance.clone());
        active.or_else(|| {
            let open = self.state.open_transition(self.service)?;
            let holder = self.service.assignment.last_holder.as_ref();
            let fenced = || matches!(self.proof(Some(open)), Err(NoProof::Pending { only_hook: true, .. }));
            let released = |holder: &&Holder| holder.released.is_some() || holder.fenced.is_some() || fenced();
            let released = holder.filter(released).map(|holder| &holder.instance);
            if open.actor.is_some() { open.from.clone() } else { released.cloned() }
        })
    }

    /// The same, where there is another than that one to promote: rather the one that is left than nobody at all.
    fn left_out(&self) -> Option<InstanceId> {
        let only = |leaving: &InstanceId| {
            self.service.assignment.active.is_some()
                || !rank(&self.seek(Some(leaving)), self.facts, self.seed).is_empty()
                || rank(&self.seek(None), self.facts, self.seed).is_empty()
        };
        self.leaving().filter(only)
    }

    fn seek<'b>(&self, leaving: Option<&'b InstanceId>) -> Seek<'b>
    where
        'a: 'b,
    {
        Seek { service: self.service, leaving, now: self.now, asker: Asker::Baton }
    }

    fn seen(&self, instance: &Instance) -> Target {
        Target { instance: instance.id.clone(), epoch: instance.epoch, lag: self.facts.lag_of(&instance.id) }
    }

    /// Asks the rails for an automatic move, and tells each of them.
    fn gate_rails(&mut self, kind: TransitionKind, counted: bool) -> Rails {
        let mut held: Option<HeldBack> = None;
        for rail in rails_of(self.state, self.service, kind, counted, self.now) {
            self.gates.push(Gate::of_rail(&rail, self.now));
            if rail.pass {
                continue;
            }
            if let Some(at) = rail.until {
                self.wake(at);
            }
            if held.is_none() {
                let set = rail.sets.map(|sets| match sets {
                    Sets::Brake => Box::new(Command::BrakeSet),
                    Sets::Latch => Box::new(Command::LatchSet { service: self.service.name.clone() }),
                });
                held = Some((rail.told(), set));
            }
        }
        match held {
            None => Rails::Pass,
            Some((why, set)) => Rails::Hold { why, set },
        }
    }

    /// Whether the rails let a move of that kind through, without telling.
    fn rails_pass(&self, kind: TransitionKind, counted: bool) -> bool {
        rails_of(self.state, self.service, kind, counted, self.now).iter().all(|rail| rail.pass)
    }

    fn active_active(&mut self) -> Planned {
        (Decision::Nothing, format!("{} Nothing is promoted.", who_serves(self.service, self.now)), None)
    }

    /// The service has an active: does it lose it?
    fn held(&mut self, active: &Active) -> Planned {
        let service = self.service;
        let Some(instance) = service.instances.get(&active.instance) else {
            // `apply` vacates a service when its active is deregistered, so this is a state nobody can reach.
            return (Decision::Nothing, format!("The active \"{}\" is not registered.", active.instance), None);
        };
        let counts = self.state.count(service, instance);
        let (out, why) = match instance.health {
            Health::Isolated => (true, format!("\"{}\" is isolated: {}", active.instance, instance.admin.reason)),
            Health::Unknown | Health::Healthy | Health::Suspect | Health::Unhealthy => (
                instance.health == Health::Unhealthy,
                format!("\"{}\" is {}{}", active.instance, instance.health, counted(service, instance, &counts)),
            ),
        };
        let down = self.gate("active_down", out, why);
        let automatic = self.gate_automatic(service.spec.failover.automatic);
        if !down {
            return self.well(active, instance, &counts);
        }
        let best = self.gate_candidate(Some(&active.instance));
        let proof = self.gate_proof(None);
        let rails = self.gate_rails(TransitionKind::Failover, false);
        let (from, word) = (&active.instance, if instance.health == Health::Isolated { "isolated" } else { "down" });
        if !automatic {
            let summary = format!(
                "\"{from}\" is active and {word}, and failover.automatic is off: an operator may fail it over."
            );
            return (Decision::Hold, summary, None);
        }
        if let Rails::Hold { why, set } = rails {
            let summary = format!("\"{from}\" is {word}, and is not replaced automatically now: {why}.");
            return (if set.is_some() { Decision::Brake } else { Decision::Hold }, summary, set.map(|set| *set));
        }
        let summary = match (&best, &proof) {
            (Some(to), Ok(_)) => format!("\"{from}\" is {word}: failing over to \"{}\".", to.id),
            (None, _) => format!("\"{from}\" is {word} and no other instance may be promoted: the service waits."),
            (Some(to), Err(no)) => {
                format!("\"{from}\" is {word}, \"{}\" will be promoted once that is safe: {}.", to.id, no.told())
            }
        };
        let command = Command::TransitionStart(TransitionStart {
            service: service.name.clone(),
            kind: TransitionKind::Failover,
            seen_token: Some(active.token),
            seen_holder: Some(active.token),
            to: best.map(|to| self.seen(&to)),
            asserted: None,
            lease: self.claim(proof.ok().as_ref()),
            trigger: Trigger { reason: why_out(instance, &counts), cause: Some(instance.health_revision) },
            actor: None,
        });
        (Decision::FailOver, summary, Some(command))
    }

    /// The active is not down: is there one that it should give its place back to?
    fn well(&mut self, active: &Active, instance: &Instance, counts: &HealthInputs) -> Planned {
        let service = self.service;
        let mut summary = format!(
            "\"{}\" is active with token {} and {}; there is nothing to do.",
            active.instance, active.token, instance.health
        );
        if instance.health == Health::Suspect {
            let but = if counts.vetoed {
                "but one observer sees it well, and detection.veto is on"
            } else {
                "but that is not enough to call it down"
            };
            summary = format!(
                "\"{}\" is active with token {}; it is doubted ({}), {but}.",
                active.instance,
                active.token,
                instance.doubts()
            );
        }
        if let Some(why) = nobody_may_call(service, self.now) {
            summary = format!("{summary} But callers get nobody: {why}.");
        }
        let preferred = self.gate_failback(active, instance);
        self.tell_candidate(Some(&active.instance));
        // Told in any case, for whoever asks what would hold a failover now. Nobody is woken for that.
        let wake_at = self.wake_at;
        let proof = self.gate_proof(None);
        let rails = self.gate_rails(TransitionKind::Failback, false);
        let Some(to) = preferred else {
            self.wake_at = wake_at;
            return (Decision::Nothing, summary, None);
        };
        if !service.spec.failover.automatic {
            self.wake_at = wake_at;
            let summary = format!(
                "{summary} \"{}\" would get its place back, and failover.automatic is off: an operator may fail it back.",
                to.id
            );
            return (Decision::Hold, summary, None);
        }
        if let Rails::Hold { why, set } = rails {
            let summary = format!("{summary} \"{}\" gets its place back later: {why}.", to.id);
            return (if set.is_some() { Decision::Brake } else { Decision::Hold }, summary, set.map(|set| *set));
        }
        if let Err(no @ NoProof::Never { .. }) = &proof {
            let summary = format!("{summary} \"{}\" cannot get its place back by itself: {}.", to.id, no.told());
            return (Decision::Hold, summary, None);
        }
        let stable = service.spec.failback.stable_for;
        let reason = format!(
            "\"{}\" is preferred to \"{}\" and has been healthy for {}, failback.stable_for is {stable}",
            to.id,
            active.instance,
            self.now.since(to.health_since).passed()
        );
        let summary = format!("\"{}\" gives its place back to \"{}\": {reason}.", active.instance, to.id);
        let command = Command::TransitionStart(TransitionStart {
            service: service.name.clone(),
            kind: TransitionKind::Failback,
            seen_token: Some(active.token),
            seen_holder: Some(active.token),
            to: Some(self.seen(&to)),
            asserted: None,
            lease: self.claim(proof.ok().as_ref()),
            trigger: Trigger { reason, cause: Some(to.health_revision) },
            actor: None,
        });
        (Decision::FailBack, summary, Some(command))
    }

    /// The preferred instance, if it is to get its place back now. Nothing is told where there is none that is preferred.
    fn gate_failback(&mut self, active: &Active, held: &Instance) -> Option<Instance> {
        let policy = &self.service.spec.failback;
        let preferred = preferred_over(self.service, &active.instance);
        let first = preferred.first()?;
        match policy.mode {
            FailbackMode::Never => {
                self.gate("failback", false, format!("\"{}\" is preferred, and failback.mode is \"never\"", first.id));
                return None;
            }
            FailbackMode::Manual => {
                let why = format!(
                    "\"{}\" is preferred, and failback.mode is \"manual\": an operator may fail it back",
                    first.id
                );
                let operator = Some(OperatorMay::FailBack);
                self.gates.push(Gate { operator, ..Gate::new("failback", false, why) });
                return None;
            }
            FailbackMode::Automatic => {}
        }
        let seek = self.seek(None);
        let able = preferred.iter().find(|it| may_be_promoted(&seek, it, self.facts.lag_of(&it.id)));
        let Some(to) = able.copied() else {
            let why = not_eligible(&seek, first, self.facts.lag_of(&first.id)).unwrap_or_default();
            self.gate("failback", false, format!("\"{}\" is preferred and may not be promoted: {why}", first.id));
            for instance in preferred {
                self.wake_for(&seek, instance);
            }
            return None;
        };
        if held.health != Health::Healthy {
            let why = format!(
                "\"{}\" is preferred, and \"{}\" is {}: a failback wants both sides well",
                to.id, active.instance, held.health
            );
            self.gate("failback", false, why);
            return None;
        }
        let (well, wanted) = (self.now.since(to.health_since), policy.stable_for);
        let why = format!(
            "\"{}\" is preferred and has been healthy for {}, failback.stable_for is {wanted}",
            to.id,
            well.passed()
        );
        let stable_at = to.health_since.plus(wanted);
        if !self.gate_until("failback", well >= wanted, why, Some(stable_at)) {
            self.wake(stable_at);
            return None;
        }
        Some(to.clone())
    }

    /// Somebody is promoted and has not acknowledged yet.
    fn promoting(&mut self, active: &Active) -> Planned {
        let service = self.service;
        let Some(open) = self.state.open_transition(service).cloned() else {
            return (Decision::Hold, "A move is open whose record is missing.".to_owned(), None);
        };
        let patience = service.spec.failover.activation_timeout;
        let since = open.promoted.unwrap_or(active.at);
        let waited = self.now.since(since);
        let ill = service.instances.get(&active.instance).map(|it| it.health).filter(|health| match health {
            Health::Unhealthy | Health::Isolated => true,
            Health::Unknown | Health::Healthy | Health::Suspect => false,
        });
        let expired = ill.is_some() || waited >= patience;
        let why = match ill {
            Some(health) => format!("\"{}\" is {health} before it acknowledged", active.instance),
            None => format!(
                "\"{}\" was promoted {} ago and has not acknowledged; activation_timeout is {patience}",
                active.instance,
                waited.passed()
            ),
        };
        self.gate_until("acknowledged", false, why.clone(), ill.is_none().then(|| since.plus(patience)));
        // Who would be next, and what it would take: told before anybody needs it, and nobody is woken for it.
        let wake_at = self.wake_at;
        let mut next = Transition::clone(&open);
        next.tried.retain(|tried| *tried != active.instance);
        next.tried.push(active.instance.clone());
        if self.untried(&next, None).is_none() {
            self.gate_candidate(None);
        }
        let _ = self.gate_proof(Some(&open));
        let rails = match open.actor {
            Some(_) => Rails::Pass,
            None => self.gate_rails(open.kind, true),
        };
        if !expired {
            self.wake_at = wake_at;
        }
        if let (true, Rails::Hold { why: held, set }) = (expired, rails) {
            let summary =
                format!("{} of \"{}\" waits: {why}, but no other is tried now: {held}.", open.id, service.name);
            return (if set.is_some() { Decision::Brake } else { Decision::Hold }, summary, set.map(|set| *set));
        }
        if expired {
            let summary = format!("{} of \"{}\": {why}; the next candidate is tried.", open.id, service.name);
            let command = Command::ActivationExpire(ActivationExpire {
                service: service.name.clone(),
                transition: open.id,
                token: active.token,
            });
            return (Decision::TryNext, summary, Some(command));
        }
        self.wake(since.plus(patience));
        let summary = format!("{} of \"{}\" waits: {why}.", open.id, service.name);
        (Decision::Hold, summary, None)
    }

    /// Nobody is active and no move is open: who is first?
    fn vacant(&mut self) -> Planned {
        let service = self.service;
        if service.instances.is_empty() {
            self.gate("candidate", false, "no instance is registered");
            return (Decision::Hold, "No instance is registered.".to_owned(), None);
        }
        let first = service.assignment.last_holder.is_none();
        let automatic = if first {
            self.gate("automatic", true, "the first active of a service is always placed")
        } else {
            self.gate_automatic(service.spec.failover.automatic)
        };
        let unseen = || service.instances.values().filter(|instance| instance.health == Health::Unknown);
        let unknown = unseen().count();
        let patience = Millis(service.longest_interval().0.saturating_mul(2));
        let waited = self.now.since(service.populated_at);
        let known = if unknown == 0 {
            self.gate("everyone_seen", true, "the health of every instance is known, so priority counts")
        } else if waited >= patience {
            self.gate(
                "everyone_seen",
                true,
                format!("waited {}, longer than twice the longest interval ({patience})", waited.passed()),
            )
        } else {
            let until = service.populated_at.plus(patience);
            self.wake(until);
            let list = unseen().take(5).map(|instance| instance.id.as_str()).collect::<Vec<_>>().join(", ");
            self.gate_until(
                "everyone_seen",
                false,
                format!("{unknown} not seen yet ({list}); waiting up to {patience}, so that priority counts"),
                Some(until),
            )
        };
        let best = self.gate_candidate(None);
        let proof = self.gate_proof(None);
        let rails = self.gate_rails(TransitionKind::Placement, false);
        let free = matches!(rails, Rails::Pass);
        match (best, proof) {
            (Some(to), Ok(proof)) if automatic && known && free => {
                let summary = format!("Nobody is active: placing \"{}\".", to.id);
                let command = Command::TransitionStart(TransitionStart {
                    service: service.name.clone(),
                    kind: TransitionKind::Placement,
                    seen_token: None,
                    seen_holder: service.assignment.last_holder.as_ref().and_then(|holder| holder.token),
                    to: Some(self.seen(&to)),
                    asserted: None,
                    lease: self.claim(Some(&proof)),
                    trigger: Trigger {
                        reason: format!("nobody was active and \"{}\" is the best candidate", to.id),
                        cause: Some(to.health_revision),
                    },
                    actor: None,
                });
                (Decision::Place, summary, Some(command))
            }
            (Some(to), Err(no)) if automatic && known && free => (
                Decision::Hold,
                format!("Nobody is active; \"{}\" will be placed once that is safe: {}.", to.id, no.told()),
                None,
            ),
            (Some(to), _) => {
                let holds = self.gates.iter().find(|gate| gate.verdict == GateVerdict::Hold);
                let why = holds.map_or("a gate holds", |gate| gate.why.as_str());
                (Decision::Hold, format!("Nobody is active; \"{}\" would be placed, but {why}.", to.id), None)
            }
            (None, _) => (Decision::Hold, "Nobody is active and no instance may be promoted.".to_owned(), None),
        }
    }

    fn gate_automatic(&mut self, automatic: bool) -> bool {
        let why = if automatic {
            "failover.automatic is on"
        } else {
            "failover.automatic is off: only an operator moves this service"
        };
        let operator = (!automatic).then_some(OperatorMay::Pass);
        self.gates.push(Gate { operator, ..Gate::new("automatic", automatic, why) });
        automatic
    }

    /// Who would be promoted, or why nobody: for whom nothing has to be done, nobody is woken.
    fn tell_candidate(&mut self, leaving: Option<&InstanceId>) {
        let wake_at = self.wake_at;
        self.gate_candidate(leaving);
        self.wake_at = wake_at;
    }

    fn gate_candidate(&mut self, leaving: Option<&InstanceId>) -> Option<Instance> {
        let best = rank(&self.seek(leaving), self.facts, self.seed).into_iter().next().cloned();
        match &best {
            Some(best) => {
                let strategy = self.service.spec.failover.strategy;
                self.gate("candidate", true, format!("\"{}\" is first by strategy \"{strategy}\"", best.id));
            }
            None => {
                let count = self.service.instances.len();
                let why = format!("none of {count} registered instances may be promoted: see candidates");
                self.gate_until("candidate", false, why, self.next_candidate_at(leaving));
                self.wake_for_candidates(leaving);
            }
        }
        best.map(|best| best.as_ref().clone())
    }

    /// When time alone makes somebody a candidate: the end of a cool-down, or of `min_healthy`.
    fn next_candidate_at(&self, leaving: Option<&InstanceId>) -> Option<ClusterTime> {
        let seek = self.seek(leaving);
        let at = |instance: &Instance| {
            let healthy = instance.health_since.plus(self.service.spec.failover.min_healthy);
            let cool = instance.recovery.as_ref().and_then(|recovery| recovery.cooldown_until);
            cool.map_or(healthy, |cool| cool.max(healthy))
        };
        let able = |it: &&Instance| {
            may_be_promoted(&Seek { now: at(it), ..seek }, it, self.facts.lag_of(&it.id)) && at(it) > self.now
        };
        self.service.instances.values().map(AsRef::as_ref).filter(able).map(at).min()
    }

    /// When time, or a heartbeat that tells a lag, may make somebody a candidate.
    fn wake_for_candidates(&mut self, leaving: Option<&InstanceId>) {
        let seek = self.seek(leaving);
        for instance in self.service.instances.values() {
            self.wake_for(&seek, instance);
        }
    }

    /// The same for one instance.
    fn wake_for(&mut self, seek: &Seek<'_>, instance: &Instance) {
        if instance.health != Health::Healthy {
            return;
        }
        self.wake(instance.health_since.plus(self.service.spec.failover.min_healthy));
        if let Some(until) = instance.recovery.as_ref().and_then(|recovery| recovery.cooldown_until) {
            self.wake(until);
        }
        if only_lag_is_missing(seek, instance, self.facts.lag_of(&instance.id)) {
            self.wake(self.now.plus(LAG_AGAIN));
        }
    }

    fn proof(&self, open: Option<&Transition>) -> Result<ProofRecord, NoProof> {
        let hook_over = open.and_then(|open| hook_over(self.service, open));
        let grounds = Grounds {
            asserted: open.and_then(|open| open.asserted),
            claim: None,
            term: self.facts.term,
            standing: Some(&self.facts.lease),
            hook_over: hook_over.as_deref(),
        };
        proof_that_holds(self.service, &grounds)
    }

    fn gate_proof(&mut self, open: Option<&Transition>) -> Result<ProofRecord, NoProof> {
        let found = self.proof(open);
        let ends = match &found {
            Err(NoProof::Pending { lease_in: Some(left), .. }) => Some(*left),
            Err(NoProof::Pending { lease_in: None, .. } | NoProof::Never { .. }) | Ok(_) => None,
        };
        self.gates.push(match &found {
            Ok(proof) => Gate::new("proof", true, format!("{} ({}): {}", proof.proof, proof.fencing, proof.evidence)),
            Err(no) => {
                let operator = Some(OperatorMay::SayStopped);
                Gate { at_most: ends, operator, ..Gate::new("proof", false, no.why()) }
            }
        });
        if let Some(left) = ends {
            // It has run out when its last moment is over.
            self.wake(self.now.plus(left).plus(Millis(1)));
        }
        found
    }

    /// What a command claims of the lease, where its proof is that.
    fn claim(&self, proof: Option<&ProofRecord>) -> Option<LeaseClaim> {
        match (proof.map(|proof| proof.proof), &self.facts.lease) {
            (Some(ProofKind::Lease), LeaseStanding::RanOut { claim }) => Some(claim.clone()),
            (_, LeaseStanding::RanOut { .. } | LeaseStanding::Runs { .. } | LeaseStanding::Unknown) => None,
        }
    }
}

/// Why callers get nobody although the service has its active; `None` where they get it.
fn nobody_may_call(service: &Service, now: ClusterTime) -> Option<String> {
    callable(service, now).is_empty().then(|| why_nobody(service, now, &[]).why)
}

/// Who serves an `active_active` service: as `pick` has it, in a sentence.
fn who_serves(service: &Service, now: ClusterTime) -> String {
    let (callable, all) = (callable(service, now), service.instances.len());
    let some = callable.len();
    match callable.first() {
        None => format!("No instance may be called: {}.", why_nobody(service, now, &[]).why),
        Some(one) if one.degraded => {
            format!("None is well, and fail_open is on: the sick are called all the same, {some} of {all}.")
        }
        Some(one) if one.trial => {
            format!(
                "All that may be called serve: {some} of {all}, by trial calls only: no breaker of a better one is closed."
            )
        }
        Some(one) if one.instance.health != Health::Healthy => {
            format!("All that may be called serve: {some} of {all}, for want of a healthy one.")
        }
        Some(_) => format!("All that may be called serve: {some} of {all}."),
    }
}

/// What was counted: the observers' verdicts where there is anything to probe, and what is judged beside them.
fn counted(service: &Service, instance: &Instance, counts: &HealthInputs) -> String {
    let HealthInputs { observers, quorum, down, .. } = counts;
    let probes = service.probes(instance);
    let probes = probes.then(|| format!("{down} of {observers} observers say down, {quorum} are needed"));
    let says = |source: Source, verdict: Option<Verdict>| verdict.map(|verdict| format!("its {source} say {verdict}"));
    let told = [probes, says(Source::Calls, counts.calls), says(Source::Heartbeats, counts.heartbeats)];
    let told: Vec<String> = told.into_iter().flatten().collect();
    if told.is_empty() { String::new() } else { format!(": {}", told.join("; ")) }
}

/// Why an active must be replaced.
fn why_out(instance: &Instance, counts: &HealthInputs) -> String {
    let id = &instance.id;
    match instance.health {
        Health::Isolated => {
            let actor = instance.admin.actor.as_deref().unwrap_or("an operator");
            format!("\"{id}\" was isolated by {actor}: {}", instance.admin.reason)
        }
        Health::Unknown | Health::Healthy | Health::Suspect | Health::Unhealthy if counts.probes != Verdict::Down => {
            format!("\"{id}\" is down: {}", instance.doubts())
        }
        Health::Unknown | Health::Healthy | Health::Suspect | Health::Unhealthy => format!(
            "\"{id}\" is down: {} of {} observers say so, {} are enough; {}",
            counts.down,
            counts.observers,
            counts.quorum,
            instance.doubts()
        ),
    }
}
