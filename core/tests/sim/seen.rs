//! What must happen in some runs: a simulator in which nothing ever happens finds nothing. Counters only.

use std::collections::BTreeMap;

use baton_core::command::{Command, Done};
use baton_core::event::EventKind;
use baton_core::policy::ProofKind;
use baton_core::transition::{TransitionKind, TransitionStatus};

use super::world::World;

/// The sights, each with what is told of it.
macro_rules! sights {
    ($($name:ident = $told:literal,)*) => {
        /// Something worth seeing.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Sight {
            $($name,)*
        }

        impl Sight {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn told(self) -> &'static str {
                match self {
                    $(Self::$name => $told,)*
                }
            }
        }
    };
}

sights! {
    Elections = "a leader was elected",
    DeposedLeaders = "a leader was deposed",
    EntriesOverwritten = "an entry was taken back: it never was committed",
    NodeRestarts = "a node crashed and started again",
    PowerCuts = "all nodes died at once",
    MassFailures = "all actives died at once",
    NodePauses = "a node was stopped and went on",
    DisksStuck = "a leader's disk was stuck",
    ProcessPauses = "a process was stopped and went on",
    ProcessRestarts = "a process died and started again",
    Twins = "a second process registered under a name that runs",
    Partitions = "the network was cut",
    Grants = "a lease was granted or renewed",
    DeposedGrants = "a deposed leader answered a heartbeat from before",
    ReelectedGrants = "a leader that had led before granted again",
    GrantsBehind = "a grant waited for the state to be applied",
    GrantsSealed = "a renewal was refused under a seal",
    SealsRefused = "a seal was refused: the lease may still run",
    AnswersIgnored = "an answer to a heartbeat came too late to grant anything",
    LeasesLapsed = "a holder's lease ran out",
    StepDowns = "a holder was told to step down, and did",
    ReleasesSaid = "a holder released by itself",
    ReleasesSaidAgain = "a release was not heard, and said again",
    PassiveLeft = "an instance that held nothing left",
    Placements = "a placement finished",
    Failovers = "a failover finished",
    Switchovers = "a switchover finished",
    Failbacks = "a failback finished",
    ByLease = "a promotion by lease",
    ByRelease = "a promotion by release",
    ReleaseIsQuicker = "a promotion by release while the lease might still have run",
    ByNoneNeeded = "a promotion that needed no proof",
    Acknowledged = "a promotion was acknowledged",
    ActivationsTimedOut = "an activation timed out, and the next was tried",
    DebtsKept = "a deleted service owed a lease",
    DebtsInherited = "a service was made anew that owed a lease",
    DebtsForgotten = "a debt ran out and was forgotten",
    Latched = "too many moves set the latch of a service",
    Braked = "too many services at once set the brake",
    OperatorMoves = "an operator's move was carried out",
    ProposalsForwarded = "a deposed leader's proposal came to the next one",
    PlansRefused = "a plan came too late and was refused",
    SessionsSuperseded = "a process learned that its session is over",
    OldTokensRefused = "a guard refused an old token",
    ConvergedRuns = "a run came to rest with an active in each service",
}

/// How often each was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen(BTreeMap<Sight, u64>);

impl Seen {
    pub(crate) fn note(&mut self, sight: Sight) {
        *self.0.entry(sight).or_default() += 1;
    }

    pub(crate) fn count(&self, sight: Sight) -> u64 {
        self.0.get(&sight).copied().unwrap_or(0)
    }

    /// What was never seen.
    pub(crate) fn never(&self) -> impl Iterator<Item = Sight> {
        Sight::ALL.iter().copied().filter(|sight| self.count(*sight) == 0)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (sight, count) in &other.0 {
            *self.0.entry(*sight).or_default() += count;
        }
    }
}

impl World {
    /// Notes what an entry has brought.
    pub(crate) fn see_decided(&mut self, index: u64) {
        let mut sights = Vec::new();
        let before = self.history.before(index);
        let Some(past) = self.history.at(index) else { return };
        let (Some(batch), Some(applied)) = (&past.batch, &past.applied) else { return };
        for (command, reply) in batch.commands.iter().zip(&applied.replies) {
            match (command, reply) {
                (Command::InstanceLeft(_), Ok(_)) => sights.push(Sight::PassiveLeft),
                (Command::ActivationExpire(_), Ok(_)) => sights.push(Sight::ActivationsTimedOut),
                (Command::DebtForget { .. }, Ok(_)) => sights.push(Sight::DebtsForgotten),
                (Command::LatchSet { .. }, Ok(_)) => sights.push(Sight::Latched),
                (Command::BrakeSet, Ok(_)) => sights.push(Sight::Braked),
                (Command::ServiceDelete(delete), Ok(_)) if past.after.debts.contains_key(&delete.service) => {
                    sights.push(Sight::DebtsKept);
                }
                (Command::ServicePut(put), Ok(Done::Stored { created: true, .. }))
                    if before.debts.contains_key(&put.service) =>
                {
                    sights.push(Sight::DebtsInherited);
                }
                _ => {}
            }
        }
        for event in applied.events.iter().map(|recorded| &recorded.event) {
            let Some(record) = event.transition.and_then(|id| past.after.transitions.get(&id)) else { continue };
            if event.kind == EventKind::TransitionFinished {
                sights.push(match record.kind {
                    TransitionKind::Placement => Sight::Placements,
                    TransitionKind::Failover => Sight::Failovers,
                    TransitionKind::Switchover => Sight::Switchovers,
                    TransitionKind::Failback => Sight::Failbacks,
                });
                if record.durations.promoted_to_acknowledged_ms.is_some() {
                    sights.push(Sight::Acknowledged);
                }
                debug_assert_eq!(record.status, TransitionStatus::Finished);
            }
            if event.kind == EventKind::ActiveChanged && event.token.is_some() {
                match record.proof.as_ref().map(|proof| proof.proof) {
                    Some(ProofKind::Lease) => sights.push(Sight::ByLease),
                    Some(ProofKind::NoneNeeded) => sights.push(Sight::ByNoneNeeded),
                    Some(ProofKind::Release) => {
                        sights.push(Sight::ByRelease);
                        let holder = event.service.as_ref().and_then(|name| before.service(name));
                        let holder = holder.and_then(|service| service.assignment.last_holder.as_ref());
                        let owed = holder.and_then(|holder| holder.token.zip(holder.lease));
                        let granted = owed.and_then(|(token, terms)| Some((self.last_grant.get(&token.0)?, terms)));
                        if granted.is_some_and(|(at, terms)| u128::from(self.now - at) < terms.wait().as_micros()) {
                            sights.push(Sight::ReleaseIsQuicker);
                        }
                    }
                    Some(ProofKind::Hook | ProofKind::Token | ProofKind::Operator) | None => {}
                }
            }
        }
        for sight in sights {
            self.seen.note(sight);
        }
    }
}
