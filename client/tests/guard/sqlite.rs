//! The statements for SQLite, on a real file and with two connections.

use std::time::Duration;

use baton_client::guard::sql::sqlite::{ADMIT, CREATE, HIGHEST, HOLDS};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

async fn connect(room: &TempDir, busy: Duration) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(room.path().join("data.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(busy)
        .connect()
        .await
        .expect("opened")
}

async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// How many rows the admission changed.
async fn admit(connection: &mut SqliteConnection, resource: &str, token: i64) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(ADMIT).bind(resource).bind(token).execute(connection).await?;
    Ok(done.rows_affected())
}

async fn highest(connection: &mut SqliteConnection, resource: &str) -> Option<i64> {
    sqlx::query_scalar(HIGHEST).bind(resource).fetch_optional(connection).await.expect("read")
}

#[tokio::test]
async fn one_row_for_the_highest_and_its_equals_none_for_the_rest() {
    let room = tempfile::tempdir().expect("a directory");
    let mut one = connect(&room, Duration::ZERO).await;
    run(&mut one, CREATE).await;
    run(&mut one, CREATE).await;
    assert_eq!(highest(&mut one, "orders").await, None);
    let large = (1 << 53) - 1;
    for (token, rows) in [(9, 1), (9, 1), (10, 1), (9, 0), (1, 0), (10, 1), (1 << 40, 1), (11, 0), (large, 1)] {
        assert_eq!(admit(&mut one, "orders", token).await.expect("answered"), rows, "{token}");
    }
    assert_eq!(admit(&mut one, "bills", 3).await.expect("answered"), 1, "another resource has its own");
    assert_eq!((highest(&mut one, "orders").await, highest(&mut one, "bills").await), (Some(large), Some(3)));
    assert!(admit(&mut one, "orders", 0).await.is_err(), "0 is no token");
    assert!(admit(&mut one, "fresh", -5).await.is_err(), "nor is what is below");
    let text = sqlx::query(ADMIT).bind("orders").bind("later").execute(&mut one).await;
    assert!(text.is_err(), "text is higher than every number in a table that is not strict");
}

#[tokio::test]
async fn a_slow_transaction_of_the_old_holder_ends_before_the_new_token_is_recorded() {
    let room = tempfile::tempdir().expect("a directory");
    let mut old = connect(&room, Duration::ZERO).await;
    let mut new = connect(&room, Duration::ZERO).await;
    run(&mut old, CREATE).await;
    run(&mut old, "CREATE TABLE work (n INTEGER)").await;
    run(&mut old, "BEGIN").await;
    assert_eq!(admit(&mut old, "orders", 5).await.expect("answered"), 1);
    let busy = admit(&mut new, "orders", 7).await.expect_err("the old one has the file");
    assert!(busy.to_string().contains("locked"), "{busy}");
    run(&mut old, "INSERT INTO work VALUES (5)").await;
    run(&mut old, "COMMIT").await;
    assert_eq!(admit(&mut new, "orders", 7).await.expect("answered"), 1);
    run(&mut old, "BEGIN IMMEDIATE").await;
    assert_eq!(admit(&mut old, "orders", 5).await.expect("answered"), 0, "and now it is stale");
    run(&mut old, "ROLLBACK").await;
}

#[tokio::test]
async fn who_reads_first_and_admits_later_is_told_to_begin_again() {
    let room = tempfile::tempdir().expect("a directory");
    let mut old = connect(&room, Duration::ZERO).await;
    let mut new = connect(&room, Duration::ZERO).await;
    run(&mut old, CREATE).await;
    assert_eq!(admit(&mut old, "orders", 5).await.expect("answered"), 1);
    run(&mut old, "BEGIN").await;
    assert_eq!(highest(&mut old, "orders").await, Some(5));
    assert_eq!(admit(&mut new, "orders", 7).await.expect("answered"), 1);
    assert!(admit(&mut old, "orders", 5).await.is_err(), "its snapshot is old: SQLITE_BUSY_SNAPSHOT, and no row");
    run(&mut old, "ROLLBACK").await;
    assert_eq!(highest(&mut old, "orders").await, Some(7));
}

#[tokio::test]
async fn the_condition_holds_for_the_admitted_token_and_no_other() {
    let room = tempfile::tempdir().expect("a directory");
    let mut one = connect(&room, Duration::ZERO).await;
    run(&mut one, CREATE).await;
    run(&mut one, "CREATE TABLE jobs (id INTEGER PRIMARY KEY, state TEXT); INSERT INTO jobs VALUES (1, 'new')").await;
    let guarded = format!("UPDATE jobs SET state = ?3 WHERE id = ?4 AND {HOLDS}");
    let mut update = async |token: i64| {
        let query = sqlx::query(sqlx::AssertSqlSafe(guarded.clone())).bind("orders").bind(token).bind("done").bind(1);
        query.execute(&mut one).await.expect("answered").rows_affected()
    };
    assert_eq!(update(5).await, 0, "never admitted");
    let mut other = connect(&room, Duration::ZERO).await;
    assert_eq!(admit(&mut other, "orders", 5).await.expect("answered"), 1);
    assert_eq!([update(4).await, update(5).await, update(6).await], [0, 1, 0]);
    assert_eq!(admit(&mut other, "orders", 6).await.expect("answered"), 1);
    assert_eq!([update(5).await, update(6).await], [0, 1]);
    other.close().await.expect("closed");
}
