//! How commands get into the log. One task gathers what has arrived meanwhile into a batch; a few batches are under way
//! at a time, which is what makes the batches large under load and small without. On the leader a batch becomes an
//! entry, on a follower a request to the leader, and there it joins the leader's own batches.
//!
//! What may be said of a proposal that failed is settled by its ticket: it is either still waiting, and then it is
//! surely not in the log, or it has been sent, and then nobody knows until an answer comes.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use baton_core::command::{Command, Reply};
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::peers::paths;
use super::transport::{CallError, whole};
use super::wire::{self, ProposeAnswer};
use super::{ANSWER_WITHIN, Inner};
use crate::store::{Carried, Proposal};

/// Proposals that may wait. At a few thousand a second it is more than can be answered in time: the rest is told at once.
const QUEUE: usize = 8_192;
/// Commands in one batch. Larger ones make the first wait for the last without saving much.
const BATCH_COMMANDS: usize = 256;
/// Bytes of commands that may wait for an answer at a time. Without a quorum they wait for seconds, and each is up to a
/// quarter of a megabyte.
const WAITING_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of commands in one batch (one command always goes).
const BATCH_BYTES: usize = 1024 * 1024;
/// Batches under way at a time: one on its way while the next is written. More would only make them smaller.
const IN_FLIGHT: usize = 2;
/// How long to rest before asking again when the leader may just be changing and nothing says so yet.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// What a forwarded proposal leaves of its time for the answer's way back.
const WAY_BACK: Duration = Duration::from_millis(50);

/// Why a command has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProposeError {
    /// Surely not proposed: no leader is known, or it cannot be reached.
    #[error("there is no leader: nothing was changed")]
    NoLeader,
    /// Surely not proposed: too much is waiting already.
    #[error("too many proposals are waiting: nothing was changed")]
    Overloaded,
    /// The answer is missing: it may have happened, or still happen.
    #[error("no answer in time: the change may have been made, or may still be")]
    Unknown,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopped,
    /// The command cannot be written as JSON: a defect of this program.
    #[error("the command cannot be encoded")]
    Unencodable,
}

/// Where a proposal is, seen from its asker and its carrier at once.
#[derive(Debug, Default)]
struct Ticket(AtomicU8);

impl Ticket {
    const WAITING: u8 = 0;
    const SENT: u8 = 1;
    const ABANDONED: u8 = 2;

    fn step(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The asker waits no longer. What may it be told? `unsent`, if it was surely not proposed.
    fn abandon(&self, unsent: ProposeError) -> ProposeError {
        if self.0.swap(Self::ABANDONED, Ordering::AcqRel) == Self::WAITING { unsent } else { ProposeError::Unknown }
    }
}

type Answer = Result<(u64, Vec<Reply>), ProposeError>;

/// Commands of one asker, to be answered together.
#[derive(Debug)]
struct Item {
    commands: Vec<Carried>,
    ticket: Arc<Ticket>,
    answer: oneshot::Sender<Answer>,
    deadline: Instant,
    /// It came from another node, so it is not sent on: this node leads, or says that it does not.
    from_peer: bool,
}

impl Item {
    fn bytes(&self) -> usize {
        self.commands.iter().map(|command| command.json().len()).sum()
    }

    fn promotions(&self) -> usize {
        let mints = |command: &Command| match command {
            Command::Promote(_) => true,
            Command::TransitionStart(start) => start.to.is_some(),
            Command::TransitionTake(_) => true,
            Command::ClusterCreate { .. }
            | Command::NodeAnnounce(_)
            | Command::ObserverLost { .. }
            | Command::ObserverBack { .. }
            | Command::ServicePut(_)
            | Command::ServiceDelete(_)
            | Command::InstancePut(_)
            | Command::InstanceChange(_)
            | Command::InstanceDelete(_)
            | Command::VerdictsRecord(_)
            | Command::JudgementsRecord(_)
            | Command::BreakerTrip(_)
            | Command::BreakerTried(_)
            | Command::TrialGrant(_)
            | Command::InstancesDue(_)
            | Command::InstanceAdmin(_)
            | Command::InstanceReset(_)
            | Command::TransitionAbort(_)
            | Command::Release(_)
            | Command::Ack(_)
            | Command::ActivationExpire(_)
            | Command::HookStart(_)
            | Command::HookEnd(_)
            | Command::InstanceLeft(_)
            | Command::InstanceReturned(_)
            | Command::AutomationPause(_)
            | Command::AutomationResume(_)
            | Command::AutomationDue { .. }
            | Command::LatchSet { .. }
            | Command::BrakeSet
            | Command::DebtForget { .. }
            | Command::EventsCompact { .. } => false,
        };
        self.commands.iter().filter(|carried| mints(carried.command())).count()
    }

    /// Nobody wants an answer any more, so nobody is harmed when it is given.
    fn answer(self, answer: Answer) {
        let _ = self.answer.send(answer);
    }
}

/// The way in for proposals.
#[derive(Debug)]
pub(super) struct Proposer {
    queue: mpsc::Sender<Item>,
    /// Bytes of commands that may still come in.
    room: Arc<Semaphore>,
    /// Stamping and handing to openraft is one step, so that stamps rise with the log.
    stamping: Mutex<()>,
}

impl Proposer {
    pub(super) fn new() -> (Self, ProposerTask) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (
            Self { queue, room: Arc::new(Semaphore::new(WAITING_BYTES)), stamping: Mutex::new(()) },
            ProposerTask { waiting },
        )
    }

    /// One command of this node's own. The answer comes when this node has applied it too.
    pub(super) async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        let carried = Carried::new(command).map_err(|_| ProposeError::Unencodable)?;
        let (_, mut replies) = self.submit(vec![carried], Instant::now() + ANSWER_WITHIN, false).await?;
        replies.pop().ok_or(ProposeError::Unknown)
    }

    /// Commands that a peer forwards.
    pub(super) async fn take_in(&self, commands: Vec<Carried>, patience: Duration) -> ProposeAnswer {
        let deadline = Instant::now() + patience.min(ANSWER_WITHIN).saturating_sub(WAY_BACK);
        match self.submit(commands, deadline, true).await {
            Ok((index, replies)) => ProposeAnswer::Applied { index, replies },
            Err(ProposeError::NoLeader | ProposeError::Unencodable) => ProposeAnswer::NotProposed,
            Err(ProposeError::Overloaded) => ProposeAnswer::Overloaded,
            Err(ProposeError::Unknown | ProposeError::Stopped) => ProposeAnswer::Unknown,
        }
    }

    async fn submit(&self, commands: Vec<Carried>, deadline: Instant, from_peer: bool) -> Answer {
        let bytes = commands.iter().map(|command| command.json().len()).sum::<usize>().max(1);
        let room = u32::try_from(bytes).ok().and_then(|bytes| self.room.clone().try_acquire_many_owned(bytes).ok());
        // Held until the answer: what waits is in memory all that time.
        let Some(_room) = room else { return Err(ProposeError::Overloaded) };
        let ticket = Arc::new(Ticket::default());
        let (answer, answered) = oneshot::channel();
        let item = Item { commands, ticket: ticket.clone(), answer, deadline, from_peer };
        self.queue.try_send(item).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ProposeError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => ProposeError::Stopped,
        })?;
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(answer)) => answer,
            // The carrier is gone without an answer: the node is stopping.
            Ok(Err(_)) => Err(ticket.abandon(ProposeError::Stopped)),
            Err(_) => Err(ticket.abandon(ProposeError::NoLeader)),
        }
    }
}

/// The gathering end.
#[derive(Debug)]
pub(super) struct ProposerTask {
    waiting: mpsc::Receiver<Item>,
}

impl ProposerTask {
    /// Gathers and sends off until the node stops.
    pub(super) async fn run(mut self, inner: Weak<Inner>) {
        let slots = Arc::new(Semaphore::new(IN_FLIGHT));
        let mut left_over = None;
        loop {
            // The slot first: while none is free, the queue gathers.
            let Ok(slot) = slots.clone().acquire_owned().await else { return };
            let first = match left_over.take() {
                Some(item) => item,
                None => match self.waiting.recv().await {
                    Some(item) => item,
                    None => return,
                },
            };
            let Some(inner) = inner.upgrade() else { return };
            let items = self.gather(first, &mut left_over);
            tokio::spawn(carry(inner, items, slot));
        }
    }

    fn gather(&mut self, first: Item, left_over: &mut Option<Item>) -> Vec<Item> {
        let (mut commands, mut bytes, mut promotions) = (first.commands.len(), first.bytes(), first.promotions());
        let mut items = vec![first];
        while commands < BATCH_COMMANDS && bytes < BATCH_BYTES {
            let Ok(item) = self.waiting.try_recv() else { break };
            commands += item.commands.len();
            bytes += item.bytes();
            promotions += item.promotions();
            // A token is made of the entry's index, so an entry has one promotion at most.
            if commands > BATCH_COMMANDS || bytes > BATCH_BYTES || promotions > 1 {
                *left_over = Some(item);
                break;
            }
            items.push(item);
        }
        items
    }
}

/// How one attempt came out.
enum Attempt {
    /// Everybody is answered.
    Done,
    /// Surely not proposed.
    Again(Vec<Item>),
}

/// Brings a batch to the leader, whoever that is or becomes, until it is proposed or everybody has given up.
async fn carry(inner: Arc<Inner>, mut items: Vec<Item>, _slot: OwnedSemaphorePermit) {
    let mut leadership = inner.leadership.subscribe();
    loop {
        let now = Instant::now();
        items.retain(|item| item.deadline > now && !item.answer.is_closed());
        let Some(deadline) = items.iter().map(|item| item.deadline).max() else { return };
        let seen = leadership.borrow_and_update().clone();
        let attempt = match seen.leader {
            _ if seen.is_leader => here(&inner, items, deadline).await,
            // Elected, but its own first entry is not applied yet: any moment now.
            Some(leader) if leader == inner.node_id => Attempt::Again(items),
            leader => {
                let (peers, own): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| item.from_peer);
                peers.into_iter().for_each(|item| item.answer(Err(ProposeError::NoLeader)));
                match leader {
                    Some(leader) if !own.is_empty() => forward(&inner, leader, own, deadline).await,
                    _ => Attempt::Again(own),
                }
            }
        };
        match attempt {
            Attempt::Done => return,
            Attempt::Again(left) => items = left,
        }
        tokio::select! {
            _ = leadership.changed() => {}
            () = tokio::time::sleep(if seen.leader.is_some() { RETRY_PAUSE } else { ANSWER_WITHIN }) => {}
            () = tokio::time::sleep_until(deadline.into()) => {}
        }
    }
}

/// Marks items as sent; those whose asker has given up are left behind.
fn mark_sent(items: Vec<Item>) -> Vec<Item> {
    items.into_iter().filter(|item| item.ticket.step(Ticket::WAITING, Ticket::SENT)).collect()
}

/// They were surely not proposed after all.
fn unmark(items: Vec<Item>) -> Attempt {
    Attempt::Again(items.into_iter().filter(|item| item.ticket.step(Ticket::SENT, Ticket::WAITING)).collect())
}

fn fail(items: Vec<Item>, error: ProposeError) -> Attempt {
    items.into_iter().for_each(|item| item.answer(Err(error)));
    Attempt::Done
}

/// Hands each asker its share of the replies.
fn distribute(items: Vec<Item>, index: u64, replies: Vec<Reply>) -> Attempt {
    if replies.len() != items.iter().map(|item| item.commands.len()).sum::<usize>() {
        tracing::error!(index, "an entry has another number of replies than of commands");
        return fail(items, ProposeError::Unknown);
    }
    let mut replies = replies.into_iter();
    for item in items {
        let share = replies.by_ref().take(item.commands.len()).collect();
        item.answer(Ok((index, share)));
    }
    Attempt::Done
}

/// Proposes a batch as an entry of this node, the leader.
async fn here(inner: &Inner, items: Vec<Item>, deadline: Instant) -> Attempt {
    let items = mark_sent(items);
    if items.is_empty() {
        return Attempt::Done;
    }
    let carried = items.iter().flat_map(|item| item.commands.iter().cloned()).collect();
    let (responder, answered) = ProgressResponder::complete_only();
    {
        let _stamping = inner.proposer.stamping.lock().await;
        let now = inner.now();
        let proposal = Proposal::of(now.time, now.wall, carried);
        if inner.raft.client_write_ff(proposal, Some(responder)).await.is_err() {
            return fail(items, ProposeError::Stopped);
        }
    }
    match tokio::time::timeout_at(deadline.into(), answered).await {
        Ok(Ok(Ok(written))) => distribute(items, written.log_id.index, written.data),
        Ok(Ok(Err(ClientWriteError::ForwardToLeader(_)))) => unmark(items),
        Ok(Ok(Err(
            ClientWriteError::LogEntryDiscarded(_)
            | ClientWriteError::ChangeMembershipError(_)
            | ClientWriteError::PreconditionFailed(_),
        ))) => fail(items, ProposeError::Unknown),
        // openraft has stopped, or no quorum has answered in time.
        Ok(Err(_)) | Err(_) => fail(items, ProposeError::Unknown),
    }
}

/// Sends a batch to the leader, and waits until what it did has arrived here too: a client must not be answered by a
/// node that does not know yet what it answers.
async fn forward(inner: &Inner, leader: u64, items: Vec<Item>, deadline: Instant) -> Attempt {
    let items = mark_sent(items);
    if items.is_empty() {
        return Attempt::Done;
    }
    let body = wire::encode_commands(items.iter().flat_map(|item| &item.commands));
    let patience = deadline.saturating_duration_since(Instant::now());
    let answer = match inner.channels.forward(leader).call(paths::PROPOSE, whole(body), patience).await {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or(ProposeAnswer::Unknown),
        Err(CallError::Unreachable { .. } | CallError::Refused { .. }) => ProposeAnswer::NotProposed,
        Err(error @ (CallError::Lost { .. } | CallError::TimedOut { .. })) => {
            tracing::debug!(leader, %error, "a forwarded proposal has no answer");
            ProposeAnswer::Unknown
        }
    };
    match answer {
        ProposeAnswer::Applied { index, replies } => {
            let mut applied = inner.reader.watch();
            // The answer is true even if this node falls behind: it is given at the deadline at the latest.
            let _ = tokio::time::timeout_at((deadline - WAY_BACK).into(), applied.wait_for(|at| *at >= index)).await;
            distribute(items, index, replies)
        }
        ProposeAnswer::NotProposed => unmark(items),
        ProposeAnswer::Overloaded => fail(items, ProposeError::Overloaded),
        ProposeAnswer::Unknown => fail(items, ProposeError::Unknown),
    }
}
