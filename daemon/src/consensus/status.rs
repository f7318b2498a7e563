//! How Raft is doing, for those who ask.

use std::sync::PoisonError;
use std::time::Duration;

use baton_core::id::NodeId;
use openraft::async_runtime::WatchReceiver;
use openraft::{Instant, ServerState};

use super::Inner;

/// A member's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberRole {
    /// It leads.
    Leader,
    /// It votes and follows.
    Follower,
    /// It follows without a vote.
    Learner,
}

/// One member.
#[derive(Clone, Debug)]
pub(crate) struct MemberStatus {
    /// Its id.
    pub id: NodeId,
    /// Its part, as far as this node knows.
    pub role: MemberRole,
    /// Its peer address.
    pub peer: String,
    /// How long ago it last answered. Only the leader knows; for itself it is zero.
    pub last_contact: Option<Duration>,
}

/// How Raft is doing.
#[derive(Clone, Debug)]
pub(crate) struct RaftStatus {
    /// This node.
    pub node_id: NodeId,
    /// The term.
    pub term: u64,
    /// The leader, where it is known.
    pub leader: Option<NodeId>,
    /// All members, by id.
    pub members: Vec<MemberStatus>,
    /// The last entry in the log.
    pub last_log_index: Option<u64>,
    /// The last entry in the snapshot.
    pub snapshot_index: Option<u64>,
    /// The last entry purged.
    pub purged_index: Option<u64>,
}

impl Inner {
    pub(super) fn status(&self) -> RaftStatus {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<NodeId> = membership.voter_ids().collect();
        let leads = metrics.state == ServerState::Leader;
        let members = membership.nodes().map(|(id, node)| {
            let role = match (metrics.current_leader == Some(*id), voters.contains(id)) {
                (true, _) => MemberRole::Leader,
                (false, true) => MemberRole::Follower,
                (false, false) => MemberRole::Learner,
            };
            let last_contact = match &metrics.heartbeat {
                Some(_) if leads && *id == self.node_id => Some(Duration::ZERO),
                Some(heard) => heard.get(id).and_then(|at| at.as_ref()).map(|at| at.elapsed()),
                None => None,
            };
            MemberStatus { id: *id, role, peer: node.peer.clone(), last_contact }
        });
        RaftStatus {
            node_id: self.node_id,
            term: metrics.current_term,
            leader: metrics.current_leader,
            members: members.collect(),
            last_log_index: metrics.last_log_index,
            snapshot_index: metrics.snapshot.map(|id| id.index),
            purged_index: metrics.purged.map(|id| id.index),
        }
    }

    pub(super) fn staleness(&self) -> Option<Duration> {
        let acked = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.state == ServerState::Leader {
                let alone = metrics.membership_config.membership().voter_ids().count() == 1;
                // A leader that is its own quorum has heard it just now.
                Some(if alone {
                    Some(Duration::ZERO)
                } else {
                    metrics.last_quorum_acked.as_ref().map(|at| at.elapsed())
                })
            } else {
                None
            }
        };
        acked.unwrap_or_else(|| self.leader_heard.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed()))
    }
}
