//! Three nodes in one process, on loopback ports of their own. Waiting is on watch channels with deadlines, never for a
//! length of time.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::command::{Done, InstancePut, ServicePut};
use baton_core::policy::{Registration, Spec};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::store::Store;

/// Far longer than anything here takes on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

struct Node {
    id: NodeId,
    dir: TempDir,
    consensus: Option<Consensus>,
}

impl Node {
    fn consensus(&self) -> &Consensus {
        self.consensus.as_ref().expect("runs")
    }

    fn reader(&self) -> &StateReader {
        self.consensus().reader()
    }

    async fn stop(&mut self) {
        if let Some(consensus) = self.consensus.take() {
            consensus.shutdown().await;
        }
    }

    fn hash(&self) -> String {
        self.reader().view().state.hash().expect("hashes")
    }

    async fn applied(&self, index: u64) {
        let mut applied = self.reader().watch();
        timeout(SOON, applied.wait_for(|at| *at >= index)).await.expect("in time").expect("runs");
    }
}

struct Cluster {
    nodes: Vec<Node>,
    members: BTreeMap<NodeId, String>,
    tuning: Tuning,
}

impl Cluster {
    async fn start(size: NodeId, tuning: Tuning) -> Self {
        let mut listeners = Vec::new();
        let mut members = BTreeMap::new();
        for id in 1..=size {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
            members.insert(id, listener.local_addr().expect("bound").to_string());
            listeners.push((id, listener));
        }
        let mut cluster = Self { nodes: Vec::new(), members, tuning };
        for (id, listener) in listeners {
            cluster.nodes.push(Node { id, dir: tempfile::tempdir().expect("a directory"), consensus: None });
            cluster.run(id, listener).await;
        }
        cluster
    }

    async fn run(&mut self, id: NodeId, peer_listener: TcpListener) {
        let (members, tuning) = (self.members.clone(), self.tuning.clone());
        let node = self.node_mut(id);
        let opened = Store::open(node.dir.path(), id).await.expect("opens");
        let config = ConsensusConfig { members, peer_listener, tuning };
        node.consensus = Some(Consensus::start(config, opened).await.expect("starts"));
    }

    /// Starts a stopped node again, at its old address.
    async fn restart(&mut self, id: NodeId) {
        let listener = TcpListener::bind(&self.members[&id]).await.expect("the port is free again");
        self.run(id, listener).await;
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("a node")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.id == id).expect("a node")
    }

    fn running(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.consensus.is_some())
    }

    /// The leader as every running node sees it.
    async fn leader(&self) -> NodeId {
        timeout(SOON, async {
            loop {
                for node in self.running() {
                    let mut leadership = node.consensus().leadership();
                    leadership.wait_for(|seen| seen.leader.is_some()).await.expect("runs");
                }
                let seen: Vec<_> = self.running().map(|node| node.consensus().leadership().borrow().clone()).collect();
                let leader = seen[0].leader;
                let known = self.running().any(|node| Some(node.id) == leader);
                if known && seen.iter().all(|one| one.leader == leader) && seen.iter().any(|one| one.is_leader) {
                    return leader.expect("known");
                }
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a leader")
    }

    async fn follower(&self) -> NodeId {
        let leader = self.leader().await;
        self.running().map(|node| node.id).find(|id| *id != leader).expect("a follower")
    }
}

fn service_put(name: &str) -> Command {
    Command::ServicePut(ServicePut {
        service: name.parse().expect("a name"),
        spec: Box::new(Spec::default()),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

fn instance_put(instance: &str) -> Command {
    Command::InstancePut(InstancePut {
        service: "orders".parse().expect("a name"),
        instance: instance.parse().expect("a name"),
        registration: Box::new(Registration::at("127.0.0.1:80".parse().ok())),
        session: String::new(),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

fn has(node: &Node, instance: &str) -> bool {
    let (service, instance) = ("orders".parse().expect("a name"), instance.parse().expect("a name"));
    node.reader().view().state.instance(&service, &instance).is_some()
}

/// Proposes until it is surely done: what a client does when it is told that nothing, or nobody knows what, was changed.
async fn insist(node: &Node, command: Command) -> Reply {
    timeout(SOON, async {
        loop {
            match node.consensus().propose(command.clone()).await {
                Ok(reply) => return reply,
                Err(ProposeError::NoLeader | ProposeError::Unknown | ProposeError::Overloaded) => {}
                Err(error @ (ProposeError::Stopped | ProposeError::Unencodable)) => panic!("{error}"),
            }
        }
    })
    .await
    .expect("done in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn any_node_takes_writes_and_every_node_reads_them() {
    let mut cluster = Cluster::start(3, Tuning::default()).await;
    let follower = cluster.follower().await;
    let leader = cluster.leader().await;
    let other = (1..=3).find(|id| *id != leader && *id != follower).expect("a third");

    let reply = insist(cluster.node(follower), service_put("orders")).await;
    assert!(matches!(reply, Ok(Done::Stored { created: true, .. })), "{reply:?}");
    // The node that answers knows what it answers.
    assert!(cluster.node(follower).reader().view().state.service(&"orders".parse().expect("a name")).is_some());

    for (place, instance) in ["a", "b", "c", "d", "e", "f"].into_iter().enumerate() {
        let writer = [follower, leader, other][place % 3];
        let reader = [other, follower, leader][place % 3];
        insist(cluster.node(writer), instance_put(instance)).await.expect("accepted");
        cluster.node(reader).consensus().barrier().await.expect("a quorum");
        assert!(has(cluster.node(reader), instance), "{instance} on node {reader}");
    }

    // Many at once, from everywhere, become few entries and lose none.
    let before = cluster.node(leader).reader().view().applied_index;
    let proposals = (0..300).map(|number| {
        let consensus = cluster.node(1 + number % 3).consensus().clone();
        tokio::spawn(async move { consensus.propose(instance_put(&format!("many-{number}"))).await })
    });
    for proposal in proposals.collect::<Vec<_>>() {
        proposal.await.expect("ends").expect("answered").expect("accepted");
    }
    let after = cluster.node(leader).reader().view().applied_index;
    assert!(after - before < 250, "300 commands made {} entries", after - before);

    for node in cluster.running() {
        node.consensus().barrier().await.expect("a quorum");
        assert!((0..300).all(|number| has(node, &format!("many-{number}"))));
        assert!(node.consensus().staleness().expect("heard") < SOON);
        assert!(!node.reader().view().state.meta.cluster_id.is_empty(), "the first leader names the cluster");
        let status = node.consensus().status();
        assert_eq!(status.leader, Some(leader));
        assert_eq!(status.members.len(), 3);
        let knows = status.members.iter().all(|member| member.last_contact.is_some());
        assert_eq!(knows, node.id == leader, "{status:?}");
    }
    let hashes: Vec<String> = cluster.running().map(Node::hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]));
    let events = async |node: &Node| {
        let found = node.reader().events().after(0, 1_000).await.expect("there");
        found.iter().map(|event| (event.revision, event.json.clone())).collect::<Vec<_>>()
    };
    assert_eq!(events(cluster.node(1)).await, events(cluster.node(2)).await);

    for node in &mut cluster.nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_leader_is_succeeded_and_comes_back() {
    let mut cluster = Cluster::start(3, Tuning::default()).await;
    let old = cluster.leader().await;
    insist(cluster.node(old), service_put("orders")).await.expect("accepted");
    let before = cluster.node(old).consensus().now().time;
    cluster.node_mut(old).stop().await;

    let survivor = cluster.running().next().expect("two are left").id;
    insist(cluster.node(survivor), instance_put("after")).await.expect("accepted");
    let new = cluster.leader().await;
    assert_ne!(new, old);
    assert!(cluster.node(new).consensus().now().time >= before, "cluster time does not go back");

    cluster.restart(old).await;
    cluster.node(old).consensus().barrier().await.expect("a quorum");
    assert!(has(cluster.node(old), "after"));

    // Without a quorum nothing is answered, and soon.
    let rest: Vec<NodeId> = cluster.nodes.iter().map(|node| node.id).filter(|id| *id != new).collect();
    for id in rest {
        cluster.node_mut(id).stop().await;
    }
    let asked = Instant::now();
    cluster.node(new).consensus().barrier().await.expect_err("no quorum");
    let read_took = asked.elapsed();
    let asked = Instant::now();
    cluster.node(new).consensus().propose(instance_put("lost")).await.expect_err("no quorum");
    assert!(read_took.max(asked.elapsed()) < Duration::from_secs(4), "it gives up in time");
    cluster.node_mut(new).stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_for_long_gets_a_snapshot() {
    let tuning = Tuning { snapshot_every: 20, keep_behind_snapshot: 1, ..Tuning::default() };
    let mut cluster = Cluster::start(3, tuning).await;
    let leader = cluster.leader().await;
    let away = cluster.follower().await;
    insist(cluster.node(leader), service_put("orders")).await.expect("accepted");
    cluster.node_mut(away).stop().await;
    for number in 0..80 {
        insist(cluster.node(leader), instance_put(&format!("i-{number}"))).await.expect("accepted");
    }
    let (reached, gone) = {
        let node = cluster.node(leader);
        let purged = timeout(SOON, async {
            loop {
                if let Some(purged) = node.consensus().status().purged_index
                    && purged > 30
                {
                    return purged;
                }
                tokio::task::yield_now().await;
            }
        });
        let purged = purged.await.expect("the log is purged behind a snapshot");
        (node.reader().view().applied_index, purged)
    };

    cluster.restart(away).await;
    assert!(cluster.node(away).reader().view().applied_index < gone, "it needs what nobody has in the log");
    let everything = cluster.node(away).reader().changes();
    cluster.node(away).applied(reached).await;
    assert!(has(cluster.node(away), "i-79"));
    drop(everything);
    cluster.node(away).consensus().barrier().await.expect("a quorum");
    cluster.node(leader).consensus().barrier().await.expect("a quorum");
    assert_eq!(cluster.node(away).hash(), cluster.node(leader).hash());

    // And once more from its own disk.
    cluster.node_mut(away).stop().await;
    cluster.restart(away).await;
    cluster.node(away).consensus().barrier().await.expect("a quorum");
    assert_eq!(cluster.node(away).hash(), cluster.node(leader).hash());
    for node in &mut cluster.nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_of_one_works_and_remembers() {
    let mut cluster = Cluster::start(1, Tuning::default()).await;
    insist(cluster.node(1), service_put("orders")).await.expect("accepted");
    insist(cluster.node(1), instance_put("a")).await.expect("accepted");
    cluster.node(1).consensus().barrier().await.expect("its own quorum");
    assert_eq!(cluster.node(1).consensus().staleness(), Some(Duration::ZERO));
    let hash = cluster.node(1).hash();
    cluster.node_mut(1).stop().await;
    cluster.restart(1).await;
    timeout(SOON, cluster.node(1).consensus().leadership().wait_for(|seen| seen.is_leader))
        .await
        .expect("in time")
        .expect("runs");
    assert_eq!(cluster.node(1).hash(), hash);
    cluster.node_mut(1).stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let mut cluster = Cluster::start(1, Tuning::default()).await;
    cluster.leader().await;
    let address = cluster.members[&1].clone();
    let client = reqwest::Client::new();
    let url = format!("http://{address}{}", peers::paths::VOTE);
    let ask = |protocol: &'static str, to: &'static str, cluster: &'static str| {
        let request = client.post(&url).header("baton-protocol", protocol).header("baton-to", to);
        request.header("baton-from", "2").header("baton-cluster", cluster).body("{}").send()
    };
    let text = async |answer: reqwest::Response| (answer.status().as_u16(), answer.text().await.expect("text"));
    let (status, why) = text(ask("99", "1", "").await.expect("answered")).await;
    assert_eq!(status, 421);
    assert!(why.contains("version 1") && why.contains("\"99\""), "{why}");
    let (status, why) = text(ask("1", "3", "").await.expect("answered")).await;
    assert_eq!(status, 421);
    assert!(why.contains("this is node 1"), "{why}");
    insist(cluster.node(1), service_put("orders")).await.expect("accepted");
    timeout(SOON, async {
        while cluster.node(1).reader().view().state.meta.cluster_id.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("named");
    let (status, why) = text(ask("1", "1", "another").await.expect("answered")).await;
    assert_eq!(status, 421);
    assert!(why.contains("another"), "{why}");
    cluster.node_mut(1).stop().await;
}

/// Answers with who it is, who asks, and what.
struct Echo(NodeId);

impl Answers for Echo {
    fn answer(&self, from: NodeId, kind: &str, body: Bytes) -> futures_util::future::BoxFuture<'static, Option<Bytes>> {
        let told = format!("{} heard {from}: {kind} {}", self.0, String::from_utf8_lossy(&body));
        let known = kind == "echo";
        Box::pin(async move { known.then(|| told.into()) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_asked_the_leader_answers() {
    let mut cluster = Cluster::start(3, Tuning::default()).await;
    let (follower, leader) = (cluster.follower().await, cluster.leader().await);
    let ask = |node: &Node, kind| {
        let consensus = node.consensus().clone();
        async move { consensus.ask_leader(kind, Bytes::from_static(b"hello")).await }
    };
    assert_eq!(ask(cluster.node(leader), "echo").await, Err(AskError::Moved), "nobody answers yet");
    for node in cluster.running() {
        node.consensus().answer_asks(Arc::new(Echo(node.id)));
    }
    for id in [leader, follower] {
        let told = ask(cluster.node(id), "echo").await.expect("answered");
        assert_eq!(told, format!("{leader} heard {id}: echo hello"));
        assert_eq!(ask(cluster.node(id), "riddle").await, Err(AskError::Moved), "a kind that is not known");
    }
    let long = cluster.node(follower).consensus().ask_leader("echo", vec![0; ASK_BYTES_MAX + 1].into()).await;
    assert_eq!(long, Err(AskError::TooLong));

    // The next leader answers as soon as it may, and one that hears no quorum does not.
    cluster.node_mut(leader).stop().await;
    let heir = cluster.leader().await;
    let survivor = cluster.running().map(|node| node.id).find(|id| *id != heir).expect("two are left");
    let told = timeout(SOON, async {
        loop {
            if let Ok(told) = ask(cluster.node(survivor), "echo").await {
                return told;
            }
        }
    });
    assert_eq!(told.await.expect("in time"), format!("{heir} heard {survivor}: echo hello"));
    cluster.node_mut(survivor).stop().await;
    timeout(SOON, async { while ask(cluster.node(heir), "echo").await.is_ok() {} }).await.expect("it gives up in time");
    cluster.node_mut(heir).stop().await;
}
