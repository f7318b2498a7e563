//! Heartbeats on their way to the leader: those that come in within a few milliseconds travel together, and a change of
//! leaders is waited out.

use std::time::Duration;

use baton_client::view::HeartbeatAnswer;
use bytes::Bytes;
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
            let first = next;
            next += batch.len() as u64;
            under_way.spawn(carry(consensus.clone(), boot, first, batch));
        }
    }
}

/// Brings a batch to whoever leads. A heartbeat that is heard twice is one.
async fn carry(consensus: Consensus, boot: u64, first: u64, batch: Vec<Waiting>) {
    let deadline = Instant::now() + TRY_FOR;
    let (beats, waiting): (Vec<Beat>, Vec<_>) = batch.into_iter().map(|one| (one.beat, one.answer)).unzip();
    let outcomes: Vec<Outcome> = match ask(&consensus, HeartbeatsAsk { boot, first, beats }, deadline).await {
        Some(answers) => answers.into_iter().map(outcome).collect(),
        None => Vec::new(),
    };
    let missing = std::iter::repeat(Err(HeartbeatError::NoLeader));
    for (answer, outcome) in waiting.into_iter().zip(outcomes.into_iter().chain(missing)) {
        // Whoever no longer waits needs no answer.
        let _ = answer.send(outcome);
    }
}

async fn ask(consensus: &Consensus, ask: HeartbeatsAsk, deadline: Instant) -> Option<Vec<BeatAnswer>> {
    let body = Bytes::from(serde_json::to_vec(&ask).ok()?);
    loop {
        match consensus.ask_leader(wire::HEARTBEATS, body.clone()).await {
            Ok(answer) => {
                let told = serde_json::from_slice::<HeartbeatsAnswer>(&answer);
                return told.ok().map(|told| told.answers).filter(|answers| answers.len() == ask.beats.len());
            }
            Err(AskError::TooLong) => return None,
            Err(AskError::NoLeader | AskError::Moved | AskError::Unanswered) => {}
        }
        if Instant::now() + RETRY_PAUSE >= deadline {
            return None;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
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
