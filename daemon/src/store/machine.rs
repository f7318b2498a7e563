//! The state machine: takes committed entries, lets `core::apply` change the state, publishes it, answers the proposers, and
//! hands what changed to the writer of the state file. The entries are safe in the log of a majority by then; the file
//! follows. Nothing here decides; nothing here reads a clock.

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::sync::Arc;

use baton_core::apply::{Position, apply_batch};
use baton_core::command::Reply;
use baton_core::state::{Change, Row, RowKind, State};
use futures_util::{Stream, TryStreamExt};
use openraft::alias::StoredMembershipOf;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use sqlx::{Connection, Row as _, SqliteConnection};
use tokio::sync::watch;

use super::lock::{DataDir, DirLock};
use super::snapshot::{self, Snapshot, SnapshotFile, SnapshotMeta, Snapshots};
use super::sql::{self, Durability};
use super::types::{EntryId, TypeConfig};
use super::writer::{Applied, StateWriter};
use super::{Changed, EventLog, Fatal, StateReader, StoreError, StoredEvent, View, chain, verify_snapshot};

/// Entries applied in one transaction. More would only make the first of them wait.
const ENTRIES_MAX: usize = 512;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/state");

type StoredMembership = StoredMembershipOf<TypeConfig>;

/// The replicated state of one node, and its file.
#[derive(Debug)]
pub(crate) struct StateMachine {
    state: State,
    applied: Option<EntryId>,
    membership: StoredMembership,
    snapshots: Snapshots,
    writer: StateWriter,
    reader: StateReader,
    fatal: Fatal,
}

impl Drop for StateMachine {
    fn drop(&mut self) {
        self.writer.close();
    }
}

/// Entries that have been applied and not yet told of.
#[derive(Default)]
struct Work {
    entries: usize,
    changes: BTreeSet<Change>,
    events: Vec<Arc<StoredEvent>>,
    answers: Vec<(ApplyResponder<TypeConfig>, Vec<Reply>)>,
    membership_changed: bool,
}

impl StateMachine {
    /// Opens the file, checks that it is whole, and reads the state.
    pub(super) async fn open(
        dir: &DataDir,
        durable: watch::Receiver<Option<u64>>,
        fatal: Fatal,
        lock: DirLock,
    ) -> Result<Self, StoreError> {
        let path = dir.state_db();
        let mut conn = sql::open_writer(&path, Durability::Replayed).await?;
        sql::check_whole(&mut conn, &path).await?;
        sql::migrate(&mut conn, &MIGRATIONS, &path).await?;
        let loaded = load(&mut conn).await?;
        let events = EventLog::new(path, loaded.state.meta.revision, loaded.state.meta.compacted_through);
        let reader = StateReader::new(view(&loaded.state, loaded.applied), events);
        let compacted = loaded.state.meta.compacted_through;
        let writer = StateWriter::start(conn, compacted, reader.clone(), durable, fatal.clone(), lock.clone());
        Ok(Self {
            state: loaded.state,
            applied: loaded.applied,
            membership: loaded.membership,
            snapshots: Snapshots::new(dir.clone(), writer.clone(), lock),
            writer,
            reader,
            fatal,
        })
    }

    /// The last applied entry.
    pub(super) fn applied(&self) -> Option<EntryId> {
        self.applied
    }

    /// The readers' side.
    pub(crate) fn reader(&self) -> &StateReader {
        &self.reader
    }

    /// Waits until all that was applied is in the file.
    #[cfg(test)]
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        self.writer.flush().await
    }

    fn take(&mut self, work: &mut Work, item: EntryResponder<TypeConfig>) -> Result<(), StoreError> {
        let (entry, responder) = item;
        let index = entry.log_id.index;
        let replies = match entry.payload {
            EntryPayload::Blank => Vec::new(),
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                work.membership_changed = true;
                Vec::new()
            }
            EntryPayload::Normal(proposal) => {
                let at = Position { term: entry.log_id.committed_leader_id().term, index };
                let mut done = apply_batch(&mut self.state, at, proposal.batch());
                work.changes.append(&mut done.changes);
                work.events.extend(done.events.into_iter().map(|recorded| Arc::new(StoredEvent::new(recorded))));
                done.replies
            }
        };
        self.applied = Some(entry.log_id);
        work.entries += 1;
        if let Some(responder) = responder {
            work.answers.push((responder, replies));
        }
        Ok(())
    }

    /// Tells everybody: the readers, the proposers, and the writer of the file, whose queue may be full.
    async fn tell(&mut self, work: Work) -> Result<(), StoreError> {
        if work.entries == 0 {
            return Ok(());
        }
        let Work { changes, events, answers, membership_changed, .. } = work;
        let through = self.state.meta.compacted_through;
        // Into the memory's ring before the file: an event is always to be had from one of the two.
        let published = events.clone();
        let changed = (!changes.is_empty()).then(|| Changed::Objects(Arc::new(changes.clone())));
        self.reader.publish(view(&self.state, self.applied), changed, |log| log.extend(published, through));
        for (responder, replies) in answers {
            responder.send(replies);
        }
        let membership = membership_changed.then(|| self.membership.clone());
        let applied = Applied { changes, events, state: self.state.clone(), applied: self.applied, membership };
        self.writer.hand_over(applied).await
    }

    async fn apply_all<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut work = Work::default();
        while let Some(item) = entries.try_next().await? {
            self.take(&mut work, item)?;
            if work.entries >= ENTRIES_MAX {
                self.tell(mem::take(&mut work)).await?;
            }
        }
        Ok(self.tell(work).await?)
    }

    /// Replaces the state by a snapshot's. The file becomes the current snapshot first: a crash in between is mended at
    /// the next start, where openraft installs a snapshot that reaches further than the state.
    async fn install(&mut self, meta: &SnapshotMeta, received: SnapshotFile) -> Result<(), StoreError> {
        let current = self.snapshots.dir.snapshot();
        let gate = self.snapshots.gate.clone();
        let _gate = gate.lock().await;
        verify_snapshot(&received, meta).await?;
        if received.path != current {
            let dir = self.snapshots.dir.clone();
            let finished = received.path.clone();
            tokio::task::spawn_blocking(move || snapshot::make_current(&dir, &finished)).await.map_err(|error| {
                StoreError::Io { doing: "finish the snapshot", path: received.path, source: io::Error::other(error) }
            })??;
        }
        let quoted = current.to_string_lossy().replace('\'', "''");
        let mut conn = self.writer.take_over().await;
        sql::run(&mut conn, format!("ATTACH '{quoted}' AS snap")).await?;
        let copied = copy_attached(&mut conn).await;
        // Also after a failure, so that the connection is what it was.
        let detached = sql::run(&mut conn, "DETACH snap".to_owned()).await;
        copied?;
        detached?;

        let loaded = load(&mut conn).await?;
        drop(conn);
        self.state = loaded.state;
        self.applied = loaded.applied;
        self.membership = loaded.membership;
        let (last, through) = (self.state.meta.revision, self.state.meta.compacted_through);
        let view = view(&self.state, self.applied);
        self.reader.publish(view, Some(Changed::Everything), |log| log.reset(last, through));
        Ok(())
    }

    /// After such an error memory and file may differ: the node stops and starts again from the file.
    fn stop_on_error<T>(&self, doing: &str, result: Result<T, io::Error>) -> Result<T, io::Error> {
        result.inspect_err(|error| self.fatal.raise(format!("cannot {doing}: {}", chain(error))))
    }
}

fn view(state: &State, applied: Option<EntryId>) -> View {
    View {
        state: state.clone(),
        applied_index: applied.map_or(0, |id| id.index),
        applied_term: applied.map_or(0, |id| id.leader_id.term),
    }
}

async fn copy_attached(conn: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    for table in ["objects", "events", "marks"] {
        sql::run(&mut tx, format!("DELETE FROM main.{table}")).await?;
    }
    sql::run(&mut tx, "INSERT INTO main.objects (kind, key, body) SELECT kind, key, body FROM snap.objects".to_owned())
        .await?;
    sql::run(
        &mut tx,
        "INSERT INTO main.events (revision, service, type, body) \
         SELECT revision, service, type, body FROM snap.events"
            .to_owned(),
    )
    .await?;
    sql::run(&mut tx, "INSERT INTO main.marks (key, value) SELECT key, value FROM snap.marks".to_owned()).await?;
    tx.commit().await
}

struct Loaded {
    state: State,
    applied: Option<EntryId>,
    membership: StoredMembership,
}

/// Reads a state file whole.
async fn load(conn: &mut SqliteConnection) -> Result<Loaded, StoreError> {
    let mut rows = Vec::new();
    for (word, kind) in RowKind::ALL {
        let found = sqlx::query("SELECT key, body FROM objects WHERE kind = ? ORDER BY key")
            .bind(*word)
            .fetch_all(&mut *conn)
            .await?;
        for row in found {
            rows.push(Row { kind: *kind, key: row.try_get(0)?, body: row.try_get(1)? });
        }
    }
    let (applied, membership) = snapshot::read_marks(conn).await?;
    Ok(Loaded { state: State::from_rows(rows)?, applied, membership })
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Snapshots;

    async fn applied_state(&mut self) -> Result<(Option<EntryId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let result = self.apply_all(entries).await;
        self.stop_on_error("apply committed entries", result)
    }

    async fn get_snapshot_builder(&mut self) -> Snapshots {
        self.snapshots.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, received: SnapshotFile) -> Result<(), io::Error> {
        let result = self.install(meta, received).await.map_err(io::Error::from);
        self.stop_on_error("install a snapshot", result)
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        Ok(self.snapshots.current().await?)
    }
}
