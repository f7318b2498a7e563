//! The monitor: `ProbeResult`s in, proposed verdicts out. It tells the prober what to probe, by what the state says, and
//! tells the cluster what this node holds of each instance. The deciding is in `book`; here is only the loop that carries
//! news to it and proposals from it. Health is not computed here: `apply` counts it from every observer's verdicts.

mod book;
mod watch;

#[cfg(test)]
mod tests;

use crate::prober::{Pace, Prober, Target, TargetId};

/// What the book asks of a prober. A trait so that the book can be tried without sockets.
pub(crate) trait Probing {
    /// Takes on a target, at the fast pace.
    fn insert(&mut self, target: Target) -> TargetId;
    /// Lets a target go.
    fn remove(&mut self, id: TargetId);
    /// Sets how fast it is probed.
    fn pace(&mut self, id: TargetId, pace: Pace);
    /// Probes it at once.
    fn hurry(&mut self, id: TargetId);
}

impl Probing for Prober {
    fn insert(&mut self, target: Target) -> TargetId {
        self.insert(target)
    }

    fn remove(&mut self, id: TargetId) {
        self.remove(id);
    }

    fn pace(&mut self, id: TargetId, pace: Pace) {
        self.pace(id, pace);
    }

    fn hurry(&mut self, id: TargetId) {
        self.hurry(id);
    }
}
