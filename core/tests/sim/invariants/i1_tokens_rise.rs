//! I1: tokens of committed promotions strictly increase in commit order, across services, deletions and re-creations.

use baton_core::event::EventKind;
use baton_core::id::Token;

use crate::sim::world::World;

pub(crate) const NAME: &str = "I1";

pub(crate) fn check(world: &World, index: u64) -> Result<(), String> {
    let (before, Some(past)) = (world.history.before(index), world.history.at(index)) else { return Ok(()) };
    let mut last: Token = before.meta.last_token;
    let events = past.applied.iter().flat_map(|applied| &applied.events);
    for event in events.map(|recorded| &recorded.event).filter(|event| event.kind == EventKind::ActiveChanged) {
        let Some(token) = event.token else { continue };
        if token <= last {
            return Err(format!("entry {index} mints token {token} after {last}"));
        }
        last = token;
    }
    // A token that nobody was told of is one too.
    for (name, service) in &past.after.services {
        let (was, is) = (before.service(name).and_then(|service| service.active_token()), service.active_token());
        if is.is_some_and(|is| Some(is) != was && is <= before.meta.last_token) {
            return Err(format!("entry {index} makes an active of {name} under {is:?}, after {last}"));
        }
    }
    if past.after.meta.last_token == last {
        Ok(())
    } else {
        Err(format!("entry {index}: the last token is said to be {}, and was {last}", past.after.meta.last_token))
    }
}
