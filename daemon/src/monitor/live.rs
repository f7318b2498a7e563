//! The whole way on one node, for real: sockets, detectors, a proposal, a commit, health. What it costs is printed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use baton_core::command::{InstancePut, NodeAnnounce, ServicePut};
use baton_core::policy::{Check, CheckKind, Registration, Spec};
use baton_core::probe::Health;
use baton_core::time::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::consensus::{ConsensusConfig, Tuning};
use crate::reports::ProbeTally;
use crate::store::Store;

/// Answers 200 until it is dropped; then its port is closed, as after kill -9.
struct Server {
    task: JoinHandle<()>,
    address: String,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1_024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        Self { task, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn commit(consensus: &Consensus, command: Command) {
    let begin = Instant::now();
    loop {
        match consensus.propose(command.clone()).await {
            Ok(reply) => {
                reply.expect("nothing to refuse");
                return;
            }
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until(consensus: &Consensus, instance: &str, health: Health) -> Duration {
    let begin = Instant::now();
    let mut applied = consensus.reader().watch();
    loop {
        let view = consensus.reader().view();
        let found = view.state.instance(&"web".parse().expect("a name"), &instance.parse().expect("a name"));
        let found = found.expect("an instance");
        if found.health == health {
            return begin.elapsed();
        }
        let news = tokio::time::timeout(Duration::from_secs(20), applied.changed()).await;
        assert!(matches!(news, Ok(Ok(()))), "{instance} is still {}, not {health}: {:?}", found.health, found.verdicts);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_is_seen_agreed_and_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let opened = Store::open(dir.path(), 1).await.expect("a store");
    let peer_listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let peer = peer_listener.local_addr().expect("its address").to_string();
    let config = ConsensusConfig {
        members: BTreeMap::from([(1, peer.clone())]),
        peer_listener,
        tuning: Tuning { election_min_ms: 350, ..Tuning::default() },
    };
    let consensus = Consensus::start(config, opened).await.expect("consensus");
    let shutdown = CancellationToken::new();
    let probe = ProbeConfig::default();
    let monitor = tokio::spawn(run(1, probe, consensus.clone(), ProbeTally::default(), shutdown.clone()));

    let announce = NodeAnnounce { node: 1, api: peer.clone(), peer, version: "test".to_owned() };
    commit(&consensus, Command::NodeAnnounce(announce)).await;
    let check = Check { interval: Millis(500), fast_interval: Millis(100), ..Check::of(CheckKind::Http) };
    commit(
        &consensus,
        Command::ServicePut(ServicePut {
            service: "web".parse().expect("a name"),
            spec: Box::new(Spec { checks: vec![check], ..Spec::default() }),
            if_generation: None,
            actor: "test".to_owned(),
        }),
    )
    .await;
    let (well, dies) = (Server::start().await, Server::start().await);
    for (instance, server) in [("a", &well), ("b", &dies)] {
        commit(
            &consensus,
            Command::InstancePut(InstancePut {
                service: "web".parse().expect("a name"),
                instance: instance.parse().expect("a name"),
                registration: Box::new(Registration::at(Some(server.address.parse().expect("an address")))),
                session: String::new(),
                if_generation: None,
                actor: "test".to_owned(),
            }),
        )
        .await;
    }
    let up = until(&consensus, "a", Health::Healthy).await.max(until(&consensus, "b", Health::Healthy).await);
    drop(dies);
    let down = until(&consensus, "b", Health::Unhealthy).await;
    eprintln!(
        "healthy {up:?} after the registration; unhealthy {down:?} after the death (interval 500 ms, fast 100 ms, fall 3)"
    );
    let view = consensus.reader().view();
    let b = view.state.instance(&"web".parse().expect("a name"), &"b".parse().expect("a name")).expect("an instance");
    let evidence = &b.verdicts[&1].evidence;
    assert_eq!((evidence.streak, evidence.detail.as_str()), (3, "connection refused"));
    let age = evidence.first_failure_age.expect("a failing row");
    assert!((200..1_000).contains(&age.0), "three looks are two fast intervals apart, not {age}");
    until(&consensus, "a", Health::Healthy).await;

    shutdown.cancel();
    monitor.await.expect("the monitor ends");
    consensus.shutdown().await;
}
