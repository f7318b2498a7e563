//! Rows of failed calls: the detector [`super::Consecutive`] is for probes, which come one by one, this is for calls, which
//! come summed.
//!
//! The intuition: a server that refuses everybody is known after a handful of calls; no window need fill first. One call
//! that did not fail ends the row, for a server that answers anybody is not gone.
//!
//! ```text
//!   slices     [ · · x x ]  [ x x x ]  [ x · x x ]
//!   row             2           5       6, then 2       6: the longest, joined over the edges
//! ```
//!
//! A row that was long enough and has ended within the same slice is a doubt, no more: by now it answers again. (The
//! breaker, which is next door in [`super::CallJudge`], opens by it all the same.)
//!
//! Source: Envoy's `consecutive_5xx` and linkerd's consecutive-failures accrual.

use std::time::Duration;

use super::{Detector, Observation, age, turn};
use crate::calls::CallSlice;
use crate::probe::{Evidence, FailureClass, LocalTime, Verdict};

/// What its evidence is signed with.
pub const CONSECUTIVE_CALLS: &str = "consecutive_failures";

/// The row of failures that is going on, joined over slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) length: u64,
}

impl Row {
    /// Follows it through a slice of calls; answers the longest row that had a failure in this slice.
    pub(super) fn follow(&mut self, slice: &CallSlice) -> u64 {
        if slice.is_empty() {
            return 0;
        }
        let joined = if slice.leading > 0 { self.length.saturating_add(slice.leading) } else { 0 };
        let longest = joined.max(slice.longest);
        self.length = if slice.one_run() { self.length.saturating_add(slice.trailing) } else { slice.trailing };
        longest
    }
}

/// Judges by failed calls in a row.
#[derive(Clone, Debug)]
pub struct ConsecutiveCalls {
    fall: u64,
    patience: Duration,
    row: Row,
    since: Option<LocalTime>,
    class: Option<FailureClass>,
    /// When the last calls were told.
    heard: Option<LocalTime>,
    verdict: Verdict,
}

impl ConsecutiveCalls {
    /// A detector that has seen nothing. It is `down` from `fall` failures in a row on (0 is taken as 1). Shorter
    /// rows among many calls are no news, and one that is over when its slice ends is the breaker's business alone.
    ///
    /// Nobody calls an instance that is down, and then nothing would ever clear it. So after `patience` without a call it
    /// holds `unknown`. The row is still remembered: where calls are rare, the next failure continues it.
    pub fn new(fall: u32, patience: Duration) -> Self {
        Self {
            fall: u64::from(fall.max(1)),
            patience,
            row: Row::default(),
            since: None,
            class: None,
            heard: None,
            verdict: Verdict::Unknown,
        }
    }
}

impl Detector for ConsecutiveCalls {
    fn observe(&mut self, seen: &Observation<'_>, now: LocalTime) -> Option<Verdict> {
        let slice = match seen {
            Observation::Calls(slice) => *slice,
            Observation::Probe { .. } | Observation::Heartbeat(_) => return None,
        };
        if slice.is_empty() {
            return self.tick(now);
        }
        self.heard = Some(now);
        self.row.follow(slice);
        self.since = match self.since {
            _ if self.row.length == 0 => None,
            Some(since) if slice.one_run() => Some(since),
            Some(_) | None => Some(now),
        };
        self.class = slice.last_failure.or(self.class);
        let next = if self.row.length >= self.fall {
            Verdict::Down
        } else if self.row.length == 0 {
            Verdict::Up
        } else {
            // A short row clears nobody, and accuses nobody: at a thousand calls a second rows of three are no news. One
            // that was long and was broken leaves a doubt until a slice ends well.
            match self.verdict {
                Verdict::Down => Verdict::Suspect,
                held @ (Verdict::Unknown | Verdict::Up | Verdict::Suspect) => held,
            }
        };
        turn(&mut self.verdict, next)
    }

    fn tick(&mut self, now: LocalTime) -> Option<Verdict> {
        match self.heard {
            Some(heard) if now.since(heard) >= self.patience => turn(&mut self.verdict, Verdict::Unknown),
            Some(_) | None => None,
        }
    }

    fn verdict(&self) -> Verdict {
        self.verdict
    }

    fn evidence(&self, now: LocalTime) -> Evidence {
        let sick = matches!(self.verdict, Verdict::Suspect | Verdict::Down);
        let detail = match (self.verdict, self.row.length) {
            (Verdict::Unknown, _) => "no calls were told of lately".to_owned(),
            (Verdict::Suspect, 0) => "many calls in a row failed, and the last one did not".to_owned(),
            (Verdict::Up | Verdict::Down, 0) => "the last call did not fail".to_owned(),
            (Verdict::Up | Verdict::Suspect | Verdict::Down, 1) => "the last call failed".to_owned(),
            (Verdict::Up | Verdict::Suspect | Verdict::Down, row) => format!("{row} calls in a row failed"),
        };
        Evidence {
            check: CONSECUTIVE_CALLS.to_owned(),
            class: self.class.filter(|_| sick),
            detail,
            streak: u32::try_from(self.row.length).unwrap_or(u32::MAX),
            first_failure_age: self.since.filter(|_| sick).map(|since| age(now, since)),
        }
    }

    /// A row that is going on. Reports cannot be asked for, but who probes it as well may look.
    fn in_doubt(&self) -> bool {
        self.verdict == Verdict::Suspect
    }

    fn reset(&mut self) {
        self.row = Row::default();
        self.since = None;
        self.class = None;
        self.heard = None;
        self.verdict = Verdict::Unknown;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::calls::{Call, CallOutcome};
    use crate::time::Millis;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    /// `x` a failure, `.` a success.
    fn slice(calls: &str) -> CallSlice {
        let mut slice = CallSlice::default();
        for letter in calls.chars() {
            let outcome = if letter == 'x' { CallOutcome::Connection } else { CallOutcome::Success };
            slice.record(&Call { outcome, latency: None, count: 1 });
        }
        slice
    }

    #[test]
    fn rows_are_joined_over_the_edges_of_slices() {
        use Verdict::{Down, Suspect, Unknown, Up};
        let table: [(&[&str], Verdict, u32); 14] = [
            (&[""], Unknown, 0),
            (&["."], Up, 0),
            // A short row clears nobody, and takes nothing back.
            (&["xx"], Unknown, 2),
            (&[".", "xx"], Up, 2),
            (&[".xx"], Unknown, 2),
            (&["xxxxx", ".x"], Suspect, 1),
            (&["xxx"], Unknown, 3),
            (&["xxxxx"], Down, 5),
            (&["..xx", "xxx"], Down, 5),
            (&["..xx", "", "xxx"], Down, 5),
            (&["xxxxx", "."], Up, 0),
            (&[".", "xxxx", "x.x"], Up, 1),
            // It began and ended within one slice.
            (&[".xxxxxx."], Up, 0),
            (&["xxxxx", "x.xx"], Suspect, 2),
        ];
        for (slices, expected, streak) in table {
            let mut detector = ConsecutiveCalls::new(5, Duration::from_secs(30));
            for (place, calls) in slices.iter().enumerate() {
                detector.observe(&Observation::Calls(&slice(calls)), at(place as u64 * 100));
            }
            assert_eq!((detector.verdict(), detector.evidence(at(0)).streak), (expected, streak), "{slices:?}");
        }
    }

    #[test]
    fn after_a_silence_it_does_not_know_but_remembers_the_row() {
        let mut detector = ConsecutiveCalls::new(3, Duration::from_secs(30));
        assert_eq!(detector.observe(&Observation::Calls(&slice("xxx")), at(1_000)), Some(Verdict::Down));
        assert_eq!(detector.tick(at(30_999)), None);
        assert_eq!(detector.tick(at(500)), None, "a clock that goes back");
        assert_eq!(detector.tick(at(31_000)), Some(Verdict::Unknown));
        assert_eq!(detector.tick(at(99_000)), None);
        assert_eq!(detector.observe(&Observation::Calls(&slice("x")), at(99_000)), Some(Verdict::Down));
        let evidence = detector.evidence(at(99_500));
        assert_eq!((evidence.streak, evidence.class), (4, Some(FailureClass::Connection)));
        assert_eq!(
            (evidence.first_failure_age, evidence.detail.as_str()),
            (Some(Millis(98_500)), "4 calls in a row failed")
        );
        detector.reset();
        assert_eq!(detector.observe(&Observation::Calls(&slice("xx")), at(100_000)), None);
    }

    #[test]
    fn a_row_began_with_the_slice_in_which_it_began() {
        let mut detector = ConsecutiveCalls::new(3, Duration::from_secs(30));
        for (ms, calls, age) in [(0, "xxx", 0), (100, "xx", 100), (200, "x.xxx", 0), (300, "", 100), (400, "x", 200)] {
            detector.observe(&Observation::Calls(&slice(calls)), at(ms));
            assert_eq!(detector.evidence(at(ms)).first_failure_age, Some(Millis(age)), "{calls} at {ms}");
        }
    }

    #[test]
    fn a_row_without_end_saturates() {
        let mut detector = ConsecutiveCalls::new(u32::MAX, Duration::from_secs(30));
        let mut endless = slice("x");
        (endless.leading, endless.trailing, endless.longest) = (u64::MAX, u64::MAX, u64::MAX);
        for ms in 0..3 {
            detector.observe(&Observation::Calls(&endless), at(ms));
        }
        assert_eq!((detector.verdict(), detector.evidence(at(0)).streak), (Verdict::Down, u32::MAX));
    }

    proptest! {
        /// Whether it is down does not depend on where the slices were cut.
        #[test]
        fn it_is_down_when_one_by_one_it_would_be(calls in "[x.]{1,40}", cuts in proptest::collection::vec(0_usize..40, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(calls.len())).collect();
            cuts.extend([0, calls.len()]);
            cuts.sort_unstable();
            let mut cut_up = ConsecutiveCalls::new(4, Duration::from_secs(30));
            for cut in cuts.windows(2) {
                cut_up.observe(&Observation::Calls(&slice(&calls[cut[0]..cut[1]])), at(0));
            }
            let row = calls.len() - calls.trim_end_matches('x').len();
            prop_assert_eq!(cut_up.verdict() == Verdict::Down, row >= 4);
            prop_assert_eq!(cut_up.row.length, row as u64);
        }
    }
}
