//! The gRPC check: one call of `grpc.health.v1.Health/Check` over an HTTP/2 connection of its own, by prior knowledge or
//! over TLS. Whatever is answered costs bounded memory; the caller bounds the time. What the messages look like is
//! `health`'s. Source: gRPC's PROTOCOL-HTTP2.md and health-checking.md (<https://github.com/grpc/grpc/tree/master/doc>).

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use baton_core::probe::{FailureClass, class_of_grpc_status, class_of_status};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::Scheme;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::rt::Executor;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::Fault;
use super::health::{self, Answer};
use super::http::AGENT;
use super::probe::{Progress, Stage};

/// The largest message that is taken in. The one that is wanted has seven bytes; later versions may add to it.
const MESSAGE_MAX: usize = 4 * 1024;

/// The most bytes of headers that are taken in.
const HEAD_MAX: u32 = 16 * 1024;

/// How much a server may send before it is asked for more: one frame.
const WINDOW: u32 = 16 * 1024;

/// The method that is called.
const METHOD: &str = "/grpc.health.v1.Health/Check";

/// One call.
pub(crate) struct Call<'a> {
    pub(crate) scheme: Scheme,
    pub(crate) authority: String,
    /// The framed message.
    pub(crate) message: &'a Bytes,
    /// What the server is told about the time it has.
    pub(crate) timeout: Duration,
}

/// What hyper wants to run beside a request. It is run by whoever drives the request and by nobody else, so that nothing
/// of a probe outlives it. Weak, because the work itself holds this.
#[derive(Clone)]
struct Beside(Weak<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, work: F) {
        if let Some(queue) = self.0.upgrade() {
            queue.lock().unwrap_or_else(PoisonError::into_inner).push(Box::pin(work));
        }
    }
}

/// The connection under a call, and what runs beside it.
struct Driven<C> {
    connection: Option<Pin<Box<C>>>,
    queue: Arc<Mutex<Vec<BoxFuture<'static, ()>>>>,
    beside: Vec<BoxFuture<'static, ()>>,
}

impl<C: Future> Driven<C> {
    /// Runs `work` with the connection under it. How the connection ends, `work` is told by its own error.
    async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            self.advance(context);
            let done = work.as_mut().poll(context);
            // What the work has just asked for is begun now: nobody would wake it otherwise.
            self.advance(context);
            done
        })
        .await
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        if self.connection.as_mut().is_some_and(|connection| connection.as_mut().poll(context).is_ready()) {
            self.connection = None;
        }
        loop {
            let mut new = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
            let done = new.is_empty();
            self.beside.append(&mut new);
            self.beside.retain_mut(|work| matches!(work.as_mut().poll(context), Poll::Pending));
            if done {
                return;
            }
        }
    }
}

/// Calls over `stream` and judges the answer.
pub(crate) async fn ask(
    call: Call<'_>,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    progress: &Progress,
) -> Result<(), Fault> {
    progress.reached(Stage::Head);
    let of_hyper = |error: hyper::Error| Fault::of_hyper("HTTP/2", &error);
    let queue = Arc::default();
    let (mut sender, connection) = http2::Builder::new(Beside(Arc::downgrade(&queue)))
        .initial_stream_window_size(WINDOW)
        .max_header_list_size(HEAD_MAX)
        .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
        .await
        .map_err(of_hyper)?;
    let mut driven = Driven { connection: Some(Box::pin(connection)), queue, beside: Vec::new() };
    let request = request(call)?;
    let response = driven.run(sender.send_request(request)).await.map_err(of_hyper)?;
    let status = response.status().as_u16();
    if status != 200 {
        return Err(Fault::target(class_of_status(status), format!("answered {status}")));
    }
    let grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    if !response.headers().get(CONTENT_TYPE).is_some_and(grpc) {
        return Err(Fault::target(FailureClass::Malformed, "the answer is HTTP/2, but not gRPC"));
    }
    // One who has nothing but a failure to say may say it at once.
    if response.headers().contains_key(GRPC_STATUS) {
        judge_status(response.headers())?;
    }
    progress.reached(Stage::Body);
    driven.run(judge_body(response)).await
}

const GRPC_STATUS: &str = "grpc-status";

fn request(call: Call<'_>) -> Result<Request<Full<Bytes>>, Fault> {
    // An address is a host and a port, both parsed long ago, so this holds; were it not so, it is no instance's fault.
    let node = |error: http::Error| Fault::Node { detail: format!("no request can be made: {error}") };
    let uri = Uri::builder().scheme(call.scheme).authority(call.authority).path_and_query(METHOD).build();
    let timeout = format!("{}m", call.timeout.as_millis());
    Request::builder()
        .method(Method::POST)
        .uri(uri.map_err(node)?)
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .header("grpc-timeout", timeout)
        .body(Full::new(call.message.clone()))
        .map_err(node)
}

async fn judge_body(response: Response<Incoming>) -> Result<(), Fault> {
    let mut body = response.into_body();
    let mut message: Vec<u8> = Vec::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(|error| Fault::of_hyper("HTTP/2", &error))?.into_data() {
            Ok(data) if message.len() + data.len() > MESSAGE_MAX => {
                return Err(Fault::target(FailureClass::Malformed, "the answer is larger than 4096 bytes"));
            }
            Ok(data) => message.extend_from_slice(&data),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    judge_status(&trailers.unwrap_or_default())?;
    match health::response(&message) {
        Some(Answer::Serving) => Ok(()),
        Some(answer) => {
            let word = match answer {
                Answer::Unknown => "UNKNOWN",
                Answer::Serving => "SERVING",
                Answer::NotServing => "NOT_SERVING",
                Answer::ServiceUnknown => "SERVICE_UNKNOWN",
                Answer::Other(_) => "what the protocol does not know",
            };
            Err(Fault::target(FailureClass::Malformed, format!("grpc.health.v1 says {word}")))
        }
        None => Err(Fault::target(FailureClass::Malformed, "the answer is no HealthCheckResponse")),
    }
}

/// Judges `grpc-status`. Its message is never repeated: it may hold what only the instance's own people should read.
fn judge_status(headers: &HeaderMap) -> Result<(), Fault> {
    let status = headers.get(GRPC_STATUS).and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let Some(code) = status else {
        return Err(Fault::target(FailureClass::Malformed, "the answer ends without a grpc-status"));
    };
    match class_of_grpc_status(code) {
        None => Ok(()),
        Some(class) => Err(Fault::target(class, format!("answered with the gRPC status {}", Code(code)))),
    }
}

/// A status by its name.
struct Code(u32);

const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match usize::try_from(self.0).ok().and_then(|code| CODES.get(code)) {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}
