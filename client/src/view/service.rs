//! Services, instances and the active, as the API tells of them.

use std::collections::BTreeMap;

use baton_core::breaker::BreakerState;
use baton_core::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use baton_core::pick::may_be_called;
use baton_core::policy::{Address, Liveness, Mode, Overrides, Spec};
use baton_core::probe::{Evidence, Health, Verdict};
use baton_core::state::{AdminState, HealthInputs, Instance, Phase, Service};
use baton_core::time::{ClusterTime, Millis, WallTime};
use baton_core::transition::Fencing;
use serde::{Deserialize, Serialize};

use super::{AdminView, BreakerView, FailureCounts, JudgedView, RecoveryView, ServiceAutomation};

/// What an instance is to its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// It may be used: the one active, or an instance of an active_active service that calls may go to.
    Active,
    /// It waits.
    Passive,
}

impl Role {
    /// What an instance is to its service at `now`, by the rules of `pick`.
    pub fn of(service: &Service, instance: &Instance, now: ClusterTime) -> Self {
        let active = match service.spec.mode {
            Mode::ActivePassive => service.is_active(&instance.id),
            Mode::ActiveActive => may_be_called(service, instance, now),
        };
        if active { Self::Active } else { Self::Passive }
    }

    /// The word as it is spelt on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// Who is active, by which token, and what that is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActiveView {
    /// The service.
    pub service: ServiceName,
    /// The active instance.
    pub instance: InstanceId,
    /// Where it listens; null where its registration names no address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7:5432"))]
    pub address: Option<Address>,
    /// The fencing token of its promotion. Hand it to the resource: whoever remembers the highest one refuses the rest.
    pub token: Token,
    /// Since when it is active.
    pub since: WallTime,
    /// Whether anything but luck keeps the one before it from working on.
    pub fencing: Fencing,
    /// Where the service stands.
    pub phase: Phase,
    /// What the cluster agrees on about it.
    pub health: Health,
    /// The transition that promoted it.
    pub transition: TransitionId,
    /// In how long its lease runs out unless it is renewed, as the leader counts, in milliseconds. Absent where it has none,
    /// and where the leader could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_expires_in_ms: Option<u64>,
    /// The last event that concerned the service. Of two answers, the one with the higher revision is the newer.
    pub revision: Revision,
}

/// What one observer holds of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerdictView {
    /// The node that observes.
    pub observer: NodeId,
    /// What it holds.
    pub verdict: Verdict,
    /// Since when.
    pub since: WallTime,
    /// Why.
    pub evidence: Evidence,
}

/// One running copy of a service, as it is told by itself and in its service's status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// Its service.
    pub service: ServiceName,
    /// Where it listens.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7:5432"))]
    pub address: Option<Address>,
    /// What it is to its service.
    pub role: Role,
    /// What the cluster agrees on about it.
    pub health: Health,
    /// The verdicts that its health was counted from.
    pub counts: HealthInputs,
    /// What each observer holds of it. One that has not looked, or is lost, is absent.
    pub verdicts: Vec<VerdictView>,
    /// What the leader judges beside them. A source that has nothing to say is absent.
    pub judged: Vec<JudgedView>,
    /// Whether calls may go there.
    pub breaker: BreakerView,
    /// What an operator has said of it.
    pub admin: AdminView,
    /// What is remembered since it was unhealthy; null where it never was, or an operator reset it.
    pub recovery: Option<RecoveryView>,
    /// The site or failure domain it is in.
    pub zone: Option<String>,
    /// Lower wins first.
    pub tier: u32,
    /// Within a tier, higher wins.
    pub priority: u32,
    /// Its share of calls, as registered.
    pub weight: u32,
    /// Its share of calls now: its weight times the share of its ramp; 0 while it is unhealthy or held back after that.
    /// (Where `fail_open` offers the sick, `endpoints` tells by which weight.)
    pub effective_weight: f64,
    /// How its probes and calls went, by class. Null in stale answers, in lists of services, and where the leader, who
    /// knows, could not be asked.
    pub failure_counts: Option<FailureCounts>,
    /// Where the signs of its life come from.
    pub liveness: Liveness,
    /// How long it may be missing before it is removed; null for never.
    pub deregister_after: Option<Millis>,
    /// The operator's own labels.
    pub metadata: BTreeMap<String, String>,
    /// What it does differently from its service.
    pub overrides: Overrides,
    /// The session of a `heartbeat` instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// How far it is behind by its last heartbeat, in its own unit. Told where `failure_counts` is, if it said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
    /// Whether it released its service and left: no candidate until it heartbeats again.
    #[serde(default)]
    pub left: bool,
    /// The version of its registration, for `If-Match`.
    pub generation: u64,
    /// When it was registered.
    pub registered_at: WallTime,
}

/// A service with all that is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceView {
    /// Its name.
    pub name: ServiceName,
    /// One active, or all.
    pub mode: Mode,
    /// What is wanted of it, with every default written out.
    pub spec: Spec,
    /// The version of its spec, for `If-Match`.
    pub generation: u64,
    /// When it was made.
    pub created_at: WallTime,
    /// When its spec changed last.
    pub updated_at: WallTime,
    /// The last event that concerned it. A long poll with `after` set to it waits for the next.
    pub revision: Revision,
    /// Where it stands.
    pub phase: Phase,
    /// The active, if there is one.
    pub active: Option<ActiveView>,
    /// The open transition, if there is one.
    pub transition: Option<TransitionId>,
    /// What keeps Baton from moving it by itself.
    #[serde(default)]
    pub automation: ServiceAutomation,
    /// Its instances, by id.
    pub instances: Vec<InstanceView>,
}

/// An instance in a snapshot: enough to choose by, without the evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceSummary {
    /// Its id.
    pub id: InstanceId,
    /// Where it listens.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7:5432"))]
    pub address: Option<Address>,
    /// What it is to its service.
    pub role: Role,
    /// What the cluster agrees on about it.
    pub health: Health,
    /// Lower wins first.
    pub tier: u32,
    /// Within a tier, higher wins.
    pub priority: u32,
    /// Its share of calls now: its weight times the share of its ramp; 0 while it is unhealthy or held back after that.
    /// (Where `fail_open` offers the sick, `endpoints` tells by which weight.)
    pub effective_weight: f64,
    /// Whether calls may go there.
    pub breaker: BreakerState,
    /// What an operator allows it.
    pub admin: AdminState,
    /// The version of its registration.
    pub generation: u64,
}

/// A service in a snapshot: all that events change, without the spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceSummary {
    /// Its name.
    pub name: ServiceName,
    /// One active, or all.
    pub mode: Mode,
    /// The version of its spec.
    pub generation: u64,
    /// The last event that concerned it.
    pub revision: Revision,
    /// Where it stands.
    pub phase: Phase,
    /// The active, if there is one.
    pub active: Option<ActiveView>,
    /// The open transition, if there is one.
    pub transition: Option<TransitionId>,
    /// Its instances, by id.
    pub instances: Vec<InstanceSummary>,
}

/// The answer to a PUT: what the object is now. Small, so that many may be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stored {
    /// The service.
    pub service: ServiceName,
    /// The instance, where it was one that was put.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// The version of the object now, for `If-Match`.
    pub generation: u64,
    /// Whether it is new.
    pub created: bool,
    /// The session of a `heartbeat` instance: to be named in every heartbeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// A revision that has the change in it. Absent where the node that answered has not applied it yet itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// The answer to a DELETE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Removed {
    /// The service.
    pub service: ServiceName,
    /// The instance, where it was one that was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// Always true: what was not there is answered with 404.
    pub removed: bool,
    /// A revision that has the change in it. Absent where the node that answered has not applied it yet itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
}

/// What `is-active`, `is-passive` and `is-healthy` say beside their status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceState {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// What it is to its service.
    pub role: Role,
    /// What the cluster agrees on about it.
    pub health: Health,
    /// Where the service stands.
    pub phase: Phase,
    /// The token, where it is the active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
}
