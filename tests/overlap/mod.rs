//! The promise for which all the rest is made: never two at once. Checked from outside, on real processes in network namespaces
//! that write to one file while everything around them is killed, stopped, cut off and moved. What is claimed, and of which
//! writes, stands in `book`; what is done in `nemesis`.
//!
//! `BATON_OVERLAP_ROUNDS=300 BATON_OVERLAP_SEED=7 cargo test -p baton --test it overlap -- --nocapture` plays a long game. A
//! failure prints its seed and keeps the history. The seed draws the faults and their moments; the machine adds its own luck.
//! `BATON_OVERLAP_FAULTS=Switchover,WorkerKilled` plays these faults only, in a long game; `BATON_OVERLAP_KEEP=1` keeps the
//! history of a game that was well too.

mod book;
mod clock;
mod guard;
mod nemesis;
mod pause;
mod race;
mod record;
mod stage;
mod worker;

use std::time::{Duration, Instant};

use self::nemesis::{Dice, FAULTS, Fault};
use self::stage::{Keeper, Stage};
use crate::support::netns::may_make_namespaces;
use crate::support::{Load, scenario_within};

/// The seed of the short game.
const SEED: u64 = 4;
/// The lease's length under `baton run`.
const TTL: Duration = Duration::from_secs(1);
/// The lease's length of programs, which use all of it: longer than an election, so that a leader is elected while it runs.
const TTL_OF_PROGRAMS: Duration = Duration::from_secs(2);
/// The most that one round may take.
const ROUND: Duration = Duration::from_secs(40);

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}

/// Not a test: this is what instances run, in processes of their own.
#[test]
#[ignore = "the worker of the tests here; it is started by them"]
fn worker() {
    worker::work();
}

#[test]
fn no_two_instances_work_at_once_whatever_happens() {
    if may_make_namespaces("overlap::no_two_instances_work_at_once_whatever_happens") {
        game(Keeper::Run, TTL, &FAULTS);
    }
}

/// The lease rule without Baton's own supervisor and library: what another program makes of the documents.
#[test]
fn no_two_programs_that_keep_their_leases_themselves_work_at_once() {
    if may_make_namespaces("overlap::no_two_programs_that_keep_their_leases_themselves_work_at_once") {
        game(Keeper::Itself, TTL_OF_PROGRAMS, &OF_PROGRAMS);
    }
}

/// The short game for programs that keep their leases themselves.
const OF_PROGRAMS: [Fault; 7] = [
    Fault::HostPaused,
    Fault::HolderDeaf,
    Fault::HolderDeregistered,
    Fault::ServiceMadeAnew,
    Fault::LeaderKilledWithinLease,
    Fault::LeaderPausedHolderCutOff,
    Fault::RegisteredTwice,
];

/// Plays each of the faults in `short` once, or as many rounds of all faults as the environment says.
fn game(keeper: Keeper, ttl: Duration, short: &[Fault]) {
    let seed = number("BATON_OVERLAP_SEED").unwrap_or(SEED);
    let mut dice = Dice(seed);
    // For whoever looks for the cause of a failure.
    let only = std::env::var("BATON_OVERLAP_FAULTS").unwrap_or_default();
    let among = |fault: &Fault| only.is_empty() || only.split(',').any(|name| name == format!("{fault:?}"));
    let all: Vec<Fault> = FAULTS.into_iter().filter(among).collect();
    assert!(!all.is_empty(), "BATON_OVERLAP_FAULTS={only}: there is no such fault among {FAULTS:?}");
    let faults: Vec<Fault> = match number("BATON_OVERLAP_ROUNDS") {
        None => dice.shuffled(short),
        Some(rounds) => {
            let rounds = usize::try_from(rounds).expect("a number of rounds");
            let mut drawn = Vec::new();
            while drawn.len() < rounds {
                drawn.extend(dice.shuffled(&all));
            }
            drawn.truncate(rounds);
            drawn
        }
    };
    let rounds = faults.len();
    println!(
        "BATON_OVERLAP_SEED={seed} BATON_OVERLAP_ROUNDS={rounds} cargo test -p baton --test it overlap::no_two -- --nocapture"
    );
    let limit = ROUND * u32::try_from(rounds + 2).expect("a number of rounds");
    scenario_within(limit, Load::Heavy, async {
        let mut stage = Stage::set(keeper, ttl).await;
        for (number, fault) in (1..).zip(faults) {
            let begun = Instant::now();
            stage.play(fault, &mut dice).await;
            println!("round {number}: {fault:?}, {:.1} s", begun.elapsed().as_secs_f64());
        }
        let counts = stage.account().await;
        let (figures, answers) = (stage.book.figures(), stage.answers());
        println!("{rounds} rounds, instances kept by {keeper:?}, seed {seed}: {counts}; {figures}; {answers} answers");
    });
}
