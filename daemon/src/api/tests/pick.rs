//! Picks, where breakers and operators are spoken of straight to the log: who reports and who sets is another's part.

use baton_core::breaker::BreakerState;
use baton_core::calls::BreakerNumbers;
use baton_core::command::{BreakerTried, BreakerTrip, InstanceAdmin, InstancesDue};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::planner::{Facts, plan_service};
use baton_core::state::{AdminState, Instance};
use baton_core::time::Millis;
use futures_util::future::join_all;

use super::*;

fn service() -> ServiceName {
    "orders".parse().expect("a name")
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("an id")
}

/// All serve, their breakers are open for a second, and an outage is over at once.
const FLEET: &str = r#"{"mode":"active_active","breaker":{"open_for":"1s"},"recovery":{"strategy":"immediate"}}"#;

impl Node {
    /// Instances `a` and `b` of `orders`, seen well by node 1.
    async fn well(spec: &'static str) -> Self {
        let node = Self::start().await;
        node.announce(1).await;
        node.json("PUT /v1/services/orders", spec).await;
        for name in ["a", "b"] {
            node.json(&format!("PUT /v1/services/orders/instances/{name}"), r#"{"address":"127.0.0.1:9"}"#).await;
            node.says(name, Verdict::Up).await;
        }
        node
    }

    async fn says(&self, name: &str, verdict: Verdict) {
        let (service, instance) = (service(), id(name));
        let epoch = self.instance(name).epoch;
        let evidence = Evidence {
            check: "tcp".to_owned(),
            class: None,
            detail: "as told".to_owned(),
            streak: 1,
            first_failure_age: None,
        };
        let verdicts = vec![VerdictReport { service, instance, epoch, verdict, evidence }];
        self.must(Command::VerdictsRecord(VerdictsRecord { observer: 1, verdicts })).await;
    }

    async fn must(&self, command: Command) {
        self.state.consensus.propose(command).await.expect("a quorum").expect("taken");
    }

    fn instance(&self, name: &str) -> Arc<Instance> {
        self.state.consensus.reader().view().state.instance(&service(), &id(name)).expect("there").clone()
    }

    async fn pick(&self, body: &'static str) -> (u16, Value) {
        self.json("POST /v1/services/orders/pick", body).await
    }

    /// Who is picked by so many calls.
    async fn picks(&self, body: &'static str, calls: usize) -> String {
        let mut names = Vec::new();
        for _ in 0..calls {
            let (status, picked) = self.pick(body).await;
            assert_eq!(status, 200, "{picked}");
            names.push(picked["instance"].as_str().expect("an id").to_owned());
        }
        names.join(" ")
    }

    /// Why nobody is picked.
    async fn nobody(&self, body: &'static str) -> String {
        let (status, problem) = self.pick(body).await;
        assert_eq!((status, &problem["code"]), (503, &Value::from("no_instance")), "{problem}");
        problem["detail"].as_str().expect("a detail").to_owned()
    }

    async fn trip(&self, name: &str) {
        let numbers = BreakerNumbers { consecutive_failures: 5, calls: 5, failures: 5, class: None };
        let generation = self.instance(name).breaker.generation;
        let (service, instance) = (service(), id(name));
        self.must(Command::BreakerTrip(BreakerTrip { service, instance, generation, numbers })).await;
    }

    /// Waits until an open breaker is half open, as a controller would.
    async fn half_open(&self, name: &str) {
        let waits = async {
            while self.instance(name).breaker.state != BreakerState::HalfOpen {
                let due = InstancesDue { service: service(), instances: vec![id(name)], missing: Vec::new() };
                self.must(Command::InstancesDue(due)).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, waits).await.expect("in time");
    }

    async fn set(&self, name: &str, state: AdminState) {
        let (service, instance, reason) = (service(), id(name), "a test".to_owned());
        let lasts = (state == AdminState::Maintenance).then_some(Millis::secs(600));
        let admin = InstanceAdmin { service, instance, state, reason, lasts, until: None, actor: "test".to_owned() };
        self.must(Command::InstanceAdmin(admin)).await;
    }
}

#[tokio::test]
async fn an_open_breaker_is_never_picked_and_a_half_open_one_is_tried_first() {
    let node = Node::well(FLEET).await;
    assert_eq!(node.picks("", 4).await, "a b a b", "an empty body is a wish for nothing in particular");
    node.trip("a").await;
    for body in ["", r#"{"strategy":"next"}"#, r#"{"strategy":"random"}"#, r#"{"strategy":"best","zone":"x"}"#] {
        assert_eq!(node.picks(body, 4).await, "b b b b", "{body}");
    }
    let why = node.nobody(r#"{"exclude":["b"]}"#).await;
    assert!(
        why.contains("2 registered: 1 breaker open (half open in ") && why.ends_with("1 excluded by this request"),
        "{why}"
    );

    node.half_open("a").await;
    for out in 1..=3 {
        let (_, picked) = node.pick(r#"{"strategy":"best"}"#).await;
        assert_eq!((&picked["instance"], &picked["trial"]), (&Value::from("a"), &Value::from(true)), "{picked}");
        assert_eq!(picked["generation"], 3, "{picked}");
        assert_eq!(node.instance("a").breaker.trials.len(), out, "the place is taken in the log");
    }
    let (_, picked) = node.pick(r#"{"strategy":"best"}"#).await;
    assert_eq!((&picked["instance"], &picked["trial"]), (&Value::from("b"), &Value::from(false)), "{picked}");
    let why = node.nobody(r#"{"exclude":["b"]}"#).await;
    assert!(why.contains("1 breaker half open with all trial calls out"), "{why}");

    let numbers = BreakerNumbers { consecutive_failures: 0, calls: 3, failures: 0, class: None };
    let tried = BreakerTried { service: service(), instance: id("a"), generation: 3, numbers, granted: 1 };
    node.must(Command::BreakerTried(tried)).await;
    let (_, picked) = node.pick(r#"{"strategy":"best"}"#).await;
    assert_eq!((&picked["instance"], &picked["trial"]), (&Value::from("a"), &Value::from(false)), "{picked}");
    assert_eq!(picked["generation"], 4, "{picked}");
}

#[tokio::test]
async fn many_who_ask_at_once_get_no_more_trials_than_there_are() {
    let node = Node::well(FLEET).await;
    node.trip("a").await;
    node.half_open("a").await;
    // As many APIs with pickers of their own as a cluster has nodes: only the log can keep them apart.
    let apis: Vec<ApiState> = (0..4)
        .map(|_| {
            let metrics = PrometheusBuilder::new().build_recorder().handle();
            let consensus = node.state.consensus.clone();
            ApiState::new(consensus, node.state.reports.clone(), metrics, [], node.shutdown.clone())
        })
        .collect();
    let answers = join_all((0..40).map(async |at| {
        let request = Request::builder().method("POST").uri("/v1/services/orders/pick?consistency=stale");
        let request = request.header(HOST, "127.0.0.1").body(Body::empty()).expect("a request");
        read(router(apis[at % apis.len()].clone()).oneshot(request).await.expect("an answer")).await
    }))
    .await;
    let trials = answers.iter().filter(|(_, picked)| picked["trial"] == true).count();
    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(failed.is_empty(), "whoever gets no trial gets the other one: {failed:?}");
    assert_eq!((trials, node.instance("a").breaker.trials.len()), (3, 3));
}

#[tokio::test]
async fn whoever_an_operator_takes_out_is_not_picked_however_sick_the_rest_is() {
    for state in [AdminState::Draining, AdminState::Isolated, AdminState::Maintenance] {
        let node = Node::well(r#"{"mode":"active_active","fail_open":true}"#).await;
        node.set("a", state).await;
        assert_eq!(node.picks("", 3).await, "b b b", "{state}");
        node.says("b", Verdict::Down).await;
        let (_, picked) = node.pick("").await;
        assert_eq!((&picked["instance"], &picked["degraded"]), (&Value::from("b"), &Value::from(true)), "{state}");
        let why = node.nobody(r#"{"exclude":["b"]}"#).await;
        assert!(why.contains("1 excluded by this request"), "{state}: {why}");
        let (_, listed) = node.json("GET /v1/services/orders/endpoints", "").await;
        assert_eq!((&listed["endpoints"][0]["instance"], &listed["degraded"]), (&Value::from("b"), &Value::from(true)));
        assert_eq!(listed["endpoints"].as_array().map(Vec::len), Some(1), "{listed}");
    }
}

#[tokio::test]
async fn of_an_active_passive_service_it_is_the_active_with_its_token_or_nobody() {
    let node = Node::well("{}").await;
    assert!(node.nobody("").await.contains("none is active, its phase is vacant"));
    let view = node.state.consensus.reader().view();
    let orders = view.state.service(&service()).expect("there").clone();
    let place = plan_service(&view.state, &orders, &Facts::default(), node.state.consensus.now().time, 1)
        .command
        .expect("a placement");
    node.must(place).await;
    let (_, active) = node.json("GET /v1/services/orders/active", "").await;
    let (_, picked) = node.pick(r#"{"strategy":"random"}"#).await;
    for field in ["instance", "token", "address", "revision"] {
        assert_eq!(picked[field], active[field], "{field}: {picked}");
    }
    let (_, listed) = node.json("GET /v1/services/orders/endpoints", "").await;
    assert_eq!(listed["endpoints"].as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!((&listed["endpoints"][0]["token"], &listed["why"]), (&active["token"], &Value::Null), "{listed}");

    let name = active["instance"].as_str().expect("an id");
    node.set(name, AdminState::Draining).await;
    assert!(node.nobody("").await.contains("not to be called: draining"));
    node.set(name, AdminState::Enabled).await;
    node.trip(name).await;
    assert!(node.nobody("").await.contains("not to be called: breaker open"));
    let (_, listed) = node.json("GET /v1/services/orders/endpoints", "").await;
    assert_eq!(listed["endpoints"].as_array().map(Vec::len), Some(0));
    assert!(listed["why"].as_str().is_some_and(|why| why.contains("breaker open")), "{listed}");
}

#[tokio::test]
async fn a_service_that_is_gone_leaves_no_picker_behind() {
    let node = Node::well(FLEET).await;
    node.picks("", 1).await;
    assert_eq!(node.state.pickers.len(), 1);
    node.json("DELETE /v1/services/orders", "").await;
    let (status, problem) = node.pick("").await;
    assert_eq!((status, &problem["code"]), (404, &Value::from("no_such_service")));
    assert_eq!(node.state.pickers.len(), 0);
    // Nobody need ask for it by name: others that are picked from push it out.
    node.json("PUT /v1/services/orders", FLEET).await;
    node.pick("").await;
    node.json("DELETE /v1/services/orders", "").await;
    node.json("PUT /v1/services/others", FLEET).await;
    assert_eq!(node.json("POST /v1/services/others/pick", "").await.0, 503);
    assert_eq!(node.json("POST /v1/services/others/pick", "").await.0, 503);
    assert_eq!(node.state.pickers.len(), 1);
}

#[tokio::test]
async fn an_endpoint_list_waits_for_news() {
    let node = Node::well(FLEET).await;
    let (_, listed) = node.json("GET /v1/services/orders/endpoints", "").await;
    let weights: Vec<_> = listed["endpoints"].as_array().expect("a list").iter().collect();
    assert!(weights.iter().all(|one| one["effective_weight"] == 1.0 && one["breaker"] == "closed"), "{listed}");
    let after = listed["revision"].as_u64().expect("a revision");
    let request = format!("GET /v1/services/orders/endpoints?after={after}&wait=20s");
    let (waited, ()) = tokio::join!(node.json(&request, ""), node.says("a", Verdict::Suspect));
    let names: Vec<_> = waited.1["endpoints"].as_array().expect("a list").iter().map(|one| &one["instance"]).collect();
    assert_eq!(names, ["b"], "a doubted one is second choice: {}", waited.1);
}
