//! What a browser could be tricked into: a foreign name that resolves to this node (DNS rebinding), and a foreign page
//! that posts here. Both are refused before anything is read.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::ApiState;
use super::error::ApiError;
use super::query::short;

/// Lets a request through, or answers it.
pub(crate) async fn guard(State(state): State<ApiState>, request: Request, next: Next) -> Response {
    match check(request.method(), request.uri(), request.headers(), &state.allowed_hosts) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn check(method: &Method, uri: &Uri, headers: &HeaderMap, allowed: &[String]) -> Result<(), ApiError> {
    let host = match (uri.authority(), headers.get(HOST)) {
        // HTTP/2 and absolute requests name the host in the target.
        (Some(authority), _) => authority.as_str().to_owned(),
        (None, Some(host)) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        // HTTP/1.0 without a host: no browser does that.
        (None, None) => return Ok(()),
    };
    if !is_allowed(&host, allowed) {
        return Err(ApiError::HostNotAllowed { host: short(&host).to_owned() });
    }
    let changes = !(method.is_safe());
    if let Some(origin) = headers.get(ORIGIN).filter(|_| changes) {
        let origin = String::from_utf8_lossy(origin.as_bytes());
        let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(&host));
        if !own {
            return Err(ApiError::OriginNotAllowed { origin: short(&origin).to_owned() });
        }
    }
    Ok(())
}

/// IP literals, `localhost`, and the configured names; with or without a port.
fn is_allowed(host: &str, allowed: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().to_ascii_lowercase();
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
    bare.parse::<IpAddr>().is_ok() || bare == "localhost" || allowed.iter().any(|other| other == bare)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn ask(method: &Method, host: &'static str, origin: Option<&'static str>) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static(host));
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_static(origin));
        }
        check(method, &Uri::from_static("/v1/services"), &headers, &["baton.example".to_owned()])
    }

    #[test]
    fn hosts_are_addresses_localhost_and_configured_names() {
        for good in ["127.0.0.1", "127.0.0.1:7400", "[::1]:7400", "localhost:1", "LocalHost", "baton.example:80"] {
            assert!(ask(&Method::GET, good, None).is_ok(), "{good}");
        }
        for bad in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7400", "", "a b", "evil@"] {
            assert!(matches!(ask(&Method::GET, bad, None), Err(ApiError::HostNotAllowed { .. })), "{bad}");
        }
    }

    #[test]
    fn only_pages_of_this_node_may_change_anything() {
        assert!(ask(&Method::POST, "127.0.0.1:7400", Some("http://127.0.0.1:7400")).is_ok());
        assert!(ask(&Method::GET, "127.0.0.1:7400", Some("http://evil.example")).is_ok());
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8080"] {
            let answer = ask(&Method::PUT, "127.0.0.1:7400", Some(origin));
            assert!(matches!(answer, Err(ApiError::OriginNotAllowed { .. })), "{origin}");
        }
    }
}
