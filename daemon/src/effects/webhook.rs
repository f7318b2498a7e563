//! The webhook: one signed POST, whose status is the answer. It goes only where a probe may go; it follows no redirect,
//! since a redirect is not a confirmation; and nothing of the answer is read but its status, so that nobody can use the
//! cluster to read what only the cluster can reach.

use std::sync::atomic::{AtomicBool, Ordering};

use baton_core::id::{InstanceId, NodeId, ServiceName, Token, TransitionId};
use baton_core::policy::{Address, CheckTls};
use baton_core::time::{Millis, WallTime};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};

use super::hook::{HookAsk, HookMeans, Told};
use crate::net::target::fault::Fault;
use crate::net::target::tls::TlsPlan;
use crate::net::target::{http1, tcp};

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// What the receiver's log should show.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("baton-webhook/", env!("CARGO_PKG_VERSION")));

/// The event's type, by which a receiver tells it from others that may come one day.
const KIND: &str = "fencing.requested";

/// A webhook's server is verified by whom this node trusts.
const VERIFIED: CheckTls = CheckTls { verify: true, server_name: None, ca: None };

/// The body: the form that Standard Webhooks recommends.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: WallTime,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    action: &'static str,
    transition: TransitionId,
    attempt: u32,
    service: &'a ServiceName,
    instance: &'a InstanceId,
    address: Option<String>,
    token: Option<Token>,
    reason: &'a str,
    node: NodeId,
}

/// Where a request goes, taken from a URL.
struct Target {
    tls: bool,
    address: Address,
    /// As it stands in the URL, for the Host header and for people. A path may hold a secret; this does not.
    authority: String,
    path: PathAndQuery,
}

/// Posts to `url` once.
pub(super) async fn call(url: &str, timeout: Millis, ask: &HookAsk, means: &HookMeans) -> Told {
    let Some(target) = Target::of(url) else {
        return Told::failure("fencing.hook.url is not a URL that this version can call");
    };
    let signed =
        if means.config.secret.is_some() { "signed" } else { "not signed: this node has no [webhooks] secret" };
    if means.config.secret.is_none() && !means.unsigned_said.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            "webhooks are not signed, so whoever gets them cannot know that they are from here: this node has no [webhooks] secret"
        );
    }
    let to = format!("the webhook at {} ({signed})", target.authority);
    // Whether anything may have been sent: from then on a failure does not mean that nothing was done.
    let asked = AtomicBool::new(false);
    let unknown = "whether it cut the holder off is not known";
    match tokio::time::timeout(timeout.as_duration(), post(&target, ask, means, &asked)).await {
        Ok(Ok(status)) => Told {
            // 202 says that it was heard, not that it was done (RFC 9110, 15.3.3).
            ok: (200..300).contains(&status) && status != 202,
            code: None,
            status: Some(status),
            detail: match status {
                300..400 => format!("{to} answered {status}: redirects are not followed"),
                202 => format!("{to} answered 202, which says that it will be done and not that it was"),
                _ => format!("{to} answered {status}"),
            },
        },
        Ok(Err(Fault::Target { detail, .. } | Fault::Node { detail })) if asked.load(Ordering::Relaxed) => {
            Told::failure(format!("{to}: {detail}; {unknown}"))
        }
        Ok(Err(Fault::Target { detail, .. } | Fault::Node { detail })) => Told::failure(format!("{to}: {detail}")),
        Err(_) if asked.load(Ordering::Relaxed) => {
            Told::failure(format!("{to} did not answer within {timeout}: {unknown}"))
        }
        Err(_) => Told::failure(format!("{to}: no connection within {timeout}")),
    }
}

impl Target {
    /// Specs are validated when they are stored, so `None` speaks of a spec from elsewhere.
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let tls = match uri.scheme()? {
            scheme if *scheme == Scheme::HTTPS => true,
            scheme if *scheme == Scheme::HTTP => false,
            _ => return None,
        };
        let authority = uri.authority()?.as_str().to_owned();
        let port = if tls { 443 } else { 80 };
        let address =
            authority.parse::<Address>().or_else(|_| format!("{authority}:{port}").parse::<Address>()).ok()?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some(Self { tls, address, authority, path })
    }
}

/// Connects, asks, and answers the status.
async fn post(target: &Target, ask: &HookAsk, means: &HookMeans, asked: &AtomicBool) -> Result<u16, Fault> {
    let Address { host, port } = &target.address;
    let request = request(target, ask, means)?;
    let now = means.clock.now();
    let tls = if target.tls {
        let plan = TlsPlan::of(&VERIFIED, Some(http1::ALPN))
            .map_err(|error| Fault::Node { detail: format!("TLS: {error}") })?;
        plan.prepare(&means.roots, now).await?;
        Some(plan)
    } else {
        None
    };
    let stream = tcp::connect(&means.resolver, host, *port).await?;
    tcp::without_delay(&stream);
    match tls {
        Some(plan) => {
            let stream = plan.shake(host, stream, &means.roots, now).await?;
            send(stream, request, asked).await
        }
        None => send(stream, request, asked).await,
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
    asked: &AtomicBool,
) -> Result<u16, Fault> {
    asked.store(true, Ordering::Relaxed);
    let (response, _) = http1::send(stream, request).await?;
    Ok(response.status().as_u16())
}

fn request(target: &Target, ask: &HookAsk, means: &HookMeans) -> Result<Request<Full<Bytes>>, Fault> {
    let unsayable =
        |error: &dyn std::error::Error| Fault::Node { detail: format!("the request cannot be made: {error}") };
    // Labels of this node's wall clock: receivers refuse what is minutes old, and nothing here is decided by it.
    let time = jiff::Timestamp::now();
    let id = format!("{}.{}", ask.transition, ask.attempt);
    let data = Data {
        action: "off",
        transition: ask.transition,
        attempt: ask.attempt,
        service: &ask.service,
        instance: &ask.instance,
        address: ask.address.as_ref().map(Address::to_string),
        token: ask.token,
        reason: &ask.reason,
        node: means.node,
    };
    let body = Body { r#type: KIND, timestamp: WallTime(time.as_millisecond()), data };
    let body = serde_json::to_vec(&body).map_err(|error| unsayable(&error))?;
    let value = |text: &str| HeaderValue::try_from(text).map_err(|error| unsayable(&error));
    let signature = means.config.secret.as_ref().map(|secret| secret.sign(&id, time.as_second(), &body));

    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from(target.path.clone());
    let headers = request.headers_mut();
    headers.insert(HOST, value(&target.authority)?);
    headers.insert(USER_AGENT, AGENT);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    headers.insert(ID, value(&id)?);
    headers.insert(TIMESTAMP, HeaderValue::from(time.as_second()));
    if let Some(signature) = signature {
        headers.insert(SIGNATURE, value(&signature)?);
    }
    Ok(request)
}
