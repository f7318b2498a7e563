//! Clusters of real daemons: one, three or five of them on loopback, or one in each host of a namespace network.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::http::Api;
use super::netns::{Host, Lan};
use super::process::{BATON, Process, clean};
use super::{SOON, ports, until, when};

/// Starts of a whole cluster before giving up: another process may take a port between the choice and the bind.
const STARTS: usize = 3;
/// Time for one request of the helpers here, which ask again.
const ASK: Duration = Duration::from_secs(3);

/// One place of the cluster: it keeps its identity and data while processes come and go.
pub(crate) struct Node {
    /// Its Raft id.
    pub(crate) id: u64,
    /// Where its API listens.
    pub(crate) listen: SocketAddr,
    /// Where its peers reach it.
    pub(crate) peer: SocketAddr,
    /// Its data directory.
    pub(crate) data: PathBuf,
    /// Its API.
    pub(crate) api: Api,
    log: PathBuf,
    namespace: Option<String>,
    /// What it finds in its environment.
    env: Vec<(String, String)>,
    process: Option<Process>,
}

/// Nodes that know each other.
pub(crate) struct Cluster {
    nodes: Vec<Node>,
    // Behind `nodes`, so that the processes are gone before their directory is.
    dir: TempDir,
    /// The configuration file of every node, if they have one.
    config: Option<PathBuf>,
}

/// What a node says of itself in `GET /v1/cluster`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Local {
    /// The last log entry in its state.
    pub(crate) applied: u64,
    /// The last event in its state.
    pub(crate) revision: u64,
    /// A digest of its state.
    pub(crate) hash: String,
}

impl Cluster {
    /// `count` nodes on loopback, all ready.
    pub(crate) async fn start(count: u64) -> Self {
        Self::configured(count, None).await
    }

    /// `count` nodes on loopback, all ready, each with this TOML as its configuration file.
    pub(crate) async fn configured(count: u64, toml: Option<&str>) -> Self {
        for attempt in 1..=STARTS {
            let dir = tempfile::tempdir().expect("a temporary directory");
            let nodes = (1..=count).map(|id| Node::on_loopback(id, dir.path())).collect();
            let config = toml.map(|toml| {
                let path = dir.path().join("baton.toml");
                std::fs::write(&path, toml).expect("a file in a temporary directory");
                path
            });
            let mut cluster = Self { nodes, dir, config };
            cluster.start_all();
            match cluster.all_ready().await {
                Ok(()) => return cluster,
                Err(output) => {
                    let clash = output.to_lowercase().contains("address already in use")
                        || output.to_lowercase().contains("in use");
                    assert!(clash && attempt < STARTS, "a node ended while the cluster started:\n{output}");
                }
            }
        }
        unreachable!("the last attempt returned or failed the test")
    }

    /// One node in each of the first `count` hosts, all ready.
    pub(crate) async fn in_hosts(lan: &Lan, count: usize) -> Self {
        Self::in_hosts_with(lan, count, |_| Vec::new()).await
    }

    /// The same, each with this in its environment.
    pub(crate) async fn in_hosts_with(lan: &Lan, count: usize, env: impl Fn(u64) -> Vec<(String, String)>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let hosts = lan.hosts().iter().take(count);
        let node = |(host, id)| Node { env: env(id), ..Node::in_host(id, host, dir.path()) };
        let nodes = hosts.zip(1u64..).map(node).collect();
        let mut cluster = Self { nodes, dir, config: None };
        cluster.start_all();
        cluster.all_ready().await.unwrap_or_else(|output| panic!("a node ended while the cluster started:\n{output}"));
        cluster
    }

    fn start_all(&mut self) {
        for id in self.ids() {
            self.start_node(id);
        }
    }

    /// Waits until every node is ready; the output of one that ended instead.
    async fn all_ready(&mut self) -> Result<(), String> {
        for id in self.ids() {
            let node = self.node_mut(id);
            let outcome = until(SOON, &format!("node {id} to be ready"), async || {
                if let Some(process) = &mut node.process
                    && process.ended().is_some()
                {
                    return Ok(Err(process.output()));
                }
                node.api.call(reqwest::Method::GET, "/readyz").send(ASK).await.and_then(|answer| match answer.status {
                    200 => Ok(Ok(())),
                    status => Err(format!("{status} {}", answer.text)),
                })
            })
            .await;
            outcome?;
        }
        Ok(())
    }

    /// The line of DESIGN section 8 for this node, without the program's name.
    pub(crate) fn serve_args(&self, id: u64) -> Vec<String> {
        let members: Vec<String> = self.nodes.iter().map(|node| format!("{}={}", node.id, node.peer)).collect();
        let node = self.node(id);
        let mut args: Vec<String> = ["serve", "--node-id", &id.to_string(), "--data-dir"].map(str::to_owned).to_vec();
        args.push(node.data.display().to_string());
        args.extend(["--listen".to_owned(), node.listen.to_string()]);
        args.extend(["--peer-listen".to_owned(), node.peer.to_string()]);
        args.extend(["--initial-cluster".to_owned(), members.join(",")]);
        if let Some(config) = &self.config {
            args.extend(["--config".to_owned(), config.display().to_string()]);
        }
        if node.namespace.is_some() {
            args.push("--insecure".to_owned());
        }
        args
    }

    fn start_node(&mut self, id: u64) {
        let args = self.serve_args(id);
        let node = self.node_mut(id);
        let mut command = match &node.namespace {
            None => clean(BATON),
            Some(namespace) => in_namespace(namespace, BATON),
        };
        command.args(args).envs(node.env.iter().map(|(name, value)| (name, value)));
        node.process = Some(Process::start(&format!("node {id}"), command, &node.log));
    }

    /// The ids of the nodes.
    pub(crate) fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// One node.
    pub(crate) fn node(&self, id: u64) -> &Node {
        self.nodes.iter().find(|node| node.id == id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    fn node_mut(&mut self, id: u64) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// One node's API.
    pub(crate) fn api(&self, id: u64) -> &Api {
        &self.node(id).api
    }

    /// Where files of this cluster may lie: logs of servers, say.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill9(&mut self, id: u64) {
        if let Some(process) = &mut self.node_mut(id).process {
            process.kill9();
        }
    }

    /// kill -9 of all nodes, as near to at once as a loop can.
    pub(crate) fn kill9_all(&mut self) {
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process {
                process.signal(Signal::KILL);
            }
        }
        for id in self.ids() {
            self.kill9(id);
        }
    }

    /// Sends a node a signal: `STOP` and `CONT`, `TERM`.
    pub(crate) fn signal(&mut self, id: u64, signal: Signal) {
        if let Some(process) = &mut self.node_mut(id).process {
            process.signal(signal);
        }
    }

    /// A node's process, to be waited for.
    pub(crate) fn process(&mut self, id: u64) -> &mut Process {
        self.node_mut(id).process.as_mut().unwrap_or_else(|| panic!("node {id} was never started"))
    }

    /// Starts a killed node again, on the same data, and waits until it is ready.
    pub(crate) async fn restart(&mut self, id: u64) {
        self.start_node(id);
        self.ready(id).await;
    }

    /// Starts all nodes again, and waits until they are ready.
    pub(crate) async fn restart_all(&mut self) {
        self.start_all();
        self.all_ready().await.unwrap_or_else(|output| panic!("a node ended while the cluster restarted:\n{output}"));
    }

    /// Waits until a node is ready.
    pub(crate) async fn ready(&self, id: u64) {
        let api = self.api(id);
        until(SOON, &format!("node {id} to be ready"), async || {
            let answer = api.call(reqwest::Method::GET, "/readyz").send(ASK).await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text)) }
        })
        .await;
    }

    /// The leader and its term, as soon as every one of these nodes names the same living one.
    pub(crate) async fn leader_among(&self, ids: &[u64]) -> (u64, u64) {
        until(SOON, &format!("nodes {ids:?} to agree on a leader"), async || {
            let mut seen = Vec::new();
            for &id in ids {
                let answer = self.local_view(id).await?;
                seen.push((answer["leader"].as_u64(), answer["term"].as_u64()));
            }
            match seen.first() {
                Some(&(Some(leader), Some(term))) if seen.iter().all(|s| *s == seen[0]) && ids.contains(&leader) => {
                    Ok((leader, term))
                }
                Some(_) | None => Err(format!("{seen:?}")),
            }
        })
        .await
    }

    /// The leader and its term, as all nodes see it.
    pub(crate) async fn leader(&self) -> (u64, u64) {
        self.leader_among(&self.ids()).await
    }

    /// Some node that is not the leader.
    pub(crate) async fn follower(&self) -> u64 {
        let (leader, _) = self.leader().await;
        self.ids().into_iter().find(|id| *id != leader).expect("a cluster of more than one")
    }

    /// The nodes but this one.
    pub(crate) fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// `GET /v1/cluster` from a node's own copy.
    async fn local_view(&self, id: u64) -> Result<Value, String> {
        let path = "/v1/cluster?consistency=stale";
        let answer = self.api(id).call(reqwest::Method::GET, path).send(ASK).await?;
        if answer.status == 200 { Ok(answer.json) } else { Err(format!("{} {}", answer.status, answer.text)) }
    }

    /// What a node says of its own copy.
    pub(crate) async fn local(&self, id: u64) -> Result<Local, String> {
        let view = self.local_view(id).await?;
        let local = &view["local"];
        let read = || {
            Some(Local {
                applied: local["applied_index"].as_u64()?,
                revision: local["revision"].as_u64()?,
                hash: local["state_hash"].as_str()?.to_owned(),
            })
        };
        read().ok_or_else(|| format!("node {id}: no applied_index, revision, state_hash in {view}"))
    }

    /// Waits until all nodes have applied the same; their states must then be equal to the last bit.
    pub(crate) async fn same_state_everywhere(&self) -> Local {
        let all = until(SOON, "all nodes to have applied the same index", async || {
            let mut all = Vec::new();
            for id in self.ids() {
                all.push(self.local(id).await?);
            }
            let even = all.iter().all(|local| local.applied == all[0].applied);
            when(even, all).map_err(|all| format!("{all:?}"))
        })
        .await;
        for (local, id) in all.iter().zip(self.ids()) {
            assert_eq!(*local, all[0], "node {id} differs from node {}: {all:?}", self.nodes[0].id);
        }
        all[0].clone()
    }

    /// Waits until the service has an active, as this node answers it; the answer.
    pub(crate) async fn active(&self, node: u64, service: &str, instance: &str) -> Value {
        let path = format!("/v1/services/{service}/active");
        until(SOON, &format!("{instance} to be the active of {service} on node {node}"), async || {
            let answer = self.api(node).call(reqwest::Method::GET, &path).send(ASK).await?;
            when(answer.status == 200 && answer.json["instance"] == instance, answer)
                .map(|answer| answer.json)
                .map_err(|answer| format!("{} {}", answer.status, answer.text))
        })
        .await
    }

    /// Waits until an instance's health is this, as this node answers it; the instance.
    pub(crate) async fn health(&self, node: u64, service: &str, instance: &str, health: &str) -> Value {
        let path = format!("/v1/services/{service}/instances/{instance}");
        until(SOON, &format!("{service}/{instance} to be {health} on node {node}"), async || {
            let answer = self.api(node).call(reqwest::Method::GET, &path).send(ASK).await?;
            when(answer.status == 200 && answer.json["health"] == health, answer)
                .map(|answer| answer.json)
                .map_err(|answer| format!("{} {}", answer.status, answer.text))
        })
        .await
    }
}

impl Node {
    fn on_loopback(id: u64, dir: &Path) -> Self {
        let listen = ports::free();
        let api = Api::new(format!("http://{listen}"), None);
        let (data, log) = (dir.join(format!("node{id}")), dir.join(format!("node{id}.log")));
        Self { id, listen, peer: ports::free(), data, api, log, namespace: None, env: Vec::new(), process: None }
    }

    fn in_host(id: u64, host: &Host, dir: &Path) -> Self {
        let (listen, peer) = (SocketAddr::from((host.address, 7400)), SocketAddr::from((host.address, 7401)));
        let api = Api::new(format!("http://{listen}"), Some(host.runtime()));
        let (data, log) = (dir.join(format!("node{id}")), dir.join(format!("node{id}.log")));
        let namespace = Some(host.name.clone());
        Self { id, listen, peer, data, api, log, namespace, env: Vec::new(), process: None }
    }
}

/// A command that runs inside a network namespace. `ip netns exec` becomes the program, so its pid is the program's.
pub(crate) fn in_namespace(namespace: &str, program: &str) -> Command {
    let mut command = clean("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}
