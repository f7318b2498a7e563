//! The statements that keep the highest token in a database, beside the work that it guards and in the same
//! transaction. Text only: which driver sends them is the user's affair.
//!
//! One table has a row for each guarded resource. *Admit* takes a token and changes one row where the token is the
//! highest or equal to it, and none where it is stale: the count of changed rows is the answer. It is one statement, so
//! nothing can come between the comparison and the writing.
//!
//! The order that is always right: begin; *admit* as the first statement; where it changed no row, roll back and stop;
//! do the work; commit. The row is locked from the admission to the end of the transaction, so a transaction of an old
//! holder that is slow makes the new one wait, and is committed before the new token is recorded or never: it can't be
//! committed after it.
//!
//! The parameters are, in this order, the name of the resource and the token, for every statement but `CREATE`.

/// For SQLite 3.24 or later.
///
/// All that a database file guards may share one row, for it has one writer at a time anyway.
///
/// - Begin with `BEGIN IMMEDIATE`, or make the admission the first statement of the transaction. A transaction that
///   reads first and writes then may fail with `SQLITE_BUSY_SNAPSHOT`, and must be begun again from its start.
/// - Set `PRAGMA busy_timeout`: a writer in another process makes this one wait, and "busy" says nothing about the
///   token.
/// - With `PRAGMA synchronous` below `FULL` the last commits may be lost with the power. Token and work are lost
///   together, but a lower token could then be admitted again.
pub mod sqlite {
    /// Makes the table. `STRICT` (SQLite 3.37) refuses a token that is text; leave the word out for older ones.
    pub const CREATE: &str = "CREATE TABLE IF NOT EXISTS baton_guard (
    resource TEXT PRIMARY KEY,
    token INTEGER NOT NULL CHECK (token > 0)
) STRICT";

    /// Admits a token: one row changed means admitted, none means stale. Parameters: resource, token.
    pub const ADMIT: &str = "INSERT INTO baton_guard (resource, token) VALUES (?1, ?2)
ON CONFLICT (resource) DO UPDATE SET token = excluded.token WHERE excluded.token >= baton_guard.token";

    /// The highest token, for the words of a refusal; no row when there was none yet. Parameter: resource.
    pub const HIGHEST: &str = "SELECT token FROM baton_guard WHERE resource = ?1";

    /// A condition for the `WHERE` of the guarded statement itself, where there is no transaction around it:
    /// `UPDATE jobs SET state = ?3 WHERE id = ?4 AND ` followed by this. Parameters 1 and 2: resource, token.
    ///
    /// It compares and records nothing, so it holds only for a token that was admitted by [`ADMIT`] before; one that
    /// never was changes nothing. No row changed means that the token is not the admitted one, or that the statement's
    /// own condition found none.
    pub const HOLDS: &str = "EXISTS (SELECT 1 FROM baton_guard WHERE resource = ?1 AND token = ?2)";
}

/// For PostgreSQL 9.5 or later.
///
/// What was tried, and holds with 15: under `READ COMMITTED` [`ADMIT`](postgres::ADMIT) waits for a transaction that
/// has the row, and then compares with what that one committed. Under `REPEATABLE READ` and `SERIALIZABLE` it fails
/// with 40001 (`serialization_failure`) instead when that one committed a change: begin the whole transaction again,
/// with the same token; it will be told then whether it is stale. No level admits a stale token.
///
/// - *Admission first.* Later statements then see all that earlier holders committed. A token that is refused also
///   keeps the row locked until its transaction ends, so roll back at once.
/// - *A holder that hangs in a transaction holds up its successor*, since its connection keeps the row. Safe, and as
///   slow as it is: set `idle_in_transaction_session_timeout` and TCP keep-alives for the holder's role, and
///   `lock_timeout` for whoever waits. `pg_terminate_backend` ends it at once. A statement that runs is ended by
///   `statement_timeout` only.
/// - *Admission writes*, so transactions of one holder that are guarded by it queue behind one another. Where one
///   holder works with many connections, admit once when it is promoted, in a transaction of its own, and begin each
///   transaction with [`HOLD`](postgres::HOLD), which many may have at once.
///   It is safe, and not fair: PostgreSQL lets further sharers pass a writer that waits, so an old holder which keeps
///   beginning transactions can keep a new token from being recorded. Where that matters, admit in each transaction.
/// - *In the guarded statement itself:* `WITH admitted AS (` [`ADMIT`](postgres::ADMIT) ` RETURNING token) UPDATE …
///   WHERE … AND EXISTS (SELECT 1 FROM admitted)`. Admission and work are one statement and stand or fall together. But
///   all its parts see the snapshot from before the wait: under `READ COMMITTED` rows that the old holder added
///   meanwhile are passed over. Work that reads belongs into a transaction with the admission first.
/// - *A plain `SELECT` of the token is no guard* under `READ COMMITTED`, nor is it as a condition in the guarded
///   statement: it reads a snapshot, locks nothing, and a higher token may be recorded and used before the old
///   statement is committed. Hence `FOR SHARE` in [`HOLD`](postgres::HOLD).
/// - *What a standby has not got is forgotten when it takes over*, the token with the work. With asynchronous
///   replication, or `synchronous_commit = off`, a lower token could then be admitted again, until the holder's next
///   write.
pub mod postgres {
    /// Makes the table.
    pub const CREATE: &str = "CREATE TABLE IF NOT EXISTS baton_guard (
    resource text PRIMARY KEY,
    token bigint NOT NULL CHECK (token > 0)
)";

    /// Admits a token: one row changed means admitted, none means stale. Parameters: resource, token.
    pub const ADMIT: &str = "INSERT INTO baton_guard AS guard (resource, token) VALUES ($1, $2)
ON CONFLICT (resource) DO UPDATE SET token = excluded.token WHERE excluded.token >= guard.token";

    /// Holds the row while the transaction lasts, when the token is the very one that was admitted: one row means go
    /// on, none means stale, or never admitted. Transactions of one holder have it together, and [`ADMIT`] of a higher
    /// token waits for all of them. Parameters: resource, token.
    pub const HOLD: &str = "SELECT token FROM baton_guard WHERE resource = $1 AND token = $2 FOR SHARE";

    /// The highest token, for the words of a refusal; no row when there was none yet. Parameter: resource.
    pub const HIGHEST: &str = "SELECT token FROM baton_guard WHERE resource = $1";
}
