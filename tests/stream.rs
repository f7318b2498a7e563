//! Streams and long polls: every event once, in order, whatever happens to the connection.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::AbortHandle;

use crate::support::cluster::Cluster;
use crate::support::http::Api;
use crate::support::sse::{SseEvent, Stream};
use crate::support::{Load, SOON, scenario};

/// Time between two writes of the load.
const PACE: Duration = Duration::from_millis(8);
/// How often the reader breaks off and resumes elsewhere.
const ROUNDS: u64 = 15;
/// What a lost writer's request may take.
const WRITE: Duration = Duration::from_secs(5);

/// A writer that changes the world all the time; ended when dropped.
struct Writer(AbortHandle);

impl Writer {
    fn start(api: Api, service: &'static str, name: &'static str) -> Self {
        let task = tokio::spawn(async move {
            for number in 0u64.. {
                let path = format!("/v1/services/{service}/instances/{name}-{}", number % 40);
                // Every lap has another weight, so that every write changes something.
                let body = json!({"address": "127.0.0.1:9", "weight": 1 + number / 40});
                let answer = api.call(Method::PUT, &path).json(&body).send(WRITE).await;
                assert!(answer.as_ref().is_ok_and(|a| matches!(a.status, 200 | 201)), "the load stumbles: {answer:?}");
                tokio::time::sleep(PACE).await;
            }
        });
        Self(task.abort_handle())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A small generator (xorshift), for the moments at which the reader breaks off. The seed is printed.
struct Luck(u64);

impl Luck {
    fn new() -> Self {
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64 | 1);
        println!("seed {seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

async fn fleet(api: &Api) {
    for service in ["fleet", "other"] {
        api.put(&format!("/v1/services/{service}"), &json!({"mode": "active_active"})).await.done();
    }
}

#[test]
fn a_reader_that_breaks_off_resumes_on_another_node_without_gap_or_repeat() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let nodes = cluster.ids();
        fleet(cluster.api(1)).await;
        let _one = Writer::start(cluster.api(1).clone(), "fleet", "one");
        let _two = Writer::start(cluster.api(2).clone(), "other", "two");

        let mut luck = Luck::new();
        let mut stream = Stream::open(cluster.api(1), "/v1/watch", None).await;
        let snapshot = stream.next(SOON).await.expect("a stream begins");
        assert_eq!(snapshot.event, "snapshot");
        let begun = snapshot.revision();
        let mut last = begun;
        let mut told: Vec<SseEvent> = Vec::new();
        for round in 1..=ROUNDS {
            for _ in 0..=luck.below(60) {
                let event = stream.change(SOON).await;
                assert_ne!(event.event, "snapshot", "one who resumes gets no second snapshot: {event:?}");
                assert_eq!(event.revision(), last + 1, "round {round}, {} events so far: {event:?}", told.len());
                assert_eq!(event.data["revision"].as_u64(), Some(event.revision()));
                last = event.revision();
                told.push(event);
            }
            // The old connection is dropped with what it still held; the new node may be behind or ahead.
            let node = nodes[usize::try_from(luck.below(3)).expect("below 3")];
            stream = Stream::open(cluster.api(node), "/v1/watch", Some(&last.to_string())).await;
        }

        // What was streamed is what the history says, to the letter.
        let path = format!("/v1/events?after={begun}");
        let history = cluster.api(3).all(&path).await;
        let streamed: Vec<&Value> = told.iter().map(|event| &event.data).collect();
        assert!(history.len() >= streamed.len());
        for (written, streamed) in history.iter().zip(streamed) {
            assert_eq!(written, streamed);
        }
        println!("{} events in {ROUNDS} rounds, {begun} to {last}", told.len());
    });
}

#[test]
fn a_stream_tells_of_its_service_and_types_alone() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        fleet(api).await;
        let mut of_service = Stream::open(api, "/v1/watch?service=fleet", None).await;
        let mut of_type = Stream::open(api, "/v1/watch?type=instance.deregistered", None).await;
        for stream in [&mut of_service, &mut of_type] {
            assert_eq!(stream.next(SOON).await.expect("a stream begins").event, "snapshot");
        }
        for service in ["other", "fleet"] {
            let path = format!("/v1/services/{service}/instances/i");
            api.put(&path, &json!({"address": "127.0.0.1:9"})).await.done();
        }
        api.delete("/v1/services/other/instances/i").await;
        api.delete("/v1/services/fleet/instances/i").await;

        let first = of_service.change(SOON).await;
        assert_eq!((&first.data["type"], &first.data["service"]), (&json!("instance.registered"), &json!("fleet")));
        let second = of_service.change_where(SOON, "instance.deregistered", |_| true).await;
        assert_eq!(second.data["service"], "fleet");
        for service in ["other", "fleet"] {
            let gone = of_type.change(SOON).await;
            assert_eq!((&gone.data["type"], &gone.data["service"]), (&json!("instance.deregistered"), &json!(service)));
        }
        assert!(second.revision() > first.revision());
    });
}

#[test]
fn a_stream_outlives_the_leader() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (leader, _) = cluster.leader().await;
        let follower = cluster.others(leader)[0];
        fleet(cluster.api(follower)).await;
        let mut stream = Stream::open(cluster.api(follower), "/v1/watch?service=fleet", None).await;
        stream.next(SOON).await.expect("a snapshot");
        cluster.kill9(leader);
        cluster.leader_among(&cluster.others(leader)).await;
        let path = "/v1/services/fleet/instances/late";
        cluster.api(follower).put(path, &json!({"address": "127.0.0.1:9"})).await.done();
        // On the very connection that was open before.
        stream.change_where(SOON, "instance.registered", |event| event["instance"] == "late").await;
    });
}

#[test]
fn a_long_poll_wakes_on_a_change_and_not_without_one() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        fleet(api).await;
        let seen = api.get("/v1/services/fleet").await.is(200).revision();

        // Nothing happens: it answers when its time is over, and says what it would have said anyway.
        let idle = api.get(&format!("/v1/services/fleet?after={seen}&wait=1s")).await.is(200);
        assert!(idle.took >= Duration::from_millis(900), "woken by nothing after {:?}", idle.took);

        // Something happens to another service: that is no reason to wake this one.
        let path = format!("/v1/services/fleet?after={seen}&wait=3s");
        let waiting = tokio::spawn({
            let api = api.clone();
            let path = path.clone();
            async move { api.get(&path).await }
        });
        api.put("/v1/services/other", &json!({"mode": "active_active", "fail_open": true})).await.done();
        let unmoved = waiting.await.expect("an answer").is(200);
        assert!(unmoved.took >= Duration::from_millis(2_900), "woken by a stranger after {:?}", unmoved.took);

        // Something happens to it: it answers at once.
        let path = format!("/v1/services/fleet?after={seen}&wait=20s");
        let waiting = tokio::spawn({
            let api = api.clone();
            async move {
                let answer = api.call(Method::GET, &path).send(Duration::from_secs(30)).await;
                (answer, Instant::now())
            }
        });
        api.put("/v1/services/fleet", &json!({"mode": "active_active", "fail_open": true})).await.done();
        let written = Instant::now();
        let (answer, woken) = waiting.await.expect("an answer");
        let answer = answer.expect("an answer").is(200);
        println!("woken {:?} after the write was acknowledged", woken.saturating_duration_since(written));
        assert!(answer.took < Duration::from_secs(15), "{:?}", answer.took);
        assert!(answer.revision() > seen);
        assert!(answer.text.contains("\"fail_open\":true"), "the new spec: {}", answer.text);

        // What lies behind is answered at once, on the list as well.
        let behind = api.get(&format!("/v1/services/fleet?after={seen}&wait=20s")).await.is(200);
        assert!(behind.took < Duration::from_secs(5), "{:?}", behind.took);
        let listed = api.get(&format!("/v1/services?after={seen}&wait=20s")).await.is(200);
        assert!(listed.took < Duration::from_secs(5), "{:?}", listed.took);
    });
}
