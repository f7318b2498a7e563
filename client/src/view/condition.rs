//! What speaks for or against an instance beside its observers' verdicts: judgements of the leader, its breaker, its
//! recovery, an operator's word. Lengths are counted from the answer, for the decision clock means nothing outside.

use baton_core::breaker::BreakerState;
use baton_core::calls::BreakerNumbers;
use baton_core::probe::{Evidence, Verdict};
use baton_core::state::{AdminState, Source};
use baton_core::time::WallTime;
use serde::{Deserialize, Serialize};

/// What the leader judges an instance by, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JudgedView {
    /// Judged by what.
    pub source: Source,
    /// The judgement.
    pub verdict: Verdict,
    /// Since when.
    pub since: WallTime,
    /// Why.
    pub evidence: Evidence,
}

/// Whether calls may go to an instance, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerView {
    /// Whether calls may go there.
    pub state: BreakerState,
    /// Counts the changes of state, from 1. Reports that name an older one are late and dropped.
    pub generation: u64,
    /// How long it has been in this state, in milliseconds.
    pub since_ms: u64,
    /// How often it opened in a row; each time it stays open longer.
    pub trips: u32,
    /// Open: how long it stays so altogether, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_for_ms: Option<u64>,
    /// Open: how long until trial calls are let through, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_open_in_ms: Option<u64>,
    /// Half open: trial calls that are out.
    pub trials_out: u32,
    /// Half open: trial calls that went well so far.
    pub successes: u32,
    /// The numbers behind the last change of state, where calls led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<BreakerNumbers>,
}

/// What an operator has said of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdminView {
    /// What is allowed.
    pub state: AdminState,
    /// Why; empty where nobody has said anything.
    pub reason: String,
    /// Who said so; null where nobody has said anything yet, or the time given ran out.
    pub actor: Option<String>,
    /// Since when.
    pub since: WallTime,
    /// When it ends by itself, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
    /// How long until then, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_in_ms: Option<u64>,
}

/// What is remembered of an instance that was unhealthy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoveryView {
    /// How often it became unhealthy in a row, that is without having been well for `recovery.cooldown` between.
    pub failures: u32,
    /// Whether it is not taken back yet.
    pub held_back: bool,
    /// Held back, and well again: how long until it is taken back if it stays so, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_in_ms: Option<u64>,
    /// How long it is no candidate for an automatic move, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_ms: Option<u64>,
    /// The share of its weight that it gets now, 0 to 1: none while it is unhealthy or held back, less than 1 while it
    /// ramps up.
    pub share: f64,
}
