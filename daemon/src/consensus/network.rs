//! openraft's network: its messages to one peer, over that peer's connections. Only translation; how long something may
//! take is openraft's word, except where it leaves that to the transport.

use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use baton_core::id::NodeId;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use openraft::alias::VoteOf;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::peers::paths;
use super::transport::{AddressBook, Body, CallError, Channel, whole};
use super::wire::{self, SnapshotHead};
use crate::store::{PeerNode, Snapshot, SnapshotFile, TypeConfig};

/// How long an append with entries may take. openraft names the heartbeat interval, but leaves the limit to the
/// transport; a follower that is slow for a moment must not be sent the same entries again for it.
const APPEND_PATIENCE: Duration = Duration::from_secs(1);
/// How long a snapshot's transfer may stand still, its installation at the other end included.
const SNAPSHOT_STALL: Duration = Duration::from_secs(60);
/// Bytes read and sent at a time.
const SNAPSHOT_CHUNK: usize = 256 * 1024;

/// Makes the networks to single peers.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) book: Arc<AddressBook>,
}

/// The network to one peer, with its own connection.
#[derive(Debug)]
pub(super) struct PeerNetwork {
    channel: Arc<Channel>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: NodeId, node: &PeerNode) -> PeerNetwork {
        self.book.learn(target, &node.peer);
        PeerNetwork { channel: Arc::new(Channel::new(target, self.book.clone())) }
    }
}

impl From<CallError> for RPCError<TypeConfig> {
    fn from(error: CallError) -> Self {
        match error {
            // Asked again only after a pause.
            CallError::Unreachable { .. } | CallError::Refused { .. } | CallError::TimedOut { .. } => {
                Unreachable::new(&error).into()
            }
            CallError::Lost { .. } => NetworkError::new(&error).into(),
        }
    }
}

fn malformed(error: impl std::error::Error + 'static) -> RPCError<TypeConfig> {
    Unreachable::new(&error).into()
}

impl PeerNetwork {
    async fn ask<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        question: &Q,
        patience: Duration,
    ) -> Result<A, RPCError<TypeConfig>> {
        let body = serde_json::to_vec(question).map_err(malformed)?;
        let answer = self.channel.call(path, whole(body), patience).await?;
        serde_json::from_slice(&answer).map_err(malformed)
    }
}

impl RaftNetworkV2<TypeConfig> for PeerNetwork {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        let patience =
            if request.entries.is_empty() { option.soft_ttl() } else { option.soft_ttl().max(APPEND_PATIENCE) };
        let body = wire::encode_append(&request).map_err(malformed)?;
        let answer = self.channel.call(paths::APPEND, whole(body), patience).await?;
        serde_json::from_slice(&answer).map_err(malformed)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(paths::VOTE, &request, option.soft_ttl()).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(paths::PRE_VOTE, &request, option.soft_ttl()).await
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.ask(paths::TRANSFER_LEADER, &request, option.soft_ttl()).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<TypeConfig>,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let unreadable = |error: &io::Error| StreamingError::from(Unreachable::new(error));
        let bytes = snapshot.snapshot.file.metadata().map_err(|error| unreadable(&error))?.len();
        let head = SnapshotHead { vote, meta: snapshot.meta, bytes };
        let head = wire::frame(&head, 0).map_err(|error| unreadable(&io::Error::other(error)))?.freeze();
        let sent = Arc::new(AtomicU64::new(0));
        let body = file_body(head, snapshot.snapshot.file, sent.clone());

        // The limit is on standing still, not on the whole: a thin link may take as long as it needs.
        let call = self.channel.call(paths::SNAPSHOT, body, Duration::from_secs(24 * 3_600));
        let (mut call, mut cancel) = (pin!(call), pin!(cancel));
        let mut seen = 0;
        let answer = loop {
            tokio::select! {
                answer = &mut call => break answer.map_err(RPCError::from)?,
                closed = &mut cancel => return Err(closed.into()),
                () = tokio::time::sleep(SNAPSHOT_STALL) => {
                    let now = sent.load(Ordering::Relaxed);
                    if now == seen {
                        return Err(unreadable(&io::Error::new(io::ErrorKind::TimedOut, "the transfer stands still")));
                    }
                    seen = now;
                }
            }
        };
        serde_json::from_slice(&answer).map_err(|error| unreadable(&io::Error::other(error)))
    }
}

/// A head and then a file, read as the other end takes it.
fn file_body(head: Bytes, file: std::fs::File, sent: Arc<AtomicU64>) -> Body {
    let file = Arc::new(file);
    let chunks = stream::unfold(Some((Some(head), 0_u64)), move |state| {
        let (file, sent) = (file.clone(), sent.clone());
        async move {
            let (head, offset) = state?;
            if let Some(head) = head {
                return Some((Ok(Frame::data(head)), Some((None, offset))));
            }
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; SNAPSHOT_CHUNK];
                let length = file.read_at(&mut chunk, offset)?;
                chunk.truncate(length);
                Ok::<_, io::Error>(chunk)
            })
            .await
            .map_err(io::Error::other)
            .flatten();
            match read {
                Ok(chunk) if chunk.is_empty() => None,
                Ok(chunk) => {
                    let offset = offset + chunk.len() as u64;
                    sent.store(offset, Ordering::Relaxed);
                    Some((Ok(Frame::data(chunk.into())), Some((None, offset))))
                }
                Err(error) => Some((Err(error), None)),
            }
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(chunks))
}
