//! A resource in SQLite that checks fencing tokens: one number in a table, changed in the same transaction that admits
//! the token.
//!
//! ```text
//! cargo run -p baton-client --example guarded_sqlite -- data.db 7 100     # admitted
//! cargo run -p baton-client --example guarded_sqlite -- data.db 6 200     # refused: token 6 is stale: 7 has been seen
//! cargo run -p baton-client --example guarded_sqlite -- data.db           # 100
//! ```
//!
//! What matters is `put`. The row of the token has the database's own durability, so there is nothing else to keep.

use std::path::Path;
use std::time::Duration;

use baton_client::guard::{Stale, sql::sqlite};
use baton_core::id::Token;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

/// The name under which the table of the guard knows this resource.
const RESOURCE: &str = "the-value";
/// How long a writer waits for another one.
const BUSY_WITHIN: Duration = Duration::from_secs(10);

/// The database, with its tables.
#[derive(Clone)]
pub(crate) struct Database(SqlitePool);

impl Database {
    /// Opens the file and makes what is missing.
    pub(crate) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With less the last commits, and with them the highest token, may be lost with the power.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_WITHIN);
        let pool = SqlitePoolOptions::new().acquire_timeout(BUSY_WITHIN).connect_with(options).await?;
        sqlx::query(sqlite::CREATE).execute(&pool).await?;
        let table =
            "CREATE TABLE IF NOT EXISTS work (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL) STRICT";
        sqlx::query(table).execute(&pool).await?;
        Ok(Self(pool))
    }

    /// Stores `value` under `token`: the whole of the guard is in these lines.
    pub(crate) async fn put(&self, token: Token, value: i64) -> Result<Result<(), Stale>, sqlx::Error> {
        // SQLite's integers have a sign. What does not fit is no token of Baton's, and higher than all of them.
        let number = i64::try_from(token.0).map_err(|error| sqlx::Error::Encode(Box::new(error)))?;
        let mut work = self.0.begin_with("BEGIN IMMEDIATE").await?;
        let admitted = sqlx::query(sqlite::ADMIT).bind(RESOURCE).bind(number).execute(&mut *work).await?;
        if admitted.rows_affected() == 0 {
            let highest: i64 = sqlx::query_scalar(sqlite::HIGHEST).bind(RESOURCE).fetch_one(&mut *work).await?;
            work.rollback().await?;
            return Ok(Err(Stale { presented: token, highest: Token(highest.unsigned_abs()) }));
        }
        let upsert =
            "INSERT INTO work (id, value) VALUES (1, ?1) ON CONFLICT (id) DO UPDATE SET value = excluded.value";
        sqlx::query(upsert).bind(value).execute(&mut *work).await?;
        work.commit().await?;
        Ok(Ok(()))
    }

    /// The value that stands.
    pub(crate) async fn get(&self) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT value FROM work").fetch_optional(&self.0).await
    }

    /// Lets the file go.
    pub(crate) async fn close(self) {
        self.0.close().await;
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let usage = "guarded_sqlite FILE [TOKEN VALUE]";
    let database = Database::open(Path::new(args.first().ok_or(usage)?)).await?;
    match args.get(1..) {
        Some([token, value]) => {
            let token = Token(token.parse()?);
            match database.put(token, value.parse()?).await? {
                Ok(()) => println!("admitted"),
                Err(stale) => return Err(format!("refused: {stale}").into()),
            }
        }
        Some([]) => match database.get().await? {
            Some(value) => println!("{value}"),
            None => println!("nothing was stored yet"),
        },
        Some([..]) | None => return Err(usage.into()),
    }
    database.close().await;
    Ok(())
}
