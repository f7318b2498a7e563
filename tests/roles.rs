//! What an instance is, pushed to it at once by any node; how a holder says that it serves and that it has stopped; and how a
//! stream that is closed may say so for it.

use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http::{Answer, Api};
use crate::support::sse::{SseEvent, Stream};
use crate::support::{Load, SOON, scenario, until, when};

/// Heartbeat instances with a lease that nobody wants to wait for: what is quick here is quick without it.
fn leased(failover: &Value) -> Value {
    let mut spec = json!({
        "recovery": {"strategy": "immediate"},
        "failover": {"min_interval": "0s", "max_in_window": 100},
        "lease": {"ttl": "60s"}
    });
    for (key, value) in failover.as_object().expect("an object") {
        spec["failover"][key] = value.clone();
    }
    spec
}

fn path(instance: &str) -> String {
    format!("/v1/services/db/instances/{instance}")
}

/// Registers an instance that heartbeats; its session.
async fn register(api: &Api, instance: &str, priority: u32) -> String {
    let registration = json!({"liveness": "heartbeat", "priority": priority});
    let stored = api.put(&path(instance), &registration).await.done().json;
    stored["session"].as_str().unwrap_or_else(|| panic!("no session in {stored}")).to_owned()
}

async fn beat(api: &Api, instance: &str, session: &str) -> Answer {
    api.post(&format!("{}/heartbeat", path(instance)), &json!({"session": session})).await
}

/// Two instances that have heartbeated once, a preferred and active. Their sessions, and a's token.
async fn two(cluster: &Cluster, node: u64, spec: &Value) -> (String, String, u64) {
    let api = cluster.api(node);
    api.put("/v1/services/db", spec).await.done();
    // Without checks nobody waits for a second one: whoever is heard first is placed.
    let a = register(api, "a", 200).await;
    beat(api, "a", &a).await.is(200);
    let active = cluster.active(node, "db", "a").await;
    let b = register(api, "b", 100).await;
    beat(api, "b", &b).await.is(200);
    cluster.health(node, "db", "b", "healthy").await;
    (a, b, active["token"].as_u64().expect("a token"))
}

async fn role_stream(api: &Api, instance: &str, session: &str) -> Stream {
    Stream::open(api, &format!("{}/role?session={session}", path(instance)), None).await
}

/// The next event, which must be a role.
async fn role(stream: &mut Stream) -> Value {
    let SseEvent { event, data, .. } = stream.next(SOON).await.expect("a role comes");
    assert_eq!(event, "role", "{data}");
    data
}

/// The first role from here on that `wanted` says yes to.
async fn role_where(stream: &mut Stream, wanted: impl Fn(&Value) -> bool) -> Value {
    let end = Instant::now() + SOON;
    loop {
        let told = role(stream).await;
        if wanted(&told) {
            return told;
        }
        assert!(Instant::now() < end, "the last role was {told}");
    }
}

async fn release(api: &Api, instance: &str, body: &Value) -> Answer {
    api.post(&format!("{}/release", path(instance)), body).await
}

#[test]
fn a_release_passes_the_service_on_and_every_node_pushes_it() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (leader, _) = cluster.leader().await;
        let others = cluster.others(leader);
        let (a, b, token) = two(&cluster, others[0], &leased(&json!({}))).await;

        // The first role comes at once, at any node.
        let mut of_a = role_stream(cluster.api(others[0]), "a", &a).await;
        let mut of_b = role_stream(cluster.api(others[1]), "b", &b).await;
        let told = role(&mut of_a).await;
        assert_eq!(
            (&told["service"], &told["instance"], &told["role"], &told["phase"], told["token"].as_u64()),
            (&json!("db"), &json!("a"), &json!("active"), &json!("active"), Some(token)),
            "{told}"
        );
        let told = role(&mut of_b).await;
        assert_eq!((&told["role"], told.get("token")), (&json!("passive"), None), "{told}");

        // A release by another session, or of another token, counts for nothing.
        let api = cluster.api(others[1]);
        let foreign = json!({"token": token, "session": b});
        release(api, "a", &foreign).await.problem(409).code("unknown_session");
        let wrong = json!({"token": token + 1, "session": a});
        release(api, "a", &wrong).await.problem(409).code("not_holder");
        release(api, "a", &json!({"token": token})).await.problem(409).code("unknown_session");
        let by_b = json!({"token": token, "session": b});
        let why = release(api, "b", &by_b).await.problem(409);
        assert!(why.text.contains("unknown_session") || why.text.contains("not_holder"), "{}", why.text);
        release(api, "nobody", &by_b).await.problem(404).code("no_such_instance");
        let nowhere = "/v1/services/nowhere/instances/a/release";
        api.post(nowhere, &by_b).await.problem(404).code("no_such_service");

        // Its own does: nobody waits for the lease of a minute.
        let body = json!({"token": token, "session": a, "leaving": true, "reason": "shutting down"});
        let asked = Instant::now();
        assert_eq!(release(api, "a", &body).await.is(200).json, json!({"released": true}));
        let told = role_where(&mut of_b, |told| told["role"] == "active").await;
        println!("b was told {:?} after the release was asked for: {told}", asked.elapsed());
        assert!(told["token"].as_u64() > Some(token), "{told}");
        let passive = role_where(&mut of_a, |told| told["role"] == "passive").await;
        assert_eq!(passive.get("token"), None, "{passive}");

        // The record names the proof; the one that left is no candidate until it heartbeats.
        let active = api.get("/v1/services/db/active").await.is(200).json;
        assert_eq!((&active["instance"], &active["fencing"]), (&json!("b"), &json!("enforced")), "{active}");
        let id = active["transition"].as_str().expect("an id");
        let record = api.get(&format!("/v1/transitions/{id}")).await.is(200).json;
        assert_eq!((&record["kind"], &record["proof"]["proof"]), (&json!("failover"), &json!("release")), "{record:#}");
        assert!(record.to_string().contains("shutting down"), "{record:#}");
        assert_eq!(api.get(&path("a")).await.is(200).json["left"], true);
        let to_a = json!({"to": "a", "reason": "try"});
        api.post("/v1/services/db/failover", &to_a).await.problem(409).code("not_eligible");
        beat(api, "a", &a).await.is(200);
        until(SOON, "a to be back", async || {
            let told = api.get(&path("a")).await.is(200).json;
            when(told["left"] == false, told)
        })
        .await;

        // One that holds nothing says that it goes without a token; the holder names its own.
        let goes = |session: &str| json!({"session": session, "leaving": true, "reason": "shutting down"});
        release(api, "a", &goes(&a)).await.is(200);
        assert_eq!(api.get(&path("a")).await.is(200).json["left"], true);
        release(api, "a", &goes(&b)).await.problem(409).code("unknown_session");
        release(api, "b", &goes(&b)).await.problem(409).code("is_active");
        release(api, "a", &json!({"leaving": true})).await.problem(400);
        beat(api, "a", &a).await.is(200);

        // Said twice, with the old token: somebody else holds it now.
        release(api, "a", &body).await.problem(409);
        cluster.same_state_everywhere().await;
    });
}

#[test]
fn a_stream_ends_with_its_session_and_lives_through_silence() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let follower = cluster.follower().await;
        let api = cluster.api(follower);
        api.put("/v1/services/db", &leased(&json!({}))).await.done();
        let old = register(api, "a", 100).await;
        let mut stream = role_stream(cluster.api(follower), "a", &old).await;
        role(&mut stream).await;

        // What changes nothing for it is not told; a comment shows that the connection lives.
        let quiet = stream.next(Duration::from_millis(4_500)).await;
        let still: Vec<_> = quiet.into_iter().filter(|event| event.event != "role").collect();
        assert!(still.is_empty() && stream.comments >= 1, "{still:?}, {} comments", stream.comments);

        // A wrong session is refused before anything is pushed, at every node.
        for id in cluster.ids() {
            let at = |session: &str| format!("{}/role{session}", path("a"));
            cluster.api(id).get(&at("?session=other")).await.problem(409).code("unknown_session");
            let missing = cluster.api(id).get(&at("")).await.problem(400).code("invalid_input");
            assert!(missing.text.contains("session"), "{}", missing.text);
        }
        cluster.api(follower).get(&format!("{}/role?session=s", path("ghost"))).await.problem(404);

        // Registered anew: the old session has nothing more to hear.
        let new = register(cluster.api(follower), "a", 100).await;
        let over = loop {
            let event = stream.next(SOON).await.expect("the stream says that it is over");
            if event.event == "over" {
                break event.data;
            }
        };
        assert!(over["reason"].as_str().is_some_and(|why| why.contains("another session")), "{over}");
        assert_eq!(stream.next(SOON).await.expect_err("and ends"), "the server ended the stream");

        // Deregistered: likewise.
        let mut stream = role_stream(cluster.api(follower), "a", &new).await;
        role(&mut stream).await;
        cluster.api(follower).delete(&path("a")).await.done();
        let over = loop {
            let event = stream.next(SOON).await.expect("the stream says that it is over");
            if event.event == "over" {
                break event.data;
            }
        };
        assert!(over["reason"].as_str().is_some_and(|why| why.contains("not registered")), "{over}");

        // A probed instance has no session, and may listen all the same. A node that stops ends the stream without a word.
        cluster.api(follower).put(&path("p"), &json!({"address": "127.0.0.1:9"})).await.done();
        let mut stream = Stream::open(cluster.api(follower), &format!("{}/role", path("p")), None).await;
        role(&mut stream).await;
        cluster.signal(follower, Signal::TERM);
        let end = loop {
            match stream.next(SOON).await {
                Ok(event) => assert_eq!(event.event, "role", "{event:?}"),
                Err(why) => break why,
            }
        };
        assert_eq!(end, "the server ended the stream");
    });
}

#[test]
fn where_the_tenure_says_so_the_close_of_the_last_stream_is_a_release() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (leader, _) = cluster.leader().await;
        let node = cluster.others(leader)[0];
        let mut spec = leased(&json!({}));
        spec["lease"]["release_on_disconnect"] = json!(true);
        let (a, b, token) = two(&cluster, node, &spec).await;
        // A head is not a stream: asking for it closes nothing.
        let head = cluster.api(node).call(Method::HEAD, &format!("{}/role?session={a}", path("a"))).answer().await;
        assert_eq!(head.status, 200, "{}", head.text);
        let told = beat(cluster.api(node), "a", &a).await.is(200).json;
        assert_eq!((&told["role"], told["token"].as_u64()), (&json!("active"), Some(token)), "{told}");
        let mut first = role_stream(cluster.api(node), "a", &a).await;
        let mut second = role_stream(cluster.api(node), "a", &a).await;
        role(&mut first).await;
        role(&mut second).await;

        // Nor does the end of a stream of the one that does not hold it.
        let mut of_b = role_stream(cluster.api(node), "b", &b).await;
        role(&mut of_b).await;
        drop(of_b);
        // Nor one of two.
        drop(second);
        let mut of_b = role_stream(cluster.api(node), "b", &b).await;
        let still = of_b.next(Duration::from_secs(1)).await.expect("what b is");
        assert_eq!(still.data["role"], "passive");
        let quiet = of_b.next(Duration::from_secs(1)).await;
        assert!(quiet.is_err(), "nothing was released: {quiet:?}");
        let active = cluster.api(node).get("/v1/services/db/active").await.is(200).json;
        assert_eq!((&active["instance"], active["token"].as_u64()), (&json!("a"), Some(token)));

        // The last one does.
        let closed = Instant::now();
        drop(first);
        let told = role_where(&mut of_b, |told| told["role"] == "active").await;
        println!("b was told {:?} after the last stream of a was closed", closed.elapsed());
        assert!(told["token"].as_u64() > Some(token), "{told}");
        assert!(closed.elapsed() < Duration::from_secs(5), "the lease of a minute was not waited for");
        let active = cluster.api(node).get("/v1/services/db/active").await.is(200).json;
        let id = active["transition"].as_str().expect("an id");
        let record = cluster.api(node).get(&format!("/v1/transitions/{id}")).await.is(200).json;
        assert_eq!((&record["from"], &record["proof"]["proof"]), (&json!("a"), &json!("release")), "{record:#}");
        assert!(record.to_string().contains("stream"), "it is told which kind of release: {record:#}");
        assert_eq!(cluster.api(node).get(&path("a")).await.is(200).json["left"], true, "it is gone until it is heard");

        // A node that stops says nothing of those who listened there.
        let token = active["token"].as_u64().expect("a token");
        drop(of_b);
        beat(cluster.api(node), "a", &a).await.is(200);
        // (That was b's last stream, and b holds the service: it passes back to a.)
        let back = cluster.active(node, "db", "a").await;
        assert!(back["token"].as_u64() > Some(token), "{back}");
        let mut of_a = role_stream(cluster.api(node), "a", &a).await;
        role(&mut of_a).await;
        cluster.signal(node, Signal::TERM);
        cluster.process(node).end(SOON).await;
        let rest = cluster.others(node);
        cluster.leader_among(&rest).await;
        let after = cluster.api(rest[0]).get("/v1/services/db/active").await.is(200).json;
        assert_eq!(after["token"], back["token"], "{after}");
        assert_eq!(cluster.api(rest[0]).get(&path("a")).await.is(200).json["left"], false);
    });
}

#[test]
fn a_promotion_that_must_be_acknowledged_is_open_until_it_is() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let follower = cluster.follower().await;
        let api = cluster.api(follower);
        let spec = leased(&json!({"require_ack": true, "activation_timeout": "60s"}));
        let (a, b, token) = two(&cluster, follower, &spec).await;
        let waiting = api.get("/v1/services/db/active").await.is(200).json;
        assert_eq!(waiting["phase"], "promoting", "{waiting}");

        let ack = async |instance: &str, body: &Value| api.post(&format!("{}/ack", path(instance)), body).await;
        ack("a", &json!({"token": token + 1, "session": a})).await.problem(409).code("not_holder");
        ack("a", &json!({"token": token, "session": b})).await.problem(409).code("unknown_session");
        ack("b", &json!({"token": token, "session": b})).await.problem(409).code("not_holder");
        ack("a", &json!({"session": a})).await.problem(400).code("invalid_input");
        let record = ack("a", &json!({"token": token, "session": a})).await.is(200).json;
        assert_eq!((&record["id"], &record["status"]), (&waiting["transition"], &json!("finished")), "{record:#}");
        let steps: Vec<&str> =
            record["steps"].as_array().expect("steps").iter().filter_map(|step| step["step"].as_str()).collect();
        assert!(steps.contains(&"acknowledged"), "{steps:?}");
        assert!(record["durations"]["promoted_to_acknowledged_ms"].is_u64(), "{record:#}");
        let again = ack("a", &json!({"token": token, "session": a})).await.is(200).json;
        assert_eq!(again["id"], record["id"], "said twice is said once");
        let serving = api.get("/v1/services/db/active").await.is(200).json;
        assert_eq!((&serving["phase"], serving["token"].as_u64()), (&json!("active"), Some(token)));

        // A switchover is open until the next one serves too, and its answer waits for that.
        let moving = {
            let api = api.clone();
            tokio::spawn(async move {
                api.post("/v1/services/db/switchover", &json!({"to": "b", "reason": "kernel update"})).await
            })
        };
        until(SOON, "a to be told to step down", async || {
            let answer = api.get("/v1/services/db").await.is(200).json;
            when(answer["phase"] == "switching", answer["phase"].clone())
        })
        .await;
        let told = beat(api, "a", &a).await.is(200).json;
        assert_eq!((&told["role"], told.get("token")), (&json!("passive"), None), "{told}");
        let down = json!({"token": token, "session": a, "reason": "stepping down"});
        release(api, "a", &down).await.is(200);
        let next = until(SOON, "b to be promoted", async || {
            let told = beat(api, "b", &b).await.is(200).json;
            when(told["role"] == "active", told)
        })
        .await["token"]
            .as_u64()
            .expect("a token");
        ack("b", &json!({"token": next, "session": b})).await.is(200);
        let record = moving.await.expect("it was answered").is(200).json;
        assert_eq!((&record["kind"], &record["status"]), (&json!("switchover"), &json!("finished")), "{record:#}");
        assert_eq!((&record["to"], record["token"].as_u64()), (&json!("b"), Some(next)), "{record:#}");
    });
}
