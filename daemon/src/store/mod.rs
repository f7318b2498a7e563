//! What a node keeps: the Raft log, the applied state, snapshots, and the reader's view of them. Two SQLite files and
//! one state machine; how nodes talk to each other, and who leads, may not enter.
//!
//! The rules: an append or a vote is on disk before it is acknowledged; rows, events and the applied index change in one
//! transaction; the log is purged only behind a snapshot that is on disk; after an I/O error on the log the node stops.

mod events;
mod fatal;
mod lock;
mod log;
mod machine;
mod reader;
mod snapshot;
mod sql;
#[cfg(test)]
mod tests;
mod types;
mod writer;

use std::path::{Path, PathBuf};

use baton_core::id::NodeId;
use baton_core::state::InvalidRow;

pub(crate) use events::{EventLog, EventsError, StoredEvent};
pub(crate) use fatal::{Fatal, Vital};
pub(crate) use lock::{DataDir, DirLock};
pub(crate) use log::{LogGauge, LogStore};
pub(crate) use machine::StateMachine;
pub(crate) use reader::{Changed, StateReader, View};
pub(crate) use snapshot::{Snapshot, SnapshotFile, SnapshotMeta};
#[cfg(test)]
pub(crate) use types::Entry;
pub(crate) use types::{Carried, EntryId, PayloadKind, PeerNode, Proposal, SpeltEntry, TypeConfig};

/// Why the store cannot be opened or used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The writer of the state file has stopped, and with it this node.
    #[error("the state file is no longer written: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
    /// Another process has the directory.
    #[error(
        "{} is in use by another baton process (pid {holder}): stop that one, or give this one its own --data-dir",
        dir.display()
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// What the holder wrote into the lock file.
        holder: String,
    },
    /// The directory belongs to another node.
    #[error(
        "{} belongs to node {found}, not to node {wanted}: start it with --node-id {found}, or give node {wanted} its \
         own --data-dir",
        dir.display()
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// The id it was made for.
        found: NodeId,
        /// The id it was opened with.
        wanted: NodeId,
    },
    /// A file is damaged, or the files do not belong together.
    #[error(
        "{} is damaged ({detail}): this node must neither vote nor serve. Remove it from the cluster, and let it join \
         again under a new id with an empty --data-dir",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The linked SQLite is too old.
    #[error("SQLite {version} can lose a write-ahead log: 3.51.3 or newer is needed")]
    OldSqlite {
        /// Its version.
        version: String,
    },
    /// A file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// The tables of a file cannot be brought to this version.
    #[error("cannot migrate {}", path.display())]
    Migrate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// The operating system refused something.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// SQLite refused something.
    #[error("SQLite failed")]
    Sql(#[from] sqlx::Error),
    /// A stored mark does not parse.
    #[error("the stored {what} does not parse")]
    Unreadable {
        /// Which.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A stored object does not parse.
    #[error("a stored object does not parse")]
    Row(#[from] InvalidRow),
}

impl From<StoreError> for std::io::Error {
    /// openraft knows I/O errors only.
    fn from(error: StoreError) -> Self {
        Self::other(error)
    }
}

/// An open store, in the parts that consensus and the readers take.
#[derive(Debug)]
pub(crate) struct Opened {
    /// The node it belongs to.
    pub node_id: NodeId,
    /// The log.
    pub log: LogStore,
    /// The state machine.
    pub machine: StateMachine,
    /// The readers' side.
    pub reader: StateReader,
    /// Says when the node must stop.
    pub fatal: Fatal,
    /// Where it all is.
    pub dir: DataDir,
    /// Cancelled when every part has been dropped and the directory is free for the next process.
    pub released: tokio_util::sync::CancellationToken,
}

/// Checks that a received snapshot is whole and covers what was said, before anything hangs on it.
pub(crate) async fn verify_snapshot(file: &SnapshotFile, meta: &SnapshotMeta) -> Result<(), StoreError> {
    let found = snapshot::meta_of(&file.path, true).await?;
    if found.last_log_id == meta.last_log_id {
        return Ok(());
    }
    let detail = format!("it covers {:?}, not {:?} as was said", found.last_log_id, meta.last_log_id);
    Err(StoreError::Corrupt { path: file.path.clone(), detail })
}

/// Refuses a log that is older than the state. What was applied had been voted for and appended before, durably; a log
/// that knows less has lost its end, and perhaps a vote with it, and a node that votes again for what it has forgotten can
/// elect two leaders in one term.
async fn refuse_rolled_back(dir: &DataDir, log: &LogStore, machine: &StateMachine) -> Result<(), StoreError> {
    let Some(applied) = machine.applied() else { return Ok(()) };
    let (term, last) = log.term_and_last();
    // A snapshot that was installed a moment before a crash may be ahead of the log.
    let snapshot = dir.snapshot();
    let held = if snapshot.exists() { snapshot::meta_of(&snapshot, false).await?.last_log_id } else { None };
    let known = last.max(held.map(|id| id.index));
    let detail = if term.is_none_or(|term| term < applied.leader_id.term) {
        format!("entry {applied} is applied, and the vote of its term is gone")
    } else if known < Some(applied.index) {
        format!("entry {applied} is applied, and the log ends before it")
    } else {
        return Ok(());
    };
    Err(StoreError::Corrupt { path: dir.raft_db(), detail })
}

/// The way in.
#[derive(Debug)]
pub(crate) struct Store;

impl Store {
    /// Opens the data directory of a node, and makes it if it is not there. Takes the lock first.
    pub(crate) async fn open(dir: &Path, node_id: NodeId) -> Result<Opened, StoreError> {
        Self::open_with(dir, node_id, LogStore::durable).await
    }

    /// Opens it for a test that applies entries which it never appends.
    #[cfg(test)]
    pub(crate) async fn open_without_log(dir: &Path, node_id: NodeId) -> Result<Opened, StoreError> {
        Self::open_with(dir, node_id, |_| tokio::sync::watch::channel(Some(u64::MAX)).1).await
    }

    async fn open_with(
        dir: &Path,
        node_id: NodeId,
        durable: impl FnOnce(&LogStore) -> tokio::sync::watch::Receiver<Option<u64>>,
    ) -> Result<Opened, StoreError> {
        std::fs::create_dir_all(dir).map_err(|source| StoreError::Io {
            doing: "make the data directory",
            path: dir.to_owned(),
            source,
        })?;
        let lock = DirLock::take(dir)?;
        let dir = DataDir { path: dir.to_owned() };
        let released = lock.released();
        let fatal = Fatal::default();
        snapshot::sweep(&dir);
        let log = LogStore::open(&dir, node_id, fatal.clone(), lock.clone()).await?;
        let machine = StateMachine::open(&dir, durable(&log), fatal.clone(), lock).await?;
        // A state without its log was not left by a crash: somebody removed raft.db, and with it the vote.
        if log.is_new() && machine.applied().is_some() {
            return Err(StoreError::Corrupt {
                path: dir.raft_db(),
                detail: "the log and the vote are gone, but state.db is there".to_owned(),
            });
        }
        refuse_rolled_back(&dir, &log, &machine).await?;
        let reader = machine.reader().clone();
        Ok(Opened { node_id, log, machine, reader, fatal, dir, released })
    }
}

/// An error with its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
