//! A cluster in one thread: nodes with a Raft of their own around the real `core`, processes with the real lease machine,
//! people, a network and clocks, all driven by one seed. The idea is that of FoundationDB's simulation (Zhou et al.:
//! "FoundationDB", SIGMOD 2021) and of TigerBeetle's VOPR: time, chance, messages and faults are injected, so a run that
//! breaks a promise is repeated by its number.
//!
//! ```text
//! cargo test -p baton-core --features mutants --test sim                      a short fixed set
//! BATON_SIM_SEED=123 cargo test -p baton-core --features mutants --test sim -- --nocapture one_seed     one run, told
//! BATON_SIM_SECS=180 cargo test -p baton-core --features mutants --test sim -- --nocapture many_seeds   fresh seeds
//! ```
//!
//! Each promise is a file in core/tests/sim/invariants.
#![allow(clippy::disallowed_methods, reason = "a test reads its environment, and times itself")]

mod sim {
    pub(crate) mod bias;
    mod clock;
    mod history;
    mod invariants;
    mod judge;
    mod leader;
    mod message;
    #[cfg(feature = "mutants")]
    pub(crate) mod mutants;
    mod nemesis;
    mod net;
    mod node;
    mod operator;
    mod process;
    mod proposals;
    mod queue;
    mod raft;
    mod renewals;
    mod resource;
    mod rng;
    pub(crate) mod run;
    pub(crate) mod seen;
    mod shape;
    mod upkeep;
    mod words;
    mod world;
}

use std::time::{Duration, Instant, SystemTime};

#[cfg(feature = "mutants")]
use baton_core::mutant::{Mutant, plant};
use sim::bias::Bias;
#[cfg(feature = "mutants")]
use sim::mutants::kind_for;
use sim::run::{Outcome, retell, run, told};
use sim::seen::{Seen, Sight};

/// How many seeds every run of the tests plays, and how many at most, to see what is rare.
const FIXED: u64 = 40;
const FIXED_MAX: u64 = 250;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The kind of run that `BATON_SIM_BIAS` names.
fn bias() -> Bias {
    let wanted = std::env::var("BATON_SIM_BIAS").unwrap_or_else(|_| "None".to_owned());
    Bias::ALL.into_iter().find(|bias| format!("{bias:?}") == wanted).expect("BATON_SIM_BIAS names a kind of run")
}

fn fails(outcome: &Outcome) {
    if outcome.violation.is_some() {
        panic!("{}", told(outcome));
    }
}

/// Plays `BATON_SIM_SEED`, and tells it.
#[test]
fn one_seed() {
    let seed = from_environment("BATON_SIM_SEED").unwrap_or(1);
    let began = Instant::now();
    let outcome = run(seed, bias());
    println!("{} entries, {} ms simulated, {:?}", outcome.entries, outcome.simulated / 1_000, began.elapsed());
    if from_environment("BATON_SIM_SEED").is_some() && outcome.violation.is_none() {
        let (_, lines) = retell(seed, bias());
        println!("{}", lines.join("\n"));
    }
    fails(&outcome);
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 4] {
        assert_eq!(run(seed, Bias::None), run(seed, Bias::None));
    }
}

/// The kind of run that a seed is played in: every second one is of no kind.
fn kind_of(seed: u64) -> Bias {
    let kinds = Bias::ALL.len() as u64;
    let kind = usize::try_from(seed / 2 % kinds).expect("a place");
    if seed.is_multiple_of(2) { Bias::None } else { Bias::ALL[kind] }
}

/// Plays the fixed seeds, and goes on until all was seen that must be; or fresh seeds for `BATON_SIM_SECS`.
#[test]
fn many_seeds() {
    let began = Instant::now();
    let (mut seen, mut runs) = (Seen::default(), 0);
    let wanted = from_environment("BATON_SIM_SECS").map(Duration::from_secs);
    // The only entropy: where to begin. Each seed is printed when it fails.
    let fresh = || SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis() as u64 * 1_000;
    let mut seed = if wanted.is_some() { fresh() } else { 0 };
    let more = |runs: u64, seen: &Seen| match wanted {
        Some(length) => began.elapsed() < length,
        None => runs < FIXED || (runs < FIXED_MAX && seen.never().next().is_some()),
    };
    while more(runs, &seen) {
        let outcome = run(seed, kind_of(seed));
        fails(&outcome);
        seen.add(&outcome.seen);
        (seed, runs) = (seed + 1, runs + 1);
    }
    println!("{runs} runs in {:?}", began.elapsed());
    for &sight in Sight::ALL {
        println!("{:>9}  {}", seen.count(sight), sight.told());
    }
    let never: Vec<&str> = seen.never().map(Sight::told).collect();
    assert!(never.is_empty(), "never seen in {runs} runs: {}", never.join("; "));
}

/// Plants a fault, and plays seeds until one shows it.
#[cfg(feature = "mutants")]
fn finds(mutant: Mutant) {
    /// No fault may take longer: a run takes a fraction of a second.
    const RUNS_MAX: u64 = 300;
    let bias = kind_for(mutant);
    let began = Instant::now();
    plant(Some(mutant));
    let found = (1..=RUNS_MAX).map(|seed| run(seed, bias)).find(|outcome| outcome.violation.is_some());
    plant(None);
    let outcome = found.unwrap_or_else(|| panic!("{mutant:?} was not found in {RUNS_MAX} runs of kind {bias:?}"));
    let violation = outcome.violation.expect("it was found by that");
    println!(
        "{mutant:?}: {} is broken by seed {} of kind {bias:?}, after {:.1} s",
        violation.invariant,
        outcome.seed,
        began.elapsed().as_secs_f64(),
    );
    assert!(EXPECTED.contains(&violation.invariant), "{mutant:?} broke {}: {}", violation.invariant, violation.what);
    // Without the fault the same seed breaks nothing.
    fails(&run(outcome.seed, bias));
}

/// What a fault in the lease rule may break: that the cluster does not come to rest would be no proof.
#[cfg(feature = "mutants")]
const EXPECTED: [&str; 3] = ["I2", "I15", "deposed-extends-none"];

/// One test a fault, so that they run side by side and each has its name.
#[cfg(feature = "mutants")]
macro_rules! planted_faults {
    ($($name:ident: $mutant:ident,)*) => {
        mod planted {
            $(#[test]
            fn $name() {
                super::finds(super::Mutant::$mutant);
            })*
        }

        #[test]
        fn every_fault_is_hunted() {
            assert_eq!([$(Mutant::$mutant,)*], Mutant::ALL);
        }
    };
}

#[cfg(feature = "mutants")]
planted_faults! {
    no_read_index: NoReadIndex,
    round_before_receipt: RoundBeforeReceipt,
    no_wait_of_new_leader: NoWaitOfNewLeader,
    wait_from_candidacy: WaitFromCandidacy,
    table_kept_on_reelection: TableKeptOnReelection,
    margin_of_one_clock: MarginOfOneClock,
    clock_stops_in_sleep: ClockStopsInSleep,
    answer_matched_to_newest: AnswerMatchedToNewest,
    recorded_after_sending: RecordedAfterSending,
    no_seal: NoSeal,
    seal_at_append: SealAtAppend,
    seal_times_out: SealTimesOut,
    grant_before_own_entry: GrantBeforeOwnEntry,
    registration_inherits: RegistrationInherits,
    deletion_forgets_debt: DeletionForgetsDebt,
    length_changes_in_tenure: LengthChangesInTenure,
    release_without_token: ReleaseWithoutToken,
    answer_heard_after_release: AnswerHeardAfterRelease,
    activation_timeout_as_proof: ActivationTimeoutAsProof,
    promotion_without_compare: PromotionWithoutCompare,
}

/// Tries all kinds of runs for a fault: for whoever looks for the best place to hunt it.
#[cfg(feature = "mutants")]
#[test]
#[ignore = "a tool: BATON_SIM_FAULT names the fault, BATON_SIM_RUNS how many runs of each kind"]
fn survey() {
    let wanted = std::env::var("BATON_SIM_FAULT").unwrap_or_default();
    for mutant in
        Mutant::ALL.into_iter().filter(|it| wanted.is_empty() || wanted.split(',').any(|w| format!("{it:?}") == w))
    {
        for bias in Bias::ALL {
            plant(Some(mutant));
            let runs = from_environment("BATON_SIM_RUNS").unwrap_or(20);
            let began = Instant::now();
            let found: Vec<u64> =
                (1..=runs).map(|seed| run(seed, bias)).filter(|it| it.violation.is_some()).map(|it| it.seed).collect();
            plant(None);
            println!(
                "{mutant:?} in {bias:?}: {} of {runs}, {:.1} s: {found:?}",
                found.len(),
                began.elapsed().as_secs_f64()
            );
        }
    }
}
