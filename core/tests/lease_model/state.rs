//! What the world looks like at one moment: three nodes, two instances in up to three processes, the messages between
//! them. Plain data; who may change it, and how, is said in the rooms of the actors.

use super::clock::{Ticks, Ttl};

/// Nodes n1, n2, n3.
pub(crate) const NODES: usize = 3;

/// The most entries a log can hold: configurations set lower bounds of their own.
pub(crate) const LOG_ROOM: usize = 8;

/// The token under which "a" holds the service where a configuration begins with a holder. The entry at position k of
/// the log mints `BASE_TOKEN + 1 + k`.
pub(crate) const BASE_TOKEN: Token = 1;

/// A fencing token. 0: none.
pub(crate) type Token = u8;

/// A Raft term.
pub(crate) type Term = u8;

/// A node, by its place.
pub(crate) type NodeAt = usize;

/// What is managed: "a" and "b".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Instance {
    A,
    B,
}

/// A process with its session. `A2` registers under the name of "a" while the process `A` may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Process {
    A,
    B,
    A2,
}

/// All of them, in the order of every array over processes.
pub(crate) const PROCESSES: [Process; 3] = [Process::A, Process::B, Process::A2];

impl Process {
    pub(crate) const fn at(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::A2 => 2,
        }
    }

    pub(crate) const fn instance(self) -> Instance {
        match self {
            Self::A | Self::A2 => Instance::A,
            Self::B => Instance::B,
        }
    }
}

impl Instance {
    pub(crate) const ALL: [Self; 2] = [Self::A, Self::B];

    pub(crate) const fn at(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

/// Why the old active is believed to have stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// Nobody holds it and nothing is owed: `none_needed`, or `release` when there was a holder.
    Vacant,
    /// The rule's wait, under a seal.
    Lease,
    /// The activation time-out. No proof: a mutant takes it for one.
    TimedOut,
}

/// A decision in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// A leader's first entry.
    First,
    /// `seen` is the token that it replaces, 0 for none. `early`: its leader had not been in office for W when it
    /// proposed this, so no promotion by `lease` could have been proposed instead. `early` decides nothing.
    Promote { to: Instance, proof: Proof, seen: Token, early: bool },
    /// The holder said that it stopped.
    Release { by: Process, token: Token },
    /// A second process registers as "a".
    Register,
    /// The service goes, with its instances.
    Delete,
    /// It is there again, and "b" registers.
    Create,
    /// The spec asks for a shorter lease from now on.
    Shorten,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) term: Term,
    pub(crate) what: What,
}

/// A short list of entries, without an allocation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    len: u8,
    entries: [Entry; LOG_ROOM],
}

const NO_ENTRY: Entry = Entry { term: 0, what: What::First };

impl Log {
    pub(crate) const EMPTY: Self = Self { len: 0, entries: [NO_ENTRY; LOG_ROOM] };

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries[..usize::from(self.len)]
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    pub(crate) fn push(&mut self, term: Term, what: What) {
        self.entries[usize::from(self.len)] = Entry { term, what };
        self.len += 1;
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries().last().map_or(0, |entry| entry.term)
    }

    /// The first `len` entries.
    pub(crate) fn prefix(&self, len: u8) -> &[Entry] {
        &self.entries[..usize::from(len)]
    }
}

impl PartialEq for Log {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl Eq for Log {}

impl std::hash::Hash for Log {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.entries().hash(state);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    Follower,
    Candidate,
    /// It believes so. It may have been deposed.
    Leader,
}

/// A heartbeat on its way to the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Beat {
    /// By the sender's clock, since just before it was sent.
    pub(crate) age: Ticks,
    /// The highest term that a majority had elected when it was sent. Nobody reads this but a property.
    pub(crate) era: Term,
}

/// Whether the leader may still renew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Seal {
    Open,
    /// The wait was found to be over, and nothing was closed. Only mutants get here.
    Checked(Token),
    /// Closed in the step that found the wait to be over.
    Sealed(Token),
}

/// The leader's table: what a node remembers as a leader. Never in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Table {
    /// The term it belongs to.
    pub(crate) term: Term,
    /// Since a majority voted for this leader.
    pub(crate) in_office: Ticks,
    /// The last recorded renewal: its token, and how long ago. Renewals of older tokens matter to nobody.
    pub(crate) renewed: Option<(Token, Ticks)>,
    pub(crate) seal: Seal,
    /// Heartbeats that were received, and after that confirmed by a read-index round, and not answered yet.
    pub(crate) confirmed: [Option<Beat>; 3],
    /// A renewal that was sent and is still to be recorded. Only a mutant has any.
    pub(crate) unrecorded: Token,
    /// A read-index round that is kept for whoever comes. Only a mutant has one.
    pub(crate) spare_round: bool,
}

impl Table {
    pub(crate) const fn new(term: Term, in_office: Ticks) -> Self {
        Self {
            term,
            in_office,
            renewed: None,
            seal: Seal::Open,
            confirmed: [None; 3],
            unrecorded: 0,
            spare_round: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) term: Term,
    pub(crate) role: Role,
    pub(crate) log: Log,
    /// How many entries it knows to be committed, and has applied.
    pub(crate) applied: u8,
    pub(crate) table: Option<Table>,
    /// Since it became a candidate. Only a mutant counts.
    pub(crate) candidacy: Ticks,
}

/// An answer to a heartbeat, on its way to the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Answer {
    pub(crate) to: Process,
    pub(crate) token: Token,
    pub(crate) ttl: Ttl,
    /// By the holder's clock, since just before it sent the heartbeat that is answered.
    pub(crate) age: Ticks,
}

/// What a process knows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    /// The token under which it acts. 0: it does not act.
    pub(crate) token: Token,
    /// What is left of its lease by its own clock: it acts at 0 for the last time.
    pub(crate) left: Option<Ticks>,
    /// The highest token that it released.
    pub(crate) released: Token,
    /// Since its newest heartbeat. Only a mutant counts.
    pub(crate) newest: Ticks,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) nodes: [Node; NODES],
    pub(crate) holders: [Holder; 3],
    /// The newest heartbeat of each process that is in the network. An older one that was not received yet could do
    /// nothing that this one cannot: it would be received no earlier, and give a shorter lease.
    pub(crate) beats: [Option<Beat>; 3],
    /// Of several answers to one process that name one token, the one with the longest lease stands for all.
    pub(crate) answers: Vec<Answer>,
    /// The tokens that each process said it released, one bit each. They stay: a release may arrive at any time, twice,
    /// or never.
    pub(crate) releases: [u8; 3],
    /// The highest term that a majority has elected. Nobody reads this but properties.
    pub(crate) elected: Term,
    /// Whether a deposed leader has answered a heartbeat that was sent after it had been deposed.
    pub(crate) deposed_extended: bool,
}
