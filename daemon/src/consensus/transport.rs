//! How a request gets to a peer: one HTTP/2 connection for each peer and purpose, opened when needed and dropped at the
//! first error, so that a peer which came back is never spoken to through a dead connection. What is said is not known
//! here. TLS will come in here and nowhere else.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use baton_core::id::NodeId;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;

use crate::net;
use crate::store::StateReader;

/// The version of what peers say to each other. A peer that says another one is refused.
pub(super) const PROTOCOL: &str = "1";
/// The header that carries it.
pub(super) const PROTOCOL_HEADER: &str = "baton-protocol";
/// Who asks.
pub(super) const FROM_HEADER: &str = "baton-from";
/// Who is asked: a peer at a mistaken address says so instead of answering.
pub(super) const TO_HEADER: &str = "baton-to";
/// The cluster's id, once it is known.
pub(super) const CLUSTER_HEADER: &str = "baton-cluster";
/// How many milliseconds the asker will wait.
pub(super) const PATIENCE_HEADER: &str = "baton-patience-ms";

/// How long a connection may take to open. Peers are near; one that is not there must be found out quickly.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
/// How often an idle connection is tried, and how long it may take to answer, before it is taken for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The flow-control window: a whole append message fits, so that none waits for a window update.
const WINDOW: u32 = 8 * 1024 * 1024;
/// The largest answer that is read. Answers are replies to one batch at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a request carries.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A body that is all there.
pub(super) fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Why a peer gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The request was surely never sent.
    #[error("node {to} cannot be reached")]
    Unreachable {
        /// The peer.
        to: NodeId,
        /// Why.
        source: io::Error,
    },
    /// The request may have been carried out: no answer came.
    #[error("node {to} was asked, but did not answer")]
    Lost {
        /// The peer.
        to: NodeId,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer came in time; the request may have been carried out.
    #[error("node {to} did not answer within {after:?}")]
    TimedOut {
        /// The peer.
        to: NodeId,
        /// How long was waited.
        after: Duration,
    },
    /// The peer refused the request.
    #[error("node {to} refused with {status}: {text}")]
    Refused {
        /// The peer.
        to: NodeId,
        /// The status.
        status: StatusCode,
        /// What it said.
        text: String,
    },
}

/// Who this node is and where its peers are.
#[derive(Debug)]
pub(super) struct AddressBook {
    me: NodeId,
    addresses: RwLock<BTreeMap<NodeId, Arc<str>>>,
    reader: StateReader,
}

impl AddressBook {
    pub(super) fn new(me: NodeId, members: &BTreeMap<NodeId, String>, reader: StateReader) -> Self {
        let addresses = members.iter().map(|(id, address)| (*id, address.as_str().into())).collect();
        Self { me, addresses: RwLock::new(addresses), reader }
    }

    /// Adds what the membership says of a peer that the configuration does not know. The configuration wins: it is how
    /// an operator moves a node.
    pub(super) fn learn(&self, id: NodeId, address: &str) {
        let mut addresses = self.addresses.write().unwrap_or_else(PoisonError::into_inner);
        addresses.entry(id).or_insert_with(|| address.into());
    }

    fn address(&self, id: NodeId) -> Option<Arc<str>> {
        self.addresses.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }
}

/// The way to one peer, for one purpose.
#[derive(Debug)]
pub(super) struct Channel {
    to: NodeId,
    book: Arc<AddressBook>,
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Which connection it is, so that a late error does not close the one after.
    number: u64,
    sender: Option<SendRequest<Body>>,
}

impl Channel {
    pub(super) fn new(to: NodeId, book: Arc<AddressBook>) -> Self {
        Self { to, book, slot: Mutex::new(Slot::default()) }
    }

    /// Asks, and waits for the whole answer for as long as `patience` says.
    pub(super) async fn call(&self, path: &'static str, body: Body, patience: Duration) -> Result<Bytes, CallError> {
        let started = Instant::now();
        let (mut sender, number) = self.connection(patience).await?;
        let left = patience.saturating_sub(started.elapsed());
        let request = self.request(path, body, left)?;
        let asked = tokio::time::timeout(left, async {
            let answer = sender.send_request(request).await.map_err(|error| self.lost(error))?;
            let status = answer.status();
            let bytes = Limited::new(answer.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map_err(|source| CallError::Lost { to: self.to, source })?
                .to_bytes();
            if status == StatusCode::OK {
                Ok(bytes)
            } else {
                let text = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                Err(CallError::Refused { to: self.to, status, text })
            }
        })
        .await;
        let result = asked.unwrap_or(Err(CallError::TimedOut { to: self.to, after: patience }));
        if matches!(result, Err(CallError::Lost { .. } | CallError::TimedOut { .. })) {
            self.evict(number).await;
        }
        result
    }

    fn lost(&self, error: hyper::Error) -> CallError {
        CallError::Lost { to: self.to, source: error.into() }
    }

    fn unreachable(&self, source: io::Error) -> CallError {
        CallError::Unreachable { to: self.to, source }
    }

    fn request(&self, path: &'static str, body: Body, patience: Duration) -> Result<Request<Body>, CallError> {
        let mut request = Request::builder()
            .method(Method::POST)
            // The authority is a formality: the connection is to this peer and no other.
            .uri(format!("http://baton{path}"))
            .header(PROTOCOL_HEADER, HeaderValue::from_static(PROTOCOL))
            .header(FROM_HEADER, HeaderValue::from(self.book.me))
            .header(TO_HEADER, HeaderValue::from(self.to))
            .header(PATIENCE_HEADER, HeaderValue::from(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX)));
        let view = self.book.reader.view();
        if !view.state.meta.cluster_id.is_empty() {
            request = request.header(CLUSTER_HEADER, view.state.meta.cluster_id.as_str());
        }
        request.body(body).map_err(|error| self.unreachable(io::Error::other(error)))
    }

    /// The open connection, or a new one.
    async fn connection(&self, patience: Duration) -> Result<(SendRequest<Body>, u64), CallError> {
        let mut slot = self.slot.lock().await;
        if let Some(sender) = &mut slot.sender
            && !sender.is_closed()
            && sender.ready().await.is_ok()
        {
            let sender = sender.clone();
            return Ok((sender, slot.number));
        }
        let address = self
            .book
            .address(self.to)
            .ok_or_else(|| self.unreachable(io::Error::new(io::ErrorKind::NotFound, "its address is not known")))?;
        let patience = patience.min(CONNECT_PATIENCE);
        let opened = tokio::time::timeout(patience, async {
            let stream = net::connect(&address, patience).await?;
            http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_connection_window_size(WINDOW)
                .initial_stream_window_size(WINDOW)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        })
        .await;
        let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        let (sender, connection) = opened.map_err(timed_out).flatten().map_err(|error| self.unreachable(error))?;
        let to = self.to;
        // Ends by itself with the last sender, or with the first error.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(to, %error, "a connection to a peer ended");
            }
        });
        slot.number += 1;
        slot.sender = Some(sender.clone());
        Ok((sender, slot.number))
    }

    async fn evict(&self, number: u64) {
        let mut slot = self.slot.lock().await;
        if slot.number == number {
            slot.sender = None;
        }
    }
}
