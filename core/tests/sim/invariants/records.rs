//! Every promotion has exactly one record, every record at most one promotion a token, and each record's fields fit its
//! status.

use std::collections::BTreeSet;

use baton_core::event::EventKind;
use baton_core::id::TransitionId;
use baton_core::transition::{Transition, TransitionStatus};

use crate::sim::world::World;

pub(crate) const NAME: &str = "records";

pub(crate) fn check(world: &World, index: u64) -> Result<(), String> {
    let (before, Some(past)) = (world.history.before(index), world.history.at(index)) else { return Ok(()) };
    let Some(applied) = &past.applied else { return Ok(()) };
    let events = || applied.events.iter().map(|recorded| &recorded.event);
    let mut touched = BTreeSet::new();
    for event in events() {
        let Some(id) = event.transition else { continue };
        touched.insert(id);
        let Some(record) = past.after.transitions.get(&id) else {
            return Err(format!("entry {index} tells of {id}, which has no record"));
        };
        if let (EventKind::ActiveChanged, Some(token)) = (event.kind, event.token)
            && record.token != Some(token)
        {
            return Err(format!("entry {index} mints {token} within {id}, whose record says {:?}", record.token));
        }
    }
    for id in touched {
        let known = before.transitions.get(&id);
        let Some(record) = past.after.transitions.get(&id) else { continue };
        grown(known.map(AsRef::as_ref), record).map_err(|what| format!("entry {index}: {id}: {what}"))?;
        let ends = events().filter(|event| event.transition == Some(id) && ends(event.kind)).count();
        let ended = known.is_none_or(|known| known.status == TransitionStatus::Running)
            && record.status != TransitionStatus::Running;
        if ends != usize::from(ended) {
            return Err(format!("entry {index} tells {ends} times that {id} has ended, and it {}", record.status));
        }
    }
    // Whoever holds under a token is in the one record that minted it.
    for service in past.after.services.values() {
        let Some(active) = &service.assignment.active else { continue };
        let minted = |record: &&std::sync::Arc<Transition>| record.token == Some(active.token);
        let records: Vec<TransitionId> =
            past.after.transitions.values().filter(minted).map(|record| record.id).collect();
        if records != [active.transition] {
            return Err(format!("token {} of {} is in the records {records:?}", active.token, service.name));
        }
    }
    Ok(())
}

const fn ends(kind: EventKind) -> bool {
    matches!(kind, EventKind::TransitionFinished | EventKind::TransitionAborted)
}

/// Whether a record goes on from what it was.
fn grown(known: Option<&Transition>, record: &Transition) -> Result<(), String> {
    if let Some(known) = known {
        if known.status != TransitionStatus::Running && known != record {
            return Err("it had ended, and was changed".to_owned());
        }
        if !record.steps.starts_with(&known.steps) {
            return Err("its steps were changed".to_owned());
        }
    }
    let promoted = |record: &Transition| record.steps.iter().filter(|step| step.step == "promoted").count();
    let new = promoted(record) - known.map_or(0, promoted);
    if new > 1 || (new == 1 && known.is_some_and(|known| known.token == record.token)) {
        return Err(format!("{new} promotions at once, and its token is {:?}", record.token));
    }
    if promoted(record) > 0 && (record.token.is_none() || record.to.is_none() || record.proof.is_none()) {
        return Err(format!("it promoted {:?} under {:?} by {:?}", record.to, record.token, record.proof));
    }
    let fits = match record.status {
        TransitionStatus::Running => record.finished_at.is_none(),
        TransitionStatus::Finished => record.finished_at.is_some() && record.token.is_some(),
        TransitionStatus::Aborted => record.finished_at.is_some(),
    };
    if fits { Ok(()) } else { Err(format!("it is {}, and its fields say otherwise", record.status)) }
}
