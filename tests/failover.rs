//! The active dies, hangs or is told to step aside, and everybody hears the same of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::sse::Stream;
use crate::support::target::{Target, promised, watched};
use crate::support::{Load, SOON, scenario, until, when};

/// A service `db` with `a` preferred to `b`; `a` is active when this returns. Its answer to "who is active".
async fn two_instances(cluster: &Cluster, node: u64, a: &Target, b: &Target) -> Value {
    let api = cluster.api(node);
    api.put("/v1/services/db", &watched()).await.done();
    api.put("/v1/services/db/instances/a", &a.registration(200)).await.done();
    api.put("/v1/services/db/instances/b", &b.registration(100)).await.done();
    cluster.health(node, "db", "b", "healthy").await;
    cluster.active(node, "db", "a").await
}

/// Holds what a failover took against what is promised: interval + (fall - 1) x fast interval + 150 ms, for an idle
/// machine. Tests run beside others on a loaded one, so a second and a half is allowed on top; with
/// `BATON_IDLE_MACHINE=1` in the environment nothing is.
#[track_caller]
fn in_time(what: &str, took: Duration, promised: Duration) {
    println!("{what} after {took:?}; promised are {promised:?} on an idle machine");
    let idle = std::env::var_os("BATON_IDLE_MACHINE").is_some_and(|value| value == "1");
    let allowed = if idle { promised } else { promised + Duration::from_millis(1_500) };
    assert!(took <= allowed, "{what} after {took:?}, allowed are {allowed:?}");
}

#[track_caller]
fn token(answer: &Value) -> u64 {
    answer["token"].as_u64().unwrap_or_else(|| panic!("no token in {answer}"))
}

#[test]
fn the_death_of_the_active_is_told_alike_by_every_node() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let mut a = Target::start("a", cluster.dir()).await;
        let b = Target::start("b", cluster.dir()).await;
        let follower = cluster.follower().await;

        // Written and read at a follower: any node serves any request.
        let first = two_instances(&cluster, follower, &a, &b).await;
        assert_eq!(first["service"], "db");
        assert_eq!(first["address"], a.address.to_string());
        assert_eq!(first["phase"], "active");
        assert_eq!(first["fencing"], "enforced", "nobody held it before, so there is nobody to stop: {first}");
        assert!(first["since"].is_string() && first["revision"].is_u64(), "{first}");

        let mut stream = Stream::open(cluster.api(follower), "/v1/watch?service=db", None).await;
        let snapshot = stream.next(SOON).await.expect("a stream begins");
        assert_eq!(snapshot.event, "snapshot");

        // The active dies as a crash kills: at once, and without a word.
        let died = Instant::now();
        a.kill9();
        let changed = stream.change_where(SOON, "active.changed", |event| event["to"] == "b").await;
        in_time("the death of the active was told", died.elapsed(), promised(false));
        assert!(changed.data.as_object().is_some_and(|event| event.contains_key("from")), "{changed:?}");
        assert!(token(&changed.data) > token(&first), "{changed:?} after {first}");
        assert_eq!(changed.data["revision"].as_u64(), Some(changed.revision()), "the id of an event is its revision");

        for id in cluster.ids() {
            // The same event, under the same revision, from every node's history.
            let path = format!("/v1/events?after={}&limit=1", changed.revision() - 1);
            let page = cluster.api(id).get(&path).await.is(200);
            assert_eq!(page.items(), std::slice::from_ref(&changed.data), "node {id}");
            // And the same active.
            let now = cluster.api(id).get("/v1/services/db/active").await.is(200).json;
            assert_eq!((&now["instance"], token(&now)), (&json!("b"), token(&changed.data)), "node {id}");
        }

        // The record says why: who saw what, what was believed, how long each part took.
        let id = changed.data["transition"].as_str().unwrap_or_else(|| panic!("no transition in {changed:?}"));
        let record = cluster.api(follower).get(&format!("/v1/transitions/{id}")).await.is(200).json;
        println!("{record:#}");
        assert_eq!(record["kind"], "failover");
        assert_eq!((&record["from"], &record["to"]), (&json!("a"), &json!("b")));
        assert_eq!(token(&record), token(&changed.data));
        assert!(record["trigger"]["reason"].as_str().is_some_and(|why| !why.is_empty()), "{record}");
        assert!(record["trigger"]["cause"].as_u64().is_some_and(|cause| cause < changed.revision()), "{record}");
        let against = record["evidence"].as_array().expect("the observers' evidence").iter();
        let against = against.filter(|seen| seen["verdict"] == "down").count();
        assert!(against >= 2, "a majority of three must have said down: {record}");
        assert_eq!(record["proof"]["proof"], "token");
        assert_eq!(record["proof"]["fencing"], "advisory");
        assert!(record["steps"].as_array().is_some_and(|steps| steps.len() >= 2), "{record}");
        assert!(record["durations"]["total_ms"].as_u64().is_some_and(|total| total < 10_000), "{record}");
        let listed = cluster.api(follower).all("/v1/transitions").await;
        assert!(listed.iter().any(|other| other["id"] == record["id"]), "{listed:#?}");

        // The old active comes back: it is passive until somebody asks for it.
        a.revive().await;
        cluster.health(follower, "db", "a", "healthy").await;
        let still = cluster.api(follower).get("/v1/services/db/active").await.is(200).json;
        assert_eq!((&still["instance"], token(&still)), (&json!("b"), token(&changed.data)), "failback is manual");

        let order = json!({"to": "a", "reason": "the preferred one is back"});
        cluster.api(follower).post("/v1/services/db/switchover", &order).await;
        let back = stream.change_where(SOON, "active.changed", |event| event["to"] == "a").await;
        assert!(token(&back.data) > token(&changed.data));
        let id = back.data["transition"].as_str().unwrap_or_default();
        let record = cluster.api(follower).get(&format!("/v1/transitions/{id}")).await.is(200).json;
        assert_eq!(record["kind"], "switchover");
        assert!(record.to_string().contains("the preferred one is back"), "{record}");
        assert!(record["actor"].is_string(), "somebody asked for it: {record}");
    });
}

#[test]
fn a_frozen_active_is_replaced_though_its_port_still_answers() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let mut a = Target::start("a", cluster.dir()).await;
        let b = Target::start("b", cluster.dir()).await;
        let first = two_instances(&cluster, 1, &a, &b).await;
        let mut stream = Stream::open(cluster.api(2), "/v1/watch?service=db", None).await;
        stream.next(SOON).await.expect("a snapshot");

        let frozen = Instant::now();
        a.freeze();
        let changed = stream.change_where(SOON, "active.changed", |event| event["to"] == "b").await;
        in_time("a frozen active was replaced", frozen.elapsed(), promised(true));
        assert!(token(&changed.data) > token(&first));
        let sick = cluster.health(3, "db", "a", "unhealthy").await;
        assert!(sick["verdicts"].to_string().contains("timeout"), "what was seen is said: {sick}");

        // It wakes up and answers again. It was replaced, and stays so.
        a.thaw();
        cluster.health(3, "db", "a", "healthy").await;
        let now = cluster.api(3).get("/v1/services/db/active").await.is(200).json;
        assert_eq!((&now["instance"], token(&now)), (&json!("b"), token(&changed.data)));
    });
}

#[test]
fn a_lone_node_fails_over_too() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let mut a = Target::start("a", cluster.dir()).await;
        let b = Target::start("b", cluster.dir()).await;
        let first = two_instances(&cluster, 1, &a, &b).await;
        a.kill9();
        let now = cluster.active(1, "db", "b").await;
        assert!(token(&now) > token(&first));
    });
}

#[test]
fn an_operator_moves_the_active_and_a_rehearsal_moves_nothing() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let first = two_instances(&cluster, 1, &a, &b).await;
        let api = cluster.api(1);
        let transitions = api.all("/v1/transitions").await.len();

        let rehearsal = json!({"to": "b", "reason": "what if", "dry_run": true});
        for kind in ["switchover", "failover"] {
            let plan = api.post(&format!("/v1/services/db/{kind}"), &rehearsal).await.is(200);
            assert_eq!(plan.json["to"], "b", "the plan names where it would go: {}", plan.text);
            assert_eq!(plan.json["from"], "a", "and from where: {}", plan.text);
        }
        let now = api.get("/v1/services/db/active").await.is(200).json;
        assert_eq!((&now["instance"], token(&now)), (&json!("a"), token(&first)));
        assert_eq!(api.all("/v1/transitions").await.len(), transitions, "a rehearsal leaves no record");

        // To where it is already: refused, both ways.
        for kind in ["switchover", "failover"] {
            let order = json!({"to": "a", "reason": "again"});
            api.post(&format!("/v1/services/db/{kind}"), &order).await.problem(409).code("already_active");
        }
        let nowhere = json!({"to": "nobody", "reason": "typo"});
        api.post("/v1/services/db/switchover", &nowhere).await.problem(404).code("no_such_instance");
        api.post("/v1/services/nothing/switchover", &nowhere).await.problem(404).code("no_such_service");
        let silent = api.post("/v1/services/db/switchover", &json!({"to": "b"})).await;
        assert!((400..500).contains(&silent.status), "a move without a reason: {}", silent.text);

        // Forced, with the active well: that is what it is for. Without `to`, Baton chooses.
        api.post("/v1/services/db/failover", &json!({"reason": "maintenance of a"})).await;
        let moved = cluster.active(1, "db", "b").await;
        assert!(token(&moved) > token(&first));
        let check = json!({"to": "a", "reason": "done"});
        api.post("/v1/services/db/switchover", &check).await;
        let back = cluster.active(1, "db", "a").await;
        assert!(token(&back) > token(&moved));
    });
}

#[test]
fn without_a_candidate_nobody_is_promoted_and_explain_says_why() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let mut a = Target::start("a", cluster.dir()).await;
        let mut b = Target::start("b", cluster.dir()).await;
        let first = two_instances(&cluster, 1, &a, &b).await;
        let api = cluster.api(1);

        b.kill9();
        cluster.health(1, "db", "b", "unhealthy").await;
        let refused = api.post("/v1/services/db/switchover", &json!({"to": "b", "reason": "no"})).await;
        refused.problem(409);
        a.kill9();
        let none = until(SOON, "a service without an active", async || {
            let answer = api.get("/v1/services/db/active").await;
            when(answer.status == 503, answer)
        })
        .await
        .problem(503)
        .code("no_active");
        assert!(none.text.contains("failing_over"), "the phase is told: {}", none.text);

        let explained = api.get("/v1/services/db/explain").await.is(200);
        println!("{:#}", explained.json);
        assert!(explained.text.contains("unhealthy"), "{}", explained.text);
        for instance in ["a", "b"] {
            assert!(explained.text.contains(&format!("\"{instance}\"")), "{instance}: {}", explained.text);
        }

        // One comes back, and that is all it takes.
        b.revive().await;
        let now = cluster.active(1, "db", "b").await;
        assert!(token(&now) > token(&first));
    });
}

#[test]
fn where_no_proof_holds_an_operator_has_the_last_word() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let mut a = Target::start("a", cluster.dir()).await;
        let b = Target::start("b", cluster.dir()).await;
        let api = cluster.api(1);
        let mut spec = watched();
        spec["fencing"] = json!({"proof": ["lease"]});
        api.put("/v1/services/db", &spec).await.done();
        api.put("/v1/services/db/instances/a", &a.registration(200)).await.done();
        api.put("/v1/services/db/instances/b", &b.registration(100)).await.done();
        cluster.health(1, "db", "b", "healthy").await;
        let first = cluster.active(1, "db", "a").await;

        a.kill9();
        let waits = until(SOON, "a service that waits for a proof", async || {
            let answer = api.get("/v1/services/db/active").await;
            when(answer.status == 503, answer)
        })
        .await;
        assert_eq!(waits.json["phase"], "failing_over", "{}", waits.text);
        cluster.health(1, "db", "b", "healthy").await;
        let still = api.get("/v1/services/db").await.is(200).json;
        assert_eq!(still["phase"], "failing_over", "b is well, and nothing proves that a has stopped: {still}");
        let asks = json!({"reason": "please"});
        api.post("/v1/services/db/failover", &asks).await.problem(409).code("proof_refused");
        api.post("/v1/services/db/switchover", &asks).await.problem(409).code("transition_in_progress");

        let asserts = json!({"proof": "operator", "reason": "a has been unplugged"});
        let record = api.post("/v1/services/db/failover", &asserts).await.is(200).json;
        assert_eq!((&record["status"], &record["to"]), (&json!("finished"), &json!("b")), "{record}");
        assert!(token(&record) > token(&first), "{record}");
        assert_eq!(record["actor"], "local", "whoever completes it answers for it: {record}");
        assert_eq!((&record["proof"]["proof"], &record["proof"]["fencing"]), (&json!("operator"), &json!("enforced")));
        let evidence = record["proof"]["evidence"].as_str().unwrap_or_default();
        assert!(evidence.contains("local") && evidence.contains("unplugged"), "who said so, and why: {record}");
        cluster.active(1, "db", "b").await;
    });
}

#[test]
fn a_cluster_in_which_nothing_happens_writes_nothing() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(3).await;
        // Settled: nothing was added for a second.
        let mut before = cluster.same_state_everywhere().await;
        until(SOON, "the cluster to settle", async || {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let now = cluster.same_state_everywhere().await;
            let settled = now.applied == before.applied;
            before = now;
            when(settled, before.clone())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = cluster.same_state_everywhere().await;
        assert_eq!(after, before, "an idle cluster's log grew");
    });
}

#[test]
fn the_first_active_is_the_preferred_one_once_all_are_known() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let (low, high) = (Target::start("low", cluster.dir()).await, Target::start("high", cluster.dir()).await);
        let site = Target::start("site", cluster.dir()).await;
        // Registered before anything is known of them, worst first; a remote site never wins by priority.
        api.put("/v1/services/db", &watched()).await.done();
        let remote = json!({"address": site.address.to_string(), "priority": 900, "tier": 2});
        api.put("/v1/services/db/instances/site", &remote).await.done();
        api.put("/v1/services/db/instances/low", &low.registration(1)).await.done();
        api.put("/v1/services/db/instances/high", &high.registration(2)).await.done();
        cluster.active(1, "db", "high").await;
        let placed: Vec<Value> = api.all("/v1/transitions").await;
        assert_eq!(placed.len(), 1, "placed once, and right at once: {placed:#?}");
        assert_eq!(placed[0]["kind"], "placement");
        assert_eq!(placed[0]["proof"]["proof"], "none_needed");
    });
}
