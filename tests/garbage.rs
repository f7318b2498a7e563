//! Garbage in: every kind of nonsense is told to the one who sent it, by the name of the field, and hurts nobody.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::cluster::Cluster;
use crate::support::http::{Answer, Api};
use crate::support::{Load, SOON, scenario};

/// An address that is good enough to be registered.
const GOOD: &str = r#"{"address":"127.0.0.1:9"}"#;

/// It must be the client's fault, and said so in the contract's form.
fn told(row: &str, answer: &Answer) {
    let seen = format!("{row}: {} {}", answer.status, answer.text);
    assert!((400..500).contains(&answer.status), "{seen}");
    assert_eq!(answer.header("content-type"), "application/problem+json", "{seen}");
    assert_eq!(answer.json["status"], answer.status, "{seen}");
    for field in ["type", "title", "detail", "code"] {
        assert!(answer.json[field].as_str().is_some_and(|text| !text.is_empty()), "no {field}: {seen}");
    }
}

/// The paths in `errors`.
fn paths(answer: &Answer) -> Vec<String> {
    let errors = answer.json["errors"].as_array().cloned().unwrap_or_default();
    for error in &errors {
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "no message: {}", answer.text);
    }
    errors.iter().map(|error| error["path"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn still_well(api: &Api) {
    api.get("/livez").await.is(200);
    api.get("/readyz").await.is(200);
    api.put("/v1/services/good", &json!({})).await.done();
    api.get("/v1/services/good").await.is(200);
}

#[test]
fn a_bad_spec_is_refused_with_the_name_of_the_field() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let rows: &[(&str, &str)] = &[
            (r#"{"mode": "both"}"#, "mode"),
            (r#"{"mode": 7}"#, "mode"),
            (r#"{"chekcs": []}"#, "chekcs"),
            (r#"{"checks": {}}"#, "checks"),
            (r#"{"checks": [{"type": "carrier-pigeon"}]}"#, "checks[0].type"),
            (r#"{"checks": [{"type": "tcp"}, {"type": "http", "interval": "soon"}]}"#, "checks[1].interval"),
            (r#"{"checks": [{"type": "tcp", "interval": "0s"}]}"#, "checks[0].interval"),
            (r#"{"checks": [{"type": "tcp", "timeout": "0s"}]}"#, "checks[0].timeout"),
            (r#"{"checks": [{"type": "tcp", "interval": 1}]}"#, "checks[0].interval"),
            (r#"{"checks": [{"type": "tcp", "interval": "-1s"}]}"#, "checks[0].interval"),
            (r#"{"checks": [{"type": "tcp", "interval": "99999999999999999999s"}]}"#, "checks[0].interval"),
            (r#"{"checks": [{"type": "tcp", "rise": 0}]}"#, "checks[0].rise"),
            (r#"{"checks": [{"type": "tcp", "fall": -3}]}"#, "checks[0].fall"),
            (r#"{"checks": [{"type": "tcp", "fall": 2.5}]}"#, "checks[0].fall"),
            (r#"{"checks": [{"type": "tcp", "port": 70000}]}"#, "checks[0].port"),
            (r#"{"checks": [{"type": "http", "expect_status": ["2xx"]}]}"#, "checks[0].expect_status"),
            (r#"{"checks": [{"type": "http", "expect_status": ["299-200"]}]}"#, "checks[0].expect_status"),
            (r#"{"checks": [{"type": "http", "expect_body": "("}]}"#, "checks[0].expect_body"),
            (r#"{"checks": [{"type": "http", "path": "no-slash"}]}"#, "checks[0].path"),
            (r#"{"checks": [{"type": "http", "headers": {"bad header": "x"}}]}"#, "checks[0].headers"),
            (r#"{"checks": [{"type": "http", "method": "G E T"}]}"#, "checks[0].method"),
            (r#"{"checks": [{"type": "tcp", "intervall": "1s"}]}"#, "checks[0].intervall"),
            (r#"{"detection": {"quorum": "most"}}"#, "detection.quorum"),
            (r#"{"detection": {"error_rate": {"threshold": 1.5}}}"#, "detection.error_rate.threshold"),
            (r#"{"failover": {"strategy": "worst"}}"#, "failover.strategy"),
            (r#"{"failover": {"min_interval": "1 fortnight"}}"#, "failover.min_interval"),
            (r#"{"failover": {"automatic": "yes"}}"#, "failover.automatic"),
            (r#"{"fencing": {"proof": ["prayer"]}}"#, "fencing.proof"),
            (r#"{"fencing": {"proof": "manual"}}"#, "fencing.proof"),
            (r#"{"retry": {"retry_on": ["bad mood"]}}"#, "retry.retry_on"),
            (r#"{"load_balancing": null}"#, "load_balancing"),
        ];
        for (body, path) in rows {
            let answer = api.call(Method::PUT, "/v1/services/bad").raw(body).answer().await;
            told(body, &answer);
            let named = paths(&answer);
            assert!(
                named.iter().any(|named| named.starts_with(path)),
                "{body}: {path} is not in {named:?}: {}",
                answer.text
            );
        }
        // Nothing of it was taken.
        api.get("/v1/services/bad").await.problem(404).code("no_such_service");

        // All that is wrong is told at once.
        let many = r#"{"mode": "both", "checks": [{"type": "tcp", "rise": 0, "interval": "soon"}], "extra": 1}"#;
        let answer = api.call(Method::PUT, "/v1/services/bad").raw(many).answer().await;
        let named = paths(&answer);
        for path in ["mode", "checks[0].rise", "checks[0].interval", "extra"] {
            assert!(named.iter().any(|named| named == path), "{path} is not in {named:?}: {}", answer.text);
        }
        still_well(api).await;
    });
}

#[test]
fn what_is_no_json_at_all_is_refused_too() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let deep = format!("{{\"checks\": {}{}}}", "[".repeat(50_000), "]".repeat(50_000));
        let rows = [
            "",
            "{",
            "nonsense",
            "[]",
            "null",
            "\"text\"",
            "7",
            "{}{}",
            "{\"mode\": \"active_active\",}",
            "{\"mode\": \"active_passive\", \"mode\": \"active_active\"}",
            "{\"lease\": {\"ttl\": \"1s\", \"ttl\": \"2s\"}}",
            "{\"fail_open\": NaN}",
            "\u{feff}{}",
            "{\"mode\": \"\u{0}\"}",
            deep.as_str(),
        ];
        for body in rows {
            let row: String = body.chars().take(60).collect();
            let answer = api.call(Method::PUT, "/v1/services/bad").raw(body).answer().await;
            told(&row, &answer);
        }
        // Duplicates are named.
        let twice =
            api.call(Method::PUT, "/v1/services/bad").raw(r#"{"fail_open": true, "fail_open": false}"#).answer().await;
        assert!(paths(&twice).iter().any(|path| path == "fail_open"), "{}", twice.text);
        // Bytes that are no UTF-8.
        let latin = raw(
            cluster.node(1).listen,
            b"PUT /v1/services/bad HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"mode\":\"\xe9\"}",
        )
        .await;
        assert!(latin.starts_with("HTTP/1.1 4"), "{latin}");
        api.get("/v1/services/bad").await.problem(404).code("no_such_service");
        still_well(api).await;
    });
}

#[test]
fn bad_registrations_and_orders_are_refused_with_the_name_of_the_field() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/good", &json!({"checks": [{"type": "tcp"}]})).await.done();
        let rows: &[(&str, &str)] = &[
            (r#"{}"#, "address"),
            (r#"{"address": "nowhere"}"#, "address"),
            (r#"{"address": "127.0.0.1:0"}"#, "address"),
            (r#"{"address": "127.0.0.1:99999"}"#, "address"),
            (r#"{"address": "http://127.0.0.1:80"}"#, "address"),
            (r#"{"address": 80}"#, "address"),
            (r#"{"address": "127.0.0.1:9", "priority": -1}"#, "priority"),
            (r#"{"address": "127.0.0.1:9", "priority": "high"}"#, "priority"),
            (r#"{"address": "127.0.0.1:9", "weight": 1e99}"#, "weight"),
            (r#"{"address": "127.0.0.1:9", "tier": 0.5}"#, "tier"),
            (r#"{"address": "127.0.0.1:9", "liveness": "maybe"}"#, "liveness"),
            (r#"{"address": "127.0.0.1:9", "deregister_after": "never"}"#, "deregister_after"),
            (r#"{"address": "127.0.0.1:9", "metadata": {"k": 1}}"#, "metadata"),
            (r#"{"address": "127.0.0.1:9", "metadata": []}"#, "metadata"),
            (r#"{"address": "127.0.0.1:9", "overrides": {"check": []}}"#, "overrides.check"),
            (
                r#"{"address": "127.0.0.1:9", "overrides": {"checks": [{"type": "tcp", "rise": 0}]}}"#,
                "overrides.checks[0].rise",
            ),
            (r#"{"address": "127.0.0.1:9", "role": "active"}"#, "role"),
        ];
        for (body, path) in rows {
            let answer = api.call(Method::PUT, "/v1/services/good/instances/i").raw(body).answer().await;
            told(body, &answer);
            let named = paths(&answer);
            assert!(
                named.iter().any(|named| named.starts_with(path)),
                "{body}: {path} is not in {named:?}: {}",
                answer.text
            );
        }
        let orders: &[(&str, &str)] = &[
            (r#"{"to": 7, "reason": "r"}"#, "to"),
            (r#"{"to": "UPPER", "reason": "r"}"#, "to"),
            (r#"{"reason": ""}"#, "reason"),
            (r#"{"reason": "r", "dry_run": "yes"}"#, "dry_run"),
            (r#"{"reason": "r", "proof": "prayer"}"#, "proof"),
            (r#"{"reason": "r", "force": true}"#, "force"),
        ];
        for (body, path) in orders {
            for order in ["failover", "switchover"] {
                let answer = api.call(Method::POST, &format!("/v1/services/good/{order}")).raw(body).answer().await;
                told(body, &answer);
                let named = paths(&answer);
                assert!(named.iter().any(|named| named == path), "{body}: {path} is not in {named:?}: {}", answer.text);
            }
        }
        let told_of_calls: &[(&str, &str)] = &[
            ("{}", "reports"),
            (r#"{"reports": {}}"#, "reports"),
            (r#"{"reports": [7]}"#, "reports[0]"),
            (r#"{"reports": [{"instance": "a"}]}"#, "reports[0].outcome"),
            (r#"{"reports": [{"status": 200}]}"#, "reports[0].instance"),
            (r#"{"reports": [{"instance": "A", "status": 200}]}"#, "reports[0].instance"),
            (r#"{"reports": [{"instance": "a", "outcome": "fine"}]}"#, "reports[0].outcome"),
            (r#"{"reports": [{"instance": "a", "status": "200"}]}"#, "reports[0].status"),
            (
                r#"{"reports": [{"instance": "a", "status": 200}, {"instance": "a", "status": 70000}]}"#,
                "reports[1].status",
            ),
            (r#"{"reports": [{"instance": "a", "status": 200, "latency_ms": -1}]}"#, "reports[0].latency_ms"),
            (r#"{"reports": [{"instance": "a", "status": 200, "count": 0}]}"#, "reports[0].count"),
            (r#"{"reports": [{"instance": "a", "status": 200, "count": 1e9}]}"#, "reports[0].count"),
            (r#"{"reports": [{"instance": "a", "status": 200, "generation": "3"}]}"#, "reports[0].generation"),
            (r#"{"reports": [{"instance": "a", "status": 200, "status": 500}]}"#, "reports[0].status"),
            (r#"{"reports": [], "report": []}"#, "report"),
        ];
        let signs_of_life: &[(&str, &str)] = &[
            ("{}", "session"),
            (r#"{"session": ""}"#, "session"),
            (r#"{"session": 7}"#, "session"),
            (r#"{"session": "s", "state": "splendid"}"#, "state"),
            (r#"{"session": "s", "lag": -1}"#, "lag"),
            (r#"{"session": "s", "lag": "7"}"#, "lag"),
            (r#"{"session": "s", "role": "active"}"#, "role"),
        ];
        for (path, rows) in [("reports", told_of_calls), ("instances/i/heartbeat", signs_of_life)] {
            for (body, field) in rows {
                let answer = api.call(Method::POST, &format!("/v1/services/good/{path}")).raw(body).answer().await;
                told(body, &answer);
                let named = paths(&answer);
                assert!(
                    named.iter().any(|named| named == field),
                    "{body}: {field} is not in {named:?}: {}",
                    answer.text
                );
            }
        }
        assert!(api.all("/v1/services/good/instances").await.is_empty());

        api.put("/v1/services/good/instances/i", &json!({"address": "127.0.0.1:9"})).await.done();
        let words: &[(&str, &str, &str)] = &[
            ("admin", r#"{}"#, "state"),
            ("admin", r#"{"state": "off", "reason": "r"}"#, "state"),
            ("admin", r#"{"state": ["draining"], "reason": "r"}"#, "state"),
            ("admin", r#"{"state": "draining"}"#, "reason"),
            ("admin", r#"{"state": "draining", "reason": 7}"#, "reason"),
            ("admin", r#"{"state": "draining", "reason": "r", "for": "a while"}"#, "for"),
            ("admin", r#"{"state": "draining", "reason": "r", "for": "0s"}"#, "for"),
            ("admin", r#"{"state": "draining", "reason": "r", "for": null}"#, "for"),
            ("admin", r#"{"state": "maintenance", "reason": "r"}"#, "for"),
            ("admin", r#"{"state": "maintenance", "reason": "r", "until": "tomorrow"}"#, "until"),
            ("admin", r#"{"state": "maintenance", "reason": "r", "until": "2001-01-01T00:00:00Z"}"#, "until"),
            ("admin", r#"{"state": "maintenance", "reason": "r", "until": 1795171320}"#, "until"),
            (
                "admin",
                r#"{"state": "maintenance", "reason": "r", "for": "1h", "until": "2901-01-01T00:00:00Z"}"#,
                "until",
            ),
            ("admin", r#"{"state": "enabled", "reason": "r", "for": "1h"}"#, "for"),
            ("admin", r#"{"state": "draining", "reason": "r", "actor": "root"}"#, "actor"),
            ("reset", r#"{}"#, "reason"),
            ("reset", r#"{"reason": ""}"#, "reason"),
            ("reset", r#"{"reason": "r", "breaker": true}"#, "breaker"),
            ("reset", r#"[]"#, "$"),
        ];
        for (word, body, path) in words {
            let at = format!("/v1/services/good/instances/i/{word}");
            let answer = api.call(Method::POST, &at).raw(body).answer().await;
            told(body, &answer);
            let named = paths(&answer);
            assert!(named.iter().any(|named| named == path), "{body}: {path} is not in {named:?}: {}", answer.text);
        }
        let untouched = api.get("/v1/services/good/instances/i").await.is(200).json;
        assert_eq!(untouched["admin"]["state"], "enabled", "{untouched}");
        still_well(api).await;
    });
}

#[test]
fn strange_names_paths_methods_and_queries_are_refused() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/good", &json!({})).await.done();
        let long = "a".repeat(64);
        let endless = "a".repeat(6_000);
        for name in [
            "Upper",
            "-dash",
            "dash-",
            "under_score",
            "dot.dot",
            "%20",
            "%00",
            "%C3%A9",
            "a%2Fb",
            "%FF",
            "a%0d%0ab",
            &long,
            &endless,
        ] {
            for path in [format!("/v1/services/{name}"), format!("/v1/services/good/instances/{name}")] {
                let row: String = path.chars().take(80).collect();
                let put = api.call(Method::PUT, &path).raw(GOOD).answer().await;
                told(&format!("PUT {row}"), &put);
                let get = api.get(&path).await;
                told(&format!("GET {row}"), &get);
            }
        }
        assert_eq!(api.all("/v1/services").await.len(), 1, "none of those names was taken");
        api.put(&format!("/v1/services/{}", "a".repeat(63)), &json!({})).await.done();

        for path in [
            "/v2/services",
            "/v1",
            "/v1/service",
            "/v1/services/good/instances/i/is-well",
            "/.env",
            "/v1/services/good/active/x",
            "/%",
        ] {
            let answer = api.get(path).await;
            told(path, &answer);
            assert_eq!(answer.status, 404, "{path}");
        }
        for (method, path) in [
            (Method::POST, "/v1/services/good"),
            (Method::PATCH, "/v1/services"),
            (Method::DELETE, "/v1/services"),
            (Method::PUT, "/v1/events"),
            (Method::GET, "/v1/services/good/switchover"),
            (Method::DELETE, "/livez"),
            (Method::from_bytes(b"BREW").expect("a token"), "/v1/services/good"),
        ] {
            let answer = api.call(method.clone(), path).answer().await;
            told(&format!("{method} {path}"), &answer);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(!answer.header("allow").is_empty(), "{method} {path}: a 405 says what is allowed");
        }
        for path in [
            "/v1/services?limit=0",
            "/v1/services?limit=-1",
            "/v1/services?limit=many",
            "/v1/services?limit=99999999999999999999",
            "/v1/services?cursor=%21%21",
            "/v1/services?consistency=whatever",
            "/v1/services?colour=red",
            "/v1/services/good?after=x&wait=1s",
            "/v1/services/good?after=1&wait=x",
            "/v1/events?after=-1",
            "/v1/events?after=1&after=2",
            "/v1/watch?type=no.such.type",
            "/v1/watch?service=UPPER",
            "/v1/services/good/active?consistency=",
        ] {
            told(path, &api.get(path).await);
        }
        for id in ["x", "-1", "1.5", "99999999999999999999999"] {
            let answer = api.call(Method::GET, "/v1/watch").header("last-event-id", id).answer().await;
            told(&format!("Last-Event-ID: {id}"), &answer);
        }
        for tag in ["nonsense", "\"nonsense\""] {
            let answer = api.call(Method::PUT, "/v1/services/good").header("if-match", tag).raw("{}").answer().await;
            told(&format!("If-Match: {tag}"), &answer);
        }
        let plain = api.call(Method::PUT, "/v1/services/good").header("content-type", "text/plain").answer().await;
        told("a body that is not said to be JSON", &plain);
        still_well(api).await;
    });
}

#[test]
fn bodies_and_headers_without_measure_are_cut_short() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let (api, address) = (cluster.api(1), cluster.node(1).listen);

        // Announced: refused before it is sent.
        let announced = raw(
            address,
            b"PUT /v1/services/big HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n{",
        )
        .await;
        assert!(announced.starts_with("HTTP/1.1 413"), "{announced}");
        assert!(announced.to_lowercase().contains("application/problem+json"), "{announced}");

        // Not announced: cut off on the way, by an answer or by the end of the connection.
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        let head = b"PUT /v1/services/big HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        socket.write_all(head).await.expect("a head is taken");
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        let mut sent = 0usize;
        while sent < 4_096 && socket.write_all(chunk.as_bytes()).await.is_ok() {
            sent += 1;
            let mut answer = [0u8; 64];
            match socket.try_read(&mut answer) {
                Ok(0) => break,
                Ok(n) => {
                    let answer = String::from_utf8_lossy(&answer[..n]).into_owned();
                    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
                    break;
                }
                Err(_) => {}
            }
        }
        assert!(sent < 4_096, "256 MiB were taken");

        // Headers: too many, too long, none at all.
        let many = format!("GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n{}\r\n", "x-a: b\r\n".repeat(5_000));
        let long = format!("GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: {}\r\n\r\n", "b".repeat(2_000_000));
        for request in [
            many.as_bytes(),
            long.as_bytes(),
            b"\r\n\r\n\r\n",
            b"GET\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"GET /livez HTTP/9.9\r\n\r\n",
        ] {
            let answer = raw(address, request).await;
            assert!(
                answer.is_empty() || answer.starts_with("HTTP/1.1 4") || answer.starts_with("HTTP/1.0 4"),
                "{answer}"
            );
        }
        // Someone who says nothing at all holds nobody up.
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(TcpStream::connect(address).await.expect("a connection"));
        }
        still_well(api).await;
        let refused: Value = api.get("/v1/services/big").await.problem(404).json;
        assert_eq!(refused["code"], "no_such_service");
    });
}

/// Sends bytes as they are; what comes back until the other side closes, or for two seconds if it waits for more.
async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket =
        tokio::time::timeout(SOON, TcpStream::connect(address)).await.expect("in time").expect("a connection");
    // The other side may close before it has read all.
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0u8; 4096];
    while let Ok(Ok(n)) = tokio::time::timeout(Duration::from_secs(2), socket.read(&mut buffer)).await {
        if n == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
