//! Snapshots: whole copies of `state.db` as files. One is built on a connection of its own, so that applying goes on
//! meanwhile; what it covers is read from the file itself, never from memory. How it travels is not known here.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::alias::{SnapshotMetaOf, SnapshotOf, StoredMembershipOf};
use openraft::storage::RaftSnapshotBuilder;
use sqlx::SqliteConnection;
use tokio::sync::Mutex;

use super::lock::{DataDir, DirLock};
use super::types::{EntryId, TypeConfig};
use super::writer::StateWriter;
use super::{StoreError, sql};

/// What a snapshot covers.
pub(crate) type SnapshotMeta = SnapshotMetaOf<TypeConfig>;
/// A snapshot with what it covers.
pub(crate) type Snapshot = SnapshotOf<TypeConfig, SnapshotFile>;

/// An open snapshot file. Being open it stays readable when a newer one takes its name.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    /// Where it is, or was.
    pub path: PathBuf,
    /// The file, opened for reading.
    pub file: File,
}

impl SnapshotFile {
    /// Opens a file as a snapshot.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(io_error("open the snapshot", path))?;
        Ok(Self { path: path.to_owned(), file })
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { doing, path, source }
}

/// Deletes what a crash left of snapshots in the making.
pub(super) fn sweep(dir: &DataDir) {
    let Ok(files) = std::fs::read_dir(&dir.path) else { return };
    for file in files.flatten() {
        let name = file.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snapshot-") && name.contains(".tmp") {
            // One that stays costs room, nothing else.
            let _ = std::fs::remove_file(file.path());
        }
    }
}

/// What a state file holds: its last applied entry and its membership.
pub(super) async fn read_marks(
    conn: &mut SqliteConnection,
) -> Result<(Option<EntryId>, StoredMembershipOf<TypeConfig>), StoreError> {
    let applied: Option<Option<EntryId>> = sql::mark(conn, "applied").await?;
    let membership: Option<StoredMembershipOf<TypeConfig>> = sql::mark(conn, "membership").await?;
    Ok((applied.flatten(), membership.unwrap_or_default()))
}

/// Opens a snapshot file and reads what it covers; with `verify`, after SQLite has found it whole.
pub(super) async fn meta_of(path: &Path, verify: bool) -> Result<SnapshotMeta, StoreError> {
    let mut conn = sql::open_reader(path).await?;
    let result = async {
        if verify {
            sql::check_whole(&mut conn, path).await?;
        }
        let (last_log_id, last_membership) = read_marks(&mut conn).await?;
        Ok(SnapshotMeta { last_log_id, last_membership })
    }
    .await;
    sql::close(conn).await;
    result
}

/// Makes a finished file the current snapshot, so that it is there after a power loss too.
pub(super) fn make_current(dir: &DataDir, finished: &Path) -> Result<(), StoreError> {
    let current = dir.snapshot();
    File::open(finished).and_then(|file| file.sync_all()).map_err(io_error("sync the snapshot", finished))?;
    std::fs::rename(finished, &current).map_err(io_error("rename the snapshot", finished))?;
    File::open(&dir.path).and_then(|dir| dir.sync_all()).map_err(io_error("sync the directory", &dir.path))
}

/// The snapshots of one data directory. The gate is held while the current one is replaced or opened, so that what is
/// said of a file is true of that file.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    pub(super) dir: DataDir,
    pub(super) gate: Arc<Mutex<()>>,
    writer: StateWriter,
    /// A build goes on after the state machine is gone; the directory is not free before it has ended.
    _lock: DirLock,
}

impl Snapshots {
    pub(super) fn new(dir: DataDir, writer: StateWriter, lock: DirLock) -> Self {
        Self { dir, gate: Arc::new(Mutex::new(())), writer, _lock: lock }
    }

    /// The current snapshot, if there is one.
    pub(super) async fn current(&self) -> Result<Option<Snapshot>, StoreError> {
        let _gate = self.gate.lock().await;
        self.current_within_gate().await
    }

    async fn current_within_gate(&self) -> Result<Option<Snapshot>, StoreError> {
        let path = self.dir.snapshot();
        if !path.exists() {
            return Ok(None);
        }
        let meta = meta_of(&path, false).await?;
        Ok(Some(Snapshot { meta, snapshot: SnapshotFile::open(&path)? }))
    }

    async fn build(&self) -> Result<Snapshot, StoreError> {
        let path = self.dir.snapshot_in_the_making("built");
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(io_error("remove the unfinished snapshot", &path)(source)),
        }
        // What was applied before is in it, so that the log can be purged as far as whoever asked expects.
        self.writer.flush().await?;
        let mut conn = sql::open_reader(&self.dir.state_db()).await?;
        let copied = sql::vacuum_into(&mut conn, &path).await;
        sql::close(conn).await;
        copied?;
        let meta = meta_of(&path, false).await?;

        let _gate = self.gate.lock().await;
        if let Some(current) = self.current_within_gate().await?
            && current.meta.last_log_id > meta.last_log_id
        {
            // One from the leader came in meanwhile and reaches further.
            let _ = std::fs::remove_file(&path);
            return Ok(current);
        }
        let current = self.dir.clone();
        tokio::task::spawn_blocking(move || make_current(&current, &path))
            .await
            .map_err(|error| io_error("finish the snapshot", &self.dir.path)(io::Error::other(error)))??;
        Ok(Snapshot { meta, snapshot: SnapshotFile::open(&self.dir.snapshot())? })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Snapshots {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let started = std::time::Instant::now();
        let snapshot = self.build().await?;
        tracing::info!(meta = %snapshot.meta, took = ?started.elapsed(), "built a snapshot");
        Ok(snapshot)
    }
}
