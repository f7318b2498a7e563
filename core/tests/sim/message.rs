//! What is said between nodes, processes and people, and what anybody plans to do at a later time. Plain data.

use std::time::Duration;

use baton_core::command::{Command, Reply};
use baton_core::id::{InstanceId, ServiceName, Token};
use baton_core::lease::{Granted, ReadPoint, Seal};
use baton_core::planner::ManualRequest;

use super::net::Addr;
use super::raft::RaftMessage;
use super::renewals::Pending;

/// The number by which an answer finds its request.
pub(crate) type RequestId = u64;

/// What somebody wants of the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Something that becomes an entry as it is.
    Write(Command),
    /// An operator's move: the leader plans it.
    Manual(ServiceName, ManualRequest),
    /// A sign of life.
    Heartbeat(Beat),
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Beat {
    pub(crate) service: ServiceName,
    pub(crate) instance: InstanceId,
    pub(crate) session: String,
    /// How far it is behind, if it says so.
    pub(crate) lag: Option<u64>,
    /// The highest term that a majority had elected when it was sent. Only an invariant looks at it.
    pub(crate) era: u64,
}

/// What the cluster says.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// What became of a write.
    Reply(Reply),
    /// What becomes of a heartbeat.
    Role { lease: Option<Granted>, interval: Duration },
    /// Nothing is granted by this heartbeat, and nothing taken away.
    Undecided,
    /// The session is not, or no longer, the instance's.
    UnknownSession,
    /// Nobody leads, as far as this node knows, or what was asked could not be done. Try again.
    Unavailable,
}

/// What travels.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    Raft(RaftMessage),
    /// From a client to any node.
    Ask {
        request: RequestId,
        ask: Ask,
    },
    /// From that node to the one that leads.
    Forward {
        client: Addr,
        request: RequestId,
        ask: Ask,
    },
    /// From the one that leads back to that node.
    Relay {
        client: Addr,
        request: RequestId,
        answer: Answer,
    },
    /// From a node to a client.
    Answer {
        request: RequestId,
        answer: Answer,
    },
    /// From a node to a process: something about its role has changed.
    Prompt,
    /// From a process that believes itself active to what it works on.
    Work {
        token: Token,
    },
}

/// Who waits for what becomes of a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// A client, through a node.
    Client { via: usize, client: Addr, request: RequestId },
    /// The leader's planning of a service, with the token that it sealed for it.
    Plan { service: ServiceName, seal: Option<Seal> },
    /// The leader's forgetting of what a deleted service owed.
    Debt { service: ServiceName, seal: Option<Seal> },
    /// The leader's word that an instance is back.
    Returned(ServiceName, InstanceId),
    /// The leader's upkeep.
    Upkeep,
    /// The leader's housekeeping of a service.
    Due(ServiceName),
    /// The leader's judging.
    Judge,
    /// Nobody.
    Nobody,
}

/// What a node is going to do by its own clock.
#[derive(Debug)]
pub(crate) enum NodeTimer {
    /// Look whether its patience with the leader has run out.
    Election,
    /// Apply what is committed.
    Apply,
    /// Remember on disk how far it has applied.
    Persist,
    /// As the leader of a term: say so to all.
    Heartbeat { term: u64 },
    /// As the leader of a term: append what waits.
    Flush { term: u64 },
    /// As the leader of a term: plan what changed.
    Plan { term: u64 },
    /// As the leader of a term: judge heartbeats, wake up plans.
    Tick { term: u64 },
    /// As the leader of a term: propose what was planned a moment ago.
    Propose { term: u64, command: Command, waiter: Waiter },
    /// As the leader of a term: ask a majority whether it leads, for all that wait.
    Round { term: u64 },
    /// As the leader of a term: give up waiting for the answers.
    RoundOver { term: u64, number: u64 },
    /// As the leader of a term: grant a renewal for which a round was confirmed.
    Grant { term: u64, point: ReadPoint, renewal: Pending, tried: u32 },
}

/// What a process is going to do by its own clock.
#[derive(Clone, Debug)]
pub(crate) enum ProcessTimer {
    /// Register, again if need be.
    Register,
    /// Look at its clock. Only the last one that was planned counts.
    Wake { number: u64 },
    /// Work, if it may.
    Work,
    /// It has stopped, and says so.
    Stopped { session: String, token: Token, leaving: bool },
    /// It serves, and says so.
    Serve { session: String, token: Token },
}

/// What happens at a time.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver {
        from: Addr,
        to: Addr,
        message: Message,
    },
    /// `boot` tells the incarnations of a node apart.
    Node {
        node: usize,
        boot: u64,
        timer: NodeTimer,
    },
    Process {
        process: usize,
        boot: u64,
        timer: ProcessTimer,
    },
    /// A stopped actor goes on.
    Resume {
        actor: Addr,
    },
    /// A crashed node or process starts.
    Start {
        actor: Addr,
    },
    /// A node that was cut off is back, and runs for leader.
    Return {
        node: usize,
    },
    /// An operator does something.
    Operator,
    /// Something breaks.
    Nemesis,
}
