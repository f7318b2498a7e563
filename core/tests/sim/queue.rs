//! What is going to happen, in order of true time; of two things at one time the one that was planned first.

use std::collections::BTreeMap;

use super::clock::Micros;

/// The schedule.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    items: BTreeMap<(Micros, u64), T>,
    planned: u64,
}

impl<T> Queue<T> {
    pub(crate) const fn new() -> Self {
        Self { items: BTreeMap::new(), planned: 0 }
    }

    pub(crate) fn plan(&mut self, at: Micros, item: T) {
        self.planned += 1;
        self.items.insert((at, self.planned), item);
    }

    /// The next thing and its time.
    pub(crate) fn next(&mut self) -> Option<(Micros, T)> {
        self.items.pop_first().map(|((at, _), item)| (at, item))
    }
}
