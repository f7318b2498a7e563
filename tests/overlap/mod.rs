//! The promise for which all the rest is made: never two at once. Checked from outside, on real processes in network namespaces
//! that write to one file while everything around them is killed, stopped, cut off and moved. What is claimed, and of which
//! writes, stands in `book`; what is done in `nemesis`.
//!
//! `BATON_OVERLAP_ROUNDS=300 BATON_OVERLAP_SEED=7 cargo test -p baton --test it overlap -- --nocapture` plays a long game. A
//! failure prints its seed and keeps the history. The seed draws the faults and their moments; the machine adds its own luck.

mod book;
mod guard;
mod nemesis;
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
        game(Keeper::Itself);
    }
}

fn game(keeper: Keeper) {
    let seed = number("BATON_OVERLAP_SEED").unwrap_or(SEED);
    let rounds = number("BATON_OVERLAP_ROUNDS");
    let mut dice = Dice(seed);
    let length = rounds.unwrap_or(FAULTS.len() as u64);
    println!(
        "BATON_OVERLAP_SEED={seed} BATON_OVERLAP_ROUNDS={length} cargo test -p baton --test it overlap -- --nocapture"
    );
    let faults: Vec<Fault> = std::iter::repeat_with(|| dice.shuffled(&FAULTS))
        .flatten()
        .take(usize::try_from(length).expect("a number of rounds"))
        .collect();
    scenario_within(ROUND * u32::try_from(length + 2).expect("a number of rounds"), Load::Heavy, async {
        let mut stage = Stage::set(keeper).await;
        for (number, fault) in (1..).zip(faults) {
            let begun = Instant::now();
            stage.play(fault, &mut dice).await;
            println!("round {number}: {fault:?}, {:.1} s", begun.elapsed().as_secs_f64());
        }
        let counts = stage.account().await;
        println!(
            "{length} rounds with {keeper:?}, seed {seed}: {counts}; {}; {} answers of active",
            stage.book.figures(),
            stage.answers()
        );
    });
}
