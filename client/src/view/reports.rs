//! What clients and instances say themselves: how calls went, and signs of life.

use baton_core::calls::{CallCounts, CallOutcome};
use baton_core::detector::HeartbeatState;
use baton_core::id::{InstanceId, Token};
use baton_core::policy::OnQuorumLoss;
use baton_core::state::Phase;
use serde::{Deserialize, Serialize};

use super::Role;

/// The body of `POST …/reports`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportsRequest {
    /// How calls went, in the order in which they ended; at most 10,000.
    pub reports: Vec<CallReport>,
}

/// How one call went, or several that went alike. At least one of `outcome` and `status` must be there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallReport {
    /// Who was called.
    pub instance: InstanceId,
    /// How it went. Left out, the `status` says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<CallOutcome>,
    /// The HTTP status of the answer. Where `outcome` is given too, that counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(maximum = 999, example = 503))]
    pub status: Option<u16>,
    /// How long it took, in milliseconds. A call that took longer than the service's `detection.timeout` counts as a
    /// time-out, however it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 0.0, example = 12.5))]
    pub latency_ms: Option<f64>,
    /// How many calls went like this, one after the other; 1 where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1_000_000))]
    pub count: Option<u32>,
    /// The `generation` that `pick` gave with the instance. A report of an older one than the breaker's present is late and
    /// dropped; without one it counts as of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// What became of reports. They are counted soon, not yet: within some 100 ms the leader has heard of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReportsAnswer {
    /// Items of the list that were taken.
    pub accepted: u64,
    /// The first 100 that were not, and why.
    pub dropped: Vec<DroppedReport>,
    /// How many were not taken in all.
    pub dropped_total: u64,
}

/// A report that is not counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DroppedReport {
    /// Its place in the list, from 0.
    pub index: u64,
    /// The instance that it names.
    pub instance: InstanceId,
    /// Why it is not counted.
    pub reason: String,
}

/// The body of `POST …/heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatRequest {
    /// The session that the registration returned.
    pub session: String,
    /// How the instance is; `ok` where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<HeartbeatState>,
    /// How far it is behind in its replication, in its own unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}

/// What a heartbeat is answered with: what the instance is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatAnswer {
    /// What it is to its service.
    pub role: Role,
    /// The token of its promotion, where it is the active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The lease: for so many milliseconds *from just before this very request was sent* it may act under that token, and
    /// no longer unless a later heartbeat is answered so too. Count with a clock that goes on while the machine sleeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// `freeze`: it may go on beyond the lease until a heartbeat is answered otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_quorum_loss: Option<OnQuorumLoss>,
    /// Where the service stands.
    pub phase: Phase,
    /// How often the cluster wants to hear, in milliseconds: a holder several times within its lease.
    #[serde(default = "one_second")]
    pub interval_ms: u64,
}

/// What a node of an earlier version leaves out.
fn one_second() -> u64 {
    1_000
}

/// How probes and calls of an instance went since it was last registered anew or reset, by class: `timeout`,
/// `connection`, `server_error`, `rate_limit`, `malformed`, `slow` and, not a failure of a call, `client_error`; beside
/// them the successes. Probes are those of all observers together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureCounts {
    /// Probes, as their observers believed them.
    pub probes: CallCounts,
    /// Calls, as clients reported them.
    pub calls: CallCounts,
}
