//! A check made ready to run: everything that can be parsed is parsed once, not at each probe.

use std::time::Duration;

use baton_core::policy::{Check, CheckKind, CheckTls, StatusRange};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use regex::bytes::{Regex, RegexBuilder};

use super::health;
use super::tls::{TlsPlan, TlsPlanError};
use crate::net::target::http1;

/// The memory that one compiled pattern may take; the same bound refuses it when a spec is stored.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// Why a stored check cannot be run. Specs are validated when they are stored, so this speaks of a spec from elsewhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("its path is not a request target")]
    Path(#[source] http::uri::InvalidUri),
    #[error("its method is not one")]
    Method(#[source] http::method::InvalidMethod),
    #[error("its header \"{name}\" cannot be sent")]
    Header { name: String, source: http::Error },
    #[error("its expect_body is not a regular expression")]
    Pattern(#[source] regex::Error),
    #[error("its TLS settings cannot be used: {0}")]
    Tls(#[source] TlsPlanError),
}

/// What an HTTP check sends and wants.
#[derive(Debug)]
pub(crate) struct HttpPlan {
    pub(crate) method: Method,
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) expect_status: Vec<StatusRange>,
    pub(crate) expect_body: Option<Regex>,
}

/// What a check does.
#[derive(Debug)]
pub(crate) enum PlanKind {
    Tcp,
    Tls(Box<TlsPlan>),
    /// Over TLS, where there is a plan for it.
    Http(Box<HttpPlan>, Option<Box<TlsPlan>>),
    /// The message that is sent; over TLS, where there is a plan for it.
    Grpc(Bytes, Option<Box<TlsPlan>>),
    /// The local command that has the check's name.
    Agent,
}

/// What a check of type `tls` does that says nothing of how.
const VERIFIED: CheckTls = CheckTls { verify: true, server_name: None, ca: None };

/// What HTTP/2 is called in a handshake (RFC 7301, section 6).
const ALPN_HTTP_2: &[u8] = b"h2";

/// A check made ready to run.
#[derive(Debug)]
pub(crate) struct CheckPlan {
    pub(crate) name: String,
    pub(crate) kind: PlanKind,
    pub(crate) port: Option<u16>,
    /// Whether a connection is to be held.
    pub(crate) watch: bool,
    pub(crate) timeout: Duration,
    pub(crate) interval: Duration,
    pub(crate) fast_interval: Duration,
    pub(crate) rise: u32,
    pub(crate) fall: u32,
}

impl CheckPlan {
    /// Makes `check` ready, or answers `None` where this version does not run such a check: then it says nothing about
    /// any instance, rather than something that it has not looked at.
    pub(crate) fn of(check: &Check) -> Result<Option<Self>, PlanError> {
        let over_tls = |protocol| {
            let plan = |tls| TlsPlan::of(tls, Some(protocol)).map(Box::new).map_err(PlanError::Tls);
            check.tls.as_ref().map(plan).transpose()
        };
        let kind = match check.kind {
            CheckKind::Tcp => PlanKind::Tcp,
            CheckKind::Tls => {
                let tls = check.tls.as_ref().unwrap_or(&VERIFIED);
                PlanKind::Tls(Box::new(TlsPlan::of(tls, None).map_err(PlanError::Tls)?))
            }
            CheckKind::Http => PlanKind::Http(Box::new(HttpPlan::of(check)?), over_tls(http1::ALPN)?),
            CheckKind::Grpc => PlanKind::Grpc(health::request(&check.service), over_tls(ALPN_HTTP_2)?),
            CheckKind::Agent => PlanKind::Agent,
            CheckKind::Heartbeat => return Ok(None),
        };
        Ok(Some(Self {
            name: check.name.clone(),
            kind,
            port: check.port,
            watch: check.watch,
            timeout: check.timeout.as_duration(),
            interval: check.interval.as_duration(),
            fast_interval: check.fast_interval.as_duration(),
            rise: check.rise,
            fall: check.fall,
        }))
    }

    /// The type, as a metric's label.
    pub(crate) fn word(&self) -> &'static str {
        match self.kind {
            PlanKind::Tcp => "tcp",
            PlanKind::Tls(_) => "tls",
            PlanKind::Http(..) => "http",
            PlanKind::Grpc(..) => "grpc",
            PlanKind::Agent => "agent",
        }
    }

    /// Whether a local command does the looking.
    pub(crate) fn is_agent(&self) -> bool {
        matches!(self.kind, PlanKind::Agent)
    }

    /// The TLS under it, if there is any.
    pub(crate) fn tls(&self) -> Option<&TlsPlan> {
        match &self.kind {
            PlanKind::Tcp | PlanKind::Agent => None,
            PlanKind::Tls(tls) => Some(tls),
            PlanKind::Http(_, tls) | PlanKind::Grpc(_, tls) => tls.as_deref(),
        }
    }
}

impl HttpPlan {
    fn of(check: &Check) -> Result<Self, PlanError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &check.headers {
            let error = |source: http::Error| PlanError::Header { name: name.clone(), source };
            let header = HeaderName::try_from(name.as_str()).map_err(|source| error(source.into()))?;
            let value = HeaderValue::try_from(value.as_str()).map_err(|source| error(source.into()))?;
            headers.insert(header, value);
        }
        let expect_body = check
            .expect_body
            .as_deref()
            .map(|pattern| RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).build())
            .transpose()
            .map_err(PlanError::Pattern)?;
        Ok(Self {
            method: Method::try_from(check.method.as_str()).map_err(PlanError::Method)?,
            target: Uri::try_from(check.path.as_str()).map_err(PlanError::Path)?,
            headers,
            expect_status: check.expect_status.clone(),
            expect_body,
        })
    }
}
