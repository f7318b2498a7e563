//! What clients say of their calls, and what comes of it: health, failover, breakers. Said to any node, heard at the leader.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http::Answer;
use crate::support::sse::Stream;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario, until, when};

/// From a report that decides to the news of it: 100 ms of summing, 10 ms of gathering, two rounds of the cluster; and as
/// much again for a machine that runs other tests beside.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// A spec whose probes go on seeing everything well, and whose breakers are quick.
fn quick(open_for: &str) -> Value {
    let mut spec = watched();
    spec["breaker"] = json!({"open_for": open_for, "open_for_max": "1m", "success_threshold": 3});
    spec
}

/// `db` with `a` preferred to `b`, both probed well; `a` is active.
async fn two_instances(cluster: &Cluster, spec: &Value) -> (Target, Target) {
    let a = Target::start("a", cluster.dir()).await;
    let b = Target::start("b", cluster.dir()).await;
    let api = cluster.api(1);
    api.put("/v1/services/db", spec).await.done();
    api.put("/v1/services/db/instances/a", &a.registration(200)).await.done();
    api.put("/v1/services/db/instances/b", &b.registration(100)).await.done();
    cluster.health(1, "db", "b", "healthy").await;
    cluster.active(1, "db", "a").await;
    (a, b)
}

async fn report(cluster: &Cluster, node: u64, reports: Value) -> Answer {
    cluster.api(node).post("/v1/services/db/reports", &json!({ "reports": reports })).await.is(202)
}

fn outcomes(instance: &str, outcome: &str, count: u64) -> Value {
    json!([{"instance": instance, "outcome": outcome, "count": count, "latency_ms": 5}])
}

/// The next change of `instance`'s breaker to this state.
async fn breaker(stream: &mut Stream, instance: &str, to: &str) -> Value {
    let of = |event: &Value| event["instance"] == instance && event["to"] == to;
    stream.change_where(SOON, "instance.breaker_changed", of).await.data
}

#[test]
fn grey_failure_probes_are_answered_and_calls_fail() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let _targets = two_instances(&cluster, &watched()).await;
        let mut stream = Stream::open(cluster.api(2), "/v1/watch?service=db", None).await;
        let follower = cluster.follower().await;

        // As many as an error rate is judged from: fewer accuse nobody.
        const CALLS: u64 = 10;
        let began = Instant::now();
        let answer = report(&cluster, follower, outcomes("a", "server_error", CALLS)).await;
        assert_eq!((&answer.json["accepted"], &answer.json["dropped_total"]), (&json!(1), &json!(0)));
        let changed = stream.change_where(SOON, "active.changed", |event| event["to"] == "b").await;
        let took = began.elapsed();
        println!("failover {took:?} after the report");
        assert!(took < HEARD_WITHIN, "{took:?}");

        let a = cluster.api(follower).get("/v1/services/db/instances/a").await.is(200).json;
        assert_eq!(a["health"], "unhealthy", "{a:#}");
        assert_eq!((&a["counts"]["probes"], &a["counts"]["calls"]), (&json!("up"), &json!("down")), "{a:#}");
        let why = stream_of(&cluster, "a", "instance.health_changed").await;
        assert!(why["reason"].as_str().is_some_and(|why| why.contains("calls")), "{why}");
        let id = changed.data["transition"].as_str().expect("a transition");
        let record = cluster.api(1).get(&format!("/v1/transitions/{id}")).await.is(200).json;
        println!("{record:#}");
        assert!(record["trigger"]["reason"].as_str().is_some_and(|why| why.contains("calls")), "{record:#}");
        let judged = record["judged"].as_array().expect("what was judged when it began");
        assert_eq!((judged.len(), &judged[0]["source"], &judged[0]["verdict"]), (1, &json!("calls"), &json!("down")));
        assert_eq!(judged[0]["evidence"]["class"], "server_error", "{record:#}");

        // Counted by class, whichever node is asked; a stale answer does not know.
        for id in cluster.ids() {
            until(SOON, &format!("node {id} to tell the counts"), async || {
                let a = cluster.api(id).get("/v1/services/db/instances/a").await.is(200).json;
                let counts = &a["failure_counts"];
                let good = counts["calls"]["server_error"] == CALLS && counts["probes"]["success"].as_u64() > Some(0);
                when(good, counts.clone())
            })
            .await;
            let service = cluster.api(id).get("/v1/services/db").await.is(200).json;
            assert_eq!(service["instances"][0]["failure_counts"]["calls"]["server_error"], CALLS, "{service:#}");
            let stale = cluster.api(id).get("/v1/services/db/instances/a?consistency=stale").await.is(200).json;
            assert_eq!(stale["failure_counts"], Value::Null, "{stale:#}");
        }
    });
}

/// The last event of that type about an instance.
async fn stream_of(cluster: &Cluster, instance: &str, kind: &str) -> Value {
    let events = cluster.api(1).all("/v1/events?after=0").await;
    let last = events.into_iter().rev().find(|event| event["instance"] == instance && event["type"] == kind);
    last.unwrap_or_else(|| panic!("no {kind} of {instance}"))
}

#[test]
fn the_breaker_opens_waits_tries_and_closes() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let _targets = two_instances(&cluster, &quick("300ms")).await;
        let mut stream = Stream::open(cluster.api(1), "/v1/watch?service=db", None).await;

        // Five in a row in one batch.
        let batch: Vec<Value> = (0..5).map(|_| json!({"instance": "b", "outcome": "timeout"})).collect();
        report(&cluster, 1, Value::Array(batch)).await;
        let opened = breaker(&mut stream, "b", "open").await;
        assert_eq!(opened["from"], "closed");
        assert!(
            opened["reason"].as_str().is_some_and(|why| why.contains("5 in a row") && why.contains("timeout")),
            "{opened}"
        );
        breaker(&mut stream, "b", "half_open").await;

        // A call that began while it was closed is late: it neither opens nor closes anything.
        let late = json!([{"instance": "b", "outcome": "timeout", "generation": 1}]);
        let answer = report(&cluster, 2, late).await.json;
        assert_eq!((&answer["accepted"], &answer["dropped_total"]), (&json!(0), &json!(1)), "{answer}");
        assert!(answer["dropped"][0]["reason"].as_str().is_some_and(|why| why.contains("late")), "{answer}");

        // Three good trial calls, told to three nodes, close it.
        for node in cluster.ids() {
            let trial = json!([{"instance": "b", "outcome": "success", "generation": 3}]);
            assert_eq!(report(&cluster, node, trial).await.json["accepted"], 1);
        }
        let closed = breaker(&mut stream, "b", "closed").await;
        assert_eq!(closed["from"], "half_open", "nothing came in between: {closed}");

        // Five in a row once more, over three nodes, a slice apart: the row is kept across slices and nodes.
        for (node, count) in [(1, 2), (2, 2), (3, 1)] {
            report(&cluster, node, outcomes("b", "connection", count)).await;
        }
        breaker(&mut stream, "b", "open").await;
        breaker(&mut stream, "b", "half_open").await;

        // One bad trial call, and it opens again, for longer.
        report(&cluster, 3, outcomes("b", "rate_limit", 1)).await;
        let again = breaker(&mut stream, "b", "open").await;
        assert_eq!(again["from"], "half_open");
        assert!(again["reason"].as_str().is_some_and(|why| why.contains("rate_limit")), "{again}");
        println!("{again}");
    });
}

#[test]
fn error_rates_and_slow_calls_are_judged() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let mut spec = quick("30s");
        spec["detection"] = json!({
            "error_rate": {"window": "2s", "min_requests": 10, "threshold": 0.3},
            "slow": {"window": "2s", "min_requests": 20, "floor": "50ms", "ceiling": "200ms"},
            "timeout": "1s"
        });
        let _targets = two_instances(&cluster, &spec).await;

        // Every third call fails: never five in a row, never half of them, and too many all the same.
        let third = |n: u64| if n.is_multiple_of(3) { 500 } else { 200 };
        let calls: Vec<Value> =
            (0..30).map(|n| json!({"instance": "b", "status": third(n), "latency_ms": 1})).collect();
        report(&cluster, 1, Value::Array(calls)).await;
        let sick = cluster.health(1, "db", "b", "unhealthy").await;
        println!("{}", sick["counts"]);
        let why = stream_of(&cluster, "b", "instance.health_changed").await;
        assert!(why["reason"].as_str().is_some_and(|why| why.contains("calls say down")), "{why}");
        // A client's own mistakes are counted, and are no failures.
        report(&cluster, 1, json!([{"instance": "a", "status": 404, "count": 50}])).await;
        // When the failures have left the window there is nothing against it any more.
        cluster.health(1, "db", "b", "healthy").await;

        // Slow: all of them answer, none in time that anybody could use.
        report(&cluster, 1, json!([{"instance": "b", "outcome": "success", "count": 40, "latency_ms": 700}])).await;
        cluster.health(1, "db", "b", "unhealthy").await;

        let a = cluster.api(1).get("/v1/services/db/instances/a").await.is(200).json;
        assert_eq!((&a["health"], &a["failure_counts"]["calls"]["client_error"]), (&json!("healthy"), &json!(50)));

        // Slower than `detection.timeout`: a time-out, whatever the client says.
        report(&cluster, 1, json!([{"instance": "a", "outcome": "success", "latency_ms": 1_001, "count": 2}])).await;
        until(SOON, "two time-outs to be counted", async || {
            let a = cluster.api(1).get("/v1/services/db/instances/a").await.is(200).json;
            when(a["failure_counts"]["calls"]["timeout"] == 2, a["failure_counts"].clone())
        })
        .await;
    });
}

#[test]
fn who_is_not_there_is_named_and_the_rest_is_taken() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.post("/v1/services/db/reports", &json!({"reports": []})).await.problem(404).code("no_such_service");
        api.put("/v1/services/db", &json!({})).await.done();
        api.put("/v1/services/db/instances/a", &json!({"address": "127.0.0.1:9"})).await.done();
        let mut reports = vec![json!({"instance": "a", "status": 200}); 3];
        reports.insert(1, json!({"instance": "ghost", "status": 200}));
        reports.extend(vec![json!({"instance": "spook", "status": 500}); 150]);
        let answer = api.post("/v1/services/db/reports", &json!({ "reports": reports })).await.is(202).json;
        assert_eq!((&answer["accepted"], &answer["dropped_total"]), (&json!(3), &json!(151)));
        let dropped = answer["dropped"].as_array().expect("a list");
        assert_eq!(dropped.len(), 100, "the first of them");
        assert_eq!((&dropped[0]["index"], &dropped[0]["instance"]), (&json!(1), &json!("ghost")));
        assert!(dropped[0]["reason"].as_str().is_some_and(|why| why.contains("no such instance")), "{answer}");
        let metrics = api.get("/metrics").await.is(200).text;
        assert!(metrics.contains(r#"baton_reports_total{outcome="success"} 3"#), "{metrics}");
        assert!(metrics.contains(r#"baton_reports_dropped_total{reason="unknown_instance"} 151"#), "{metrics}");
    });
}
