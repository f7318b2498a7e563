//! The API over one real node, asked without a socket: what the black-box tests cannot bring about, such as a forgotten
//! history, a panic, or a node that stops under its streams.

mod pick;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::routing::get;
use baton_client::view::PROBLEM_JSON;
use baton_core::command::{Command, Done, NodeAnnounce, VerdictReport, VerdictsRecord};
use baton_core::id::{NodeId, TransitionId};
use baton_core::probe::{Evidence, Verdict};
use baton_core::time::Millis;
use futures_util::StreamExt;
use http_body_util::BodyExt;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tower::ServiceExt;

use super::*;
use crate::consensus::{ConsensusConfig, Tuning};
use crate::reports::Reports;
use crate::store::Store;

/// Far longer than anything here takes on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

struct Node {
    _dir: TempDir,
    state: ApiState,
    shutdown: CancellationToken,
}

impl Node {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let peer_listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = peer_listener.local_addr().expect("bound").to_string();
        let opened = Store::open(dir.path(), 1).await.expect("opens");
        let members = BTreeMap::from([(1, address)]);
        let config = ConsensusConfig { members, peer_listener, tuning: Tuning::default() };
        let consensus = Consensus::start(config, opened).await.expect("starts");
        let leads = async { consensus.leadership().wait_for(|now| now.is_leader).await.map(|_| ()) };
        timeout(SOON, leads).await.expect("in time").expect("runs");
        let shutdown = CancellationToken::new();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let state = ApiState::new(
            consensus.clone(),
            Reports::new(consensus).0,
            metrics,
            ["baton.example".to_owned()],
            shutdown.clone(),
        );
        Self { _dir: dir, state, shutdown }
    }

    async fn ask(&self, request: &str, body: &'static str) -> Response {
        let (method, target) = request.split_once(' ').expect("a method and a target");
        let request = Request::builder().method(method).uri(target).header(HOST, "127.0.0.1");
        let request = request.body(Body::from(body)).expect("a request");
        timeout(SOON, router(self.state.clone()).oneshot(request)).await.expect("in time").expect("an answer")
    }

    async fn json(&self, request: &str, body: &'static str) -> (u16, Value) {
        read(self.ask(request, body).await).await
    }

    /// Some events: a service with two instances is three.
    async fn fill(&self) -> u64 {
        self.json("PUT /v1/services/orders", "{}").await;
        self.json("PUT /v1/services/orders/instances/a", r#"{"address":"127.0.0.1:9"}"#).await;
        let (_, stored) = self.json("PUT /v1/services/orders/instances/b", r#"{"address":"127.0.0.1:9"}"#).await;
        stored["revision"].as_u64().expect("the leader has applied it")
    }

    async fn announce(&self, node: NodeId) {
        let (api, peer) = (format!("127.0.0.1:{node}"), format!("127.0.0.1:10{node}"));
        let announced = NodeAnnounce { node, api, peer, version: "0.1.0".to_owned() };
        self.state.consensus.propose(Command::NodeAnnounce(announced)).await.expect("a quorum").expect("taken");
    }

    /// What a node holds of `orders/a`.
    async fn say(&self, observer: NodeId, verdict: Verdict) {
        let (service, instance) = ("orders".parse().expect("a name"), "a".parse().expect("an id"));
        let epoch = self.state.consensus.reader().view().state.instance(&service, &instance).expect("there").epoch;
        let evidence = Evidence {
            check: "tcp".to_owned(),
            class: None,
            detail: "as told".to_owned(),
            streak: 1,
            first_failure_age: None,
        };
        let verdicts = vec![VerdictReport { service, instance, epoch, verdict, evidence }];
        let report = Command::VerdictsRecord(VerdictsRecord { observer, verdicts });
        self.state.consensus.propose(report).await.expect("a quorum").expect("taken");
    }

    async fn forget(&self, through: u64) {
        let done = self.state.consensus.propose(Command::EventsCompact { through }).await;
        assert_eq!(done.expect("a quorum"), Ok(Done::Ok));
    }
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let problem = response.headers()[CONTENT_TYPE] == PROBLEM_JSON;
    assert_eq!(problem, status >= 400, "errors are problems and nothing else is");
    assert!(response.headers().contains_key("baton-revision") && response.headers().contains_key("baton-staleness-ms"));
    let bytes = timeout(SOON, response.into_body().collect()).await.expect("in time").expect("a body").to_bytes();
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

async fn read_problem(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&bytes).expect("JSON"))
}

/// The frames of a stream, as `(id, event, data)`.
struct Frames {
    body: axum::body::BodyDataStream,
    text: String,
}

impl Frames {
    async fn of(node: &Node, request: &str) -> Self {
        let response = node.ask(request, "").await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    async fn next(&mut self) -> Option<(Option<u64>, String, Value)> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let frame: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                let Some(event) = field("event: ") else { continue };
                let data = serde_json::from_str(&field("data: ").expect("data")).expect("JSON");
                return Some((field("id: ").map(|id| id.parse().expect("a revision")), event, data));
            }
            let chunk = timeout(SOON, self.body.next()).await.expect("in time")?.expect("bytes");
            self.text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn a_stream_begins_with_a_snapshot_and_goes_on_with_what_follows() {
    let node = Node::start().await;
    let last = node.fill().await;
    let mut frames = Frames::of(&node, "GET /v1/watch").await;
    let (id, event, data) = frames.next().await.expect("a snapshot");
    assert_eq!((id, event.as_str(), data["revision"].as_u64()), (Some(last), "snapshot", Some(last)));
    assert_eq!(data["services"][0]["instances"].as_array().map(Vec::len), Some(2));
    node.json("DELETE /v1/services/orders/instances/b", "").await;
    let (id, event, data) = frames.next().await.expect("an event");
    assert_eq!((id, event.as_str()), (Some(last + 1), "instance.deregistered"));
    assert_eq!(data["instance"], "b");
    // A stopping node ends its streams; it would wait for them otherwise.
    node.shutdown.cancel();
    assert!(frames.next().await.is_none());
}

#[tokio::test]
async fn what_is_forgotten_is_said_aloud() {
    let node = Node::start().await;
    let last = node.fill().await;
    node.forget(last - 1).await;
    // From the last forgotten one on there is no gap.
    let mut frames = Frames::of(&node, &format!("GET /v1/watch?after={}", last - 1)).await;
    assert_eq!(frames.next().await.expect("an event").0, Some(last));
    // One before, there is: a reset without an id, then everything anew.
    let mut frames = Frames::of(&node, &format!("GET /v1/watch?after={}", last - 2)).await;
    let (id, event, data) = frames.next().await.expect("a reset");
    assert_eq!((id, event.as_str(), data["requested"].as_u64()), (None, "reset", Some(last - 2)));
    assert_eq!(frames.next().await.map(|frame| (frame.0, frame.1)), Some((Some(last), "snapshot".to_owned())));
    // A history that never was is a reset too.
    let mut frames = Frames::of(&node, "GET /v1/watch?last_event_id=99999").await;
    assert_eq!(frames.next().await.expect("a reset").1, "reset");

    let (status, problem) = node.json("GET /v1/events?after=0", "").await;
    assert_eq!((status, &problem["code"]), (410, &Value::from("compacted")));
    assert_eq!(problem["compacted_through"], last - 1);
    // Without a wish it begins with the oldest that is kept.
    let (status, page) = node.json("GET /v1/events", "").await;
    assert_eq!((status, page["items"][0]["revision"].as_u64()), (200, Some(last)));
}

#[tokio::test]
async fn a_slow_stream_is_told_when_the_history_has_overtaken_it() {
    let node = Node::start().await;
    let first = node.fill().await;
    let mut frames = Frames::of(&node, &format!("GET /v1/watch?after={first}")).await;
    // Nobody reads while things happen and are forgotten.
    let (_, gone) = node.json("DELETE /v1/services/orders", "").await;
    let last = gone["revision"].as_u64().expect("the leader has applied it");
    node.forget(last).await;
    assert_eq!(frames.next().await.expect("a reset").1, "reset");
    let (id, event, data) = frames.next().await.expect("a snapshot");
    assert_eq!((id, event.as_str(), data["services"].as_array().map(Vec::len)), (Some(last), "snapshot", Some(0)));
}

#[tokio::test]
async fn nobody_is_answered_from_before_what_they_have_seen() {
    let node = Node::start().await;
    let last = node.fill().await;
    let (status, problem) = node.json(&format!("GET /v1/services/orders?after={}&wait=50ms", last + 7), "").await;
    assert_eq!((status, &problem["code"]), (503, &Value::from("behind")));
    let (status, service) = node.json(&format!("GET /v1/services/orders?after={last}&wait=50ms"), "").await;
    assert_eq!((status, service["revision"].as_u64()), (200, Some(last)));
    // What is removed while somebody waits is an answer.
    let request = format!("GET /v1/services/orders?after={last}&wait=20s");
    let waiting = node.json(&request, "");
    let (waited, _) = tokio::join!(waiting, node.json("DELETE /v1/services/orders", ""));
    assert_eq!((waited.0, &waited.1["code"]), (404, &Value::from("no_such_service")));
}

#[tokio::test]
async fn a_doubt_is_no_verdict() {
    let node = Node::start().await;
    node.fill().await;
    // `is-active`, `is-passive` and `is-healthy` of an instance that nobody has made the active.
    let ask = async |word: &str| {
        let response = node.ask(&format!("GET /v1/services/orders/instances/a/{word}"), "").await;
        response.status().as_u16()
    };
    let all = async || (ask("is-active").await, ask("is-passive").await, ask("is-healthy").await);
    assert_eq!(all().await, (503, 503, 503), "nobody has looked");
    for observer in 1..=3 {
        node.announce(observer).await;
        node.say(observer, Verdict::Up).await;
    }
    assert_eq!(all().await, (503, 200, 200), "healthy");
    node.say(1, Verdict::Down).await;
    assert_eq!(all().await, (503, 503, 200), "one of three is no quorum");
    node.say(2, Verdict::Down).await;
    assert_eq!(all().await, (503, 503, 503), "two of three are one");
}

#[tokio::test]
async fn a_move_that_is_taken_is_never_called_unknown_by_name() {
    let node = Node::start().await;
    // Whoever stops waiting, whether time is up or the node ends, knows nothing of this record.
    node.shutdown.cancel();
    let told =
        moves::to_its_end(&node.state, TransitionId(99), Millis::secs(10)).await.map(|_| ()).expect_err("no record");
    let (status, problem) = read_problem(axum::response::IntoResponse::into_response(told)).await;
    assert_eq!((status, &problem["code"]), (503, &Value::from("outcome_unknown")));
    assert!(problem["detail"].as_str().is_some_and(|told| told.contains("/v1/transitions/tr-99")), "{problem}");
}

#[tokio::test]
async fn a_key_that_would_be_ignored_is_refused() {
    let node = Node::start().await;
    node.fill().await;
    let of_instance = |word: &str| format!("instances/a/{word}");
    for kind in ["failover", "switchover", "pick", "reports", &of_instance("admin"), &of_instance("reset")] {
        let request = Request::builder().method("POST").uri(format!("/v1/services/orders/{kind}"));
        let request = request.header(HOST, "127.0.0.1").header("Idempotency-Key", "\"8e03978e\"");
        let request = request.body(Body::from(r#"{"reason":"x"}"#)).expect("a request");
        let (status, problem) = read(router(node.state.clone()).oneshot(request).await.expect("an answer")).await;
        assert_eq!((status, &problem["code"]), (400, &Value::from("idempotency_key_unsupported")), "{kind}");
    }
    // A heartbeat may be repeated as it is, so there is nothing that a key could promise.
    let request = Request::builder().method("POST").uri("/v1/services/orders/instances/a/heartbeat");
    let request = request.header(HOST, "127.0.0.1").header("Idempotency-Key", "\"8e03978e\"");
    let request = request.body(Body::from(r#"{"session":"x"}"#)).expect("a request");
    let (_, problem) = read(router(node.state.clone()).oneshot(request).await.expect("an answer")).await;
    assert_ne!(problem["code"], Value::from("idempotency_key_unsupported"), "{problem}");
}

#[tokio::test]
async fn whoever_comes_from_elsewhere_is_not_called_local() {
    let node = Node::start().await;
    for (name, from, actor) in [("near", "127.0.0.1:5", "local"), ("far", "10.0.0.7:5", "anonymous")] {
        let from: std::net::SocketAddr = from.parse().expect("an address");
        let request = Request::builder().method("PUT").uri(format!("/v1/services/{name}")).header(HOST, "127.0.0.1");
        let request = request.extension(axum::extract::ConnectInfo(from)).body(Body::from("{}")).expect("a request");
        let (status, stored) = read(router(node.state.clone()).oneshot(request).await.expect("an answer")).await;
        assert_eq!(status, 201, "{stored}");
        let (_, page) = node.json("GET /v1/events?limit=1000", "").await;
        let last = page["items"].as_array().and_then(|items| items.last()).expect("an event").clone();
        assert_eq!((&last["service"], &last["actor"]), (&Value::from(name), &Value::from(actor)));
    }
}

#[tokio::test]
async fn a_panic_is_a_problem_like_any_other() {
    let node = Node::start().await;
    async fn broken() -> &'static str {
        panic!("the inside of the node")
    }
    let app = layered(Router::new().route("/broken", get(broken)), node.state.clone());
    let request = Request::builder().uri("/broken").header(HOST, "[::1]:7400").body(Body::empty()).expect("a request");
    let (status, problem) = read(app.oneshot(request).await.expect("an answer")).await;
    assert_eq!((status, &problem["code"]), (500, &Value::from("internal")));
    assert!(!problem.to_string().contains("inside of the node"), "{problem}");
}

#[tokio::test]
async fn preconditions_hold_or_nothing_happens() {
    let node = Node::start().await;
    let put = async |header: &'static str, value: &'static str| {
        let request = Request::builder().method("PUT").uri("/v1/services/orders").header(header, value);
        let request = request.header(HOST, "baton.example").body(Body::from("{}")).expect("a request");
        router(node.state.clone()).oneshot(request).await.expect("an answer").status().as_u16()
    };
    assert_eq!(put("if-match", "*").await, 412, "there is nothing yet");
    assert_eq!(put("if-none-match", "*").await, 201);
    assert_eq!(put("if-none-match", "*").await, 412, "it is there now");
    assert_eq!(put("if-match", "*").await, 200);
    assert_eq!(put("if-match", "\"1\"").await, 200);
    assert_eq!(put("if-match", "\"2\"").await, 412);
}
