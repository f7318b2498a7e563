//! One node: opens the store, joins the cluster, and puts the rooms together. What the rooms do is theirs; here is only
//! the order in which they start and stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use baton_core::command::{Command, NodeAnnounce};
use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{LogFormat, ServeConfig, advertised};
use crate::consensus::{Consensus, ConsensusConfig, ConsensusError, Tuning};
use crate::leases::LeaderBook;
use crate::net::{self, Limits};
use crate::store::{Store, StoreError};
use crate::{api, controller, effects, judge, monitor, orphan, reports};

/// How soon an announcement that could not be made is tried again.
const ANNOUNCE_RETRY: Duration = Duration::from_millis(200);
/// How long open requests may take to end after SIGTERM before the process ends anyway.
const DRAIN: Duration = Duration::from_secs(8);

/// Why a node does not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// A listener's address cannot be had.
    #[error("cannot listen on {address} (--{flag}): {source}")]
    Listen {
        /// The flag that says it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node cannot take part in its cluster.
    #[error(transparent)]
    Consensus(#[from] ConsensusError),
    /// What is measured cannot be collected.
    #[error("metrics cannot be collected: {0}")]
    Metrics(metrics_exporter_prometheus::BuildError),
    /// The prober's runtime cannot be had.
    #[error("the prober cannot be started: {0}")]
    Runtime(io::Error),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
    /// The filter of the log lines does not parse.
    #[error("log: \"{filter}\" is not a filter, as \"info\" or \"baton=debug\" are: {source}")]
    LogFilter {
        /// What was said.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The node stopped itself rather than go on without knowing what its disk holds.
    #[error("this node stopped itself: {0}")]
    Stopped(String),
}

/// Runs a node until it is told to end, by a signal, by its parent or by its own disk.
pub(crate) async fn serve(config: ServeConfig, exit_when_stdin_closes: bool) -> Result<(), NodeError> {
    start_log(&config)?;
    allow_many_files();
    // Both addresses are taken before anything is opened: a port in use leaves no trace in the data directory.
    let api_listener = bind("listen", config.listen).await?;
    let peer_listener = bind("peer-listen", config.peer_listen).await?;
    let api_bound = bound("listen", config.listen, &api_listener)?;
    let peer_bound = bound("peer-listen", config.peer_listen, &peer_listener)?;

    let mut members = config.initial_cluster.clone();
    if members.is_empty() {
        members.insert(config.node_id, peer_bound.to_string());
    }
    let peer_address = members.get(&config.node_id).cloned().unwrap_or_else(|| peer_bound.to_string());
    let size = members.len();
    let announce = NodeAnnounce {
        node: config.node_id,
        api: advertised(api_bound, Some(&peer_address)),
        peer: peer_address,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };

    let metrics = api::recorder().map_err(NodeError::Metrics)?;
    let opened = Store::open(&config.data_dir, config.node_id).await?;
    let consensus =
        Consensus::start(ConsensusConfig { members, peer_listener, tuning: Tuning::default() }, opened).await?;

    let shutdown = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (reports, reports_task) = reports::Reports::new(consensus.clone());
    let leases = LeaderBook::default();
    let (judge, judge_task) = judge::new(consensus.clone(), leases.clone());
    consensus.answer_asks(Arc::new(judge));
    let state =
        api::ApiState::new(consensus.clone(), reports.clone(), metrics, config.allowed_hosts.clone(), shutdown.clone());
    tasks.spawn(net::serve(api_listener, api::router(state), Limits::API, shutdown.clone()));
    let vital = |what, task: BoxFuture<'static, ()>| {
        let vital = consensus.vital(what);
        tasks.spawn(async move {
            let _vital = vital;
            task.await;
        });
    };
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Runtime)?;
    let (node, probe, tally) = (config.node_id, config.probe.clone(), reports.probe_tally());
    let monitor = monitor::run(node, probe, consensus.clone(), tally, shutdown.clone());
    vital("the monitor", Box::pin(on_a_thread_of_its_own(own, monitor)));
    vital("the judge", Box::pin(judge_task.run(shutdown.clone())));
    vital("what tells the leader of reports", Box::pin(reports_task.run(shutdown.clone())));
    vital("the controller", Box::pin(controller::run(consensus.clone(), leases, shutdown.clone())));
    let hooks = effects::HookMeans::new(config.node_id, config.hooks.clone(), &config.probe);
    vital("what runs fencing hooks", Box::pin(effects::run(consensus.clone(), hooks, shutdown.clone())));
    tasks.spawn(announce_until_known(announce, consensus.clone(), shutdown.clone()));
    tasks.close();

    println!(
        "baton {}: node {} of {size}, API on http://{api_bound}, peers on {peer_bound}, data in {}",
        env!("CARGO_PKG_VERSION"),
        config.node_id,
        config.data_dir.display()
    );

    let ended = wait_for_the_end(&consensus, exit_when_stdin_closes).await;
    tracing::info!("stopping: open requests may end, streams are closed");
    shutdown.cancel();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("some requests did not end in {DRAIN:?}: they are cut off");
    }
    consensus.shutdown().await;
    ended
}

/// Runs `work` on a runtime that nothing else runs on. Probes are thousands of short tasks that wait for the kernel: on one
/// thread none of them wakes another thread up, and what the API is busy with does not make their timers late.
async fn on_a_thread_of_its_own(own: Runtime, work: impl Future<Output = ()> + Send + 'static) {
    let ended = tokio::task::spawn_blocking(move || own.block_on(work)).await;
    if let Err(panic) = ended.map_err(JoinError::try_into_panic)
        && let Ok(panic) = panic
    {
        std::panic::resume_unwind(panic);
    }
}

async fn wait_for_the_end(consensus: &Consensus, exit_when_stdin_closes: bool) -> Result<(), NodeError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(NodeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(NodeError::Signals)?;
    tokio::select! {
        reason = consensus.failed() => Err(NodeError::Stopped(reason)),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = orphan::stdin_closed(), if exit_when_stdin_closes => Ok(()),
    }
}

/// Tells the cluster where this node is, until the cluster knows. A node whose flags changed announces itself anew.
async fn announce_until_known(announce: NodeAnnounce, consensus: Consensus, shutdown: CancellationToken) {
    loop {
        if known(&announce, &consensus) {
            return;
        }
        let proposed = tokio::select! {
            () = shutdown.cancelled() => return,
            proposed = consensus.propose(Command::NodeAnnounce(announce.clone())) => proposed,
        };
        if let Ok(Ok(_)) = proposed {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(ANNOUNCE_RETRY) => {}
        }
    }
}

fn known(announce: &NodeAnnounce, consensus: &Consensus) -> bool {
    let view = consensus.reader().view();
    view.state
        .nodes
        .get(&announce.node)
        .is_some_and(|node| node.api == announce.api && node.peer == announce.peer && node.version == announce.version)
}

/// Takes as many file descriptors as the system grants without asking: each client and each probe needs one.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::warn!(%error, ?current, "the limit of open files stays low: fewer clients and probes at a time");
    }
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address).await.map_err(|source| NodeError::Listen { flag, address, source })
}

fn bound(flag: &'static str, address: SocketAddr, listener: &TcpListener) -> Result<SocketAddr, NodeError> {
    listener.local_addr().map_err(|source| NodeError::Listen { flag, address, source })
}

/// Log lines go to stderr: stdout is for answers.
fn start_log(config: &ServeConfig) -> Result<(), NodeError> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(&config.log)
        .map_err(|source| NodeError::LogFilter { filter: config.log.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    match config.log_format {
        LogFormat::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).init(),
        LogFormat::Json => lines.json().init(),
    }
    Ok(())
}
