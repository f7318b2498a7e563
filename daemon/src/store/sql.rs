//! How both files are opened, and statements of several rows. What the tables mean is said elsewhere.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row, Sqlite, SqliteConnection};

use super::StoreError;

/// How long a statement waits for another connection's lock. The writers have their files for themselves, so only a
/// checkpoint or a snapshot is ever waited for.
const BUSY: Duration = Duration::from_secs(10);
/// Pages in the write-ahead log before they are moved into the file (SQLite's own default is 1000). Each move costs two
/// fsyncs that an append waits for; sixteen megabytes of it are read back in a moment at a start.
const CHECKPOINT_PAGES: &str = "4000";
/// Prepared statements kept for one connection: more than there are spellings in this room.
const STATEMENTS: usize = 64;
/// The first SQLite that never loses a WAL reset; older ones can corrupt the log.
const SQLITE_FLOOR: (u32, u32, u32) = (3, 51, 3);

/// How much of a commit must be on disk before it is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Durability {
    /// All of it: the log.
    Full,
    /// It may be lost with the power, but only from the end: the state, which is replayed.
    Replayed,
}

/// Opens a file for writing, and makes it if it is not there.
pub(super) async fn open_writer(path: &Path, durability: Durability) -> Result<SqliteConnection, StoreError> {
    let synchronous = match durability {
        Durability::Full => SqliteSynchronous::Full,
        Durability::Replayed => SqliteSynchronous::Normal,
    };
    let locking = match durability {
        // Nobody else opens the log: no lock is taken and given back for each append.
        Durability::Full => SqliteLockingMode::Exclusive,
        Durability::Replayed => SqliteLockingMode::Normal,
    };
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .locking_mode(locking)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(synchronous)
        .foreign_keys(false)
        .busy_timeout(BUSY)
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

/// Opens a file for reading only.
pub(super) async fn open_reader(path: &Path) -> Result<SqliteConnection, StoreError> {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(BUSY)
        .statement_cache_capacity(STATEMENTS)
        .disable_statement_logging()
        .connect()
        .await
        .map_err(|source| StoreError::Open { path: path.to_owned(), source })
}

/// Refuses an SQLite that is older than what this program relies on.
pub(super) async fn check_version(conn: &mut SqliteConnection) -> Result<(), StoreError> {
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(conn).await?;
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    if (next(), next(), next()) < SQLITE_FLOOR {
        return Err(StoreError::OldSqlite { version });
    }
    Ok(())
}

/// Brings a file's tables to this version. Forward only.
pub(super) async fn migrate(
    conn: &mut SqliteConnection,
    migrations: &sqlx::migrate::Migrator,
    path: &Path,
) -> Result<(), StoreError> {
    // Not `run`: its future is not `Send` in the compiler's eyes, and sqlx offers this for that very case.
    let result = migrations.run_direct(None, conn, false).await;
    result.map_err(|source| StoreError::Migrate { path: path.to_owned(), source })
}

/// Asks SQLite whether the file is whole.
pub(super) async fn check_whole(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let corrupt = |detail: String| StoreError::Corrupt { path: path.to_owned(), detail };
    match sqlx::query("PRAGMA quick_check(1)").fetch_one(conn).await {
        Ok(row) => {
            let verdict: String = row.try_get(0)?;
            if verdict == "ok" { Ok(()) } else { Err(corrupt(verdict)) }
        }
        Err(error) => Err(corrupt(error.to_string())),
    }
}

/// How many rows one statement may carry, largest first. Fixed sizes, so that the statements stay prepared.
const SIZES: [usize; 7] = [64, 32, 16, 8, 4, 2, 1];

/// An `INSERT` (or the like) for several rows at once: a head, one group of placeholders a row, a tail. One statement is
/// one hop to SQLite's thread, which is what a row costs most.
#[derive(Debug)]
pub(super) struct ManyRows {
    spellings: [String; SIZES.len()],
}

impl ManyRows {
    /// The statement in all its sizes.
    pub(super) fn new(head: &str, row: &str, tail: &str) -> Self {
        Self { spellings: SIZES.map(|size| format!("{head} {} {tail}", vec![row; size].join(","))) }
    }

    /// Whether so many rows are one statement, which needs no transaction around it.
    pub(super) fn is_one_statement(rows: usize) -> bool {
        SIZES.contains(&rows)
    }

    /// Runs it over all rows. `bind` adds one row's values.
    pub(super) async fn run<T>(
        &'static self,
        conn: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(
            sqlx::query::Query<'static, Sqlite, SqliteArguments>,
            &T,
        ) -> sqlx::query::Query<'static, Sqlite, SqliteArguments>,
    ) -> Result<(), sqlx::Error> {
        let mut left = rows;
        while !left.is_empty() {
            // The last size is one, so there always is one that fits.
            let slot = SIZES.iter().position(|&size| size <= left.len()).unwrap_or(SIZES.len() - 1);
            let (now, later) = left.split_at(SIZES[slot]);
            let mut query = sqlx::query(self.spellings[slot].as_str());
            for row in now {
                query = bind(query, row);
            }
            query.execute(&mut *conn).await?;
            left = later;
        }
        Ok(())
    }
}

/// Reads one mark of a file's `marks` table.
pub(super) async fn mark<T: serde::de::DeserializeOwned>(
    conn: &mut SqliteConnection,
    key: &'static str,
) -> Result<Option<T>, StoreError> {
    let value: Option<String> =
        sqlx::query_scalar("SELECT value FROM marks WHERE key = ?").bind(key).fetch_optional(conn).await?;
    value
        .map(|text| serde_json::from_str(&text).map_err(|source| StoreError::Unreadable { what: key, source }))
        .transpose()
}

/// Writes one mark.
pub(super) async fn set_mark(conn: &mut SqliteConnection, key: &'static str, value: String) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO marks (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value")
        .bind(key)
        .bind(value)
        .execute(conn)
        .await
        .map(|_| ())
}

/// Copies the whole of a database as it is now, read consistently, into a new file.
pub(super) async fn vacuum_into(conn: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    sqlx::query("VACUUM INTO ?").bind(path.to_string_lossy().into_owned()).execute(conn).await?;
    Ok(())
}

/// Runs a statement whose text is put together here from constants only.
pub(super) async fn run(conn: &mut SqliteConnection, text: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await.map(|_| ())
}

/// Closes a connection, so that its file is let go of at a known time.
pub(super) async fn close(conn: SqliteConnection) {
    if let Err(error) = conn.close().await {
        tracing::debug!(%error, "a connection did not close cleanly");
    }
}
