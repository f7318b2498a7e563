//! The readers' side of the state: the view that is published after each committed batch, what changed in it, and the
//! events. Reading takes no lock and waits for nobody. Nothing here writes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use baton_core::state::{Change, State};
use tokio::sync::{broadcast, watch};

use super::EventLog;

/// Batches of changes that a slow listener may be behind. One that lags further is told so, and looks at everything.
const CHANGES_KEPT: usize = 1_024;

/// The state after a committed batch.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The state.
    pub state: State,
    /// The index of the last entry in it.
    pub applied_index: u64,
    /// The term of that entry.
    pub applied_term: u64,
}

/// What a batch changed.
#[derive(Clone, Debug)]
pub(crate) enum Changed {
    /// These objects.
    Objects(Arc<BTreeSet<Change>>),
    /// Possibly everything: a snapshot was installed.
    Everything,
}

/// Reads the state. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct StateReader {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    view: ArcSwap<View>,
    applied: watch::Sender<u64>,
    changes: broadcast::Sender<Changed>,
    events: EventLog,
}

impl StateReader {
    pub(super) fn new(view: View, events: EventLog) -> Self {
        let applied = watch::Sender::new(view.applied_index);
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        Self { inner: Arc::new(Inner { view: ArcSwap::from_pointee(view), applied, changes, events }) }
    }

    /// The state as of the last committed batch.
    pub(crate) fn view(&self) -> Arc<View> {
        self.inner.view.load_full()
    }

    /// The applied index, which rises after each published batch.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.inner.applied.subscribe()
    }

    /// What each batch changed, from now on. A receiver that lags must take it that everything changed.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Changed> {
        self.inner.changes.subscribe()
    }

    /// The events.
    pub(crate) fn events(&self) -> &EventLog {
        &self.inner.events
    }

    /// Publishes what has been committed: the view first, so that whoever hears of an event or a change finds it there.
    pub(super) fn publish(&self, view: View, changed: Option<Changed>, events: impl FnOnce(&EventLog)) {
        let applied = view.applied_index;
        self.inner.view.store(Arc::new(view));
        events(&self.inner.events);
        if let Some(changed) = changed {
            // Nobody listening is no error.
            let _ = self.inner.changes.send(changed);
        }
        self.inner.applied.send_replace(applied);
    }
}
