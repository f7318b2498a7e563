//! What this node has counted of each instance since the instance's epoch began: its own probes and the calls that were
//! reported to it, by class. Levels, told to the leader where they changed; no I/O, no clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_core::calls::{CallCounts, CallOutcome};
use baton_core::id::{InstanceId, Revision, ServiceName};
use baton_core::probe::{FailureClass, Outcome};
use baton_core::state::State;

use super::wire::TotalOf;

type Key = (ServiceName, InstanceId);

#[derive(Debug, Default)]
struct Total {
    epoch: Revision,
    probes: CallCounts,
    calls: CallCounts,
    /// Not told since it changed.
    news: bool,
}

/// The counts of all instances. There are as many as there are instances: those that are gone are let go.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    held: Mutex<HashMap<Key, Total>>,
}

/// Counts this node's probes; given to who sees them. Clones count into the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbeTally(Arc<Totals>);

impl ProbeTally {
    /// A tally that counts into `totals`.
    pub(crate) fn of(totals: Arc<Totals>) -> Self {
        Self(totals)
    }

    /// Counts a probe that was believed.
    pub(crate) fn count(&self, key: &Key, epoch: Revision, outcome: &Outcome) {
        let class = match outcome {
            Outcome::Success => CallOutcome::Success,
            Outcome::Failure { class, .. } => word(*class),
        };
        self.0.with(key, epoch, |total| total.probes.add(class, 1));
    }
}

/// The word in which a class is counted.
const fn word(class: FailureClass) -> CallOutcome {
    match class {
        FailureClass::Timeout => CallOutcome::Timeout,
        FailureClass::Connection => CallOutcome::Connection,
        FailureClass::ServerError => CallOutcome::ServerError,
        FailureClass::RateLimit => CallOutcome::RateLimit,
        FailureClass::Malformed => CallOutcome::Malformed,
        FailureClass::Slow => CallOutcome::Slow,
        FailureClass::ClientError => CallOutcome::ClientError,
    }
}

impl Totals {
    fn held(&self) -> MutexGuard<'_, HashMap<Key, Total>> {
        // Plain numbers, whole after every statement: a panic elsewhere cannot have broken them.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with(&self, key: &Key, epoch: Revision, count: impl FnOnce(&mut Total)) {
        let mut held = self.held();
        let total = match held.get_mut(key) {
            Some(total) => total,
            None => held.entry(key.clone()).or_insert(Total { epoch, ..Total::default() }),
        };
        if total.epoch < epoch {
            *total = Total { epoch, ..Total::default() };
        }
        // What is seen of an older epoch is late.
        if total.epoch == epoch {
            count(total);
            total.news = true;
        }
    }

    /// Counts reported calls.
    pub(crate) fn calls(&self, key: &Key, epoch: Revision, calls: &CallCounts) {
        self.with(key, epoch, |total| total.calls.merge(calls));
    }

    /// What changed since it was last told, at most so much; it counts as told from now on.
    pub(crate) fn news(&self, most: usize) -> Vec<TotalOf> {
        let mut held = self.held();
        let news = held.iter_mut().filter(|(_, total)| total.news).take(most);
        news.map(|((service, instance), total)| {
            total.news = false;
            TotalOf {
                service: service.clone(),
                instance: instance.clone(),
                epoch: total.epoch,
                probes: total.probes,
                calls: total.calls,
            }
        })
        .collect()
    }

    /// It was not heard after all: these are news again.
    pub(crate) fn untold(&self, told: &[TotalOf]) {
        let mut held = self.held();
        for TotalOf { service, instance, .. } in told {
            if let Some(total) = held.get_mut(&(service.clone(), instance.clone())) {
                total.news = true;
            }
        }
    }

    /// There is another leader, who knows nothing: everything is news.
    pub(crate) fn all_news(&self) {
        self.held().values_mut().for_each(|total| total.news = true);
    }

    /// Lets go of instances that are gone.
    pub(crate) fn prune(&self, state: &State) {
        self.held().retain(|(service, instance), _| state.instance(service, instance).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(instance: &str) -> Key {
        ("orders".parse().expect("a name"), instance.parse().expect("a name"))
    }

    fn timeouts(count: u64) -> CallCounts {
        CallCounts { timeout: count, ..CallCounts::default() }
    }

    #[test]
    fn counts_grow_with_their_epoch_and_are_told_where_they_changed() {
        let totals = Arc::new(Totals::default());
        let tally = ProbeTally::of(totals.clone());
        tally.count(&key("a"), 5, &Outcome::Success);
        tally.count(&key("a"), 5, &Outcome::failure(FailureClass::Connection, "refused"));
        totals.calls(&key("a"), 5, &timeouts(3));
        let told = totals.news(9);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].probes.success, told[0].probes.connection, told[0].calls), (1, 1, timeouts(3)));
        assert!(totals.news(9).is_empty(), "nothing new");

        totals.untold(&told);
        assert_eq!(totals.news(9), told, "it was not heard");
        totals.all_news();
        assert_eq!(totals.news(9), told, "another leader");

        totals.calls(&key("a"), 8, &timeouts(1));
        totals.calls(&key("a"), 5, &timeouts(100));
        let told = totals.news(9);
        assert_eq!((told[0].epoch, told[0].calls, told[0].probes), (8, timeouts(1), CallCounts::default()));
    }

    #[test]
    fn who_is_gone_is_let_go() {
        let totals = Totals::default();
        totals.calls(&key("a"), 5, &timeouts(3));
        totals.prune(&State::default());
        totals.all_news();
        assert!(totals.news(9).is_empty());
    }
}
