//! `GET /v1/watch`: a snapshot, then every event after it, exactly once and in order, on any node.
//!
//! A stream is a cursor into the event log, and nothing is queued for it: the connection pulls, the log is asked for
//! what comes after the cursor. A slow reader is held back by its own connection, and told by `reset` when the log has
//! forgotten what it had not read yet.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use baton_client::view::{Bookmark, Reset, STREAM_BOOKMARK, STREAM_RESET, STREAM_SNAPSHOT, Snapshot};
use baton_core::event::{Event, EventKind};
use baton_core::id::{Revision, ServiceName};
use baton_core::time::ClusterTime;
use bytes::{Bytes, BytesMut};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::{ApiError, invalid};
use super::headers::set_revision;
use super::longpoll::read;
use super::query::{Args, Consistency, FromArgs, Query, short, whole};
use super::sse::{frame, preamble};
use super::{ApiState, views};
use crate::consensus::Consensus;
use crate::store::{EventsError, StoredEvent, View};

/// Events that one pull takes from the log: enough to catch up fast, few enough to hold in memory for each of many
/// streams.
const BATCH: usize = 256;

/// After this much silence a stream gets a bookmark: it keeps the connection from being taken for dead, and the
/// client's position from falling behind the events that its filter holds back.
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);

/// Which events a client wants; empty lists want all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    services: Vec<ServiceName>,
    kinds: Vec<EventKind>,
}

impl Filter {
    /// Whether an event is wanted.
    pub(crate) fn lets_through(&self, event: &Event) -> bool {
        let service =
            self.services.is_empty() || event.service.as_ref().is_some_and(|name| self.services.contains(name));
        let kind = self.kinds.is_empty() || self.kinds.contains(&event.kind);
        service && kind
    }
}

impl FromArgs for Filter {
    fn from_args(args: &mut Args) -> Self {
        let services = args.list("service", |text| text.parse().map_err(|error| format!("{error}")));
        let kinds = args.list("type", |text| {
            EventKind::ALL.iter().find(|(word, _)| *word == text).map(|(_, kind)| *kind).ok_or_else(|| {
                let words: Vec<&str> = EventKind::ALL.iter().map(|(word, _)| *word).collect();
                format!("\"{}\" is not one of {}", short(text), words.join(", "))
            })
        });
        Self { services, kinds }
    }
}

/// The parameters of a stream.
pub(crate) struct Wanted {
    consistency: Consistency,
    filter: Filter,
    after: Option<Revision>,
}

impl FromArgs for Wanted {
    fn from_args(args: &mut Args) -> Self {
        let (consistency, filter) = (args.consistency(), Filter::from_args(args));
        let (after, last) = (args.number("after"), args.number("last_event_id"));
        if after.is_some() && last.is_some() {
            args.error("last_event_id", "cannot be given together with `after`: they mean the same");
        }
        Self { consistency, filter, after: after.or(last) }
    }
}

/// Where the client goes on from: the header wins, for a browser that connects again repeats its first URL.
fn resume_from(headers: &HeaderMap, wanted: &Wanted) -> Result<Option<Revision>, ApiError> {
    let Some(given) = headers.get("last-event-id").filter(|given| !given.is_empty()) else {
        return Ok(wanted.after);
    };
    match given.to_str().ok().and_then(whole) {
        Some(revision) => Ok(Some(revision)),
        None => Err(invalid("last-event-id", "is not a revision: send back the `id` of the last event as it came")),
    }
}

/// Everything that happens, as it happens (server-sent events)
///
/// Begins with `snapshot` (`id` = its revision), then each event after it: `id` = its revision, `event` = its type,
/// `data` = the event. With `Last-Event-ID` it begins with the event after that one instead, without gap or repeat, on
/// any node. `reset` says that this cannot be had (the history is forgotten, or was never this cluster's); a snapshot
/// follows. `bookmark` moves the client's position past events that its filter holds back.
#[utoipa::path(get, path = "/v1/watch", tag = "events",
    params(
        ("service" = Option<String>, Query, description = "Only events of these services, comma-separated"),
        ("type" = Option<String>, Query, description = "Only events of these types, comma-separated"),
        ("after" = Option<u64>, Query, description = "For those who cannot send headers: like `Last-Event-ID`"),
        ("last_event_id" = Option<u64>, Query, description = "The same"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`: how it begins"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this revision"),
    ),
    responses((status = 200, description = "The stream", content_type = "text/event-stream", body = Event)))]
pub(crate) async fn watch(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Result<Response, ApiError> {
    let resume = resume_from(&headers, &wanted)?;
    // After the barrier this node holds all that was acknowledged anywhere before the request. So a revision that is
    // still ahead of it was never given out by this history.
    let view = read(&state, wanted.consistency).await?;
    let revision = view.state.meta.revision;
    let ahead = resume.filter(|&n| wanted.consistency == Consistency::Linearizable && n > revision);
    let start = match (resume, ahead) {
        (_, Some(requested)) => Start::Reset {
            requested,
            reason: format!("revision {requested} has not happened in this cluster: the last one is {revision}"),
        },
        (Some(revision), None) => Start::After(revision),
        (None, None) => Start::Snapshot,
    };
    let follower = Follower::new(state.consensus.clone(), wanted.filter, start, state.shutdown.clone());
    let body = Body::from_stream(stream::unfold(follower, async |mut follower| {
        let chunk = follower.next().await?;
        Some((Ok::<Bytes, Infallible>(chunk), follower))
    }));
    let mut response = body.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // What a client may count on from the first byte: a stream that resumes holds at least what it resumes from.
    set_revision(response.headers_mut(), revision);
    Ok(response)
}

/// How a stream begins.
enum Start {
    Snapshot,
    After(Revision),
    Reset { requested: Revision, reason: String },
}

/// One client's stream.
struct Follower {
    consensus: Consensus,
    filter: Filter,
    news: Receiver<Revision>,
    shutdown: CancellationToken,
    /// What is to be said before the cursor is followed.
    start: Option<Start>,
    /// Everything up to here has been sent or filtered out.
    cursor: Revision,
    /// When the next bookmark is due.
    bookmark_at: Instant,
}

/// What a wait ended with.
enum Woken {
    News,
    BookmarkDue,
    Stopping,
}

impl Follower {
    fn new(consensus: Consensus, filter: Filter, start: Start, shutdown: CancellationToken) -> Self {
        let news = consensus.reader().events().watch();
        Self {
            consensus,
            filter,
            news,
            shutdown,
            start: Some(start),
            cursor: 0,
            bookmark_at: Instant::now() + BOOKMARK_EVERY,
        }
    }

    /// The next bytes for the client, or `None` at the stream's end. Nothing is lost when the caller never asks again.
    async fn next(&mut self) -> Option<Bytes> {
        let chunk = self.chunk().await;
        self.bookmark_at = Instant::now() + BOOKMARK_EVERY;
        chunk
    }

    async fn chunk(&mut self) -> Option<Bytes> {
        if let Some(start) = self.start.take() {
            return self.begin(start);
        }
        loop {
            if self.shutdown.is_cancelled() {
                return None;
            }
            // Marked as seen before the log is asked, so that what comes in between wakes the wait below.
            self.news.borrow_and_update();
            match self.consensus.reader().events().after(self.cursor, BATCH).await {
                Ok(batch) if batch.is_empty() => match self.wait().await {
                    Woken::News => {}
                    Woken::BookmarkDue => return self.bookmark(),
                    Woken::Stopping => return None,
                },
                Ok(batch) => {
                    if let Some(chunk) = self.take(&batch) {
                        return Some(chunk);
                    }
                    if Instant::now() >= self.bookmark_at {
                        return self.bookmark();
                    }
                    // All of it was filtered out, and there may be much more: others want to run too.
                    tokio::task::yield_now().await;
                }
                Err(EventsError::Compacted { through }) => {
                    let requested = self.cursor;
                    let reason = format!("events up to {through} are forgotten, and {requested} is before that");
                    return self.begin(Start::Reset { requested, reason });
                }
                Err(error @ EventsError::Store(_)) => {
                    // The client connects again and goes on from where it was, here or elsewhere.
                    tracing::error!(%error, cursor = self.cursor, "a stream ends: the history cannot be read");
                    return None;
                }
            }
        }
    }

    fn begin(&mut self, start: Start) -> Option<Bytes> {
        let mut out = BytesMut::new();
        preamble(&mut out);
        match start {
            Start::After(revision) => self.cursor = revision,
            Start::Snapshot => self.snapshot(&mut out)?,
            Start::Reset { requested, reason } => {
                // No id: a client that is cut off between the two asks again from where it was, and is told again.
                put(&mut out, None, STREAM_RESET, &Reset { reason, requested })?;
                self.snapshot(&mut out)?;
            }
        }
        Some(out.freeze())
    }

    fn snapshot(&mut self, out: &mut BytesMut) -> Option<()> {
        let view = self.consensus.reader().view();
        let snapshot = snapshot_of(&view, &self.filter, self.consensus.now().time);
        self.cursor = snapshot.revision;
        put(out, Some(snapshot.revision), STREAM_SNAPSHOT, &snapshot)
    }

    fn bookmark(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        put(&mut out, Some(self.cursor), STREAM_BOOKMARK, &Bookmark { revision: self.cursor })?;
        Some(out.freeze())
    }

    /// Moves the cursor past a batch; the frames of what the filter lets through, if anything.
    fn take(&mut self, batch: &[Arc<StoredEvent>]) -> Option<Bytes> {
        let wanted: Vec<_> = batch.iter().filter(|event| self.filter.lets_through(&event.event)).collect();
        self.cursor = batch.last().map_or(self.cursor, |event| event.revision);
        if wanted.is_empty() {
            return None;
        }
        // Beside its JSON a frame has its revision, its type and some punctuation: 80 bytes hold them.
        let mut out = BytesMut::with_capacity(wanted.iter().map(|event| event.json.len() + 80).sum());
        for event in wanted {
            frame(&mut out, Some(event.revision), event.event.kind.as_str(), &event.json);
        }
        Some(out.freeze())
    }

    async fn wait(&mut self) -> Woken {
        tokio::select! {
            news = self.news.changed() => if news.is_ok() { Woken::News } else { Woken::Stopping },
            () = tokio::time::sleep_until(self.bookmark_at) => Woken::BookmarkDue,
            () = self.shutdown.cancelled() => Woken::Stopping,
        }
    }
}

fn snapshot_of(view: &View, filter: &Filter, now: ClusterTime) -> Snapshot {
    let wanted = |name: &ServiceName| filter.services.is_empty() || filter.services.contains(name);
    let services = view.state.services.values().filter(|service| wanted(&service.name));
    let services = services.map(|service| views::summary(service, now)).collect();
    Snapshot { revision: view.state.meta.revision, services }
}

/// A frame of ours. `None` ends the stream: a view that does not serialize is a defect, and silence would be a lie.
fn put<T: Serialize>(out: &mut BytesMut, id: Option<Revision>, name: &str, data: &T) -> Option<()> {
    match serde_json::to_vec(data) {
        Ok(data) => {
            frame(out, id, name, &data);
            Some(())
        }
        Err(error) => {
            tracing::error!(%error, name, "a stream ends: its own words cannot be written");
            None
        }
    }
}
