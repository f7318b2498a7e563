//! Instances that say themselves that they live: heard by any node, judged by the leader, missed in time and never too soon.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http::{Answer, Api};
use crate::support::{Load, SOON, scenario, until};

/// Missing after three intervals and the time-out, at the latest.
const INTERVAL: Duration = Duration::from_millis(300);
const DEADLINE: Duration = Duration::from_millis(3 * 300 + 200);

fn heard() -> Value {
    json!({
        "checks": [{"type": "heartbeat", "interval": "300ms", "fall": 3, "timeout": "200ms"}],
        "recovery": {"strategy": "immediate"},
        "failover": {"min_interval": "0s", "max_in_window": 100}
    })
}

/// Registers an instance; its session.
async fn register(api: &Api, instance: &str, priority: u32) -> String {
    let registration = json!({"liveness": "heartbeat", "priority": priority});
    let stored = api.put(&format!("/v1/services/db/instances/{instance}"), &registration).await.done().json;
    stored["session"].as_str().unwrap_or_else(|| panic!("no session in {stored}")).to_owned()
}

async fn beat(api: &Api, instance: &str, session: &str, state: &str) -> Answer {
    let body = json!({"session": session, "state": state});
    api.post(&format!("/v1/services/db/instances/{instance}/heartbeat"), &body).await
}

/// Heartbeats of one instance, sent to each of these nodes in turn until it is aborted.
fn beating(apis: Vec<Api>, instance: &str, session: &str) -> tokio::task::JoinHandle<()> {
    let (instance, session) = (instance.to_owned(), session.to_owned());
    tokio::spawn(async move {
        let mut interval = tokio::time::interval(INTERVAL);
        for api in apis.iter().cycle() {
            interval.tick().await;
            let path = format!("/v1/services/db/instances/{instance}/heartbeat");
            let call = api.call(reqwest::Method::POST, &path).json(&json!({"session": session}));
            // A node that is down answers nobody: the next one is asked at the next beat.
            let _ = call.send(INTERVAL * 5).await;
        }
    })
}

/// Every change of an instance's health so far, as `from-to`.
async fn healths(cluster: &Cluster, node: u64, instance: &str) -> Vec<String> {
    let events = cluster.api(node).all("/v1/events?after=0&type=instance.health_changed").await;
    let of = events.iter().filter(|event| event["instance"] == instance);
    of.map(|event| event["to"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn who_falls_silent_is_missed_in_time_and_who_fails_says_so_at_once() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let follower = cluster.follower().await;
        let api = cluster.api(follower);
        api.put("/v1/services/db", &heard()).await.done();
        let (a, b) = (register(api, "a", 200).await, register(api, "b", 100).await);

        let answer = beat(api, "a", &a, "ok").await.is(200).json;
        assert_eq!((&answer["role"], answer["phase"].is_string()), (&json!("passive"), true), "{answer}");
        let beats = beating(cluster.ids().iter().map(|id| cluster.api(*id).clone()).collect(), "b", &b);
        cluster.health(follower, "db", "b", "healthy").await;
        let mut answer = Value::Null;
        until(SOON, "a to be active", async || {
            answer = beat(api, "a", &a, "ok").await.is(200).json;
            if answer["role"] == "active" { Ok(()) } else { Err(answer.clone()) }
        })
        .await;
        let active = cluster.active(follower, "db", "a").await;
        assert_eq!(answer["token"], active["token"], "a holder is told its token");
        let path = "/v1/services/db/instances/a";
        api.post(&format!("{path}/heartbeat"), &json!({"session": a, "lag": 17})).await.is(200);
        let told = api.get(path).await.is(200).json;
        assert_eq!((&told["lag"], &told["session"]), (&json!(17), &json!(a)), "{told:#}");

        // Silence.
        let last = Instant::now();
        beat(api, "a", &a, "ok").await.is(200);
        let sick = cluster.health(follower, "db", "a", "unhealthy").await;
        let took = last.elapsed();
        println!("missed after {took:?}, {DEADLINE:?} are the most: {}", sick["counts"]);
        assert!(took > INTERVAL * 3 / 2, "one late heartbeat accuses nobody: {took:?}");
        assert!(took < DEADLINE + Duration::from_millis(1_500), "{took:?}");

        // Back, and then it says itself that it cannot work.
        beat(api, "a", &a, "ok").await.is(200);
        cluster.health(follower, "db", "a", "healthy").await;
        let said = Instant::now();
        beat(api, "a", &a, "failing").await.is(200);
        cluster.health(follower, "db", "a", "unhealthy").await;
        println!("failing was believed after {:?}", said.elapsed());
        assert!(said.elapsed() < Duration::from_secs(1), "{:?}", said.elapsed());
        assert_eq!(healths(&cluster, follower, "b").await, ["healthy"], "b never stopped");
        beats.abort();
    });
}

#[test]
fn an_old_session_is_refused_by_every_node() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        api.put("/v1/services/db", &heard()).await.done();
        let old = register(api, "a", 100).await;
        beat(api, "a", &old, "ok").await.is(200);
        let new = register(api, "a", 100).await;
        assert_ne!(old, new);
        for id in cluster.ids() {
            let refused = beat(cluster.api(id), "a", &old, "ok").await.problem(409).code("unknown_session");
            assert!(refused.json["detail"].as_str().is_some_and(|told| told.contains("register")), "{}", refused.text);
            beat(cluster.api(id), "a", &new, "ok").await.is(200);
        }
        api.put("/v1/services/db/instances/p", &json!({"address": "127.0.0.1:9"})).await.done();
        let refused = beat(cluster.api(2), "p", "any", "ok").await.problem(409).code("not_heartbeat");
        assert!(refused.json["detail"].as_str().is_some_and(|told| told.contains("liveness")), "{}", refused.text);
        beat(cluster.api(2), "ghost", "any", "ok").await.problem(404).code("no_such_instance");
        let nowhere = "/v1/services/nowhere/instances/a/heartbeat";
        api.post(nowhere, &json!({"session": "s"})).await.problem(404).code("no_such_service");
    });
}

#[test]
fn a_leader_dies_and_nobody_who_beats_is_missed() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (leader, _) = cluster.leader().await;
        let rest = cluster.others(leader);
        let api = cluster.api(rest[0]);
        api.put("/v1/services/db", &heard()).await.done();
        let mut beats = Vec::new();
        for (instance, priority) in [("a", 300), ("b", 200), ("c", 100)] {
            let session = register(api, instance, priority).await;
            let apis = rest.iter().map(|id| cluster.api(*id).clone()).collect();
            beats.push((instance, beating(apis, instance, &session)));
            cluster.health(rest[0], "db", instance, "healthy").await;
        }
        cluster.active(rest[0], "db", "a").await;

        cluster.kill9(leader);
        cluster.leader_among(&rest).await;
        // Well into the new leader's term: had it counted the silence of the election, it would have accused by now.
        let long = Instant::now() + 3 * DEADLINE;
        until(SOON, "three deadlines to pass", async || if Instant::now() >= long { Ok(()) } else { Err("not yet") })
            .await;
        for instance in ["a", "b", "c"] {
            let healths = healths(&cluster, rest[0], instance).await;
            assert!(!healths.iter().any(|health| health == "unhealthy"), "{instance}: {healths:?}");
        }

        // And who does fall silent now is missed by the new leader.
        let (_, silent) = &beats[2];
        silent.abort();
        let since = Instant::now();
        cluster.health(rest[0], "db", "c", "unhealthy").await;
        println!("missed by the new leader after {:?}", since.elapsed());
        assert!(since.elapsed() < DEADLINE + Duration::from_millis(1_500));
        beats.iter().for_each(|(_, beat)| beat.abort());
    });
}
