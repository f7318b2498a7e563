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

use sim::bias::Bias;
use sim::run::{Outcome, retell, run, told};
use sim::seen::{Seen, Sight};

/// The seeds that every run of the tests plays.
const FIXED: std::ops::Range<u64> = 1..21;

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

/// Plays the fixed seeds, or fresh ones for `BATON_SIM_SECS`.
#[test]
fn many_seeds() {
    let began = Instant::now();
    let (mut seen, mut runs) = (Seen::default(), 0);
    let mut play = |seed: u64, bias: Bias| {
        let outcome = run(seed, bias);
        fails(&outcome);
        seen.add(&outcome.seen);
        runs += 1;
    };
    match from_environment("BATON_SIM_SECS").map(Duration::from_secs) {
        None => FIXED.for_each(|seed| play(seed, Bias::None)),
        Some(length) => {
            // The only entropy: where to begin. Each seed is printed when it fails.
            let first = SystemTime::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_millis() as u64 * 1_000;
            let mut seed = first;
            while began.elapsed() < length {
                // Every second run is of no kind.
                let kind = usize::try_from(seed / 2).expect("a place") % Bias::ALL.len();
                play(seed, if seed % 2 == 0 { Bias::None } else { Bias::ALL[kind] });
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
    let biases: Vec<Bias> = if std::env::var("BATON_SIM_BIAS").is_ok() { vec![bias()] } else { Bias::ALL.to_vec() };
    for mutant in Mutant::ALL {
        if !only.is_empty() && !only.split(',').any(|it| format!("{mutant:?}") == it) {
            continue;
        }
        for &bias in &biases {
            plant(Some(mutant));
            let began = Instant::now();
            let mut found = Vec::new();
            let mut runs = 0;
            for seed in 1..=max {
                runs += 1;
                let outcome = run(seed, bias);
                if let Some(v) = outcome.violation {
                    found.push((seed, v.invariant));
                    if found.len() >= 3 {
                        break;
                    }
                }
            }
            plant(None);
            println!("{mutant:?} {bias:?}: {found:?} in {runs} runs, {:.1} s", began.elapsed().as_secs_f64());
        }
    }
}
