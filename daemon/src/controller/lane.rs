//! What one kind of the leader's work has still to look at: services that changed, when to look although nothing did, and
//! where a proposal is under way. Planning and housekeeping have a lane each, so that neither waits for the other.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::id::ServiceName;
use tokio::time::Instant;

/// The services that one kind of work has still to look at.
#[derive(Debug)]
pub(super) struct Lane {
    dirty: BTreeSet<ServiceName>,
    wake: BTreeMap<ServiceName, Instant>,
    /// Services with a proposal under way: one at a time each.
    busy: BTreeSet<ServiceName>,
    in_flight_max: usize,
}

impl Lane {
    /// A lane with nothing to do and at most `in_flight_max` proposals under way at once.
    pub(super) const fn new(in_flight_max: usize) -> Self {
        Self { dirty: BTreeSet::new(), wake: BTreeMap::new(), busy: BTreeSet::new(), in_flight_max }
    }

    /// It changed: look at it.
    pub(super) fn mark(&mut self, service: &ServiceName) {
        self.dirty.insert(service.clone());
    }

    /// Look at it at `at`, changed or not.
    pub(super) fn wake_at(&mut self, service: &ServiceName, at: Instant) {
        self.wake.insert(service.clone(), at);
    }

    /// A proposal about it is under way from here on.
    pub(super) fn begin(&mut self, service: &ServiceName) {
        self.busy.insert(service.clone());
    }

    /// The proposal about it has ended.
    pub(super) fn end(&mut self, service: &ServiceName) {
        self.busy.remove(service);
    }

    /// When the next service is to be looked at although nothing changed.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.wake.values().min().copied()
    }

    /// Marks the services whose time has come.
    pub(super) fn wake(&mut self, now: Instant) {
        let due: Vec<ServiceName> =
            self.wake.iter().filter(|(_, at)| **at <= now).map(|(service, _)| service.clone()).collect();
        for service in due {
            self.wake.remove(&service);
            self.dirty.insert(service);
        }
    }

    /// Takes the next service after `after` that may be looked at now, in order of names. One with a proposal under way
    /// stays marked, and so does everything while as many are under way as may be. Its wake-up is forgotten: whoever
    /// looks sets the next.
    pub(super) fn take_after(&mut self, after: Option<&ServiceName>) -> Option<ServiceName> {
        if self.busy.len() >= self.in_flight_max {
            return None;
        }
        let rest = (after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded), std::ops::Bound::Unbounded);
        let next = self.dirty.range::<ServiceName, _>(rest).find(|service| !self.busy.contains(*service)).cloned()?;
        self.dirty.remove(&next);
        self.wake.remove(&next);
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name(text: &str) -> ServiceName {
        text.parse().expect("a name")
    }

    fn all(lane: &mut Lane) -> Vec<String> {
        let mut taken = Vec::new();
        let mut last = None;
        while let Some(service) = lane.take_after(last.as_ref()) {
            taken.push(service.to_string());
            last = Some(service);
        }
        taken
    }

    #[test]
    fn what_is_busy_waits_and_is_not_forgotten() {
        let mut lane = Lane::new(9);
        for service in ["c", "a", "b"] {
            lane.mark(&name(service));
        }
        lane.begin(&name("b"));
        assert_eq!(all(&mut lane), ["a", "c"]);
        assert!(all(&mut lane).is_empty(), "b is busy still");
        lane.end(&name("b"));
        assert_eq!(all(&mut lane), ["b"]);
    }

    #[test]
    fn a_full_lane_takes_nothing_and_keeps_what_is_marked() {
        let mut lane = Lane::new(1);
        lane.mark(&name("a"));
        lane.mark(&name("b"));
        let first = lane.take_after(None).expect("there is room");
        lane.begin(&first);
        assert_eq!(lane.take_after(Some(&first)), None);
        lane.end(&first);
        assert_eq!(all(&mut lane), ["b"]);
    }

    #[test]
    fn a_wake_up_marks_once_and_a_look_forgets_it() {
        let (mut lane, now) = (Lane::new(9), Instant::now());
        lane.wake_at(&name("a"), now + Duration::from_secs(1));
        lane.wake_at(&name("b"), now + Duration::from_secs(2));
        assert_eq!(lane.next_wake(), Some(now + Duration::from_secs(1)));
        lane.wake(now);
        assert!(all(&mut lane).is_empty(), "it is not time");
        lane.wake(now + Duration::from_secs(1));
        assert_eq!(all(&mut lane), ["a"]);
        lane.mark(&name("b"));
        assert_eq!(all(&mut lane), ["b"]);
        assert_eq!(lane.next_wake(), None, "whoever looks sets the next");
    }
}
