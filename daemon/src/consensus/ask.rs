//! Questions to whoever leads, from any node: what is asked and answered is not known here. Only a leader that has applied
//! its own term's first entry and still hears its quorum answers; everybody else says that somebody else leads.
//!
//! Nothing of it goes through the log. An answer is what the leader knows, no promise that anything was kept: whoever needs
//! that proposes a command.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::id::NodeId;
use bytes::{BufMut, Bytes};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::peers::paths;
use super::transport::{CallError, whole};
use super::{Inner, wire};

/// Within this a question is answered, if only by saying that it cannot be. Several round trips between near peers; who
/// asks keeps what it has and asks again.
pub(crate) const ASK_WITHIN: Duration = Duration::from_millis(500);

/// The longest question, and the longest answer: a few thousand sums of calls. Who has more asks several times.
pub(crate) const ASK_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What answers questions, on the node that leads.
pub(crate) trait Answers: Send + Sync + 'static {
    /// The answer to a question of that kind from that node; `None` where this node does not answer such questions now.
    fn answer(&self, from: NodeId, kind: &str, body: Bytes) -> BoxFuture<'static, Option<Bytes>>;
}

/// Why a question has no answer. It may have been heard all the same: whoever asks again must ask what may be heard twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// No leader is known, or it cannot be reached.
    #[error("there is no leader to ask")]
    NoLeader,
    /// Who was asked does not lead (any more, or yet), or does not know the answer.
    #[error("the leader that was asked no longer leads, or not yet")]
    Moved,
    /// The answer is missing.
    #[error("the leader did not answer in time")]
    Unanswered,
    /// Longer than a question or an answer may be.
    #[error("the question or its answer is longer than {ASK_BYTES_MAX} bytes")]
    TooLong,
}

/// The head of a question; its body follows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AskHead {
    kind: String,
}

/// The head of an answer; its body follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum AskAnswer {
    /// As follows.
    Answered,
    /// Somebody else leads, or this node is not ready to answer.
    Moved,
}

impl Inner {
    /// Asks whoever leads.
    pub(super) async fn ask_leader(&self, kind: &'static str, body: Bytes) -> Result<Bytes, AskError> {
        if body.len() > ASK_BYTES_MAX {
            return Err(AskError::TooLong);
        }
        let leader = self.leadership.borrow().leader.ok_or(AskError::NoLeader)?;
        if leader == self.node_id {
            return self.answer(leader, kind, body, ASK_WITHIN).await.ok_or(AskError::Moved);
        }
        let head = AskHead { kind: kind.to_owned() };
        // A head of one word always encodes.
        let mut asked = wire::frame(&head, body.len()).map_err(|_| AskError::TooLong)?;
        asked.put_slice(&body);
        let answer = self.channels.asks(leader).call(paths::ASK, whole(asked.freeze()), ASK_WITHIN).await;
        let answer = answer.map_err(|error| match error {
            CallError::Unreachable { .. } | CallError::Refused { .. } => AskError::NoLeader,
            CallError::Lost { .. } | CallError::TimedOut { .. } => {
                tracing::debug!(leader, kind, %error, "a question to the leader has no answer");
                AskError::Unanswered
            }
        })?;
        match wire::unframe(&answer) {
            Ok(Some((AskAnswer::Answered, body))) => Ok(body),
            Ok(Some((AskAnswer::Moved, _))) => Err(AskError::Moved),
            Ok(None) | Err(_) => Err(AskError::Unanswered),
        }
    }

    /// The leader's side, for a peer.
    pub(super) async fn asked(
        &self,
        from: NodeId,
        question: &Bytes,
        patience: Duration,
    ) -> Result<Bytes, wire::WireError> {
        let (AskHead { kind }, body) = wire::unframe(question)?.ok_or(wire::WireError::Length)?;
        let answer = self.answer(from, &kind, body, patience.min(ASK_WITHIN)).await;
        let head = if answer.is_some() { AskAnswer::Answered } else { AskAnswer::Moved };
        let body = answer.unwrap_or_default();
        let mut bytes = wire::frame(&head, body.len())?;
        bytes.put_slice(&body);
        Ok(bytes.freeze())
    }

    /// The answer, if this node leads and knows one.
    async fn answer(&self, from: NodeId, kind: &str, body: Bytes, patience: Duration) -> Option<Bytes> {
        // A leader that hears no quorum may have a successor already, who is asked instead.
        let silence_max = Duration::from_millis(self.tuning.election_max_ms);
        let leads =
            self.leadership.borrow().is_leader && self.staleness().is_some_and(|silence| silence <= silence_max);
        let answers: &Arc<dyn Answers> = self.answers.get().filter(|_| leads)?;
        let deadline = Instant::now() + patience;
        let answer = tokio::time::timeout_at(deadline.into(), answers.answer(from, kind, body)).await.ok()??;
        (answer.len() <= ASK_BYTES_MAX).then_some(answer)
    }
}
