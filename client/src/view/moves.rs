//! What an operator asks for when the active is to be another instance.

use baton_core::id::InstanceId;
use baton_core::policy::ProofKind;
use serde::{Deserialize, Serialize};

/// The body of `POST …/failover` and `POST …/switchover`.
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
}
