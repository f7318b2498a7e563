//! Following `/v1/watch`: a stream that resumes at any endpoint where it left off, without gap or repeat. What an event
//! means is the reader's business.

use std::collections::VecDeque;
use std::time::Duration;

use baton_core::event::Event;
use baton_core::id::{Revision, ServiceName};
use bytes::Bytes;
use reqwest::Response;

use crate::error::{ClientError, cut, root};
use crate::http::{Client, query_escape};
use crate::sse::{Frame, SseParser};
use crate::view::{STREAM_BOOKMARK, STREAM_RESET, STREAM_SNAPSHOT};

/// Silence after which a connection is given up. Servers send something at least every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(35);
/// The wait before the second try to reconnect; it doubles from try to try.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
/// The longest wait between two tries: a returned cluster is found again within a second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// What of the stream is wanted.
#[derive(Clone, Debug, Default)]
pub struct WatchFilter {
    /// Only this service.
    pub service: Option<ServiceName>,
    /// Only this type, as in `active.changed`.
    pub kind: Option<String>,
    /// Begin after this revision instead of with a snapshot.
    pub after: Option<Revision>,
}

impl WatchFilter {
    fn path(&self) -> String {
        let mut query = Vec::new();
        if let Some(service) = &self.service {
            query.push(format!("service={service}"));
        }
        if let Some(kind) = &self.kind {
            query.push(format!("type={}", query_escape(kind)));
        }
        if query.is_empty() { "/v1/watch".to_owned() } else { format!("/v1/watch?{}", query.join("&")) }
    }
}

/// What comes out of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamItem {
    /// A connection stands.
    Connected {
        /// With which endpoint.
        endpoint: String,
    },
    /// How things stand: the first thing in a stream that does not resume, and what follows a reset.
    Snapshot {
        /// It holds all events up to here.
        revision: Option<Revision>,
        /// The state, as JSON.
        data: String,
    },
    /// Something happened.
    Event {
        /// What.
        event: Box<Event>,
        /// The same, exactly as it was sent.
        raw: String,
    },
    /// Nothing happened up to this revision that the filter lets through.
    Bookmark {
        /// The revision.
        revision: Revision,
    },
    /// The events between the last one and now are forgotten: what is known must be thrown away.
    Reset {
        /// Why, as it was sent.
        data: String,
    },
    /// Something that this version does not know: a newer server's event.
    Unknown {
        /// Its name.
        event: String,
        /// Its data.
        data: String,
    },
    /// The connection is gone; the next item tells of another, or of another failure.
    Lost {
        /// What was seen.
        why: String,
        /// How long the stream has been without a connection.
        down_for: Duration,
    },
}

/// `/v1/watch`, followed through every endpoint of a client.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    path: String,
    /// Which endpoint is, or will be, connected to.
    index: usize,
    connection: Option<Connection>,
    /// Items parsed and not handed out yet.
    ready: VecDeque<StreamItem>,
    /// All events up to here have come in; the connection is only looked at when all that came has been handed out.
    seen: Option<Revision>,
    tries: u32,
    lost_at: Option<tokio::time::Instant>,
    ever_connected: bool,
}

#[derive(Debug)]
struct Connection {
    response: Response,
    parser: SseParser,
}

impl EventStream {
    /// A stream that connects when it is first asked for an item.
    pub fn new(client: Client, filter: &WatchFilter) -> Self {
        Self {
            client,
            path: filter.path(),
            index: 0,
            connection: None,
            ready: VecDeque::new(),
            seen: filter.after,
            tries: 0,
            lost_at: None,
            ever_connected: false,
        }
    }

    /// Begins at another endpoint than the first, to spread many streams.
    #[must_use]
    pub fn starting_at(mut self, index: usize) -> Self {
        self.index = index;
        self
    }

    /// All events up to this revision have come in: where the stream will resume.
    pub fn seen(&self) -> Option<Revision> {
        self.seen
    }

    /// The next item. Dropping the future loses nothing, so it may stand in a `select!`.
    ///
    /// It fails only when no endpoint could be reached at the very beginning, or when a server refuses the stream for a
    /// reason that does not pass (a 4xx). Later losses are items, each followed by another try; whoever has had enough
    /// stops asking.
    pub async fn next(&mut self) -> Result<StreamItem, ClientError> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item);
            }
            let Some(connection) = &mut self.connection else {
                return self.connect().await;
            };
            let chunk = match tokio::time::timeout(SILENCE_MAX, connection.response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Ok(self.lose("the server ended the stream".to_owned())),
                Ok(Err(error)) => return Ok(self.lose(root(&error.without_url()))),
                Err(_) => return Ok(self.lose(format!("nothing came for {} s", SILENCE_MAX.as_secs()))),
            };
            self.take(&chunk)?;
        }
    }

    fn lose(&mut self, why: String) -> StreamItem {
        self.connection = None;
        self.index = self.index.wrapping_add(1);
        let now = tokio::time::Instant::now();
        let since = *self.lost_at.get_or_insert(now);
        StreamItem::Lost { why, down_for: now.duration_since(since) }
    }

    async fn connect(&mut self) -> Result<StreamItem, ClientError> {
        let count = u32::try_from(self.client.endpoints().count()).unwrap_or(u32::MAX);
        // Each endpoint is tried once without waiting; then the waits grow.
        if self.tries >= count {
            let doublings = ((self.tries - count) / count).min(10);
            tokio::time::sleep((BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_MAX)).await;
        }
        let last = self.seen.map(|revision| revision.to_string());
        self.tries = self.tries.saturating_add(1);
        match self.client.open_stream(self.index, &self.path, last.as_deref(), SILENCE_MAX).await {
            Ok(response) => {
                let endpoint = response.url().origin().ascii_serialization();
                self.connection = Some(Connection { response, parser: SseParser::default() });
                self.tries = 0;
                self.lost_at = None;
                self.ever_connected = true;
                Ok(StreamItem::Connected { endpoint })
            }
            Err(ClientError::Problem(problem)) if problem.status < 500 => Err(ClientError::Problem(problem)),
            Err(error) if !self.ever_connected && self.tries >= count => Err(error),
            Err(error) => Ok(self.lose(error.to_string())),
        }
    }

    /// Parses what came, and drops what was handed out before: a repeat would be told as news.
    fn take(&mut self, chunk: &Bytes) -> Result<(), ClientError> {
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let frames = connection
            .parser
            .push(chunk)
            .map_err(|error| ClientError::Unexpected { what: format!("GET {}", self.path), why: error.to_string() })?;
        for frame in frames {
            let item = item(frame);
            match &item {
                StreamItem::Event { event, .. } => {
                    if self.seen.is_some_and(|seen| event.revision <= seen) {
                        continue;
                    }
                    self.seen = Some(event.revision);
                }
                StreamItem::Snapshot { revision: Some(revision), .. } | StreamItem::Bookmark { revision } => {
                    self.seen = Some(*revision);
                }
                // What comes after it may have any number: after a restore, or from another cluster.
                StreamItem::Reset { .. } => self.seen = None,
                StreamItem::Snapshot { revision: None, .. }
                | StreamItem::Connected { .. }
                | StreamItem::Unknown { .. }
                | StreamItem::Lost { .. } => {}
            }
            self.ready.push_back(item);
        }
        Ok(())
    }
}

fn item(frame: Frame) -> StreamItem {
    let revision = frame.id.as_deref().and_then(|id| id.parse().ok());
    match (frame.event.as_str(), revision) {
        (STREAM_SNAPSHOT, revision) => StreamItem::Snapshot { revision, data: frame.data },
        (STREAM_BOOKMARK, Some(revision)) => StreamItem::Bookmark { revision },
        (STREAM_RESET, _) => StreamItem::Reset { data: frame.data },
        _ => match serde_json::from_str::<Event>(&frame.data) {
            Ok(event) => StreamItem::Event { event: Box::new(event), raw: frame.data },
            Err(_) => StreamItem::Unknown { event: cut(&frame.event), data: frame.data },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn event(revision: Revision) -> String {
        format!(
            "id: {revision}\nevent: node.joined\ndata: {{\"revision\":{revision},\"time\":\"2026-11-20T10:42:00.123Z\",\
             \"type\":\"node.joined\",\"node\":1,\"reason\":\"it came\"}}\n\n"
        )
    }

    /// Serves each of `bodies` as one stream that ends, and tells the heads of the requests.
    fn server(bodies: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let thread = std::thread::spawn(move || {
            let mut heads = Vec::new();
            for body in bodies {
                let (mut socket, _) = listener.accept().expect("a client comes");
                let mut buffer = [0; 4096];
                let length = socket.read(&mut buffer).expect("it sends");
                heads.push(String::from_utf8_lossy(&buffer[..length]).to_lowercase());
                let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
                socket.write_all(head.as_bytes()).and_then(|()| socket.write_all(body.as_bytes())).expect("it reads");
            }
            heads
        });
        (url, thread)
    }

    #[tokio::test]
    async fn a_stream_goes_on_at_another_endpoint_without_gap_or_repeat() {
        let half = event(8).replace("\n\n", "\n");
        let (one, first) =
            server(vec![format!("event: snapshot\nid: 5\ndata: {{}}\n\n{}{}{half}", event(6), event(7))]);
        let (two, second) =
            server(vec![format!("{}{}: beat\n\nid: 9\nevent: bookmark\ndata: {{}}\n\n", event(7), event(8))]);
        let client = Client::new([one, two]).expect("both are endpoints");
        let mut stream =
            EventStream::new(client, &WatchFilter { kind: Some("node.*".to_owned()), ..Default::default() });
        let mut told = Vec::new();
        while told.last() != Some(&"bookmark 9".to_owned()) {
            told.push(match stream.next().await.expect("both servers answer") {
                StreamItem::Connected { .. } => "connected".to_owned(),
                StreamItem::Snapshot { revision, .. } => format!("snapshot {revision:?}"),
                StreamItem::Event { event, .. } => format!("event {}", event.revision),
                StreamItem::Bookmark { revision } => format!("bookmark {revision}"),
                StreamItem::Lost { .. } => "lost".to_owned(),
                StreamItem::Reset { .. } | StreamItem::Unknown { .. } => "strange".to_owned(),
            });
        }
        let wanted =
            ["connected", "snapshot Some(5)", "event 6", "event 7", "lost", "connected", "event 8", "bookmark 9"];
        assert_eq!(told, wanted);
        assert_eq!(stream.seen(), Some(9));
        let heads = [first.join().expect("it ends"), second.join().expect("it ends")].concat();
        assert!(heads[0].starts_with("get /v1/watch?type=node.%2a http/1.1"), "{}", heads[0]);
        assert!(!heads[0].contains("last-event-id"), "{}", heads[0]);
        assert!(heads[1].contains("last-event-id: 7"), "{}", heads[1]);
    }

    #[tokio::test]
    async fn a_reset_forgets_what_was_seen() {
        let (url, _server) = server(vec![format!("{}event: reset\ndata: {{}}\n\n{}", event(50), event(3))]);
        let client = Client::new([url]).expect("an endpoint");
        let mut stream = EventStream::new(client, &WatchFilter::default());
        let mut revisions = Vec::new();
        loop {
            match stream.next().await.expect("the server answers") {
                StreamItem::Event { event, .. } => revisions.push(event.revision),
                StreamItem::Lost { .. } => break,
                StreamItem::Connected { .. }
                | StreamItem::Snapshot { .. }
                | StreamItem::Bookmark { .. }
                | StreamItem::Reset { .. }
                | StreamItem::Unknown { .. } => {}
            }
        }
        assert_eq!(revisions, [50, 3]);
    }

    #[tokio::test]
    async fn a_stream_that_never_stood_fails() {
        let client = Client::new(["127.0.0.1:1", "127.0.0.1:2"]).expect("endpoints");
        let mut stream = EventStream::new(client, &WatchFilter::default());
        assert!(matches!(stream.next().await, Ok(StreamItem::Lost { .. })));
        assert!(matches!(stream.next().await, Err(ClientError::NoConnection { .. })));
    }
}
