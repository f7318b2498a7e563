//! What keeps Baton from moving services by itself: an operator's pause of one or of all, and the brake that it pulls when too
//! many of them want to move at once. Operators pass all of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http::Api;
use crate::support::process::baton;
use crate::support::sse::Stream;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario, until, when};

/// Services whose actives are all on `a`, and could be on `b`.
async fn serve(cluster: &Cluster, names: &[&str], a: &Target, b: &Target) {
    let api = cluster.api(1);
    for name in names {
        api.put(&format!("/v1/services/{name}"), &watched()).await.done();
        api.put(&format!("/v1/services/{name}/instances/a"), &a.registration(200)).await.done();
        api.put(&format!("/v1/services/{name}/instances/b"), &b.registration(100)).await.done();
    }
    for name in names {
        cluster.health(1, name, "b", "healthy").await;
        cluster.active(1, name, "a").await;
    }
}

async fn stream(api: &Api) -> Stream {
    let mut stream = Stream::open(api, "/v1/watch", None).await;
    assert_eq!(stream.next(SOON).await.expect("a stream begins").event, "snapshot");
    stream
}

/// What keeps this service where it is, as this node tells it.
async fn held(api: &Api, service: &str) -> Value {
    api.get(&format!("/v1/services/{service}")).await.is(200).json["automation"].clone()
}

#[test]
fn a_paused_service_stays_where_it_is_until_somebody_or_time_resumes_it() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (mut a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        serve(&cluster, &["free", "held"], &a, &b).await;
        let follower = cluster.follower().await;
        let api = cluster.api(follower);
        let mut told = stream(cluster.api(cluster.leader().await.0)).await;

        let nothing = json!({"reason": "nothing"});
        api.post("/v1/services/held/resume", &nothing).await.problem(409).code("nothing_to_do");
        let body = json!({"reason": "the switches are being replaced", "for": "1h", "owner": "network team"});
        let paused = api.post("/v1/services/held/pause", &body).await.is(200).json;
        assert_eq!(
            (&paused["paused"]["reason"], &paused["paused"]["owner"], &paused["paused"]["actor"]),
            (&json!("the switches are being replaced"), &json!("network team"), &json!("local")),
            "{paused:#}"
        );
        assert!(paused["paused"]["until"].is_string() && paused["latched"].is_null(), "{paused:#}");
        let left = paused["paused"]["ends_in_ms"].as_u64().expect("it has an end");
        assert!((3_500_000..=3_600_000).contains(&left), "{paused:#}");
        let event = told.change_where(SOON, "automation.paused", |_| true).await.data;
        assert_eq!((&event["service"], &event["actor"]), (&json!("held"), &json!("local")), "{event}");
        assert!(event["reason"].as_str().is_some_and(|why| why.contains("switches")), "{event}");
        for id in cluster.ids() {
            assert!(held(cluster.api(id), "held").await["paused"].is_object(), "node {id}");
            assert_eq!(held(cluster.api(id), "free").await, json!({"paused": null, "latched": null}), "node {id}");
        }

        // The active of both dies. The free one is moved; of the other one it is said who holds it, and why.
        a.kill9();
        cluster.active(follower, "free", "b").await;
        cluster.health(follower, "held", "a", "unhealthy").await;
        let explained = until(SOON, "what holds it to be said", async || {
            let answer = api.get("/v1/services/held/explain").await.is(200);
            when(answer.text.contains("the switches are being replaced"), answer)
        })
        .await;
        let holding = explained.json["gates"].as_array().expect("gates").iter();
        let holding: Vec<&Value> = holding.filter(|gate| gate["verdict"] == "hold").collect();
        assert!(holding.iter().any(|gate| gate.to_string().contains("network team")), "{holding:#?}");
        let status = baton(&["status", "held", "--endpoint", api.base()]).await;
        assert!(status.stdout.contains("held: paused until"), "{}", status.stdout);

        // An operator passes it.
        let record = api.post("/v1/services/held/failover", &json!({"reason": "we need it"})).await.is(200).json;
        assert_eq!(record["to"], "b", "{record:#}");
        assert!(held(api, "held").await["paused"].is_object(), "and it is paused still");

        // Somebody resumes it.
        let done = json!({"reason": "the new switches are in"});
        let resumed = api.post("/v1/services/held/resume", &done).await.is(200).json;
        assert_eq!(resumed, json!({"paused": null, "latched": null}));
        let event = told.change_where(SOON, "automation.resumed", |_| true).await.data;
        assert_eq!((&event["service"], &event["actor"]), (&json!("held"), &json!("local")), "{event}");

        // Time resumes it.
        let body = json!({"reason": "a moment", "for": "1s"});
        api.post("/v1/services/held/pause", &body).await.is(200);
        let event = told.change_where(SOON, "automation.resumed", |event| event["service"] == "held").await.data;
        assert_eq!(event.get("actor"), None, "nobody did that: {event}");
        assert_eq!(held(api, "held").await["paused"], Value::Null);

        for (body, path) in [
            (json!({"reason": "x"}), "for"),
            (json!({"for": "1h"}), "reason"),
            (json!({"reason": "x", "for": "721h"}), "for"),
            (json!({"reason": "x", "until": "2020-01-01T00:00:00Z"}), "until"),
        ] {
            for place in ["/v1/services/held/pause", "/v1/automation/pause"] {
                let why = api.post(place, &body).await.problem(400).code("invalid_input");
                assert!(why.json["errors"].to_string().contains(path), "{body}: {}", why.text);
            }
        }
        let nowhere = json!({"reason": "x", "for": "1m"});
        api.post("/v1/services/nowhere/pause", &nowhere).await.problem(404).code("no_such_service");
        cluster.same_state_everywhere().await;
    });
}

#[test]
fn a_pause_of_all_holds_every_service_under_the_next_leader_too() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (mut a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        serve(&cluster, &["db"], &a, &b).await;
        let (leader, _) = cluster.leader().await;
        let rest = cluster.others(leader);
        let api = cluster.api(rest[0]);
        api.post("/v1/automation/resume", &json!({"reason": "x"})).await.problem(409).code("nothing_to_do");
        let body = json!({"reason": "the data centre is moved", "for": "1h"});
        let paused = api.post("/v1/automation/pause", &body).await.is(200).json;
        assert_eq!((&paused["paused"]["owner"], &paused["braked"]), (&json!("local"), &Value::Null), "{paused:#}");

        cluster.kill9(leader);
        cluster.leader_among(&rest).await;
        a.kill9();
        let api = cluster.api(rest[0]);
        cluster.health(rest[0], "db", "a", "unhealthy").await;
        until(SOON, "what holds it to be said", async || {
            let answer = api.get("/v1/services/db/explain").await.is(200);
            when(answer.text.contains("the data centre is moved"), answer.text)
        })
        .await;
        let now = api.get("/v1/services/db").await.is(200).json;
        assert_eq!(now["active"]["instance"], "a", "nothing was moved: {now:#}");
        for id in &rest {
            let cluster = cluster.api(*id).get("/v1/cluster").await.is(200).json;
            assert!(cluster["automation"]["paused"].is_object(), "node {id}: {cluster:#}");
        }
        let done = json!({"reason": "it stands"});
        let resumed = api.post("/v1/automation/resume", &done).await.is(200).json;
        assert_eq!(resumed, json!({"paused": null, "braked": null}));
        cluster.active(rest[0], "db", "b").await;
    });
}

#[test]
fn too_many_at_once_pull_the_brake_and_an_operator_releases_it() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (mut a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let names = ["one", "two", "three", "four"];
        serve(&cluster, &names, &a, &b).await;
        let api = cluster.api(cluster.follower().await);
        let mut told = stream(api).await;

        // What they have in common dies: a machine, a switch.
        a.kill9();
        let event = told.change_where(SOON, "automation.braked", |_| true).await.data;
        assert_eq!((event.get("service"), event.get("actor")), (None, None), "{event}");
        assert!(event["reason"].as_str().is_some_and(|why| why.contains("resume of all")), "{event}");
        for id in cluster.ids() {
            let braked = until(SOON, "every node to tell it", async || {
                let told = cluster.api(id).get("/v1/cluster").await.is(200).json;
                when(told["automation"]["braked"].is_object(), told)
            })
            .await["automation"]["braked"]
                .clone();
            assert!(braked["wanting"].as_u64() >= Some(3) && braked["of"] == 4, "node {id}: {braked}");
        }
        for name in names {
            cluster.health(1, name, "a", "unhealthy").await;
        }
        let mut stuck = Vec::new();
        for name in names {
            let now = api.get(&format!("/v1/services/{name}")).await.is(200).json;
            if now["active"]["instance"] != "b" {
                stuck.push(name);
            }
        }
        assert!(stuck.len() >= 2, "a minority may have been moved before it was clear: {stuck:?} are held");
        let explained = api.get(&format!("/v1/services/{}/explain", stuck[0])).await.is(200);
        assert!(explained.text.contains("brake"), "{}", explained.text);
        let status = baton(&["status", "--endpoint", api.base()]).await;
        assert!(status.stdout.contains("every service: braked since"), "{}", status.stdout);

        // An operator moves one of them by hand, and then lets go of the brake.
        let by_hand = api.post(&format!("/v1/services/{}/failover", stuck[0]), &json!({"reason": "it is down"})).await;
        assert_eq!(by_hand.is(200).json["to"], "b");
        let done = json!({"reason": "that rack is lost, go on"});
        assert_eq!(api.post("/v1/automation/resume", &done).await.is(200).json["braked"], Value::Null);
        for name in names {
            cluster.active(1, name, "b").await;
        }
        let braked = tokio::time::timeout(Duration::from_secs(2), async {
            told.change_where(SOON, "automation.braked", |_| true).await
        });
        assert!(braked.await.is_err(), "it is not pulled again by what was wanted before");
    });
}
