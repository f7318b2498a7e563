//! Health checks, from JSON: those of a service, and those by which an instance overrides them.

use std::ops::RangeInclusive;

use regex::RegexBuilder;

use super::web::{Target, headers};
use crate::id::InstanceId;
use crate::json::{Fields, Json, Slot};
use crate::policy::{Check, CheckKind, CheckTls, StatusRange};
use crate::time::Millis;

/// The most checks of one service: each costs every observer a timer, a connection and a verdict.
const CHECKS_MAX: usize = 16;

/// The shortest interval. Below it, a prober measures its own scheduler.
const INTERVAL_MIN: Millis = Millis(10);

/// The longest interval. Beyond a day a check notices nothing that matters.
const INTERVAL_MAX: Millis = Millis::secs(86_400);

/// The longest time-out of a probe, and so the longest that one may hold a connection.
const TIMEOUT_MAX: Millis = Millis::secs(300);

/// The most answers in a row that a verdict may wait for.
const IN_A_ROW_MAX: u32 = 100;

/// The most status ranges of one check.
const STATUSES_MAX: usize = 32;

/// The longest pattern for a body, in bytes.
const PATTERN_MAX: usize = 1_024;

/// The most memory that a compiled pattern may take, in bytes: `a{1000}{1000}` is short and huge.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// The longest PEM text of trusted certificates, in bytes: a dozen of them.
const PEM_MAX: usize = 65_536;

/// The longest server name, in bytes (RFC 1035, section 2.3.4).
const SERVER_NAME_MAX: usize = 253;

/// The longest name of a gRPC service, in bytes. Packages nest; nobody's name is longer.
const GRPC_SERVICE_MAX: usize = 200;

/// Methods that only look.
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "OPTIONS"];

const DURATIONS: RangeInclusive<Millis> = INTERVAL_MIN..=INTERVAL_MAX;

/// A list of checks, with a name for each and no name twice.
pub(super) fn checks(slot: Slot<'_, '_>) -> Option<Vec<Check>> {
    let mut names: Vec<String> = Vec::new();
    slot.list(0..=CHECKS_MAX, |slot| slot.object(|f| check(f, &mut names)).flatten())
}

fn check(f: &mut Fields<'_, '_>, names: &mut Vec<String>) -> Option<Check> {
    let kind = f.required("type", "\"http\"").and_then(Slot::word::<CheckKind>);
    // Without a type the other fields are still read, so that their errors are reported too.
    let default = Check::of(kind.unwrap_or(CheckKind::Http));
    let name = name(f, kind, &default, names);
    let mut interval = f.millis("interval", default.interval, DURATIONS);
    let mut fast_interval = f.millis("fast_interval", default.fast_interval, DURATIONS);
    f.in_order(("fast_interval", &mut fast_interval), ("interval", &mut interval));
    let check = Check {
        name,
        kind: default.kind,
        path: f.parsed::<Target>("path").map_or(default.path, |target| target.0),
        method: method(f).unwrap_or(default.method),
        expect_status: expect_status(f).unwrap_or(default.expect_status),
        expect_body: expect_body(f),
        headers: f.field("headers").and_then(headers).unwrap_or_default(),
        service: f.text("service", 0..=GRPC_SERVICE_MAX).map_or(default.service, str::to_owned),
        port: f.field("port").and_then(|slot| slot.whole(1..=65_535)).and_then(|port| u16::try_from(port).ok()),
        tls: f.object("tls", tls),
        watch: f.boolean("watch", default.watch),
        interval,
        timeout: f.millis("timeout", default.timeout, Millis(1)..=TIMEOUT_MAX),
        fast_interval,
        rise: f.whole("rise", default.rise, 1..=IN_A_ROW_MAX),
        fall: f.whole("fall", default.fall, 1..=IN_A_ROW_MAX),
    };
    foreign_fields(f, &check, kind?);
    if check.method == "HEAD" && check.expect_body.is_some() {
        f.error("expect_body", "an answer to HEAD has no body: use the method GET, or leave this out");
    }
    Some(check)
}

/// The name that was given, by the rule of instance names, or the type.
fn name(f: &mut Fields<'_, '_>, kind: Option<CheckKind>, default: &Check, names: &mut Vec<String>) -> String {
    let given = f.has("name");
    let name = f.parsed::<InstanceId>("name").map_or(default.name.clone(), |name| name.as_str().to_owned());
    if kind == Some(CheckKind::Agent) && !given {
        f.error("name", "is missing: an agent check is a command of the node's configuration, by its name there");
    } else if (kind.is_some() || given) && f.sound("name") {
        if !names.contains(&name) {
            names.push(name.clone());
        } else if given {
            f.error("name", format_args!("\"{name}\" is the name of another check: choose a different one"));
        } else {
            f.error("name", format_args!("another check is called \"{name}\" already: give this one a `name`"));
        }
    }
    name
}

/// Refuses what has no meaning for this kind of check. A value that equals the default says nothing and is let
/// through, because that is how a stored check is shown.
fn foreign_fields(f: &mut Fields<'_, '_>, check: &Check, kind: CheckKind) {
    let default = Check::of(kind);
    let http: &[CheckKind] = &[CheckKind::Http];
    let given = [
        ("path", check.path != default.path, http),
        ("method", check.method != default.method, http),
        ("expect_status", check.expect_status != default.expect_status, http),
        ("expect_body", check.expect_body.is_some(), http),
        ("headers", !check.headers.is_empty(), http),
        ("service", !check.service.is_empty(), &[CheckKind::Grpc]),
        ("tls", check.tls.is_some(), &[CheckKind::Http, CheckKind::Grpc, CheckKind::Tls]),
    ];
    for (field, _, kinds) in given.into_iter().filter(|(_, differs, kinds)| *differs && !kinds.contains(&kind)) {
        let named: Vec<String> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
        let named = named.join(", ");
        f.error(field, format_args!("is only for checks of type {named}, and this one is \"{kind}\": leave it out"));
    }
}

fn method(f: &mut Fields<'_, '_>) -> Option<String> {
    let mut slot = f.field("method")?;
    let found = METHODS.into_iter().find(|method| matches!(slot.json(), Json::String(text) if text == method));
    if found.is_none() {
        slot.refuse(format_args!("is not one of {}", METHODS.map(|method| format!("\"{method}\"")).join(", ")));
    }
    found.map(str::to_owned)
}

fn expect_status(f: &mut Fields<'_, '_>) -> Option<Vec<StatusRange>> {
    f.field("expect_status")?.list(1..=STATUSES_MAX, |mut slot| {
        let Json::String(text) = slot.json() else {
            slot.refuse("is not a text: write \"204\" or \"200-299\"");
            return None;
        };
        text.parse().map_err(|error: String| slot.refuse(error)).ok()
    })
}

fn expect_body(f: &mut Fields<'_, '_>) -> Option<String> {
    let pattern = f.text("expect_body", 1..=PATTERN_MAX)?;
    match RegexBuilder::new(pattern).size_limit(PATTERN_SIZE_MAX).build() {
        Ok(_) => Some(pattern.to_owned()),
        Err(error) => {
            // Its message draws the pattern over several lines; the last one says what is wrong.
            let text = error.to_string();
            let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
            f.error("expect_body", format_args!("is not a regular expression that can be used here: {why}"));
            None
        }
    }
}

fn tls(f: &mut Fields<'_, '_>) -> CheckTls {
    let server_name = f.text("server_name", 1..=SERVER_NAME_MAX);
    let named = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.' || b == b':';
    if server_name.is_some_and(|name| !name.bytes().all(named)) {
        f.error("server_name", "is not a host name or an IP address");
    }
    let ca = f.text("ca", 1..=PEM_MAX);
    if ca.is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
        f.error("ca", "has no certificate: write PEM text, with \"-----BEGIN CERTIFICATE-----\"");
    }
    CheckTls {
        verify: f.boolean("verify", true),
        server_name: server_name.map(str::to_owned),
        ca: ca.map(str::to_owned),
    }
}
