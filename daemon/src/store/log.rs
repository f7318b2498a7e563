//! The Raft log: `raft.db`, and the retained entries in memory so that readers do not touch SQLite.
//!
//! One task writes. Votes, appends, truncations, purges and commit marks go through one ordered queue, because a vote
//! and an append that change places lose committed data. The task takes what has gathered, commits it in one
//! transaction, one fsync, and only then answers. After an error it stops the node: what a failed fsync left on disk
//! cannot be known, so nothing is ever tried again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use baton_core::id::NodeId;
use openraft::alias::VoteOf;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{OptionalSend, entry::RaftEntry};
use sqlx::{Connection, Row, SqliteConnection};
use tokio::sync::{mpsc, oneshot, watch};

use super::lock::{DataDir, DirLock};
use super::sql::{self, Durability, ManyRows};
use super::types::{Entry, EntryId, PayloadKind, SpeltEntry, TypeConfig, entry_weight};
use super::{Fatal, StoreError};

/// Writes that may wait for the writer. openraft itself keeps few in flight; beyond this it is made to wait.
const QUEUE: usize = 1_024;
/// Purged rows deleted in one go, so that no append waits behind a long deletion.
const PURGE_ROWS: u64 = 1_000;
/// How long the writer rests between such deletions when it has nothing else to do.
const PURGE_PAUSE: Duration = Duration::from_millis(5);
/// How often it is written at least how far is committed, when appends go on without anything else.
const COMMITTED_EVERY: Duration = Duration::from_secs(1);
/// The bytes of entries that one message to a follower carries at most (one entry always goes).
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/raft");
static INSERT: LazyLock<ManyRows> =
    LazyLock::new(|| ManyRows::new("INSERT OR REPLACE INTO log (idx, term, kind, body) VALUES", "(?,?,?,?)", ""));

type Vote = VoteOf<TypeConfig>;
type Ack = oneshot::Sender<io::Result<()>>;

enum Write {
    Append(Vec<SpeltEntry>, IOFlushed<TypeConfig>),
    Vote(String, Ack),
    Committed(String),
    Truncate { from: u64, ack: Ack },
    Purge { through: u64, id: String, ack: Ack },
}

enum Done {
    Flushed(IOFlushed<TypeConfig>),
    Ack(Ack),
}

/// What is kept of the log, readable without SQLite.
#[derive(Debug, Default)]
struct Retained {
    entries: BTreeMap<u64, Entry>,
    vote: Option<Vote>,
    committed: Option<EntryId>,
    purged: Option<EntryId>,
}

/// How heavy the retained entries are, for whoever decides when to make a snapshot.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogGauge(Arc<AtomicUsize>);

impl LogGauge {
    /// About how many bytes the retained entries have.
    pub(crate) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn weigh<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> usize {
    entries.into_iter().map(entry_weight).sum()
}

/// The log of one node. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    retained: Arc<RwLock<Retained>>,
    queue: mpsc::Sender<Write>,
    gauge: LogGauge,
    durable: watch::Receiver<Option<u64>>,
    is_new: bool,
}

impl Debug for Write {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Append(..) => "append",
            Self::Vote(..) => "vote",
            Self::Committed(..) => "committed",
            Self::Truncate { .. } => "truncate",
            Self::Purge { .. } => "purge",
        })
    }
}

impl LogStore {
    /// Opens the file, checks that it is whole and this node's own, reads it, and starts the writer.
    pub(super) async fn open(dir: &DataDir, node: NodeId, fatal: Fatal, lock: DirLock) -> Result<Self, StoreError> {
        let path = dir.raft_db();
        let mut conn = sql::open_writer(&path, Durability::Full).await?;
        sql::check_version(&mut conn).await?;
        sql::check_whole(&mut conn, &path).await?;
        sql::migrate(&mut conn, &MIGRATIONS, &path).await?;

        let found: Option<NodeId> = sql::mark(&mut conn, "node_id").await?;
        match found {
            Some(found) if found != node => {
                return Err(StoreError::OtherNode { dir: dir.path.clone(), found, wanted: node });
            }
            Some(_) => {}
            None => sql::set_mark(&mut conn, "node_id", node.to_string()).await?,
        }

        let retained = read_all(&mut conn, dir).await?;
        let gauge = LogGauge::default();
        gauge.add(weigh(retained.entries.values()));
        let (queue, waiting) = mpsc::channel(QUEUE);
        let low = retained.entries.keys().next().copied().unwrap_or(u64::MAX);
        let last = retained.entries.keys().next_back().copied().or(retained.purged.map(|id| id.index));
        let (durable_to, durable) = watch::channel(last);
        let writer = Writer {
            conn,
            fatal,
            _lock: lock,
            low,
            doomed: None,
            committed: None,
            committed_at: Instant::now(),
            durable: durable_to,
        };
        tokio::spawn(writer.run(waiting));
        Ok(Self { retained: Arc::new(RwLock::new(retained)), queue, gauge, durable, is_new: found.is_none() })
    }

    /// Whether the file was made by this very opening.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// The last entry that is safely in the file, as it rises (and falls, where a tail that nobody committed is cut off).
    pub(super) fn durable(&self) -> watch::Receiver<Option<u64>> {
        self.durable.clone()
    }

    /// The term of the last vote, and the index of the last entry, purged ones included.
    pub(super) fn term_and_last(&self) -> (Option<u64>, Option<u64>) {
        let retained = self.read();
        let last = retained.entries.keys().next_back().copied().or(retained.purged.map(|id| id.index));
        (retained.vote.map(|vote| vote.leader_id.term), last)
    }

    /// How heavy the log is.
    pub(crate) fn gauge(&self) -> LogGauge {
        self.gauge.clone()
    }

    fn read(&self) -> RwLockReadGuard<'_, Retained> {
        self.retained.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Retained> {
        self.retained.write().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, write: Write) -> io::Result<()> {
        self.queue.send(write).await.map_err(|_| io::Error::other("the log's writer has stopped"))
    }

    async fn send_and_wait(&self, write: impl FnOnce(Ack) -> Write) -> io::Result<()> {
        let (ack, answer) = oneshot::channel();
        self.send(write(ack)).await?;
        answer.await.map_err(|_| io::Error::other("the log's writer has stopped"))?
    }
}

/// Reads the file into memory and checks that the log has no hole.
async fn read_all(conn: &mut SqliteConnection, dir: &DataDir) -> Result<Retained, StoreError> {
    let corrupt = |detail: String| StoreError::Corrupt { path: dir.raft_db(), detail };
    let purged: Option<EntryId> = sql::mark(conn, "purged").await?;
    if let Some(purged) = &purged {
        // What a crash left of a deletion that had been decided.
        sqlx::query("DELETE FROM log WHERE idx <= ?").bind(to_sql(purged.index)).execute(&mut *conn).await?;
    }
    let mut entries = BTreeMap::new();
    let mut expected = purged.map(|id| id.index + 1);
    for row in sqlx::query("SELECT idx, term, kind, body FROM log ORDER BY idx").fetch_all(&mut *conn).await? {
        let index = row.try_get::<i64, _>(0)?.cast_unsigned();
        let term = row.try_get::<i64, _>(1)?.cast_unsigned();
        let word: &str = row.try_get(2)?;
        let kind = PayloadKind::parse(word).ok_or_else(|| corrupt(format!("entry {index} is a \"{word}\"")))?;
        if expected.is_some_and(|expected| expected != index) {
            return Err(corrupt(format!("the log has a hole before entry {index}")));
        }
        expected = Some(index + 1);
        let entry = SpeltEntry::read(index, term, kind, row.try_get(3)?)
            .map_err(|error| corrupt(format!("entry {index} does not parse: {error}")))?;
        entries.insert(index, entry);
    }
    Ok(Retained {
        entries,
        vote: sql::mark(conn, "vote").await?,
        committed: sql::mark::<Option<EntryId>>(conn, "committed").await?.flatten(),
        purged,
    })
}

/// SQLite's integers are signed; indexes and terms never come near the difference.
fn to_sql(number: u64) -> i64 {
    number.cast_signed()
}

/// The one task that writes.
struct Writer {
    conn: SqliteConnection,
    fatal: Fatal,
    _lock: DirLock,
    /// The lowest row in the table, or above it.
    low: u64,
    /// Rows up to here are purged and wait for their deletion.
    doomed: Option<u64>,
    /// How far is committed, where that is not in the file yet. A start that knows less hears the rest from the leader, so
    /// it is never worth a transaction, let alone an fsync, of its own.
    committed: Option<String>,
    /// When it was last written.
    committed_at: Instant,
    /// The last entry in the file.
    durable: watch::Sender<Option<u64>>,
}

impl Writer {
    async fn run(mut self, mut waiting: mpsc::Receiver<Write>) {
        let _vital = self.fatal.vital("the writer of the Raft log");
        let mut batch = Vec::new();
        let mut done = Vec::new();
        loop {
            if self.doomed.is_some() {
                tokio::select! {
                    biased;
                    taken = waiting.recv_many(&mut batch, QUEUE) => if taken == 0 { break },
                    () = tokio::time::sleep(PURGE_PAUSE) => {}
                }
            } else if waiting.recv_many(&mut batch, QUEUE).await == 0 {
                break;
            }
            let result = self.commit(&mut batch, &mut done).await;
            if let Ok(last) = &result {
                self.durable.send_if_modified(|durable| std::mem::replace(durable, *last) != *last);
            }
            let failure = result.err().map(|error| format!("the Raft log cannot be written: {error}"));
            if let Some(reason) = &failure {
                self.fatal.raise(reason.clone());
            }
            for done in done.drain(..) {
                let answer = failure.as_ref().map_or(Ok(()), |reason| Err(io::Error::other(reason.clone())));
                match done {
                    Done::Flushed(callback) => callback.io_completed(answer),
                    // Whoever does not wait any more has stopped; the write stands all the same.
                    Done::Ack(ack) => drop(ack.send(answer)),
                }
            }
            if failure.is_some() {
                return;
            }
        }
        sql::close(self.conn).await;
    }

    /// Everything that has gathered, in its order, in one transaction. Answers what the last entry in the file is then.
    async fn commit(&mut self, batch: &mut Vec<Write>, done: &mut Vec<Done>) -> Result<Option<u64>, sqlx::Error> {
        let mut rows: Vec<SpeltEntry> = Vec::new();
        // Everyone is to be answered, whatever fails: so the callbacks are taken out first.
        let mut steps = Vec::with_capacity(batch.len());
        for write in batch.drain(..) {
            match write {
                Write::Append(entries, callback) => {
                    done.push(Done::Flushed(callback));
                    steps.push(Step::Insert(entries));
                }
                Write::Vote(json, ack) => {
                    done.push(Done::Ack(ack));
                    steps.push(Step::Vote(json));
                }
                Write::Committed(json) => self.committed = Some(json),
                Write::Truncate { from, ack } => {
                    done.push(Done::Ack(ack));
                    steps.push(Step::Truncate(from));
                }
                Write::Purge { through, id, ack } => {
                    done.push(Done::Ack(ack));
                    steps.push(Step::Purge(through, id));
                }
            }
        }
        let last = steps.iter().fold(*self.durable.borrow(), |last, step| step.last_after(last));
        if steps.is_empty() && self.doomed.is_none() {
            return Ok(last);
        }
        let committed_is_due = self.committed.is_some() && self.committed_at.elapsed() >= COMMITTED_EVERY;
        if self.doomed.is_none() && !committed_is_due && steps.iter().all(|step| matches!(step, Step::Insert(_))) {
            // The common case: one statement is a transaction by itself, and each further one is a hop to SQLite's thread.
            for step in &mut steps {
                if let Step::Insert(entries) = step {
                    rows.append(entries);
                }
            }
            if ManyRows::is_one_statement(rows.len()) {
                return insert(&mut self.conn, &mut rows, &mut self.low).await.map(|()| last);
            }
            steps = vec![Step::Insert(rows)];
            rows = Vec::new();
        }
        let mut tx = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        for step in steps {
            match step {
                Step::Insert(mut entries) => rows.append(&mut entries),
                Step::Vote(json) => sql::set_mark(&mut tx, "vote", json).await?,
                Step::Truncate(from) => {
                    insert(&mut tx, &mut rows, &mut self.low).await?;
                    sqlx::query("DELETE FROM log WHERE idx >= ?").bind(to_sql(from)).execute(&mut *tx).await?;
                }
                Step::Purge(through, id) => {
                    insert(&mut tx, &mut rows, &mut self.low).await?;
                    sql::set_mark(&mut tx, "purged", id).await?;
                    self.doomed = Some(through.max(self.doomed.unwrap_or(0)));
                }
            }
        }
        insert(&mut tx, &mut rows, &mut self.low).await?;
        if let Some(json) = self.committed.take() {
            sql::set_mark(&mut tx, "committed", json).await?;
            self.committed_at = Instant::now();
        }
        if let Some(through) = self.doomed {
            let upto = through.min(self.low.saturating_add(PURGE_ROWS));
            sqlx::query("DELETE FROM log WHERE idx <= ?").bind(to_sql(upto)).execute(&mut *tx).await?;
            self.low = upto + 1;
            if upto == through {
                self.doomed = None;
            }
        }
        tx.commit().await.map(|()| last)
    }
}

enum Step {
    Insert(Vec<SpeltEntry>),
    Vote(String),
    Truncate(u64),
    Purge(u64, String),
}

impl Step {
    /// The last entry of a log that ended with `last`, after this step.
    fn last_after(&self, last: Option<u64>) -> Option<u64> {
        match self {
            Self::Insert(entries) => entries.last().map(|entry| entry.index).or(last),
            Self::Vote(_) => last,
            Self::Truncate(from) => last.min(from.checked_sub(1)),
            Self::Purge(through, _) => last.max(Some(*through)),
        }
    }
}

async fn insert(tx: &mut SqliteConnection, rows: &mut Vec<SpeltEntry>, low: &mut u64) -> Result<(), sqlx::Error> {
    let Some(first) = rows.first() else { return Ok(()) };
    *low = first.index.min(*low);
    INSERT
        .run(tx, rows, |query, row| {
            query.bind(to_sql(row.index)).bind(to_sql(row.term)).bind(row.kind.as_str()).bind(row.body.clone())
        })
        .await?;
    rows.clear();
    Ok(())
}

fn json<T: serde::Serialize>(value: &T) -> io::Result<String> {
    serde_json::to_string(value).map_err(io::Error::other)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        Ok(self.read().entries.range(range).map(|(_, entry)| entry.clone()).collect())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.read().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        let mut bytes = 0;
        let retained = self.read();
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry_weight(entry);
            first || bytes <= MESSAGE_BYTES
        };
        Ok(retained.entries.range(start..end).map(|(_, entry)| entry).take_while(fits).cloned().collect())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let retained = self.read();
        let last = retained.entries.values().next_back().map(RaftEntry::log_id);
        Ok(LogState { last_purged_log_id: retained.purged, last_log_id: last.or(retained.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let text = json(vote)?;
        self.send_and_wait(|ack| Write::Vote(text, ack)).await?;
        self.write().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<EntryId>) -> Result<(), io::Error> {
        let text = json(&committed)?;
        self.write().committed = committed;
        // Not waited for: it rides with the next batch, and a lost one only means a longer replay.
        self.send(Write::Committed(text)).await
    }

    async fn read_committed(&mut self) -> Result<Option<EntryId>, io::Error> {
        Ok(self.read().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries = entries.into_iter();
        let mut rows = Vec::with_capacity(entries.size_hint().0);
        {
            let mut retained = self.write();
            for entry in entries {
                rows.push(SpeltEntry::of(&entry).map_err(io::Error::other)?);
                self.gauge.add(entry_weight(&entry));
                if let Some(replaced) = retained.entries.insert(entry.log_id.index, entry) {
                    self.gauge.remove(entry_weight(&replaced));
                }
            }
        }
        self.send(Write::Append(rows, callback)).await
    }

    async fn truncate_after(&mut self, last: Option<EntryId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.send_and_wait(|ack| Write::Truncate { from, ack }).await?;
        let cut = self.write().entries.split_off(&from);
        self.gauge.remove(weigh(cut.values()));
        Ok(())
    }

    async fn purge(&mut self, id: EntryId) -> Result<(), io::Error> {
        let text = json(&id)?;
        self.send_and_wait(|ack| Write::Purge { through: id.index, id: text, ack }).await?;
        let mut retained = self.write();
        let kept = retained.entries.split_off(&(id.index + 1));
        self.gauge.remove(weigh(retained.entries.values()));
        retained.entries = kept;
        retained.purged = Some(id);
        Ok(())
    }
}
