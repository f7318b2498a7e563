//! What an observer holds of one instance: its checks, and beside them the error rate over its own probes.
//!
//! The intuition: an instance that fails every other probe never fails `fall` in a row; its checks waver between `up` and
//! `suspect` for ever. The share of failed probes tells. Once the checks agree that an outage is over, though, the
//! failures of the outage must not hold the instance down until the window has emptied, so they are forgotten.
//!
//! ```text
//!   probes  · · · x · x x · x x · x x ·         fall 3 is never reached
//!   checks  up    s u s s u s s u s s u
//!   rate    up        suspect   down            6 of 12
//! ```
//!
//! The rate can accuse, and it cannot clear: an instance is not up before its checks have risen, however many single
//! probes went well.

use super::combination::{Combination, Parts};
use super::{CheckSet, Detector, ErrorRateDetector, Observation, Rule, turn};
use crate::policy::{Combine, ErrorRate};
use crate::probe::{Evidence, LocalTime, Verdict};

#[derive(Clone, Debug)]
struct ProbeParts {
    checks: CheckSet,
    errors: ErrorRateDetector,
}

impl Parts for ProbeParts {
    fn each(&self) -> impl Iterator<Item = &dyn Detector> {
        let parts: [&dyn Detector; 2] = [&self.checks, &self.errors];
        parts.into_iter()
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Detector> {
        let parts: [&mut dyn Detector; 2] = [&mut self.checks, &mut self.errors];
        parts.into_iter()
    }
}

/// Judges an instance by one node's probes of it.
#[derive(Clone, Debug)]
pub struct ProbeDetector {
    all: Combination<ProbeParts>,
    /// Whether the checks were down and have not been up since.
    outage: bool,
    verdict: Verdict,
}

impl ProbeDetector {
    /// A detector that has seen nothing. The evidence of the error rate is signed with [`super::ERROR_RATE`], that of a check
    /// with the check's name.
    pub fn new(rules: impl IntoIterator<Item = Rule>, combine: Combine, rate: &ErrorRate) -> Self {
        let errors = ErrorRateDetector::new(rate.window.as_duration(), rate.min_requests, rate.threshold);
        let parts = ProbeParts { checks: CheckSet::new(rules), errors };
        Self { all: Combination::new(combine, parts), outage: false, verdict: Verdict::Unknown }
    }

    /// The checks alone.
    pub const fn checks(&self) -> &CheckSet {
        &self.all.parts().checks
    }

    fn judge(&mut self) -> Option<Verdict> {
        let next = match (self.all.verdict(), self.checks().verdict()) {
            (Verdict::Up, Verdict::Unknown) => Verdict::Unknown,
            (combined, _) => combined,
        };
        turn(&mut self.verdict, next)
    }
}

impl Detector for ProbeDetector {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        match seen {
            // A check that is not of the list would be counted and never judged.
            Observation::Probe { check, .. } if *check < self.checks().len() => {}
            Observation::Probe { .. } | Observation::Calls(_) | Observation::Heartbeat(_) => return None,
        }
        self.all.observe(seen, now);
        match self.checks().verdict() {
            Verdict::Down => self.outage = true,
            Verdict::Up if self.outage => {
                self.outage = false;
                self.all.change(|parts| parts.errors.reset());
            }
            Verdict::Up | Verdict::Suspect | Verdict::Unknown => {}
        }
        self.judge()
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.all.tick(now);
        self.judge()
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        // Where the checks alone hold it back, they say why.
        if self.verdict == self.all.verdict() { self.all.evidence(now) } else { self.checks().evidence(now) }
    }

    fn in_doubt(&self) -> bool {
        self.all.in_doubt()
    }

    fn reset(&mut self) {
        self.all.reset();
        self.outage = false;
        self.verdict = Verdict::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::detector::ERROR_RATE;
    use crate::probe::{FailureClass, Outcome};
    use crate::time::Millis;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    fn detector(combine: Combine, rise: u32, extra: u32) -> ProbeDetector {
        let rule = Rule { check: "web".to_owned(), connect_only: false, rise, fall: 3, extra };
        let rate = ErrorRate { window: Millis::secs(10), min_requests: 10, threshold: 0.5 };
        ProbeDetector::new([rule], combine, &rate)
    }

    /// Plays probes 500 ms apart, `.` good and `x` not; writes what is held after each: `?` unknown, `U` up, `s` suspect, `D`
    /// down.
    fn play(detector: &mut ProbeDetector, from: u64, probes: &str) -> String {
        let failure = Outcome::failure(FailureClass::ServerError, "status 500");
        let mut told = String::new();
        for (place, probe) in probes.chars().enumerate() {
            let before = detector.verdict();
            let outcome = if probe == '.' { &Outcome::Success } else { &failure };
            let change = detector.observe(&Observation::Probe { check: 0, outcome }, at(from + place as u64 * 500));
            assert_eq!(change, (before != detector.verdict()).then_some(detector.verdict()), "a change is told");
            told.push(match detector.verdict() {
                Verdict::Unknown => '?',
                Verdict::Up => 'U',
                Verdict::Suspect => 's',
                Verdict::Down => 'D',
            });
        }
        told
    }

    #[test]
    fn one_that_fails_every_other_probe_is_caught() {
        let mut any = detector(Combine::Any, 2, 0);
        assert_eq!(play(&mut any, 0, "..x.x.xx.xx.x."), "?UsUsUssUDDDDD");
        let evidence = any.evidence(at(7_000));
        assert_eq!((evidence.check.as_str(), evidence.class), (ERROR_RATE, Some(FailureClass::ServerError)));
        // The checks never fell, so they do not bring it back either: the window does.
        assert_eq!(play(&mut any, 7_000, "..............."), "DDDsssssssssUUU");
    }

    #[test]
    fn an_outage_that_is_over_does_not_hold_it_down() {
        let mut any = detector(Combine::Any, 2, 0);
        assert_eq!(play(&mut any, 0, ".....xxxxxxxx"), "?UUUUssDDDDDD");
        assert_eq!(any.evidence(at(6_500)).check, "web", "among equals the check speaks");
        assert_eq!(play(&mut any, 6_500, ".."), "DU", "8 of 15 had failed");
        // Nor does one that is over only after a doubt.
        assert_eq!(play(&mut any, 7_500, "xxxx.x.."), "ssDDDDDU");
    }

    #[test]
    fn extra_successes_are_wanted_after_an_outage() {
        let mut any = detector(Combine::Any, 2, 3);
        assert_eq!(play(&mut any, 0, "..xxx....xx....."), "?UssDDDDDDDDDDDU");
    }

    #[test]
    fn good_probes_do_not_clear_it_before_its_check_has_risen() {
        let mut any = detector(Combine::Any, 12, 0);
        assert_eq!(play(&mut any, 0, "............"), "???????????U");
        let mut any = detector(Combine::Any, 12, 0);
        play(&mut any, 0, "..........");
        assert_eq!(any.evidence(at(5_000)).check, "web", "it says what is wanted yet");
        let mut any = detector(Combine::Any, 12, 0);
        assert_eq!(play(&mut any, 0, ".xx.xx.xx."), "?????????D", "it can be accused before");
    }

    #[test]
    fn all_wants_both_to_agree() {
        let mut all = detector(Combine::All, 1, 0);
        // The check falls with three in a row; not before seven of fourteen does the rate agree.
        assert_eq!(play(&mut all, 0, ".......xxxxxxx"), "UUUUUUUssssssD");
        // While too few probes are in the window, the check alone decides.
        let mut all = detector(Combine::All, 1, 0);
        assert_eq!(play(&mut all, 0, ".xxx."), "UssDU");
    }

    #[test]
    fn time_alone_can_clear_it_and_a_reset_does() {
        let mut any = detector(Combine::Any, 1, 0);
        play(&mut any, 0, ".x.x.x.x.x");
        assert_eq!(any.verdict(), Verdict::Down);
        assert_eq!(any.tick(at(15_000)), Some(Verdict::Suspect), "the check's last probe failed");
        assert!(any.in_doubt());
        any.reset();
        assert_eq!((any.verdict(), any.tick(at(16_000))), (Verdict::Unknown, None));
        let stranger = Observation::Probe { check: 7, outcome: &Outcome::Success };
        assert_eq!(any.observe(&stranger, at(16_000)), None, "no such check");
        assert_eq!(any.all.parts().errors.evidence(at(16_000)).detail, "0 calls within 10s, judged from 10 on");
    }
}
