//! The read index: what must be applied here before a read may be answered as if it were the leader's. One round serves
//! all who wait for it. Who comes while a round is under way waits for the next: the running one may have begun before
//! something that the newcomer has already seen acknowledged.

use std::sync::Weak;
use std::time::{Duration, Instant};

use baton_core::lease::ReadPoint;
use openraft::ReadPolicy;
use tokio::sync::{mpsc, oneshot};

use super::peers::paths;
use super::transport::whole;
use super::wire::ReadIndexAnswer;
use super::{ANSWER_WITHIN, Inner};

/// Reads that may wait for a round. A round takes milliseconds, so this is reached only when there is no quorum.
const QUEUE: usize = 65_536;
/// How long one round may take before it is tried again, perhaps with another leader.
const ROUND: Duration = Duration::from_millis(700);
/// How long to rest before the next round when one has failed and nothing says that the leader changes.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Why a read cannot be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReadError {
    /// No leader with a quorum behind it answered in time.
    #[error("no quorum answered in time")]
    NoQuorum,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopped,
}

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Result<u64, ReadError>>,
    /// It came from another node: this node leads, or says that it does not.
    from_peer: bool,
    deadline: Instant,
}

/// The way in for reads.
#[derive(Debug)]
pub(super) struct ReadRounds {
    queue: mpsc::Sender<Waiting>,
}

impl ReadRounds {
    pub(super) fn new() -> (Self, ReadTask) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue }, ReadTask { waiting })
    }

    /// The index of a round that begins after this call.
    pub(super) async fn index(&self, from_peer: bool, deadline: Instant) -> Result<u64, ReadError> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { answer, from_peer, deadline }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ReadError::NoQuorum,
            mpsc::error::TrySendError::Closed(_) => ReadError::Stopped,
        })?;
        match tokio::time::timeout_at(deadline.into(), answered).await {
            Ok(Ok(answer)) => answer,
            // Whoever has waited too long is dropped by the rounds, which need not be noticed after the time-out.
            Ok(Err(_)) if Instant::now() >= deadline => Err(ReadError::NoQuorum),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }
}

impl Inner {
    /// Asks a majority whether this node leads, now, and waits until its own view holds what it must to act on that. For
    /// the leader's own decisions: nobody else is asked.
    pub(super) async fn read_point(&self) -> Result<ReadPoint, ReadError> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let read = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        let linearizer = match tokio::time::timeout(ROUND, read).await {
            Ok(Ok(linearizer)) => linearizer,
            Ok(Err(_)) | Err(_) => return Err(ReadError::NoQuorum),
        };
        // The id is never before the first entry of the term in which the majority answered, and so of that term.
        let id = linearizer.read_log_id();
        let point = ReadPoint { term: id.committed_leader_id().term, index: id.index() };
        if self.reader.view().applied_index >= point.index {
            return Ok(point);
        }
        let mut applied = self.reader.watch();
        match tokio::time::timeout_at(deadline.into(), applied.wait_for(|at| *at >= point.index)).await {
            Ok(Ok(_)) => Ok(point),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }

    /// Waits until this node's view holds everything that was acknowledged before the call.
    pub(super) async fn barrier(&self) -> Result<(), ReadError> {
        let deadline = Instant::now() + ANSWER_WITHIN;
        let index = self.read_rounds.index(false, deadline).await?;
        if self.reader.view().applied_index >= index {
            return Ok(());
        }
        let mut applied = self.reader.watch();
        match tokio::time::timeout_at(deadline.into(), applied.wait_for(|at| *at >= index)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ReadError::Stopped),
            Err(_) => Err(ReadError::NoQuorum),
        }
    }
}

/// The end that makes the rounds.
#[derive(Debug)]
pub(super) struct ReadTask {
    waiting: mpsc::Receiver<Waiting>,
}

impl ReadTask {
    /// Makes rounds until the node stops.
    pub(super) async fn run(mut self, inner: Weak<Inner>) {
        let mut waiting = Vec::new();
        loop {
            if waiting.is_empty() && self.waiting.recv_many(&mut waiting, QUEUE).await == 0 {
                return;
            }
            // Everyone who is here when the round begins.
            while let Ok(more) = self.waiting.try_recv() {
                waiting.push(more);
            }
            let now = Instant::now();
            waiting.retain(|one| one.deadline > now && !one.answer.is_closed());
            let Some(inner) = inner.upgrade() else { return };
            let mut leadership = inner.leadership.subscribe();
            match inner.round(&mut waiting).await {
                Some(index) => waiting.drain(..).for_each(|one| {
                    // Whoever no longer waits needs no answer.
                    let _ = one.answer.send(Ok(index));
                }),
                None if waiting.is_empty() => {}
                None => {
                    drop(inner);
                    tokio::select! {
                        _ = leadership.changed() => {}
                        () = tokio::time::sleep(RETRY_PAUSE) => {}
                    }
                }
            }
        }
    }
}

impl Inner {
    /// One round. `None`: no leader with a quorum was found; peers that asked are told so at once.
    async fn round(&self, waiting: &mut Vec<Waiting>) -> Option<u64> {
        if waiting.is_empty() {
            return None;
        }
        let seen = self.leadership.borrow().clone();
        match seen.leader {
            Some(leader) if leader == self.node_id => {
                let read = self.raft.get_read_linearizer(ReadPolicy::ReadIndex);
                let linearizer = tokio::time::timeout(ROUND, read).await.ok()?.ok()?;
                Some(linearizer.read_log_id().index())
            }
            leader => {
                for one in waiting.extract_if(.., |one| one.from_peer) {
                    let _ = one.answer.send(Err(ReadError::NoQuorum));
                }
                if waiting.is_empty() {
                    return None;
                }
                let answer = self.channels.reads(leader?).call(paths::READ_INDEX, whole(Vec::new()), ROUND).await;
                match serde_json::from_slice(&answer.ok()?).ok()? {
                    ReadIndexAnswer::Index(index) => Some(index),
                    ReadIndexAnswer::None => None,
                }
            }
        }
    }
}
