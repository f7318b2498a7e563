//! What bodies are taken and refused. Two tests change every single field of a full body, so that a new field is tested
//! by standing in it.

use super::*;
use crate::json::Json;
use crate::policy::{Registration, Spec};
use crate::time::Millis;

/// Every field of a spec, none at its default where another value is possible.
const FULL_SPEC: &str = r#"{
  "mode": "active_active",
  "checks": [
    {"name": "web", "type": "http", "path": "/health?full=1", "method": "POST", "expect_status": ["200-299", "304"],
     "expect_body": "^ok\\b", "headers": {"Host": "web", "X-Probe": "baton"}, "port": 8080,
     "tls": {"verify": false, "server_name": "web.example", "ca": "-----BEGIN CERTIFICATE-----\nAA==\n"},
     "watch": true, "interval": "2s", "timeout": "1s", "fast_interval": "100ms", "rise": 1, "fall": 5},
    {"type": "tcp"}, {"type": "grpc", "service": "orders.v1"}, {"type": "tls", "tls": {}}, {"type": "heartbeat"}, {"name": "disk", "type": "agent"}
  ],
  "detection": {"observers": 5, "quorum": 3, "veto": true,
    "error_rate": {"window": "20s", "min_requests": 5, "threshold": 1},
    "slow": {"window": "1m", "min_requests": 10, "percentile": 0.99, "multiplier": 3.5, "floor": "10ms", "ceiling": "5s"},
    "accrual": {"phi": 12}, "timeout": "5s", "combine": "all"},
  "breaker": {"consecutive_failures": 3, "error_rate": 0.25, "min_requests": 20, "window": "5s", "open_for": "10s",
    "open_for_max": "1m", "open_for_multiplier": 1.5, "half_open_max_calls": 5, "half_open_timeout": "3s",
    "success_threshold": 2},
  "recovery": {"strategy": "probing", "cooldown": "0s", "cooldown_after": 1, "initial_delay": "2s", "max_delay": "20s",
    "multiplier": 1, "ramp": "0s", "probes": 5},
  "failover": {"automatic": false, "strategy": "random", "min_interval": "0s", "max_in_window": 1, "window": "1d",
    "activation_timeout": "3s", "require_ack": true, "max_lag": 1024, "min_healthy": "5s"},
  "failback": {"mode": "automatic", "stable_for": "0s"},
  "lease": {"ttl": "250ms", "delay": "1s", "release_on_disconnect": true},
  "fencing": {"proof": ["release", "hook"], "hook": {"url": "https://fence.example:8443/off", "timeout": "5s", "attempts": 1}},
  "on_quorum_loss": "freeze",
  "retry": {"strategy": "simple", "max_attempts": 100, "initial_backoff": "0s", "max_backoff": "1s", "multiplier": 4,
    "jitter": 0, "retry_on": ["malformed", "slow"]},
  "fail_open": true,
  "load_balancing": "best"
}"#;

const FULL_REGISTRATION: &str = r#"{
  "address": "[::1]:8080", "zone": "eu-west-1.a", "tier": 1, "priority": 7, "weight": 0, "liveness": "heartbeat",
  "deregister_after": "5m", "metadata": {"rack": "7", "Owner of it": ""},
  "overrides": {"checks": [{"type": "tcp", "fall": 1}]}
}"#;

fn json(text: &str) -> Json {
    Json::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn again(value: &impl serde::Serialize) -> Json {
    Json::parse(&serde_json::to_vec(value).expect("JSON")).expect("JSON")
}

fn paths<T: std::fmt::Debug>(result: Result<T, Vec<FieldError>>) -> Vec<String> {
    result.map_or_else(|errors| errors.into_iter().map(|error| error.path).collect(), |_| Vec::new())
}

/// Calls `change` for each value below `json` that is not the root, with its path and a copy of the whole in which that
/// value is `with`.
fn for_each_place(json: &Json, with: &Json, change: &mut dyn FnMut(&str, &Json, Json)) {
    fn below(
        here: &Json,
        path: &str,
        whole: &dyn Fn(Json) -> Json,
        with: &Json,
        change: &mut dyn FnMut(&str, &Json, Json),
    ) {
        let mut go = |index: usize, child: &Json, path: String| {
            let whole = |new: Json| {
                let mut copy = here.clone();
                match &mut copy {
                    Json::Array(items) => items[index] = new,
                    Json::Object(members) => members[index].1 = new,
                    Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => unreachable!("has no children"),
                }
                whole(copy)
            };
            change(&path, child, whole(with.clone()));
            below(child, &path, &whole, with, change);
        };
        match here {
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    go(index, item, format!("{path}[{index}]"));
                }
            }
            Json::Object(members) => {
                for (index, (name, value)) in members.iter().enumerate() {
                    go(index, value, if path.is_empty() { name.clone() } else { format!("{path}.{name}") });
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }
    below(json, "", &|new| new, with, change);
}

#[test]
fn an_empty_body_is_all_defaults() {
    assert_eq!(parse_spec(&json("{}")), Ok(Spec::default()));
    assert_eq!(parse_registration(&json(r#"{"liveness":"heartbeat"}"#)).map(|r| (r.weight, r.priority)), Ok((1, 100)));
    let at = "10.0.0.7:5432";
    assert_eq!(
        parse_registration(&json(&format!("{{\"address\":\"{at}\"}}"))),
        Ok(Registration::at(Some(at.parse().expect("an address"))))
    );
}

#[test]
fn what_is_served_can_be_put_back() {
    for text in ["{}", FULL_SPEC, r#"{"fencing":{"hook":{"agent":"ipmi"}},"checks":[{"type":"http"}]}"#] {
        let spec = parse_spec(&json(text)).expect(text);
        assert_eq!(parse_spec(&again(&spec)), Ok(spec));
    }
    for text in [r#"{"address":"h:1","deregister_after":null}"#, FULL_REGISTRATION] {
        let registration = parse_registration(&json(text)).expect(text);
        assert_eq!(parse_registration(&again(&registration)), Ok(registration));
    }
}

#[test]
fn every_given_field_is_heard() {
    let (given, served) = (json(FULL_SPEC), again(&parse_spec(&json(FULL_SPEC)).expect("valid")));
    let default = again(&Spec::default());
    for part in ["detection", "breaker", "recovery", "failover", "failback", "lease", "fencing", "retry"] {
        let (Some(Json::Object(fields)), Some(served), Some(default)) =
            (given.get(part), served.get(part), default.get(part))
        else {
            panic!("{part} is not an object");
        };
        let Json::Object(known) = default else { panic!("{part} is not an object") };
        assert_eq!(fields.len(), known.len(), "{part} of the full spec lacks a field");
        for (name, _) in fields {
            assert_ne!(served.get(name), default.get(name), "{part}.{name} was not heard");
        }
    }
}

#[test]
fn the_wrong_type_is_refused_where_it_stands() {
    // An object with a strange field is wrong everywhere: as a number, as a list, and as an object.
    let strange = json(r#"{"no such field": {}}"#);
    let check = |text: &str, parse: &dyn Fn(&Json) -> Vec<String>| {
        let mut places = 0;
        for_each_place(&json(text), &strange, &mut |path, _, body| {
            places += 1;
            let paths = parse(&body);
            let inside = |found: &String| found.as_str() == path || found.starts_with(&format!("{path}."));
            assert!(paths.iter().any(inside), "{path}: {paths:?}");
        });
        places
    };
    assert!(check(FULL_SPEC, &|body| paths(parse_spec(body))) > 80);
    assert!(check(FULL_REGISTRATION, &|body| paths(parse_registration(body))) > 10);
}

#[test]
fn null_is_refused_but_where_it_means_something() {
    let nullable = ["failover.max_lag", "fencing.hook", "deregister_after"];
    let check = |text: &str, parse: &dyn Fn(&Json) -> Vec<String>| {
        for_each_place(&json(text), &Json::Null, &mut |path, _, body| {
            let found = parse(&body);
            // The full spec accepts the proof `hook`, so its hook may not be missing.
            let expected = !nullable.contains(&path) || path == "fencing.hook";
            assert_eq!(found.iter().any(|error| error == path), expected, "{path}: {found:?}");
        });
    };
    check(FULL_SPEC, &|body| paths(parse_spec(body)));
    check(FULL_REGISTRATION, &|body| paths(parse_registration(body)));
    assert_eq!(parse_spec(&json(r#"{"fencing":{"hook":null},"failover":{"max_lag":null}}"#)), Ok(Spec::default()));
}

#[test]
fn unknown_fields_are_refused_in_every_object() {
    let unknown = |at: &Json| {
        let mut copy = at.clone();
        if let Json::Object(members) = &mut copy {
            members.push(("surprise".to_owned(), Json::Bool(true)));
        }
        copy
    };
    assert_eq!(paths(parse_spec(&unknown(&json(FULL_SPEC)))), ["surprise"]);
    assert_eq!(paths(parse_registration(&unknown(&json(FULL_REGISTRATION)))), ["surprise"]);
    let free = ["metadata", "checks[0].headers"];
    for text in [FULL_SPEC, FULL_REGISTRATION] {
        let mut objects = Vec::new();
        for_each_place(&json(text), &Json::Null, &mut |path, value, _| {
            if matches!(value, Json::Object(_)) && !free.contains(&path) {
                objects.push((path.to_owned(), unknown(value)));
            }
        });
        for (target, with) in objects {
            for_each_place(&json(text), &with, &mut |path, _, body| {
                if path == target {
                    let found =
                        if text == FULL_SPEC { paths(parse_spec(&body)) } else { paths(parse_registration(&body)) };
                    assert_eq!(found, [format!("{target}.surprise")]);
                }
            });
        }
    }
}

#[test]
fn specs_that_make_no_sense_are_refused() {
    for (text, path, part) in [
        (r#"{"intervall":1}"#, "intervall", "the fields here are mode, checks"),
        (r#"{"checks":[{"type":"tcp","intervall":"1s"}]}"#, "checks[0].intervall", "did you mean `interval`?"),
        (
            r#"{"checks":[{"type":"tcp","interval":"5x"}]}"#,
            "checks[0].interval",
            "\"5x\" is not a duration: write a number",
        ),
        (r#"{"checks":[{"type":"tcp","interval":"9ms"}]}"#, "checks[0].interval", "at least \"10ms\""),
        (r#"{"checks":[{"type":"tcp","interval":"0s"}]}"#, "checks[0].interval", "too short"),
        (r#"{"checks":[{"type":"tcp","timeout":"0s"}]}"#, "checks[0].timeout", "too short"),
        (r#"{"checks":[{"type":"tcp","timeout":"1h"}]}"#, "checks[0].timeout", "at most \"5m\""),
        (
            r#"{"checks":[{"type":"tcp","interval":"1s","fast_interval":"2s"}]}"#,
            "checks[0].fast_interval",
            "above `interval`",
        ),
        (r#"{"checks":[{"type":"tcp","rise":0}]}"#, "checks[0].rise", "from 1 to 100"),
        (r#"{"checks":[{"type":"tcp","fall":101}]}"#, "checks[0].fall", "from 1 to 100"),
        (r#"{"checks":[{"type":"tcp","port":0}]}"#, "checks[0].port", "from 1 to 65535"),
        (r#"{"checks":[{"type":"tcp","port":65536}]}"#, "checks[0].port", "from 1 to 65535"),
        (r#"{"checks":[{}]}"#, "checks[0].type", "is missing"),
        (r#"{"checks":[{"type":"ping"}]}"#, "checks[0].type", "is not one of \"tcp\", \"http\""),
        (r#"{"checks":[{"type":"agent"}]}"#, "checks[0].name", "is missing"),
        (r#"{"checks":[{"type":"tcp"},{"type":"tcp"}]}"#, "checks[1].name", "give this one a `name`"),
        (r#"{"checks":[{"type":"tcp"},{"type":"http","name":"tcp"}]}"#, "checks[1].name", "name of another check"),
        (r#"{"checks":[{"type":"tcp","name":"A b"}]}"#, "checks[0].name", "\"A b\" is not a name"),
        (r#"{"checks":[{"type":"http","path":"x"}]}"#, "checks[0].path", "begin with \"/\""),
        (r#"{"checks":[{"type":"http","path":"/a b"}]}"#, "checks[0].path", "percent-encode"),
        (r#"{"checks":[{"type":"http","method":"DELETE"}]}"#, "checks[0].method", "\"GET\", \"HEAD\""),
        (r#"{"checks":[{"type":"http","method":"HEAD","expect_body":"x"}]}"#, "checks[0].expect_body", "has no body"),
        (r#"{"checks":[{"type":"http","expect_status":[]}]}"#, "checks[0].expect_status", "has 0 items"),
        (
            r#"{"checks":[{"type":"http","expect_status":["200","2xx"]}]}"#,
            "checks[0].expect_status[1]",
            "\"2xx\" is not a status",
        ),
        (r#"{"checks":[{"type":"http","expect_status":[200]}]}"#, "checks[0].expect_status[0]", "200 is not a text"),
        (r#"{"checks":[{"type":"http","expect_body":"(a"}]}"#, "checks[0].expect_body", "unclosed group"),
        (r#"{"checks":[{"type":"http","expect_body":"(?=a)"}]}"#, "checks[0].expect_body", "look-around"),
        (r#"{"checks":[{"type":"http","expect_body":"a{1000}{50}"}]}"#, "checks[0].expect_body", "size limit"),
        (r#"{"checks":[{"type":"http","headers":{"X":"a\r\nY: b"}}]}"#, "checks[0].headers.X", "is not a header value"),
        (r#"{"checks":[{"type":"http","headers":{"a b":"c"}}]}"#, "checks[0].headers.a b", "not a header name"),
        (r#"{"checks":[{"type":"http","headers":{"Host":"a","host":"b"}}]}"#, "checks[0].headers.host", "twice"),
        (
            r#"{"checks":[{"type":"http","headers":{"Content-Length":"9"}}]}"#,
            "checks[0].headers.Content-Length",
            "leave it out",
        ),
        (r#"{"checks":[{"type":"tcp","path":"/x"}]}"#, "checks[0].path", "only for checks of type \"http\""),
        (
            r#"{"checks":[{"type":"grpc","headers":{"X":"y"}}]}"#,
            "checks[0].headers",
            "only for checks of type \"http\"",
        ),
        (r#"{"checks":[{"type":"tcp","tls":{}}]}"#, "checks[0].tls", "of type \"http\", \"grpc\", \"tls\", and this"),
        (r#"{"checks":[{"type":"http","service":"x"}]}"#, "checks[0].service", "only for checks of type \"grpc\""),
        (r#"{"checks":[{"type":"tls","tls":{"ca":"x"}}]}"#, "checks[0].tls.ca", "no certificate"),
        (r#"{"detection":{"observers":0}}"#, "detection.observers", "from 1 to 7"),
        (r#"{"detection":{"quorum":0}}"#, "detection.quorum", "0 is not a whole number"),
        (r#"{"detection":{"quorum":"all"}}"#, "detection.quorum", "\"all\" is not a quorum: write \"majority\""),
        (r#"{"detection":{"quorum":4}}"#, "detection.quorum", "4 is more than the 3 `observers`"),
        (r#"{"detection":{"accrual":{"phi":0}}}"#, "detection.accrual.phi", "above 0 and at most 100"),
        (r#"{"detection":{"error_rate":{"threshold":0}}}"#, "detection.error_rate.threshold", "above 0 and at most 1"),
        (r#"{"detection":{"error_rate":{"window":"0s"}}}"#, "detection.error_rate.window", "too short"),
        (r#"{"detection":{"slow":{"percentile":1}}}"#, "detection.slow.percentile", "above 0 and below 1"),
        (r#"{"detection":{"slow":{"multiplier":0.5}}}"#, "detection.slow.multiplier", "at least 1 and at most"),
        (r#"{"detection":{"slow":{"floor":"2s","ceiling":"1s"}}}"#, "detection.slow.floor", "above `ceiling`"),
        (r#"{"breaker":{"open_for":"2s","open_for_max":"1s"}}"#, "breaker.open_for", "above `open_for_max`"),
        (
            r#"{"breaker":{"success_threshold":2,"half_open_max_calls":1}}"#,
            "breaker.success_threshold",
            "half_open_max_calls",
        ),
        (r#"{"recovery":{"initial_delay":"2s","max_delay":"1s"}}"#, "recovery.initial_delay", "above `max_delay`"),
        (r#"{"failover":{"max_lag":-1}}"#, "failover.max_lag", "-1 is not a whole number"),
        (r#"{"lease":{"ttl":"249ms"}}"#, "lease.ttl", "at least \"250ms\""),
        (r#"{"fencing":{"proof":["lease","lease"]}}"#, "fencing.proof[1]", "twice"),
        (
            r#"{"fencing":{"proof":["none_needed","release","lease","hook","token","operator","lease"],"hook":{"agent":"x"}}}"#,
            "fencing.proof[6]",
            "twice",
        ),
        (r#"{"fencing":{"proof":[]}}"#, "fencing.proof", "has 0 items: write 1 to 6"),
        (
            r#"{"fencing":{"proof":["none_needed","release","lease","hook","token","operator","lease","lease"],"hook":{"agent":"x"}}}"#,
            "fencing.proof",
            "has 8 items: write 1 to 6",
        ),
        (r#"{"fencing":{"proof":["hope"]}}"#, "fencing.proof[0]", "\"hope\" is not one of"),
        (r#"{"fencing":{"proof":"lease"}}"#, "fencing.proof", "write \"auto\", or a list"),
        (r#"{"fencing":{"proof":["hook"]}}"#, "fencing.hook", "is missing"),
        (r#"{"fencing":{"hook":{}}}"#, "fencing.hook.url", "write a `url`, or"),
        (r#"{"fencing":{"hook":{"url":"http://h/","agent":"a"}}}"#, "fencing.hook.agent", "leave the other out"),
        (r#"{"fencing":{"hook":{"url":"ftp://h/"}}}"#, "fencing.hook.url", "is not a URL"),
        (r#"{"retry":{"max_attempts":101}}"#, "retry.max_attempts", "from 1 to 100"),
        (r#"{"retry":{"jitter":1.5}}"#, "retry.jitter", "at least 0 and at most 1"),
        (r#"{"retry":{"retry_on":[]}}"#, "retry.retry_on", "has 0 items"),
        (r#"{"retry":{"initial_backoff":"2s","max_backoff":"1s"}}"#, "retry.initial_backoff", "above `max_backoff`"),
        ("null", "$", "null is not an object"),
    ] {
        let errors = parse_spec(&json(text)).expect_err(text);
        assert!(errors.len() == 1 && errors[0].path == path && errors[0].message.contains(part), "{text}\n{errors:#?}");
        assert!(!errors[0].message.contains('\n'), "{}", errors[0]);
    }
}

#[test]
fn registrations_that_make_no_sense_are_refused() {
    let at = |rest: &str| format!("{{\"address\":\"h:1\",{rest}}}");
    for (text, path, part) in [
        ("{}".to_owned(), "address", "is missing"),
        (r#"{"address":"h"}"#.to_owned(), "address", "\"h\" is not an address"),
        (r#"{"liveness":"heartbeat","overrides":{"checks":[{"type":"tcp"}]}}"#.to_owned(), "address", "`overrides`"),
        (at(r#""zone":"a b""#), "zone", "\"a b\" is not a zone"),
        (at(r#""tier":101"#), "tier", "from 0 to 100"),
        (at(r#""priority":1000001"#), "priority", "from 0 to 1000000"),
        (at(r#""weight":1001"#), "weight", "from 0 to 1000"),
        (at(r#""weight":0.5"#), "weight", "0.5 is not a whole number"),
        (at(r#""liveness":"none""#), "liveness", "\"probe\", \"heartbeat\""),
        (at(r#""deregister_after":3600"#), "deregister_after", "is not a duration"),
        (at(r#""metadata":{"a":1}"#), "metadata.a", "1 is not a text"),
        (at(r#""metadata":{"":"x"}"#), "metadata.", "not a label"),
        (at(&format!("\"metadata\":{{\"a\":\"{}\"}}", "x".repeat(1_025))), "metadata.a", "0 to 1024"),
        (at(r#""overrides":{"checks":[{"type":"http","path":"x"}]}"#), "overrides.checks[0].path", "begin with \"/\""),
        (at(r#""metdata":{}"#), "metdata", "did you mean `metadata`?"),
    ] {
        let errors = parse_registration(&json(&text)).expect_err(&text);
        assert!(errors.len() == 1 && errors[0].path == path && errors[0].message.contains(part), "{text}\n{errors:#?}");
    }
    let labels: Vec<String> = (0..65).map(|n| format!("\"l{n}\":\"\"")).collect();
    assert_eq!(paths(parse_registration(&json(&at(&format!("\"metadata\":{{{}}}", labels.join(",")))))), ["metadata"]);
}

#[test]
fn a_patch_changes_what_it_names_and_nothing_else() {
    let old = parse_registration(&json(FULL_REGISTRATION)).expect("valid");
    let patched = |text: &str| parse_registration_patch(&json(text), &old);
    assert_eq!(patched("{}"), Ok(old.clone()));
    let new = patched(r#"{"priority":7,"tier":3,"weight":9,"zone":"z9","deregister_after":"5m"}"#).expect("valid");
    assert_eq!((new.priority, new.tier, new.weight, new.zone.as_deref()), (7, 3, 9, Some("z9")));
    assert_eq!(new.deregister_after, Some(Millis::secs(300)));
    assert_eq!((&new.address, &new.metadata, &new.overrides), (&old.address, &old.metadata, &old.overrides));
    // Null takes away what may be absent.
    let none = patched(r#"{"zone":null,"deregister_after":null,"overrides":{"checks":null}}"#).expect("valid");
    assert_eq!((none.zone, none.deregister_after, none.overrides.checks), (None, None, None));
    assert_eq!(patched(r#"{"overrides":{}}"#), Ok(old.clone()));
    // Labels are merged one by one.
    let mut labelled = old.clone();
    labelled.metadata = [("rack", "r1"), ("old", "x")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    let text = r#"{"metadata":{"rack":"r7","old":null,"gone":null,"new":"y"}}"#;
    let new = parse_registration_patch(&json(text), &labelled).expect("valid");
    let labels: Vec<(&str, &str)> = new.metadata.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(labels, [("new", "y"), ("rack", "r7")]);
    // The same liveness is no change; another one is another life.
    assert_eq!(patched(&format!(r#"{{"liveness":"{}"}}"#, old.liveness)), Ok(old.clone()));
    let many: Vec<String> = (0..65).map(|n| format!("\"l{n}\":\"\"")).collect();
    let mut full = old.clone();
    full.metadata = (0..64).map(|n| (format!("l{n}"), String::new())).collect();
    let one_more = parse_registration_patch(&json(r#"{"metadata":{"l64":""}}"#), &full);
    assert_eq!(paths(one_more), ["metadata"]);
    for (text, path) in [
        (r#"{"priority":null}"#, "priority"),
        (r#"{"weight":"1"}"#, "weight"),
        (r#"{"tier":101}"#, "tier"),
        (r#"{"session":"s"}"#, "session"),
        (r#"{"overrides":{"check":[]}}"#, "overrides.check"),
        (r#"{"overrides":{"checks":[{"type":"x"}]}}"#, "overrides.checks[0].type"),
        (r#"{"address":"nowhere"}"#, "address"),
        (r#"{"metadata":null}"#, "metadata"),
        (r#"{"metadata":{"":"x"}}"#, "metadata."),
        (&format!("{{\"metadata\":{{{}}}}}", many.join(",")), "metadata"),
        ("[]", "$"),
    ] {
        assert_eq!(paths(patched(text)), [path], "{text}");
    }
    let probed = parse_registration(&json(r#"{"address":"a:1"}"#)).expect("valid");
    assert_eq!(paths(parse_registration_patch(&json(r#"{"address":null}"#), &probed)), ["address"]);
    assert_eq!(paths(parse_registration_patch(&json(r#"{"liveness":"heartbeat"}"#), &probed)), ["liveness"]);
}

#[test]
fn all_errors_come_at_once() {
    let text = r#"{"mode":"both","checks":[{"type":"tcp","interval":"1"},{"type":"x","port":0}],
        "lease":{"ttl":5},"retry":{"jitter":"much"},"fail_opne":true}"#;
    assert_eq!(
        paths(parse_spec(&json(text))),
        ["mode", "checks[0].interval", "checks[1].type", "checks[1].port", "lease.ttl", "retry.jitter", "fail_opne"]
    );
}

#[test]
fn a_wish_bends_the_default_beside_it() {
    let spec = parse_spec(&json(
        r#"{"checks":[{"type":"tcp","interval":"50ms"}],"breaker":{"half_open_max_calls":1},"retry":{"initial_backoff":"20s"}}"#,
    ))
    .expect("valid");
    assert_eq!(spec.checks[0].fast_interval, spec.checks[0].interval);
    assert_eq!(spec.breaker.success_threshold, 1);
    assert_eq!(spec.retry.max_backoff, spec.retry.initial_backoff);
}

#[test]
fn there_is_an_end_to_checks() {
    let checks = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!("{{\"type\":\"tcp\",\"name\":\"c{n}\"}}")).collect();
        paths(parse_spec(&json(&format!("{{\"checks\":[{}]}}", list.join(",")))))
    };
    assert_eq!(checks(16), Vec::<String>::new());
    assert_eq!(checks(17), ["checks"]);
}
