//! Agreement among the nodes: who leads, what is in the log, what may be read. The only room that drives openraft.
//! Commands and reads come in by name (`propose`, `barrier`); what they mean is not known here.

mod ask;
mod clock;
mod network;
mod peers;
mod propose;
mod read;
mod status;
#[cfg(test)]
mod tests;
mod transport;
mod upkeep;
mod wire;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use baton_core::command::{Command, Reply};
use baton_core::id::NodeId;
use baton_core::lease::ReadPoint;
use baton_core::time::{ClusterTime, WallTime};
use bytes::Bytes;
use openraft::errors::{InitializeError, RaftError};
use openraft::{Config, Raft, SnapshotPolicy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[cfg(test)]
use ask::ASK_BYTES_MAX;
pub(crate) use ask::{Answers, AskError};
pub(crate) use propose::ProposeError;
pub(crate) use read::ReadError;
pub(crate) use status::{MemberRole, RaftStatus};

use crate::net::{self, Limits};
use crate::store::{
    DataDir, Fatal, LogGauge, Opened, PeerNode, StateMachine, StateReader, StoreError, TypeConfig, Vital,
};
use clock::ClusterClock;
use propose::Proposer;
use read::ReadRounds;
use transport::{AddressBook, Channel};

/// Within this a proposal or a read is answered, if only by saying that it cannot be.
pub(crate) const ANSWER_WITHIN: Duration = Duration::from_millis(1_900);
/// How long the end may take: what does not stop by then dies with the process.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// The clocks of Raft, and how much log is kept.
///
/// A leader that is killed is missed after `election_max`, and succeeded after one more wait between the two bounds: at
/// most 1.3 s here, and a second try after a split vote still ends within 2 s. Six heartbeats may get lost before
/// anybody doubts the leader, so that a machine short of CPU does not change leaders for nothing.
#[derive(Clone, Debug)]
pub(crate) struct Tuning {
    /// How often a leader is heard, in milliseconds.
    pub heartbeat_ms: u64,
    /// The shortest wait before an election, in milliseconds.
    pub election_min_ms: u64,
    /// The longest one.
    pub election_max_ms: u64,
    /// A snapshot is made after so many entries.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, so that a node which was away for a moment needs no snapshot.
    pub keep_behind_snapshot: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            heartbeat_ms: 100,
            election_min_ms: 350,
            election_max_ms: 650,
            snapshot_every: 5_000,
            keep_behind_snapshot: 1_000,
        }
    }
}

/// What consensus needs to start.
#[derive(Debug)]
pub(crate) struct ConsensusConfig {
    /// The nodes of the initial cluster with their peer addresses; the same on every node.
    pub members: BTreeMap<NodeId, String>,
    /// Where the peers are listened for.
    pub peer_listener: TcpListener,
    /// Raft's clocks.
    pub tuning: Tuning,
}

/// Why consensus does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConsensusError {
    /// This node is not in the list.
    #[error("node {0} is not in --initial-cluster")]
    NotAMember(NodeId),
    /// The settings contradict each other.
    #[error("Raft's settings contradict each other")]
    Settings(#[from] openraft::ConfigError),
    /// openraft could not start from what is stored.
    #[error("Raft cannot start from what is stored: {0}")]
    Start(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Both clocks at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The decision clock: exact on the leader, an estimate on a follower.
    pub time: ClusterTime,
    /// This node's wall clock: a label.
    pub wall: WallTime,
}

/// Who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    /// The term.
    pub term: u64,
    /// Its leader, where it is known.
    pub leader: Option<NodeId>,
    /// This node leads, and has applied the first entry of its own term, so that its state is not behind what it
    /// decides on.
    pub is_leader: bool,
}

type BatonRaft = Raft<TypeConfig, StateMachine>;

/// This node's part in the cluster. Clones are cheap.
#[derive(Clone)]
pub(crate) struct Consensus {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("node_id", &self.inner.node_id).finish_non_exhaustive()
    }
}

struct Inner {
    node_id: NodeId,
    raft: BatonRaft,
    reader: StateReader,
    dir: DataDir,
    log_gauge: LogGauge,
    clock: ClusterClock,
    leadership: watch::Sender<Leadership>,
    leader_heard: Mutex<Option<Instant>>,
    channels: Channels,
    answers: OnceLock<Arc<dyn Answers>>,
    proposer: Proposer,
    read_rounds: ReadRounds,
    snapshot_turn: Arc<tokio::sync::Mutex<()>>,
    tuning: Tuning,
    fatal: Fatal,
    released: CancellationToken,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

impl Inner {
    fn now(&self) -> Now {
        // Before 1970 the label is 1970: it decides nothing.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now {
            time: self.clock.now(Instant::now()),
            wall: WallTime(i64::try_from(wall.as_millis()).unwrap_or(i64::MAX)),
        }
    }

    fn leader_was_heard(&self) {
        *self.leader_heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

/// The connections of this room's own questions to whoever leads: one a peer and purpose, made when first needed.
struct Channels {
    book: Arc<AddressBook>,
    forward: Mutex<BTreeMap<NodeId, Arc<Channel>>>,
    reads: Mutex<BTreeMap<NodeId, Arc<Channel>>>,
    asks: Mutex<BTreeMap<NodeId, Arc<Channel>>>,
}

impl Channels {
    fn new(book: Arc<AddressBook>) -> Self {
        Self { book, forward: Mutex::default(), reads: Mutex::default(), asks: Mutex::default() }
    }

    fn of(&self, map: &Mutex<BTreeMap<NodeId, Arc<Channel>>>, to: NodeId) -> Arc<Channel> {
        let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
        map.entry(to).or_insert_with(|| Arc::new(Channel::new(to, self.book.clone()))).clone()
    }

    fn forward(&self, to: NodeId) -> Arc<Channel> {
        self.of(&self.forward, to)
    }

    fn reads(&self, to: NodeId) -> Arc<Channel> {
        self.of(&self.reads, to)
    }

    fn asks(&self, to: NodeId) -> Arc<Channel> {
        self.of(&self.asks, to)
    }
}

fn raft_config(tuning: &Tuning) -> Result<Config, openraft::ConfigError> {
    Config {
        cluster_name: "baton".to_owned(),
        heartbeat_interval: tuning.heartbeat_ms,
        election_timeout_min: tuning.election_min_ms,
        election_timeout_max: tuning.election_max_ms,
        // A node that comes back from a partition must not depose a well leader, and a leader that sees too few must
        // let the others elect.
        enable_pre_vote: Some(true),
        quorum_loss_probe_interval: Some(2 * tuning.election_max_ms),
        // A restarted leader may have lost the end of its state file: it stands for election like everybody else.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        install_snapshot_timeout: 60_000,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(tuning.snapshot_every),
        max_in_snapshot_log_to_keep: tuning.keep_behind_snapshot,
        replication_lag_threshold: 2 * tuning.snapshot_every + tuning.keep_behind_snapshot,
        max_payload_entries: 300,
        purge_batch_size: 256.min(tuning.keep_behind_snapshot.max(1)),
        backoff: "50ms 100ms 200ms ...500ms".to_owned(),
        ..Config::default()
    }
    .validate()
}

impl Consensus {
    /// Joins the cluster with what the store holds, and serves the peers from then on.
    pub(crate) async fn start(config: ConsensusConfig, opened: Opened) -> Result<Self, ConsensusError> {
        let Opened { node_id, log, machine, reader, fatal, dir, released } = opened;
        if !config.members.contains_key(&node_id) {
            return Err(ConsensusError::NotAMember(node_id));
        }
        let raft_config = Arc::new(raft_config(&config.tuning)?);
        let book = Arc::new(AddressBook::new(node_id, &config.members, reader.clone()));
        let network = network::Network { book: book.clone() };
        let log_gauge = log.gauge();
        let raft = Raft::new(node_id, raft_config, network, log, machine)
            .await
            .map_err(|error| ConsensusError::Start(error.to_string()))?;

        let (proposer, proposer_task) = Proposer::new();
        let (read_rounds, read_task) = ReadRounds::new();
        let inner = Arc::new(Inner {
            node_id,
            clock: ClusterClock::new(reader.view().state.meta.cluster_time, Instant::now()),
            raft,
            reader,
            dir,
            log_gauge,
            leadership: watch::Sender::new(Leadership::default()),
            leader_heard: Mutex::new(None),
            channels: Channels::new(book),
            answers: OnceLock::new(),
            proposer,
            read_rounds,
            snapshot_turn: Arc::default(),
            tuning: config.tuning,
            fatal,
            released,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let until_the_end = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let shutdown = inner.shutdown.clone();
            let vital = inner.fatal.vital("a task of consensus");
            inner.tasks.spawn(async move {
                let _vital = vital;
                tokio::select! {
                    () = shutdown.cancelled() => {}
                    () = task => {}
                }
            });
        };
        until_the_end(Box::pin(proposer_task.run(Arc::downgrade(&inner))));
        until_the_end(Box::pin(read_task.run(Arc::downgrade(&inner))));
        until_the_end(Box::pin(upkeep::run(inner.clone())));
        let router = peers::router(inner.clone());
        inner.tasks.spawn(net::serve(config.peer_listener, router, Limits::PEERS, inner.shutdown.clone()));

        let members: BTreeMap<NodeId, PeerNode> =
            config.members.into_iter().map(|(id, peer)| (id, PeerNode { peer })).collect();
        match inner.raft.initialize(members).await {
            // Every node does this, with the same members; whoever has a log already need not.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
            Err(RaftError::APIError(InitializeError::NotInMembers(_))) => {
                return Err(ConsensusError::NotAMember(node_id));
            }
            Err(RaftError::Fatal(error)) => return Err(ConsensusError::Start(error.to_string())),
        }
        Ok(Self { inner })
    }

    /// Proposes a command, on whatever node, and waits until it has been applied, here too.
    pub(crate) async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        self.inner.proposer.propose(command).await
    }

    /// Waits until this node's view holds everything that was acknowledged, anywhere, before the call.
    pub(crate) async fn barrier(&self) -> Result<(), ReadError> {
        self.inner.barrier().await
    }

    /// A read-index round of this node's own, begun after this call. Only a leader gets an answer.
    pub(crate) async fn read_point(&self) -> Result<ReadPoint, ReadError> {
        self.inner.read_point().await
    }

    /// This node's number.
    pub(crate) fn node_id(&self) -> NodeId {
        self.inner.node_id
    }

    /// Asks whoever leads, by `kind` what only the asker and [`Answers`] understand. Answered within half a second, here
    /// where this node leads.
    pub(crate) async fn ask_leader(&self, kind: &'static str, body: Bytes) -> Result<Bytes, AskError> {
        self.inner.ask_leader(kind, body).await
    }

    /// Says who answers while this node leads. Only the first one counts.
    pub(crate) fn answer_asks(&self, answers: Arc<dyn Answers>) {
        if self.inner.answers.set(answers).is_err() {
            tracing::error!("somebody answers questions to the leader already");
        }
    }

    /// The state of this node, as far as it has applied.
    pub(crate) fn reader(&self) -> &StateReader {
        &self.inner.reader
    }

    /// Both clocks.
    pub(crate) fn now(&self) -> Now {
        self.inner.now()
    }

    /// Who leads, as it changes.
    pub(crate) fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.subscribe()
    }

    /// How long ago the leader last heard a quorum, or a follower its leader. `None`: never yet.
    pub(crate) fn staleness(&self) -> Option<Duration> {
        self.inner.staleness()
    }

    /// Whether there is a leader to ask, as far as this node can tell: it leads and hears a quorum, or it knows who leads and
    /// has heard from it within an election's time.
    pub(crate) fn hears_leader(&self) -> bool {
        let silence_max = Duration::from_millis(self.inner.tuning.election_max_ms);
        let known = self.inner.leadership.borrow().leader.is_some();
        known && self.staleness().is_some_and(|silence| silence <= silence_max)
    }

    /// How Raft is doing.
    pub(crate) fn status(&self) -> RaftStatus {
        self.inner.status()
    }

    /// Watches over a task of the node: see [`Fatal::vital`].
    pub(crate) fn vital(&self, what: &'static str) -> Vital {
        self.inner.fatal.vital(what)
    }

    /// Waits until this node must stop, which in a healthy life is for ever, and says why.
    pub(crate) async fn failed(&self) -> String {
        self.inner.fatal.raised().await
    }

    /// Leaves: the peers are no longer served, what is under way is given up, the files are closed.
    pub(crate) async fn shutdown(&self) {
        self.inner.shutdown.cancel();
        self.inner.tasks.close();
        let ended = tokio::time::timeout(SHUTDOWN_WITHIN, async {
            if let Err(error) = self.inner.raft.shutdown().await {
                tracing::warn!(%error, "Raft did not end well");
            }
            self.inner.tasks.wait().await;
            self.inner.released.cancelled().await;
        })
        .await;
        if ended.is_err() {
            tracing::warn!("consensus did not end in time");
        }
    }
}
