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
