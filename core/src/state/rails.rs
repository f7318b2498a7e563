//! What keeps Baton from moving services by itself too often, or at all: pauses, the count of its moves, the latch, the
//! brake. Plain data and questions about it; who may pass is decided in `rules`.

use serde::{Deserialize, Serialize};

use crate::time::{ClusterTime, Millis, WallTime};

/// The most automatic moves of a service that are remembered: more than any `max_in_window` that makes sense.
pub const MOVES_KEPT: usize = 1_000;

/// An operator's word that Baton is to leave something alone, until a given end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pause {
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// Who asked for it.
    pub actor: String,
    /// Since when, for people.
    pub since: WallTime,
    /// When it ends, for people.
    pub until: WallTime,
    /// When it ends, by the decision clock.
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub ends: ClusterTime,
}

/// Too many automatic moves in too short a time: an operator must look before there is another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Latch {
    /// Since when, for people.
    pub since: WallTime,
    /// How many moves there were.
    pub moves: u32,
    /// In which time.
    pub window: Millis,
}

/// Too many services wanted to move at once: what they have in common is likelier ill than all of their actives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Brake {
    /// Since when, for people.
    pub since: WallTime,
    /// How many services wanted to fail over.
    pub wanting: u32,
    /// Of how many that have a holder.
    pub of: u32,
}

/// The rails of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rails {
    /// When Baton moved it by itself, oldest first, on the decision clock. Placements do not count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<ClusterTime>,
    /// Set when there were too many of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latch: Option<Latch>,
    /// An operator's pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause: Option<Pause>,
}

impl Rails {
    /// How many of its moves were made within `window` before `now`.
    pub fn moves_within(&self, window: Millis, now: ClusterTime) -> usize {
        self.moves.iter().filter(|at| now.since(**at) < window).count()
    }

    /// Notes a move.
    pub(crate) fn moved(&mut self, now: ClusterTime) {
        self.moves.push(now);
        let surplus = self.moves.len().saturating_sub(MOVES_KEPT);
        self.moves.drain(..surplus);
    }
}

impl Pause {
    /// Whether it is in force at `now`.
    pub fn holds(&self, now: ClusterTime) -> bool {
        now < self.ends
    }
}
