//! The names and numbers by which things are known. Only identifiers live here: no behaviour beyond
//! parsing, printing and ordering.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A Raft node's number, chosen by the operator with `--node-id`. Never reused.
pub type NodeId = u64;

/// The cluster-wide number of an event: 1, 2, 3, ... without gaps.
pub type Revision = u64;

/// The longest name of a service or an instance, in bytes: what a DNS label holds, so that every name
/// can be one.
pub const NAME_MAX: usize = 63;

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{shown}\" is not a name: use 1 to 63 of a-z, 0-9 and \"-\", with a letter or digit first and last")]
pub struct InvalidName {
    /// The offending text, cut to a length that can be shown.
    shown: String,
}

fn check_name(text: &str) -> Result<(), InvalidName> {
    let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let good = (1..=NAME_MAX).contains(&bytes.len())
        && bytes.iter().all(|&b| edge(b) || b == b'-')
        && edge(bytes[0])
        && edge(bytes[bytes.len() - 1]);
    if good { Ok(()) } else { Err(InvalidName { shown: text.chars().take(NAME_MAX + 1).collect() }) }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "orders",
            pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"))]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        // Order and hash of a name are those of its text, so that it is found by its text in any map.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check_name(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The name of a service: what is managed.
    ServiceName
}
name! {
    /// The name of an instance within its service: one running copy.
    InstanceId
}

/// A fencing token: minted at a promotion, strictly rising across the whole cluster and its life.
///
/// It is `token_floor + log index`, so it fits in 53 bits and survives any JSON parser.
/// Source of the idea: Kleppmann, "How to do distributed locking" (2016); Chubby's sequencers (Burrows, 2006).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64, example = 42))]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A transition's number, written `tr-57`: the revision of the event that opened it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "tr-57"))]
pub struct TransitionId(pub u64);

impl fmt::Display for TransitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tr-{}", self.0)
    }
}

impl From<TransitionId> for String {
    fn from(id: TransitionId) -> String {
        id.to_string()
    }
}

/// Why a text is not the id of a transition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a transition id: they look like \"tr-57\"")]
pub struct InvalidTransitionId(String);

impl FromStr for TransitionId {
    type Err = InvalidTransitionId;
    fn from_str(text: &str) -> Result<Self, InvalidTransitionId> {
        text.strip_prefix("tr-")
            .filter(|digits| digits.len() <= 19 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .map(TransitionId)
            .ok_or_else(|| InvalidTransitionId(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for TransitionId {
    type Error = InvalidTransitionId;
    fn try_from(text: String) -> Result<Self, InvalidTransitionId> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "orders", "a-b", "a--b", &"x".repeat(63)] {
            assert!(good.parse::<ServiceName>().is_ok(), "{good}");
        }
        for bad in ["", "-", "a-", "-a", "A", "a.b", "a b", "ä", "a\n", &"x".repeat(64)] {
            assert!(bad.parse::<ServiceName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn transition_ids_round_trip() {
        assert_eq!("tr-57".parse(), Ok(TransitionId(57)));
        assert_eq!(TransitionId(57).to_string(), "tr-57");
        for bad in ["57", "tr-", "tr--1", "tr-+1", "tr-99999999999999999999"] {
            assert!(bad.parse::<TransitionId>().is_err(), "{bad}");
        }
    }
}
