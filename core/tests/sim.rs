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
    mod clock;
    mod history;
    mod invariants;
    mod judge;
    mod leader;
    mod message;
    mod nemesis;
    mod net;
    mod node;
    mod operator;
    mod process;
    mod queue;
    mod raft;
    mod renewals;
    mod rng;
    pub(crate) mod run;
    pub(crate) mod seen;
    mod shape;
    mod upkeep;
    mod world;
}

use std::time::{Duration, Instant, SystemTime};

use sim::run::{Outcome, retell, run, told};
use sim::seen::{Seen, Sight};

/// The seeds that every run of the tests plays.
const FIXED: std::ops::Range<u64> = 1..21;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
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
    let outcome = run(seed);
    println!("{} entries, {} ms simulated, {:?}", outcome.entries, outcome.simulated / 1_000, began.elapsed());
    if from_environment("BATON_SIM_SEED").is_some() && outcome.violation.is_none() {
        let (_, lines) = retell(seed);
        println!("{}", lines.join("\n"));
    }
    fails(&outcome);
}

#[test]
fn a_seed_is_a_run() {
    for seed in [3, 4] {
        assert_eq!(run(seed), run(seed));
    }
}

/// Plays the fixed seeds, or fresh ones for `BATON_SIM_SECS`.
#[test]
fn many_seeds() {
    let began = Instant::now();
    let (mut seen, mut runs) = (Seen::default(), 0);
    let mut play = |seed: u64| {
        let outcome = run(seed);
        fails(&outcome);
        seen.add(&outcome.seen);
        runs += 1;
    };
    match from_environment("BATON_SIM_SECS").map(Duration::from_secs) {
        None => FIXED.for_each(&mut play),
        Some(length) => {
            // The only entropy: where to begin. Each seed is printed when it fails.
            let first = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis() as u64 * 1_000;
            let mut seed = first;
            while began.elapsed() < length {
                play(seed);
                seed += 1;
            }
        }
    }
    println!("{runs} runs in {:?}", began.elapsed());
    for &sight in Sight::ALL {
        println!("{:>9}  {}", seen.count(sight), sight.told());
    }
    for &sight in Sight::ALL {
        assert!(seen.count(sight) > 0, "never seen in {runs} runs: {}", sight.told());
    }
}

#[cfg(feature = "mutants")]
#[test]
fn hunt() {
    use baton_core::mutant::{Mutant, plant};
    let only = std::env::var("BATON_SIM_ONLY").unwrap_or_default();
    let max = from_environment("BATON_SIM_MAX").unwrap_or(100);
    for mutant in Mutant::ALL {
        if !format!("{mutant:?}").contains(&only) {
            continue;
        }
        plant(Some(mutant));
        let began = Instant::now();
        let mut found = Vec::new();
        let mut runs = 0;
        for seed in 1..=max {
            runs += 1;
            let outcome = run(seed);
            if let Some(v) = outcome.violation {
                found.push((seed, v.invariant));
                if found.len() >= 3 {
                    break;
                }
            }
        }
        plant(None);
        println!("{mutant:?}: {found:?} in {runs} runs, {:.1} s", began.elapsed().as_secs_f64());
    }
}
