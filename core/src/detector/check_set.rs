//! All checks of one instance, taken together: an instance is as well as its sickest check.
//!
//! Down if any is down, else suspect if any is suspect, else unknown if any is unknown, else up. An operator who lists
//! two checks means both. A detector too, so that sets can stand beside other detectors later.

use super::{Consecutive, Detector, HealthCheckDetector, Observation, TimeoutDetector, gravity, turn};
use crate::probe::{Evidence, LocalTime, Verdict};

/// What one check counts by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The check's name.
    pub check: String,
    /// Whether it only makes a TCP connection: then a [`TimeoutDetector`] judges it.
    pub connect_only: bool,
    /// Successes in a row after which it is up.
    pub rise: u32,
    /// Failures in a row after which it is down.
    pub fall: u32,
    /// Successes wanted beyond `rise` when it comes back from `down`.
    pub extra: u32,
}

/// The detector of one check.
#[derive(Clone, Debug)]
enum Check {
    Connect(TimeoutDetector),
    Health(HealthCheckDetector),
}

impl Check {
    fn new(place: usize, rule: Rule) -> Self {
        let row = Consecutive::new(rule.check, rule.rise, rule.fall).with_extra(rule.extra);
        if rule.connect_only {
            Self::Connect(TimeoutDetector::new(place, row))
        } else {
            Self::Health(HealthCheckDetector::new(place, row))
        }
    }

    const fn row(&self) -> &Consecutive {
        match self {
            Self::Connect(detector) => detector.row(),
            Self::Health(detector) => detector.row(),
        }
    }

    fn detector(&mut self) -> &mut dyn Detector {
        match self {
            Self::Connect(detector) => detector,
            Self::Health(detector) => detector,
        }
    }
}

/// The detectors of one instance's checks, in the order of the checks.
#[derive(Clone, Debug)]
pub struct CheckSet {
    checks: Box<[Check]>,
    verdict: Verdict,
}

impl CheckSet {
    /// A set that has seen nothing.
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let checks = rules.into_iter().enumerate().map(|(place, rule)| Check::new(place, rule)).collect();
        Self { checks, verdict: Verdict::Unknown }
    }

    /// How many checks there are.
    pub const fn len(&self) -> usize {
        self.checks.len()
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.checks.is_empty()
    }

    /// The check that decides: the sickest; among equals the one that has failed longest, then the first.
    fn deciding(&self) -> Option<&Consecutive> {
        self.checks.iter().map(Check::row).min_by_key(|row| {
            let failing = row.failing_since();
            (std::cmp::Reverse(gravity(row.verdict())), failing.is_none(), failing)
        })
    }

    /// Holds the sickest verdict from now on; answers it where it is another one.
    fn judge(&mut self) -> Option<Verdict> {
        let rows = self.checks.iter().map(|check| check.row().verdict());
        let next = rows.max_by_key(|verdict| gravity(*verdict)).unwrap_or(Verdict::Unknown);
        turn(&mut self.verdict, next)
    }
}

impl Detector for CheckSet {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        let place = match seen {
            Observation::Probe { check, .. } => *check,
            Observation::Calls(_) | Observation::Heartbeat(_) => return None,
        };
        self.checks.get_mut(place)?.detector().observe(seen, now)?;
        self.judge()
    }

    fn tick(&mut self, _now: LocalTime) -> Option<Verdict> {
        None
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        match self.deciding() {
            Some(check) => check.evidence(now),
            None => Evidence {
                check: String::new(),
                class: None,
                detail: "no check to look by".to_owned(),
                streak: 0,
                first_failure_age: None,
            },
        }
    }

    fn in_doubt(&self) -> bool {
        self.checks.iter().any(|check| check.row().in_doubt())
    }

    fn reset(&mut self) {
        self.checks.iter_mut().for_each(|check| check.detector().reset());
        self.verdict = Verdict::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::{FailureClass, Outcome};

    fn set() -> CheckSet {
        let rule =
            |check: &str| Rule { check: check.to_owned(), connect_only: check == "tcp", rise: 1, fall: 2, extra: 0 };
        CheckSet::new([rule("tcp"), rule("web")])
    }

    fn observe(set: &mut CheckSet, check: usize, good: bool, ms: u64) -> Option<Verdict> {
        let failure = Outcome::failure(FailureClass::Timeout, format!("check {check}"));
        let outcome = if good { &Outcome::Success } else { &failure };
        set.observe(&Observation::Probe { check, outcome }, LocalTime(Duration::from_millis(ms)))
    }

    #[test]
    fn an_instance_is_as_well_as_its_sickest_check() {
        let mut set = set();
        assert_eq!(observe(&mut set, 0, true, 0), None, "the other check has not spoken");
        assert_eq!(set.verdict(), Verdict::Unknown);
        assert_eq!(observe(&mut set, 1, true, 1), Some(Verdict::Up));
        assert_eq!(observe(&mut set, 1, false, 2), Some(Verdict::Suspect));
        assert_eq!(observe(&mut set, 0, true, 3), None, "a good answer to one check does not excuse the other");
        assert_eq!(observe(&mut set, 1, false, 4), Some(Verdict::Down));
        assert_eq!(observe(&mut set, 0, false, 5), None);
        assert_eq!(observe(&mut set, 1, true, 6), Some(Verdict::Suspect), "the first check is in doubt meanwhile");
        assert_eq!(observe(&mut set, 0, true, 7), Some(Verdict::Up));
        set.reset();
        assert_eq!((set.verdict(), set.in_doubt()), (Verdict::Unknown, true));
        assert_eq!(observe(&mut set, 0, true, 8), None, "each check begins anew");
    }

    #[test]
    fn the_sickest_check_gives_the_evidence() {
        let mut set = set();
        for (check, ms) in [(1, 10), (0, 20), (0, 30), (1, 40)] {
            observe(&mut set, check, false, ms);
        }
        let evidence = set.evidence(LocalTime(Duration::from_millis(50)));
        assert_eq!((evidence.check.as_str(), evidence.streak), ("web", 2), "both are down, web failed first");
        observe(&mut set, 1, true, 60);
        assert_eq!(set.evidence(LocalTime(Duration::from_millis(60))).check, "tcp");
    }

    #[test]
    fn a_set_without_checks_never_speaks() {
        let mut set = CheckSet::new([]);
        assert_eq!(observe(&mut set, 0, false, 0), None);
        assert_eq!((set.verdict(), set.in_doubt()), (Verdict::Unknown, false));
    }
}
