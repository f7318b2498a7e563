//! Which received renewals a read-index round speaks for: those that were there when it began, and no later one.

use crate::mutant::{Mutant, planted};

/// What a read-index round found: this node led in `term` at some moment after the round began, and whatever was committed
/// before that moment is at `index` or before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadPoint {
    /// The term in which the majority answered.
    pub term: u64,
    /// What must be applied before anything is decided by it.
    pub index: u64,
}

/// Renewals that wait for a round. One round at a time serves all that wait when it begins.
#[derive(Debug)]
pub struct Rounds<T> {
    waiting: Vec<T>,
    asked: Option<Vec<T>>,
}

impl<T> Default for Rounds<T> {
    fn default() -> Self {
        Self { waiting: Vec::new(), asked: None }
    }
}

impl<T> Rounds<T> {
    /// A renewal was received: it waits for the next round.
    pub fn receive(&mut self, renewal: T) {
        match &mut self.asked {
            // The running round may have been answered before this renewal was sent: by a majority that has elected
            // another leader since, whom the renewal's own sender has heard.
            Some(asked) if planted(Mutant::RoundBeforeReceipt) => asked.push(renewal),
            Some(_) | None => self.waiting.push(renewal),
        }
    }

    /// Whether a round is to be made: somebody waits, and none is under way.
    pub const fn wanted(&self) -> bool {
        self.asked.is_none() && !self.waiting.is_empty()
    }

    /// How many wait, those included that are being asked for.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.asked.as_ref().map_or(0, Vec::len)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A round begins: it speaks for all who wait now. To be called *before* anything is sent for it.
    pub fn begin(&mut self) {
        if self.wanted() {
            self.asked = Some(std::mem::take(&mut self.waiting));
        }
    }

    /// The round has ended, well or not; those it spoke for.
    pub fn end(&mut self) -> Vec<T> {
        self.asked.take().unwrap_or_default()
    }
}
