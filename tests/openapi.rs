//! The committed description of the API is the one the code has. `BATON_UPDATE_OPENAPI=1` writes it anew.

use std::path::Path;

use serde_json::Value;

use crate::support::process::baton;
use crate::support::{Load, scenario};

/// Every path of the contract that there is so far, with its methods.
const PATHS: &[(&str, &[&str])] = &[
    ("/livez", &["get"]),
    ("/readyz", &["get"]),
    ("/metrics", &["get"]),
    ("/", &["get"]),
    ("/docs", &["get"]),
    ("/openapi.json", &["get"]),
    ("/v1/services", &["get"]),
    ("/v1/services/{service}", &["put", "get", "delete"]),
    ("/v1/services/{service}/instances", &["get"]),
    ("/v1/services/{service}/instances/{instance}", &["put", "get", "patch", "delete"]),
    ("/v1/services/{service}/instances/{instance}/heartbeat", &["post"]),
    ("/v1/services/{service}/instances/{instance}/ack", &["post"]),
    ("/v1/services/{service}/instances/{instance}/release", &["post"]),
    ("/v1/services/{service}/instances/{instance}/role", &["get"]),
    ("/v1/services/{service}/instances/{instance}/admin", &["post"]),
    ("/v1/services/{service}/instances/{instance}/reset", &["post"]),
    ("/v1/services/{service}/instances/{instance}/is-active", &["get"]),
    ("/v1/services/{service}/instances/{instance}/is-passive", &["get"]),
    ("/v1/services/{service}/instances/{instance}/is-healthy", &["get"]),
    ("/v1/services/{service}/active", &["get"]),
    ("/v1/services/{service}/explain", &["get"]),
    ("/v1/services/{service}/reports", &["post"]),
    ("/v1/services/{service}/endpoints", &["get"]),
    ("/v1/services/{service}/pick", &["post"]),
    ("/v1/services/{service}/failover", &["post"]),
    ("/v1/services/{service}/switchover", &["post"]),
    ("/v1/services/{service}/failback", &["post"]),
    ("/v1/services/{service}/tokens/verify", &["post"]),
    ("/v1/services/{service}/pause", &["post"]),
    ("/v1/services/{service}/resume", &["post"]),
    ("/v1/automation/pause", &["post"]),
    ("/v1/automation/resume", &["post"]),
    ("/v1/transitions", &["get"]),
    ("/v1/transitions/{id}", &["get"]),
    ("/v1/events", &["get"]),
    ("/v1/watch", &["get"]),
    ("/v1/cluster", &["get"]),
];

#[test]
fn the_committed_openapi_file_is_what_the_code_says() {
    scenario(Load::Light, async {
        let printed = baton(&["openapi"]).await;
        assert_eq!(printed.code, Some(0), "{}", printed.stderr);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openapi/openapi.json");
        if std::env::var_os("BATON_UPDATE_OPENAPI").is_some() {
            std::fs::write(&path, &printed.stdout).expect("openapi/openapi.json can be written");
        }
        let committed = std::fs::read_to_string(&path).expect("openapi/openapi.json is there");
        assert!(
            committed == printed.stdout,
            "openapi/openapi.json is not what `baton openapi` prints: run BATON_UPDATE_OPENAPI=1 cargo test -p baton openapi"
        );
    });
}

#[test]
fn every_path_of_the_contract_is_described() {
    scenario(Load::Light, async {
        let printed = baton(&["openapi"]).await;
        let spec: Value = serde_json::from_str(&printed.stdout).expect("JSON");
        let paths = spec["paths"].as_object().expect("paths");
        for (path, methods) in PATHS {
            // The name of a parameter is the code's own business.
            let shape = shape(path);
            let found = paths.iter().find(|(described, _)| self::shape(described) == shape);
            let (_, item) = found.unwrap_or_else(|| panic!("{path} is not described; there are {:?}", paths.keys()));
            for method in *methods {
                let operation = &item[*method];
                assert!(operation["responses"].is_object(), "{method} {path} is not described: {item}");
                let said = ["summary", "description"]
                    .iter()
                    .any(|key| operation[*key].as_str().is_some_and(|s| !s.is_empty()));
                assert!(said, "{method} {path} has no words: {operation}");
            }
        }
        // Whatever is referred to is there.
        for reference in references(&spec) {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("a reference elsewhere: {reference}"));
            assert!(spec.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    });
}

fn shape(path: &str) -> String {
    path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect::<Vec<_>>().join("/")
}

fn references(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value.as_str()) {
                ("$ref", Some(reference)) => vec![reference.to_owned()],
                _ => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
