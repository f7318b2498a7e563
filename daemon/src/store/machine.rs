//! The state machine: takes committed entries, lets `core::apply` change the state, and writes what changed, the events
//! and the applied index in one transaction. Only after the commit does anybody hear of it: first the readers, then the
//! proposers. Nothing here decides; nothing here reads a clock.

use std::collections::BTreeSet;
use std::io;
use std::mem;
use std::sync::{Arc, LazyLock};

use baton_core::apply::apply_batch;
use baton_core::command::Reply;
use baton_core::id::Revision;
use baton_core::state::{Change, Row, RowKind, State};
use futures_util::{Stream, TryStreamExt};
use openraft::alias::StoredMembershipOf;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use sqlx::{Connection, Row as _, SqliteConnection};

use super::lock::{DataDir, DirLock};
use super::snapshot::{self, Snapshot, SnapshotFile, SnapshotMeta, Snapshots};
use super::sql::{self, Durability, ManyRows};
use super::types::{EntryId, TypeConfig};
use super::{Changed, EventLog, Fatal, StateReader, StoreError, StoredEvent, View, verify_snapshot};

/// Entries applied in one transaction. More would only make the first of them wait.
const ENTRIES_MAX: usize = 512;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/state");
static PUT_OBJECTS: LazyLock<ManyRows> = LazyLock::new(|| {
    ManyRows::new(
        "INSERT INTO objects (kind, key, body) VALUES",
        "(?,?,?)",
        "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
    )
});
static PUT_EVENTS: LazyLock<ManyRows> =
    LazyLock::new(|| ManyRows::new("INSERT INTO events (revision, service, type, body) VALUES", "(?,?,?,?)", ""));

type StoredMembership = StoredMembershipOf<TypeConfig>;

/// The replicated state of one node, and its file.
#[derive(Debug)]
pub(crate) struct StateMachine {
    conn: SqliteConnection,
    state: State,
    applied: Option<EntryId>,
    membership: StoredMembership,
    /// Events up to here are gone from the table.
    compacted: Revision,
    snapshots: Snapshots,
    reader: StateReader,
    fatal: Fatal,
    _lock: DirLock,
}

/// Entries that have been applied in memory and not yet written.
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
    pub(super) async fn open(dir: &DataDir, fatal: Fatal, lock: DirLock) -> Result<Self, StoreError> {
        let path = dir.state_db();
        let mut conn = sql::open_writer(&path, Durability::Replayed).await?;
        sql::check_whole(&mut conn, &path).await?;
        sql::migrate(&mut conn, &MIGRATIONS, &path).await?;
        let loaded = load(&mut conn).await?;
        let events = EventLog::new(path, loaded.state.meta.revision, loaded.state.meta.compacted_through);
        let reader = StateReader::new(view(&loaded.state, loaded.applied), events);
        Ok(Self {
            conn,
            compacted: loaded.state.meta.compacted_through,
            state: loaded.state,
            applied: loaded.applied,
            membership: loaded.membership,
            snapshots: Snapshots::new(dir.clone()),
            reader,
            fatal,
            _lock: lock,
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
                let mut done = apply_batch(&mut self.state, index, proposal.batch());
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

    /// Writes the work in one transaction; then, and only then, tells everybody.
    async fn commit(&mut self, work: Work) -> Result<(), StoreError> {
        if work.entries == 0 {
            return Ok(());
        }
        let mut written: Vec<Row> = Vec::with_capacity(work.changes.len());
        let mut gone: Vec<&Change> = Vec::new();
        for change in &work.changes {
            match self.state.row(change)? {
                Some(row) => written.push(row),
                None => gone.push(change),
            }
        }
        let mark = |source| StoreError::Unreadable { what: "mark of this very batch", source };
        let applied = serde_json::to_string(&self.applied).map_err(mark)?;
        let through = self.state.meta.compacted_through;

        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        PUT_OBJECTS
            .run(&mut tx, &written, |query, row| {
                query.bind(row.kind.as_str()).bind(row.key.as_str()).bind(row.body.as_str())
            })
            .await?;
        for change in gone {
            sqlx::query("DELETE FROM objects WHERE kind = ? AND key = ?")
                .bind(change.kind().as_str())
                .bind(change.key())
                .execute(&mut *tx)
                .await?;
        }
        PUT_EVENTS
            .run(&mut tx, &work.events, |query, stored| {
                query
                    .bind(stored.revision.cast_signed())
                    .bind(stored.event.service.as_ref().map(ToString::to_string))
                    .bind(stored.event.kind.as_str())
                    .bind(String::from_utf8_lossy(&stored.json).into_owned())
            })
            .await?;
        if through > self.compacted {
            sqlx::query("DELETE FROM events WHERE revision <= ?").bind(through.cast_signed()).execute(&mut *tx).await?;
        }
        sql::set_mark(&mut tx, "applied", applied).await?;
        if work.membership_changed {
            let membership = serde_json::to_string(&self.membership).map_err(mark)?;
            sql::set_mark(&mut tx, "membership", membership).await?;
        }
        tx.commit().await?;

        self.compacted = through;
        let changed = (!work.changes.is_empty()).then(|| Changed::Objects(Arc::new(work.changes)));
        let events = work.events;
        self.reader.publish(view(&self.state, self.applied), changed, |log| log.extend(events, through));
        for (responder, replies) in work.answers {
            responder.send(replies);
        }
        Ok(())
    }

    async fn apply_all<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let mut work = Work::default();
        while let Some(item) = entries.try_next().await? {
            self.take(&mut work, item)?;
            if work.entries >= ENTRIES_MAX {
                self.commit(mem::take(&mut work)).await?;
            }
        }
        Ok(self.commit(work).await?)
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
        sql::run(&mut self.conn, format!("ATTACH '{quoted}' AS snap")).await?;
        let copied = copy_attached(&mut self.conn).await;
        // Also after a failure, so that the connection is what it was.
        let detached = sql::run(&mut self.conn, "DETACH snap".to_owned()).await;
        copied?;
        detached?;

        let loaded = load(&mut self.conn).await?;
        self.state = loaded.state;
        self.applied = loaded.applied;
        self.membership = loaded.membership;
        self.compacted = self.state.meta.compacted_through;
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

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
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
