//! The nodes, as one of them sees them.

use baton_core::id::{NodeId, Revision};
use serde::{Deserialize, Serialize};

use super::ClusterAutomation;

/// What a node is to the Raft group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NodeRole {
    /// It decides the order of commands.
    Leader,
    /// It votes and follows.
    Follower,
    /// It follows without a vote.
    Learner,
}

impl NodeRole {
    /// The word as it is spelt on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        }
    }
}

/// One node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NodeView {
    /// Its number.
    pub id: NodeId,
    /// What it is to the Raft group, as far as the node that answers knows.
    pub role: NodeRole,
    /// `host:port` of its API; null until it has announced itself.
    pub api: Option<String>,
    /// `host:port` that its peers reach it by.
    pub peer: Option<String>,
    /// Whether it counts as an observer: the leader hears it. Agreed by the cluster, so it stands still without a
    /// quorum.
    pub live: bool,
    /// How long ago the leader heard it last. Only the leader knows; null elsewhere.
    pub last_contact_ms: Option<u64>,
    /// The version of its binary; null until it has announced itself.
    pub version: Option<String>,
}

/// What the node that answers holds itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LocalView {
    /// Its number.
    pub id: NodeId,
    /// The last log entry it has applied.
    pub applied_index: u64,
    /// The last event it has applied.
    pub revision: Revision,
    /// SHA-256 over its state. Equal `applied_index`, equal hash, on every node.
    pub state_hash: String,
}

/// The cluster, as the node that answers sees it. Always local, so that it can be had when there is no quorum.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterView {
    /// The cluster's id; empty until the first leader has given it one.
    pub cluster_id: String,
    /// The leader that this node follows; null where it knows none.
    pub leader: Option<NodeId>,
    /// The Raft term.
    pub term: u64,
    /// Every node, by number.
    pub nodes: Vec<NodeView>,
    /// What keeps Baton from moving any service by itself.
    #[serde(default)]
    pub automation: ClusterAutomation,
    /// What this node holds itself.
    pub local: LocalView,
}

/// The answer of `/livez`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProcessLiveness {
    /// `"alive"`.
    pub status: String,
    /// The node's number.
    pub node: NodeId,
    /// The version of its binary.
    pub version: String,
}

/// The answer of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// `"ready"`.
    pub status: String,
    /// The leader that this node follows.
    pub leader: NodeId,
    /// The last log entry it has applied.
    pub applied_index: u64,
}
