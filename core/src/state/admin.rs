//! What an operator has said of an instance, beside what is seen of it.

use serde::{Deserialize, Serialize};

use crate::policy::words;
use crate::time::{ClusterTime, WallTime};

words! {
    /// What an operator allows an instance.
    AdminState {
        /// Everything.
        Enabled = "enabled",
        /// Not chosen any more, and not cut off: it finishes what it has, and stays active if it is.
        Draining = "draining",
        /// Not probed and not chosen, until a given end.
        Maintenance = "maintenance",
        /// Out, until an operator says otherwise.
        Isolated = "isolated",
    }
}

/// An operator's word about an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Admin {
    /// What is allowed.
    pub state: AdminState,
    /// Why.
    pub reason: String,
    /// Who said so; null where nobody has said anything yet, or the time given ran out.
    pub actor: Option<String>,
    /// Since when, for people.
    pub since: WallTime,
    /// The same on the decision clock; zero where nobody has said anything.
    #[serde(default)]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub at: ClusterTime,
    /// When it ends by itself, by the decision clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub ends: Option<ClusterTime>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
}

impl Admin {
    /// Nobody has said anything.
    pub const fn enabled(since: WallTime) -> Self {
        Self {
            state: AdminState::Enabled,
            reason: String::new(),
            actor: None,
            since,
            at: ClusterTime(0),
            ends: None,
            until: None,
        }
    }

    /// What was said of an instance that was stored before anybody could say anything.
    pub(crate) const fn unsaid() -> Self {
        Self::enabled(WallTime(0))
    }

    /// Whether the instance may be chosen: for calls, and as a candidate.
    pub const fn may_be_chosen(&self) -> bool {
        match self.state {
            AdminState::Enabled => true,
            AdminState::Draining | AdminState::Maintenance | AdminState::Isolated => false,
        }
    }
}
