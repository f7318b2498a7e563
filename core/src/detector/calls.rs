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
use super::{Detector, Observation};
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
#[derive(Clone, Debug)]
pub struct CallJudge {
    all: Combination<CallParts>,
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
        Self { all: Combination::new(detection.combine, parts), trip: Trip::new(breaker) }
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
        self.all.observe(seen, now)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.all.tick(now)
    }

    fn verdict(&self) -> Verdict {
        self.all.verdict()
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        self.all.evidence(now)
    }

    fn in_doubt(&self) -> bool {
        self.all.in_doubt()
    }

    /// The verdict, what was learnt of latencies, and the breaker's numbers.
    fn reset(&mut self) {
        self.all.reset();
        self.trip.reset();
    }
}
