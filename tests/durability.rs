//! What was acknowledged is there: after the leader was killed again and again, after everybody was killed at once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::cluster::Cluster;
use crate::support::http::Api;
use crate::support::process::baton;
use crate::support::{Load, SOON, ports, scenario, until, when};

/// Clients that write at the same time.
const CLIENTS: usize = 8;
/// Time between two writes of one client: enough of them to be caught in the act, not so many that reading takes long.
const PACE: Duration = Duration::from_millis(20);
/// How often the leader is killed.
const ROUNDS: usize = 5;
/// Time for one write; the client asks again, at another node.
const WRITE: Duration = Duration::from_secs(4);

/// Clients that register instances until told to stop.
struct Clients {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: JoinSet<Vec<String>>,
}

impl Clients {
    /// Starts them. Nothing is probed: the service has no checks.
    async fn start(cluster: &Cluster) -> Self {
        let apis: Vec<Api> = cluster.ids().into_iter().map(|id| cluster.api(id).clone()).collect();
        apis[0].put("/v1/services/fleet", &json!({"mode": "active_active"})).await.done();
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            tasks.spawn(write_on(client, apis.clone(), stop.clone(), acknowledged.clone()));
        }
        Self { stop, acknowledged, tasks }
    }

    /// Waits until so many more writes were acknowledged.
    async fn progress(&self, more: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + more;
        until(SOON, &format!("{goal} acknowledged writes"), async || {
            let count = self.acknowledged.load(Ordering::Relaxed);
            when(count >= goal, count)
        })
        .await;
    }

    /// Ends them; every id that was acknowledged.
    async fn stop(self) -> BTreeSet<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().flatten().collect()
    }
}

/// One client: registers `w<client>-1`, `-2`, ... each until some node acknowledges it, and remembers those.
async fn write_on(client: usize, apis: Vec<Api>, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut node = client;
    for number in 1.. {
        let id = format!("w{client}-{number}");
        let body = json!({"address": "127.0.0.1:9", "metadata": {"written-by": client.to_string()}});
        loop {
            if stop.load(Ordering::Relaxed) {
                return acknowledged;
            }
            let path = format!("/v1/services/fleet/instances/{id}");
            let answer = apis[node % apis.len()].call(Method::PUT, &path).json(&body).send(WRITE).await;
            match answer {
                Ok(answer) if matches!(answer.status, 200 | 201) => break,
                // No quorum, no leader, overloaded: unknown or refused, to be asked again elsewhere.
                Ok(answer) => assert_eq!(answer.status, 503, "a write is done, or not now: {}", answer.text),
                Err(_) => {}
            }
            node += 1;
            tokio::time::sleep(PACE).await;
        }
        acknowledged.push(id);
        count.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(PACE).await;
    }
    unreachable!("numbers do not end")
}

/// Every acknowledged write is on every node, in linearizable reads and in its own copy, and the copies are equal.
async fn nothing_is_lost(cluster: &Cluster, acknowledged: &BTreeSet<String>) {
    let ids = |items: Vec<Value>| -> BTreeSet<String> {
        items.iter().map(|item| item["id"].as_str().unwrap_or_else(|| panic!("no id in {item}")).to_owned()).collect()
    };
    for node in cluster.ids() {
        let there = ids(cluster.api(node).all("/v1/services/fleet/instances").await);
        let lost: Vec<&String> = acknowledged.difference(&there).collect();
        assert!(lost.is_empty(), "node {node} has lost {} of {}: {lost:?}", lost.len(), acknowledged.len());
    }
    let state = cluster.same_state_everywhere().await;
    for node in cluster.ids() {
        let there = ids(cluster.api(node).all("/v1/services/fleet/instances?consistency=stale").await);
        assert!(acknowledged.is_subset(&there), "node {node}'s own copy lacks something");
    }
    println!("{} acknowledged writes on all nodes, {state:?}", acknowledged.len());
}

#[test]
fn killing_the_leader_again_and_again_loses_nothing_acknowledged() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let clients = Clients::start(&cluster).await;
        for round in 1..=ROUNDS {
            clients.progress(50).await;
            let (leader, term) = cluster.leader().await;
            let killed = Instant::now();
            cluster.kill9(leader);
            clients.progress(1).await;
            let (next, later) = cluster.leader_among(&cluster.others(leader)).await;
            println!(
                "round {round}: leader {leader} of term {term} was killed; {next} leads in term {later}; {:?} to agree",
                killed.elapsed()
            );
            assert!(later > term && next != leader);
            cluster.restart(leader).await;
        }
        clients.progress(50).await;
        let acknowledged = clients.stop().await;
        nothing_is_lost(&cluster, &acknowledged).await;
    });
}

#[test]
fn killing_every_node_at_once_loses_nothing_acknowledged() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let clients = Clients::start(&cluster).await;
        for _ in 1..=2 {
            clients.progress(100).await;
            cluster.kill9_all();
            cluster.restart_all().await;
        }
        clients.progress(20).await;
        let acknowledged = clients.stop().await;
        nothing_is_lost(&cluster, &acknowledged).await;

        // The history is one and the same on all nodes, from its first event, without a hole.
        let all = cluster.api(1).all("/v1/events?after=0").await;
        for (event, revision) in all.iter().zip(1u64..) {
            assert_eq!(event["revision"].as_u64(), Some(revision), "{event}");
        }
        for node in [2, 3] {
            assert!(
                cluster.api(node).all("/v1/events?after=0").await.starts_with(&all),
                "node {node} tells another story"
            );
        }
    });
}

#[test]
fn a_lone_node_comes_back_with_all_it_had() {
    scenario(Load::Light, async {
        let mut cluster = Cluster::start(1).await;
        let clients = Clients::start(&cluster).await;
        for _ in 1..=2 {
            clients.progress(100).await;
            cluster.kill9(1);
            cluster.restart(1).await;
        }
        clients.progress(20).await;
        let acknowledged = clients.stop().await;
        nothing_is_lost(&cluster, &acknowledged).await;
        // And after being asked to end, which it does well.
        cluster.signal(1, Signal::TERM);
        let status = cluster.process(1).end(SOON).await;
        assert_eq!(status.code(), Some(0), "SIGTERM drains and exits 0");
        cluster.restart(1).await;
        nothing_is_lost(&cluster, &acknowledged).await;
    });
}

#[test]
fn a_second_process_on_one_data_directory_is_refused() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let mut args = cluster.serve_args(1);
        for flag in ["--listen", "--peer-listen"] {
            let at = args.iter().position(|arg| arg == flag).expect("a flag of the serve line") + 1;
            args[at] = ports::free().to_string();
        }
        let at = args.iter().position(|arg| arg == "--initial-cluster").expect("a flag of the serve line") + 1;
        let peer = args.iter().position(|arg| arg == "--peer-listen").expect("a flag of the serve line") + 1;
        args[at] = format!("1={}", args[peer]);

        let second = baton(&args).await;
        assert!(second.code.is_some_and(|code| code != 0), "{:?} {}", second.code, second.stderr);
        let data = cluster.node(1).data.display().to_string();
        assert!(second.stderr.contains(&data), "the message names the directory: {}", second.stderr);
        assert!(second.stderr.lines().count() < 10, "a message, not a backtrace: {}", second.stderr);
        // The first one did not notice.
        cluster.api(1).put("/v1/services/still-here", &json!({})).await.done();
    });
}

#[test]
fn a_leader_that_was_frozen_finds_the_others_ahead_and_follows() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let clients = Clients::start(&cluster).await;
        clients.progress(50).await;
        let (leader, term) = cluster.leader().await;
        cluster.signal(leader, Signal::STOP);
        let (next, _) = cluster.leader_among(&cluster.others(leader)).await;
        clients.progress(50).await;
        cluster.signal(leader, Signal::CONT);
        cluster.ready(leader).await;
        let (_, later) = cluster.leader().await;
        assert!(next != leader && later > term, "{next} leads in term {later}, after {leader} in term {term}");
        let acknowledged = clients.stop().await;
        nothing_is_lost(&cluster, &acknowledged).await;
    });
}
