//! Raft's own promise: no two nodes apply different entries at one index. If this failed, the simulator's Raft would be
//! wrong, and nothing else that it says would be worth anything.

use std::rc::Rc;

use crate::sim::raft::Entry;
use crate::sim::world::World;

pub(crate) const NAME: &str = "raft-logs-agree";

pub(crate) fn check(world: &World, at: usize, index: u64, entry: &Entry) -> Result<(), String> {
    let Some(past) = world.history.at(index) else { return Ok(()) };
    let same_batch = match (&past.batch, &entry.batch) {
        (Some(one), Some(other)) => Rc::ptr_eq(one, other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    if past.term == entry.term && same_batch {
        Ok(())
    } else {
        Err(format!("n{} applies another entry at {index}, of term {}, than was applied before", at + 1, entry.term))
    }
}
