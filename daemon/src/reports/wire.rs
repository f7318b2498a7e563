//! What a node tells the leader beside the log, and what it is answered. Plain data; everything here may be told twice.

use std::collections::BTreeMap;

use baton_client::view::{FailureCounts, HeartbeatAnswer};
use baton_core::calls::{CallCounts, CallSlice};
use baton_core::detector::HeartbeatState;
use baton_core::id::{InstanceId, Revision, ServiceName};
use serde::{Deserialize, Serialize};

/// Sums of reported calls: [`CallsAsk`], answered by [`CallsAnswer`].
pub(crate) const CALLS: &str = "calls";
/// Counts since the instance's epoch began: [`TotalsAsk`], answered by nothing.
pub(crate) const TOTALS: &str = "totals";
/// Heartbeats: [`HeartbeatsAsk`], answered by [`HeartbeatsAnswer`].
pub(crate) const HEARTBEATS: &str = "heartbeats";
/// What is known of a service's instances beside the log: [`CountsAsk`], answered by [`CountsAnswer`].
pub(crate) const COUNTS: &str = "counts";

/// What the leader knows of a service beside the log: [`FactsAsk`], answered by `core::planner::Facts`.
pub(crate) const FACTS: &str = "facts";

/// Calls that clients reported to one node since it last told of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallsAsk {
    /// Which start of the node it is: numbers begin anew with each.
    pub boot: u64,
    /// Which telling it is, from 1. One that is repeated, since its answer was lost, is not counted twice.
    pub number: u64,
    /// The sums, oldest first.
    pub slices: Vec<SliceOf>,
}

/// Calls to one instance.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SliceOf {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The epoch that the node knew; calls of another one are about something else.
    pub epoch: Revision,
    /// The breaker's generation that the callers named, if they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// The calls.
    pub slice: CallSlice,
}

/// What became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallsAnswer {
    /// Calls that were late: of an older epoch or generation, or of an instance that is gone.
    pub late: u64,
}

/// What one node has counted since each instance's epoch began. Levels, not changes: told again they mean the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TotalsAsk {
    /// Which start of the node it is: its counts begin anew with each.
    pub boot: u64,
    /// The counts that changed.
    pub totals: Vec<TotalOf>,
}

/// What one node has counted of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TotalOf {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Since when.
    pub epoch: Revision,
    /// This node's own probes.
    pub probes: CallCounts,
    /// Calls that were reported to this node.
    pub calls: CallCounts,
}

/// Heartbeats that came in at one node within a few milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HeartbeatsAsk {
    /// Which start of the node it is: numbers begin anew with each.
    #[serde(default)]
    pub boot: u64,
    /// In the order in which they came.
    pub beats: Vec<Beat>,
}

/// One heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Beat {
    /// Its number at the node that heard it, from 1. Batches overtake each other, and are repeated: what is no news any more is
    /// only answered. 0 where nobody has numbered it yet.
    #[serde(default)]
    pub number: u64,
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The session that it names.
    pub session: String,
    /// What it says of itself.
    pub state: HeartbeatState,
    /// How far it is behind, in its own unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}

/// One answer a heartbeat, in their order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct HeartbeatsAnswer {
    /// The answers.
    pub answers: Vec<BeatAnswer>,
}

/// What became of a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BeatAnswer {
    /// It counts.
    Taken(HeartbeatAnswer),
    /// There is no such service.
    NoSuchService,
    /// There is no such instance.
    NoSuchInstance,
    /// The instance is probed, and was never asked for heartbeats.
    NotHeartbeat,
    /// The session is not the instance's present one.
    UnknownSession,
}

/// A question for counts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CountsAsk {
    /// The service.
    pub service: ServiceName,
    /// Its instances that are asked about; all of them where this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<Vec<InstanceId>>,
}

/// A question for what the planner knows beside the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct FactsAsk {
    /// The service.
    pub service: ServiceName,
}

/// What the leader knows of an instance beside the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// How its probes and calls went.
    pub counts: FailureCounts,
    /// What its last heartbeat said of its lag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}

/// What is known of a service's instances.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CountsAnswer {
    /// By instance.
    pub instances: BTreeMap<InstanceId, Known>,
}
