//! The headers that every answer carries, errors and streams included: how far this node has come, and how old that may
//! be.

use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use baton_core::id::Revision;

use super::ApiState;

/// The last event that is in the answer. Not the object's own revision: that is in the body.
pub(crate) const BATON_REVISION: HeaderName = HeaderName::from_static("baton-revision");
/// For how long the node has not heard a quorum (the leader) or its leader (the others); `unknown` where it never has.
pub(crate) const BATON_STALENESS: HeaderName = HeaderName::from_static("baton-staleness-ms");

/// Pages of ours hold their own style and script, talk to their own origin, and are framed by nobody.
const CSP: &str = "default-src 'self' 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Says in `headers` which revision the answer was made from.
pub(crate) fn set_revision(headers: &mut HeaderMap, revision: Revision) {
    headers.insert(BATON_REVISION, HeaderValue::from(revision));
}

/// Completes the headers of an answer.
pub(crate) async fn headers(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    // Taken before the handler looks: an answer that does not say its own revision must not promise a later one than it
    // has seen, or a client that goes on from there would miss what lies between.
    let before = state.consensus.reader().view().state.meta.revision;
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if !headers.contains_key(BATON_REVISION) {
        set_revision(headers, before);
    }
    let staleness = match state.consensus.staleness() {
        Some(age) => HeaderValue::from(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        None => HeaderValue::from_static("unknown"),
    };
    headers.insert(BATON_STALENESS, staleness);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
    response
}
