//! I9: equal applied index, equal state. Time and chance enter only through the log; what a node reads back from its
//! own rows is what it wrote.

use crate::sim::world::World;

pub(crate) const NAME: &str = "I9";

pub(crate) fn check(world: &World, at: usize, index: u64) -> Result<(), String> {
    let (node, Some(past)) = (&world.nodes[at], world.history.at(index)) else { return Ok(()) };
    if node.state != past.after {
        return Err(format!("n{} holds another state after entry {index} than the first that applied it", at + 1));
    }
    match &past.hash {
        Some(hash) if node.state.hash().ok().as_ref() != Some(hash) => {
            Err(format!("n{} has another hash after entry {index} than the first that applied it", at + 1))
        }
        Some(_) | None => Ok(()),
    }
}

/// Nodes that have applied as much have the same hash.
pub(crate) fn at_rest(world: &World) -> Result<(), String> {
    let expected = world.history.state().hash().map_err(|error| error.to_string())?;
    for node in world.nodes.iter().filter(|node| node.applied == world.history.len()) {
        if node.state.hash().ok().as_ref() != Some(&expected) {
            return Err(format!("n{} has another hash at rest", node.at + 1));
        }
    }
    Ok(())
}
