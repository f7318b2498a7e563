//! The promises, one a file, and when each is looked at. They look; they change nothing.

mod i1_tokens_rise;
mod i2_one_active;
mod i9_equal_states;
mod raft_logs_agree;

use std::rc::Rc;

use baton_core::apply::BatchApplied;

use super::history::Past;
use super::raft::Entry;
use super::world::World;

pub(crate) use i1_tokens_rise::NAME as I1;
pub(crate) use i2_one_active::NAME as I2;
pub(crate) use i9_equal_states::NAME as I9;
pub(crate) use raft_logs_agree::NAME as LOGS_AGREE;

/// The name under which a run fails that does not come to rest.
pub(crate) const LIVENESS: &str = "liveness";

/// How often states are compared by their hashes too, which read every row: once in so many entries.
const HASHED_EVERY: u64 = 64;

/// A node has applied an entry. The first to do so makes it history, and all that is promised of a decision is looked
/// at then; all others must agree with it.
pub(crate) fn applied(world: &mut World, at: usize, index: u64, entry: &Entry, applied: Option<&BatchApplied>) {
    if index > world.history.len() {
        let node = &world.nodes[at];
        let hash = index.is_multiple_of(HASHED_EVERY).then(|| node.state.hash().expect("a state has a hash"));
        let after = node.state.clone();
        let past = Past {
            term: entry.term,
            batch: entry.batch.as_ref().map(Rc::clone),
            after,
            applied: applied.cloned(),
            hash,
        };
        world.history.past.push(past);
        decided(world, index);
        return;
    }
    if let Err(what) = raft_logs_agree::check(world, at, index, entry) {
        world.broken(LOGS_AGREE, what);
    } else if let Err(what) = i9_equal_states::check(world, at, index) {
        world.broken(I9, what);
    } else if let Some(past) = world.history.at(index) {
        // They are equal: from here on they share what they hold, and the next comparison is quick.
        world.nodes[at].state = past.after.clone();
    }
}

/// An entry was applied for the first time.
fn decided(world: &mut World, index: u64) {
    let checks = [(I1, i1_tokens_rise::check(world, index)), (I2, i2_one_active::check(world, index))];
    for (name, outcome) in checks {
        if let Err(what) = outcome {
            world.broken(name, what);
        }
    }
}

/// All is at rest, and all nodes have applied the same.
pub(crate) fn at_rest(world: &mut World) {
    if let Err(what) = i9_equal_states::at_rest(world) {
        world.broken(I9, what);
    }
}
