//! Turning a request into valid types, or into one of our own errors: axum's words never reach a client. Names from
//! paths, bodies, and preconditions; query strings have a room of their own.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Path, Request};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use baton_core::id::{InstanceId, ServiceName, TransitionId};
use baton_core::json::{FieldError, Json};
use bytes::Bytes;
use http_body_util::LengthLimitError;

use super::error::{ApiError, invalid};
use super::query::{short, whole};

/// The longest body: a spec with its every field, its certificates and room to spare, and nothing that hurts to hold.
pub(crate) const BODY_MAX: usize = 256 * 1024;

/// What a request of this very machine is called, while nobody has a name.
const LOCAL_ACTOR: &str = "local";

/// What a request from elsewhere is called.
const ANONYMOUS_ACTOR: &str = "anonymous";

/// The header that will make repeats harmless (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// How long a body may take to arrive: a slow sender must not hold a connection for ever.
const BODY_WAIT: Duration = Duration::from_secs(10);

/// The service that a path names.
pub(crate) struct OfService(pub(crate) ServiceName);

/// The instance that a path names, and its service.
pub(crate) struct OfInstance(pub(crate) ServiceName, pub(crate) InstanceId);

/// The transition that a path names.
pub(crate) struct OfTransition(pub(crate) TransitionId);

async fn segments<S: Send + Sync>(parts: &mut Parts, state: &S) -> Result<BTreeMap<String, String>, ApiError> {
    match Path::<BTreeMap<String, String>>::from_request_parts(parts, state).await {
        Ok(Path(segments)) => Ok(segments),
        Err(_) => Err(invalid("path", "the path is not UTF-8 text")),
    }
}

fn segment<T: FromStr<Err: std::fmt::Display>>(
    segments: &BTreeMap<String, String>,
    name: &str,
    errors: &mut Vec<FieldError>,
) -> Option<T> {
    let text = segments.get(name).map_or("", String::as_str);
    text.parse()
        .map_err(|error: T::Err| errors.push(FieldError { path: name.to_owned(), message: error.to_string() }))
        .ok()
}

impl<S: Send + Sync> FromRequestParts<S> for OfService {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = segments(parts, state).await?;
        let mut errors = Vec::new();
        segment(&segments, "service", &mut errors).map(Self).ok_or(ApiError::Invalid(errors))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfInstance {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = segments(parts, state).await?;
        let mut errors = Vec::new();
        let service = segment(&segments, "service", &mut errors);
        let instance = segment(&segments, "instance", &mut errors);
        service.zip(instance).map(|(service, instance)| Self(service, instance)).ok_or(ApiError::Invalid(errors))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for OfTransition {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let segments = segments(parts, state).await?;
        let mut errors = Vec::new();
        segment(&segments, "id", &mut errors).map(Self).ok_or(ApiError::Invalid(errors))
    }
}

/// Who asks, as records and events name them. There are no access tokens yet, so nobody has a name: what is known is
/// whether the request came from this machine.
pub(crate) struct Asker(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for Asker {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        let far = parts.extensions.get::<ConnectInfo<SocketAddr>>().is_some_and(|from| !is_local(from.0));
        Ok(Self(if far { ANONYMOUS_ACTOR } else { LOCAL_ACTOR }.to_owned()))
    }
}

fn is_local(address: SocketAddr) -> bool {
    // A listener for both families sees an IPv4 client as ::ffff:127.0.0.1.
    address.ip().to_canonical().is_loopback()
}

/// A request without an `Idempotency-Key`. A key that was ignored would be relied on: a repeat would act twice. Every POST
/// asks for this but a heartbeat, which may be repeated as it is; `pick` asks for it too, since a repeat chooses anew.
pub(crate) struct Unrepeated;

impl<S: Send + Sync> FromRequestParts<S> for Unrepeated {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        if parts.headers.contains_key(IDEMPOTENCY_KEY) { Err(ApiError::IdempotencyKey) } else { Ok(Self) }
    }
}

/// A JSON body, read strictly and not yet understood.
pub(crate) struct JsonBody(pub(crate) Json);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let JsonText(bytes) = JsonText::<BODY_MAX>::from_request(request, state).await?;
        Json::parse(&bytes).map(Self).map_err(ApiError::NotJson)
    }
}

/// The text of a JSON body, at most `MAX` bytes of it, not yet read.
pub(crate) struct JsonText<const MAX: usize>(pub(crate) Bytes);

impl<S: Send + Sync, const MAX: usize> FromRequest<S> for JsonText<MAX> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        expect_json(&parts.headers)?;
        let too_large = || ApiError::BodyTooLarge { limit: MAX };
        // A sender that says how much it will send need not send it.
        let declared = parts.headers.get(CONTENT_LENGTH).and_then(|length| whole(length.to_str().ok()?));
        if declared.is_some_and(|length| length > MAX as u64) {
            return Err(too_large());
        }
        match tokio::time::timeout(BODY_WAIT, to_bytes(body, MAX)).await {
            Err(_) => Err(ApiError::BodyTimeout),
            Ok(Err(error)) if is_too_large(&error) => Err(too_large()),
            Ok(Err(_)) => Err(ApiError::BodyBroken),
            Ok(Ok(bytes)) => Ok(Self(bytes)),
        }
    }
}

fn is_too_large(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<LengthLimitError>())
}

/// `application/json`, `application/anything+json`, or nothing said. What `curl -d` says when nobody tells it otherwise
/// is let through too: the body is read as JSON whatever its name, and pages of other sites are held off by their
/// `Origin`.
fn expect_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let given = String::from_utf8_lossy(given.as_bytes());
    let essence = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = essence
        .strip_prefix("application/")
        .is_some_and(|kind| kind == "json" || kind.ends_with("+json") || kind == "x-www-form-urlencoded");
    if json { Ok(()) } else { Err(ApiError::MediaType { given: short(&given).to_owned() }) }
}

/// A JSON body that may be left out.
pub(crate) struct MaybeJson(pub(crate) Option<Json>);

impl<S: Send + Sync> FromRequest<S> for MaybeJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let JsonText(bytes) = JsonText::<BODY_MAX>::from_request(request, state).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(None));
        }
        Json::parse(&bytes).map(|json| Self(Some(json))).map_err(ApiError::NotJson)
    }
}

/// Refuses a body where none is expected to be read; kept so that a DELETE with a body is not silently half-understood.
pub(crate) struct NoBody;

impl<S: Send + Sync> FromRequest<S> for NoBody {
    type Rejection = ApiError;
    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let body: Body = request.into_body();
        match tokio::time::timeout(BODY_WAIT, to_bytes(body, BODY_MAX)).await {
            Ok(Ok(bytes)) if bytes.is_empty() => Ok(Self),
            Ok(Ok(_)) => Err(invalid("$", "this request takes no body")),
            Ok(Err(error)) if is_too_large(&error) => Err(ApiError::BodyTooLarge { limit: BODY_MAX }),
            Ok(Err(_)) => Err(ApiError::BodyBroken),
            Err(_) => Err(ApiError::BodyTimeout),
        }
    }
}

/// Which version of an object a change is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precondition {
    /// Whatever there is.
    Any,
    /// It must be there (`If-Match: *`).
    Exists,
    /// It must not be there (`If-None-Match: *`).
    Absent,
    /// It must have this generation (`If-Match: "3"`).
    Generation(u64),
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        precondition(&parts.headers)
    }
}

/// An entity tag of ours: a generation between quotes.
pub(crate) fn etag(generation: u64) -> String {
    format!("\"{generation}\"")
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, ApiError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    let text = first.to_str().map_err(|_| invalid(name.as_str(), "is not plain text"))?;
    if values.next().is_some() || text.contains(',') {
        return Err(invalid(name.as_str(), "names several versions: name one"));
    }
    Ok(Some(text.trim()))
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, ApiError> {
    let if_match = single(headers, &IF_MATCH)?;
    let if_none_match = single(headers, &IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(Precondition::Any),
        (Some("*"), None) => Ok(Precondition::Exists),
        (None, Some("*")) => Ok(Precondition::Absent),
        (Some(tag), None) => generation(tag),
        (None, Some(_)) => {
            Err(invalid("if-none-match", "only \"*\" is known here: it means \"create, never replace\""))
        }
        (Some(_), Some(_)) => Err(invalid("if-none-match", "cannot be given together with If-Match")),
    }
}

fn generation(tag: &str) -> Result<Precondition, ApiError> {
    // RFC 9110, 13.1.1: If-Match compares strongly, and a weak tag equals nothing.
    if tag.starts_with("W/\"") {
        return Err(ApiError::PreconditionFailed(format!("{} is a weak tag, which equals nothing", short(tag))));
    }
    let inner = tag.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|inner| !inner.contains('"'));
    match inner {
        None => Err(invalid(
            "if-match",
            format_args!(
                "{} is not an entity tag: send back the ETag as it came, as in \"3\" with its quotes",
                short(tag)
            ),
        )),
        Some(inner) => match whole(inner) {
            Some(generation) => Ok(Precondition::Generation(generation)),
            None => Err(ApiError::PreconditionFailed(format!("{} is no version of anything here", short(tag)))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn given(headers: &[(HeaderName, &'static str)]) -> Result<Precondition, ApiError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_static(value));
        }
        precondition(&map)
    }

    #[test]
    fn preconditions_are_generations_between_quotes() {
        assert_eq!(given(&[]).ok(), Some(Precondition::Any));
        assert_eq!(given(&[(IF_MATCH, "*")]).ok(), Some(Precondition::Exists));
        assert_eq!(given(&[(IF_MATCH, " \"3\" ")]).ok(), Some(Precondition::Generation(3)));
        assert_eq!(given(&[(IF_NONE_MATCH, "*")]).ok(), Some(Precondition::Absent));
        assert_eq!(etag(3), "\"3\"");
    }

    #[test]
    fn tags_that_equal_nothing_fail_and_what_is_no_tag_is_refused() {
        for strange in ["W/\"3\"", "\"abc\"", "\"+3\"", "\"\""] {
            assert!(matches!(given(&[(IF_MATCH, strange)]), Err(ApiError::PreconditionFailed(_))), "{strange}");
        }
        for bad in ["3", "\"3", "\"3\", \"4\"", "\"3\"4\"", ""] {
            assert!(matches!(given(&[(IF_MATCH, bad)]), Err(ApiError::Invalid(_))), "{bad}");
        }
        assert!(matches!(given(&[(IF_MATCH, "\"1\""), (IF_MATCH, "\"2\"")]), Err(ApiError::Invalid(_))));
        assert!(matches!(given(&[(IF_MATCH, "*"), (IF_NONE_MATCH, "*")]), Err(ApiError::Invalid(_))));
        assert!(matches!(given(&[(IF_NONE_MATCH, "\"1\"")]), Err(ApiError::Invalid(_))));
    }

    #[test]
    fn only_this_machine_is_local() {
        for near in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(is_local(near.parse().expect("an address")), "{near}");
        }
        for far in ["10.0.0.7:1", "[fe80::1]:1", "[::ffff:10.0.0.7]:1", "0.0.0.0:1"] {
            assert!(!is_local(far.parse().expect("an address")), "{far}");
        }
    }

    #[test]
    fn json_is_json_by_any_of_its_names() {
        let say = |text: &'static str| {
            let mut map = HeaderMap::new();
            map.insert(CONTENT_TYPE, HeaderValue::from_static(text));
            expect_json(&map).is_ok()
        };
        assert!(expect_json(&HeaderMap::new()).is_ok());
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
            "application/x-www-form-urlencoded",
        ] {
            assert!(say(good), "{good}");
        }
        for bad in ["text/plain", "multipart/form-data", "application/xml", "json", ""] {
            assert!(!say(bad), "{bad}");
        }
    }
}
