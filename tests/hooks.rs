//! Fencing hooks, on real nodes: a holder that falls silent is cut off before anybody succeeds it, each attempt is on record
//! with its outcome, and a leader that dies while a hook runs is succeeded by one that says so.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::support::cluster::Cluster;
use crate::support::http::Api;
use crate::support::{Load, SOON, ports, scenario, until, when};

/// Heartbeats come this often; the checks of [`fenced`] miss three at most.
const BEAT: Duration = Duration::from_millis(150);

/// The key of the nodes' secret.
const KEY: &[u8] = b"32 bytes that nobody can guess!!";

/// The configuration of every node: a secret for webhooks, and two fence agents. One fails twice with 3 and is well then, the
/// other always fails with 4.
fn config() -> String {
    let agent = |script: &str| format!("command = [\"/bin/sh\", \"-c\", {script:?}]\n");
    format!(
        "[webhooks]\nsecret = \"whsec_{}\"\n[fence_agents.third]\n{}[fence_agents.never]\n{}",
        base64(KEY),
        agent("grep -q action=off && [ \"$BATON_ATTEMPT\" -ge 3 ] || exit 3"),
        agent("echo 'cannot reach the power switch' >&2; exit 4"),
    )
}

/// A service whose holder's end only a hook can prove.
fn fenced(hook: &Value) -> Value {
    json!({
        "checks": [{"type": "heartbeat", "interval": "300ms", "fall": 3, "timeout": "200ms"}],
        "recovery": {"strategy": "immediate"},
        "failover": {"min_interval": "0s", "max_in_window": 100},
        "fencing": {"proof": ["hook"], "hook": hook}
    })
}

/// HMAC-SHA256 as RFC 2104 writes it.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Base64 as RFC 4648 writes it, of 32 bytes.
fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(bytes.len(), 32);
    let padded = [bytes, &[0]].concat();
    let groups = padded.chunks(3).map(|three| u32::from_be_bytes([0, three[0], three[1], three[2]]));
    let text: String =
        groups.flat_map(|bits| [18, 12, 6, 0].map(|shift| char::from(digits[(bits >> shift & 63) as usize]))).collect();
    format!("{}=", &text[..text.len() - 1])
}

/// One call of a webhook.
#[derive(Clone)]
struct Called {
    headers: HeaderMap,
    body: Bytes,
}

impl Called {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body of a webhook is JSON")
    }
}

/// A receiver of webhooks; it ends with this value.
struct Receiver {
    url: String,
    calls: Arc<Mutex<Vec<Called>>>,
    task: JoinHandle<()>,
}

impl Receiver {
    /// Answers 204; but never the first `unanswered` calls.
    async fn start(unanswered: usize) -> Self {
        let listener = tokio::net::TcpListener::bind(ports::free()).await.expect("a free port");
        let url = format!("http://{}/off", listener.local_addr().expect("a bound socket has an address"));
        let calls: Arc<Mutex<Vec<Called>>> = Arc::default();
        let heard = calls.clone();
        let router = Router::new().fallback(move |headers: HeaderMap, body: Bytes| {
            let count = {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                heard.push(Called { headers, body });
                heard.len()
            };
            async move {
                if count <= unanswered {
                    std::future::pending::<()>().await;
                }
                StatusCode::NO_CONTENT
            }
        });
        let task = tokio::spawn(async move { axum::serve(listener, router).await.expect("a server") });
        Self { url, calls, task }
    }

    fn calls(&self) -> Vec<Called> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn called(&self, times: usize) -> Vec<Called> {
        until(SOON, &format!("the webhook to be called {times} times"), async || {
            let calls = self.calls();
            when(calls.len() >= times, calls).map_err(|calls| calls.len())
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An instance that heartbeats, to whichever of the nodes answers, until it falls silent.
struct Beating {
    task: JoinHandle<()>,
}

impl Beating {
    async fn start(cluster: &Cluster, service: &str, instance: &str, priority: u32) -> Self {
        let apis: Vec<Api> = cluster.ids().iter().map(|id| cluster.api(*id).clone()).collect();
        let path = format!("/v1/services/{service}/instances/{instance}");
        let registration = json!({"liveness": "heartbeat", "priority": priority});
        let stored = apis[0].put(&path, &registration).await.done().json;
        let session = stored["session"].as_str().unwrap_or_else(|| panic!("no session in {stored}")).to_owned();
        let task = tokio::spawn(async move {
            let mut beats = tokio::time::interval(BEAT);
            let body = json!({"session": session, "state": "ok"});
            loop {
                beats.tick().await;
                for api in &apis {
                    let call = api.call(reqwest::Method::POST, &format!("{path}/heartbeat")).json(&body);
                    if call.send(BEAT * 2).await.is_ok_and(|answer| answer.status == 200) {
                        break;
                    }
                }
            }
        });
        Self { task }
    }

    /// It stops without a word.
    fn falls_silent(&self) {
        self.task.abort();
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The service with `a` preferred to `b`, both beating; `a` is active when this returns. Both, and what `active` answered.
async fn two(cluster: &Cluster, node: u64, service: &str, spec: &Value) -> (Beating, Beating, Value) {
    cluster.api(node).put(&format!("/v1/services/{service}"), spec).await.done();
    let a = Beating::start(cluster, service, "a", 200).await;
    let b = Beating::start(cluster, service, "b", 100).await;
    cluster.health(node, service, "b", "healthy").await;
    let active = cluster.active(node, service, "a").await;
    (a, b, active)
}

/// The newest record of a service, as soon as it is as `wanted`.
async fn record(cluster: &Cluster, node: u64, service: &str, what: &str, wanted: fn(&Value) -> bool) -> Value {
    until(SOON, &format!("a record of {service} with {what}"), async || {
        let records = cluster.api(node).all(&format!("/v1/transitions?service={service}")).await;
        let newest = records.into_iter().max_by_key(|record| {
            let id = record["id"].as_str().unwrap_or_default();
            id.trim_start_matches("tr-").parse::<u64>().unwrap_or_default()
        });
        let newest = newest.unwrap_or_default();
        when(wanted(&newest), newest)
    })
    .await
}

fn says(value: &Value, words: &str) -> bool {
    value.to_string().contains(words)
}

#[test]
fn a_holder_that_falls_silent_is_cut_off_by_a_signed_webhook_and_then_succeeded() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::configured(3, Some(&config())).await;
        let node = cluster.follower().await;
        let receiver = Receiver::start(0).await;
        let hook = json!({"url": receiver.url, "timeout": "5s", "attempts": 3});
        let (a, _b, first) = two(&cluster, node, "db", &fenced(&hook)).await;
        assert!(receiver.calls().is_empty(), "nobody is cut off who is well");

        a.falls_silent();
        let second = cluster.active(node, "db", "b").await;
        assert!(second["token"].as_u64() > first["token"].as_u64(), "{second} after {first}");
        assert_eq!(second["fencing"], "enforced", "{second}");
        let calls = receiver.calls();
        assert_eq!(calls.len(), 1, "a hook that confirms is called once");

        let called = &calls[0];
        let told = called.json();
        assert_eq!((&told["type"], &told["data"]["action"]), (&json!("fencing.requested"), &json!("off")), "{told}");
        let data = &told["data"];
        assert_eq!((&data["service"], &data["instance"]), (&json!("db"), &json!("a")), "{told}");
        assert_eq!((&data["token"], &data["attempt"]), (&first["token"], &json!(1)), "{told}");
        let id = format!("{}.1", data["transition"].as_str().expect("a transition"));
        assert_eq!(called.header("webhook-id"), id);
        let signed = format!("{id}.{}.{}", called.header("webhook-timestamp"), String::from_utf8_lossy(&called.body));
        let signature = format!("v1,{}", base64(&hmac_sha256(KEY, signed.as_bytes())));
        assert_eq!(called.header("webhook-signature"), signature);

        let record = record(&cluster, node, "db", "an end", |record| record["status"] == "finished").await;
        println!("{record:#}");
        assert_eq!(record["id"], data["transition"]);
        assert_eq!((&record["proof"]["proof"], &record["proof"]["fencing"]), (&json!("hook"), &json!("enforced")));
        assert!(says(&record["proof"]["evidence"], "answered 204"), "{record}");
        let run = &record["hook"][0];
        assert_eq!((&run["number"], &run["instance"], &run["resumes"]), (&json!(1), &json!("a"), &json!(false)));
        assert_eq!((&run["outcome"]["ok"], &run["outcome"]["status"]), (&json!(true), &json!(204)), "{run}");
        assert_eq!(record["hook"].as_array().map(Vec::len), Some(1));
        cluster.same_state_everywhere().await;
    });
}

#[test]
fn each_attempt_is_kept_with_its_exit_code_and_nobody_is_promoted_by_failures() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::configured(3, Some(&config())).await;
        let node = cluster.follower().await;
        let agent = |name: &str, attempts: u32| json!({"agent": name, "timeout": "5s", "attempts": attempts});
        let (stubborn, _b, _) = two(&cluster, node, "stubborn", &fenced(&agent("third", 5))).await;
        let (failing, _c, _) = two(&cluster, node, "failing", &fenced(&agent("never", 2))).await;
        stubborn.falls_silent();
        failing.falls_silent();

        // The third attempt confirms; the two before it are on record.
        cluster.active(node, "stubborn", "b").await;
        let done = record(&cluster, node, "stubborn", "an end", |record| record["status"] == "finished").await;
        let runs = done["hook"].as_array().expect("its runs");
        let codes: Vec<_> = runs.iter().map(|run| run["outcome"]["code"].as_i64()).collect();
        assert_eq!(codes, [Some(3), Some(3), Some(0)], "{done:#}");
        assert_eq!(done["proof"]["proof"], "hook");

        // One that always fails is tried as often as it may be, and the service waits for a person.
        let two_failed = |record: &Value| record["hook"][1]["outcome"]["code"] == 4;
        let held = record(&cluster, node, "failing", "two failures", two_failed).await;
        assert_eq!((&held["status"], &held["proof"]), (&json!("running"), &Value::Null), "{held:#}");
        assert!(!says(&held, "power switch"), "what an agent prints stays on its node");
        let explained = until(SOON, "the attempts to be used up", async || {
            let explained = cluster.api(node).get("/v1/services/failing/explain").await.is(200).json;
            when(says(&explained, "failed 2 times, and attempts is 2"), explained)
        })
        .await;
        assert!(says(&explained["summary"], "waits"), "{explained:#}");
        cluster.api(node).get("/v1/services/failing/active").await.problem(503);
        let order = json!({"reason": "the rack has no power", "proof": "operator"});
        let moved = cluster.api(node).post("/v1/services/failing/failover", &order).await;
        assert!(matches!(moved.status, 200 | 202), "{}", moved.text);
        cluster.active(node, "failing", "b").await;
        let over = record(&cluster, node, "failing", "an end", |record| record["status"] == "finished").await;
        assert_eq!((&over["proof"]["proof"], over["hook"].as_array().map(Vec::len)), (&json!("operator"), Some(2)));
    });
}

#[test]
fn a_command_that_the_leader_lacks_is_a_failure_that_says_where() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let hook = json!({"agent": "third", "timeout": "5s", "attempts": 1});
        let (a, _b, _) = two(&cluster, 1, "db", &fenced(&hook)).await;
        a.falls_silent();
        let named = |record: &Value| record["hook"][0]["outcome"]["ok"] == false;
        let record = record(&cluster, 1, "db", "a failure", named).await;
        let detail = record["hook"][0]["outcome"]["detail"].as_str().unwrap_or_default();
        assert!(detail.contains("node 1 has no fence agent \"third\""), "{record:#}");
        assert_eq!(record["status"], "running");
    });
}

#[test]
fn a_leader_that_dies_while_a_hook_runs_is_succeeded_by_one_that_says_so() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::configured(3, Some(&config())).await;
        let (leader, term) = cluster.leader().await;
        let rest = cluster.others(leader);
        let node = rest[0];
        // The first call is never answered.
        let receiver = Receiver::start(1).await;
        let hook = json!({"url": receiver.url, "timeout": "60s", "attempts": 1});
        let (a, _b, first) = two(&cluster, node, "db", &fenced(&hook)).await;
        a.falls_silent();
        receiver.called(1).await;
        let open = record(&cluster, node, "db", "a run", |record| record["hook"][0]["number"] == 1).await;
        assert_eq!((&open["hook"][0]["node"], &open["hook"][0]["outcome"]), (&json!(leader), &Value::Null), "{open:#}");

        cluster.kill9(leader);
        let (next, later) = cluster.leader_among(&rest).await;
        assert!(later > term);
        let second = cluster.active(node, "db", "b").await;
        assert!(second["token"].as_u64() > first["token"].as_u64(), "{second} after {first}");
        let calls = receiver.calls();
        let id = open["id"].as_str().expect("an id");
        let ids: Vec<&str> = calls.iter().map(|call| call.header("webhook-id")).collect();
        assert_eq!(ids, [format!("{id}.1"), format!("{id}.2")], "each attempt once, by its number");
        assert_eq!(calls[1].json()["data"]["instance"], "a");

        let done = record(&cluster, node, "db", "an end", |record| record["status"] == "finished").await;
        println!("{done:#}");
        assert_eq!(done["id"], open["id"], "one move, one record");
        let (lost, resumed) = (&done["hook"][0], &done["hook"][1]);
        assert_eq!(
            (&lost["node"], &lost["outcome"]),
            (&json!(leader), &Value::Null),
            "nobody knows how that one ended"
        );
        assert_eq!((&resumed["node"], &resumed["resumes"]), (&json!(next), &json!(true)), "{resumed}");
        assert_eq!(resumed["outcome"]["ok"], json!(true));
        let words = format!("attempt 1 on node {leader} has no outcome and may have been carried out");
        assert!(says(&done["steps"], &words), "{done:#}");
        assert_eq!(done["proof"]["proof"], "hook");

        // The dead leader comes back, and runs nothing again.
        cluster.restart(leader).await;
        cluster.same_state_everywhere().await;
        assert_eq!(receiver.calls().len(), 2);
    });
}
