//! What the cluster has decided, as the first node to apply each entry saw it. The invariants compare everybody with it.

use std::rc::Rc;

use baton_core::apply::BatchApplied;
use baton_core::command::Batch;
use baton_core::state::State;

/// An applied entry.
#[derive(Debug)]
pub(crate) struct Past {
    pub(crate) term: u64,
    pub(crate) batch: Option<Rc<Batch>>,
    /// The state after it.
    pub(crate) after: State,
    /// What it came to; none where it was empty.
    pub(crate) applied: Option<BatchApplied>,
    /// The hash of that state, where somebody asked.
    pub(crate) hash: Option<String>,
}

/// All of them, from index 1.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) past: Vec<Past>,
    nothing: State,
}

impl History {
    pub(crate) fn len(&self) -> u64 {
        self.past.len() as u64
    }

    pub(crate) fn at(&self, index: u64) -> Option<&Past> {
        self.past.get(usize::try_from(index).ok()?.checked_sub(1)?)
    }

    /// The state before the entry at `index`.
    pub(crate) fn before(&self, index: u64) -> &State {
        self.at(index - 1).map_or(&self.nothing, |past| &past.after)
    }

    /// The newest state that anybody has applied.
    pub(crate) fn state(&self) -> &State {
        self.past.last().map_or(&self.nothing, |past| &past.after)
    }
}
