//! What stands on the stage: three nodes, three example servers, a client of the cluster; and the few gestures that the
//! script is made of: start, kill, wait until. In which order is the script's business.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_client::view::ClusterView;
use baton_client::{Client, ClientError};
use baton_core::id::{InstanceId, NodeId, ServiceName};

use super::DemoError;
use super::calls::Calls;
use super::children::{Child, TempDir, free_ports, log_tails};
use super::feed::Feed;
use super::narrator::Narrator;
use super::summary::Report;

/// Time from one look to the next while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// A node of the cluster.
#[derive(Debug)]
pub(super) struct Node {
    /// Its number.
    pub(super) id: NodeId,
    /// Its API, as `http://host:port`.
    pub(super) api: String,
    /// A client that asks this node and no other.
    pub(super) client: Client,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

/// An example server.
#[derive(Debug)]
pub(super) struct Server {
    /// Its id as an instance.
    pub(super) id: InstanceId,
    /// Where it listens.
    pub(super) address: String,
    /// Its priority: the higher one is preferred.
    pub(super) priority: u32,
    /// Its nature, in a few words.
    pub(super) nature: &'static str,
    arguments: Vec<OsString>,
    log: PathBuf,
    child: Option<Child>,
}

/// The stage. Its fields are dropped in their order: those who ask before those who answer, the directory last.
#[derive(Debug)]
pub(super) struct Stage {
    /// The one who speaks.
    pub(super) narrator: Arc<Narrator>,
    /// The client that calls the active, once it does.
    pub(super) calls: Option<Calls>,
    /// The events, once they are followed.
    pub(super) feed: Option<Feed>,
    /// The servers, by falling priority.
    pub(super) servers: Vec<Server>,
    /// The nodes, by number.
    pub(super) nodes: Vec<Node>,
    /// A client of the whole cluster.
    pub(super) baton: Client,
    report: Report,
    dir: TempDir,
}

fn io(what: &str) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = what.to_owned();
    move |source| DemoError::Io { what, source }
}

/// Says what was asked when a request failed.
pub(super) fn asking(what: &str) -> impl FnOnce(ClientError) -> DemoError {
    let what = what.to_owned();
    move |source| DemoError::Client { what, source }
}

fn arguments(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

/// A name that this source spells itself.
fn name<T: std::str::FromStr>(text: &str) -> Result<T, DemoError> {
    text.parse().map_err(|_| DemoError::Wrong { what: format!("\"{text}\" is not a name") })
}

impl Stage {
    /// Prepares everything and starts nothing.
    pub(super) fn new(narrator: Arc<Narrator>) -> Result<Self, DemoError> {
        let dir = TempDir::new().map_err(io("making a temporary directory"))?;
        let ports = free_ports(9)?;
        let [a1, a2, a3, p1, p2, p3, s1, s2, s3] = ports[..] else {
            return Err(DemoError::Wrong { what: "nine ports were asked for and others came".to_owned() });
        };
        let peers = format!("1=127.0.0.1:{p1},2=127.0.0.1:{p2},3=127.0.0.1:{p3}");
        let nodes = [(1, a1, p1), (2, a2, p2), (3, a3, p3)]
            .into_iter()
            .map(|(id, api, peer)| node(id, api, peer, &peers, dir.path()))
            .collect::<Result<Vec<_>, _>>()?;
        let baton = Client::new(nodes.iter().map(|node| &node.api)).map_err(asking("making a client"))?;
        let servers = [
            (
                "alpha",
                s1,
                300,
                "breaks after 100 calls, for 10 s",
                &["--fail-after", "100", "--fail-duration", "10s"][..],
            ),
            ("beta", s2, 200, "fails a tenth of its calls, its health check is well", &["--fail-rate", "0.1"][..]),
            ("gamma", s3, 100, "is well", &[][..]),
        ]
        .into_iter()
        .map(|(id, port, priority, nature, faults)| server(id, port, priority, nature, faults, dir.path()))
        .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { narrator, calls: None, feed: None, servers, nodes, baton, report: Report::default(), dir })
    }

    /// The name of the service of the play.
    pub(super) fn service(&self) -> Result<ServiceName, DemoError> {
        name("greet")
    }

    /// The name of the service that is written to while the leader dies.
    pub(super) fn ledger(&self) -> Result<ServiceName, DemoError> {
        name("ledger")
    }

    /// The id of the ledger's entry of a number.
    pub(super) fn entry(&self, number: usize) -> Result<InstanceId, DemoError> {
        name(&format!("entry-{number}"))
    }

    /// What held and what did not.
    pub(super) fn report(&self) -> &Report {
        &self.report
    }

    /// What held and what did not, to be completed.
    pub(super) fn report_mut(&mut self) -> &mut Report {
        &mut self.report
    }

    /// Notes whether something held, and says it.
    pub(super) fn expect(&mut self, what: &str, held: bool, measured: &str) {
        self.narrator.verdict(held, &if measured.is_empty() { what.to_owned() } else { format!("{what}: {measured}") });
        self.report.note(what, held, measured);
    }

    /// The feed, which every act after the first has.
    pub(super) fn feed(&self) -> Result<&Feed, DemoError> {
        self.feed.as_ref().ok_or_else(|| DemoError::Wrong { what: "nobody follows the events".to_owned() })
    }

    /// The calls, which every act after the second has.
    pub(super) fn calls(&self) -> Result<&Calls, DemoError> {
        self.calls.as_ref().ok_or_else(|| DemoError::Wrong { what: "nobody calls".to_owned() })
    }

    /// The ends of all logs.
    pub(super) fn log_tails(&self) -> Vec<(String, String)> {
        log_tails(self.dir.path())
    }

    /// Where the logs are.
    pub(super) fn directory(&self) -> &Path {
        self.dir.path()
    }

    /// Looks again and again until there is something to see; an error if it takes too long or a process ends meanwhile.
    pub(super) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut look: impl AsyncFnMut(&Self) -> Option<T>,
    ) -> Result<T, DemoError> {
        let began = Instant::now();
        loop {
            if let Some(found) = look(self).await {
                return Ok(found);
            }
            self.all_run()?;
            if began.elapsed() >= limit {
                return Err(DemoError::Deadline { what: what.to_owned(), limit });
            }
            // Once there are calls, the line at the bottom is theirs.
            if self.calls.is_none() {
                self.narrator.live(&format!("waiting for {what}"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// An error if a process has ended though nobody killed it.
    pub(super) fn all_run(&mut self) -> Result<(), DemoError> {
        let children = self.nodes.iter_mut().map(|node| &mut node.child);
        for child in children.chain(self.servers.iter_mut().map(|server| &mut server.child)).flatten() {
            child.still_runs()?;
        }
        Ok(())
    }

    /// The views of the cluster that the running nodes have; `None` while one of them does not answer.
    pub(super) async fn views(&self) -> Option<Vec<ClusterView>> {
        let mut views = Vec::new();
        for node in self.nodes.iter().filter(|node| node.runs()) {
            views.push(node.client.cluster().await.ok()?);
        }
        Some(views)
    }

    /// The running nodes' views, once all of them have applied the same entry and hold the same state.
    pub(super) async fn same_state(&mut self, limit: Duration) -> Result<Vec<ClusterView>, DemoError> {
        self.until("all running nodes to hold the same state", limit, async |stage| {
            let views = stage.views().await?;
            let first = &views.first()?.local;
            let same = views.iter().all(|view| {
                view.local.applied_index == first.applied_index && view.local.state_hash == first.state_hash
            });
            same.then_some(views)
        })
        .await
    }
}

fn node(id: NodeId, api: u16, peer: u16, peers: &str, dir: &Path) -> Result<Node, DemoError> {
    let data = dir.join(format!("node-{id}"));
    let mut arguments = arguments(&["serve", "--node-id", &id.to_string(), "--listen", &format!("127.0.0.1:{api}")]);
    arguments.extend(self::arguments(&["--peer-listen", &format!("127.0.0.1:{peer}"), "--initial-cluster", peers]));
    arguments.extend([OsString::from("--data-dir"), data.into_os_string()]);
    let api = format!("http://127.0.0.1:{api}");
    let client = Client::new([&api]).map_err(asking("making a client"))?;
    Ok(Node { id, api, client, arguments, log: dir.join(format!("node-{id}.log")), child: None })
}

fn server(
    id: &str,
    port: u16,
    priority: u32,
    nature: &'static str,
    faults: &[&str],
    dir: &Path,
) -> Result<Server, DemoError> {
    let address = format!("127.0.0.1:{port}");
    let mut arguments = arguments(&["example-server", "--listen", &address, "--name", id]);
    arguments.extend(self::arguments(faults));
    arguments.extend([OsString::from("--log"), dir.join(format!("{id}.requests")).into_os_string()]);
    let log = dir.join(format!("{id}.log"));
    Ok(Server { id: name(id)?, address, priority, nature, arguments, log, child: None })
}

impl Node {
    /// Starts it, and tells its process id.
    pub(super) fn start(&mut self) -> Result<u32, DemoError> {
        let child = Child::start(&format!("node {}", self.id), &self.arguments, &self.log)?;
        let pid = child.pid();
        self.child = Some(child);
        Ok(pid)
    }

    /// Whether it was started and not killed.
    pub(super) fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// SIGKILL; the moment, and the process id that was.
    pub(super) async fn kill(&mut self) -> Result<(Instant, u32), DemoError> {
        kill(&mut self.child, &format!("node {}", self.id)).await
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Forgets its process if it has ended by itself; whether it had.
    pub(super) fn forget_if_ended(&mut self) -> bool {
        forget_if_ended(&mut self.child)
    }
}

impl Server {
    /// Starts it, and tells its process id.
    pub(super) fn start(&mut self) -> Result<u32, DemoError> {
        let child = Child::start(self.id.as_str(), &self.arguments, &self.log)?;
        let pid = child.pid();
        self.child = Some(child);
        Ok(pid)
    }

    /// SIGKILL; the moment, and the process id that was.
    pub(super) async fn kill(&mut self) -> Result<(Instant, u32), DemoError> {
        kill(&mut self.child, self.id.as_str()).await
    }

    /// Its process id, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::pid)
    }

    /// Forgets its process if it has ended by itself; whether it had.
    pub(super) fn forget_if_ended(&mut self) -> bool {
        forget_if_ended(&mut self.child)
    }
}

async fn kill(child: &mut Option<Child>, name: &str) -> Result<(Instant, u32), DemoError> {
    match child.take() {
        Some(child) => {
            let pid = child.pid();
            child.kill().await.map(|at| (at, pid))
        }
        None => Err(DemoError::Wrong { what: format!("{name} does not run, so it cannot be killed") }),
    }
}

fn forget_if_ended(child: &mut Option<Child>) -> bool {
    let ended = child.as_mut().is_some_and(|child| child.still_runs().is_err());
    if ended {
        *child = None;
    }
    ended
}
