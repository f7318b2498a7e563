//! The peers' side of the listener: what other nodes may ask of this one. Each request says the version of the protocol,
//! who asks and who is meant; a stranger is refused before the body is looked at.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use baton_core::id::NodeId;
use bytes::Bytes;
use futures_util::StreamExt;
use http::StatusCode;
use http::request::Parts;
use openraft::raft::{AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest};
use serde::Serialize;
use tokio::io::AsyncWriteExt;

use super::Inner;
use super::ask::ASK_BYTES_MAX;
use super::transport::{CLUSTER_HEADER, FROM_HEADER, PATIENCE_HEADER, PROTOCOL, PROTOCOL_HEADER, TO_HEADER};
use super::wire::{self, ProposeAnswer, ReadIndexAnswer, SnapshotHead};
use crate::store::{Snapshot, SnapshotFile, TypeConfig, verify_snapshot};

/// Where peers ask what.
pub(super) mod paths {
    pub(in crate::consensus) const APPEND: &str = "/raft/append";
    pub(in crate::consensus) const VOTE: &str = "/raft/vote";
    pub(in crate::consensus) const PRE_VOTE: &str = "/raft/pre-vote";
    pub(in crate::consensus) const TRANSFER_LEADER: &str = "/raft/transfer-leader";
    pub(in crate::consensus) const SNAPSHOT: &str = "/raft/snapshot";
    pub(in crate::consensus) const PROPOSE: &str = "/propose";
    pub(in crate::consensus) const READ_INDEX: &str = "/read-index";
    pub(in crate::consensus) const ASK: &str = "/ask";
}

/// The largest message but a snapshot: an append (4 MiB of entries, or one entry), with room for one large batch.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The head of a question to the leader: a word.
const HEAD_ROOM: usize = 1024;
/// The largest snapshot that is taken in. A full cluster is far below it; beyond, something is wrong.
const SNAPSHOT_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// The head of a snapshot's transfer: a vote and a membership.
const SNAPSHOT_HEAD_MAX: usize = 1024 * 1024;
/// How long the next piece of a snapshot may take.
const SNAPSHOT_STALL: Duration = Duration::from_secs(30);

/// The routes of the peer listener.
pub(super) fn router(inner: Arc<Inner>) -> Router {
    Router::new()
        .route(paths::APPEND, post(append))
        .route(paths::VOTE, post(vote))
        .route(paths::PRE_VOTE, post(pre_vote))
        .route(paths::TRANSFER_LEADER, post(transfer_leader))
        .route(paths::PROPOSE, post(propose))
        .route(paths::READ_INDEX, post(read_index))
        .route(paths::ASK, post(ask).layer(DefaultBodyLimit::max(ASK_BYTES_MAX + HEAD_ROOM)))
        .route(paths::SNAPSHOT, post(snapshot))
        .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
        .with_state(inner)
}

/// Why a peer is not served.
#[derive(Debug, thiserror::Error)]
enum PeerRefusal {
    #[error(
        "this node speaks version {PROTOCOL} of the peers' protocol, not \"{0}\": run the same baton on every node"
    )]
    Protocol(String),
    #[error("this is node {me}, not \"{wanted}\": check --initial-cluster")]
    NotMe { me: NodeId, wanted: String },
    #[error("this node belongs to cluster {mine}, not to {theirs}: check --initial-cluster")]
    OtherCluster { mine: String, theirs: String },
    #[error(transparent)]
    Malformed(#[from] wire::WireError),
    #[error("the message does not parse")]
    Json(#[from] serde_json::Error),
    #[error("another snapshot is coming in")]
    Busy,
    #[error("the snapshot could not be taken in: {0}")]
    Snapshot(io::Error),
    #[error("this node is stopping")]
    Stopping,
}

impl IntoResponse for PeerRefusal {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::Protocol(_) | Self::NotMe { .. } | Self::OtherCluster { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::Malformed(_) | Self::Json(_) => StatusCode::BAD_REQUEST,
            Self::Busy | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Self::Snapshot(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::warn!(error = %self, "a peer's request was refused");
        (status, self.to_string()).into_response()
    }
}

/// The proof that a request comes from a peer that means this node.
struct Peer {
    from: NodeId,
    patience: Duration,
}

impl FromRequestParts<Arc<Inner>> for Peer {
    type Rejection = PeerRefusal;

    async fn from_request_parts(parts: &mut Parts, inner: &Arc<Inner>) -> Result<Self, PeerRefusal> {
        let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
        let protocol = header(PROTOCOL_HEADER);
        if protocol != PROTOCOL {
            return Err(PeerRefusal::Protocol(protocol.to_owned()));
        }
        let to = header(TO_HEADER);
        let from = header(FROM_HEADER).parse::<NodeId>();
        let Some(from) = from.ok().filter(|_| to.parse() == Ok(inner.node_id)) else {
            return Err(PeerRefusal::NotMe { me: inner.node_id, wanted: to.to_owned() });
        };
        let theirs = header(CLUSTER_HEADER);
        let view = inner.reader.view();
        let mine = &view.state.meta.cluster_id;
        if !theirs.is_empty() && !mine.is_empty() && theirs != mine {
            return Err(PeerRefusal::OtherCluster { mine: mine.clone(), theirs: theirs.to_owned() });
        }
        let patience = header(PATIENCE_HEADER).parse().map_or(Duration::ZERO, Duration::from_millis);
        Ok(Self { from, patience })
    }
}

type Answer = Result<Response, PeerRefusal>;

fn json<T: Serialize>(answer: &T) -> Answer {
    Ok(serde_json::to_vec(answer)?.into_response())
}

async fn append(State(inner): State<Arc<Inner>>, _: Peer, body: Bytes) -> Answer {
    let request = wire::decode_append(&body)?;
    // Heard is heard when it arrives: the answer waits for this node's own disk, which may be slow.
    let known = inner.leadership.borrow().clone();
    if known.leader == Some(request.vote.leader_id.voted_for) && known.term == request.vote.leader_id.term {
        inner.leader_was_heard();
    }
    let answer = inner.raft.append_entries(request).await.map_err(|_| PeerRefusal::Stopping)?;
    match answer {
        // A conflict is still the word of this node's leader.
        AppendEntriesResponse::Success | AppendEntriesResponse::PartialSuccess(_) | AppendEntriesResponse::Conflict => {
            inner.leader_was_heard()
        }
        AppendEntriesResponse::HigherVote(_) => {}
    }
    json(&answer)
}

async fn vote(State(inner): State<Arc<Inner>>, _: Peer, body: Bytes) -> Answer {
    let request: VoteRequest<TypeConfig> = serde_json::from_slice(&body)?;
    json(&inner.raft.vote(request).await.map_err(|_| PeerRefusal::Stopping)?)
}

async fn pre_vote(State(inner): State<Arc<Inner>>, _: Peer, body: Bytes) -> Answer {
    let request: VoteRequest<TypeConfig> = serde_json::from_slice(&body)?;
    json(&inner.raft.pre_vote(request).await.map_err(|_| PeerRefusal::Stopping)?)
}

async fn transfer_leader(State(inner): State<Arc<Inner>>, _: Peer, body: Bytes) -> Answer {
    let request: TransferLeaderRequest<TypeConfig> = serde_json::from_slice(&body)?;
    json(&inner.raft.handle_transfer_leader(request).await.map_err(|_| PeerRefusal::Stopping)?)
}

async fn propose(State(inner): State<Arc<Inner>>, peer: Peer, body: Bytes) -> Answer {
    let commands = wire::decode_commands(&body)?;
    let answer: ProposeAnswer = inner.proposer.take_in(commands, peer.patience).await;
    json(&answer)
}

async fn read_index(State(inner): State<Arc<Inner>>, peer: Peer) -> Answer {
    let answer = match inner.read_rounds.index(true, Instant::now() + peer.patience).await {
        Ok(index) => ReadIndexAnswer::Index(index),
        Err(_) => ReadIndexAnswer::None,
    };
    json(&answer)
}

async fn ask(State(inner): State<Arc<Inner>>, peer: Peer, body: Bytes) -> Answer {
    Ok(inner.asked(peer.from, &body, peer.patience).await?.into_response())
}

async fn snapshot(State(inner): State<Arc<Inner>>, _: Peer, body: Body) -> Answer {
    // One at a time: there is one leader, and a second transfer of its own is the first one given up.
    let turn = inner.snapshot_turn.clone().try_lock_owned().map_err(|_| PeerRefusal::Busy)?;
    // In a task of its own, which keeps the turn: when the leader gives the request up, openraft may still be at work on
    // the file, and a second transfer must find neither the turn free nor the name.
    let taking = tokio::spawn(async move {
        let _turn = turn;
        let path = inner.dir.snapshot_in_the_making(&format!("received-{}", uuid::Uuid::now_v7().simple()));
        let answer = match take_in(body, &path).await {
            Ok(head) => install(&inner, head, &path).await,
            Err(refusal) => Err(refusal),
        };
        // Installed, it has another name by now. Else it is of no use.
        let _ = tokio::fs::remove_file(&path).await;
        answer
    });
    json(&taking.await.map_err(|error| PeerRefusal::Snapshot(io::Error::other(error)))??)
}

/// Writes what comes into the file, and makes sure that it is all on disk.
async fn take_in(body: Body, path: &std::path::Path) -> Result<SnapshotHead, PeerRefusal> {
    let cut_off = || PeerRefusal::Snapshot(io::Error::new(io::ErrorKind::UnexpectedEof, "it stopped coming"));
    let mut stream = body.into_data_stream();
    let mut begun = bytes::BytesMut::new();
    let next = async |stream: &mut axum::body::BodyDataStream| {
        let piece = tokio::time::timeout(SNAPSHOT_STALL, stream.next()).await.map_err(|_| cut_off())?;
        piece.transpose().map_err(|error| PeerRefusal::Snapshot(io::Error::other(error)))
    };
    let (head, first): (SnapshotHead, Bytes) = loop {
        begun.extend_from_slice(&next(&mut stream).await?.ok_or_else(cut_off)?);
        if let Some(found) = wire::unframe(&begun.clone().freeze())? {
            break found;
        }
        if begun.len() > SNAPSHOT_HEAD_MAX {
            return Err(wire::WireError::Length.into());
        }
    };
    if head.bytes > SNAPSHOT_BYTES_MAX {
        return Err(wire::WireError::Length.into());
    }
    let mut file = tokio::fs::File::create(path).await.map_err(PeerRefusal::Snapshot)?;
    let mut left = head.bytes;
    let mut piece = first;
    loop {
        left = left.checked_sub(piece.len() as u64).ok_or(wire::WireError::Length)?;
        file.write_all(&piece).await.map_err(PeerRefusal::Snapshot)?;
        match next(&mut stream).await? {
            Some(more) => piece = more,
            None => break,
        }
    }
    if left > 0 {
        return Err(cut_off());
    }
    file.sync_all().await.map_err(PeerRefusal::Snapshot)?;
    Ok(head)
}

async fn install(
    inner: &Inner,
    head: SnapshotHead,
    path: &std::path::Path,
) -> Result<SnapshotResponse<TypeConfig>, PeerRefusal> {
    let file = SnapshotFile::open(path).map_err(|error| PeerRefusal::Snapshot(io::Error::other(error)))?;
    // Here a damaged one is only refused. Once openraft has taken it in, failing to install it stops the node.
    verify_snapshot(&file, &head.meta).await.map_err(|error| PeerRefusal::Snapshot(io::Error::other(error)))?;
    let snapshot = Snapshot { meta: head.meta, snapshot: file };
    inner.raft.install_full_snapshot(head.vote, snapshot).await.map_err(|_| PeerRefusal::Stopping)
}
