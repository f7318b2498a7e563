//! What must happen in some runs: a simulator in which nothing ever happens finds nothing. Counters only.

use std::collections::BTreeMap;

/// Something worth seeing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sight {
    Elections,
    DeposedLeaders,
    EntriesOverwritten,
    NodeRestarts,
    NodePauses,
    ProcessPauses,
    ProcessRestarts,
    Twins,
    Partitions,
    Placements,
    Failovers,
    Switchovers,
    OperatorMoves,
    PlansRefused,
    ServicesRecreated,
    SessionsSuperseded,
    OldTokensRefused,
    ConvergedRuns,
}

impl Sight {
    pub(crate) const ALL: [Self; 18] = [
        Self::Elections,
        Self::DeposedLeaders,
        Self::EntriesOverwritten,
        Self::NodeRestarts,
        Self::NodePauses,
        Self::ProcessPauses,
        Self::ProcessRestarts,
        Self::Twins,
        Self::Partitions,
        Self::Placements,
        Self::Failovers,
        Self::Switchovers,
        Self::OperatorMoves,
        Self::PlansRefused,
        Self::ServicesRecreated,
        Self::SessionsSuperseded,
        Self::OldTokensRefused,
        Self::ConvergedRuns,
    ];

    pub(crate) const fn told(self) -> &'static str {
        match self {
            Self::Elections => "a leader was elected",
            Self::DeposedLeaders => "a leader was deposed",
            Self::EntriesOverwritten => "an entry never entered the log",
            Self::NodeRestarts => "a node crashed and started again",
            Self::NodePauses => "a node was stopped and went on",
            Self::ProcessPauses => "a process was stopped and went on",
            Self::ProcessRestarts => "a process died and started again",
            Self::Twins => "a second process registered under a name that runs",
            Self::Partitions => "the network was cut",
            Self::Placements => "a placement finished",
            Self::Failovers => "a failover finished",
            Self::Switchovers => "a switchover finished",
            Self::OperatorMoves => "an operator's move was carried out",
            Self::PlansRefused => "a plan came too late and was refused",
            Self::ServicesRecreated => "a service was deleted and made anew",
            Self::SessionsSuperseded => "a process learned that its session is over",
            Self::OldTokensRefused => "a guard refused an old token",
            Self::ConvergedRuns => "a run came to rest with an active in each service",
        }
    }
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

    pub(crate) fn add(&mut self, other: &Self) {
        for (sight, count) in &other.0 {
            *self.0.entry(*sight).or_default() += count;
        }
    }
}
