//! The health-check detector: one periodic check of an instance (http, tls, grpc, agent, ...), judged by its outcomes in a
//! row. Whatever class a failure has, the check was not answered as agreed, and that is all that counts.
//!
//! Source: HAProxy's `rise` and `fall`, Kubernetes' `successThreshold` and `failureThreshold`. The machine itself is
//! [`Consecutive`].

use super::{Consecutive, Detector, Observation};
use crate::probe::{Evidence, LocalTime, Verdict};

/// Judges an instance by one of its checks, and looks at no other.
#[derive(Clone, Debug)]
pub struct HealthCheckDetector {
    place: usize,
    row: Consecutive,
}

impl HealthCheckDetector {
    /// A detector for the check at `place` in the instance's list, judged as `row` says.
    pub const fn new(place: usize, row: Consecutive) -> Self {
        Self { place, row }
    }

    /// The present row of outcomes.
    pub const fn row(&self) -> &Consecutive {
        &self.row
    }
}

impl Detector for HealthCheckDetector {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        match seen {
            Observation::Probe { check, .. } if *check == self.place => self.row.observe(seen, now),
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
    use crate::calls::CallSlice;
    use crate::detector::{Heartbeat, HeartbeatState};
    use crate::probe::{FailureClass, Outcome};

    #[test]
    fn it_looks_at_its_own_check_only_and_at_every_class() {
        let mut web = HealthCheckDetector::new(1, Consecutive::new("web", 1, 2));
        let now = LocalTime::default();
        let good = Outcome::Success;
        assert_eq!(web.observe(&Observation::Probe { check: 0, outcome: &good }, now), None);
        assert_eq!(web.observe(&Observation::Calls(&CallSlice::default()), now), None);
        assert_eq!(web.observe(&Observation::Heartbeat(Heartbeat { state: HeartbeatState::Ok }), now), None);
        assert_eq!(web.verdict(), Verdict::Unknown);
        assert_eq!(web.observe(&Observation::Probe { check: 1, outcome: &good }, now), Some(Verdict::Up));
        for (_, class) in FailureClass::ALL {
            web.reset();
            for expected in [None, Some(Verdict::Down)] {
                let failure = Outcome::failure(*class, "");
                let told = web.observe(&Observation::Probe { check: 1, outcome: &failure }, now);
                assert_eq!(told, expected, "{class}");
            }
        }
    }
}
