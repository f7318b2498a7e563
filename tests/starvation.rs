//! The machine is overloaded, or a daemon stands still and goes on: nobody is accused for that.
//!
//! `BATON_STARVE_SECS` sets how long the overload lasts; a minute is what is promised, ten seconds are what each run of
//! the suite can spare. `just starve` runs the whole minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::support::cluster::Cluster;
use crate::support::http::Api;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario, until};

/// How long the overload lasts unless told otherwise.
const STARVE: Duration = Duration::from_secs(10);
/// Lengths of stops of a follower meanwhile, in milliseconds: below and above what makes it distrust its own looks.
const STOPS: [u64; 6] = [40, 250, 120, 700, 90, 300];
/// Those of the leader: too short for another to be elected.
const SHORT_STOPS: [u64; 4] = [250, 120, 300, 90];
/// How long it runs between them.
const RUNS: Duration = Duration::from_millis(300);
/// How long a daemon stands still.
const STOPPED_FOR: Duration = Duration::from_secs(10);
/// How long it must not accuse anybody after it woke.
const AWAKE_FOR: Duration = Duration::from_secs(5);

/// How often one instance heartbeats, and after what silence it is missing: the interval twice, and a time-out of 100 ms.
const BEAT: Duration = Duration::from_millis(100);
const MISSING: Duration = Duration::from_millis(300);

/// Threads that do nothing, as fast as they can.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Four times as many as there are cores.
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let spin = |_| {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..4 * cores).map(spin).collect();
        Self { stop, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What lives in this process and must not be late itself: on a thread of its own, until it is dropped.
struct Alone {
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Alone {
    fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(stopped.run_until_cancelled(work));
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// An instance of `hearts` that heartbeats to every node at once, so that it is heard whichever stands still.
async fn heart(cluster: &Cluster) -> (Alone, watch::Receiver<Duration>) {
    let spec = json!({"checks": [{"type": "heartbeat", "interval": "100ms", "fall": 2, "timeout": "100ms"}]});
    cluster.api(1).put("/v1/services/hearts", &spec).await.done();
    let path = "/v1/services/hearts/instances/h";
    let stored = cluster.api(1).put(path, &json!({"liveness": "heartbeat"})).await.done().json;
    let beat = json!({"session": stored["session"]});
    let bases: Vec<String> = cluster.ids().iter().map(|id| cluster.api(*id).base().to_owned()).collect();
    let (tell, longest) = watch::channel(Duration::ZERO);
    let work = async move {
        // Of its own runtime.
        let apis: Vec<Api> = bases.into_iter().map(|base| Api::new(base, None)).collect();
        let mut last = Instant::now();
        loop {
            for api in &apis {
                let call = api.call(Method::POST, &format!("{path}/heartbeat")).json(&beat);
                // It does not wait for the answer: an answer that is late makes no heartbeat late.
                tokio::spawn(call.send(SOON));
            }
            let between = last.elapsed();
            last = Instant::now();
            tell.send_if_modified(|longest| {
                let is_longer = between > *longest;
                *longest = between.max(*longest);
                is_longer
            });
            tokio::time::sleep(BEAT).await;
        }
    };
    let alone = Alone::start(work);
    cluster.active(1, "hearts", "h").await;
    (alone, longest)
}

/// Two instances of `db`, both seen well by everybody; `a` is active. The revision after which nothing may happen.
async fn all_well(cluster: &Cluster) -> (Target, Target, u64) {
    let a = Target::start("a", cluster.dir()).await;
    let b = Target::start("b", cluster.dir()).await;
    cluster.api(1).put("/v1/services/db", &watched()).await.done();
    cluster.api(1).put("/v1/services/db/instances/a", &a.registration(200)).await.done();
    cluster.api(1).put("/v1/services/db/instances/b", &b.registration(100)).await.done();
    for instance in ["a", "b"] {
        until(SOON, &format!("all nodes to see {instance} well"), async || {
            let seen = cluster.health(1, "db", instance, "healthy").await;
            let verdicts = seen["verdicts"].as_array().map_or(0, Vec::len);
            if verdicts == 3 { Ok(()) } else { Err(seen["verdicts"].clone()) }
        })
        .await;
    }
    cluster.active(1, "db", "a").await;
    let revision = cluster.local(1).await.expect("a revision").revision;
    (a, b, revision)
}

/// What was said since a revision, as any node that is well tells it.
async fn since(cluster: &Cluster, node: u64, revision: u64) -> Vec<Value> {
    let events = cluster.api(node).all(&format!("/v1/events?after={revision}")).await;
    for event in &events {
        let Value::Object(of) = event else { continue };
        let word = |name: &str| of.get(name).cloned().unwrap_or_default();
        let words = ["revision", "type", "service", "instance", "node", "to", "reason"].map(word);
        println!("{}", words.map(|word| word.to_string()).join(" "));
    }
    events
}

#[test]
fn a_starved_cluster_accuses_nobody() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (_a, _b, _) = all_well(&cluster).await;
        let jittery = cluster.follower().await;
        let (leader, _) = cluster.leader().await;
        let (heart, longest) = heart(&cluster).await;
        let revision = cluster.local(1).await.expect("a revision").revision;
        let asked = std::env::var("BATON_STARVE_SECS").ok().and_then(|seconds| seconds.parse().ok());
        let length = asked.map_or(STARVE, Duration::from_secs);

        let begin = Instant::now();
        let busy = Busy::start();
        // First a follower, then who led at first.
        for (victim, stops, until) in [(jittery, &STOPS[..], length / 2), (leader, &SHORT_STOPS[..], length)] {
            for stop in stops.iter().cycle() {
                cluster.signal(victim, Signal::STOP);
                tokio::time::sleep(Duration::from_millis(*stop)).await;
                cluster.signal(victim, Signal::CONT);
                tokio::time::sleep(RUNS).await;
                if begin.elapsed() >= until {
                    break;
                }
            }
        }
        drop(busy);
        println!("{:?} of overload, with nodes {jittery} and then {leader} stopping and going on", begin.elapsed());
        let longest = *longest.borrow();
        println!("the longest time between two heartbeats was {longest:?}");
        for id in cluster.ids() {
            cluster.ready(id).await;
        }
        let events = since(&cluster, 1, revision).await;
        for event in &events {
            let to = event["to"].as_str().unwrap_or_default();
            // Where this test's own thread got no time for its heartbeats, it is right that they are missed.
            let is_late = event["service"] == "hearts" && longest + BEAT >= MISSING;
            assert!(is_late || (to != "down" && to != "unhealthy"), "{event:#}");
            assert!(event["type"] != "active.changed", "{event:#}");
        }
        drop(heart);
        for instance in ["a", "b"] {
            cluster.health(jittery, "db", instance, "healthy").await;
        }
        cluster.active(jittery, "db", "a").await;
        cluster.same_state_everywhere().await;
    });
}

#[test]
fn a_node_that_stood_still_accuses_nobody_on_waking() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (_a, _b, mut revision) = all_well(&cluster).await;
        for led in [false, true] {
            let (leader, _) = cluster.leader().await;
            let victim = if led { leader } else { cluster.follower().await };
            let well = cluster.others(victim)[0];
            println!("node {victim} stands still for {STOPPED_FOR:?}; {}", if led { "it leads" } else { "it follows" });
            cluster.signal(victim, Signal::STOP);
            tokio::time::sleep(STOPPED_FOR).await;
            cluster.signal(victim, Signal::CONT);
            tokio::time::sleep(AWAKE_FOR).await;
            let events = since(&cluster, well, revision).await;
            for event in &events {
                let to = event["to"].as_str().unwrap_or_default();
                assert!(event["type"] != "verdict.changed" || !["suspect", "down"].contains(&to), "{event:#}");
                assert!(event["type"] != "active.changed", "{event:#}");
            }
            let lost = |kind: &str| events.iter().any(|event| event["type"] == kind && event["node"] == victim);
            assert!(lost("node.lost") && lost("node.back"), "it was counted out, and in again: {events:#?}");
            for instance in ["a", "b"] {
                until(SOON, &format!("node {victim} to see {instance} again"), async || {
                    let seen = cluster.health(victim, "db", instance, "healthy").await;
                    let mut verdicts = seen["verdicts"].as_array().into_iter().flatten();
                    let own = verdicts.any(|verdict| verdict["observer"] == victim && verdict["verdict"] == "up");
                    if own { Ok(()) } else { Err(seen["verdicts"].clone()) }
                })
                .await;
            }
            revision = cluster.local(well).await.expect("a revision").revision;
        }
        cluster.active(1, "db", "a").await;
        cluster.same_state_everywhere().await;
    });
}
