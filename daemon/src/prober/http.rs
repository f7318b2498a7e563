//! The HTTP check: one HTTP/1.1 request on a connection of its own. No redirects, no proxy, no pool, no retry: what is
//! asked is this instance, once. Whatever it answers costs bounded memory; the caller bounds the time.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use baton_core::probe::{FailureClass, class_of_status};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fault::Fault;
use super::plan::HttpPlan;
use super::probe::{Progress, Stage};

/// The most of a body that is looked at. A health page that says what matters later than this says it too late.
const BODY_MAX: usize = 64 * 1024;

/// The most bytes of a status line and headers that are taken in. Of headers there may be 100, as is hyper's own limit: to
/// set another, even the same, costs it an allocation for each answer.
const HEAD_MAX: usize = 32 * 1024;

/// What the instance's log should show.
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("baton-probe/", env!("CARGO_PKG_VERSION")));

/// A stream that is not shut down when hyper is done with it: how it ends is decided by whoever owns it.
struct Unended<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Unended<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The connection under a request. It makes progress only while somebody drives it, so no task is needed for it.
struct Driven<S: AsyncRead + AsyncWrite + Unpin> {
    connection: http1::Connection<TokioIo<Unended<S>>, Empty<Bytes>>,
    over: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driven<S> {
    /// Runs `work` with the connection under it. How the connection ends, `work` is told by its own error.
    async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if !self.over && Pin::new(&mut self.connection).poll(context).is_ready() {
                self.over = true;
            }
            match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Asks over `stream` and judges the answer. `authority` is what the Host header says unless the check says otherwise.
pub(crate) async fn ask(
    plan: &HttpPlan,
    authority: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), Fault> {
    progress.reached(Stage::Head);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake::<_, Empty<Bytes>>(TokioIo::new(Unended(stream)))
        .await
        .map_err(|error| Fault::of_hyper("HTTP/1.1", &error))?;
    let mut driven = Driven { connection, over: false };
    let request = request(plan, authority)?;
    let response =
        driven.run(sender.send_request(request)).await.map_err(|error| Fault::of_hyper("HTTP/1.1", &error))?;
    let status = response.status().as_u16();
    if !plan.expect_status.iter().any(|range| range.contains(status)) {
        return Err(Fault::target(class_of_status(status), format!("answered {status}")));
    }
    let Some(pattern) = &plan.expect_body else { return Ok(()) };
    progress.reached(Stage::Body);
    driven.run(judge_body(response, pattern)).await
}

fn request(plan: &HttpPlan, authority: &str) -> Result<Request<Empty<Bytes>>, Fault> {
    // An address is a host and a port, both parsed long ago, so this holds; were it not so, it is no instance's fault.
    let host = HeaderValue::try_from(authority)
        .map_err(|error| Fault::Node { detail: format!("no Host header can be made of \"{authority}\": {error}") })?;
    let mut request = Request::new(Empty::new());
    *request.method_mut() = plan.method.clone();
    *request.uri_mut() = plan.target.clone();
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, AGENT);
    headers.extend(plan.headers.clone());
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn judge_body(response: Response<Incoming>, pattern: &Regex) -> Result<(), Fault> {
    let mut body = response.into_body();
    let mut kept: Vec<u8> = Vec::new();
    while kept.len() < BODY_MAX
        && let Some(frame) = body.frame().await
    {
        if let Ok(data) = frame.map_err(|error| Fault::of_hyper("HTTP/1.1", &error))?.into_data() {
            kept.extend_from_slice(&data[..data.len().min(BODY_MAX - kept.len())]);
        }
    }
    if pattern.is_match(&kept) {
        return Ok(());
    }
    // The body is never repeated: it may hold what only the instance's own people should read.
    let seen = if kept.len() == BODY_MAX { "the first 65536 bytes" } else { "all" };
    Err(Fault::target(
        FailureClass::Malformed,
        format!("the body does not match expect_body ({} bytes, {seen} looked at)", kept.len()),
    ))
}
