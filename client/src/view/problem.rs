//! What an error looks like: RFC 9457 problem details.

use baton_core::id::Revision;
use baton_core::json::FieldError;
use baton_core::state::Phase;
use serde::{Deserialize, Serialize};

/// An error, as `application/problem+json` (RFC 9457). Programs go by `code`, which never changes its meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `urn:baton:problem:` and the code.
    #[serde(rename = "type")]
    #[cfg_attr(feature = "openapi", schema(example = "urn:baton:problem:no_such_service"))]
    pub kind: String,
    /// The kind of error in a few words, the same for each one of its code.
    #[cfg_attr(feature = "openapi", schema(example = "No such service"))]
    pub title: String,
    /// The HTTP status.
    #[cfg_attr(feature = "openapi", schema(example = 404))]
    pub status: u16,
    /// What happened this time, and what can be done.
    #[cfg_attr(feature = "openapi", schema(example = "there is no service \"orders\""))]
    pub detail: String,
    /// The stable word for it.
    #[cfg_attr(feature = "openapi", schema(example = "no_such_service"))]
    pub code: String,
    /// What is wrong with the input, field by field.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// `no_active`: where the service stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// `compacted`: the last revision that is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compacted_through: Option<Revision>,
}

/// The media type of a [`Problem`].
pub const PROBLEM_JSON: &str = "application/problem+json";
