//! Several detectors as one: what each holds is combined by the service's `combine`.
//!
//! ```text
//!              up  up  up      up  suspect  down      down  unknown      down  down      unknown  unknown
//!   any        up              down                   down               down            unknown
//!   all        up              suspect                down               down            unknown
//! ```
//!
//! The intuition: a detector that has seen too little has no voice; it neither clears nor accuses. Of those that have
//! spoken, `any` believes the worst, and `all` wants them to agree before it accuses: until then, what one of them says
//! against the instance is a doubt.
//!
//! Source: Consul and Pacemaker read many checks as `any`; the wish for `all` is Sentinel's distinction of subjectively and
//! objectively down, turned from observers to kinds of evidence.

use super::{Detector, Observation, gravity, turn};
use crate::policy::Combine;
use crate::probe::{Evidence, LocalTime, Verdict};

/// What is combined: a list of detectors, or a structure that has one in each field.
pub trait Parts {
    /// Each detector, always in the same order; among equals the first one gives the evidence.
    fn each(&self) -> impl Iterator<Item = &dyn Detector>;

    /// Each detector, to be shown something.
    fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Detector>;
}

impl<D: Detector> Parts for Vec<D> {
    fn each(&self) -> impl Iterator<Item = &dyn Detector> {
        self.iter().map(|part| part as &dyn Detector)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut dyn Detector> {
        self.iter_mut().map(|part| part as &mut dyn Detector)
    }
}

/// Detectors that judge together. A detector too, so combinations can be combined. It allocates nothing.
#[derive(Clone, Debug)]
pub struct Combination<P> {
    combine: Combine,
    parts: P,
    verdict: Verdict,
}

/// What becomes of the verdicts of those that have spoken.
fn combined(combine: Combine, verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    let (mut worst, mut agreed) = (Verdict::Unknown, true);
    for verdict in verdicts.filter(|verdict| *verdict != Verdict::Unknown) {
        agreed &= verdict == Verdict::Down;
        if worst == Verdict::Unknown || gravity(verdict) > gravity(worst) {
            worst = verdict;
        }
    }
    match (combine, worst) {
        (Combine::All, Verdict::Down) if !agreed => Verdict::Suspect,
        (Combine::All | Combine::Any, worst) => worst,
    }
}

impl<P: Parts> Combination<P> {
    /// These detectors together. They may have seen something already.
    pub fn new(combine: Combine, parts: P) -> Self {
        let verdict = combined(combine, parts.each().map(Detector::verdict));
        Self { combine, parts, verdict }
    }

    /// The detectors.
    pub const fn parts(&self) -> &P {
        &self.parts
    }

    /// Changes a detector by hand; answers the verdict where that changed it.
    pub fn change(&mut self, change: impl FnOnce(&mut P)) -> Option<Verdict> {
        change(&mut self.parts);
        self.judge()
    }

    fn judge(&mut self) -> Option<Verdict> {
        turn(&mut self.verdict, combined(self.combine, self.parts.each().map(Detector::verdict)))
    }

    /// The one that decides: the sickest of those that have spoken, the first among equals; else the first of all.
    fn deciding(&self) -> Option<&dyn Detector> {
        let spoken = self.parts.each().filter(|part| part.verdict() != Verdict::Unknown);
        spoken.min_by_key(|part| std::cmp::Reverse(gravity(part.verdict()))).or_else(|| self.parts.each().next())
    }
}

impl<P: Parts> Detector for Combination<P> {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        self.change(|parts| {
            for part in parts.each_mut() {
                part.observe(seen, now);
            }
        })
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        self.change(|parts| {
            for part in parts.each_mut() {
                part.tick(now);
            }
        })
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// That of the detector that decides. Where `all` only doubts, it is that of the one which accuses.
    fn evidence(&self, now: LocalTime) -> Evidence {
        match self.deciding() {
            Some(part) => part.evidence(now),
            None => Evidence {
                check: String::new(),
                class: None,
                detail: "no detector to judge by".to_owned(),
                streak: 0,
                first_failure_age: None,
            },
        }
    }

    fn in_doubt(&self) -> bool {
        self.parts.each().any(Detector::in_doubt)
    }

    fn reset(&mut self) {
        self.change(|parts| parts.each_mut().for_each(Detector::reset));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::detector::{Consecutive, ErrorRateDetector};
    use crate::probe::{FailureClass, Outcome};

    /// A detector that holds what it is told at its making, and `up` from a tick on.
    struct Fixed(Verdict, &'static str);

    impl Detector for Fixed {
        fn observe(&mut self, _: &Observation<'_>, _: LocalTime) -> Option<Verdict> {
            None
        }
        fn tick(&mut self, _: LocalTime) -> Option<Verdict> {
            self.0 = Verdict::Up;
            None
        }
        fn verdict(&self) -> Verdict {
            self.0
        }
        fn evidence(&self, _: LocalTime) -> Evidence {
            Evidence {
                check: self.1.to_owned(),
                class: None,
                detail: String::new(),
                streak: 0,
                first_failure_age: None,
            }
        }
        fn in_doubt(&self) -> bool {
            self.0 == Verdict::Suspect
        }
        fn reset(&mut self) {
            self.0 = Verdict::Unknown;
        }
    }

    const NAMES: [&str; 3] = ["a", "b", "c"];

    #[test]
    fn verdicts_combine() {
        use Verdict::{Down, Suspect, Unknown, Up};
        let table: [(&[Verdict], Verdict, Verdict, &str); 11] = [
            (&[], Unknown, Unknown, ""),
            (&[Unknown, Unknown], Unknown, Unknown, "a"),
            (&[Up, Up, Up], Up, Up, "a"),
            (&[Unknown, Up], Up, Up, "b"),
            (&[Up, Suspect], Suspect, Suspect, "b"),
            (&[Up, Suspect, Down], Down, Suspect, "c"),
            (&[Up, Down], Down, Suspect, "b"),
            (&[Suspect, Down, Down], Down, Suspect, "b"),
            (&[Unknown, Down], Down, Down, "b"),
            (&[Down, Unknown, Down], Down, Down, "a"),
            (&[Down, Down, Down], Down, Down, "a"),
        ];
        for (verdicts, any, all, decides) in table {
            for (combine, expected) in [(Combine::Any, any), (Combine::All, all)] {
                let parts: Vec<Fixed> =
                    verdicts.iter().zip(NAMES).map(|(verdict, name)| Fixed(*verdict, name)).collect();
                let combination = Combination::new(combine, parts);
                assert_eq!(combination.verdict(), expected, "{combine} of {verdicts:?}");
                assert_eq!(combination.evidence(LocalTime::default()).check, decides, "{combine} of {verdicts:?}");
                assert_eq!(combination.in_doubt(), verdicts.contains(&Suspect), "{combine} of {verdicts:?}");
            }
        }
    }

    #[test]
    fn time_and_resets_reach_every_part_and_a_change_is_told() {
        let mut both = Combination::new(Combine::Any, vec![Fixed(Verdict::Down, "a"), Fixed(Verdict::Suspect, "b")]);
        assert_eq!(both.tick(LocalTime::default()), Some(Verdict::Up));
        assert_eq!(both.tick(LocalTime::default()), None);
        both.reset();
        assert_eq!(both.verdict(), Verdict::Unknown);
    }

    #[test]
    fn combinations_combine() {
        let tcp = || Consecutive::new("tcp", 1, 2);
        let errors = || ErrorRateDetector::new(Duration::from_secs(10), 4, 0.5);
        let inner: Vec<Box<dyn Detector + Send>> = vec![Box::new(tcp()), Box::new(errors())];
        let outer: Vec<Box<dyn Detector + Send>> =
            vec![Box::new(Combination::new(Combine::All, inner)), Box::new(Consecutive::new("slow to fall", 1, 9))];
        let mut outer = Combination::new(Combine::Any, outer);
        let failure = Outcome::failure(FailureClass::Timeout, "no answer");
        let mut observe = |outcome: &Outcome| {
            outer.observe(&Observation::Probe { check: 0, outcome }, LocalTime::default());
            outer.verdict()
        };
        assert_eq!([observe(&Outcome::Success), observe(&Outcome::Success)], [Verdict::Up; 2]);
        assert_eq!([observe(&failure), observe(&failure)], [Verdict::Suspect, Verdict::Down], "both within agree");
    }
}
