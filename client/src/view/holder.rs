//! What a holder says of its tenure, what its role stream tells it, and what the resource asks about tokens.

use baton_core::id::{InstanceId, Revision, ServiceName, Token};
use baton_core::state::Phase;
use serde::{Deserialize, Serialize};

use super::Role;

/// The body of `POST …/instances/{instance}/ack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AckRequest {
    /// The token under which it serves.
    pub token: Token,
    /// The session that its registration returned; none for an instance that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
}

/// The body of `POST …/instances/{instance}/release`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseRequest {
    /// The token that is given back; none for an instance that holds none and only goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The session that held it, or that ends; none for an instance that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// `true`: it goes away, and is no candidate until it heartbeats again. `false`: it only steps down.
    #[serde(default)]
    pub leaving: bool,
    /// Why: kept in the transition's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "shutting down"))]
    pub reason: Option<String>,
}

/// What a release is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Released {
    /// Always true: what does not count is answered with 409.
    pub released: bool,
}

/// The SSE event type of a [`RoleView`].
pub const STREAM_ROLE: &str = "role";
/// The SSE event type of a [`RoleOver`].
pub const STREAM_OVER: &str = "over";

/// What an instance is to its service, as its role stream tells it. A hint and no more: whoever acts acts on the answer to a
/// heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleView {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// What it is to its service.
    pub role: Role,
    /// The token, where it is the active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// Where the service stands.
    pub phase: Phase,
    /// The last event that concerned the service. Of two, the one with the higher revision is the newer.
    pub revision: Revision,
}

/// The last event of a role stream: there is nothing more to be said to this session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RoleOver {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Why, in a sentence.
    pub reason: String,
    /// The revision at which it was seen.
    pub revision: Revision,
}

/// The body of `POST …/tokens/verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyRequest {
    /// The token that somebody presented.
    pub token: Token,
}

/// Whether a token is the active's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VerifyAnswer {
    /// It was the active's at some moment between the question and the answer. By now it may be no more: a resource that
    /// remembers the highest token it saw is safe, one that only asks is not.
    pub valid: bool,
    /// The active's token; null where there is no active.
    pub current: Option<Token>,
}
