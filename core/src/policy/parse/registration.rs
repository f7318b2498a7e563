//! The body by which an instance is registered.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::check::checks;
use crate::id::NAME_MAX;
use crate::json::{FieldError, Fields, Json, Slot, read};
use crate::policy::{Address, CheckKind, Liveness, Overrides, Registration};
use crate::time::{LONGEST, Millis};

/// The lowest rank: tiers are sites, and nobody has a hundred.
const TIER_MAX: u32 = 100;

/// The highest priority.
const PRIORITY_MAX: u32 = 1_000_000;

/// The largest share of calls; a ramp of 10 % still leaves whole numbers of it.
const WEIGHT_MAX: u32 = 1_000;

/// The most labels of an instance: they are kept by every node and sent with every status.
const METADATA_MAX: usize = 64;

/// The longest value of a label, in bytes.
const METADATA_VALUE_MAX: usize = 1_024;

/// Reads the body of `PUT …/instances/{instance}`.
pub fn parse_registration(body: &Json) -> Result<Registration, Vec<FieldError>> {
    read(body, |f| {
        let default = Registration::at(None);
        let liveness = f.word("liveness", default.liveness);
        let deregister_after = match f.nullable("deregister_after") {
            None => Registration::patience(liveness),
            Some(None) => None,
            Some(Some(slot)) => slot.millis(Millis::ZERO..=LONGEST),
        };
        let registration = Registration {
            address: f.parsed::<Address>("address"),
            zone: f.parsed::<Zone>("zone").map(|zone| zone.0),
            tier: f.whole("tier", default.tier, 0..=TIER_MAX),
            priority: f.whole("priority", default.priority, 0..=PRIORITY_MAX),
            weight: f.whole("weight", default.weight, 0..=WEIGHT_MAX),
            liveness,
            deregister_after,
            metadata: f.field("metadata").and_then(metadata).unwrap_or_default(),
            overrides: f
                .object("overrides", |f| Overrides { checks: f.field("checks").and_then(checks) })
                .unwrap_or_default(),
        };
        address_where_needed(f, &registration);
        Some(registration)
    })
}

/// Somebody has to connect, so somebody has to be told where.
fn address_where_needed(f: &mut Fields<'_, '_>, registration: &Registration) {
    if f.has("address") {
        return;
    }
    let example = "write \"address\": \"host:port\"";
    match registration.liveness {
        Liveness::Probe => {
            f.error("address", format_args!("is missing: {example}; only instances that heartbeat may go without"));
        }
        Liveness::Heartbeat => {
            let connects = |kind| match kind {
                CheckKind::Tcp | CheckKind::Http | CheckKind::Grpc | CheckKind::Tls => true,
                CheckKind::Heartbeat | CheckKind::Agent => false,
            };
            if registration.overrides.checks.iter().flatten().any(|check| connects(check.kind)) {
                f.error("address", format_args!("is missing, and the checks of `overrides` connect to it: {example}"));
            }
        }
    }
}

fn metadata(slot: Slot<'_, '_>) -> Option<BTreeMap<String, String>> {
    let entries = slot.map(METADATA_MAX, |key, mut slot| {
        if key.is_empty() || key.len() > NAME_MAX || key.chars().any(char::is_control) {
            slot.error("not a label: use 1 to 63 bytes without control characters as its name");
            return None;
        }
        Some((key.to_owned(), slot.text(0..=METADATA_VALUE_MAX)?.to_owned()))
    })?;
    Some(entries.into_iter().collect())
}

/// The name of a site or failure domain, as clouds and racks spell theirs.
struct Zone(String);

impl FromStr for Zone {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if (1..=NAME_MAX).contains(&text.len()) && text.bytes().all(named) {
            return Ok(Self(text.to_owned()));
        }
        let shown = Json::String(text.to_owned()).shown();
        Err(format!("{shown} is not a zone: use 1 to 63 letters, digits, \"-\", \"_\" and \".\""))
    }
}
