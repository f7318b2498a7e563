//! The writer of the state file. What is applied is published from memory at once and written here a little later, so
//! that many entries cost one transaction: rows, events and the applied index always together. The file may therefore
//! trail the log, after a crash too; a start replays the difference, and the log is never purged beyond what a snapshot
//! made of this file holds.
//!
//! What waits is bounded in events; whoever applies beyond the bound waits for the file.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::id::Revision;
use baton_core::state::{Change, Row, State};
use openraft::alias::StoredMembershipOf;
use sqlx::{Connection, SqliteConnection};
use tokio::sync::{Notify, watch};

use super::lock::DirLock;
use super::sql::{self, ManyRows};
use super::types::{EntryId, TypeConfig};
use super::{Fatal, StateReader, StoreError, StoredEvent, chain};

/// How long applied entries gather before they are written. Longer saves little; shorter costs a transaction each.
const GATHER: Duration = Duration::from_millis(50);
/// Events that may wait for the file. Beyond it whoever applies waits too: memory is bounded, and the file's lag.
const WAITING_MAX: usize = 4_096;

static PUT_OBJECTS: LazyLock<ManyRows> = LazyLock::new(|| {
    ManyRows::new(
        "INSERT INTO objects (kind, key, body) VALUES",
        "(?,?,?)",
        "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body",
    )
});
static PUT_EVENTS: LazyLock<ManyRows> =
    LazyLock::new(|| ManyRows::new("INSERT INTO events (revision, service, type, body) VALUES", "(?,?,?,?)", ""));

/// What was applied and is not in the file yet.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// The objects touched.
    pub changes: BTreeSet<Change>,
    /// The events, in order.
    pub events: Vec<Arc<StoredEvent>>,
    /// The state after it all: a copy costs next to nothing.
    pub state: State,
    /// The last entry of it.
    pub applied: Option<EntryId>,
    /// The members, where they changed.
    pub membership: Option<StoredMembershipOf<TypeConfig>>,
}

#[derive(Debug, Default)]
struct Waiting {
    work: Option<Applied>,
    /// Counts what was handed over, so that a flush knows what it waits for.
    handed: u64,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    /// Something waits.
    some: Notify,
    /// Somebody waits for it.
    hurry: Notify,
    /// What of `handed` is in the file.
    written: watch::Sender<u64>,
    conn: tokio::sync::Mutex<SqliteConnection>,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands applied entries to the writer. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct StateWriter {
    shared: Arc<Shared>,
    fatal: Fatal,
}

impl StateWriter {
    /// Starts the writer on a file whose events up to `compacted` are gone.
    pub(super) fn start(
        conn: SqliteConnection,
        compacted: Revision,
        reader: StateReader,
        durable: watch::Receiver<Option<u64>>,
        fatal: Fatal,
        lock: DirLock,
    ) -> Self {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            some: Notify::new(),
            hurry: Notify::new(),
            written: watch::Sender::new(0),
            conn: tokio::sync::Mutex::new(conn),
        });
        let task = Task { shared: shared.clone(), compacted, reader, durable, fatal: fatal.clone() };
        let vital = fatal.vital("the writer of the state file");
        tokio::spawn(async move {
            let _vital = vital;
            task.run().await;
            drop(lock);
        });
        Self { shared, fatal }
    }

    /// Takes in what was applied; waits only when too much is waiting already.
    pub(super) async fn hand_over(&self, mut work: Applied) -> Result<(), StoreError> {
        let full = {
            let mut waiting = self.shared.waiting();
            waiting.handed += 1;
            match &mut waiting.work {
                Some(earlier) => {
                    earlier.changes.append(&mut work.changes);
                    earlier.events.append(&mut work.events);
                    earlier.state = work.state;
                    earlier.applied = work.applied;
                    earlier.membership = work.membership.or(earlier.membership.take());
                }
                nothing => *nothing = Some(work),
            }
            waiting.work.as_ref().is_some_and(|work| work.events.len() > WAITING_MAX)
        };
        self.shared.some.notify_one();
        if full { self.flush().await } else { Ok(()) }
    }

    /// Waits until everything that was handed over before is in the file.
    pub(super) async fn flush(&self) -> Result<(), StoreError> {
        let wanted = self.shared.waiting().handed;
        self.shared.hurry.notify_one();
        let mut written = self.shared.written.subscribe();
        let stopped = || StoreError::Stopped { reason: self.fatal.reason().unwrap_or_default().to_owned() };
        tokio::select! {
            reached = written.wait_for(|written| *written >= wanted) => reached.map(|_| ()).map_err(|_| stopped()),
            _ = self.fatal.raised() => Err(stopped()),
        }
    }

    /// The file's connection for one who replaces everything in it. What waits is dropped: it is older than that.
    pub(super) async fn take_over(&self) -> tokio::sync::MutexGuard<'_, SqliteConnection> {
        let conn = self.shared.conn.lock().await;
        let handed = {
            let mut waiting = self.shared.waiting();
            waiting.work = None;
            waiting.handed
        };
        self.shared.written.send_replace(handed);
        conn
    }

    /// Lets the writer finish what waits, and end.
    pub(super) fn close(&self) {
        self.shared.waiting().closing = true;
        self.shared.some.notify_one();
        self.shared.hurry.notify_one();
    }
}

struct Task {
    shared: Arc<Shared>,
    /// Events up to here are gone from the table.
    compacted: Revision,
    reader: StateReader,
    /// The last entry in the log's own file.
    durable: watch::Receiver<Option<u64>>,
    fatal: Fatal,
}

impl Task {
    async fn run(mut self) {
        loop {
            let (idle, closing) = {
                let waiting = self.shared.waiting();
                (waiting.work.is_none(), waiting.closing)
            };
            if idle && closing {
                return;
            }
            if idle {
                self.shared.some.notified().await;
                continue;
            }
            if !closing {
                tokio::select! {
                    () = self.shared.hurry.notified() => {}
                    () = tokio::time::sleep(GATHER) => {}
                }
            }
            if let Err(error) = self.write_what_waits().await {
                let error = io::Error::from(error);
                self.fatal.raise(format!("the state file cannot be written: {}", chain(&error)));
                return;
            }
        }
    }

    async fn write_what_waits(&mut self) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        // The connection first, then the work: whoever has taken the connection over has dropped the work, too.
        let mut conn = shared.conn.lock().await;
        let (work, handed) = {
            let mut waiting = shared.waiting();
            (waiting.work.take(), waiting.handed)
        };
        if let Some(work) = work {
            self.log_holds(work.applied).await?;
            let through = work.state.meta.compacted_through;
            write(&mut conn, &work, (through > self.compacted).then_some(through)).await?;
            self.compacted = self.compacted.max(through);
            self.reader.events().written(work.state.meta.revision);
        }
        shared.written.send_replace(handed);
        Ok(())
    }
}

impl Task {
    /// Waits until the log's file holds what the state's is about to: a majority may have committed an entry that this
    /// node's own disk is still busy with, and a state ahead of its log looks like a log that lost its end.
    async fn log_holds(&mut self, applied: Option<EntryId>) -> Result<(), StoreError> {
        let wanted = applied.map(|id| id.index);
        tokio::select! {
            held = self.durable.wait_for(|last| *last >= wanted) => match held {
                Ok(_) => Ok(()),
                Err(_) => Err(StoreError::Stopped { reason: "the log is no longer written".to_owned() }),
            },
            reason = self.fatal.raised() => Err(StoreError::Stopped { reason }),
        }
    }
}

/// One transaction: every changed row, every event, the applied index.
async fn write(conn: &mut SqliteConnection, work: &Applied, forget: Option<Revision>) -> Result<(), StoreError> {
    let mut written: Vec<Row> = Vec::with_capacity(work.changes.len());
    let mut gone: Vec<&Change> = Vec::new();
    for change in &work.changes {
        match work.state.row(change)? {
            Some(row) => written.push(row),
            None => gone.push(change),
        }
    }
    let mark = |source| StoreError::Unreadable { what: "mark of this very batch", source };
    let applied = serde_json::to_string(&work.applied).map_err(mark)?;

    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await?;
    PUT_OBJECTS
        .run(&mut tx, &written, |query, row| query.bind(row.kind.as_str()).bind(row.key.clone()).bind(row.body.clone()))
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
    if let Some(through) = forget {
        sqlx::query("DELETE FROM events WHERE revision <= ?").bind(through.cast_signed()).execute(&mut *tx).await?;
    }
    sql::set_mark(&mut tx, "applied", applied).await?;
    if let Some(membership) = &work.membership {
        sql::set_mark(&mut tx, "membership", serde_json::to_string(membership).map_err(mark)?).await?;
    }
    tx.commit().await?;
    Ok(())
}
