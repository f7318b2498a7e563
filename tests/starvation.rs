//! The machine is overloaded, or a daemon stands still and goes on: nobody is accused for that.
//!
//! `BATON_STARVE_SECS` sets how long the overload lasts; a minute is what is promised, ten seconds are what each run of
//! the suite can spare. `just starve` runs the whole minute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::cluster::Cluster;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario, until};

/// How long the overload lasts unless told otherwise.
const STARVE: Duration = Duration::from_secs(10);
/// Lengths of stops of one daemon meanwhile, in milliseconds: below and above what makes it distrust its own looks.
const STOPS: [u64; 6] = [40, 250, 120, 700, 90, 400];
/// How long it runs between them.
const RUNS: Duration = Duration::from_millis(300);
/// How long a daemon stands still.
const STOPPED_FOR: Duration = Duration::from_secs(10);
/// How long it must not accuse anybody after it woke.
const AWAKE_FOR: Duration = Duration::from_secs(5);

/// Threads that do nothing, as fast as they can.
struct Busy {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    /// Twice as many as there are cores.
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
        let threads = (0..2 * cores).map(spin).collect();
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
        println!("{} {} {} {} {}", event["revision"], event["type"], event["node"], event["to"], event["reason"]);
    }
    events
}

#[test]
fn a_starved_cluster_accuses_nobody() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let (_a, _b, revision) = all_well(&cluster).await;
        let jittery = cluster.follower().await;
        let asked = std::env::var("BATON_STARVE_SECS").ok().and_then(|seconds| seconds.parse().ok());
        let length = asked.map_or(STARVE, Duration::from_secs);

        let begin = Instant::now();
        let busy = Busy::start();
        for stop in STOPS.into_iter().cycle() {
            cluster.signal(jittery, Signal::STOP);
            tokio::time::sleep(Duration::from_millis(stop)).await;
            cluster.signal(jittery, Signal::CONT);
            tokio::time::sleep(RUNS).await;
            if begin.elapsed() >= length {
                break;
            }
        }
        drop(busy);
        println!("{:?} of overload, with node {jittery} stopping and going on", begin.elapsed());
        for id in cluster.ids() {
            cluster.ready(id).await;
        }
        let events = since(&cluster, 1, revision).await;
        for event in &events {
            assert!(event["to"] != "down" && event["to"] != "unhealthy", "{event:#}");
            assert!(event["type"] != "active.changed", "{event:#}");
        }
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
