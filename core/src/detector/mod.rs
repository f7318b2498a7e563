//! Detectors turn a row of observations into a verdict. Each is a small machine behind one trait; a combination of them
//! is a detector too. Nothing here looks at anything: observations come in, verdicts go out, and time is an argument.
//!
//! ```text
//!   probes      Consecutive ← TimeoutDetector (tcp), HealthCheckDetector (all others) ← CheckSet ┐
//!               ErrorRateDetector over the same probes                                            ┴▶ ProbeDetector
//!   reports     ConsecutiveCalls, ErrorRateDetector, SlowCallDetector ───────────────────────────▶ CallJudge
//!   heartbeats  AccrualDetector
//! ```

mod accrual;
mod calls;
mod check_set;
mod combination;
mod consecutive;
mod consecutive_calls;
mod error_rate;
mod health_check;
mod probes;
mod slow;
mod timeout;

pub use accrual::{AccrualDetector, HEARTBEAT};
pub use calls::CallJudge;
pub use check_set::{CheckSet, Rule};
pub use combination::{Combination, Parts};
pub use consecutive::Consecutive;
pub use consecutive_calls::{CONSECUTIVE_CALLS, ConsecutiveCalls};
pub use error_rate::{ERROR_RATE, ErrorRateDetector};
pub use health_check::HealthCheckDetector;
pub use probes::ProbeDetector;
pub use slow::{SLOW_CALLS, SlowCallDetector};
pub use timeout::TimeoutDetector;

use crate::calls::CallSlice;
use crate::policy::words;
use crate::probe::{Evidence, LocalTime, Outcome, Verdict};

words! {
    /// What an instance says of itself in a heartbeat.
    HeartbeatState {
        /// It is well.
        Ok = "ok",
        /// It works, with a doubt of its own.
        Degraded = "degraded",
        /// It cannot do its work.
        Failing = "failing",
    }
}

/// One sign of life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// What it says of itself.
    pub state: HeartbeatState,
}

/// One thing that was seen of an instance.
#[derive(Clone, Copy, Debug)]
pub enum Observation<'a> {
    /// A believable look.
    Probe {
        /// Which check of the instance it was, by its place in the list.
        check: usize,
        /// What came of it.
        outcome: &'a Outcome,
    },
    /// What clients told of their calls, summed over a slice of time.
    Calls(&'a CallSlice),
    /// It reported itself.
    Heartbeat(Heartbeat),
}

/// Something that judges an instance from what is seen of it.
pub trait Detector {
    /// Takes note of an observation made at `now`; answers the verdict where it changed. What is not of its kind it
    /// ignores, so that any detector can stand in any combination.
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict>;

    /// Lets time pass: a window empties, a heartbeat stays away. Answers the verdict where that changed it.
    fn tick(&mut self, now: LocalTime) -> Option<Verdict>;

    /// The verdict held now.
    fn verdict(&self) -> Verdict;

    /// Why it is held, as told at `now`.
    fn evidence(&self, now: LocalTime) -> Evidence;

    /// Whether more looks are wanted soon: nothing is settled yet, or something speaks against the verdict.
    fn in_doubt(&self) -> bool;

    /// Forgets everything, for whoever looked cannot be trusted any more.
    fn reset(&mut self);
}

impl<D: Detector + ?Sized> Detector for Box<D> {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        (**self).observe(seen, now)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        (**self).tick(now)
    }

    fn verdict(&self) -> Verdict {
        (**self).verdict()
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        (**self).evidence(now)
    }

    fn in_doubt(&self) -> bool {
        (**self).in_doubt()
    }

    fn reset(&mut self) {
        (**self).reset();
    }
}

/// How sick a verdict is; the greatest decides.
const fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Up => 0,
        Verdict::Unknown => 1,
        Verdict::Suspect => 2,
        Verdict::Down => 3,
    }
}

/// Holds `next` from now on; answers it where it is another one.
fn turn(held: &mut Verdict, next: Verdict) -> Option<Verdict> {
    let changed = *held != next;
    *held = next;
    changed.then_some(next)
}

/// The age of something for evidence.
fn age(now: LocalTime, since: LocalTime) -> crate::time::Millis {
    crate::time::Millis(u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX))
}
