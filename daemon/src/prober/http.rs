//! The HTTP check: one HTTP/1.1 request on a connection of its own. No redirects, no proxy, no pool, no retry: what is
//! asked is this instance, once. Whatever it answers costs bounded memory; the caller bounds the time.

use baton_core::probe::{FailureClass, class_of_status};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use regex::bytes::Regex;
use tokio::io::{AsyncRead, AsyncWrite};

use super::fault::Fault;
use super::plan::HttpPlan;
use super::probe::{Progress, Stage};
use crate::net::target::http1;

/// The most of a body that is looked at. A health page that says what matters later than this says it too late.
const BODY_MAX: usize = 64 * 1024;

/// What the instance's log should show.
pub(crate) const AGENT: HeaderValue = HeaderValue::from_static(concat!("baton-probe/", env!("CARGO_PKG_VERSION")));

/// Asks over `stream` and judges the answer. `authority` is what the Host header says unless the check says otherwise.
pub(crate) async fn ask(
    plan: &HttpPlan,
    authority: &str,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    progress: &Progress,
) -> Result<(), Fault> {
    progress.reached(Stage::Head);
    let (response, mut driven) = http1::send(stream, request(plan, authority)?).await?;
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
