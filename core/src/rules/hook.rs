//! The runs of a fencing hook within a move: which of them are about the holder that a proof is wanted of, and whether one
//! of those is under way. A move may meet more than one holder: who was promoted within it and did not acknowledge is
//! the next to be cut off, and what a run says of one of them says nothing of the other.

use crate::state::{Holder, Service};
use crate::time::{ClusterTime, Millis};
use crate::transition::{HookAttempt, Transition};

use super::rails::times;

/// A run that has no outcome so long after its time-out has lost it: its node told nobody.
const LOST_AFTER: Millis = Millis::secs(10);

/// The most runs of a hook within one transition, those included that have no outcome: the record keeps each of them.
const HOOK_RUNS_MAX: usize = 200;

/// How often the hook has failed against this holder, since an operator took the move over, if one did.
pub fn failed_against(open: &Transition, holder: &Holder) -> usize {
    let counts = |run: &&HookAttempt| run.number > open.hook_forgiven && run.outcome.as_ref().is_some_and(|it| !it.ok);
    runs_against(open, holder).filter(counts).count()
}

/// Why the hook is not run any more within this move against the one that held the service last; none where it may be.
pub fn hook_over(service: &Service, open: &Transition) -> Option<String> {
    let (holder, hook) = (service.assignment.last_holder.as_ref()?, service.spec.fencing.hook.as_ref()?);
    if open.hook.len() >= HOOK_RUNS_MAX {
        let last = open.hook.last().is_some_and(|run| run.outcome.is_some());
        return last
            .then(|| format!("the fencing hook was run {HOOK_RUNS_MAX} times within this move, which is the most"));
    }
    let failed = failed_against(open, holder);
    (failed >= hook.attempts as usize).then(|| {
        format!(
            "the fencing hook has failed {}, and attempts is {}: a failover that an operator asks for tries it again",
            times(failed),
            hook.attempts
        )
    })
}

/// Whether a run is about this holder: the same instance under the same token.
pub fn is_against(run: &HookAttempt, holder: &Holder) -> bool {
    run.instance == holder.instance && run.token == holder.token
}

/// The runs within a move that are about this holder, the first one first.
pub fn runs_against<'a>(open: &'a Transition, holder: &'a Holder) -> impl DoubleEndedIterator<Item = &'a HookAttempt> {
    open.hook.iter().filter(|run| is_against(run, holder))
}

/// Until when a run without an outcome is taken to be under way by the leader of `term`; none where it is not. A run of
/// another term never is: whoever leads now does not know what became of it. `timeout` is that of one run.
pub fn under_way_until(run: &HookAttempt, timeout: Millis, term: u64, now: ClusterTime) -> Option<ClusterTime> {
    let lost_at = run.at.plus(timeout).plus(LOST_AFTER);
    (run.outcome.is_none() && run.term == term && now < lost_at).then_some(lost_at)
}
