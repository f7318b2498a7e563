//! Requests to a node, and answers as a stranger reads them: a status, headers, JSON.

use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;
use tokio::runtime::Handle;

/// Time for one request where the test says nothing else: more than the 2 s within which a node must say 503.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(3);

/// One node's API.
#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    client: Client,
    /// The runtime of a thread inside a network namespace, where the node lives in one.
    inside: Option<Handle>,
}

/// An answer, read to its end.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The request, for messages.
    asked: String,
    /// The status code.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) text: String,
    /// The body as JSON, null where it is none.
    pub(crate) json: Value,
    /// From the request to the end of the answer.
    pub(crate) took: Duration,
}

/// A request in the making.
pub(crate) struct Call {
    asked: String,
    builder: RequestBuilder,
    inside: Option<Handle>,
}

impl Api {
    /// The API at `base`, such as `http://127.0.0.1:7400`; `inside`: asked from there instead of from here.
    pub(crate) fn new(base: String, inside: Option<Handle>) -> Self {
        // No connection is kept: a node that is killed and restarted must not be judged by a dead connection to it.
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .connect_timeout(CONNECT)
            .build()
            .expect("an HTTP client");
        Self { base, client, inside }
    }

    /// Where it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A request in the making.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call {
        let asked = format!("{method} {}{path}", self.base);
        let builder = self.client.request(method, format!("{}{path}", self.base));
        Call { asked, builder, inside: self.inside.clone() }
    }

    /// GET, which must be answered.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path).answer().await
    }

    /// PUT of JSON, which must be answered.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::PUT, path).json(body).answer().await
    }

    /// POST of JSON, which must be answered.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(Method::POST, path).json(body).answer().await
    }

    /// DELETE, which must be answered.
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.call(Method::DELETE, path).answer().await
    }

    /// Everything in a list, page by page; `path` may have a query.
    pub(crate) async fn all(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut next = format!("{path}{}limit=500", if path.contains('?') { '&' } else { '?' });
        loop {
            let page = self.get(&next).await.is(200);
            items.extend(page.items().iter().cloned());
            match page.next_cursor() {
                Some(cursor) => {
                    next = format!("{path}{}limit=500&cursor={cursor}", if path.contains('?') { '&' } else { '?' });
                }
                None => return items,
            }
        }
    }
}

impl Call {
    /// With this JSON.
    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.builder = self.builder.json(body);
        self
    }

    /// With this text, said to be JSON whatever it is.
    pub(crate) fn raw(mut self, body: &str) -> Self {
        self.builder = self.builder.header("content-type", "application/json").body(body.to_owned());
        self
    }

    /// With this header.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    /// Asks; an error text when no answer came in time.
    pub(crate) async fn send(self, patience: Duration) -> Result<Answer, String> {
        let Self { asked, builder, inside } = self;
        let work = async move {
            let begun = Instant::now();
            let failed = |error: reqwest::Error| format!("{asked}: no answer after {:?}: {error:?}", begun.elapsed());
            let response = builder.timeout(patience).send().await.map_err(failed)?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let text = response.text().await.map_err(failed)?;
            let json = serde_json::from_str(&text).unwrap_or(Value::Null);
            Ok(Answer { asked, status, headers, text, json, took: begun.elapsed() })
        };
        match inside {
            Some(runtime) => runtime.spawn(work).await.expect("the thread inside the namespace lives"),
            None => work.await,
        }
    }

    /// Asks; no answer fails the test.
    pub(crate) async fn answer(self) -> Answer {
        self.send(PATIENCE).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Asks and hands out the response as soon as its headers are there, for streams.
    pub(crate) async fn open(self) -> Result<reqwest::Response, String> {
        let Self { asked, builder, inside } = self;
        let work = async move { builder.send().await.map_err(|error| format!("{asked}: {error:?}")) };
        match inside {
            Some(runtime) => runtime.spawn(work).await.expect("the thread inside the namespace lives"),
            None => work.await,
        }
    }
}

impl Answer {
    /// The status must be this one.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{} was answered: {}", self.asked, self.text);
        self
    }

    /// The status must be 200 or 201.
    #[track_caller]
    pub(crate) fn done(self) -> Self {
        assert!(matches!(self.status, 200 | 201), "{} was answered {}: {}", self.asked, self.status, self.text);
        self
    }

    /// It must be a problem with this status: RFC 9457, with a code.
    #[track_caller]
    pub(crate) fn problem(self, status: u16) -> Self {
        let answer = self.is(status);
        let (asked, text) = (&answer.asked, &answer.text);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{asked}: {text}");
        assert_eq!(answer.json["status"], status, "{asked}: {text}");
        for field in ["type", "title", "detail", "code"] {
            assert!(answer.json[field].as_str().is_some_and(|s| !s.is_empty()), "{asked}: no {field} in {text}");
        }
        answer
    }

    /// The problem's code must be this one.
    #[track_caller]
    pub(crate) fn code(self, code: &str) -> Self {
        assert_eq!(self.json["code"], code, "{}: {}", self.asked, self.text);
        self
    }

    /// A header, empty where it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The last event that the node had applied.
    #[track_caller]
    pub(crate) fn revision(&self) -> u64 {
        self.number("baton-revision")
    }

    /// How old the node's knowledge may be, in milliseconds.
    #[track_caller]
    pub(crate) fn staleness(&self) -> u64 {
        self.number("baton-staleness-ms")
    }

    #[track_caller]
    fn number(&self, header: &str) -> u64 {
        let text = self.header(header);
        text.parse().unwrap_or_else(|_| panic!("{}: header {header} is {text:?}; body {}", self.asked, self.text))
    }

    /// The items of a list.
    #[track_caller]
    pub(crate) fn items(&self) -> &[Value] {
        self.json["items"].as_array().unwrap_or_else(|| panic!("{}: no list of items: {}", self.asked, self.text))
    }

    /// Where the next page of a list begins, if there is one.
    pub(crate) fn next_cursor(&self) -> Option<&str> {
        self.json["next_cursor"].as_str()
    }
}
