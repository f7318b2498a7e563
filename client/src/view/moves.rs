//! What an operator asks for when the active is to be another instance.

use baton_core::id::InstanceId;
use baton_core::planner::ManualPlan;
use baton_core::policy::ProofKind;
use baton_core::time::Millis;
use baton_core::transition::Transition;
use serde::{Deserialize, Serialize};

/// The body of `POST …/failover`, `POST …/switchover` and `POST …/failback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveRequest {
    /// The instance to promote; left out, the service's strategy chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<InstanceId>,
    /// Why: kept in the transition's record.
    #[cfg_attr(feature = "openapi", schema(example = "kernel update on db-1"))]
    pub reason: String,
    /// Only tell what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// `operator`: you assert that the old active has stopped. Kept in the transition's record with your reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofKind>,
    /// How long the answer may wait for the move's end, at most and by default `10s`. With `0s` it comes as soon as the move
    /// is taken. A move that is still open then is answered with 202 and its record so far, and goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "0s"))]
    pub wait: Option<Millis>,
}

/// What a move is answered with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MoveAnswer {
    /// The record of the move: at its end, or so far where the status is 202.
    Made(Box<Transition>),
    /// With `dry_run`: what would be done. Nothing was changed.
    Planned(Box<ManualPlan>),
}
