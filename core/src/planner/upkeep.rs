//! What the leader does for the cluster itself: whose verdicts count, and how much history is kept. Pure like the rest:
//! what was heard of whom comes in as an argument.

use std::collections::BTreeMap;

use crate::command::Command;
use crate::id::NodeId;
use crate::state::{Pause, State};
use crate::time::{ClusterTime, Millis};

/// A node that the leader has not heard for so long observes nothing any more. Three times the longest election: long
/// enough that a slow disk or a busy moment is not taken for a death, short enough that a dead observer does not hold up
/// a verdict quorum for long.
pub const LOST_AFTER: Millis = Millis(3_000);

/// A lost node counts again when it was heard within this.
pub const BACK_WITHIN: Millis = Millis(1_000);

/// Events kept at least; the oldest go first.
pub const EVENTS_KEPT: u64 = 100_000;

/// Events beyond [`EVENTS_KEPT`] before a compaction is worth a log entry.
const EVENTS_SLACK: u64 = 1_000;

/// Proposes to count nodes out and in. `heard` says how long ago the leader `me` heard each member, `None` for never since
/// it leads. It hears itself, whatever is said of it: one that was counted out before it was elected counts itself in again.
/// A fresh leader has heard nobody yet and accuses nobody until it has led for [`LOST_AFTER`].
pub fn observers(
    state: &State,
    me: NodeId,
    heard: &BTreeMap<NodeId, Option<Millis>>,
    leading_for: Millis,
) -> Vec<Command> {
    state
        .nodes
        .values()
        .filter_map(|node| {
            let heard = if node.id == me { Some(Millis::ZERO) } else { *heard.get(&node.id)? };
            let silent_for = heard.unwrap_or(leading_for).min(leading_for);
            let heard_lately = heard.is_some_and(|ago| ago <= BACK_WITHIN);
            match node.live {
                true if silent_for >= LOST_AFTER => Some(Command::ObserverLost { node: node.id, silent_for }),
                false if heard_lately => Some(Command::ObserverBack { node: node.id }),
                true | false => None,
            }
        })
        .collect()
}

/// Proposes to forget old events, if there are enough of them.
pub fn retention(state: &State) -> Option<Command> {
    let kept = state.meta.revision - state.meta.compacted_through;
    (kept > EVENTS_KEPT + EVENTS_SLACK).then(|| Command::EventsCompact { through: state.meta.revision - EVENTS_KEPT })
}

/// The pauses whose end has come. What they held back goes on without this; it is for the history, and for those who look.
pub fn pauses_due(state: &State, now: ClusterTime) -> Vec<Command> {
    let over = |pause: &Option<Pause>| pause.as_ref().is_some_and(|pause| !pause.holds(now));
    let all = over(&state.meta.pause).then_some(Command::AutomationDue { service: None });
    let own = state.services.values().filter(|service| over(&service.rails.pause));
    all.into_iter().chain(own.map(|it| Command::AutomationDue { service: Some(it.name.clone()) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apply::apply;
    use crate::command::NodeAnnounce;
    use crate::time::{ClusterTime, WallTime};

    fn three_nodes() -> State {
        let mut state = State::default();
        for node in 1..=3 {
            let announce = NodeAnnounce {
                node,
                api: "127.0.0.1:1".to_owned(),
                peer: "127.0.0.1:2".to_owned(),
                version: "0.1.0".to_owned(),
            };
            apply(&mut state, node, ClusterTime(0), WallTime(0), Command::NodeAnnounce(announce));
        }
        state
    }

    #[test]
    fn a_silent_node_is_lost_and_one_that_is_heard_is_back() {
        let mut state = three_nodes();
        let heard = |two, three| BTreeMap::from([(2, two), (3, three)]);
        let long = Millis(60_000);
        assert_eq!(observers(&state, 1, &heard(Some(Millis(50)), Some(Millis(2_999))), long), []);
        let lost = observers(&state, 1, &heard(Some(Millis(50)), Some(Millis(3_000))), long);
        assert_eq!(lost, [Command::ObserverLost { node: 3, silent_for: Millis(3_000) }]);
        apply(&mut state, 4, ClusterTime(0), WallTime(0), lost[0].clone());
        assert_eq!(observers(&state, 1, &heard(Some(Millis(50)), Some(Millis(5_000))), long), [], "said once");
        assert_eq!(
            observers(&state, 1, &heard(Some(Millis(50)), Some(Millis(900))), long),
            [Command::ObserverBack { node: 3 }]
        );
    }

    #[test]
    fn a_fresh_leader_accuses_nobody() {
        let state = three_nodes();
        let never = BTreeMap::from([(2, None), (3, Some(Millis(90_000)))]);
        assert_eq!(observers(&state, 1, &never, Millis(2_999)), []);
        assert_eq!(observers(&state, 1, &never, Millis(3_000)).len(), 2);
    }

    #[test]
    fn a_leader_that_was_counted_out_before_its_election_counts_itself_in() {
        let mut state = three_nodes();
        let lost = Command::ObserverLost { node: 1, silent_for: Millis(3_000) };
        apply(&mut state, 4, ClusterTime(0), WallTime(0), lost);
        let others = BTreeMap::from([(1, None), (2, Some(Millis(50))), (3, Some(Millis(50)))]);
        assert_eq!(observers(&state, 1, &others, Millis::ZERO), [Command::ObserverBack { node: 1 }]);
    }

    #[test]
    fn history_is_forgotten_in_large_steps_and_never_below_what_is_kept() {
        let mut state = State::default();
        state.meta.revision = EVENTS_KEPT + EVENTS_SLACK;
        assert_eq!(retention(&state), None);
        state.meta.revision += 1;
        assert_eq!(retention(&state), Some(Command::EventsCompact { through: EVENTS_SLACK + 1 }));
        state.meta.compacted_through = EVENTS_SLACK + 1;
        assert_eq!(retention(&state), None);
    }
}
