//! What the log wants of this node: the runs of fencing hooks that it is to make in its term, read from the records. Nothing
//! is run here, and nothing is remembered.

use baton_core::id::{NodeId, TransitionId};
use baton_core::policy::FencingHook;
use baton_core::state::State;
use baton_core::transition::TransitionStatus;

use super::hook::HookAsk;

/// A run that is in the log and has no outcome.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    /// What is to be asked, as the service's spec says now; none where it says so no longer.
    pub(super) hook: Option<FencingHook>,
    /// Whom it is about.
    pub(super) ask: HookAsk,
}

/// The runs of an open transition that `node` is to make as the leader of `term`. Those of another term are nobody's: whether
/// they were made is not known, and another run stands in the log or will.
pub(super) fn wanted(state: &State, id: TransitionId, node: NodeId, term: u64) -> Vec<Wanted> {
    let Some(open) = state.transitions.get(&id).filter(|open| open.status == TransitionStatus::Running) else {
        return Vec::new();
    };
    let Some(service) = state.service(&open.service) else { return Vec::new() };
    let mine = open.hook.iter().filter(|run| run.outcome.is_none() && run.node == node && run.term == term);
    mine.map(|run| Wanted {
        hook: service.spec.fencing.hook.clone(),
        ask: HookAsk {
            transition: id,
            attempt: run.number,
            service: service.name.clone(),
            instance: run.instance.clone(),
            // As it is registered now; a holder that is not registered any more has none.
            address: service.instances.get(&run.instance).and_then(|it| it.registration.address.clone()),
            token: run.token,
            reason: open.trigger.reason.clone(),
        },
    })
    .collect()
}
