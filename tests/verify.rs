//! Whether a token is the active's: the same answer at every node, never of yesterday.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::target::{Target, watched};
use crate::support::{Load, scenario};

#[test]
fn a_token_is_valid_until_it_is_overtaken() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let follower = cluster.follower().await;
        let api = cluster.api(follower);
        api.put("/v1/services/db", &watched()).await.done();
        let path = "/v1/services/db/tokens/verify";
        let verify = async |node: u64, token: u64| -> (bool, Value) {
            let answer = cluster.api(node).post(path, &json!({"token": token})).await.is(200).json;
            (answer["valid"].as_bool().expect("a word"), answer["current"].clone())
        };
        assert_eq!(verify(follower, 1).await, (false, Value::Null), "nobody is active yet");

        api.put("/v1/services/db/instances/a", &a.registration(200)).await.done();
        api.put("/v1/services/db/instances/b", &b.registration(100)).await.done();
        cluster.health(follower, "db", "b", "healthy").await;
        let first = cluster.active(follower, "db", "a").await["token"].as_u64().expect("a token");
        for node in cluster.ids() {
            assert_eq!(verify(node, first).await, (true, json!(first)), "node {node}");
            assert_eq!(verify(node, first - 1).await, (false, json!(first)), "a lower one is old");
            assert_eq!(verify(node, first + 1).await, (false, json!(first)), "a higher one was never given out");
        }

        // Overtaken: from the answer to the switchover on, no node calls the old one valid.
        let order = json!({"to": "b", "reason": "kernel update"});
        for to in ["b", "a", "b", "a", "b"] {
            let old = verify(follower, 0).await.1.as_u64().expect("a token");
            let order = json!({"to": to, "reason": order["reason"]});
            let record = api.post("/v1/services/db/switchover", &order).await.is(200).json;
            let new = record["token"].as_u64().expect("a token");
            for node in cluster.ids() {
                assert_eq!(verify(node, old).await, (false, json!(new)), "node {node}");
                assert_eq!(verify(node, new).await, (true, json!(new)), "node {node}");
            }
        }

        for (body, code) in [("{}", "invalid_input"), (r#"{"token":"5"}"#, "invalid_input"), ("[", "invalid_json")] {
            api.call(reqwest::Method::POST, path).raw(body).answer().await.problem(400).code(code);
        }
        let nowhere = "/v1/services/nowhere/tokens/verify";
        api.post(nowhere, &json!({"token": 1})).await.problem(404).code("no_such_service");
        api.put("/v1/services/all", &json!({"mode": "active_active"})).await.done();
        let all = "/v1/services/all/tokens/verify";
        api.post(all, &json!({"token": 1})).await.problem(409).code("not_active_passive");
    });
}
