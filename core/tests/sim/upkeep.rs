//! What a leader does for the cluster itself: debts whose leases have run out are forgotten, pauses that are over end,
//! the table forgets what nobody owes.

use baton_core::command::Command;
use baton_core::planner::{debts_due, pauses_due};

use super::message::Waiter;
use super::world::World;

/// Debts that are looked at in one go.
const DEBTS_AT_ONCE: usize = 10;

impl World {
    pub(crate) fn upkeep(&mut self, at: usize, term: u64) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        node.leases.retain(&node.state);
        let due = debts_due(&node.state, &node.leases, term, now, DEBTS_AT_ONCE);
        let pauses = pauses_due(&node.state, node.cluster_time(now));
        for command in due {
            let Command::DebtForget { service, .. } = &command else { continue };
            let service = service.clone();
            if self.lead(at, term).is_some_and(|lead| lead.debts_busy.insert(service.clone())) {
                self.propose_soon(at, term, command, Waiter::Debt { service, seal: None });
            }
        }
        let Some(lead) = self.lead(at, term) else { return };
        if lead.upkeep_busy == 0 {
            lead.upkeep_busy = pauses.len();
            for command in pauses {
                self.propose_soon(at, term, command, Waiter::Upkeep);
            }
        }
    }
}
