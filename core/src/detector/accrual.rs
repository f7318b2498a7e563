//! The accrual detector: how unlikely has the silence of an instance become, given how its heartbeats used to come?
//!
//! The intuition: a fixed time-out is too long for a regular heart and too short for an irregular one. So the intervals
//! are remembered, and the suspicion phi is the unlikeliness of a silence as long as this one: phi 1 would be wrong once
//! in ten times, phi 8 once in a hundred million, were the intervals normally distributed.
//!
//! ```text
//!   phi                        ╱ at once
//!    8 ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ╱─ ─ ─ ─ ─ ─ ─    down, not before `pause`, at `deadline` whatever phi is
//!    4 ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ╱─ ─ ─ ─ ─ ─ ─ ─    suspect
//!                       ╱                      ▲ heartbeat
//!    0 ▲____▲____▲___╱─────────────▶ time
//! ```
//!
//! Source: Hayashibara, Défago, Yared and Katayama, "The φ accrual failure detector" (SRDS 2004). From Akka (now Pekko)
//! are the logistic approximation of the normal distribution, a floor for the standard deviation (a heart that beats like
//! a clock would be accused of the first late packet), the first estimate from the interval that was agreed, and a pause
//! that is always accepted. From Cassandra: an outage is no interval, else the detector would grow used to them.
//!
//! Phi rises with the silence and with nothing else, so the two moments at which the verdict changes are known as soon as
//! a heartbeat has arrived: a tick compares times, and the one who waits knows when to wake up.

use std::time::Duration;

use super::{Detector, Heartbeat, HeartbeatState, Observation, age, turn};
use crate::probe::{Evidence, FailureClass, LocalTime, Verdict};

/// What its evidence is signed with.
pub const HEARTBEAT: &str = "heartbeat";

/// How many intervals are remembered. Akka remembers a thousand, Cassandra too; a hundred follow a change of habit sooner
/// and fit in 400 bytes.
const SAMPLES: usize = 100;

/// The least standard deviation, as a share of the mean interval: with phi 8, a silence of some 2.3 intervals, so that
/// one lost heartbeat accuses nobody.
const DEVIATION_SHARE: f64 = 0.25;

/// The least standard deviation, in seconds, however short the interval: a scheduler's and a network's hiccup.
const DEVIATION_MIN: f64 = 0.02;

/// An interval shorter than this share of the expected one is not learnt: it comes from an extra heartbeat, sent because
/// the instance was asked or changed its state, and says that it lives, not how often it beats.
const EXTRA_SHARE: u32 = 4;

/// How far from the mean a threshold is looked for, in standard deviations. Phi is 0 to any precision below, and above
/// 1,700 at the upper end; a policy wants at most 100.
const REACH: (f64, f64) = (-10.0, 40.0);

/// Halvings of [`REACH`]: more than a double tells apart.
const HALVINGS: u32 = 60;

/// Intervals in microseconds: a ring with its sums. The sums are whole numbers, so nothing drifts however long it runs.
#[derive(Clone, Debug)]
struct Intervals {
    ring: [u32; SAMPLES],
    held: usize,
    next: usize,
    sum: u64,
    squares: u128,
}

impl Intervals {
    /// Two first samples, a quarter below and above what is expected (Akka's first estimate).
    fn expecting(expected: Duration) -> Self {
        let mut first = Self { ring: [0; SAMPLES], held: 0, next: 0, sum: 0, squares: 0 };
        first.add(expected.saturating_sub(expected / 4));
        first.add(expected.saturating_add(expected / 4));
        first
    }

    /// Remembers an interval; one beyond 71 minutes as those.
    fn add(&mut self, interval: Duration) {
        let sample = u32::try_from(interval.as_micros()).unwrap_or(u32::MAX);
        let oldest = std::mem::replace(&mut self.ring[self.next], sample);
        self.next = (self.next + 1) % SAMPLES;
        self.held = (self.held + 1).min(SAMPLES);
        // The ring begins with zeros, so before it is full nothing is taken away.
        self.sum = self.sum + u64::from(sample) - u64::from(oldest);
        self.squares = self.squares + square(sample) - square(oldest);
    }

    /// Mean and standard deviation (not below its floor), in seconds.
    fn shape(&self) -> (f64, f64) {
        let held = self.held as f64;
        let mean = self.sum as f64 / held;
        // n Σx² − (Σx)² is a whole number and never negative.
        let spread = (self.held as u128 * self.squares).saturating_sub(u128::from(self.sum).pow(2));
        let deviation = (spread as f64).sqrt() / held;
        (mean / 1e6, (deviation / 1e6).max(mean / 1e6 * DEVIATION_SHARE).max(DEVIATION_MIN))
    }
}

const fn square(sample: u32) -> u128 {
    (sample as u128) * (sample as u128)
}

/// Phi at `y` standard deviations above the mean: −log₁₀ of the share of intervals that are longer, by the logistic
/// approximation. Written so that it neither overflows nor loses its digits far from the mean.
fn phi_at(y: f64) -> f64 {
    let exponent = y * (1.5976 + 0.070_566 * y * y);
    // share = 1 / (1 + e^exponent)
    if exponent > 0.0 {
        (exponent + (-exponent).exp().ln_1p()) * std::f64::consts::LOG10_E
    } else {
        exponent.exp().ln_1p() * std::f64::consts::LOG10_E
    }
}

/// How many standard deviations above the mean phi reaches `wanted`.
fn distance_of(wanted: f64) -> f64 {
    let (mut low, mut high) = REACH;
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if phi_at(middle) < wanted { low = middle } else { high = middle }
    }
    high
}

/// How long a silence may last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bounds {
    suspect: Duration,
    down: Duration,
}

/// Whose silence it is that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Silence {
    /// Nobody has looked at the clock yet.
    Unwatched,
    /// It was never heard since this began, so nothing is known of its habits now: only the deadline judges.
    Unheard { since: LocalTime },
    /// It was heard then, or the clock of its silence was begun anew then. `beat` tells which.
    Heard { since: LocalTime, beat: bool },
    /// It has been missing; its silence began then.
    Missing { since: LocalTime },
}

/// Judges an instance by its heartbeats: by their staying away, and by what they say.
#[derive(Clone, Debug)]
pub struct AccrualDetector {
    /// Standard deviations at which phi is half of the policy's, and all of it.
    distances: (f64, f64),
    expected: Duration,
    pause: Duration,
    deadline: Duration,
    intervals: Intervals,
    bounds: Bounds,
    silence: Silence,
    said: HeartbeatState,
    verdict: Verdict,
}

impl AccrualDetector {
    /// A detector that has heard nothing. `phi` is the suspicion from which it is down (half of it: suspect), `expected` the
    /// interval that was agreed with the instance. A silence shorter than `pause` never makes it down, one of `deadline`
    /// always does; a deadline before the pause is taken as the pause.
    ///
    /// An instance that was never heard is `unknown` until the deadline, counted from the first tick, and `down` then.
    pub fn new(phi: f64, expected: Duration, pause: Duration, deadline: Duration) -> Self {
        let intervals = Intervals::expecting(expected);
        let mut detector = Self {
            distances: (distance_of(phi / 2.0), distance_of(phi)),
            expected,
            pause,
            deadline: deadline.max(pause),
            intervals,
            bounds: Bounds::default(),
            silence: Silence::Unwatched,
            said: HeartbeatState::Ok,
            verdict: Verdict::Unknown,
        };
        detector.bound();
        detector
    }

    /// The suspicion at `now`, not capped: its order of magnitude is what it says. Zero while nothing was heard.
    pub fn phi(&self, now: LocalTime) -> f64 {
        match self.silence {
            Silence::Unwatched | Silence::Unheard { .. } => 0.0,
            Silence::Heard { since, .. } | Silence::Missing { since } => {
                let (mean, deviation) = self.intervals.shape();
                phi_at((now.since(since).as_secs_f64() - mean) / deviation)
            }
        }
    }

    /// When the verdict will change if the instance stays silent: the time to tick at. None where silence changes nothing.
    pub fn next_change(&self, now: LocalTime) -> Option<LocalTime> {
        let next = match (self.silence, self.verdict) {
            (Silence::Unwatched, _) => now,
            (_, Verdict::Down) => return None,
            (Silence::Unheard { since }, _) => since.plus(self.deadline),
            (Silence::Heard { since, .. }, Verdict::Up) => since.plus(self.bounds.suspect.min(self.bounds.down)),
            (Silence::Heard { since, .. } | Silence::Missing { since }, _) => since.plus(self.bounds.down),
        };
        Some(next.max(now))
    }

    /// The judge itself was stopped, or has only just become the judge: the silence until `now` may be its own. Clocks of
    /// silence begin anew. Who was up stays up; who was missing is unknown again, until it is heard or the deadline has
    /// passed anew; what an instance said of itself stands.
    pub fn forgive(&mut self, now: LocalTime) -> Option<Verdict> {
        self.silence = match self.silence {
            Silence::Unwatched | Silence::Unheard { .. } | Silence::Missing { .. } => Silence::Unheard { since: now },
            Silence::Heard { .. } => Silence::Heard { since: now, beat: false },
        };
        self.judge(now)
    }

    fn heard(&mut self, heartbeat: Heartbeat, now: LocalTime) {
        let since = match self.silence {
            // An interval that spans somebody's stop is nobody's habit.
            Silence::Heard { since, beat: true } => {
                let interval = now.since(since);
                if interval >= self.expected / EXTRA_SHARE && interval < self.bounds.down {
                    self.intervals.add(interval);
                    self.bound();
                }
                since
            }
            Silence::Heard { since, beat: false } => since,
            Silence::Unwatched | Silence::Unheard { .. } | Silence::Missing { .. } => now,
        };
        self.silence = Silence::Heard { since: now.max(since), beat: true };
        self.said = heartbeat.state;
    }

    /// Works out how long a silence may last, from the intervals remembered.
    fn bound(&mut self) {
        let (mean, deviation) = self.intervals.shape();
        let after = |distance: f64| {
            Duration::try_from_secs_f64((mean + deviation * distance).max(0.0)).unwrap_or(Duration::MAX)
        };
        let (suspect, down) = self.distances;
        self.bounds = Bounds { suspect: after(suspect), down: after(down).clamp(self.pause, self.deadline) };
    }

    fn judge(&mut self, now: LocalTime) -> Option<Verdict> {
        match self.silence {
            Silence::Unwatched => self.silence = Silence::Unheard { since: now },
            Silence::Unheard { since } if now.since(since) >= self.deadline => {
                self.silence = Silence::Missing { since }
            }
            Silence::Heard { since, .. } if now.since(since) >= self.bounds.down => {
                self.silence = Silence::Missing { since };
            }
            Silence::Unheard { .. } | Silence::Heard { .. } | Silence::Missing { .. } => {}
        }
        let next = match (self.silence, self.said) {
            (Silence::Missing { .. }, _) | (_, HeartbeatState::Failing) => Verdict::Down,
            (Silence::Unwatched | Silence::Unheard { .. }, HeartbeatState::Ok | HeartbeatState::Degraded) => {
                Verdict::Unknown
            }
            (Silence::Heard { .. }, HeartbeatState::Degraded) => Verdict::Suspect,
            (Silence::Heard { since, .. }, HeartbeatState::Ok) => {
                if now.since(since) >= self.bounds.suspect {
                    Verdict::Suspect
                } else {
                    Verdict::Up
                }
            }
        };
        turn(&mut self.verdict, next)
    }
}

impl Detector for AccrualDetector {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        match seen {
            Observation::Heartbeat(heartbeat) => self.heard(*heartbeat, now),
            Observation::Probe { .. } | Observation::Calls(_) => return None,
        }
        self.judge(now)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.judge(now)
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Of a silence, the class is `timeout` and the first failure is the last sign of life. Its `streak` is the number of
    /// intervals that have been missed.
    fn evidence(&self, now: LocalTime) -> Evidence {
        let check = HEARTBEAT.to_owned();
        let since = match self.silence {
            Silence::Unwatched => now,
            Silence::Unheard { since } | Silence::Heard { since, .. } | Silence::Missing { since } => since,
        };
        let silent = now.since(since).as_millis();
        let spoken =
            |detail: String| Evidence { check: check.clone(), class: None, detail, streak: 0, first_failure_age: None };
        match (self.silence, self.said) {
            (Silence::Unwatched | Silence::Unheard { .. }, HeartbeatState::Ok | HeartbeatState::Degraded) => {
                spoken(format!("no heartbeat yet, waited for {silent} ms"))
            }
            (Silence::Unwatched | Silence::Unheard { .. } | Silence::Heard { .. }, HeartbeatState::Failing) => {
                spoken("it says of itself that it is failing".to_owned())
            }
            (Silence::Heard { .. }, HeartbeatState::Degraded) => {
                spoken("it says of itself that it is degraded".to_owned())
            }
            (Silence::Heard { .. }, HeartbeatState::Ok) if self.verdict == Verdict::Up => {
                spoken(format!("the last heartbeat came {silent} ms ago"))
            }
            (Silence::Heard { .. } | Silence::Missing { .. }, _) => {
                let missed = silent / self.expected.as_millis().max(1);
                Evidence {
                    check,
                    class: Some(FailureClass::Timeout),
                    detail: format!("no heartbeat for {silent} ms (phi {:.1})", self.phi(now)),
                    streak: u32::try_from(missed).unwrap_or(u32::MAX),
                    first_failure_age: Some(age(now, since)),
                }
            }
        }
    }

    fn in_doubt(&self) -> bool {
        matches!(self.verdict, Verdict::Unknown | Verdict::Suspect)
    }

    fn reset(&mut self) {
        self.intervals = Intervals::expecting(self.expected);
        self.bound();
        self.silence = Silence::Unwatched;
        self.said = HeartbeatState::Ok;
        self.verdict = Verdict::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::Millis;

    const OK: Observation<'_> = Observation::Heartbeat(Heartbeat { state: HeartbeatState::Ok });
    const DEGRADED: Observation<'_> = Observation::Heartbeat(Heartbeat { state: HeartbeatState::Degraded });
    const FAILING: Observation<'_> = Observation::Heartbeat(Heartbeat { state: HeartbeatState::Failing });

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn at(time: u64) -> LocalTime {
        LocalTime(ms(time))
    }

    /// Phi 8, a heartbeat a second expected, never down before 1.5 s, surely after 10 s.
    fn detector() -> AccrualDetector {
        AccrualDetector::new(8.0, ms(1_000), ms(1_500), ms(10_000))
    }

    /// Heartbeats at 0, `step`, 2 × `step`, ...; answers the time of the last one.
    fn beat(detector: &mut AccrualDetector, from: u64, step: u64, times: u64) -> u64 {
        for beat in 0..times {
            detector.observe(&OK, at(from + beat * step));
        }
        from + (times - 1) * step
    }

    /// Ticks every millisecond from `from` to `to`; answers the changes with their time.
    fn tick(detector: &mut AccrualDetector, from: u64, to: u64) -> Vec<(u64, Verdict)> {
        (from..=to).filter_map(|time| detector.tick(at(time)).map(|next| (time, next))).collect()
    }

    #[test]
    fn phi_is_what_the_normal_distribution_says_to_a_sixth() {
        for (y, phi) in [(0.0, 0.301), (1.281_6, 1.0), (2.326_3, 2.0), (3.719_0, 4.0), (5.612, 8.0)] {
            assert!((phi_at(y) - phi).abs() <= phi / 6.0, "{y}: {}", phi_at(y));
        }
        assert!(phi_at(-10.0) < 1e-30 && phi_at(-10.0) > 0.0, "{}", phi_at(-10.0));
        assert!(phi_at(40.0).is_finite() && phi_at(-1e9) == 0.0 && phi_at(1e9).is_finite());
        for wanted in [0.05, 0.5, 4.0, 8.0, 100.0] {
            assert!((phi_at(distance_of(wanted)) - wanted).abs() < 1e-9, "{wanted}");
        }
    }

    #[test]
    fn a_regular_heart_is_missed_after_little_more_than_two_beats() {
        let mut detector = detector();
        let last = beat(&mut detector, 5_000, 1_000, 200);
        assert_eq!(detector.verdict(), Verdict::Up);
        let mut doubted = detector.clone();
        doubted.tick(at(last + 1_990));
        let evidence = doubted.evidence(at(last + 1_990));
        assert_eq!((doubted.verdict(), evidence.class), (Verdict::Suspect, Some(FailureClass::Timeout)));
        assert!(evidence.detail.starts_with("no heartbeat for 1990 ms (phi "), "{}", evidence.detail);
        let told = tick(&mut detector, last, last + 20_000);
        let [(suspect, Verdict::Suspect), (down, Verdict::Down)] = told[..] else { panic!("{told:?}") };
        assert!((1_800..2_000).contains(&(suspect - last)), "a doubt after {} ms", suspect - last);
        assert!((2_200..2_400).contains(&(down - last)), "down after {} ms", down - last);
        let evidence = detector.evidence(at(down));
        assert_eq!(evidence.detail, format!("no heartbeat for {} ms (phi 8.0)", down - last));
        assert_eq!((evidence.class, evidence.streak), (Some(FailureClass::Timeout), 2));
        assert_eq!(evidence.first_failure_age, Some(Millis(down - last)));
        assert_eq!(detector.observe(&OK, at(down + 5_000)), Some(Verdict::Up), "one heartbeat and it is back");
        assert!(tick(&mut detector, down + 5_000, down + 6_500).is_empty(), "the outage was no interval");
    }

    #[test]
    fn an_outage_that_nobody_saw_is_no_interval_either() {
        let mut detector = detector();
        let last = beat(&mut detector, 0, 1_000, 50);
        let habit = detector.bounds;
        detector.observe(&OK, at(last + 9_000));
        assert_eq!(detector.bounds, habit);
        detector.observe(&OK, at(last + 9_900));
        assert_ne!(detector.bounds, habit, "this one was");
    }

    #[test]
    fn one_lost_heartbeat_accuses_nobody() {
        let mut detector = detector();
        let last = beat(&mut detector, 0, 1_000, 50);
        assert_eq!(tick(&mut detector, last, last + 2_000).last().map(|told| told.1), Some(Verdict::Suspect));
        assert_eq!(detector.observe(&OK, at(last + 2_000)), Some(Verdict::Up));
    }

    #[test]
    fn an_irregular_heart_is_given_more_time() {
        let mut regular = detector();
        let mut irregular = detector();
        beat(&mut regular, 0, 1_000, 120);
        let mut time = 0;
        for beat in 0_u64..120 {
            time += [200, 1_800, 1_000, 1_400, 600][(beat % 5) as usize];
            // Those of 200 ms are taken for extra heartbeats.
            irregular.observe(&OK, at(time));
        }
        assert!(irregular.bounds.down > regular.bounds.down + ms(400), "{:?} {:?}", irregular.bounds, regular.bounds);
    }

    #[test]
    fn extra_heartbeats_do_not_make_it_impatient() {
        let mut detector = detector();
        let before = detector.bounds;
        for beat in 0..500 {
            detector.observe(&OK, at(beat * 100));
        }
        assert_eq!(detector.bounds, before);
    }

    #[test]
    fn neither_before_the_pause_nor_after_the_deadline() {
        let mut patient = AccrualDetector::new(8.0, ms(1_000), ms(5_000), ms(10_000));
        let last = beat(&mut patient, 0, 1_000, 100);
        assert_eq!(tick(&mut patient, last, last + 9_000).last(), Some(&(last + 5_000, Verdict::Down)));
        let mut strict = AccrualDetector::new(100.0, ms(1_000), ms(0), ms(3_000));
        let last = beat(&mut strict, 0, 1_000, 100);
        assert_eq!(tick(&mut strict, last, last + 9_000).last(), Some(&(last + 3_000, Verdict::Down)));
        let mut askew = AccrualDetector::new(8.0, ms(1_000), ms(9_000), ms(1_000));
        let last = beat(&mut askew, 0, 1_000, 100);
        assert_eq!(tick(&mut askew, last, last + 9_000).last(), Some(&(last + 9_000, Verdict::Down)), "the pause wins");
    }

    #[test]
    fn what_it_says_of_itself_counts_at_once() {
        let mut detector = detector();
        let story = [
            (0, OK, Some(Verdict::Up)),
            (1_000, DEGRADED, Some(Verdict::Suspect)),
            (2_000, DEGRADED, None),
            (3_000, FAILING, Some(Verdict::Down)),
            (4_000, DEGRADED, Some(Verdict::Suspect)),
            (5_000, OK, Some(Verdict::Up)),
            (6_000, FAILING, Some(Verdict::Down)),
        ];
        for (time, seen, expected) in story {
            assert_eq!(detector.observe(&seen, at(time)), expected, "at {time}");
        }
        assert_eq!(detector.evidence(at(6_000)).detail, "it says of itself that it is failing");
        assert_eq!(detector.next_change(at(6_000)), None, "it can only get better, and silence does not help");
        assert_eq!(tick(&mut detector, 6_000, 30_000), []);
        assert_eq!(detector.evidence(at(30_000)).class, Some(FailureClass::Timeout), "silent beside, by now");
    }

    #[test]
    fn who_was_never_heard_is_unknown_until_the_deadline() {
        let mut detector = detector();
        assert_eq!(detector.next_change(at(50_000)), Some(at(50_000)), "somebody must begin the clock");
        assert_eq!(tick(&mut detector, 50_000, 70_000), [(60_000, Verdict::Down)]);
        assert_eq!(detector.observe(&OK, at(70_000)), Some(Verdict::Up));
    }

    #[test]
    fn a_stop_of_the_judge_accuses_nobody() {
        let mut up = detector();
        let last = beat(&mut up, 0, 1_000, 50);
        let mut missing = up.clone();
        missing.tick(at(last + 9_000));
        assert_eq!(missing.verdict(), Verdict::Down);
        // Ten minutes pass in which nobody looked.
        let woke = last + 600_000;
        assert_eq!(up.forgive(at(woke)), None);
        assert_eq!(tick(&mut up, woke, woke + 1_500), [], "still up");
        assert_eq!(missing.forgive(at(woke)), Some(Verdict::Unknown), "it may have come back meanwhile");
        assert_eq!(tick(&mut missing, woke, woke + 10_000), [(woke + 10_000, Verdict::Down)]);
        // The stop is not learnt as an interval, and the heart's habit is still known.
        let habit = up.bounds;
        up.observe(&OK, at(woke + 1_500));
        assert_eq!(up.bounds, habit);
        assert_eq!(tick(&mut up, woke + 1_500, woke + 9_000).len(), 2);
        up.reset();
        assert_eq!((up.verdict(), up.phi(at(woke))), (Verdict::Unknown, 0.0));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_is_harmless() {
        let mut detector = detector();
        let last = beat(&mut detector, 10_000, 1_000, 20);
        for time in [last, last, last - 9_000, 0] {
            assert_eq!((detector.observe(&OK, at(time)), detector.tick(at(time))), (None, None));
        }
        assert_eq!(tick(&mut detector, last, last + 1_500), [], "silence is counted from the latest heartbeat");
    }

    #[test]
    fn settings_beyond_reason_do_not_break_it() {
        for (phi, expected) in
            [(f64::NAN, Duration::ZERO), (f64::INFINITY, Duration::MAX), (-1.0, Duration::MAX), (0.0, ms(1))]
        {
            let mut detector = AccrualDetector::new(phi, expected, Duration::ZERO, Duration::MAX);
            for time in 0..300 {
                detector.observe(&OK, LocalTime(Duration::from_secs(time * 100_000)));
                detector.tick(LocalTime(Duration::from_secs(time * 100_000 + 50_000)));
            }
            assert!(!detector.phi(LocalTime(Duration::MAX)).is_nan(), "{phi} {expected:?}");
        }
    }

    proptest! {
        /// Whoever sleeps until `next_change` misses nothing, and does not wake for nothing.
        #[test]
        fn the_next_change_is_when_it_is_said_to_be(
            phi in 0.1_f64..20.0,
            gaps in proptest::collection::vec(1_u64..3_000, 1..150),
            pause in 0_u64..4_000,
            deadline in 0_u64..8_000,
        ) {
            let mut detector = AccrualDetector::new(phi, ms(1_000), ms(pause), ms(deadline));
            let mut now = 0;
            for gap in gaps {
                now += gap;
                detector.observe(&OK, at(now));
            }
            let mut told = Vec::new();
            while let Some(next) = detector.next_change(at(now)) {
                let mut earlier = detector.clone();
                prop_assert_eq!(earlier.tick(LocalTime(next.0.saturating_sub(Duration::from_nanos(1)).max(ms(now)))), None);
                let change = detector.tick(next);
                prop_assert!(change.is_some());
                told.extend(change);
            }
            prop_assert_eq!(told.last(), Some(&Verdict::Down));
            // The running sums against adding up the ring.
            let Intervals { ring, held, sum, squares, .. } = &detector.intervals;
            prop_assert_eq!(*sum, ring[..*held].iter().map(|sample| u64::from(*sample)).sum::<u64>());
            prop_assert_eq!(*squares, ring[..*held].iter().map(|sample| square(*sample)).sum::<u128>());
        }
    }
}
