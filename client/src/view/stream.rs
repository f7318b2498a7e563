//! What `GET /v1/watch` sends beside the cluster's own events: its first words, its bookmarks and its resets.

use baton_core::id::Revision;
use serde::{Deserialize, Serialize};

use super::ServiceSummary;

/// The SSE event type of a [`Snapshot`].
pub const STREAM_SNAPSHOT: &str = "snapshot";
/// The SSE event type of a [`Bookmark`].
pub const STREAM_BOOKMARK: &str = "bookmark";
/// The SSE event type of a [`Reset`].
pub const STREAM_RESET: &str = "reset";

/// Everything as it was at one revision. The events that follow it are exactly those after that revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// The revision.
    pub revision: Revision,
    /// The services, those that the stream's filter lets through.
    pub services: Vec<ServiceSummary>,
}

/// Everything up to this revision has been sent or filtered out: resume from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bookmark {
    /// The revision.
    pub revision: Revision,
}

/// The stream cannot go on from where the client was: forget what was built from it. A snapshot follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reset {
    /// Why, in a sentence.
    pub reason: String,
    /// Where the client wanted to go on from.
    pub requested: Revision,
}
