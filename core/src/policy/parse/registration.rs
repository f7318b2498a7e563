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

/// Reads the body of `PATCH …/instances/{instance}`: `old` with the fields that are given (RFC 7396, JSON Merge Patch:
/// null takes away what may be absent, and labels are merged one by one).
pub fn parse_registration_patch(body: &Json, old: &Registration) -> Result<Registration, Vec<FieldError>> {
    read(body, |f| {
        let mut new = old.clone();
        match f.nullable("address") {
            None => {}
            Some(None) => new.address = None,
            Some(Some(slot)) => new.address = slot.parsed(),
        }
        match f.nullable("zone") {
            None => {}
            Some(None) => new.zone = None,
            Some(Some(slot)) => new.zone = slot.parsed::<Zone>().map(|zone| zone.0),
        }
        match f.nullable("deregister_after") {
            None => {}
            Some(None) => new.deregister_after = None,
            Some(Some(slot)) => new.deregister_after = slot.millis(Millis::ZERO..=LONGEST),
        }
        new.tier = f.whole("tier", old.tier, 0..=TIER_MAX);
        new.priority = f.whole("priority", old.priority, 0..=PRIORITY_MAX);
        new.weight = f.whole("weight", old.weight, 0..=WEIGHT_MAX);
        if f.word("liveness", old.liveness) != old.liveness {
            f.error("liveness", "cannot be changed here: whoever lives otherwise than before registers anew, by PUT");
        }
        if let Some(labels) = f.field("metadata").and_then(labels_changed) {
            for (name, value) in labels {
                match value {
                    Some(value) => new.metadata.insert(name, value),
                    None => new.metadata.remove(&name),
                };
            }
            if new.metadata.len() > METADATA_MAX {
                f.error("metadata", format_args!("would have more than {METADATA_MAX} labels: null takes one away"));
            }
        }
        if let Some(wanted) = f.object("overrides", |f| f.nullable("checks").map(|slot| slot.and_then(checks)))
            && let Some(checks) = wanted
        {
            new.overrides.checks = checks;
        }
        if f.sound("address") && new.address.is_none() {
            address_wanted(f, &new);
        }
        Some(new)
    })
}

/// Labels that are set, and those that are taken away.
fn labels_changed(slot: Slot<'_, '_>) -> Option<Vec<(String, Option<String>)>> {
    slot.map(METADATA_MAX, |key, mut slot| {
        if !is_label(key) {
            slot.error(NO_LABEL);
            return None;
        }
        if *slot.json() == Json::Null {
            return Some((key.to_owned(), None));
        }
        Some((key.to_owned(), Some(slot.text(0..=METADATA_VALUE_MAX)?.to_owned())))
    })
}

/// Somebody has to connect, so somebody has to be told where.
fn address_where_needed(f: &mut Fields<'_, '_>, registration: &Registration) {
    if !f.has("address") {
        address_wanted(f, registration);
    }
}

/// Says so where a registration without an address needs one.
fn address_wanted(f: &mut Fields<'_, '_>, registration: &Registration) {
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

const NO_LABEL: &str = "not a label: use 1 to 63 bytes without control characters as its name";

fn is_label(key: &str) -> bool {
    !key.is_empty() && key.len() <= NAME_MAX && !key.chars().any(char::is_control)
}

fn metadata(slot: Slot<'_, '_>) -> Option<BTreeMap<String, String>> {
    let entries = slot.map(METADATA_MAX, |key, mut slot| {
        if !is_label(key) {
            slot.error(NO_LABEL);
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
