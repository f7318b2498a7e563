//! The rules that both the planner and `apply` ask: who may be promoted, which proof holds, what the rails allow. One place,
//! so that a proposal and its check can never disagree. They read the state and change nothing.

mod candidate;
mod hook;
mod open;
mod proof;
mod rails;

pub use candidate::{
    Asker, Rule, Seek, candidate_rules, may_be_promoted, not_eligible, only_lag_is_missing, remedy, why_not,
};
pub use hook::{failed_against, hook_over, is_against, runs_against, under_way_until};
pub use open::{SAID_TO_HAVE_STOPPED, held_last, open_told, word_is_about};
pub use proof::{Grounds, NoProof, proof_that_holds};
pub(crate) use proof::{OPERATOR_MAY_SAY, needs_proof};
pub use rails::{
    BRAKE_AT_LEAST, BRAKE_WITHIN, PauseScope, Rail, RailKind, Sets, Wave, preferred_over, rails_of, times, wave,
};
