//! What keeps Baton from moving services by itself, and how an operator asks for it.

use baton_core::state::{Brake, Latch};
use baton_core::time::{Millis, WallTime};
use serde::{Deserialize, Serialize};

/// The body of `POST …/pause` and `POST /v1/automation/pause`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PauseRequest {
    /// Why: told in the event, and to whoever asks why nothing moves.
    #[cfg_attr(feature = "openapi", schema(example = "the switches are being replaced"))]
    pub reason: String,
    /// When it ends. Either this or `for` must be there; at most 30 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
    /// After how long it ends.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Millis>,
    /// Who answers for it; whoever asks, where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
}

/// The body of `POST …/resume` and `POST /v1/automation/resume`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResumeRequest {
    /// Why: told in the event.
    #[cfg_attr(feature = "openapi", schema(example = "the new switches are in"))]
    pub reason: String,
}

/// An operator's word that Baton is to leave something alone, until a given end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PauseView {
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// Who asked for it.
    pub actor: String,
    /// Since when.
    pub since: WallTime,
    /// When it ends: a label. What decides is `ends_in_ms`, by the cluster's own clock.
    pub until: WallTime,
    /// In how long it ends, in milliseconds.
    pub ends_in_ms: u64,
}

/// What keeps Baton from moving one service by itself; that of the whole cluster is in `GET /v1/cluster`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceAutomation {
    /// An operator's pause of this service; null where there is none.
    pub paused: Option<PauseView>,
    /// Set when it was moved too often; null where it was not. An operator ends it by `POST …/resume`.
    pub latched: Option<Latch>,
}

/// What keeps Baton from moving any service by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClusterAutomation {
    /// An operator's pause of all services; null where there is none.
    pub paused: Option<PauseView>,
    /// Set when too many services wanted to fail over at once; null where they did not. An operator ends it by
    /// `POST /v1/automation/resume`.
    pub braked: Option<Brake>,
}
