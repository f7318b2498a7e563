//! Requests to a cluster through a list of endpoints, tried in turn. Paths and bodies only: what the answers mean is
//! said by the types that the caller asks for. Following the event stream is `sse`'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Method, Response, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{ClientError, cut, list, root};
use crate::view::Problem;

/// How long a connection may take to be made. A LAN needs milliseconds; beyond this the next endpoint is the better bet.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an answer may take. Servers give up after 2 s without a quorum, so longer means that nobody is at home.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the list of endpoints is gone through. Twice, so that a server that is just restarting is found.
const ROUNDS: usize = 2;
/// The wait between two rounds.
const ROUND_PAUSE: Duration = Duration::from_millis(150);
/// The longest answer that is read. The largest honest one is a page of a thousand services.
const ANSWER_MAX: usize = 64 << 20;
/// The word of a node that is about to end. It is said before anything is done and never after, so that the request may be
/// put to another node as if it had not been sent. (A heartbeat may have been heard; one that is heard twice is one.)
const STOPPING: &str = "stopping";
/// Pages followed before a list is called endless.
const PAGES_MAX: usize = 1_000;

/// A page of a list as the API sends it.
#[derive(Clone, Debug, Deserialize)]
pub struct Pages<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// Where the next one begins; absent on the last.
    #[serde(default)]
    pub next_cursor: Option<String>,
}

/// A client of one cluster. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    endpoints: Arc<[Url]>,
    /// The endpoint that answered last: it is asked first.
    first: Arc<AtomicUsize>,
    answer_timeout: Duration,
}

/// What one try came to.
enum Tried {
    Answer(Response),
    /// Nothing was sent: anything may be tried elsewhere.
    NotSent(String),
    /// It was sent and the answer is missing: only what changes nothing may be tried elsewhere.
    NoAnswer(String),
}

impl Client {
    /// A client that asks `endpoints`, like `http://127.0.0.1:7400`, in turn.
    pub fn new<S: AsRef<str>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self, ClientError> {
        let endpoints = endpoints.into_iter().map(|text| endpoint(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(ClientError::Endpoint { endpoint: String::new(), why: "there is none".to_owned() });
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect or a proxy would hide which node answered, and tries are counted here and nowhere else.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .user_agent(concat!("baton/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Unexpected { what: "building a client".to_owned(), why: root(&error) })?;
        Ok(Self {
            http,
            endpoints: endpoints.into(),
            first: Arc::new(AtomicUsize::new(0)),
            answer_timeout: ANSWER_TIMEOUT,
        })
    }

    /// The same client with another limit for one answer.
    #[must_use]
    pub fn answer_within(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
        self
    }

    /// The endpoints in the order given.
    pub fn endpoints(&self) -> impl Iterator<Item = &str> {
        self.endpoints.iter().map(|url| url.as_str().trim_end_matches('/'))
    }

    /// Reads `path`. Since reading changes nothing, it is tried at the next endpoint after any failure of the way.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let body = self.send(Method::GET, path, None).await?;
        parsed(&format!("GET {path}"), &body)
    }

    /// Reads `path` as text.
    pub async fn get_text(&self, path: &str) -> Result<String, ClientError> {
        let body = self.send(Method::GET, path, None).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// Reads every page of the list at `path`.
    pub async fn get_all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        let mut all = Vec::new();
        let mut next = path.to_owned();
        for _ in 0..PAGES_MAX {
            let page: Pages<T> = self.get(&next).await?;
            all.extend(page.items);
            let Some(cursor) = page.next_cursor else { return Ok(all) };
            next = format!("{path}{}cursor={}", if path.contains('?') { '&' } else { '?' }, query_escape(&cursor));
        }
        Err(ClientError::Unexpected {
            what: format!("GET {path}"),
            why: format!("the list has not ended after {PAGES_MAX} pages"),
        })
    }

    /// Stores `body` at `path`. Tried at the next endpoint only while nothing has been sent, or the node was stopping.
    pub async fn put<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.write(Method::PUT, path, Some(body)).await
    }

    /// Changes a part of what is at `path`. Tried at the next endpoint only while nothing has been sent, or the node was stopping.
    pub async fn patch<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, ClientError> {
        self.write(Method::PATCH, path, Some(body)).await
    }

    /// Asks for an action. Tried at the next endpoint only while nothing has been sent, or the node was stopping.
    pub async fn post<B: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T, ClientError> {
        self.write(Method::POST, path, Some(body)).await
    }

    /// Removes what is at `path`. Tried at the next endpoint only while nothing has been sent, or the node was stopping.
    pub async fn delete(&self, path: &str) -> Result<(), ClientError> {
        self.send(Method::DELETE, path, None).await.map(|_| ())
    }

    /// Writes at one endpoint and nowhere else, within a limit for all of it. The endpoints are counted in a ring.
    pub(crate) async fn write_at<B: Serialize + Sync, T: DeserializeOwned>(
        &self,
        (method, index): (Method, usize),
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let endpoint = &self.endpoints[index % self.endpoints.len()];
        let what = format!("{method} {path}");
        let asked = async {
            match tried(self.http.request(method, join(endpoint, path)?).json(body).send().await) {
                Tried::Answer(answer) => self.read(&what, answer).await,
                Tried::NotSent(why) => {
                    Err(ClientError::NoConnection { tried: list(std::slice::from_ref(endpoint)), why })
                }
                Tried::NoAnswer(why) => {
                    Err(ClientError::NoAnswer { endpoint: list(std::slice::from_ref(endpoint)), why })
                }
            }
        };
        tokio::time::timeout(limit, asked).await.unwrap_or_else(|_| {
            let why = format!("nothing came within {} ms", limit.as_millis());
            Err(ClientError::NoAnswer { endpoint: list(std::slice::from_ref(endpoint)), why })
        })
    }

    async fn write<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
    ) -> Result<T, ClientError> {
        let what = format!("{method} {path}");
        let json = body.map(serde_json::to_vec).transpose().map_err(|error| ClientError::Unexpected {
            what: what.clone(),
            why: format!("the body cannot be written as JSON: {error}"),
        })?;
        let body = self.send(method, path, json).await?;
        parsed(&what, &body)
    }

    /// Goes through the endpoints, the one that answered last first, until one answers: the body of a good answer.
    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, ClientError> {
        let count = self.endpoints.len();
        let what = format!("{method} {path}");
        let mut why = String::new();
        let mut stopping = None;
        for round in 0..ROUNDS {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            let first = self.first.load(Ordering::Relaxed);
            for step in 0..count {
                let index = (first + step) % count;
                let url = join(&self.endpoints[index], path)?;
                let mut request = self.http.request(method.clone(), url).timeout(self.answer_timeout);
                if let Some(json) = &body {
                    request = request.header("content-type", "application/json").body(json.clone());
                }
                match tried(request.send().await) {
                    Tried::Answer(response) => match self.body(&what, response).await {
                        Err(error) if error.is_status(503) && error.code() == Some(STOPPING) => stopping = Some(error),
                        answer => {
                            self.first.store(index, Ordering::Relaxed);
                            return answer;
                        }
                    },
                    Tried::NotSent(reason) => why = reason,
                    Tried::NoAnswer(reason) if method == Method::GET && count > 1 => why = reason,
                    Tried::NoAnswer(reason) => {
                        return Err(ClientError::NoAnswer {
                            endpoint: list(&self.endpoints[index..=index]),
                            why: reason,
                        });
                    }
                }
            }
        }
        Err(stopping.unwrap_or_else(|| ClientError::NoConnection { tried: list(&self.endpoints), why }))
    }

    /// Opens a stream at one endpoint: without a limit for the whole answer, with one for silence.
    pub(crate) async fn open_stream(
        &self,
        index: usize,
        path: &str,
        last_event_id: Option<&str>,
        silence: Duration,
    ) -> Result<Response, ClientError> {
        let endpoint = &self.endpoints[index % self.endpoints.len()];
        let mut request = self.http.get(join(endpoint, path)?).header("accept", "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        // The server sends its head at once; only the body may be long in coming.
        let sent = tokio::time::timeout(silence, request.send()).await;
        let response = match sent.map(tried) {
            Ok(Tried::Answer(response)) => response,
            Ok(Tried::NotSent(why) | Tried::NoAnswer(why)) => {
                return Err(ClientError::NoConnection { tried: list(std::slice::from_ref(endpoint)), why });
            }
            Err(_) => {
                let why = format!("no answer within {} s", silence.as_secs());
                return Err(ClientError::NoConnection { tried: list(std::slice::from_ref(endpoint)), why });
            }
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let limit = tokio::time::timeout(silence, self.body(&format!("GET {path}"), response)).await;
        Err(match limit {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => ClientError::Unexpected {
                what: format!("GET {path}"),
                why: "no stream and no problem either".to_owned(),
            },
        })
    }

    async fn read<T: DeserializeOwned>(&self, what: &str, answer: Response) -> Result<T, ClientError> {
        parsed(what, &self.body(what, answer).await?)
    }

    /// The whole body of a good answer; the problem of another.
    async fn body(&self, what: &str, mut answer: Response) -> Result<Vec<u8>, ClientError> {
        let status = answer.status();
        let endpoint = answer.url().origin().ascii_serialization();
        let mut body = Vec::new();
        loop {
            match answer.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= ANSWER_MAX => body.extend_from_slice(&chunk),
                Ok(Some(_)) => {
                    let why = format!("it is longer than {} MiB", ANSWER_MAX >> 20);
                    return Err(ClientError::Unexpected { what: what.to_owned(), why });
                }
                Ok(None) => break,
                Err(error) => return Err(ClientError::NoAnswer { endpoint, why: root(&error.without_url()) }),
            }
        }
        if status.is_success() { Ok(body) } else { Err(problem(what, status.as_u16(), &body)) }
    }
}

fn parsed<T: DeserializeOwned>(what: &str, body: &[u8]) -> Result<T, ClientError> {
    // 204 and its like: "nothing" is a legal answer to whoever asked for nothing.
    let json: &[u8] = if body.is_empty() { b"null" } else { body };
    serde_json::from_slice(json)
        .map_err(|error| ClientError::Unexpected { what: what.to_owned(), why: cut(&error.to_string()) })
}

fn tried(sent: Result<Response, reqwest::Error>) -> Tried {
    match sent {
        Ok(response) => Tried::Answer(response),
        Err(error) if error.is_connect() => Tried::NotSent(root(&error.without_url())),
        Err(error) => Tried::NoAnswer(root(&error.without_url())),
    }
}

fn problem(what: &str, status: u16, body: &[u8]) -> ClientError {
    match serde_json::from_slice::<Problem>(body) {
        // The status line counts, not what the body says of it.
        Ok(problem) => ClientError::Problem(Box::new(Problem { status, ..problem })),
        Err(_) => {
            let shown = cut(&String::from_utf8_lossy(body));
            ClientError::Unexpected { what: what.to_owned(), why: format!("status {status} with \"{shown}\"") }
        }
    }
}

/// Parses `http://host:port`, or `host:port` for short.
fn endpoint(text: &str) -> Result<Url, ClientError> {
    let wrong = |why: &str| ClientError::Endpoint { endpoint: cut(text), why: why.to_owned() };
    let trimmed = text.trim();
    let full = if trimmed.contains("://") { trimmed.to_owned() } else { format!("http://{trimmed}") };
    let url: Url = full.parse().map_err(|error| wrong(&format!("{error}")))?;
    match url.scheme() {
        "http" => {}
        "https" => return Err(wrong("this version speaks plain http only")),
        _ => return Err(wrong("its scheme is not http")),
    }
    if !url.has_host() {
        return Err(wrong("it names no host"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a path"));
    }
    Ok(url)
}

fn join(endpoint: &Url, path: &str) -> Result<Url, ClientError> {
    endpoint
        .join(path)
        .map_err(|error| ClientError::Endpoint { endpoint: endpoint.to_string(), why: error.to_string() })
}

/// Escapes a value for a query string: all but the letters, digits and marks that need no escape (RFC 3986, 2.3).
pub(crate) fn query_escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn endpoints_are_parsed_once_and_strictly() {
        for good in ["http://127.0.0.1:7400", "127.0.0.1:7400", " localhost:1 ", "http://[::1]:7400/"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in ["", "http://", "https://h:1", "ftp://h", "http://h:1/x", "http://h:1?x", "http://h:99999"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert!(Client::new(Vec::<String>::new()).is_err());
    }

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(query_escape("a b&c=d/é"), "a%20b%26c%3Dd%2F%C3%A9");
    }

    #[test]
    fn a_refusal_is_read_as_a_problem_and_anything_else_is_not() {
        let body =
            br#"{"type":"about:blank","title":"Not Found","status":404,"detail":"gone","code":"no_such_service"}"#;
        let error = problem("GET /x", 404, body);
        assert_eq!((error.code(), error.is_status(404)), (Some("no_such_service"), true));
        assert!(matches!(problem("GET /x", 502, b"<html>"), ClientError::Unexpected { .. }));
    }

    /// Answers `answers` requests with `body`, one connection each, and tells how many it saw.
    fn server(body: &'static str, answers: usize) -> (String, std::thread::JoinHandle<usize>) {
        serving("200 OK", body, answers)
    }

    fn serving(status: &'static str, body: &'static str, answers: usize) -> (String, std::thread::JoinHandle<usize>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let thread = std::thread::spawn(move || {
            let mut seen = 0;
            for _ in 0..answers {
                let (mut socket, _) = listener.accept().expect("a client comes");
                let mut buffer = [0; 4096];
                assert!(socket.read(&mut buffer).expect("it sends") > 0);
                seen += 1;
                if !body.is_empty() {
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    socket
                        .write_all(head.as_bytes())
                        .and_then(|()| socket.write_all(body.as_bytes()))
                        .expect("it reads");
                }
            }
            seen
        });
        (url, thread)
    }

    /// An address that refuses: bound once, let go again.
    fn refusing() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        format!("http://{}", listener.local_addr().expect("it is bound"))
    }

    #[tokio::test]
    async fn a_dead_endpoint_is_stepped_over_for_reads_and_writes() {
        let (alive, thread) = server("7", 2);
        let client = Client::new([refusing(), alive]).expect("both are endpoints");
        assert_eq!(client.get::<u32>("/x").await.expect("the second answers"), 7);
        assert_eq!(client.put::<_, u32>("/x", &1).await.expect("the second answers"), 7);
        assert_eq!(thread.join().expect("the server ends"), 2);
    }

    #[tokio::test]
    async fn a_write_that_was_sent_is_not_sent_again() {
        let (broken, first) = server("", 1);
        let (alive, _second) = server("7", 1);
        let client = Client::new([broken, alive]).expect("both are endpoints");
        let error = client.put::<_, u32>("/x", &1).await.expect_err("its fate is unknown");
        assert!(matches!(error, ClientError::NoAnswer { .. }), "{error}");
        assert_eq!(first.join().expect("the server ends"), 1);
    }

    #[tokio::test]
    async fn a_node_that_is_stopping_has_done_nothing_so_the_next_is_asked() {
        const STOPS: &str = r#"{"type":"t","title":"It stops","status":503,"detail":"it stops","code":"stopping"}"#;
        const UNKNOWN: &str = r#"{"type":"t","title":"?","status":503,"detail":"look","code":"outcome_unknown"}"#;
        let (stopping, first) = serving("503 Service Unavailable", STOPS, 1);
        let (alive, second) = server("7", 2);
        let client = Client::new([stopping, alive]).expect("both are endpoints");
        assert_eq!(client.put::<_, u32>("/x", &1).await.expect("the second answers"), 7);
        assert_eq!(client.put::<_, u32>("/x", &2).await.expect("the second is asked first now"), 7);
        assert_eq!((first.join().expect("it ends"), second.join().expect("it ends")), (1, 2));

        // Where there is no other, that is the answer.
        let (alone, _) = serving("503 Service Unavailable", STOPS, ROUNDS);
        let client = Client::new([alone]).expect("an endpoint");
        let error = client.put::<_, u32>("/x", &1).await.expect_err("it stops");
        assert_eq!(error.code(), Some("stopping"), "{error}");

        // Any other 503 may be the word of somebody who has begun.
        let (unknown, _) = serving("503 Service Unavailable", UNKNOWN, 1);
        let (alive, _) = server("7", 1);
        let client = Client::new([unknown, alive]).expect("both are endpoints");
        let error = client.put::<_, u32>("/x", &1).await.expect_err("its fate is unknown");
        assert_eq!(error.code(), Some("outcome_unknown"), "{error}");
    }

    #[tokio::test]
    async fn a_read_goes_on_to_the_next_endpoint() {
        let (broken, _first) = server("", 1);
        let (alive, _second) = server("7", 1);
        let client = Client::new([broken, alive]).expect("both are endpoints");
        assert_eq!(client.get::<u32>("/x").await.expect("the second answers"), 7);
    }

    #[tokio::test]
    async fn nobody_there_is_said_as_such() {
        let error = Client::new([refusing()]).expect("an endpoint").get::<u32>("/x").await.expect_err("nobody listens");
        assert!(matches!(error, ClientError::NoConnection { .. }), "{error}");
    }
}
