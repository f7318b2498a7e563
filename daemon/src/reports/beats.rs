//! Heartbeats on their way to the leader: those that come in within a few milliseconds travel together, and a change of
//! leaders is waited out.

use std::time::Duration;

use baton_client::view::HeartbeatAnswer;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::wire::{self, Beat, BeatAnswer, HeartbeatsAnswer, HeartbeatsAsk};
use crate::consensus::{AskError, Consensus};

/// Heartbeats that may wait. At ten a second from a thousand instances it is most of a second's worth.
const QUEUE: usize = 8_192;
/// How long the first one waits for others.
const GATHER: Duration = Duration::from_millis(3);
/// Heartbeats that travel together: some hundred kilobytes.
const BATCH: usize = 1_000;
/// Batches under way at a time: one is enough but for a leader that is slow to answer. They may overtake each other, so
/// each heartbeat has a number by which the leader sees their order.
const IN_FLIGHT: usize = 8;
/// How long a heartbeat is tried for: longer than an election takes as a rule, shorter than a client waits.
const TRY_FOR: Duration = Duration::from_millis(1_800);
/// The rest between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Why a heartbeat does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeartbeatError {
    /// There is no such service.
    #[error("there is no such service")]
    NoSuchService,
    /// There is no such instance.
    #[error("there is no such instance")]
    NoSuchInstance,
    /// The instance is probed.
    #[error("the instance is registered with liveness \"probe\"")]
    NotHeartbeat,
    /// The session is another one.
    #[error("the session is not the instance's present one")]
    UnknownSession,
    /// No leader could be asked in time.
    #[error("no leader answered in time")]
    NoLeader,
    /// Too many wait already.
    #[error("too many heartbeats are waiting")]
    Overloaded,
    /// The node is stopping.
    #[error("this node is stopping")]
    Stopped,
}

type Outcome = Result<HeartbeatAnswer, HeartbeatError>;

#[derive(Debug)]
struct Waiting {
    beat: Beat,
    answer: oneshot::Sender<Outcome>,
}

/// The way in.
#[derive(Clone, Debug)]
pub(super) struct Beats {
    queue: mpsc::Sender<Waiting>,
}

/// The end that carries them.
#[derive(Debug)]
pub(super) struct BeatsTask {
    waiting: mpsc::Receiver<Waiting>,
}

impl Beats {
    pub(super) fn new() -> (Self, BeatsTask) {
        let (queue, waiting) = mpsc::channel(QUEUE);
        (Self { queue }, BeatsTask { waiting })
    }

    /// Brings a heartbeat to the leader; what it said.
    pub(super) async fn send(&self, beat: Beat) -> Outcome {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Waiting { beat, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => HeartbeatError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => HeartbeatError::Stopped,
        })?;
        answered.await.unwrap_or(Err(HeartbeatError::Stopped))
    }
}

impl BeatsTask {
    /// Gathers and carries until nobody can send any more; dropped, it gives up what is under way.
    pub(super) async fn run(mut self, consensus: Consensus, boot: u64) {
        let mut under_way: JoinSet<()> = JoinSet::new();
        let mut next = 1;
        loop {
            let Some(first) = self.waiting.recv().await else { return };
            let mut batch = vec![first];
            tokio::time::sleep(GATHER).await;
            while batch.len() < BATCH
                && let Ok(next) = self.waiting.try_recv()
            {
                batch.push(next);
            }
            while under_way.len() >= IN_FLIGHT {
                under_way.join_next().await;
            }
            while under_way.try_join_next().is_some() {}
            for one in &mut batch {
                one.beat.number = next;
                next += 1;
            }
            under_way.spawn(carry(consensus.clone(), boot, batch));
        }
    }
}

/// Brings a batch to whoever leads. A heartbeat that is heard twice is one. One whose sender waits no longer is not brought
/// again: the instance may have stopped and said so since, and would seem to be back.
async fn carry(consensus: Consensus, boot: u64, mut batch: Vec<Waiting>) {
    let deadline = Instant::now() + TRY_FOR;
    while !batch.is_empty() {
        let beats = batch.iter().map(|one| one.beat.clone()).collect();
        let Ok(body) = serde_json::to_vec(&HeartbeatsAsk { boot, beats }) else { break };
        match consensus.ask_leader(wire::HEARTBEATS, body.into()).await {
            Ok(answer) => {
                let told = serde_json::from_slice::<HeartbeatsAnswer>(&answer).ok();
                let Some(told) = told.filter(|told| told.answers.len() == batch.len()) else { break };
                for (waiting, answer) in batch.drain(..).zip(told.answers) {
                    // Whoever no longer waits needs no answer.
                    let _ = waiting.answer.send(outcome(answer));
                }
                return;
            }
            Err(AskError::TooLong) => break,
            Err(AskError::NoLeader | AskError::Moved | AskError::Unanswered) => {}
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
        batch.retain(|one| !one.answer.is_closed());
    }
    for waiting in batch {
        let _ = waiting.answer.send(Err(HeartbeatError::NoLeader));
    }
}

fn outcome(answer: BeatAnswer) -> Outcome {
    match answer {
        BeatAnswer::Taken(told) => Ok(told),
        BeatAnswer::NoSuchService => Err(HeartbeatError::NoSuchService),
        BeatAnswer::NoSuchInstance => Err(HeartbeatError::NoSuchInstance),
        BeatAnswer::NotHeartbeat => Err(HeartbeatError::NotHeartbeat),
        BeatAnswer::UnknownSession => Err(HeartbeatError::UnknownSession),
    }
}
