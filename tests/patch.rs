//! A registration that is changed without being made anew: the session, the role and the token go on.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http::{Answer, Api};
use crate::support::sse::Stream;
use crate::support::{Load, SOON, scenario};

async fn patch(api: &Api, path: &str, body: &Value, tag: Option<&str>) -> Answer {
    let call = api.call(reqwest::Method::PATCH, path).json(body);
    match tag {
        Some(tag) => call.header("if-match", tag).answer().await,
        None => call.answer().await,
    }
}

#[test]
fn a_holder_is_changed_and_holds_on() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let follower = cluster.follower().await;
        let api = cluster.api(follower);
        api.put("/v1/services/db", &json!({"lease": {"ttl": "60s"}})).await.done();
        let path = "/v1/services/db/instances/a";
        let registration = json!({"liveness": "heartbeat", "priority": 200, "metadata": {"rack": "r1", "old": "x"}});
        let stored = api.put(path, &registration).await.done().json;
        let session = stored["session"].clone();
        api.post(&format!("{path}/heartbeat"), &json!({"session": session})).await.is(200);
        let active = cluster.active(follower, "db", "a").await;
        let role = format!("{path}/role?session={}", session.as_str().expect("a session"));
        let mut stream = Stream::open(api, &role, None).await;
        assert_eq!(stream.next(SOON).await.expect("a role").data["role"], "active");

        let body = json!({"priority": 50, "zone": "z2", "metadata": {"rack": "r7", "old": null}});
        let changed = patch(api, path, &body, Some("\"1\"")).await.is(200);
        assert_eq!(
            (&changed.json["generation"], &changed.json["created"], &changed.json["session"]),
            (&json!(2), &json!(false), &session),
            "{}",
            changed.text
        );
        assert_eq!(changed.header("etag"), "\"2\"");
        for id in cluster.ids() {
            let now = cluster.api(id).get(path).await.is(200).json;
            assert_eq!(
                (&now["priority"], &now["zone"], &now["metadata"], &now["session"], &now["role"]),
                (&json!(50), &json!("z2"), &json!({"rack": "r7"}), &session, &json!("active")),
                "node {id}: {now:#}"
            );
        }
        let still = api.get("/v1/services/db/active").await.is(200).json;
        assert_eq!(still["token"], active["token"], "the tenure goes on");
        let told = api.post(&format!("{path}/heartbeat"), &json!({"session": session})).await.is(200).json;
        assert_eq!((&told["role"], &told["token"]), (&json!("active"), &active["token"]), "{told}");

        // The same again changes nothing; what was seen before is refused; what does not fit is named.
        assert_eq!(patch(api, path, &body, None).await.is(200).json["generation"], 2);
        patch(api, path, &json!({"priority": 1}), Some("\"1\"")).await.problem(412).code("generation_mismatch");
        assert_eq!(patch(api, path, &json!({"priority": 1}), Some("*")).await.is(200).json["generation"], 3);
        for (body, field) in [
            (json!({"prio": 1}), "prio"),
            (json!({"liveness": "probe"}), "liveness"),
            (json!({"priority": null}), "priority"),
            (json!({"session": "mine"}), "session"),
        ] {
            let why = patch(api, path, &body, None).await.problem(400).code("invalid_input");
            assert!(why.json["errors"].to_string().contains(field), "{}", why.text);
        }
        let ghost = "/v1/services/db/instances/ghost";
        patch(api, ghost, &json!({"priority": 1}), None).await.problem(404).code("no_such_instance");

        // Many at once: each is merged into what the one before it left.
        let writers = (0..8).map(|n| {
            let api = cluster.api(1 + n % 3).clone();
            tokio::spawn(async move {
                let body = json!({"metadata": {format!("writer-{n}"): "was here"}});
                patch(&api, path, &body, None).await.status
            })
        });
        let mut done = 0;
        for writer in writers.collect::<Vec<_>>() {
            done += usize::from(writer.await.expect("it was answered") == 200);
        }
        let now = api.get(path).await.is(200).json;
        let labels = now["metadata"].as_object().expect("labels").len();
        assert_eq!(labels, 1 + done, "whoever was told 200 is in it, nobody else: {now:#}");
        cluster.same_state_everywhere().await;
    });
}
