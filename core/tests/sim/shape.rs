//! What kind of run a seed is: how many of everything, how fast, how foul. Choices of the seed only; nothing happens
//! here.

use baton_core::policy::{
    FailbackMode, FailoverStrategy, OnQuorumLoss, ProofKind, ProofPolicy, RecoveryStrategy, Spec,
};
use baton_core::time::Millis;

use super::clock::{ERROR_MAX, MS, Micros, SEC};
use super::net::Weather;
use super::rng::Rng;

/// Instances of a service, by letter.
pub(crate) const LETTERS: [&str; 4] = ["a", "b", "c", "d"];

/// Services of a cluster.
pub(crate) const NAMES: [&str; 3] = ["orders", "bills", "mail"];

/// How long a run is shaken.
const SHAKEN: Micros = 20 * SEC;

/// Processes for each instance: the second is the twin that takes its name.
pub(crate) const SLOTS: usize = 2;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) seed: u64,
    pub(crate) nodes: usize,
    /// How many instances each service has.
    pub(crate) instances: Vec<usize>,
    /// Whether a service uses such proofs only as I15 covers.
    pub(crate) strict: Vec<bool>,
    /// The spec that each service begins with.
    pub(crate) specs: Vec<Spec>,
    pub(crate) weather: Weather,
    /// How long things happen before everything is healed.
    pub(crate) shaken: Micros,
    /// How long it may take after that until each service has its active.
    pub(crate) settles: Micros,
    /// About how long between two things that an operator does, and between two that break.
    pub(crate) operator_every: Micros,
    pub(crate) nemesis_every: Micros,
    /// What breaks, and what operators do, each as often as its weight says.
    pub(crate) faults: Vec<(Fault, u64)>,
    pub(crate) acts: Vec<(Act, u64)>,
    /// About how long a node takes to apply what is committed, to make that durable, and a leader from a thought to its
    /// proposal.
    pub(crate) apply_lag: Micros,
    pub(crate) persist_every: Micros,
    pub(crate) think: Micros,
    /// About how long it takes until a process whose session is over registers anew.
    pub(crate) comes_again: Micros,
    /// About how long commands wait for others to go with them into one entry.
    pub(crate) batching: Micros,
    /// Whether a new leader takes an active for dead that it has not heard at once.
    pub(crate) hasty: bool,
    /// How much of its lease a holder may be silent before it is taken for dead, in hundredths.
    pub(crate) silence: u32,
    /// How many in a thousand processes that are stopped sleep with their machine.
    pub(crate) asleep: u64,
    /// How many in a thousand judgements of the leader are false accusations.
    pub(crate) slander: u64,
    /// Lengths of leases that operators ask for, in milliseconds.
    pub(crate) ttls: Vec<u64>,
    /// Whether every holder's clock is as slow, and every node's as fast, as is allowed.
    pub(crate) worst_clocks: bool,
}

/// Something that breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    StopProcess,
    KillProcess,
    StartTwin,
    StepDown,
    StopNode,
    KillNode,
    StickDisk,
    KillAllActives,
    KillAllNodes,
    Campaign,
    Coup,
    Exile,
    CutNode,
    CutPair,
    CutOneWay,
    CutHalf,
    CutProcess,
    CutAnswers,
    HealNet,
    Weather,
    Clock,
}

/// Something that operators do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Move,
    Spec,
    Recreate,
    Deregister,
    Admin,
    Reset,
    Pause,
    Resume,
    Restore,
}

const FAULTS: [(Fault, u64); 21] = [
    (Fault::StopProcess, 12),
    (Fault::KillProcess, 8),
    (Fault::StartTwin, 6),
    (Fault::StepDown, 8),
    (Fault::StopNode, 9),
    (Fault::KillNode, 6),
    (Fault::StickDisk, 4),
    (Fault::KillAllActives, 2),
    (Fault::KillAllNodes, 1),
    (Fault::Campaign, 5),
    (Fault::Coup, 2),
    (Fault::Exile, 2),
    (Fault::CutNode, 4),
    (Fault::CutPair, 4),
    (Fault::CutOneWay, 4),
    (Fault::CutHalf, 4),
    (Fault::CutProcess, 5),
    (Fault::CutAnswers, 5),
    (Fault::HealNet, 14),
    (Fault::Weather, 5),
    (Fault::Clock, 5),
];

const ACTS: [(Act, u64); 9] = [
    (Act::Move, 30),
    (Act::Spec, 15),
    (Act::Recreate, 8),
    (Act::Deregister, 8),
    (Act::Admin, 11),
    (Act::Reset, 8),
    (Act::Pause, 5),
    (Act::Resume, 7),
    (Act::Restore, 8),
];

impl Shape {
    /// The run of a seed, of any kind.
    pub(crate) fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let services = rng.one(&[1, 1, 2, 3]);
        let strict: Vec<bool> = (0..services).map(|_| rng.chance(850)).collect();
        let mut shape = Self {
            seed,
            nodes: if rng.chance(150) { 5 } else { 3 },
            instances: (0..services).map(|_| 2 + rng.at(3)).collect(),
            specs: Vec::new(),
            strict,
            weather: Weather::any(&mut rng),
            shaken: SHAKEN,
            settles: 30 * SEC,
            operator_every: rng.one(&[300 * MS, SEC, 3 * SEC]),
            nemesis_every: rng.one(&[200 * MS, 600 * MS, 2 * SEC]),
            faults: FAULTS.to_vec(),
            acts: ACTS.to_vec(),
            apply_lag: rng.one(&[50, MS, 20 * MS, 100 * MS]),
            persist_every: 700 * MS,
            think: rng.one(&[50, MS, 20 * MS]),
            comes_again: rng.one(&[20 * MS, 800 * MS]),
            batching: rng.one(&[300, 300, 300, 5 * MS, 100 * MS]),
            hasty: rng.chance(250),
            silence: rng.one(&[100, 100, 150, 300]),
            asleep: 300,
            slander: rng.one(&[0, 0, 2, 10]),
            ttls: vec![250, 250, 300, 500, 1_000, 2_000],
            worst_clocks: rng.chance(300),
        };
        // Not all faults in all runs: where much is broken little happens.
        for (_, weight) in &mut shape.faults {
            if rng.chance(250) {
                *weight = 0;
            }
        }
        shape.faults.push((Fault::HealNet, 10));
        shape.choose_specs(&mut rng);
        shape
    }

    /// Draws the specs anew, after what they may ask for has changed.
    pub(crate) fn choose_specs(&mut self, rng: &mut Rng) {
        self.specs = self.strict.iter().map(|strict| self.spec(rng, *strict)).collect();
    }

    /// How a run's random draws after this one are seeded.
    pub(crate) fn rng(&self) -> Rng {
        Rng::new(self.seed ^ 0x5eed_5eed_5eed_5eed)
    }

    pub(crate) fn node_error(&self, rng: &mut Rng) -> i64 {
        if self.worst_clocks { ERROR_MAX } else { clock_error(rng) }
    }

    pub(crate) fn process_error(&self, rng: &mut Rng) -> i64 {
        if self.worst_clocks { -ERROR_MAX } else { clock_error(rng) }
    }

    /// A spec that an operator may ask for. A strict one uses no proof that I15 does not cover.
    pub(crate) fn spec(&self, rng: &mut Rng, strict: bool) -> Spec {
        let mut spec = Spec::default();
        spec.lease.ttl = Millis(rng.one(&self.ttls));
        spec.lease.delay = Millis(rng.one(&[0, 0, 0, 200]));
        (spec.recovery.strategy, spec.recovery.cooldown) = (RecoveryStrategy::Immediate, Millis::ZERO);
        if rng.chance(200) {
            spec.recovery.strategy = RecoveryStrategy::Gradual;
            (spec.recovery.initial_delay, spec.recovery.max_delay) = (Millis(200), Millis(1_000));
            (spec.recovery.cooldown, spec.recovery.cooldown_after) = (Millis(2_000), 2);
        }
        spec.failover.min_healthy = Millis(rng.one(&[0, 0, 0, 300]));
        (spec.failover.min_interval, spec.failover.max_in_window) = (Millis(rng.one(&[0, 0, 500])), 1_000);
        if rng.chance(100) {
            (spec.failover.max_in_window, spec.failover.window) = (3, Millis(10_000));
        }
        let random = FailoverStrategy::Random;
        spec.failover.strategy = rng.one(&[FailoverStrategy::Best, FailoverStrategy::Next, random, random]);
        spec.failover.require_ack = rng.chance(400);
        spec.failover.activation_timeout = Millis(rng.one(&[100, 400, 2_000]));
        spec.failover.max_lag = rng.chance(100).then_some(100);
        if rng.chance(300) {
            (spec.failback.mode, spec.failback.stable_for) = (FailbackMode::Automatic, Millis(500));
        }
        if !strict {
            match rng.below(3) {
                0 => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Token]),
                1 => spec.on_quorum_loss = OnQuorumLoss::Freeze,
                _ => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Release, ProofKind::Token]),
            }
        }
        spec
    }
}

/// A clock's error: often as wrong as is allowed.
fn clock_error(rng: &mut Rng) -> i64 {
    match rng.below(4) {
        0 => ERROR_MAX,
        1 => -ERROR_MAX,
        _ => i64::try_from(rng.below(2 * ERROR_MAX.unsigned_abs() + 1)).expect("a small number") - ERROR_MAX,
    }
}
