//! Detectors turn a row of observations into a verdict. Each is a small machine behind one trait; a combination of them
//! is a detector too. Nothing here looks at anything: observations come in, verdicts go out, and time is an argument.

mod check_set;
mod consecutive;

pub use check_set::{CheckSet, Rule};
pub use consecutive::Consecutive;

use crate::probe::{Evidence, LocalTime, Outcome, Verdict};

/// One believable look at an instance.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Which check of the instance it was, by its place in the list.
    pub check: usize,
    /// What came of it.
    pub outcome: &'a Outcome,
}

/// Something that judges an instance from what is seen of it.
pub trait Detector {
    /// Takes note of an observation made at `now`; answers the verdict where it changed.
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict>;

    /// The verdict held now.
    fn verdict(&self) -> Verdict;

    /// Why it is held, as told at `now`.
    fn evidence(&self, now: LocalTime) -> Evidence;

    /// Whether more looks are wanted soon: nothing is settled yet, or something speaks against the verdict.
    fn in_doubt(&self) -> bool;

    /// Forgets everything, for whoever looked cannot be trusted any more.
    fn reset(&mut self);
}
