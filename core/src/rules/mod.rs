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
pub use hook::{is_against, runs_against, under_way_until};
pub use open::{SAID_TO_HAVE_STOPPED, open_told, word_is_about};
pub use proof::{Grounds, NoProof, proof_that_holds};
pub use rails::{
    BRAKE_AT_LEAST, BRAKE_WITHIN, PauseScope, Rail, RailKind, Sets, Wave, preferred_over, rails_of, times, wave,
};
