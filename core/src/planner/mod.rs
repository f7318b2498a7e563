//! What to do about a service, and why not more: the plan and the report are made by one pass over the same gates, so
//! that `explain` can never disagree with what is done. Nothing here changes anything: a plan is a proposal that names
//! what it saw, and `apply` refuses it when that has moved on.

mod candidates;
mod due;
mod manual;
mod report;
mod upkeep;

pub use candidates::rank;
pub use due::{Due, instances_due};
pub use manual::{ManualMove, ManualPlan, ManualRequest, plan_manual};
pub use report::{CandidateReport, Decision, Gate, GateVerdict, ServiceReport};
pub use upkeep::{BACK_WITHIN, EVENTS_KEPT, LOST_AFTER, observers, retention};

use crate::command::{Command, Promote, Target, TransitionAbort, TransitionStart};
use crate::id::InstanceId;
use crate::pick::{callable, why_nobody};
use crate::policy::{Mode, inactive_parts};
use crate::probe::{Health, Verdict};
use crate::rules::{Asker, not_eligible, proof_that_holds};
use crate::state::{Active, HealthInputs, Instance, Phase, Service, Source, State};
use crate::time::{ClusterTime, Millis};
use crate::transition::{Transition, TransitionKind, Trigger};

/// What to propose for one service, why, and when to look again if nothing changes before.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicePlan {
    /// At most one command: the next step follows from what it comes to.
    pub command: Option<Command>,
    /// Every gate and every candidate.
    pub report: ServiceReport,
    /// When time alone may change the plan.
    pub wake_at: Option<ClusterTime>,
}

/// Plans one service at `now`. `seed` decides where the strategy is `random`; the same seed, the same choice.
///
/// Everybody who asks about a state takes its revision as the seed, so that what `explain` names is what is done. The
/// choice may therefore be another one after the next event, whatever that event was about.
pub fn plan_service(state: &State, service: &Service, now: ClusterTime, seed: u64) -> ServicePlan {
    let mut plan = Planner { state, service, now, seed, gates: Vec::new(), wake_at: None };
    let (decision, summary, command) = match service.spec.mode {
        Mode::ActiveActive => plan.active_active(),
        Mode::ActivePassive => match (service.assignment.phase, &service.assignment.active) {
            (Phase::Active | Phase::Promoting, Some(active)) => plan.held(active),
            (Phase::Switching | Phase::FailingOver, _) => plan.moving(),
            (Phase::Vacant | Phase::Active | Phase::Promoting, _) => plan.vacant(),
        },
    };
    let leaving = plan.leaving();
    let report = ServiceReport {
        service: service.name.clone(),
        mode: service.spec.mode,
        phase: service.assignment.phase,
        active: service.assignment.active.as_ref().map(|active| active.instance.clone()),
        token: service.active_token(),
        transition: service.assignment.transition,
        decision,
        summary,
        candidates: candidates::report(service, leaving.as_ref(), now, seed, Asker::Baton),
        gates: plan.gates,
        inactive: inactive_parts(&service.spec),
        revision: state.meta.revision,
    };
    ServicePlan { command, report, wake_at: plan.wake_at }
}

struct Planner<'a> {
    state: &'a State,
    service: &'a Service,
    now: ClusterTime,
    seed: u64,
    gates: Vec<Gate>,
    wake_at: Option<ClusterTime>,
}

type Planned = (Decision, String, Option<Command>);

impl Planner<'_> {
    fn gate(&mut self, gate: &str, pass: bool, why: impl Into<String>) -> bool {
        let verdict = if pass { GateVerdict::Pass } else { GateVerdict::Hold };
        self.gates.push(Gate { gate: gate.to_owned(), verdict, why: why.into() });
        pass
    }

    fn wake(&mut self, at: ClusterTime) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// The instance that a move leaves: the present active, or the one an operator's open transition moves away from.
    fn leaving(&self) -> Option<InstanceId> {
        let active = self.service.assignment.active.as_ref().map(|active| active.instance.clone());
        active.or_else(|| {
            let open = self.state.open_transition(self.service)?;
            open.actor.as_ref()?;
            open.from.clone()
        })
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
        let automatic = service.spec.failover.automatic;
        let counts = self.state.count(service, instance);
        let (out, why) = match instance.health {
            Health::Isolated => (true, format!("\"{}\" is isolated: {}", active.instance, instance.admin.reason)),
            Health::Unknown | Health::Healthy | Health::Suspect | Health::Unhealthy => (
                instance.health == Health::Unhealthy,
                format!(
                    "\"{}\" is {}: {} of {} observers say down, {} are needed{}",
                    active.instance,
                    instance.health,
                    counts.down,
                    counts.observers,
                    counts.quorum,
                    beside_probes(&counts)
                ),
            ),
        };
        let down = self.gate("active_down", out, why);
        let automatic = self.gate_automatic(automatic);
        let best = self.gate_candidate(Some(&active.instance));
        let proof = self.gate_proof(None);
        if !down {
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
            return (Decision::Nothing, summary, None);
        }
        if !automatic {
            let summary = format!(
                "\"{}\" is active and down, and failover.automatic is off: an operator may POST …/failover.",
                active.instance
            );
            return (Decision::Hold, summary, None);
        }
        let (from, word) = (&active.instance, if instance.health == Health::Isolated { "isolated" } else { "down" });
        let summary = match (&best, proof) {
            (Some(to), true) => format!("\"{from}\" is {word}: failing over to \"{}\".", to.id),
            (None, _) => format!("\"{from}\" is {word} and no other instance may be promoted: the service waits."),
            (Some(to), false) => {
                format!("\"{from}\" is {word}, \"{}\" would be promoted, but no proof holds yet.", to.id)
            }
        };
        let command = Command::TransitionStart(TransitionStart {
            service: service.name.clone(),
            kind: TransitionKind::Failover,
            seen_token: Some(active.token),
            to: best.map(|to| seen(&to)),
            asserted: None,
            trigger: Trigger { reason: why_out(instance, &counts), cause: Some(instance.health_revision) },
            actor: None,
        });
        (Decision::FailOver, summary, Some(command))
    }

    /// A move is open: can it be completed?
    fn moving(&mut self) -> Planned {
        let Some(open) = self.state.open_transition(self.service).cloned() else {
            return (Decision::Hold, "A move is open whose record is missing.".to_owned(), None);
        };
        if self.service.instances.is_empty() {
            let reason = "no instance is registered any more".to_owned();
            self.gate("candidate", false, reason.clone());
            let summary = format!("{} of \"{}\" is given up: {reason}.", open.id, self.service.name);
            let abort = TransitionAbort { service: self.service.name.clone(), transition: open.id, reason };
            return (Decision::GiveUp, summary, Some(Command::TransitionAbort(abort)));
        }
        let leaving = self.leaving();
        // An operator wants away from `leaving`; rather back to it than nobody at all.
        let best = self
            .named(&open)
            .or_else(|| self.gate_candidate(leaving.as_ref()))
            .or_else(|| leaving.as_ref().and_then(|_| self.gate_candidate(None)));
        let proof = self.gate_proof(Some(&open));
        let moves = open.actor.is_some() || self.gate_automatic(self.service.moves_by_itself());
        match (best, proof) {
            (Some(to), true) if !moves => {
                let why = "failover.automatic is off: an operator may POST …/failover to complete it";
                (Decision::Hold, format!("{} waits: \"{}\" may be promoted, but {why}.", open.id, to.id), None)
            }
            (Some(to), true) => {
                let summary = format!("{} of \"{}\": promoting \"{}\".", open.id, self.service.name, to.id);
                (Decision::Promote, summary, self.promote(&open, &to))
            }
            (None, _) => (Decision::Hold, format!("{} waits: no instance may be promoted.", open.id), None),
            (Some(to), false) => (
                Decision::Hold,
                format!("{} waits: \"{}\" would be promoted, but no proof holds.", open.id, to.id),
                None,
            ),
        }
    }

    fn promote(&self, open: &Transition, to: &Instance) -> Option<Command> {
        let proof = proof_that_holds(self.service, open.asserted).ok()?;
        Some(Command::Promote(Promote {
            service: self.service.name.clone(),
            transition: open.id,
            to: seen(to),
            proof: proof.proof,
            assertion: None,
            actor: None,
        }))
    }

    /// The instance that an operator named for an open transition, while it may be promoted.
    fn named(&mut self, open: &Transition) -> Option<Instance> {
        let instance = self.service.instances.get(open.to.as_ref()?)?;
        let asker = if open.actor.is_some() { Asker::Operator } else { Asker::Baton };
        if let Some(why) = not_eligible(self.service, instance, None, self.now, asker) {
            self.gate("named_candidate", false, format!("\"{}\" was asked for: {why}", instance.id));
            return None;
        }
        self.gate("candidate", true, format!("\"{}\" was chosen when the move began and may be promoted", instance.id));
        Some(instance.as_ref().clone())
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
                format!("waited {}, longer than twice the longest interval ({patience})", waited.told()),
            )
        } else {
            self.wake(service.populated_at.plus(patience));
            let list = unseen().take(5).map(|instance| instance.id.as_str()).collect::<Vec<_>>().join(", ");
            self.gate(
                "everyone_seen",
                false,
                format!("{unknown} not seen yet ({list}); waiting up to {patience}, so that priority counts"),
            )
        };
        let best = self.gate_candidate(None);
        let proof = self.gate_proof(None);
        match best {
            Some(to) if automatic && known && proof => {
                let summary = format!("Nobody is active: placing \"{}\".", to.id);
                let command = Command::TransitionStart(TransitionStart {
                    service: service.name.clone(),
                    kind: TransitionKind::Placement,
                    seen_token: None,
                    to: Some(seen(&to)),
                    asserted: None,
                    trigger: Trigger {
                        reason: format!("nobody was active and \"{}\" is the best candidate", to.id),
                        cause: Some(to.health_revision),
                    },
                    actor: None,
                });
                (Decision::Place, summary, Some(command))
            }
            Some(to) => {
                (Decision::Hold, format!("Nobody is active; \"{}\" would be placed, but a gate holds.", to.id), None)
            }
            None => (Decision::Hold, "Nobody is active and no instance may be promoted.".to_owned(), None),
        }
    }

    fn gate_automatic(&mut self, automatic: bool) -> bool {
        let why = if automatic {
            "failover.automatic is on"
        } else {
            "failover.automatic is off: only an operator moves this service (POST …/failover)"
        };
        self.gate("automatic", automatic, why)
    }

    fn gate_candidate(&mut self, leaving: Option<&InstanceId>) -> Option<Instance> {
        let best = rank(self.service, leaving, self.now, self.seed, Asker::Baton).into_iter().next().cloned();
        match &best {
            Some(best) => {
                let strategy = self.service.spec.failover.strategy;
                self.gate("candidate", true, format!("\"{}\" is first by strategy \"{strategy}\"", best.id));
            }
            None => {
                let count = self.service.instances.len();
                self.gate(
                    "candidate",
                    false,
                    format!("none of {count} registered instances may be promoted: see candidates"),
                );
                for instance in self.service.instances.values().filter(|instance| instance.health == Health::Healthy) {
                    self.wake(instance.health_since.plus(self.service.spec.failover.min_healthy));
                    if let Some(until) = instance.recovery.as_ref().and_then(|recovery| recovery.cooldown_until) {
                        self.wake(until);
                    }
                }
            }
        }
        best.map(|best| best.as_ref().clone())
    }

    fn gate_proof(&mut self, open: Option<&Transition>) -> bool {
        match proof_that_holds(self.service, open.and_then(|open| open.asserted)) {
            Ok(proof) => self.gate("proof", true, format!("{} ({}): {}", proof.proof, proof.fencing, proof.evidence)),
            Err(why) => self.gate("proof", false, why),
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

/// What is judged beside probes, where there is anything.
fn beside_probes(counts: &HealthInputs) -> String {
    let told =
        |source: Source, verdict: Option<Verdict>| verdict.map(|verdict| format!("; its {source} say {verdict}"));
    let told = [told(Source::Calls, counts.calls), told(Source::Heartbeats, counts.heartbeats)];
    told.into_iter().flatten().collect()
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

fn seen(instance: &Instance) -> Target {
    Target { instance: instance.id.clone(), epoch: instance.epoch }
}
