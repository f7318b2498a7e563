//! What a leader knows beside the log, for one service. A node that does not lead asks the one that does, so that everybody
//! explains alike.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::Command;
use crate::id::{InstanceId, NodeId};
use crate::lease::{LeaseStanding, Leases};
use crate::probe::LocalTime;
use crate::state::{Debt, Service, State};
use crate::time::Millis;

/// The facts of one service at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// The leader that knows them; 0 where nobody could be asked.
    pub node: NodeId,
    /// Its term.
    pub term: u64,
    /// How the lease of the last holder's token stands.
    pub lease: LeaseStanding,
    /// How far each instance is behind by its last heartbeat, in its own unit; those that did not say are absent.
    pub lags: BTreeMap<InstanceId, u64>,
}

impl Facts {
    /// What the leader of `term` knows of a service: of leases by its table, of lags by what heartbeats told it.
    pub fn of(
        service: &Service,
        node: NodeId,
        term: u64,
        leases: &Leases,
        lags: BTreeMap<InstanceId, u64>,
        now: LocalTime,
    ) -> Self {
        let holder = service.assignment.last_holder.as_ref();
        let owed = holder.and_then(|holder| holder.token.zip(holder.lease));
        let lease = owed.map_or(LeaseStanding::Unknown, |(token, terms)| leases.standing(term, token, &terms, now));
        Self { node, term, lease, lags }
    }

    /// For how long the holder may still act without asking again, as far as its leader knows.
    pub fn lease_expires_in(&self, service: &Service) -> Option<Millis> {
        let terms = service.assignment.last_holder.as_ref()?.lease?;
        let ago = match &self.lease {
            LeaseStanding::Runs { renewed_ago, .. } => (*renewed_ago)?,
            LeaseStanding::RanOut { claim } => claim.renewed_ago?,
            LeaseStanding::Unknown => return None,
        };
        Some(Millis(terms.ttl.0.saturating_sub(ago.0)))
    }

    /// How far an instance is behind.
    pub fn lag_of(&self, instance: &InstanceId) -> Option<u64> {
        self.lags.get(instance).copied()
    }
}

/// The debts of deleted services whose leases have run out, by the table of the leader of `term`: each is to be sealed, and
/// then forgotten. At most `max`.
pub fn debts_due(state: &State, leases: &Leases, term: u64, now: LocalTime, max: usize) -> Vec<Command> {
    let ran_out = |debt: &Debt| {
        let (token, terms) = debt.holder.token.zip(debt.holder.lease)?;
        match leases.standing(term, token, &terms, now) {
            LeaseStanding::RanOut { claim } => Some(Command::DebtForget { service: debt.service.clone(), claim }),
            LeaseStanding::Runs { .. } | LeaseStanding::Unknown => None,
        }
    };
    state.debts.values().filter_map(ran_out).take(max).collect()
}
