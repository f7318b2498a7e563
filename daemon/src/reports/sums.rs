//! Reported calls, summed until they are told to the leader. Bounded in keys and in age; what does not fit goes, oldest
//! first, and is counted. No I/O, and time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use baton_core::calls::CallSlice;
use baton_core::id::{InstanceId, Revision, ServiceName};
use baton_core::probe::LocalTime;

use super::wire::SliceOf;

/// The most sums that are kept. Each is about a kilobyte, and there is one an instance that is called: as many as the
/// largest service has.
pub(crate) const SUMS_MAX: usize = 20_000;

/// Calls that nobody could be told of for so long say nothing about now. An election is over by then.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(2);

/// What is summed apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SumKey {
    pub service: ServiceName,
    pub instance: InstanceId,
    /// The epoch that this node knows.
    pub epoch: Revision,
    /// The breaker's generation that the callers named, if they did.
    pub generation: Option<u64>,
}

#[derive(Debug)]
struct Sum {
    since: LocalTime,
    slice: CallSlice,
}

/// The sums that wait, by when they began.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    sums: HashMap<SumKey, Sum>,
    /// Every key once, oldest first.
    order: VecDeque<SumKey>,
}

impl Sums {
    /// Adds calls; answers how many others had to go for them.
    pub(crate) fn add(&mut self, key: SumKey, slice: &CallSlice, now: LocalTime) -> u64 {
        if let Some(sum) = self.sums.get_mut(&key) {
            sum.slice.merge_after(slice);
            return 0;
        }
        let full = self.order.len() >= SUMS_MAX;
        let gone = if full { self.pop().map_or(0, |(_, slice)| slice.calls()) } else { 0 };
        self.order.push_back(key.clone());
        self.sums.insert(key, Sum { since: now, slice: slice.clone() });
        gone
    }

    /// Takes out the oldest sums, at most so many, with the time when the first of them began.
    pub(crate) fn take(&mut self, most: usize) -> Option<(LocalTime, Vec<SliceOf>)> {
        let since = self.oldest()?;
        let mut slices = Vec::with_capacity(most.min(self.order.len()));
        while slices.len() < most
            && let Some((SumKey { service, instance, epoch, generation }, slice)) = self.pop()
        {
            slices.push(SliceOf { service, instance, epoch, generation, slice });
        }
        Some((since, slices))
    }

    /// Lets go of what is too old; answers how many calls that were.
    pub(crate) fn drop_old(&mut self, now: LocalTime) -> u64 {
        let mut gone = 0;
        while self.oldest().is_some_and(|since| now.since(since) >= AGE_MAX) {
            gone += self.pop().map_or(0, |(_, slice)| slice.calls());
        }
        gone
    }

    fn oldest(&self) -> Option<LocalTime> {
        self.order.front().and_then(|key| self.sums.get(key)).map(|sum| sum.since)
    }

    fn pop(&mut self) -> Option<(SumKey, CallSlice)> {
        let key = self.order.pop_front()?;
        let sum = self.sums.remove(&key)?;
        Some((key, sum.slice))
    }
}

#[cfg(test)]
mod tests {
    use baton_core::calls::{Call, CallOutcome};

    use super::*;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    fn key(instance: &str, generation: Option<u64>) -> SumKey {
        let service = "orders".parse().expect("a name");
        SumKey { service, instance: instance.parse().expect("a name"), epoch: 7, generation }
    }

    fn failures(count: u32) -> CallSlice {
        let mut slice = CallSlice::default();
        slice.record(&Call { outcome: CallOutcome::Timeout, latency: None, count });
        slice
    }

    #[test]
    fn calls_are_summed_by_instance_and_generation_and_taken_oldest_first() {
        let mut sums = Sums::default();
        sums.add(key("b", None), &failures(2), at(0));
        sums.add(key("a", None), &failures(1), at(10));
        sums.add(key("a", Some(3)), &failures(1), at(20));
        sums.add(key("b", None), &failures(3), at(30));
        let (since, first) = sums.take(2).expect("some");
        let told: Vec<_> = first.iter().map(|of| (of.instance.as_str(), of.generation, of.slice.longest)).collect();
        assert_eq!((since, told), (at(0), vec![("b", None, 5), ("a", None, 1)]), "rows of failures go on");
        let (since, rest) = sums.take(2).expect("some");
        assert_eq!((since, rest.len(), rest[0].generation), (at(20), 1, Some(3)));
        assert!(sums.take(1).is_none());
    }

    #[test]
    fn old_calls_go_and_young_ones_stay() {
        let mut sums = Sums::default();
        sums.add(key("a", None), &failures(2), at(0));
        sums.add(key("b", None), &failures(1), at(500));
        assert_eq!(sums.drop_old(at(1_999)), 0);
        // What came later does not make the sum younger: it would never go, and grow stale in the middle.
        sums.add(key("a", None), &failures(1), at(1_999));
        assert_eq!(sums.drop_old(at(2_000)), 3);
        assert_eq!(sums.take(9).expect("some").1.len(), 1);
    }

    #[test]
    fn there_is_a_bound_and_the_oldest_goes() {
        let mut sums = Sums::default();
        for number in 0..SUMS_MAX {
            assert_eq!(sums.add(key(&format!("i-{number}"), None), &failures(1), at(0)), 0);
        }
        assert_eq!(sums.add(key("one-more", None), &failures(4), at(1)), 1, "i-0 goes");
        assert_eq!(sums.add(key("i-1", None), &failures(1), at(1)), 0, "what is there needs no room");
        let (_, first) = sums.take(1).expect("some");
        assert_eq!((first[0].instance.as_str(), first[0].slice.calls()), ("i-1", 2));
    }
}
