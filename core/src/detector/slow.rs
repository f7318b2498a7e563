//! The slow-call detector: does it take much longer than it used to?
//!
//! The intuition: nobody can say beforehand what "slow" is: 300 ms is a disaster for a cache and nothing for a report. So
//! the instance's own past says it. The percentile of the window is held against a baseline that is learnt slowly, and
//! never from a window that was judged slow: else an hour of slowness would become the standard.
//!
//! ```text
//!   latency                      ┌── p95 of the window
//!     │                     ╭────╮
//!     │─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─│─ ─ ─│─ ─   limit = baseline × multiplier, within floor and ceiling
//!     │    ╭╮  ╭─╮         ╭╯    ╰╮
//!     │────╯╰──╯─╰─────────╯┄┄┄┄┄┄╰───   baseline (┄ stands still while slow)
//!     └──────────────────────────────▶ time
//!      learns only │ judges           (until a whole window was learnt from, only the ceiling limits)
//! ```
//!
//! What follows from it, and is meant: a level that rises for good by more than the multiplier stays `down` until it falls
//! again or an operator resets the instance, which learns anew (so does a new registration). A level that creeps up over
//! many minutes is learnt, until the ceiling.
//!
//! Which latencies count is said by [`CallOutcome::tells_latency`](crate::calls::CallOutcome::tells_latency): those of
//! successes, slow answers and time-outs, not those of errors, which come back at once. Calls without a latency say
//! nothing here and do not count towards `min_requests`.
//!
//! Source: resilience4j's slow-call rate and Envoy's adaptive concurrency (a minimum round-trip time re-measured against
//! samples) in spirit; the slow mean is Jacobson's smoothed round-trip time (1988) with a smaller gain.

use std::time::Duration;

use super::{Detector, Observation, age, turn};
use crate::calls::Latencies;
use crate::policy::SlowCalls;
use crate::probe::{Evidence, FailureClass, LocalTime, Verdict};
use crate::window::Window;

/// What its evidence is signed with.
pub const SLOW_CALLS: &str = "slow";

/// Slices of the window. Few, because each is a whole histogram.
const SLICES: usize = 6;

/// Windows learnt from, one a slice, before the baseline counts: those that a whole length of the window is made of.
const LEARN_FIRST: u32 = SLICES as u32;

/// How much of the baseline a new window makes up at least: with a window of 30 s, a mean over some five minutes. What
/// gets slow more quickly than that is noticed. The first windows weigh alike.
const GAIN: f64 = 1.0 / 64.0;

/// Judges by a percentile of the latencies against their past.
#[derive(Clone, Debug)]
pub struct SlowCallDetector {
    policy: SlowCalls,
    window: Window<Latencies, SLICES>,
    /// The percentile as it usually is, in seconds.
    baseline: f64,
    /// Windows learnt from.
    learnt: u32,
    /// Whether anything was recorded since it was learnt from last.
    fresh: bool,
    /// The window's percentile when it was judged last; none where it held too few latencies.
    percentile: Option<Duration>,
    slow_since: Option<LocalTime>,
    verdict: Verdict,
}

impl SlowCallDetector {
    /// A detector that has seen nothing and learnt nothing. It is `down` where the window holds at least `min_requests`
    /// latencies and their percentile is above the limit, `up` where it is not, `unknown` with fewer.
    pub fn new(policy: &SlowCalls) -> Self {
        Self {
            policy: policy.clone(),
            window: Window::new(policy.window.as_duration()),
            baseline: 0.0,
            learnt: 0,
            fresh: false,
            percentile: None,
            slow_since: None,
            verdict: Verdict::Unknown,
        }
    }

    /// What the percentile usually is; none until enough was learnt.
    pub fn baseline(&self) -> Option<Duration> {
        (self.learnt >= LEARN_FIRST).then(|| seconds(self.baseline))
    }

    /// What the percentile may be now.
    pub fn limit(&self) -> Duration {
        let (floor, ceiling) = (self.policy.floor.as_duration(), self.policy.ceiling.as_duration());
        match self.baseline() {
            Some(_) => seconds(self.baseline * self.policy.multiplier).max(floor).min(ceiling),
            None => ceiling,
        }
    }

    /// Learns from the window that a slice has just completed, where it was not slow.
    fn learn(&mut self) {
        if let Some(percentile) = self.percentile
            && self.fresh
            && self.verdict == Verdict::Up
        {
            self.learnt = self.learnt.saturating_add(1);
            let gain = (1.0 / f64::from(self.learnt)).max(GAIN);
            self.baseline += (percentile.as_secs_f64() - self.baseline) * gain;
        }
        self.fresh = false;
    }

    /// Judges the window that ends at `now`.
    fn judge(&mut self, now: LocalTime) -> Option<Verdict> {
        let sum = self.window.sum(now);
        (_, self.percentile) = sum.percentile_of(self.policy.percentile, u64::from(self.policy.min_requests));
        let next = match self.percentile {
            None => Verdict::Unknown,
            Some(percentile) if percentile > self.limit() => Verdict::Down,
            Some(_) => Verdict::Up,
        };
        self.slow_since = if next == Verdict::Down { self.slow_since.or(Some(now)) } else { None };
        turn(&mut self.verdict, next)
    }
}

/// A length that cannot be told is the longest: only a product of absurd settings gets there.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

impl Detector for SlowCallDetector {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        let slice = match seen {
            Observation::Calls(slice) => *slice,
            Observation::Probe { .. } | Observation::Heartbeat(_) => return None,
        };
        if slice.latency.is_empty() {
            return self.tick(now);
        }
        if self.window.is_due(now) {
            self.learn();
        }
        self.window.record(now, |held| held.merge(&slice.latency));
        self.fresh = true;
        self.judge(now)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        if !self.window.is_due(now) {
            return None;
        }
        self.learn();
        self.judge(now)
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Its `streak` is the number of latencies in the window.
    fn evidence(&self, now: LocalTime) -> Evidence {
        let count = self.window.last_sum().count();
        let name = format!("p{}", (self.policy.percentile * 1_000.0).round() / 10.0);
        let limit = self.limit().as_millis();
        let detail = match (self.percentile, self.baseline()) {
            (None, _) => {
                format!("{count} latencies within {}, judged from {} on", self.policy.window, self.policy.min_requests)
            }
            (Some(percentile), None) => {
                format!("{name} of {count} calls is {} ms, the ceiling {limit} ms", percentile.as_millis())
            }
            (Some(percentile), Some(baseline)) => format!(
                "{name} of {count} calls is {} ms, the limit {limit} ms, usual are {} ms",
                percentile.as_millis(),
                baseline.as_millis()
            ),
        };
        Evidence {
            check: SLOW_CALLS.to_owned(),
            class: (self.verdict == Verdict::Down).then_some(FailureClass::Slow),
            detail,
            streak: u32::try_from(count).unwrap_or(u32::MAX),
            first_failure_age: self.slow_since.map(|since| age(now, since)),
        }
    }

    /// Never: probes tell no percentile, and reports cannot be asked for.
    fn in_doubt(&self) -> bool {
        false
    }

    fn reset(&mut self) {
        self.window.clear();
        self.baseline = 0.0;
        self.learnt = 0;
        self.fresh = false;
        self.percentile = None;
        self.slow_since = None;
        self.verdict = Verdict::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{Call, CallOutcome, CallSlice};
    use crate::time::Millis;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    fn policy() -> SlowCalls {
        SlowCalls {
            window: Millis::secs(30),
            min_requests: 20,
            percentile: 0.95,
            multiplier: 2.0,
            floor: Millis(50),
            ceiling: Millis::secs(30),
        }
    }

    fn calls(outcome: CallOutcome, ms: u64, count: u32) -> CallSlice {
        let mut slice = CallSlice::default();
        slice.record(&Call { outcome, latency: Some(Duration::from_millis(ms)), count });
        slice
    }

    /// One second of calls after another, each with so many milliseconds; answers the changes of verdict with their second.
    fn play(detector: &mut SlowCallDetector, seconds: impl IntoIterator<Item = (u64, u64)>) -> Vec<(u64, Verdict)> {
        let mut told = Vec::new();
        for (second, ms) in seconds {
            let slice = calls(CallOutcome::Success, ms, 10);
            told.extend(detector.observe(&Observation::Calls(&slice), at(second * 1_000)).map(|next| (second, next)));
        }
        told
    }

    #[test]
    fn at_first_only_the_ceiling_limits() {
        let mut detector = SlowCallDetector::new(&SlowCalls { ceiling: Millis::secs(2), ..policy() });
        assert_eq!(detector.limit(), Duration::from_secs(2));
        assert_eq!(play(&mut detector, [(0, 1_500)]), [], "ten are too few");
        assert_eq!(play(&mut detector, [(1, 1_500)]), [(1, Verdict::Up)]);
        assert_eq!(play(&mut detector, [(2, 2_600), (3, 2_600)]), [(2, Verdict::Down)]);
        assert_eq!(detector.baseline(), None);
        assert_eq!(detector.evidence(at(3_500)).detail, "p95 of 40 calls is 2595 ms, the ceiling 2000 ms");
        assert_eq!(detector.evidence(at(3_500)).first_failure_age, Some(Millis(1_500)));
    }

    #[test]
    fn a_jump_is_noticed_and_never_becomes_the_standard() {
        let mut detector = SlowCallDetector::new(&policy());
        assert_eq!(play(&mut detector, (0..60).map(|second| (second, 100))), [(1, Verdict::Up)]);
        let told = play(&mut detector, (60..65).map(|second| (second, 300)));
        assert_eq!(told, [(61, Verdict::Down)], "p95 sees it when one in twenty is slow");
        let learnt = detector.baseline().unwrap();
        assert!((98..=107).contains(&learnt.as_millis()), "usual are {learnt:?}");
        assert_eq!(play(&mut detector, (65..3_600).map(|second| (second, 300))), [], "slow for an hour, and down");
        assert_eq!(detector.baseline(), Some(learnt), "nothing was learnt meanwhile");
        // When it is quick again, the window must forget the slow ones first.
        let told = play(&mut detector, (3_600..3_700).map(|second| (second, 100)));
        assert!(matches!(told[..], [(3_620..=3_635, Verdict::Up)]), "{told:?}");
    }

    #[test]
    fn a_reset_learns_anew() {
        let mut detector = SlowCallDetector::new(&policy());
        play(&mut detector, (0..60).map(|second| (second, 100)));
        play(&mut detector, (60..70).map(|second| (second, 1_000)));
        assert_eq!(detector.verdict(), Verdict::Down);
        detector.reset();
        assert_eq!((detector.verdict(), detector.baseline()), (Verdict::Unknown, None));
        assert_eq!(play(&mut detector, (70..200).map(|second| (second, 1_000))), [(71, Verdict::Up)]);
        assert!(detector.baseline().unwrap() > Duration::from_millis(900));
    }

    #[test]
    fn a_baseline_wants_a_whole_window_of_calls_and_the_same_calls_teach_once() {
        let mut detector = SlowCallDetector::new(&policy());
        play(&mut detector, (0..29).map(|second| (second, 100)));
        assert_eq!(detector.baseline(), None, "five slices of six have ended");
        for second in 29..90 {
            detector.tick(at(second * 1_000));
        }
        assert_eq!(detector.baseline(), Some(seconds(detector.baseline)), "the sixth has");
        assert_eq!(detector.learnt, 6, "time alone teaches nothing");
    }

    #[test]
    fn a_level_that_creeps_is_learnt_and_one_that_climbs_is_not() {
        for (doubles_in, accused) in [(3_600, false), (60, true)] {
            let mut detector = SlowCallDetector::new(&policy());
            play(&mut detector, (0..300).map(|second| (second, 100)));
            let climb = (0..doubles_in * 2).map(|second| (300 + second, 100 + 100 * second / doubles_in));
            let told = play(&mut detector, climb);
            assert_eq!(told.iter().any(|(_, verdict)| *verdict == Verdict::Down), accused, "{doubles_in} s: {told:?}");
        }
    }

    #[test]
    fn a_quick_instance_is_not_accused_below_the_floor() {
        let mut detector = SlowCallDetector::new(&policy());
        play(&mut detector, (0..60).map(|second| (second, 1)));
        assert_eq!(detector.limit(), Duration::from_millis(50));
        assert_eq!(play(&mut detector, (60..120).map(|second| (second, 45))), [], "45 times slower, and still quick");
        assert_eq!(play(&mut detector, (120..125).map(|second| (second, 80))).last().map(|t| t.1), Some(Verdict::Down));
    }

    #[test]
    fn what_says_nothing_of_the_work_is_not_counted() {
        let mut detector = SlowCallDetector::new(&policy());
        let refused = calls(CallOutcome::Connection, 1, 1_000);
        assert_eq!(detector.observe(&Observation::Calls(&refused), at(0)), None, "refused at once is not quick");
        let hung = calls(CallOutcome::Timeout, 31_000, 1_000);
        assert_eq!(detector.observe(&Observation::Calls(&hung), at(1)), Some(Verdict::Down));
        assert_eq!(detector.tick(at(31_000)), Some(Verdict::Unknown), "the window has emptied");
        assert_eq!(detector.tick(at(30_000)), None, "a clock that goes back");
    }

    #[test]
    fn settings_beyond_reason_do_not_break_it() {
        for (multiplier, percentile) in [(f64::MAX, 0.95), (f64::INFINITY, 0.95), (f64::NAN, f64::NAN), (-1.0, 2.0)] {
            let mut detector = SlowCallDetector::new(&SlowCalls {
                multiplier,
                percentile,
                floor: Millis::secs(9),
                ceiling: Millis::secs(1),
                min_requests: 0,
                ..policy()
            });
            play(&mut detector, (0..60).map(|second| (second, 100)));
            assert!(detector.limit() <= Duration::from_secs(1), "the ceiling is the last word");
            assert_eq!(detector.verdict(), Verdict::Up);
        }
    }
}
