//! A reader of event streams, written from the WHATWG's description of them and not from Baton's.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::http::Api;

/// The longest line that is taken: a snapshot of everything is one line.
const LINE_MAX: usize = 32 * 1024 * 1024;

/// One dispatched event.
#[derive(Clone, Debug)]
pub(crate) struct SseEvent {
    /// The last `id` seen.
    pub(crate) id: String,
    /// Its name; `message` where none was given.
    pub(crate) event: String,
    /// Its data as JSON, null where it is none.
    pub(crate) data: Value,
}

/// An open stream.
pub(crate) struct Stream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    scanned: usize,
    id: String,
    event: String,
    data: Vec<String>,
    /// Comments seen, which servers send to keep a connection alive.
    pub(crate) comments: usize,
}

impl Stream {
    /// Opens a stream, which must be granted; `last` is sent as `Last-Event-ID`.
    pub(crate) async fn open(api: &Api, path: &str, last: Option<&str>) -> Self {
        Self::try_open(api, path, last).await.unwrap_or_else(|error| panic!("no stream: {error}"))
    }

    /// Opens a stream.
    pub(crate) async fn try_open(api: &Api, path: &str, last: Option<&str>) -> Result<Self, String> {
        let mut call = api.call(Method::GET, path).header("accept", "text/event-stream");
        if let Some(id) = last {
            call = call.header("last-event-id", id);
        }
        let response = call.open().await?;
        let kind = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
        if response.status().as_u16() != 200 || !kind.starts_with("text/event-stream") {
            return Err(format!("{} {kind}: {:?}", response.status(), response.text().await));
        }
        let (id, event) = (last.unwrap_or_default().to_owned(), String::new());
        Ok(Self { response, buffer: Vec::new(), scanned: 0, id, event, data: Vec::new(), comments: 0 })
    }

    /// The next event, whatever it is; or why none came in time.
    pub(crate) async fn next(&mut self, deadline: Duration) -> Result<SseEvent, String> {
        let end = Instant::now() + deadline;
        loop {
            while let Some(line) = self.line() {
                if let Some(event) = self.take(&line) {
                    return Ok(event);
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, self.response.chunk()).await {
                Err(_) => return Err("the stream is silent".to_owned()),
                Ok(Ok(Some(bytes))) => self.buffer.extend_from_slice(&bytes),
                Ok(Ok(None)) => return Err("the server ended the stream".to_owned()),
                Ok(Err(error)) => return Err(format!("the stream broke: {error:?}")),
            }
            assert!(self.buffer.len() < LINE_MAX, "a line longer than {LINE_MAX} bytes");
        }
    }

    /// The next entry of the history, past bookmarks; it must come in time. A `reset` is never expected here.
    #[track_caller]
    pub(crate) fn change(&mut self, deadline: Duration) -> impl Future<Output = SseEvent> {
        let caller = std::panic::Location::caller();
        async move {
            let end = Instant::now() + deadline;
            loop {
                let event = self
                    .next(end.saturating_duration_since(Instant::now()))
                    .await
                    .unwrap_or_else(|why| panic!("{caller}: no event within {deadline:?}: {why}"));
                match event.event.as_str() {
                    "bookmark" => {}
                    "reset" => panic!("{caller}: an unexpected reset: {event:?}"),
                    _ => return event,
                }
            }
        }
    }

    /// The next change of this type about which `wanted` says yes.
    pub(crate) async fn change_where(
        &mut self,
        deadline: Duration,
        kind: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> SseEvent {
        let end = Instant::now() + deadline;
        let mut seen: Vec<String> = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no such {kind} within {deadline:?}; seen: {seen:#?}");
            match self.next(left).await {
                Ok(event) if event.data["type"] == kind && wanted(&event.data) => return event,
                Ok(event) => seen.push(format!("{} {} {}", event.id, event.event, event.data["reason"])),
                Err(why) => panic!("no such {kind} within {deadline:?}: {why}; seen: {seen:#?}"),
            }
        }
    }

    /// One line without its end, if a whole one is there. LF, CR LF; a lone CR is not used by anybody.
    fn line(&mut self) -> Option<String> {
        let end = self.buffer[self.scanned..].iter().position(|&b| b == b'\n');
        let Some(end) = end.map(|found| found + self.scanned) else {
            self.scanned = self.buffer.len();
            return None;
        };
        let rest = self.buffer.split_off(end + 1);
        let line = std::mem::replace(&mut self.buffer, rest);
        self.scanned = 0;
        let line = String::from_utf8(line).expect("an event stream is UTF-8");
        Some(line.trim_end_matches('\n').trim_end_matches('\r').to_owned())
    }

    fn take(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            let data = std::mem::take(&mut self.data);
            if data.is_empty() {
                return None;
            }
            let data = serde_json::from_str(&data.join("\n")).unwrap_or(Value::Null);
            let event = if event.is_empty() { "message".to_owned() } else { event };
            return Some(SseEvent { id: self.id.clone(), event, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "id" => self.id = value.to_owned(),
            "event" => self.event = value.to_owned(),
            "data" => self.data.push(value.to_owned()),
            _ => {}
        }
        None
    }
}

impl SseEvent {
    /// Its id as a revision.
    #[track_caller]
    pub(crate) fn revision(&self) -> u64 {
        self.id.parse().unwrap_or_else(|_| panic!("an id that is no revision: {self:?}"))
    }
}
