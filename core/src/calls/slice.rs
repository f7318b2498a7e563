//! Calls summed over a slice of time, so that what 100,000 callers a second say fits into ten messages.
//!
//! The intuition: a sum of counts forgets the order, and with it whether five failures came in a row. Three numbers keep
//! what matters of it, and they can be joined like strings:
//!
//! ```text
//!   calls      x x · x x x · · x        leading 2, longest 3, trailing 1
//!   and then   x x · x                  leading 2, longest 2, trailing 1
//!   together   x x · x x x · · x x x · x    longest 3 = max(3, 2, 1 + 2), leading 2, trailing 1
//! ```
//!
//! Slices of several nodes about one instance overlap in time; they are joined in the order in which they come, which is
//! one of the orders that might have been.

use serde::{Deserialize, Serialize};

use super::{Call, CallCounts, Latencies};
use crate::probe::FailureClass;

/// Calls to one instance, summed over a slice of time. Its size is fixed; all sums saturate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallSlice {
    /// How often each thing happened.
    pub counts: CallCounts,
    /// Failures before the first call that did not fail.
    pub leading: u64,
    /// Failures after the last call that did not fail.
    pub trailing: u64,
    /// The longest row of failures.
    pub longest: u64,
    /// How long the calls took that tell how long the work takes ([`super::CallOutcome::tells_latency`]).
    pub latency: Latencies,
    /// The class of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureClass>,
}

impl CallSlice {
    /// Takes note of a call. Some ten nanoseconds, and no allocation: a node does it 100,000 times a second.
    pub fn record(&mut self, call: &Call) {
        if call.count == 0 {
            return;
        }
        let count = u64::from(call.count);
        if call.outcome.is_failure() {
            if self.counts.answered() == 0 {
                self.leading = self.leading.saturating_add(count);
            }
            self.trailing = self.trailing.saturating_add(count);
            self.longest = self.longest.max(self.trailing);
            self.last_failure = call.outcome.class();
        } else {
            self.trailing = 0;
        }
        self.counts.add(call.outcome, count);
        if let Some(latency) = call.latency
            && call.outcome.tells_latency()
        {
            self.latency.record(latency, call.count);
        }
    }

    /// Adds the calls of a slice that came after this one.
    pub fn merge_after(&mut self, later: &Self) {
        if later.is_empty() {
            return;
        }
        self.longest = self.longest.max(later.longest).max(self.trailing.saturating_add(later.leading));
        if self.counts.answered() == 0 {
            self.leading = self.leading.saturating_add(later.leading);
        }
        self.trailing = if later.one_run() { self.trailing.saturating_add(later.trailing) } else { later.trailing };
        self.counts.merge(&later.counts);
        self.latency.merge(&later.latency);
        self.last_failure = later.last_failure.or(self.last_failure);
    }

    /// Whether it holds no call.
    pub fn is_empty(&self) -> bool {
        self.calls() == 0
    }

    /// Whether it holds nothing but failures, and at least one.
    pub fn one_run(&self) -> bool {
        self.counts.answered() == 0 && self.failures() > 0
    }

    /// The calls that speak against the instance.
    pub fn failures(&self) -> u64 {
        self.counts.failures()
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.counts.calls()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::calls::CallOutcome;

    fn call(outcome: CallOutcome, count: u32) -> Call {
        Call { outcome, latency: Some(Duration::from_millis(5)), count }
    }

    /// `x` a failure, `.` a success, `c` a client's own error.
    fn slice(calls: &str) -> CallSlice {
        let mut slice = CallSlice::default();
        for letter in calls.chars() {
            slice.record(&call(
                match letter {
                    'x' => CallOutcome::ServerError,
                    'c' => CallOutcome::ClientError,
                    _ => CallOutcome::Success,
                },
                1,
            ));
        }
        slice
    }

    #[test]
    fn rows_of_failures_are_kept() {
        for (calls, leading, longest, trailing, one_run) in [
            ("", 0, 0, 0, false),
            (".", 0, 0, 0, false),
            ("xxx", 3, 3, 3, true),
            ("xx.xxx..x", 2, 3, 1, false),
            (".xxx.", 0, 3, 0, false),
            // A client's own error is an answer of a server that works.
            ("xxcx", 2, 2, 1, false),
        ] {
            let slice = slice(calls);
            let told = (slice.leading, slice.longest, slice.trailing, slice.one_run());
            assert_eq!(told, (leading, longest, trailing, one_run), "{calls}");
            assert_eq!((slice.calls(), slice.is_empty()), (calls.len() as u64, calls.is_empty()), "{calls}");
        }
    }

    #[test]
    fn many_calls_in_one_telling_are_a_row() {
        let mut slice = CallSlice::default();
        slice.record(&call(CallOutcome::Timeout, 4));
        slice.record(&call(CallOutcome::Success, 0));
        slice.record(&call(CallOutcome::Connection, 1));
        assert_eq!((slice.longest, slice.calls(), slice.last_failure), (5, 5, Some(FailureClass::Connection)));
        assert_eq!(slice.latency.count(), 4, "a refused connection says nothing of how long the work takes");
        slice.record(&call(CallOutcome::Timeout, u32::MAX));
        slice.record(&call(CallOutcome::Timeout, u32::MAX));
        assert_eq!(slice.longest, 5 + 2 * u64::from(u32::MAX));
        slice.trailing = u64::MAX;
        slice.record(&call(CallOutcome::Timeout, 1));
        assert_eq!(slice.longest, u64::MAX);
    }

    #[test]
    fn a_slice_is_told_to_a_peer_as_it_is() {
        let told = slice("xx.xcx");
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<CallSlice>(&text).unwrap(), told, "{text}");
    }

    fn any_call() -> impl Strategy<Value = Call> {
        let outcome = proptest::sample::select(CallOutcome::ALL).prop_map(|(_, outcome)| outcome);
        (outcome, proptest::option::of(0_u64..100_000_000), 0_u32..4).prop_map(|(outcome, micros, count)| Call {
            outcome,
            latency: micros.map(Duration::from_micros),
            count,
        })
    }

    proptest! {
        /// However the calls are cut into slices, and in whatever grouping these are joined, the whole is the same.
        #[test]
        fn slices_join_to_the_whole(
            calls in proptest::collection::vec(any_call(), 0..60),
            cuts in proptest::collection::vec(0_usize..61, 0..6),
            from_the_right in any::<bool>(),
        ) {
            let sum = |calls: &[Call]| {
                let mut slice = CallSlice::default();
                calls.iter().for_each(|call| slice.record(call));
                slice
            };
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(calls.len())).collect();
            cuts.extend([0, calls.len()]);
            cuts.sort_unstable();
            let parts: Vec<CallSlice> = cuts.windows(2).map(|cut| sum(&calls[cut[0]..cut[1]])).collect();
            let joined = if from_the_right {
                parts.iter().rev().fold(CallSlice::default(), |later, part| {
                    let mut earlier = part.clone();
                    earlier.merge_after(&later);
                    earlier
                })
            } else {
                parts.iter().fold(CallSlice::default(), |mut earlier, part| {
                    earlier.merge_after(part);
                    earlier
                })
            };
            prop_assert_eq!(&joined, &sum(&calls));

            // The whole itself against a naive count.
            let each: Vec<bool> = calls.iter().flat_map(|c| (0..c.count).map(|_| c.outcome.is_failure())).collect();
            let longest = each.split(|failed| !failed).map(<[bool]>::len).max().unwrap_or(0);
            prop_assert_eq!(joined.longest, longest as u64);
            prop_assert_eq!(joined.leading, each.iter().take_while(|failed| **failed).count() as u64);
            prop_assert_eq!(joined.trailing, each.iter().rev().take_while(|failed| **failed).count() as u64);
            prop_assert_eq!(joined.calls(), each.len() as u64);
        }
    }
}
