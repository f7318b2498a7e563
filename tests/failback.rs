//! Back to the preferred instance: when an operator asks, or by itself after a while, or never.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::sse::Stream;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario};

/// A service `db` with this kind of failback, a preferred to b, and b active after a's death and return.
async fn failed_over(cluster: &Cluster, failback: &Value) -> (Target, Target) {
    let (mut a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
    let api = cluster.api(1);
    let mut spec = watched();
    spec["failback"] = failback.clone();
    api.put("/v1/services/db", &spec).await.done();
    api.put("/v1/services/db/instances/a", &a.registration(200)).await.done();
    api.put("/v1/services/db/instances/b", &b.registration(100)).await.done();
    cluster.health(1, "db", "b", "healthy").await;
    cluster.active(1, "db", "a").await;
    let nobody = api.post("/v1/services/db/failback", &json!({"reason": "early"})).await;
    nobody.problem(409);
    a.kill9();
    cluster.active(1, "db", "b").await;
    let sick = api.post("/v1/services/db/failback", &json!({"reason": "too soon"})).await.problem(409);
    assert!(sick.text.contains("no_candidate") || sick.text.contains("no_such"), "{}", sick.text);
    a.revive().await;
    cluster.health(1, "db", "a", "healthy").await;
    (a, b)
}

#[test]
fn an_operator_asks_and_a_rehearsal_moves_nothing() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let (_a, _b) = failed_over(&cluster, &json!({"mode": "manual"})).await;
        let api = cluster.api(1);

        let rehearsal = json!({"reason": "what if", "dry_run": true});
        let plan = api.post("/v1/services/db/failback", &rehearsal).await.is(200).json;
        assert_eq!(
            (&plan["kind"], &plan["from"], &plan["to"]),
            (&json!("failback"), &json!("b"), &json!("a")),
            "{plan:#}"
        );
        assert_eq!(plan["proof"]["proof"], "token", "it would be made at once: {plan:#}");
        let wrong = json!({"to": "b", "reason": "no"});
        api.post("/v1/services/db/failback", &wrong).await.problem(409).code("already_active");

        let record = api.post("/v1/services/db/failback", &json!({"reason": "db-1 is repaired"})).await.is(200).json;
        assert_eq!((&record["kind"], &record["to"]), (&json!("failback"), &json!("a")), "{record:#}");
        assert_eq!((&record["actor"], &record["status"]), (&json!("local"), &json!("finished")), "{record:#}");
        assert!(record["trigger"]["reason"].as_str().is_some_and(|why| why.contains("db-1 is repaired")), "{record:#}");
        let again = api.post("/v1/services/db/failback", &json!({"reason": "again"})).await;
        again.problem(409).code("already_active");
        let nowhere = json!({"to": "nobody", "reason": "typo"});
        api.post("/v1/services/db/failback", &nowhere).await.problem(404).code("no_such_instance");
    });
}

#[test]
fn by_itself_after_a_while_and_never_where_nobody_wants_it() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let mut stream = Stream::open(cluster.api(1), "/v1/watch?service=db", None).await;
        let (_a, _b) = failed_over(&cluster, &json!({"mode": "automatic", "stable_for": "1s"})).await;
        let back = |event: &Value| event["from"] == "b" && event["to"] == "a";
        let moved = stream.change_where(SOON, "active.changed", back).await.data;
        let id = moved["transition"].as_str().expect("an id");
        let record = cluster.api(1).get(&format!("/v1/transitions/{id}")).await.is(200).json;
        assert_eq!((&record["kind"], &record["actor"]), (&json!("failback"), &Value::Null), "{record:#}");
        assert!(record["trigger"]["cause"].is_u64(), "it has a committed cause: {record:#}");
    });
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let (_a, _b) = failed_over(&cluster, &json!({"mode": "never"})).await;
        let api = cluster.api(1);
        let why = api.post("/v1/services/db/failback", &json!({"reason": "please"})).await.problem(409);
        assert!(why.text.contains("switchover"), "it says what would move it: {}", why.text);
        api.post("/v1/services/db/switchover", &json!({"reason": "please"})).await.is(200);
        cluster.active(1, "db", "a").await;
    });
}
