//! What is said of an instance when it is registered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Check;
use super::spec::words;
use crate::time::Millis;

/// The longest host name, in bytes (RFC 1035, section 2.3.4).
const HOST_MAX: usize = 253;

words! {
    /// Where the signs of an instance's life come from.
    Liveness {
        /// The nodes probe it.
        Probe = "probe",
        /// It sends heartbeats.
        Heartbeat = "heartbeat",
    }
}

/// Where an instance listens: `host:port`, `1.2.3.4:80` or `[::1]:80`. A host name is resolved by each prober.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// A host name or an IP literal, without brackets.
    pub host: String,
    /// A port, never 0.
    pub port: u16,
}

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an address: write \"host:port\", for IPv6 \"[::1]:port\", with a port from 1 to 65535")]
pub struct InvalidAddress(String);

impl FromStr for Address {
    type Err = InvalidAddress;
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let error = || InvalidAddress(text.chars().take(HOST_MAX).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(error)?;
        let port = port
            .parse::<u16>()
            .ok()
            .filter(|&number| number > 0 && port.bytes().all(|b| b.is_ascii_digit()))
            .ok_or_else(error)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(error()),
            None => host,
        };
        let named = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b'_';
        let good = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() || text.starts_with('['))
            || ((1..=HOST_MAX).contains(&host.len())
                && host.bytes().all(named)
                && !host.starts_with('-')
                && !host.starts_with('.'));
        if good { Ok(Self { host: host.to_owned(), port }) } else { Err(error()) }
    }
}

impl TryFrom<String> for Address {
    type Error = InvalidAddress;
    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What one instance does differently from its service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overrides {
    /// Its own checks, instead of the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checks: Option<Vec<Check>>,
}

/// What is said of an instance when it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Registration {
    /// Where it listens. May be left out for `heartbeat` instances without checks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7:5432"))]
    pub address: Option<Address>,
    /// The site or failure domain it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Lower wins first: local cluster 0, standby cluster 1, remote site 2.
    pub tier: u32,
    /// Within a tier, higher wins.
    pub priority: u32,
    /// Its share of calls.
    pub weight: u32,
    /// Where the signs of its life come from.
    pub liveness: Liveness,
    /// How long it may be missing before it is removed; null for never. Missing is what is `unhealthy`, and what
    /// heartbeats and is not heard. The active, and whoever held its `active_passive` service last, is never removed by
    /// time, nor is an instance that an operator has taken out.
    #[serde(default)]
    pub deregister_after: Option<Millis>,
    /// The operator's own labels.
    pub metadata: BTreeMap<String, String>,
    /// What it does differently from its service.
    pub overrides: Overrides,
}

impl Registration {
    /// How long an instance may be missing before it is removed, where nobody says. One that heartbeats registers itself and
    /// comes again by itself; what an operator registered stays until the operator takes it away.
    pub const fn patience(liveness: Liveness) -> Option<Millis> {
        match liveness {
            Liveness::Heartbeat => Some(Millis::secs(3_600)),
            Liveness::Probe => None,
        }
    }

    /// A probed instance at `address` with every default of the contract.
    pub fn at(address: Option<Address>) -> Self {
        Self {
            address,
            zone: None,
            tier: 0,
            priority: 100,
            weight: 1,
            liveness: Liveness::Probe,
            deregister_after: Self::patience(Liveness::Probe),
            metadata: BTreeMap::new(),
            overrides: Overrides::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["127.0.0.1:80", "[::1]:8080", "db-1.example.com:5432", "localhost:1", "my_host:65535"] {
            assert_eq!(good.parse::<Address>().map(|a| a.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "localhost",
            ":80",
            "h:0",
            "h:65536",
            "h:+1",
            "h: 1",
            "::1:80",
            "[::1]",
            "[h]:80",
            "a b:1",
            "http://h:80",
            "-h:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
