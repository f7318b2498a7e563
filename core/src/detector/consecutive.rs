//! Rows of outcomes: so many successes in a row are `up`, so many failures in a row are `down`.
//!
//! ```text
//!             rise successes              a failure
//!   unknown ──────────────────▶ up ◀────────────────▶ suspect
//!      │                        ▲ │    a success         │
//!      │ fall failures          │ │ fall failures        │ fall failures
//!      │          rise successes│ ▼ (fall = 1)           │ (in all)
//!      └──────────────────────▶ down ◀───────────────────┘
//! ```
//!
//! The intuition: one lost packet must not move a service, so a failure only raises a doubt and asks for quicker looks;
//! one success ends the doubt, for an instance that was up and answers is up. Coming back from `down`, and coming from
//! nothing, must be earned with `rise`. The names are HAProxy's, and so is the meaning. Coming back from `down` can be
//! made to cost `extra` successes more (the recovery strategy `probing`): who has failed once is believed later than who
//! was never seen.

use super::{Detector, Observation, age, turn};
use crate::probe::{Evidence, FailureClass, LocalTime, Outcome, Verdict};

/// What is said of a success.
const ANSWERED: &str = "answered as agreed";

/// What is said before anything was seen.
const NOT_LOOKED: &str = "not looked yet";

/// The present row of outcomes of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Row {
    Nothing,
    Successes { count: u32 },
    Failures { count: u32, since: LocalTime, class: FailureClass, detail: String },
}

/// Judges by outcomes in a row, whichever check they are of.
#[derive(Clone, Debug)]
pub struct Consecutive {
    check: String,
    rise: u32,
    fall: u32,
    extra: u32,
    verdict: Verdict,
    row: Row,
}

impl Consecutive {
    /// A detector that has seen nothing, for the check of that name. A threshold of 0 is taken as 1.
    pub fn new(check: impl Into<String>, rise: u32, fall: u32) -> Self {
        Self {
            check: check.into(),
            rise: rise.max(1),
            fall: fall.max(1),
            extra: 0,
            verdict: Verdict::Unknown,
            row: Row::Nothing,
        }
    }

    /// Wants so many successes more than `rise` in a row before what was down is up again. Coming from `unknown`, `rise`
    /// are enough.
    #[must_use]
    pub const fn with_extra(mut self, extra: u32) -> Self {
        self.extra = extra;
        self
    }

    /// When the first failure of the present row was seen.
    pub fn failing_since(&self) -> Option<LocalTime> {
        match self.row {
            Row::Nothing | Row::Successes { .. } => None,
            Row::Failures { since, .. } => Some(since),
        }
    }

    /// A success: the verdict after `count` of them in a row.
    fn after_successes(&self, count: u32) -> Verdict {
        match self.verdict {
            Verdict::Up | Verdict::Suspect => Verdict::Up,
            Verdict::Unknown if count >= self.rise => Verdict::Up,
            Verdict::Down if count >= self.rise.saturating_add(self.extra) => Verdict::Up,
            Verdict::Unknown => Verdict::Unknown,
            Verdict::Down => Verdict::Down,
        }
    }

    /// Takes note of a failure. What was seen is copied only where it is other than before, which in a long outage it is
    /// not, and then into the room that is there.
    fn after_failure(&mut self, seen: FailureClass, saw: &String, now: LocalTime) -> Verdict {
        let count = match &mut self.row {
            Row::Failures { count, class, detail, .. } => {
                *count = count.saturating_add(1);
                *class = seen;
                if detail != saw {
                    detail.clone_from(saw);
                }
                *count
            }
            Row::Nothing | Row::Successes { .. } => {
                self.row = Row::Failures { count: 1, since: now, class: seen, detail: saw.clone() };
                1
            }
        };
        self.after_failures(count)
    }

    /// A failure: the verdict after `count` of them in a row.
    fn after_failures(&self, count: u32) -> Verdict {
        match self.verdict {
            Verdict::Down => Verdict::Down,
            Verdict::Unknown | Verdict::Up | Verdict::Suspect if count >= self.fall => Verdict::Down,
            Verdict::Up | Verdict::Suspect => Verdict::Suspect,
            Verdict::Unknown => Verdict::Unknown,
        }
    }
}

impl Detector for Consecutive {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        let outcome = match seen {
            Observation::Probe { outcome, .. } => *outcome,
            Observation::Calls(_) | Observation::Heartbeat(_) => return None,
        };
        let next = match outcome {
            Outcome::Success => {
                let count = match self.row {
                    Row::Successes { count } => count.saturating_add(1),
                    Row::Nothing | Row::Failures { .. } => 1,
                };
                self.row = Row::Successes { count };
                self.after_successes(count)
            }
            Outcome::Failure { class, detail } => self.after_failure(*class, detail, now),
        };
        turn(&mut self.verdict, next)
    }

    fn tick(&mut self, _now: LocalTime) -> Option<Verdict> {
        None
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        let check = self.check.clone();
        match &self.row {
            Row::Nothing => {
                Evidence { check, class: None, detail: NOT_LOOKED.to_owned(), streak: 0, first_failure_age: None }
            }
            Row::Successes { count } => {
                Evidence { check, class: None, detail: ANSWERED.to_owned(), streak: *count, first_failure_age: None }
            }
            Row::Failures { count, since, class, detail } => Evidence {
                check,
                class: Some(*class),
                detail: detail.clone(),
                streak: *count,
                first_failure_age: Some(age(now, *since)),
            },
        }
    }

    fn in_doubt(&self) -> bool {
        match (self.verdict, &self.row) {
            (Verdict::Unknown | Verdict::Suspect, _) | (Verdict::Down, Row::Successes { .. }) => true,
            (Verdict::Down, Row::Nothing | Row::Failures { .. }) | (Verdict::Up, _) => false,
        }
    }

    fn reset(&mut self) {
        self.verdict = Verdict::Unknown;
        self.row = Row::Nothing;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::time::Millis;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    /// Plays a row of `+` and `-`, 100 ms apart, and writes what is held after each: `?` unknown, `U` up, `s` suspect,
    /// `D` down; a `*` follows where more looks are wanted soon.
    fn play(rise: u32, fall: u32, extra: u32, outcomes: &str) -> String {
        let mut detector = Consecutive::new("web", rise, fall).with_extra(extra);
        let failure = Outcome::failure(FailureClass::Connection, "refused");
        let mut told = String::new();
        for (place, outcome) in outcomes.chars().enumerate() {
            let before = detector.verdict();
            let outcome = if outcome == '+' { &Outcome::Success } else { &failure };
            let change = detector.observe(&Observation::Probe { check: 0, outcome }, at(place as u64 * 100));
            assert_eq!(change.is_some(), before != detector.verdict(), "a change is told exactly when there is one");
            told.push(match detector.verdict() {
                Verdict::Unknown => '?',
                Verdict::Up => 'U',
                Verdict::Suspect => 's',
                Verdict::Down => 'D',
            });
            if detector.in_doubt() {
                told.push('*');
            }
        }
        told
    }

    #[test]
    fn verdicts_follow_rows_of_outcomes() {
        for (rise, fall, outcomes, expected) in [
            (2, 3, "++", "?*U"),
            (2, 3, "---", "?*?*D"),
            // Neither row gets long enough.
            (2, 3, "+-+--+-", "?*?*?*?*?*?*?*"),
            // One failure is a doubt, and one success ends it.
            (2, 3, "++-+--+---", "?*Us*Us*s*Us*s*D"),
            // Back from down by `rise` in a row, with quick looks once one succeeded.
            (2, 3, "---+-++", "?*?*DD*DD*U"),
            (1, 1, "+-+", "UDU"),
            (0, 0, "-+", "DU"),
            (3, 2, "--++-+++", "?*DD*D*DD*D*U"),
        ] {
            assert_eq!(play(rise, fall, 0, outcomes), expected, "rise {rise}, fall {fall}, {outcomes}");
        }
    }

    #[test]
    fn coming_back_from_down_may_cost_more_than_coming_from_nothing() {
        for (rise, fall, extra, outcomes, expected) in [
            (2, 2, 3, "++", "?*U"),
            (2, 2, 3, "--+++++", "?*DD*D*D*D*U"),
            // A failure in between begins the row anew.
            (2, 2, 3, "--++++-+++++", "?*DD*D*D*D*DD*D*D*D*U"),
            // From a doubt, one success is enough as before.
            (2, 2, 3, "++-+", "?*Us*U"),
            (1, 1, u32::MAX, "-+++", "DD*D*D*"),
        ] {
            assert_eq!(
                play(rise, fall, extra, outcomes),
                expected,
                "rise {rise}, fall {fall}, extra {extra}, {outcomes}"
            );
        }
    }

    #[test]
    fn evidence_names_the_row() {
        let mut web = Consecutive::new("web", 2, 3);
        assert_eq!(web.evidence(at(5)).detail, NOT_LOOKED);
        for (ms, class, detail) in
            [(100, FailureClass::Timeout, "no answer"), (300, FailureClass::Connection, "refused")]
        {
            web.observe(&Observation::Probe { check: 0, outcome: &Outcome::failure(class, detail) }, at(ms));
        }
        assert_eq!(
            web.evidence(at(350)),
            Evidence {
                check: "web".to_owned(),
                class: Some(FailureClass::Connection),
                detail: "refused".to_owned(),
                streak: 2,
                first_failure_age: Some(Millis(250)),
            }
        );
        assert_eq!(web.failing_since(), Some(at(100)));
        web.observe(&Observation::Probe { check: 0, outcome: &Outcome::Success }, at(400));
        assert_eq!((web.evidence(at(400)).streak, web.evidence(at(400)).first_failure_age), (1, None));
    }

    #[test]
    fn a_reset_forgets_everything() {
        let mut web = Consecutive::new("web", 1, 2);
        let failure = Outcome::failure(FailureClass::Timeout, "no answer");
        web.observe(&Observation::Probe { check: 0, outcome: &failure }, at(0));
        web.reset();
        assert_eq!(web.observe(&Observation::Probe { check: 0, outcome: &failure }, at(1)), None, "the row began anew");
        assert_eq!(web.verdict(), Verdict::Unknown);
    }
}
