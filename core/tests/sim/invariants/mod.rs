//! The promises, one a file, and when each is looked at. They look; they change nothing.

mod deposed_extends_none;
mod i10_causes;
mod i15_one_holder;
mod i1_tokens_rise;
mod i2_one_active;
mod i3_guards_refuse;
mod i9_equal_states;
mod raft_logs_agree;
mod records;

use std::rc::Rc;

use baton_core::apply::BatchApplied;
use baton_core::id::Token;

use super::history::Past;
use super::raft::Entry;
use super::world::World;

pub(crate) use i9_equal_states::NAME as I9;

/// The name under which a run fails that does not come to rest.
pub(crate) const LIVENESS: &str = "liveness";

/// How often states are compared by their hashes too, which read every row: once in so many entries.
const HASHED_EVERY: u64 = 64;

impl World {
    fn hold_to(&mut self, invariant: &'static str, outcome: Result<(), String>) {
        if let Err(what) = outcome {
            self.broken(invariant, what);
        }
    }
}

/// A node has applied an entry. The first to do so makes it history, and all that is promised of a decision is looked
/// at then; all others must agree with it.
pub(crate) fn applied(world: &mut World, at: usize, index: u64, entry: &Entry, applied: Option<&BatchApplied>) {
    if index > world.history.len() {
        let node = &world.nodes[at];
        let hash = index.is_multiple_of(HASHED_EVERY).then(|| node.state.hash().expect("a state has a hash"));
        let after = node.state.clone();
        let batch = entry.batch.as_ref().map(Rc::clone);
        world.history.past.push(Past { term: entry.term, batch, after, applied: applied.cloned(), hash });
        decided(world, index);
        return;
    }
    if let Err(what) = raft_logs_agree::check(world, at, index, entry) {
        world.broken(raft_logs_agree::NAME, what);
    } else if let Err(what) = i9_equal_states::check(world, at, index) {
        world.broken(I9, what);
    } else if let Some(past) = world.history.at(index) {
        // They are equal: from here on they share what they hold, and the next comparison is quick.
        world.nodes[at].state = past.after.clone();
    }
}

/// An entry was applied for the first time.
fn decided(world: &mut World, index: u64) {
    let checks = [
        (i1_tokens_rise::NAME, i1_tokens_rise::check(world, index)),
        (i2_one_active::NAME, i2_one_active::check(world, index)),
        (records::NAME, records::check(world, index)),
        (i10_causes::NAME, i10_causes::check(world, index)),
    ];
    for (name, outcome) in checks {
        world.hold_to(name, outcome);
    }
    world.see_decided(index);
}

/// A process may act under a token from now on, or for longer than before.
pub(crate) fn holds(world: &mut World, at: usize, token: Token) {
    let outcome = i15_one_holder::check(world, at, token);
    world.hold_to(i15_one_holder::NAME, outcome);
}

/// A leader of `term` grants what was asked for when `era` was the highest elected term.
pub(crate) fn grants(world: &mut World, node: usize, term: u64, era: u64, token: u64) {
    world.hold_to(deposed_extends_none::NAME, deposed_extends_none::check(node, term, era, token));
}

/// A guard has decided.
pub(crate) fn admitted(world: &mut World, token: Token, highest: u64, admits: bool) {
    world.hold_to(i3_guards_refuse::NAME, i3_guards_refuse::check(token, highest, admits));
}

/// All is at rest, and all nodes have applied the same.
pub(crate) fn at_rest(world: &mut World) {
    let outcome = i9_equal_states::at_rest(world);
    world.hold_to(I9, outcome);
}
