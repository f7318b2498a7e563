//! One health check: what to ask of an instance, how often, and how many answers in a row count.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::spec::words;
use crate::time::Millis;

words! {
    /// What a check does.
    CheckKind {
        /// A TCP connection can be made.
        Tcp = "tcp",
        /// An HTTP/1.1 request is answered with an expected status and body.
        Http = "http",
        /// `grpc.health.v1` says SERVING.
        Grpc = "grpc",
        /// A TLS handshake succeeds.
        Tls = "tls",
        /// The instance's own heartbeats arrive.
        Heartbeat = "heartbeat",
        /// A local command of the node, by the name its configuration gives it.
        Agent = "agent",
    }
}

/// An inclusive range of HTTP status codes, written `"200-299"` or `"204"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StatusRange {
    /// The lowest status in the range.
    pub low: u16,
    /// The highest status in the range.
    pub high: u16,
}

impl StatusRange {
    /// Whether `status` is in the range.
    pub fn contains(self, status: u16) -> bool {
        (self.low..=self.high).contains(&status)
    }
}

impl FromStr for StatusRange {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let code = |part: &str| part.parse::<u16>().ok().filter(|code| part.len() == 3 && (100..=599).contains(code));
        let (low, high) = text.split_once('-').unwrap_or((text, text));
        match (code(low), code(high)) {
            (Some(low), Some(high)) if low <= high => Ok(Self { low, high }),
            _ => Err("is not a status or a range of them: write \"204\" or \"200-299\"".to_owned()),
        }
    }
}

impl TryFrom<String> for StatusRange {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StatusRange> for String {
    fn from(range: StatusRange) -> String {
        range.to_string()
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.low == self.high { write!(f, "{}", self.low) } else { write!(f, "{}-{}", self.low, self.high) }
    }
}

/// How a check speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckTls {
    /// Whether the certificate must be valid for the name.
    pub verify: bool,
    /// The name asked for and verified, where it differs from the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// PEM certificates trusted beside the system's and the node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// One health check of a service, or of a single instance by its overrides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// Its name, unique among the service's checks; the type where none was given.
    pub name: String,
    /// What it does.
    #[serde(rename = "type")]
    pub kind: CheckKind,
    /// HTTP: the path and query asked for.
    pub path: String,
    /// HTTP: the method.
    pub method: String,
    /// HTTP: the answers that count as well.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>, example = json!(["200-299"])))]
    pub expect_status: Vec<StatusRange>,
    /// HTTP: a regular expression that the first part of the body must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_body: Option<String>,
    /// HTTP: headers to send.
    pub headers: BTreeMap<String, String>,
    /// gRPC: the service whose health is asked for; empty for the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The port, where it is not the instance's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// TLS settings, for `tls` and for `http` and `grpc` over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<CheckTls>,
    /// Whether to hold an idle connection whose end starts a probe at once.
    pub watch: bool,
    /// Time from one probe to the next.
    pub interval: Millis,
    /// Time within which a probe must be answered, connecting included.
    pub timeout: Millis,
    /// The interval while the verdict is in doubt.
    pub fast_interval: Millis,
    /// Successes in a row after which the instance is up.
    pub rise: u32,
    /// Failures in a row after which the instance is down.
    pub fall: u32,
}

impl Check {
    /// A check of `kind` with every default of the contract: 1 s interval, 500 ms time-out, 200 ms fast interval,
    /// rise 2, fall 3.
    pub fn of(kind: CheckKind) -> Self {
        Self {
            name: kind.as_str().to_owned(),
            kind,
            path: "/".to_owned(),
            method: "GET".to_owned(),
            expect_status: vec![StatusRange { low: 200, high: 299 }],
            expect_body: None,
            headers: BTreeMap::new(),
            service: String::new(),
            port: None,
            tls: None,
            watch: false,
            interval: Millis::secs(1),
            timeout: Millis(500),
            fast_interval: Millis(200),
            rise: 2,
            fall: 3,
        }
    }
}
