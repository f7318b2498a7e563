//! One seed, one run: shaken for a while, then healed, then looked at. And how a run that failed is told.

use baton_core::command::{AutomationResume, Command, InstanceAdmin};
use baton_core::planner::{CandidateReport, Facts, plan_service};
use baton_core::probe::Health;
use baton_core::state::AdminState;

use super::bias::Bias;
use super::clock::{MS, Micros, SEC};
use super::invariants;
use super::message::Ask;
use super::process::service_name;
use super::seen::{Seen, Sight};
use super::shape::Shape;
use super::world::{Violation, World};

/// Lines of a transcript that are printed.
const LINES: usize = 60;

/// How often it is looked whether all is well, after the healing.
const LOOK_EVERY: Micros = 250 * MS;

/// How long nothing is looked at after the healing.
const SETTLING: Micros = SEC;

/// How long after the healing operators release the brake.
const QUIET: Micros = 3 * SEC;

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) bias: Bias,
    pub(crate) violation: Option<Violation>,
    pub(crate) seen: Seen,
    pub(crate) entries: u64,
    pub(crate) simulated: Micros,
    pub(crate) fingerprint: u64,
}

/// Runs a seed, in a run of that kind.
pub(crate) fn run(seed: u64, bias: Bias) -> Outcome {
    outcome(seed, bias, play(bias.shape(seed), false))
}

/// Runs a seed, and tells what happened.
pub(crate) fn retell(seed: u64, bias: Bias) -> (Outcome, Vec<String>) {
    let mut world = play(bias.shape(seed), true);
    let told = world.told.take().unwrap_or_default();
    (outcome(seed, bias, world), told)
}

fn outcome(seed: u64, bias: Bias, world: World) -> Outcome {
    let (entries, simulated, fingerprint) = (world.history.len(), world.now, world.fingerprint);
    Outcome { seed, bias, violation: world.violation, seen: world.seen, entries, simulated, fingerprint }
}

fn play(shape: Shape, tells: bool) -> World {
    let (shaken, settles) = (shape.shaken, shape.settles);
    let mut world = World::new(shape, tells);
    while world.violation.is_none() && world.step(shaken) {}
    if world.violation.is_some() {
        return world;
    }
    world.now = shaken;
    world.heal_everything();
    let (mut look, mut looks) = (shaken + SETTLING, 0);
    while world.violation.is_none() && look <= shaken + settles {
        while world.violation.is_none() && world.step(look) {}
        world.now = world.now.max(look);
        if world.violation.is_none() && world.is_settled() {
            world.seen.note(Sight::ConvergedRuns);
            invariants::at_rest(&mut world);
            return world;
        }
        looks += 1;
        if looks % 4 == 0 {
            world.restore_services();
        }
        look += LOOK_EVERY;
    }
    if world.violation.is_none() {
        let why = world.why_unsettled();
        world.broken(invariants::LIVENESS, why);
    }
    world
}

impl World {
    /// What attentive operators do when all is healed: each service is there as it was wanted, nobody is held back, what
    /// was braked or paused goes on.
    pub(crate) fn restore_services(&mut self) {
        let state = self.history.state();
        let mut asks = Vec::new();
        let (op, reason) = ("op".to_owned(), "all is healed".to_owned());
        // Somebody looks at the brake only when all else is quiet: nothing else tells the leader to look again then.
        let all = state.meta.brake.is_some() || state.meta.pause.is_some();
        if all && self.now >= self.shape.shaken + QUIET {
            asks.push(Command::AutomationResume(AutomationResume {
                service: None,
                reason: reason.clone(),
                actor: op.clone(),
            }));
        }
        for at in 0..self.shape.specs.len() {
            let name = service_name(at);
            let wanted = &self.shape.specs[at];
            let Some(service) = state.service(&name).filter(|service| *service.spec == *wanted) else {
                asks.push(self.put_service(at, wanted.clone()));
                continue;
            };
            if service.rails.latch.is_some() || service.rails.pause.is_some() {
                let service = Some(name.clone());
                asks.push(Command::AutomationResume(AutomationResume {
                    service,
                    reason: reason.clone(),
                    actor: op.clone(),
                }));
            }
            for instance in service.instances.values().filter(|it| it.admin.state != AdminState::Enabled) {
                asks.push(Command::InstanceAdmin(InstanceAdmin {
                    service: name.clone(),
                    instance: instance.id.clone(),
                    state: AdminState::Enabled,
                    reason: reason.clone(),
                    lasts: None,
                    until: None,
                    actor: op.clone(),
                }));
            }
        }
        for command in asks {
            self.operator_asks(Ask::Write(command));
        }
    }

    /// Whether each service has an active that is well, and all nodes have applied the same.
    fn is_settled(&self) -> bool {
        let well = |at: usize| {
            let service = self.history.state().service(&service_name(at));
            service.is_some_and(|service| {
                let active = service.assignment.active.as_ref();
                active
                    .and_then(|active| service.instances.get(&active.instance))
                    .is_some_and(|it| it.health == Health::Healthy)
            })
        };
        let caught_up = self.nodes.iter().all(|node| node.applied == self.history.len());
        caught_up && (0..self.shape.specs.len()).all(well)
    }

    fn why_unsettled(&self) -> String {
        let state = self.history.state();
        let services: Vec<String> = state
            .services
            .values()
            .map(|service| {
                let health: Vec<String> = service
                    .instances
                    .values()
                    .map(|it| format!("{} {} {}", it.id, it.health, it.admin.state))
                    .collect();
                let (time, seed) = (state.meta.cluster_time, state.meta.revision);
                let leader = self.nodes.iter().filter(|node| node.lead.is_some()).max_by_key(|node| node.raft.term);
                let facts =
                    leader.map_or_else(Facts::default, |it| self.facts(it.at, &service.name, it.clock.at(self.now)));
                let report = plan_service(state, service, &facts, time, seed).report;
                let rules = |it: &CandidateReport| {
                    let failed = it.rules.iter().filter(|rule| !rule.pass).map(|rule| rule.why.clone());
                    format!("{}: {}", it.instance, failed.collect::<Vec<_>>().join(" and "))
                };
                let candidates: Vec<String> = report.candidates.iter().map(rules).collect();
                let says = format!("{} ({})", report.summary, candidates.join(", "));
                let healths = health.join(", ");
                format!("{} is {} [{healths}], and the planner says: {says}", service.name, service.assignment.phase)
            })
            .collect();
        let nodes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| {
                let (raft, role) = (&node.raft, if node.raft.leads() { "leads" } else { "follows" });
                let busy = node.lead.as_ref().map(|lead| lead.told()).unwrap_or_default();
                format!(
                    "n{} {role} in term {}, applied {} of {} {busy}",
                    node.at + 1,
                    raft.term,
                    node.applied,
                    raft.commit
                )
            })
            .collect();
        format!("not at rest in time: {}; {}", services.join("; "), nodes.join("; "))
    }
}

/// A run that failed, as it is printed.
pub(crate) fn told(outcome: &Outcome) -> String {
    let (again, lines) = retell(outcome.seed, outcome.bias);
    let Some(violation) = &outcome.violation else { return "nothing was broken".to_owned() };
    let same =
        if again == *outcome { "" } else { "\nTHE SECOND RUN WAS ANOTHER: the simulator is not deterministic\n" };
    let last = &lines[lines.len().saturating_sub(LINES)..].join("\n");
    let kind = if outcome.bias == Bias::None { String::new() } else { format!("BATON_SIM_BIAS={:?} ", outcome.bias) };
    format!(
        "seed {}: {} is broken after {} ms and {} entries: {}\n\n{last}\n{same}\n{kind}BATON_SIM_SEED={} cargo test -p \
         baton-core --features mutants --test sim -- --nocapture one_seed\n",
        outcome.seed,
        violation.invariant,
        violation.at / MS,
        outcome.entries,
        violation.what,
        outcome.seed
    )
}
