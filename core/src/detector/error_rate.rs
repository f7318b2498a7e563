//! The error-rate detector: which share of the calls and probes of the last while failed?
//!
//! The intuition: an instance that fails every other call never fails often enough in a row, and yet half of its callers
//! are hurt. A share over a sliding window sees it; a least number of calls keeps one failure of two from being "half".
//!
//! ```text
//!   failed / all, over the window
//!   0 ─────────── threshold / 2 ─────────── threshold ─────────── 1
//!         up      │        suspect          │        down            (fewer than min_requests: unknown)
//! ```
//!
//! Source: resilience4j's time-based failure rate with `minimumNumberOfCalls`, Envoy's failure-percentage outlier
//! detection with its `request_volume`, linkerd's success-rate accrual. The doubt from half of the threshold on is
//! Baton's own: it asks for quicker looks before it accuses.

use std::time::Duration;

use super::{Detector, Observation, age, turn};
use crate::calls::CallSlice;
use crate::probe::{Evidence, FailureClass, LocalTime, Outcome, Verdict};
use crate::time::Millis;
use crate::window::{Summed, Window};

/// What its evidence is signed with.
pub const ERROR_RATE: &str = "error_rate";

/// Slices of a window: a tenth of it is forgotten at a time.
pub(super) const SLICES: usize = 10;

/// Calls, and how many of them failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failures: u64,
}

impl Tally {
    pub(super) fn of(slice: &CallSlice) -> Self {
        Self { calls: slice.calls(), failures: slice.failures() }
    }

    /// The share that failed, where there are at least `least` calls (and at least one).
    pub(super) fn rate(self, least: u64) -> Option<f64> {
        // One division, correctly rounded: three of ten *is* the double that is written 0.3.
        (self.calls >= least.max(1)).then(|| self.failures as f64 / self.calls as f64)
    }
}

impl Summed for Tally {
    fn add(&mut self, other: &Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failures = self.failures.saturating_add(other.failures);
    }

    fn subtract(&mut self, other: &Self) -> bool {
        let exact = self.calls != u64::MAX && self.failures != u64::MAX;
        self.calls = self.calls.saturating_sub(other.calls);
        self.failures = self.failures.saturating_sub(other.failures);
        exact
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A share of failures as a threshold. What is not above 0 would accuse everybody and is taken as 1, as is what no share
/// can reach.
pub(super) fn share(threshold: f64) -> f64 {
    if threshold > 0.0 { threshold.min(1.0) } else { 1.0 }
}

/// The share of a threshold that a rate must fall below before what was held because of it is taken back.
const CLEARLY: f64 = 0.8;

/// Judges by the share of failures in a sliding window, over probes and calls alike.
#[derive(Clone, Debug)]
pub struct ErrorRateDetector {
    length: Duration,
    least: u64,
    threshold: f64,
    window: Window<Tally, SLICES>,
    verdict: Verdict,
    /// When failures began that the window had not been free of since when it last held one.
    failing_since: Option<LocalTime>,
    class: Option<FailureClass>,
    /// Whether what was seen last had a failure in it.
    failed_last: bool,
    /// What has been counted since the beginning or the last reset.
    counted: Counted,
}

/// What a rate is made of, so that its evidence calls it by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Nothing,
    Probes,
    Calls,
    Both,
}

impl Counted {
    const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, seen) | (seen, Self::Nothing) => seen,
            (Self::Probes, Self::Probes) => Self::Probes,
            (Self::Calls, Self::Calls) => Self::Calls,
            (Self::Both, _) | (_, Self::Both) | (Self::Probes, Self::Calls) | (Self::Calls, Self::Probes) => Self::Both,
        }
    }

    const fn told(self) -> &'static str {
        match self {
            Self::Nothing | Self::Calls => "calls",
            Self::Probes => "probes",
            Self::Both => "calls and probes",
        }
    }
}

impl ErrorRateDetector {
    /// A detector that has seen nothing. It is `down` from a share of `threshold` (0 to 1) on, `suspect` from half of that (each is
    /// taken back a fifth below),
    /// `unknown` while the window holds fewer than `min_requests` calls.
    pub fn new(window: Duration, min_requests: u32, threshold: f64) -> Self {
        Self {
            length: window,
            least: u64::from(min_requests.max(1)),
            threshold: share(threshold),
            window: Window::new(window),
            verdict: Verdict::Unknown,
            failing_since: None,
            class: None,
            failed_last: false,
            counted: Counted::Nothing,
        }
    }

    fn judge(&mut self, now: LocalTime) -> Option<Verdict> {
        let sum = *self.window.sum(now);
        // What was held is held on to until the rate is clearly below: at the edge it would be taken back with each slice.
        let (down, suspect) = match self.verdict {
            Verdict::Down => (self.threshold * CLEARLY, self.threshold / 2.0 * CLEARLY),
            Verdict::Suspect => (self.threshold, self.threshold / 2.0 * CLEARLY),
            Verdict::Up | Verdict::Unknown => (self.threshold, self.threshold / 2.0),
        };
        let next = match sum.rate(self.least) {
            None => Verdict::Unknown,
            Some(rate) if rate >= down => Verdict::Down,
            Some(rate) if rate >= suspect => Verdict::Suspect,
            Some(_) => Verdict::Up,
        };
        turn(&mut self.verdict, next)
    }
}

impl Detector for ErrorRateDetector {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        let (tally, class, counted) = match seen {
            Observation::Probe { outcome: Outcome::Success, .. } => {
                (Tally { calls: 1, failures: 0 }, None, Counted::Probes)
            }
            Observation::Probe { outcome: Outcome::Failure { class, .. }, .. } => {
                (Tally { calls: 1, failures: 1 }, Some(*class), Counted::Probes)
            }
            Observation::Calls(slice) => (Tally::of(slice), slice.last_failure, Counted::Calls),
            Observation::Heartbeat(_) => return None,
        };
        if tally.calls > 0 {
            self.counted = self.counted.and(counted);
            self.failed_last = tally.failures > 0;
            if self.failed_last {
                if self.window.sum(now).failures == 0 {
                    self.failing_since = Some(now);
                }
                self.class = class;
            }
            self.window.record(now, |held| held.add(&tally));
        }
        self.judge(now)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.judge(now)
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Its `streak` is the number of failures in the window.
    fn evidence(&self, now: LocalTime) -> Evidence {
        let Tally { calls, failures } = *self.window.last_sum();
        let length = Millis(u64::try_from(self.length.as_millis()).unwrap_or(u64::MAX));
        let counted = self.counted.told();
        let detail = match self.verdict {
            Verdict::Unknown => format!("{calls} {counted} within {length}, judged from {} on", self.least),
            Verdict::Up | Verdict::Suspect | Verdict::Down => {
                format!("{failures} of {calls} {counted} failed within {length}")
            }
        };
        let sick = matches!(self.verdict, Verdict::Suspect | Verdict::Down);
        Evidence {
            check: ERROR_RATE.to_owned(),
            class: self.class.filter(|_| sick),
            detail,
            streak: u32::try_from(failures).unwrap_or(u32::MAX),
            first_failure_age: self.failing_since.filter(|_| sick).map(|since| age(now, since)),
        }
    }

    /// A suspect is looked at more closely, and one that is down once something succeeds. Too few calls are no doubt:
    /// whoever is probed is judged by its checks meanwhile, and reports cannot be asked for.
    fn in_doubt(&self) -> bool {
        match self.verdict {
            Verdict::Suspect => true,
            Verdict::Down => !self.failed_last,
            Verdict::Unknown | Verdict::Up => false,
        }
    }

    fn reset(&mut self) {
        self.window.clear();
        self.verdict = Verdict::Unknown;
        self.failing_since = None;
        self.class = None;
        self.failed_last = false;
        self.counted = Counted::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{Call, CallOutcome};

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    fn calls(good: u32, bad: u32) -> CallSlice {
        let mut slice = CallSlice::default();
        for (outcome, count) in [(CallOutcome::ServerError, bad), (CallOutcome::Success, good)] {
            slice.record(&Call { outcome, latency: None, count });
        }
        slice
    }

    /// Over 10 s, from 10 calls on, at a half.
    fn detector() -> ErrorRateDetector {
        ErrorRateDetector::new(Duration::from_secs(10), 10, 0.5)
    }

    #[test]
    fn thresholds_are_met_exactly() {
        for (threshold, good, bad, expected) in [
            (0.5, 0, 0, Verdict::Unknown),
            (0.5, 0, 9, Verdict::Unknown),
            (0.5, 10, 0, Verdict::Up),
            (0.5, 5, 5, Verdict::Down),
            (0.5, 6, 5, Verdict::Suspect),
            (0.5, 15, 5, Verdict::Suspect),
            (0.5, 16, 5, Verdict::Up),
            (1.0, 1, 99, Verdict::Suspect),
            (1.0, 0, 100, Verdict::Down),
            // Shares that no double holds exactly.
            (0.3, 7, 3, Verdict::Down),
            (0.1, 27, 3, Verdict::Down),
            (0.7, 3, 7, Verdict::Down),
            (0.2, 90, 10, Verdict::Suspect),
            // What is no share accuses nobody that answers at all.
            (f64::NAN, 1, 99, Verdict::Suspect),
            (0.0, 100, 0, Verdict::Up),
            (-1.0, 100, 0, Verdict::Up),
            (2.0, 0, 100, Verdict::Down),
            (0.5, u32::MAX, u32::MAX, Verdict::Down),
        ] {
            let mut detector = ErrorRateDetector::new(Duration::from_secs(10), 10, threshold);
            let told = detector.observe(&Observation::Calls(&calls(good, bad)), at(0));
            assert_eq!(detector.verdict(), expected, "threshold {threshold}, {good} good, {bad} bad");
            assert_eq!(told, (expected != Verdict::Unknown).then_some(expected));
        }
    }

    #[test]
    fn it_is_judged_anew_as_slices_leave() {
        let mut detector = detector();
        let mut story = Vec::new();
        // Nine failures and nine successes in the first second, one success in each that follows.
        story.extend(detector.observe(&Observation::Calls(&calls(9, 9)), at(100)));
        for second in 1..=9 {
            story.extend(detector.observe(&Observation::Calls(&calls(1, 0)), at(second * 1_000 + 100)));
        }
        assert_eq!(story, [Verdict::Down, Verdict::Suspect], "a success more and it is below a half");
        assert_eq!(detector.tick(at(9_999)), None);
        assert_eq!(detector.tick(at(10_000)), Some(Verdict::Unknown), "nine successes are too few to judge by");
        assert_eq!(detector.observe(&Observation::Calls(&calls(1, 0)), at(10_100)), Some(Verdict::Up));
        assert_eq!(detector.tick(at(30_000)), Some(Verdict::Unknown));
        assert_eq!(detector.tick(at(30_000)), None);
    }

    #[test]
    fn what_is_counted_is_called_by_its_name() {
        let down = Outcome::failure(FailureClass::Timeout, "late");
        let probe = |detector: &mut ErrorRateDetector| {
            detector.observe(&Observation::Probe { check: 0, outcome: &down }, at(0));
        };
        let told = |detector: &ErrorRateDetector| detector.evidence(at(0)).detail;
        let mut probed = ErrorRateDetector::new(Duration::from_secs(5), 1, 0.5);
        probe(&mut probed);
        assert_eq!(told(&probed), "1 of 1 probes failed within 5s");
        let mut called = ErrorRateDetector::new(Duration::from_secs(5), 1, 0.5);
        called.observe(&Observation::Calls(&calls(0, 3)), at(0));
        assert_eq!(told(&called), "3 of 3 calls failed within 5s");
        probe(&mut called);
        assert_eq!(told(&called), "4 of 4 calls and probes failed within 5s");
        called.reset();
        probe(&mut called);
        assert_eq!(told(&called), "1 of 1 probes failed within 5s");
    }

    #[test]
    fn probes_and_calls_count_together_and_a_clock_that_goes_back_is_harmless() {
        let mut detector = detector();
        let failure = Outcome::failure(FailureClass::Malformed, "wrong body");
        for ms in [5_000, 5_000, 4_000, 0, 5_100] {
            detector.observe(&Observation::Probe { check: 0, outcome: &failure }, at(ms));
        }
        assert_eq!(detector.verdict(), Verdict::Unknown);
        assert_eq!(detector.observe(&Observation::Calls(&calls(5, 0)), at(5_200)), Some(Verdict::Down));
        assert!(detector.in_doubt(), "it succeeded last");
        let evidence = detector.evidence(at(5_500));
        assert_eq!(
            (evidence.check.as_str(), evidence.streak, evidence.class),
            (ERROR_RATE, 5, Some(FailureClass::Malformed))
        );
        assert_eq!(evidence.detail, "5 of 10 calls and probes failed within 10s");
        assert_eq!(evidence.first_failure_age, Some(Millis(500)));
        detector.reset();
        assert_eq!((detector.verdict(), detector.in_doubt()), (Verdict::Unknown, false));
        assert_eq!(detector.evidence(at(5_500)).detail, "0 calls within 10s, judged from 10 on");
    }

    #[test]
    fn a_spell_of_failures_begins_anew_once_the_window_was_free_of_them() {
        let mut detector = detector();
        detector.observe(&Observation::Calls(&calls(0, 10)), at(0));
        detector.tick(at(20_000));
        detector.observe(&Observation::Calls(&calls(0, 10)), at(21_000));
        assert_eq!(detector.evidence(at(21_300)).first_failure_age, Some(Millis(300)));
    }

    #[test]
    fn sums_that_hit_their_bound_do_not_wrap() {
        let mut detector = ErrorRateDetector::new(Duration::from_secs(10), 1, 0.5);
        let mut slice = calls(1, 1);
        slice.counts.success = u64::MAX;
        for ms in [0, 1_000] {
            detector.observe(&Observation::Calls(&slice), at(ms));
        }
        assert_eq!(detector.verdict(), Verdict::Up);
        detector.observe(&Observation::Calls(&calls(0, 9)), at(2_000));
        assert_eq!(detector.tick(at(11_500)), Some(Verdict::Down), "only the nine are left");
    }
}
