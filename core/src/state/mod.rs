//! The replicated state: what every node holds alike. Plain data and questions about it; the only way to change it is
//! `apply`. Its maps are ordered and persistent, so that a copy for readers costs next to nothing.

mod admin;
mod health;
mod instance;
mod rails;
mod rows;
mod service;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub(crate) use rows::hex;

pub use admin::{Admin, AdminState};
pub use health::HealthInputs;
pub use instance::{Instance, VerdictRecord};
pub use rails::{Brake, Latch, MOVES_KEPT, Pause, Rails};
pub use rows::{Change, InvalidRow, Row, RowKind};
pub use service::{Active, Assignment, Debt, Fenced, Holder, Phase, ReleaseHow, Released, Service};

pub use crate::probe::Source;

use crate::assign::observers_of;
use crate::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use crate::time::{ClusterTime, WallTime};
use crate::transition::Transition;

/// The most services one cluster holds; beyond it a registration is refused, not the cluster slowed to death.
pub const SERVICES_MAX: usize = 10_000;
/// The most instances one service holds.
pub const INSTANCES_MAX: usize = 20_000;
/// The most transition records kept; the oldest finished ones go first.
pub const TRANSITIONS_MAX: usize = 10_000;
/// The most steps one transition keeps: its first and its last ones. One in which nobody ever acknowledges goes on for ever.
pub const STEPS_MAX: usize = 200;
/// The most that deleted services may owe; beyond it a deletion that would owe more is refused until some leases have run
/// out, or somebody has said that who served has stopped.
pub const DEBTS_MAX: usize = 10_000;

/// One node of the cluster, as it announced itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// `host:port` of its API listener.
    pub api: String,
    /// `host:port` of its peer listener.
    pub peer: String,
    /// The version of its binary.
    pub version: String,
    /// Whether the leader hears it; a node that is not live observes nothing.
    pub live: bool,
    /// When that was last decided.
    pub since: WallTime,
}

/// The counters and marks of the whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// The cluster's id; empty until the first leader has given it one.
    pub cluster_id: String,
    /// The revision of the last event.
    pub revision: Revision,
    /// The decision clock at the last applied entry.
    pub cluster_time: ClusterTime,
    /// What is added to a log index to make a token; raised by a restore.
    pub token_floor: u64,
    /// The last token minted.
    pub last_token: Token,
    /// Events up to this revision are forgotten.
    pub compacted_through: Revision,
    /// A running SHA-256 over every event, so that equal states mean equal histories.
    pub events_digest: String,
    /// The last event that concerned any service: what a long poll on the list waits for.
    pub services_changed: Revision,
    /// An operator's pause of all that Baton does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
    /// Set when too many services wanted to fail over at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brake: Option<Brake>,
    /// When an operator released the brake last: what was wanted before does not set it again.
    #[serde(default)]
    pub brake_released: ClusterTime,
}

/// Everything that the cluster agrees on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// Counters and marks.
    pub meta: Meta,
    /// Nodes by number.
    pub nodes: OrdMap<NodeId, Node>,
    /// Services by name.
    pub services: OrdMap<ServiceName, Arc<Service>>,
    /// Transition records by id; ids rise with time.
    pub transitions: OrdMap<TransitionId, Arc<Transition>>,
    /// What deleted services still owe, by their names, and what is owed beside the last holder of one that is there: somebody
    /// may act under a lease that has not run out, or without one.
    pub debts: OrdMap<ServiceName, Debt>,
}

impl State {
    /// The service of that name.
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The instance of that id in that service.
    pub fn instance(&self, service: &ServiceName, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.services.get(service)?.instances.get(id)
    }

    /// The open transition of a service.
    pub fn open_transition(&self, service: &Service) -> Option<&Arc<Transition>> {
        self.transitions.get(&service.assignment.transition?)
    }

    /// The live nodes, in order.
    pub fn live_nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.values().filter(|node| node.live).map(|node| node.id)
    }

    /// The nodes that observe an instance, best first; none while it is in maintenance.
    pub fn observers_of(&self, service: &Service, instance: &Instance) -> Vec<NodeId> {
        match instance.admin.state {
            AdminState::Maintenance => Vec::new(),
            AdminState::Enabled | AdminState::Draining | AdminState::Isolated => {
                observers_of(self.live_nodes(), &service.name, &instance.id, service.spec.detection.observers)
            }
        }
    }

    /// How the health of an instance is counted now.
    pub fn count(&self, service: &Service, instance: &Instance) -> HealthInputs {
        instance.count(&self.observers_of(service, instance), service.probes(instance), &service.spec.detection)
    }
}
