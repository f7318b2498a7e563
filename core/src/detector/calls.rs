//! The leader's judge of one instance by what clients report: rows of failures, the error rate and the latencies,
//! combined; and beside them the numbers by which its breaker opens.
//!
//! ```text
//!                      ┌ ConsecutiveCalls  ┐
//!   slices of 100 ms ──┼ ErrorRateDetector ┼─ any | all ─▶ verdict
//!                      └ SlowCallDetector  ┘
//!                    └── row, and a window of its own ────▶ signal to open the breaker, held until it is taken back
//! ```
//!
//! The intuition of the second line: a verdict says what *is*, so it goes when the failures go. A breaker must open even
//! where they came and went between two looks, so its signal stays until whoever moves the breaker says that it has
//! been dealt with.
//!
//! Source: the breaker's two conditions are resilience4j's failure rate over a time-based window and Hystrix' and Envoy's
//! failures in a row.

use super::combination::{Combination, Parts};
use super::consecutive_calls::{ConsecutiveCalls, Row};
use super::error_rate::{ErrorRateDetector, SLICES, Tally, share};
use super::slow::SlowCallDetector;
use super::{Detector, Observation, turn};
use crate::calls::{BreakerNumbers, CallSlice};
use crate::policy::{BreakerPolicy, Detection, ErrorRate};
use crate::probe::{Evidence, FailureClass, LocalTime, Verdict};
use crate::window::{Summed, Window};

#[derive(Clone, Debug)]
struct CallParts {
    row: ConsecutiveCalls,
    errors: ErrorRateDetector,
    slow: SlowCallDetector,
}

impl Parts for CallParts {
    fn each(&self) -> impl Iterator<Item = &dyn Detector> {
        let parts: [&dyn Detector; 3] = [&self.row, &self.errors, &self.slow];
        parts.into_iter()
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Detector> {
        let parts: [&mut dyn Detector; 3] = [&mut self.row, &mut self.errors, &mut self.slow];
        parts.into_iter()
    }
}

/// What a breaker opens by.
#[derive(Clone, Debug)]
struct Trip {
    fall: u64,
    least: u64,
    threshold: f64,
    window: Window<Tally, SLICES>,
    row: Row,
    /// The longest row since it was dealt with.
    longest: u64,
    class: Option<FailureClass>,
    signal: Option<BreakerNumbers>,
}

impl Trip {
    fn new(policy: &BreakerPolicy) -> Self {
        Self {
            fall: u64::from(policy.consecutive_failures.max(1)),
            least: u64::from(policy.min_requests),
            threshold: share(policy.error_rate),
            window: Window::new(policy.window.as_duration()),
            row: Row::default(),
            longest: 0,
            class: None,
            signal: None,
        }
    }

    fn observe(&mut self, slice: &CallSlice, now: LocalTime) {
        if slice.is_empty() {
            return;
        }
        self.longest = self.longest.max(self.row.follow(slice));
        self.class = slice.last_failure.or(self.class);
        let tally = Tally::of(slice);
        self.window.record(now, |held| held.add(&tally));
        let too_often = || self.window.last_sum().rate(self.least).is_some_and(|rate| rate >= self.threshold);
        if self.signal.is_none() && (self.longest >= self.fall || too_often()) {
            self.signal = Some(self.numbers());
        }
    }

    const fn numbers(&self) -> BreakerNumbers {
        let Tally { calls, failures } = *self.window.last_sum();
        BreakerNumbers { consecutive_failures: self.longest, calls, failures, class: self.class }
    }

    fn reset(&mut self) {
        self.window.clear();
        self.row = Row::default();
        self.longest = 0;
        self.class = None;
        self.signal = None;
    }
}

/// Judges an instance by its clients' reports, and says when its breaker should open.
///
/// Silence heals nobody. Whoever is down is called no more, and then its windows empty: that says nothing about it, so what
/// time alone would make better becomes `unknown`, and only a call that was told of makes it `up`.
///
/// Few calls accuse nobody: a row of failures alone makes an instance `down` only among at least `error_rate.min_requests`
/// calls within the window of the error rate, and `suspect` before. The breaker does not wait for that.
#[derive(Clone, Debug)]
pub struct CallJudge {
    all: Combination<CallParts>,
    verdict: Verdict,
    trip: Trip,
}

impl CallJudge {
    /// A judge that has heard nothing. `detection` gives the error rate, the slow calls and how they combine; `breaker` the
    /// row of failures (for the verdict too) and when to open.
    pub fn new(detection: &Detection, breaker: &BreakerPolicy) -> Self {
        let ErrorRate { window, min_requests, threshold } = detection.error_rate;
        // What nobody called for as long as any of its detectors remembers anything, it knows nothing of.
        let patience = window.max(detection.slow.window).as_duration();
        let parts = CallParts {
            row: ConsecutiveCalls::new(breaker.consecutive_failures, patience),
            errors: ErrorRateDetector::new(window.as_duration(), min_requests, threshold),
            slow: SlowCallDetector::new(&detection.slow),
        };
        let all = Combination::new(detection.combine, parts);
        Self { all, verdict: Verdict::Unknown, trip: Trip::new(breaker) }
    }

    /// The numbers by which the breaker should open, as they were when it first should: since the last
    /// [`Self::breaker_reset`], `consecutive_failures` calls in a row failed, or within the window at least `min_requests`
    /// calls were made and the share `error_rate` of them failed.
    pub const fn breaker_signal(&self) -> Option<BreakerNumbers> {
        self.trip.signal
    }

    /// The same numbers as they are now, whether or not the breaker should open.
    pub const fn breaker_numbers(&self) -> BreakerNumbers {
        self.trip.numbers()
    }

    /// The breaker has moved: what was counted for it before says nothing any more. The verdict is another matter.
    pub fn breaker_reset(&mut self) {
        self.trip.reset();
    }

    /// What its parts say together, where a row among few calls is no more than a doubt.
    fn judged(&self) -> Verdict {
        let CallParts { row, errors, slow } = self.all.parts();
        // The error rate is unknown exactly while too few calls were made.
        let alone =
            row.verdict() == Verdict::Down && errors.verdict() == Verdict::Unknown && slow.verdict() != Verdict::Down;
        match self.all.verdict() {
            Verdict::Down if alone => Verdict::Suspect,
            verdict @ (Verdict::Unknown | Verdict::Up | Verdict::Suspect | Verdict::Down) => verdict,
        }
    }

    /// The slow-call detector, for who wants to show its limit.
    pub const fn slow(&self) -> &SlowCallDetector {
        &self.all.parts().slow
    }
}

impl Detector for CallJudge {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        match seen {
            Observation::Calls(slice) => self.trip.observe(slice, now),
            Observation::Probe { .. } | Observation::Heartbeat(_) => return None,
        }
        self.all.observe(seen, now);
        let next = self.judged();
        turn(&mut self.verdict, next)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.all.tick(now);
        let next = match (self.verdict, self.judged()) {
            (Verdict::Down, Verdict::Suspect) => Verdict::Down,
            (Verdict::Unknown | Verdict::Suspect | Verdict::Down, Verdict::Up) => Verdict::Unknown,
            (Verdict::Up, Verdict::Up) => Verdict::Up,
            (_, worse @ (Verdict::Unknown | Verdict::Suspect | Verdict::Down)) => worse,
        };
        turn(&mut self.verdict, next)
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        match self.verdict {
            Verdict::Unknown => Evidence {
                check: String::new(),
                class: None,
                detail: "too few calls were told of lately".to_owned(),
                streak: 0,
                first_failure_age: None,
            },
            Verdict::Up | Verdict::Suspect | Verdict::Down => self.all.evidence(now),
        }
    }

    fn in_doubt(&self) -> bool {
        self.all.in_doubt()
    }

    /// The verdict, what was learnt of latencies, and the breaker's numbers.
    fn reset(&mut self) {
        self.all.reset();
        self.verdict = Verdict::Unknown;
        self.trip.reset();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::calls::{Call, CallOutcome};
    use crate::detector::{CONSECUTIVE_CALLS, ERROR_RATE, SLOW_CALLS};
    use crate::policy::{Combine, Spec};
    use crate::probe::Outcome;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    /// By the defaults: 5 in a row; half of at least 10 within 10 s; p95 of 30 s.
    fn judge(combine: Combine) -> CallJudge {
        let spec = Spec::default();
        CallJudge::new(&Detection { combine, ..spec.detection }, &spec.breaker)
    }

    /// `x` a failure, `.` a success of 10 ms, `~` one of a minute.
    fn slice(calls: &str) -> CallSlice {
        let mut slice = CallSlice::default();
        for letter in calls.chars() {
            let (outcome, ms) = match letter {
                'x' => (CallOutcome::ServerError, 1),
                '~' => (CallOutcome::Success, 60_000),
                _ => (CallOutcome::Success, 10),
            };
            slice.record(&Call { outcome, latency: Some(Duration::from_millis(ms)), count: 1 });
        }
        slice
    }

    fn observe(judge: &mut CallJudge, ms: u64, calls: &str) -> Option<Verdict> {
        judge.observe(&Observation::Calls(&slice(calls)), at(ms))
    }

    #[test]
    fn silence_heals_nobody() {
        let mut judge = judge(Combine::Any);
        assert_eq!(observe(&mut judge, 0, "........xx"), Some(Verdict::Up));
        assert_eq!(observe(&mut judge, 1_000, "xx.xxxx.xx"), Some(Verdict::Down));
        // Nobody calls it any more, and all that was counted slides out of the windows.
        let seen: Vec<Verdict> = (2..60).filter_map(|second| judge.tick(at(second * 1_000))).collect();
        assert_eq!(seen, [Verdict::Unknown], "never up, never half well");
        assert_eq!(observe(&mut judge, 60_000, "."), Some(Verdict::Up), "one good call says more than any silence");
    }

    #[test]
    fn each_part_can_accuse() {
        for (calls, accuser) in [
            ("....................xxxxx", CONSECUTIVE_CALLS),
            ("x.x.x.x.x.x.x.x.x.x.", ERROR_RATE),
            ("~~~~~~~~~~~~~~~~~~~~~~~~~.", SLOW_CALLS),
        ] {
            let mut any = judge(Combine::Any);
            assert_eq!(observe(&mut any, 0, calls), Some(Verdict::Down), "{accuser}");
            assert_eq!(any.evidence(at(0)).check, accuser);
            let mut all = judge(Combine::All);
            assert_eq!(observe(&mut all, 0, calls), Some(Verdict::Suspect), "{accuser}");
            assert_eq!(all.evidence(at(0)).check, accuser);
        }
        let mut all = judge(Combine::All);
        assert_eq!(observe(&mut all, 0, "xxxxxxxxxxxx"), Some(Verdict::Down), "no latency tells of the work here");
    }

    #[test]
    fn silence_makes_it_unknown_and_probes_are_not_its_business() {
        let mut any = judge(Combine::Any);
        assert_eq!(any.observe(&Observation::Probe { check: 0, outcome: &Outcome::Success }, at(0)), None);
        assert_eq!(observe(&mut any, 100, "xxxxxxxxxxxx"), Some(Verdict::Down));
        assert_eq!(any.tick(at(29_000)), None, "the row is remembered for as long as the longest window");
        assert_eq!(any.tick(at(31_000)), Some(Verdict::Unknown));
    }

    #[test]
    fn a_row_opens_the_breaker_even_when_it_is_over() {
        let mut any = judge(Combine::Any);
        observe(&mut any, 0, "...xxxx");
        assert_eq!(any.breaker_signal(), None);
        observe(&mut any, 100, "x...............");
        let numbers =
            BreakerNumbers { consecutive_failures: 5, calls: 23, failures: 5, class: Some(FailureClass::ServerError) };
        assert_eq!(any.breaker_signal(), Some(numbers));
        assert_ne!(any.verdict(), Verdict::Down, "it answers again");
        // It began and ended within one slice.
        let mut any = judge(Combine::Any);
        observe(&mut any, 0, "..........xxxxxx.........");
        assert_eq!(any.breaker_signal().map(|numbers| numbers.consecutive_failures), Some(6));
        assert_eq!(any.verdict(), Verdict::Up, "the last calls went well");
    }

    #[test]
    fn a_row_among_few_calls_is_a_doubt_and_opens_the_breaker() {
        let mut any = judge(Combine::Any);
        assert_eq!(observe(&mut any, 0, "xxxxxx"), Some(Verdict::Suspect), "six calls, and ten are wanted");
        assert!(any.breaker_signal().is_some());
        assert_eq!(observe(&mut any, 100, "xxxx"), Some(Verdict::Down));
        let mut busy = judge(Combine::Any);
        assert_eq!(observe(&mut busy, 0, "...............xxxxx"), Some(Verdict::Down));
    }

    #[test]
    fn a_share_of_enough_calls_opens_the_breaker() {
        let mut any = judge(Combine::Any);
        for (ms, calls, expected) in [
            (0, "x.x.x.x.x", None),
            // Nine calls are too few, the tenth makes it five of ten.
            (100, ".", Some((10, 5))),
            // The numbers stay those that opened it.
            (200, "x.x.x.x.x.x.x.x.", Some((10, 5))),
        ] {
            observe(&mut any, ms, calls);
            assert_eq!(any.breaker_signal().map(|numbers| (numbers.calls, numbers.failures)), expected, "at {ms}");
        }
        assert_eq!((any.breaker_numbers().calls, any.breaker_numbers().failures), (26, 13));
        // Below the share, and when the failures have left the window before the rest came.
        let mut any = judge(Combine::Any);
        observe(&mut any, 0, "x.x.x.x..");
        observe(&mut any, 10_000, "x.x.x.x..");
        assert_eq!(any.breaker_signal(), None);
    }

    #[test]
    fn what_was_dealt_with_says_nothing_any_more() {
        let mut any = judge(Combine::Any);
        observe(&mut any, 0, "xxxxxxxxxxxx");
        assert!(any.breaker_signal().is_some());
        any.breaker_reset();
        assert_eq!((any.breaker_signal(), any.breaker_numbers().calls), (None, 0));
        assert_eq!(any.verdict(), Verdict::Down, "the verdict is another matter");
        observe(&mut any, 100, "xxxx");
        assert_eq!(any.breaker_signal(), None, "the row began anew for the breaker");
        observe(&mut any, 200, "x");
        assert_eq!(any.breaker_signal().map(|numbers| numbers.consecutive_failures), Some(5));
        any.reset();
        assert_eq!((any.breaker_signal(), any.verdict()), (None, Verdict::Unknown));
    }

    #[test]
    fn no_calls_are_no_news() {
        let mut any = judge(Combine::Any);
        observe(&mut any, 0, "xxxx");
        assert_eq!(observe(&mut any, 100, ""), None);
        observe(&mut any, 200, "x");
        assert_eq!(any.breaker_signal().map(|numbers| numbers.consecutive_failures), Some(5));
    }
}
