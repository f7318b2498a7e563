//! What an operator asks of one instance.

use baton_core::state::AdminState;
use baton_core::time::{Millis, WallTime};
use serde::{Deserialize, Serialize};

/// The body of `POST …/instances/{instance}/admin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdminRequest {
    /// What is allowed from now on.
    pub state: AdminState,
    /// Why: told in the event, kept with the instance.
    #[cfg_attr(feature = "openapi", schema(example = "kernel update on db-1"))]
    pub reason: String,
    /// When it ends by itself. Either this or `for`; one of them must be there for `maintenance`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
    /// After how long it ends by itself.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Millis>,
}

/// The body of `POST …/instances/{instance}/reset`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResetRequest {
    /// Why: told in the event.
    #[cfg_attr(feature = "openapi", schema(example = "the switch was repaired"))]
    pub reason: String,
}
