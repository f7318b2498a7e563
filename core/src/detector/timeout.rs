//! The timeout detector: can a TCP connection be made in time?
//!
//! The intuition: a process that is gone refuses, a host that is gone or hangs lets one wait; either way no connection
//! comes to be. Nothing else can be told from a connection, so a failure of another class is not this detector's
//! business: it neither accuses nor clears.
//!
//! ```text
//!   connect ─┬─ made in time ────────────▶ success
//!            ├─ refused, unreachable ────▶ failure (connection)
//!            ├─ no answer in time ───────▶ failure (timeout)
//!            └─ anything else ───────────▶ not looked at
//! ```
//!
//! Source: the L4 check of HAProxy and IPVS's `TCP_CHECK`. The rows are [`Consecutive`]'s.

use super::{Consecutive, Detector, Observation};
use crate::probe::{Evidence, FailureClass, LocalTime, Outcome, Verdict};

/// Judges an instance by whether connections to it can be made in time.
#[derive(Clone, Debug)]
pub struct TimeoutDetector {
    place: usize,
    row: Consecutive,
}

impl TimeoutDetector {
    /// A detector for the tcp check at `place` in the instance's list, judged as `row` says.
    pub const fn new(place: usize, row: Consecutive) -> Self {
        Self { place, row }
    }

    /// The present row of outcomes.
    pub const fn row(&self) -> &Consecutive {
        &self.row
    }
}

/// Whether an outcome tells if a connection could be made in time.
const fn tells(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Success => true,
        Outcome::Failure { class, .. } => match class {
            FailureClass::Timeout | FailureClass::Connection => true,
            FailureClass::ServerError
            | FailureClass::RateLimit
            | FailureClass::Malformed
            | FailureClass::Slow
            | FailureClass::ClientError => false,
        },
    }
}

impl Detector for TimeoutDetector {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        match seen {
            Observation::Probe { check, outcome } if *check == self.place && tells(outcome) => {
                self.row.observe(seen, now)
            }
            Observation::Probe { .. } | Observation::Calls(_) | Observation::Heartbeat(_) => None,
        }
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.row.tick(now)
    }

    fn verdict(&self) -> Verdict {
        self.row.verdict()
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        self.row.evidence(now)
    }

    fn in_doubt(&self) -> bool {
        self.row.in_doubt()
    }

    fn reset(&mut self) {
        self.row.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_that_were_not_made_in_time_count() {
        for (_, class) in FailureClass::ALL {
            let mut tcp = TimeoutDetector::new(0, Consecutive::new("tcp", 1, 2));
            let mut observe = |outcome: &Outcome| {
                tcp.observe(&Observation::Probe { check: 0, outcome }, LocalTime::default());
                tcp.verdict()
            };
            assert_eq!(observe(&Outcome::Success), Verdict::Up);
            let failure = Outcome::failure(*class, "");
            let its_business = matches!(class, FailureClass::Timeout | FailureClass::Connection);
            let expected = if its_business { [Verdict::Suspect, Verdict::Down] } else { [Verdict::Up, Verdict::Up] };
            assert_eq!([observe(&failure), observe(&failure)], expected, "{class}");
        }
    }

    #[test]
    fn another_check_is_not_looked_at() {
        let mut tcp = TimeoutDetector::new(0, Consecutive::new("tcp", 1, 2));
        let seen = Observation::Probe { check: 1, outcome: &Outcome::Success };
        assert_eq!((tcp.observe(&seen, LocalTime::default()), tcp.verdict()), (None, Verdict::Unknown));
    }

    #[test]
    fn other_classes_do_not_end_a_row_either() {
        let mut tcp = TimeoutDetector::new(0, Consecutive::new("tcp", 1, 2));
        for class in [FailureClass::Timeout, FailureClass::Malformed, FailureClass::Connection] {
            let failure = Outcome::failure(class, "");
            tcp.observe(&Observation::Probe { check: 0, outcome: &failure }, LocalTime::default());
        }
        assert_eq!((tcp.verdict(), tcp.evidence(LocalTime::default()).streak), (Verdict::Down, 2));
    }
}
