//! `GET …/role`: what an instance is to its service, pushed to it at once. Told from this node's own view, whenever that
//! changes; nothing is queued for a stream, the connection pulls.
//!
//! A push is a hint: it makes an instance ask by a heartbeat, and only the answer to that counts. The end of a stream is a
//! hint too, unless the tenure says otherwise (`lease.release_on_disconnect`): then it is a release, the weaker kind, and
//! this room proposes it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use baton_client::view::{Problem, Role, RoleOver, RoleView, STREAM_OVER, STREAM_ROLE};
use baton_core::command::{Command, Refusal, Release};
use baton_core::id::{InstanceId, ServiceName, Token};
use baton_core::state::{Instance, Phase, ReleaseHow, Service};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, invalid};
use super::extract::OfInstance;
use super::headers::set_revision;
use super::heartbeat::SESSION_MAX;
use super::longpoll::{instance_in, read};
use super::query::{Args, Consistency, FromArgs, Query};
use super::sse::{frame, preamble};
use super::{ApiState, views};
use crate::consensus::{Consensus, ProposeError};
use crate::store::View;

/// After this much silence a stream gets a comment: a connection that is dead is noticed by writing to it, and whoever
/// supervises by this stream is to know soon.
const BEAT_EVERY: Duration = Duration::from_secs(2);

/// How often a release is proposed where no leader takes it. Longer than an election in all: afterwards the lease's end
/// does the same.
const RELEASE_TRIES: usize = 20;

/// The pause between two tries.
const RELEASE_PAUSE: Duration = Duration::from_millis(200);

/// One session of one instance. An instance that is probed has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Session {
    service: ServiceName,
    instance: InstanceId,
    session: Option<String>,
}

/// How many role streams of each session are open at this node.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    open: Mutex<BTreeMap<Session, usize>>,
}

impl Streams {
    fn open(&self) -> MutexGuard<'_, BTreeMap<Session, usize>> {
        // Counting cannot panic halfway.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, of: &Session) {
        *self.open().entry(of.clone()).or_default() += 1;
    }

    fn leave(&self, of: &Session) {
        let mut open = self.open();
        if let Some(count) = open.get_mut(of) {
            *count -= 1;
            if *count == 0 {
                open.remove(of);
            }
        }
    }

    fn is_open(&self, of: &Session) -> bool {
        self.open().contains_key(of)
    }
}

/// The parameters of a stream.
pub(crate) struct Wanted {
    consistency: Consistency,
    session: Option<String>,
}

impl FromArgs for Wanted {
    fn from_args(args: &mut Args) -> Self {
        let (consistency, session) = (args.consistency(), args.text("session"));
        if session.as_ref().is_some_and(|session| session.is_empty() || session.len() > SESSION_MAX) {
            args.error("session", "is not a session: name the one that the registration returned");
        }
        Self { consistency, session }
    }
}

/// What an instance is to its service, pushed at once (server-sent events)
///
/// Begins with an event `role`; another comes whenever the role, the token or the phase changes. A comment every 2 s keeps
/// the connection alive. It ends with an event `over` when the session is not the instance's present one any more, or the
/// instance is gone; without one when the node stops: go on at another.
///
/// A push is a hint: send a heartbeat upon it, and act on the answer to that. Where the service has
/// `lease.release_on_disconnect`, the close of the holder's last stream at this node counts as a release, at once. A closed
/// connection is not a stop, and a proxy or a load balancer between closes connections as it likes: use it only where there is
/// none, and where whoever holds the stream ends with what it stands for.
#[utoipa::path(get, path = "/v1/services/{service}/instances/{instance}/role", tag = "calls",
    operation_id = "watch_role",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("instance" = InstanceId, Path, description = "The instance's id"),
        ("session" = Option<String>, Query, description = "The session that the registration returned; none for an \
            instance that is probed"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`: how it begins"),
    ),
    responses(
        (status = 200, description = "The stream", content_type = "text/event-stream", body = RoleView),
        (status = 409, description = "`unknown_session`: another registration has taken its place", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn role(
    State(state): State<ApiState>,
    OfInstance(service, instance): OfInstance,
    Query(Wanted { consistency, session }): Query<Wanted>,
) -> Result<Response, ApiError> {
    // After the barrier a registration that was acknowledged anywhere is known here.
    let view = read(&state, consistency).await?;
    let present = &instance_in(&view, &service, &instance)?.1.session;
    if present.is_some() && session.is_none() {
        return Err(invalid("session", "is missing: name the session that the registration of the instance returned"));
    }
    if *present != session {
        return Err(Refusal::UnknownSession { instance, what: "is registered".to_owned() }.into());
    }
    let listener = Listener::new(&state, Session { service, instance, session });
    let body = Body::from_stream(stream::unfold(listener, async |mut listener| {
        let chunk = listener.next().await?;
        Some((Ok::<Bytes, Infallible>(chunk), listener))
    }));
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    set_revision(response.headers_mut(), view.state.meta.revision);
    Ok(response)
}

/// What a session is told of: all of its role that may change.
type Told = (Role, Option<Token>, Phase);

/// What this node holds of a session.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    Role(RoleView),
    Over(String),
}

/// One client's stream.
struct Listener {
    consensus: Consensus,
    streams: Arc<Streams>,
    shutdown: CancellationToken,
    of: Session,
    applied: Receiver<u64>,
    told: Option<Told>,
    stands: Stands,
    beat_at: Instant,
}

/// Whether the client has the stream, and who ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stands {
    /// Nobody has asked for its bytes yet. For a HEAD request nobody ever does.
    Unasked,
    /// It is being read.
    Open,
    /// This node has ended it.
    Ended,
}

impl Listener {
    fn new(state: &ApiState, of: Session) -> Self {
        Self {
            consensus: state.consensus.clone(),
            streams: Arc::clone(&state.roles),
            shutdown: state.shutdown.clone(),
            of,
            applied: state.consensus.reader().watch(),
            told: None,
            stands: Stands::Unasked,
            beat_at: Instant::now() + BEAT_EVERY,
        }
    }

    /// The next bytes for the client, or `None` at the stream's end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.stands {
            Stands::Unasked => {
                self.streams.enter(&self.of);
                self.stands = Stands::Open;
            }
            Stands::Open => {}
            Stands::Ended => return None,
        }
        let mut out = BytesMut::new();
        loop {
            // Marked as seen before the look, so that what is published in between wakes the wait below.
            self.applied.borrow_and_update();
            let view = self.consensus.reader().view();
            if self.shutdown.is_cancelled() {
                self.end();
                return None;
            }
            match look(&view, &self.of, |service, instance| views::role(service, instance, self.consensus.now().time)) {
                Look::Over(reason) => {
                    self.end();
                    let revision = view.state.meta.revision;
                    let Session { service, instance, .. } = self.of.clone();
                    put(&mut out, STREAM_OVER, &RoleOver { service, instance, reason, revision })?;
                    return Some(out.freeze());
                }
                Look::Role(role) => {
                    let now = (role.role, role.token, role.phase);
                    if self.told != Some(now) {
                        if self.told.is_none() {
                            preamble(&mut out);
                        }
                        self.told = Some(now);
                        self.beat_at = Instant::now() + BEAT_EVERY;
                        put(&mut out, STREAM_ROLE, &role)?;
                        return Some(out.freeze());
                    }
                }
            }
            tokio::select! {
                news = self.applied.changed() => if news.is_err() {
                    self.end();
                    return None;
                },
                () = self.shutdown.cancelled() => {}
                () = tokio::time::sleep_until(self.beat_at) => {
                    self.beat_at = Instant::now() + BEAT_EVERY;
                    out.put_slice(b": still here\n\n");
                    return Some(out.freeze());
                }
            }
        }
    }

    /// From here on it is not the client who ends the stream.
    fn end(&mut self) {
        self.stands = Stands::Ended;
        self.streams.leave(&self.of);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        match self.stands {
            Stands::Unasked | Stands::Ended => return,
            Stands::Open => self.end(),
        }
        // The node's own end closes every stream, and says nothing of those who listened.
        if self.shutdown.is_cancelled() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let closed = Closed {
            consensus: self.consensus.clone(),
            streams: Arc::clone(&self.streams),
            shutdown: self.shutdown.clone(),
            of: self.of.clone(),
        };
        runtime.spawn(closed.release());
    }
}

/// A stream that its client has closed.
struct Closed {
    consensus: Consensus,
    streams: Arc<Streams>,
    shutdown: CancellationToken,
    of: Session,
}

impl Closed {
    /// Proposes the release, where the tenure takes the close for one.
    async fn release(self) {
        // The close speaks of this token alone: of a later one of the same session, which another stream stands for by then,
        // it says nothing.
        let Some(token) = held(&self.consensus.reader().view(), &self.of) else { return };
        for _ in 0..RELEASE_TRIES {
            // Looked at anew each time: the client may be back, and somebody else may hold the service.
            if self.shutdown.is_cancelled() || self.streams.is_open(&self.of) {
                return;
            }
            if held(&self.consensus.reader().view(), &self.of) != Some(token) {
                return;
            }
            let Session { service, instance, session } = self.of.clone();
            let reason = format!("node {} saw its connection close", self.consensus.status().node_id);
            let how = ReleaseHow::Disconnected;
            // It is gone, as far as anybody can tell: it is no candidate until it is heard of again.
            let release = Release { service, instance, session, token, leaving: true, how, reason };
            match self.consensus.propose(Command::Release(release)).await {
                Ok(Ok(_)) => return,
                Ok(Err(refusal)) => {
                    tracing::debug!(service = %self.of.service, %refusal, "a closed role stream released nothing");
                    return;
                }
                Err(ProposeError::NoLeader | ProposeError::Unknown | ProposeError::Overloaded) => {}
                Err(ProposeError::Stopped | ProposeError::Unencodable) => return,
            }
            tokio::time::sleep(RELEASE_PAUSE).await;
        }
        tracing::warn!(service = %self.of.service, instance = %self.of.instance,
            "a role stream was closed and no leader took the release: its lease has to run out");
    }
}

/// The token that the close of this session's stream gives back, if it gives back any.
fn held(view: &View, of: &Session) -> Option<Token> {
    let holder = view.state.service(&of.service)?.assignment.last_holder.as_ref()?;
    let same = holder.instance == of.instance && holder.session == of.session && holder.session.is_some();
    let counts = holder.lease.is_some_and(|terms| terms.release_on_disconnect);
    holder.token.filter(|_| same && counts && holder.released.is_none())
}

/// What a session is now, by this view.
fn look(view: &View, of: &Session, told: impl FnOnce(&Service, &Instance) -> RoleView) -> Look {
    let Session { service, instance, session } = of;
    let Some(known) = view.state.service(service) else {
        return Look::Over(format!("there is no service \"{service}\" any more"));
    };
    match known.instances.get(instance) {
        None => Look::Over(format!("\"{instance}\" is not registered any more")),
        Some(one) if one.session != *session => {
            Look::Over(format!("\"{instance}\" is registered in another session: stop what acts for this one"))
        }
        Some(one) => Look::Role(told(known, one)),
    }
}

/// A frame of ours. `None` ends the stream: a view that does not serialize is a defect, and silence would be a lie.
fn put<T: Serialize>(out: &mut BytesMut, name: &str, data: &T) -> Option<()> {
    match serde_json::to_vec(data) {
        Ok(data) => {
            frame(out, None, name, &data);
            Some(())
        }
        Err(error) => {
            tracing::error!(%error, name, "a stream ends: its own words cannot be written");
            None
        }
    }
}
