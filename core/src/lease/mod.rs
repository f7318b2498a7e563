//! The leader's side of leases: what it remembers of acknowledged renewals, when it may grant one, and when it may say that
//! a lease has run out. Nothing here reads a clock, waits or sends; nothing here survives a term.
//!
//! Two holders never overlap while every clock is within 1 % of true time, sleep included (Gray and Cheriton, "Leases",
//! 1989; the clauses are explored one by one in `core/tests/lease_model`). In this room:
//!
//! - A renewal is granted only after a read-index round of the leader's own term that began after it was received
//!   ([`Rounds`]), from a state applied up to that index. Check and record are one step ([`Leases::grant`]); the answer
//!   goes out after it.
//! - Before a promotion by `lease` is proposed, the token is sealed ([`Leases::seal`]): in one step it is checked that W has
//!   passed both since the last recorded renewal and since this leader's election, and from there on nothing is granted.
//!   A seal ends when the proposal was refused or surely never entered the log ([`Leases::unseal`]), or with the term.
//! - The table belongs to one term, and is empty at every election.
//!
//! Whoever holds this must guard it by a lock that is never held while anything is waited for.

mod rounds;
mod table;
#[cfg(test)]
mod tests;

pub use rounds::{ReadPoint, Rounds};
pub use table::{Granted, LeaseClaim, LeaseStanding, Leases, Renewal, Seal, Unsealable, Withheld};

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mutant::{Mutant, planted};
use crate::policy::{OnQuorumLoss, Spec};
use crate::time::Millis;

/// What a tenure's lease is, fixed when its token is minted: a changed spec counts from the next promotion on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseTerms {
    /// For how long the holder may act without asking again.
    pub ttl: Millis,
    /// What is waited beyond that (Consul's lock-delay).
    pub delay: Millis,
    /// What the holder does when it hears no quorum. With `freeze` the end of the lease is no proof that it stopped.
    pub on_quorum_loss: OnQuorumLoss,
    /// Whether the end of its role stream counts as a release.
    pub release_on_disconnect: bool,
}

impl LeaseTerms {
    /// The terms of a tenure that begins under this spec.
    pub const fn of(spec: &Spec) -> Self {
        Self {
            ttl: spec.lease.ttl,
            delay: spec.lease.delay,
            on_quorum_loss: spec.on_quorum_loss,
            release_on_disconnect: spec.lease.release_on_disconnect,
        }
    }

    /// W: how long after a renewal was recorded the lease has surely run out, by the leader's clock:
    /// ⌈`ttl` × 1.03⌉ + `delay`. Both clocks may err by 1 %, so 1.02 is too little (1.01 / 0.99 > 1.02).
    pub fn wait(&self) -> Duration {
        let hundredths = if planted(Mutant::MarginOfOneClock) { 101 } else { 103 };
        let margin = Duration::from_millis((self.ttl.0.saturating_mul(hundredths)).div_ceil(100));
        margin.saturating_add(self.delay.as_duration())
    }
}
