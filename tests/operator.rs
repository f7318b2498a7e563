//! What an operator says of an instance is done, told as an event with a name and a reason, and ends when it should.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::process::baton;
use crate::support::sse::Stream;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario, until, when};

/// A service `db` whose instances a, b, ... are preferred in this order; a is active when this returns.
async fn served(cluster: &Cluster, node: u64, targets: &[&Target]) {
    let api = cluster.api(node);
    api.put("/v1/services/db", &watched()).await.done();
    for (at, target) in targets.iter().enumerate() {
        let priority = 300 - 100 * u32::try_from(at).expect("few");
        api.put(&path(at), &target.registration(priority)).await.done();
    }
    for at in 0..targets.len() {
        cluster.health(node, "db", ["a", "b", "c"][at], "healthy").await;
    }
    cluster.active(node, "db", "a").await;
}

fn path(at: usize) -> String {
    format!("/v1/services/db/instances/{}", ["a", "b", "c"][at])
}

async fn stream(cluster: &Cluster, node: u64) -> Stream {
    let mut stream = Stream::open(cluster.api(node), "/v1/watch?service=db", None).await;
    assert_eq!(stream.next(SOON).await.expect("a stream begins").event, "snapshot");
    stream
}

#[test]
fn an_operators_word_at_a_follower_is_told_to_everybody_with_its_reason() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let follower = cluster.follower().await;
        served(&cluster, follower, &[&a, &b]).await;
        let mut told = stream(&cluster, cluster.leader().await.0).await;
        let api = cluster.api(follower);

        // Draining: not chosen, not cut off. The answer is the instance as it is now.
        let body = json!({"state": "draining", "reason": "kernel update on db-2"});
        let answer = api.post("/v1/services/db/instances/b/admin", &body).await.is(200);
        let now = &answer.json;
        assert_eq!(
            (&now["id"], &now["admin"]["state"], &now["health"]),
            (&json!("b"), &json!("draining"), &json!("healthy"))
        );
        assert_eq!(
            (&now["admin"]["reason"], &now["admin"]["actor"]),
            (&json!("kernel update on db-2"), &json!("local"))
        );
        assert!(now["admin"].get("ends_in_ms").is_none() && now["admin"].get("ends").is_none(), "{now:#}");
        assert_eq!((&now["breaker"]["state"], &now["recovery"]), (&json!("closed"), &Value::Null), "{now:#}");
        assert!(now["failure_counts"]["probes"].is_object(), "counted, as everywhere: {now:#}");
        let event = told.change_where(SOON, "instance.admin_changed", |event| event["instance"] == "b").await.data;
        assert_eq!(
            (&event["from"], &event["to"], &event["actor"]),
            (&json!("enabled"), &json!("draining"), &json!("local"))
        );
        assert!(event["reason"].as_str().is_some_and(|why| why.contains("kernel update on db-2")), "{event}");
        assert!(
            answer.revision() >= event["revision"].as_u64().expect("a revision"),
            "the answer has the change in it"
        );
        let refused = json!({"to": "b", "reason": "try"});
        let why = api.post("/v1/services/db/switchover", &refused).await.problem(409).code("not_eligible");
        assert!(why.json["detail"].as_str().is_some_and(|why| why.contains("draining")), "{}", why.text);

        // The active cannot be maintained: nobody would notice its death.
        let body = json!({"state": "maintenance", "reason": "disks", "for": "1h"});
        let why = api.post("/v1/services/db/instances/a/admin", &body).await.problem(409).code("is_active");
        assert!(why.json["detail"].as_str().is_some_and(|why| why.contains("switchover")), "{}", why.text);

        // A reset says who and why, and begins every observation anew.
        let body = json!({"reason": "the switch was repaired"});
        api.post("/v1/services/db/instances/b/reset", &body).await.is(200);
        let event = told.change_where(SOON, "instance.reset", |event| event["instance"] == "b").await.data;
        assert_eq!(event["actor"], "local");
        assert!(event["reason"].as_str().is_some_and(|why| why.contains("the switch was repaired")), "{event}");
        let anew = |event: &Value| event["instance"] == "b" && event["to"] == "healthy";
        told.change_where(SOON, "instance.health_changed", anew).await;
        let still = api.get("/v1/services/db/instances/b").await.is(200).json;
        assert_eq!(still["admin"]["state"], "draining", "a reset clears what was seen, not what was said: {still:#}");

        api.post("/v1/services/db/instances/b/admin", &json!({"state": "enabled", "reason": "done"})).await.is(200);
        told.change_where(SOON, "instance.admin_changed", |event| event["to"] == "enabled").await;
        api.post("/v1/services/db/switchover", &refused).await.is(200);

        for (action, body) in
            [("admin", json!({"state": "draining", "reason": "x"})), ("reset", json!({"reason": "x"}))]
        {
            let nobody = format!("/v1/services/db/instances/nobody/{action}");
            api.post(&nobody, &body).await.problem(404).code("no_such_instance");
            let nothing = format!("/v1/services/nothing/instances/b/{action}");
            api.post(&nothing, &body).await.problem(404).code("no_such_service");
            let call = api.call(reqwest::Method::POST, &format!("/v1/services/db/instances/b/{action}")).json(&body);
            call.header("idempotency-key", "k").answer().await.problem(400).code("idempotency_key_unsupported");
        }
        cluster.same_state_everywhere().await;
    });
}

#[test]
fn maintenance_comes_to_its_end_by_itself_and_an_isolated_active_is_replaced() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let follower = cluster.follower().await;
        served(&cluster, follower, &[&a, &b]).await;
        let mut told = stream(&cluster, follower).await;
        let api = cluster.api(follower);

        let body = json!({"state": "maintenance", "reason": "new disks", "for": "2s"});
        let now = api.post("/v1/services/db/instances/b/admin", &body).await.is(200).json;
        assert_eq!(
            (&now["admin"]["state"], &now["health"], &now["verdicts"]),
            (&json!("maintenance"), &json!("unknown"), &json!([]))
        );
        let left = now["admin"]["ends_in_ms"].as_u64().expect("it has an end");
        assert!(left <= 2_000 && now["admin"]["until"].is_string(), "{now:#}");
        let over = told.change_where(SOON, "instance.admin_changed", |event| event["from"] == "maintenance").await.data;
        assert_eq!((&over["to"], over.get("actor")), (&json!("enabled"), None), "nobody did that: {over}");
        assert!(over["reason"].as_str().is_some_and(|why| why.contains("new disks")), "{over}");
        let well = |event: &Value| event["instance"] == "b" && event["to"] == "healthy";
        told.change_where(SOON, "instance.health_changed", well).await;

        let body = json!({"state": "isolated", "reason": "it corrupts data"});
        api.post("/v1/services/db/instances/a/admin", &body).await.is(200);
        let moved = told.change_where(SOON, "active.changed", |event| event["to"] == "b").await.data;
        assert_eq!(moved["from"], "a", "{moved}");
        let record =
            api.get(&format!("/v1/transitions/{}", moved["transition"].as_str().expect("an id"))).await.is(200);
        assert_eq!(record.json["kind"], "failover");
        assert!(
            record.json["trigger"]["reason"].as_str().is_some_and(|why| why.contains("it corrupts data")),
            "{}",
            record.text
        );
        let isolated = cluster.health(follower, "db", "a", "isolated").await;
        assert_eq!(isolated["role"], "passive");
        api.get("/v1/services/db/instances/a/is-healthy").await.is(503);
    });
}

#[test]
fn a_passive_that_is_dead_for_too_long_is_removed_and_the_active_is_not() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let mut targets = Vec::new();
        for name in ["a", "b", "c"] {
            targets.push(Target::start(name, cluster.dir()).await);
        }
        served(&cluster, 1, &targets.iter().collect::<Vec<_>>()).await;
        let api = cluster.api(1);
        for (at, target) in targets.iter().enumerate().take(2) {
            let mut registration = target.registration(300 - 100 * u32::try_from(at).expect("few"));
            registration["deregister_after"] = json!("1s");
            api.put(&path(at), &registration).await.done();
        }
        let mut told = stream(&cluster, 1).await;
        // c is kept from being a candidate, so that a stays the one to whom a proof is owed.
        api.post("/v1/services/db/instances/c/admin", &json!({"state": "draining", "reason": "not now"})).await.is(200);
        targets[1].kill9();
        let gone = told.change_where(SOON, "instance.deregistered", |event| event["instance"] == "b").await.data;
        assert!(gone["reason"].as_str().is_some_and(|why| why.contains("deregister_after (1s)")), "{gone}");
        assert_eq!(gone.get("actor"), None, "time did it: {gone}");
        api.get("/v1/services/db/instances/b").await.problem(404).code("no_such_instance");

        targets[0].kill9();
        told.change_where(SOON, "active.changed", |event| event["to"].is_null()).await;
        let deadline = Duration::from_secs(5);
        let removed = tokio::time::timeout(deadline, async {
            told.change_where(SOON, "instance.deregistered", |event| event["instance"] == "a").await
        });
        assert!(removed.await.is_err(), "it may still work: it stays until it is asked for or an operator removes it");
        assert_eq!(api.all("/v1/services/db/instances").await.len(), 2);
    });
}

#[test]
fn the_commands_of_an_operator_say_what_they_did() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(1).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        served(&cluster, 1, &[&a, &b]).await;
        let at = cluster.api(1).base().to_owned();
        let run = async |args: &[&str]| {
            let line: Vec<&str> = args.iter().copied().chain(["--endpoint", at.as_str()]).collect();
            baton(&line).await
        };

        let drained = run(&["drain", "db", "b", "--reason", "kernel update", "--for", "1h"]).await;
        assert_eq!(drained.code, Some(0), "{}", drained.stderr);
        assert!(
            drained.stdout.starts_with("db/b is draining, passive, healthy: draining by local until "),
            "{}",
            drained.stdout
        );
        let status = run(&["status", "db"]).await;
        assert_eq!(status.code, Some(0), "{}", status.stderr);
        assert!(
            status.stdout.contains("draining by local until ") && status.stdout.contains("(kernel update)"),
            "{}",
            status.stdout
        );

        let undone = run(&["drain", "db", "b", "--reason", "done", "--undo", "-o", "json"]).await;
        let instance: Value = serde_json::from_str(&undone.stdout).unwrap_or_else(|e| panic!("{e}: {}", undone.stdout));
        assert_eq!(instance["admin"]["state"], "enabled");

        // The active stays active, and nobody is sent to it: that is said at once, beside the answer.
        let active = run(&["drain", "db", "a", "--reason", "kernel update", "-o", "json"]).await;
        assert_eq!(active.code, Some(0), "{}", active.stderr);
        assert!(serde_json::from_str::<Value>(&active.stdout).is_ok(), "{}", active.stdout);
        assert!(active.stderr.contains("get nobody now") && active.stderr.contains("switchover"), "{}", active.stderr);
        let nobody = cluster.api(1).post("/v1/services/db/pick", &json!({})).await.problem(503).code("no_instance");
        let detail = nobody.json["detail"].as_str().expect("a detail");
        assert!(detail.ends_with("draining; POST /v1/services/db/switchover moves the service to another"), "{detail}");
        let undone = run(&["drain", "db", "a", "--reason", "done", "--undo"]).await;
        assert!(undone.code == Some(0) && undone.stderr.is_empty(), "{}", undone.stderr);

        let reset = run(&["reset", "db", "b", "--reason", "the switch was repaired"]).await;
        assert_eq!(reset.code, Some(0), "{}", reset.stderr);
        assert!(reset.stdout.starts_with("db/b is enabled, passive, unknown"), "{}", reset.stdout);
        cluster.health(1, "db", "b", "healthy").await;

        let refused = run(&["admin", "db", "a", "maintenance", "--reason", "x", "--for", "1h"]).await;
        assert_eq!(refused.code, Some(6), "{} {}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains("is_active") && refused.stdout.is_empty(), "{}", refused.stderr);
        assert_eq!(run(&["reset", "db", "nobody", "--reason", "x"]).await.code, Some(3));
        assert_eq!(run(&["admin", "db", "a", "maintenance", "--reason", "x"]).await.code, Some(3));
        let isolated = run(&["admin", "db", "a", "isolated", "--reason", "it corrupts data"]).await;
        assert_eq!(isolated.code, Some(0), "{}", isolated.stderr);
        cluster.active(1, "db", "b").await;

        let metrics = cluster.api(1).get("/metrics").await.is(200).text;
        for line in [
            "baton_instances_admin{state=\"isolated\"} 1",
            "baton_instances_admin{state=\"enabled\"} 1",
            "baton_breakers{state=\"closed\"} 2",
            "baton_breakers{state=\"open\"} 0",
        ] {
            assert!(metrics.lines().any(|told| told == line), "no {line} in {metrics}");
        }
    });
}

#[test]
fn a_new_leader_ends_what_the_old_one_began() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        served(&cluster, 1, &[&a, &b]).await;
        let (leader, _) = cluster.leader().await;
        let follower = cluster.others(leader)[0];
        let body = json!({"state": "maintenance", "reason": "new disks", "for": "3s"});
        cluster.api(follower).post("/v1/services/db/instances/b/admin", &body).await.is(200);
        cluster.kill9(leader);
        until(SOON, "the maintenance to end under another leader", async || {
            let answer =
                cluster.api(follower).call(reqwest::Method::GET, "/v1/services/db/instances/b").send(SOON).await?;
            when(answer.status == 200 && answer.json["admin"]["state"] == "enabled", answer.text)
        })
        .await;
        cluster.health(follower, "db", "b", "healthy").await;
    });
}
