//! Cluster time. The leader's is exact, a follower's an estimate from below: the last stamp it applied, plus the time
//! that its own monotonic clock has counted since. No wall clock comes in, and it never goes back.
//!
//! A new leader goes on from its estimate. That is at most what the old leader's clock would say now, give or take the
//! clocks' drift, and it never falls behind a stamp that was applied; only the time for which the whole cluster was down
//! is not counted.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use baton_core::time::{ClusterTime, Millis};

/// A stamp and the local instant at which it was current.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    time: ClusterTime,
    at: Instant,
}

impl Anchor {
    fn reading(self, now: Instant) -> ClusterTime {
        let passed = now.saturating_duration_since(self.at).as_millis();
        self.time.plus(Millis(u64::try_from(passed).unwrap_or(u64::MAX)))
    }

    /// Moves forward to a stamp that is ahead of the reading; never back.
    fn observe(self, time: ClusterTime, now: Instant) -> Self {
        if time > self.reading(now) { Self { time, at: now } } else { self }
    }
}

/// The decision clock of this node.
#[derive(Debug)]
pub(super) struct ClusterClock {
    anchor: Mutex<Anchor>,
}

impl ClusterClock {
    /// A clock that goes on from a stamp.
    pub(super) fn new(time: ClusterTime, now: Instant) -> Self {
        Self { anchor: Mutex::new(Anchor { time, at: now }) }
    }

    /// What it says now.
    pub(super) fn now(&self, now: Instant) -> ClusterTime {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner).reading(now)
    }

    /// Takes note of a stamp that was applied.
    pub(super) fn observe(&self, time: ClusterTime, now: Instant) {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        *anchor = anchor.observe(time, now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_counts_from_the_last_stamp_and_never_goes_back() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let clock = ClusterClock::new(ClusterTime(1_000), start);
        assert_eq!(clock.now(after(250)), ClusterTime(1_250));

        // A stamp from behind is what a follower sees all the time: it changes nothing.
        clock.observe(ClusterTime(1_100), after(300));
        assert_eq!(clock.now(after(300)), ClusterTime(1_300));

        // One from ahead moves it forward.
        clock.observe(ClusterTime(5_000), after(400));
        assert_eq!(clock.now(after(400)), ClusterTime(5_000));
        assert_eq!(clock.now(after(900)), ClusterTime(5_500));

        // An instant before the anchor reads as the anchor.
        assert_eq!(clock.now(after(100)), ClusterTime(5_000));
    }
}
