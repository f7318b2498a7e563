//! What must hold in every state, and what must happen in some. Only questions about one state may enter.

use stateright::Property;

use super::clock::Ticks;
use super::model::LeaseModel;
use super::state::{PROCESSES, Process, Proof, Role, Term, Token, What, World};

/// A property.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// I1.
    TokensRise,
    /// I2.
    OneActive,
    /// I15.
    OneHolder,
    /// A deposed leader extends no lease.
    DeposedExtendsNone,
    /// Raft's own: no two nodes apply different entries. If this failed, the abstraction of Raft would be wrong.
    LogsAgree,
    /// A failover completes by lease.
    ByLease,
    /// A promotion after a release completes before W could have passed.
    ReleaseIsQuicker,
    /// A failover by lease is decided and completes under a re-elected or new leader.
    AfterElection,
    /// A node that led, and was deposed, leads again.
    LeadsAgain,
    /// A deposed leader that still believes in itself is about to answer a heartbeat that was confirmed before.
    DeposedAnswers,
}

/// All of them, those that must always hold first.
pub(crate) const ALL: [Kind; 10] = [
    Kind::TokensRise,
    Kind::OneActive,
    Kind::OneHolder,
    Kind::DeposedExtendsNone,
    Kind::LogsAgree,
    Kind::ByLease,
    Kind::ReleaseIsQuicker,
    Kind::AfterElection,
    Kind::LeadsAgain,
    Kind::DeposedAnswers,
];

/// Those that must always hold.
pub(crate) const ALWAYS: [Kind; 5] =
    [Kind::TokensRise, Kind::OneActive, Kind::OneHolder, Kind::DeposedExtendsNone, Kind::LogsAgree];

impl Kind {
    pub(crate) fn at(self) -> usize {
        ALL.iter().position(|kind| *kind == self).expect("a kind that is listed")
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::TokensRise => "I1: tokens of committed promotions rise",
            Self::OneActive => "I2: at most one active in every applied state",
            Self::OneHolder => "I15: no two holders at the same time",
            Self::DeposedExtendsNone => "a deposed leader extends no lease",
            Self::LogsAgree => "no two nodes apply different entries",
            Self::ByLease => "a failover completes by lease",
            Self::ReleaseIsQuicker => "a release completes before W",
            Self::AfterElection => "a failover completes after an election",
            Self::LeadsAgain => "a deposed leader is elected again",
            Self::DeposedAnswers => "a deposed leader answers a heartbeat from before",
        }
    }

    /// As the checker wants it. Only the first state is reported, see `LeaseModel::first`.
    pub(crate) fn property(self) -> Property<LeaseModel> {
        let name = self.name();
        match self {
            Self::TokensRise => Property::always(name, |m, w| tokens_rise(m, w) || !m.first(Self::TokensRise)),
            Self::OneActive => Property::always(name, |m, w| one_active(m, w) || !m.first(Self::OneActive)),
            Self::OneHolder => Property::always(name, |m, w| acting(w).count() <= 1 || !m.first(Self::OneHolder)),
            Self::DeposedExtendsNone => {
                Property::always(name, |m, w: &World| !w.deposed_extended || !m.first(Self::DeposedExtendsNone))
            }
            Self::LogsAgree => Property::always(name, |m, w| logs_agree(w) || !m.first(Self::LogsAgree)),
            Self::ByLease => Property::sometimes(name, |m, w| by_lease(w, 1) && m.first(Self::ByLease)),
            Self::ReleaseIsQuicker => {
                Property::sometimes(name, |m, w| release_is_quicker(w) && m.first(Self::ReleaseIsQuicker))
            }
            Self::AfterElection => Property::sometimes(name, |m, w| by_lease(w, 2) && m.first(Self::AfterElection)),
            Self::LeadsAgain => Property::sometimes(name, |m, w| leads_again(w) && m.first(Self::LeadsAgain)),
            Self::DeposedAnswers => {
                Property::sometimes(name, |m, w| deposed_answers(m, w) && m.first(Self::DeposedAnswers))
            }
        }
    }
}

/// Who acts under a lease that runs: the process, its token, what is left.
pub(crate) fn acting(world: &World) -> impl Iterator<Item = (Process, Token, Ticks)> {
    PROCESSES.into_iter().filter_map(|process| {
        let holder = world.holders[process.at()];
        holder.left.map(|left| (process, holder.token, left))
    })
}

fn tokens_rise(model: &LeaseModel, world: &World) -> bool {
    world.nodes.iter().all(|node| model.applied(node).rising)
}

fn one_active(model: &LeaseModel, world: &World) -> bool {
    world.nodes.iter().all(|node| model.applied(node).active.iter().flatten().count() <= 1)
}

fn logs_agree(world: &World) -> bool {
    let applied = || world.nodes.iter().map(|node| node.log.prefix(node.applied));
    applied().all(|one| applied().all(|other| one.iter().zip(other).all(|(a, b)| a == b)))
}

fn promotions_in_force(world: &World) -> impl Iterator<Item = (Term, What)> {
    acting(world).filter_map(|(_, token, _)| LeaseModel::minted_by(world, token))
}

fn by_lease(world: &World, least: Term) -> bool {
    promotions_in_force(world)
        .any(|(term, what)| term >= least && matches!(what, What::Promote { proof: Proof::Lease, .. }))
}

fn release_is_quicker(world: &World) -> bool {
    promotions_in_force(world).any(|(_, what)| matches!(what, What::Promote { proof: Proof::Vacant, early: true, .. }))
}

fn leads_again(world: &World) -> bool {
    // n1 led in term 1.
    world.nodes[0].table.is_some_and(|table| table.term > 1)
}

fn deposed_answers(model: &LeaseModel, world: &World) -> bool {
    world.nodes.iter().filter(|node| node.role == Role::Leader && node.term < world.elected).any(|node| {
        node.table.is_some_and(|table| {
            let waits = |process: &Process| table.confirmed[process.at()].is_some();
            PROCESSES.iter().filter(|process| waits(process)).any(|p| model.grantable(node, &table, *p).is_some())
        })
    })
}
