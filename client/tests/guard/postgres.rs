//! The statements for PostgreSQL, where there is one: `BATON_TEST_POSTGRES` is what `psql` takes, as in
//! `postgresql://postgres@127.0.0.1/postgres`. A schema of its own is made there and removed. Without the variable
//! nothing is tried.
//!
//! `psql` is spoken to rather than a driver: two of them are two sessions, and nothing has to be built for it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use baton_client::guard::sql::postgres::{ADMIT, CREATE, HIGHEST, HOLD};

use crate::child::SOON;

/// What names a database.
const VARIABLE: &str = "BATON_TEST_POSTGRES";
/// How long a statement is watched that must wait: one that goes on takes a millisecond.
const WAITS: Duration = Duration::from_millis(300);

/// One session.
struct Session {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    fn new(database: &str) -> Self {
        let mut child = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "VERBOSITY=sqlstate", "-d", database])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("psql is there");
        let (tell, lines) = channel();
        let stdin = child.stdin.take().expect("piped");
        for pipe in [
            Box::new(child.stdout.take().expect("piped")) as Box<dyn std::io::Read + Send>,
            Box::new(child.stderr.take().expect("piped")),
        ] {
            let tell = tell.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if tell.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let mut session = Self { child, stdin, lines };
        session.ask("SET search_path = baton_guard_test");
        session
    }

    /// Sends a statement. What it comes to is said by [`Session::answer`].
    fn send(&mut self, sql: &str) {
        // One of the two is told: how many rows, or under which code it failed.
        let told = "\\if :ERROR\n\\echo :SQLSTATE\n\\else\n\\echo rows :ROW_COUNT\n\\endif";
        writeln!(self.stdin, "{sql};\n{told}").expect("psql listens");
    }

    /// The next answer: `rows 1`, or a code like `40001`.
    fn answer(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(SOON).expect("an answer");
            let code = line.len() == 5 && line.bytes().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase());
            if line.starts_with("rows ") || code {
                return line;
            }
        }
    }

    fn ask(&mut self, sql: &str) -> String {
        self.send(sql);
        self.answer()
    }

    /// Nothing is answered yet.
    fn waits(&self) -> bool {
        match self.lines.recv_timeout(WAITS) {
            Err(RecvTimeoutError::Timeout) => true,
            Ok(line) => panic!("it did not wait: {line}"),
            Err(RecvTimeoutError::Disconnected) => panic!("psql is gone"),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A statement of the library with its parameters put in.
fn with(sql: &str, token: u64) -> String {
    sql.replace("$1", "'orders'").replace("$2", &token.to_string())
}

/// A fresh schema, and three sessions in it.
fn sessions(database: &str) -> [Session; 3] {
    let mut sessions = [(); 3].map(|()| Session::new(database));
    let first = &mut sessions[0];
    first.ask("DROP SCHEMA IF EXISTS baton_guard_test CASCADE");
    assert_eq!(first.ask("CREATE SCHEMA baton_guard_test"), "rows 0");
    assert_eq!(first.ask(CREATE), "rows 0");
    assert_eq!(first.ask("CREATE TABLE work (id int PRIMARY KEY, n int)"), "rows 0");
    assert_eq!(first.ask("INSERT INTO work VALUES (1, 0)"), "rows 1");
    sessions
}

fn one_row_for_the_highest(database: &str) {
    let [mut one, ..] = sessions(database);
    for (token, rows) in [(9, 1), (9, 1), (10, 1), (9, 0), (1 << 40, 1), (11, 0), ((1 << 53) - 1, 1)] {
        assert_eq!(one.ask(&with(ADMIT, token)), format!("rows {rows}"), "{token}");
    }
    assert_eq!(one.ask(&with(HIGHEST, 0)), "rows 1");
    assert_eq!(one.ask(&with(HOLD, 11)), "rows 0");
    assert_eq!(one.ask(&with(HOLD, (1 << 53) - 1)), "rows 1");
    assert_eq!(one.ask(&with(ADMIT, 0)), "23514", "0 is no token");
}

/// Under every level, with and without a row at the start: the new holder waits for the old one's transaction, and the
/// old one, when it waits for the new one's, is not admitted.
fn nobody_passes_a_transaction(database: &str) {
    for (level, outdated) in
        [("READ COMMITTED", None), ("REPEATABLE READ", Some("40001")), ("SERIALIZABLE", Some("40001"))]
    {
        for existing in [None, Some(5)] {
            let [mut old, mut new, _] = sessions(database);
            existing.map(|token| old.ask(&with(ADMIT, token)));
            let begin = format!("BEGIN ISOLATION LEVEL {level}");
            old.ask(&begin);
            new.ask(&begin);
            assert_eq!(old.ask(&with(ADMIT, 5)), "rows 1");
            new.send(&with(ADMIT, 7));
            assert!(new.waits(), "{level}");
            assert_eq!(old.ask("UPDATE work SET n = n + 1"), "rows 1");
            old.ask("COMMIT");
            assert_eq!(new.answer(), outdated.unwrap_or("rows 1"), "{level}");
            if outdated.is_some() {
                // Again from its beginning, as its documentation says.
                new.ask("ROLLBACK");
                new.ask(&begin);
                assert_eq!(new.ask(&with(ADMIT, 7)), "rows 1");
            }
            old.ask(&begin);
            old.send(&with(ADMIT, 5));
            assert!(old.waits(), "{level}");
            assert_eq!(new.ask("UPDATE work SET n = n + 10 WHERE n = 1"), "rows 1", "it sees the old one's work");
            new.ask("COMMIT");
            assert_eq!(old.answer(), outdated.unwrap_or("rows 0"), "{level}");
            old.ask("ROLLBACK");
            old.ask(&begin);
            assert_eq!(old.ask(&with(ADMIT, 5)), "rows 0", "{level}");
            old.ask("ROLLBACK");
        }
    }
}

fn a_higher_token_that_is_rolled_back_was_none(database: &str) {
    let [mut old, mut new, _] = sessions(database);
    assert_eq!(old.ask(&with(ADMIT, 5)), "rows 1");
    new.ask("BEGIN");
    assert_eq!(new.ask(&with(ADMIT, 7)), "rows 1");
    old.send(&with(ADMIT, 5));
    assert!(old.waits());
    new.ask("ROLLBACK");
    assert_eq!(old.answer(), "rows 1");
}

fn a_row_is_held_by_many_of_one_holder(database: &str) {
    let [mut one, mut two, mut new] = sessions(database);
    assert_eq!(one.ask(&with(ADMIT, 5)), "rows 1");
    one.ask("BEGIN");
    two.ask("BEGIN");
    assert_eq!([one.ask(&with(HOLD, 5)), two.ask(&with(HOLD, 5))], ["rows 1", "rows 1"], "together");
    new.ask("BEGIN");
    new.send(&with(ADMIT, 7));
    assert!(new.waits());
    one.ask("COMMIT");
    assert!(new.waits(), "for the last of them");
    two.ask("COMMIT");
    assert_eq!(new.answer(), "rows 1");
    one.ask("BEGIN");
    one.send(&with(HOLD, 5));
    assert!(one.waits(), "7 is not committed yet");
    new.ask("COMMIT");
    assert_eq!(one.answer(), "rows 0", "and now 5 is stale");
    one.ask("ROLLBACK");
}

/// What the documentation warns of does happen.
fn the_warnings_are_true(database: &str) {
    let [mut old, mut new, _] = sessions(database);
    assert_eq!(old.ask(&with(ADMIT, 5)), "rows 1");
    old.ask("BEGIN");
    let plain =
        "UPDATE work SET n = 5 WHERE EXISTS (SELECT 1 FROM baton_guard WHERE resource = 'orders' AND token = 5)";
    assert_eq!(old.ask(plain), "rows 1");
    assert_eq!(new.ask(&with(ADMIT, 7)), "rows 1", "nothing holds it back");
    old.ask("COMMIT");
    // The old work was committed after the new token.
    assert_eq!(new.ask("SELECT FROM work WHERE n = 5"), "rows 1");

    new.ask("BEGIN");
    assert_eq!(new.ask(&with(ADMIT, 6)), "rows 0");
    old.send(&with(ADMIT, 8));
    assert!(old.waits(), "a refused one has the row until it rolls back");
    new.ask("ROLLBACK");
    assert_eq!(old.answer(), "rows 1");

    let within = |token| {
        let admitted = format!("WITH admitted AS ({} RETURNING token)", with(ADMIT, token));
        format!("{admitted} UPDATE work SET n = n + 10 WHERE EXISTS (SELECT 1 FROM admitted)")
    };
    assert_eq!(new.ask(&within(7)), "rows 0");
    old.ask("BEGIN");
    old.ask(&with(ADMIT, 8));
    assert_eq!(old.ask("INSERT INTO work VALUES (2, 0)"), "rows 1");
    new.send(&within(9));
    assert!(new.waits());
    old.ask("COMMIT");
    assert_eq!(new.answer(), "rows 1", "the row that was added while it waited is passed over");
    assert_eq!(new.ask(&within(9)), "rows 2");
}

/// One test, since all of it is in one schema.
#[test]
fn the_statements_hold_in_postgresql() {
    let Ok(database) = std::env::var(VARIABLE) else {
        eprintln!("skipped: {VARIABLE} names no database");
        return;
    };
    one_row_for_the_highest(&database);
    nobody_passes_a_transaction(&database);
    a_higher_token_that_is_rolled_back_was_none(&database);
    a_row_is_held_by_many_of_one_holder(&database);
    the_warnings_are_true(&database);
    Session::new(&database).ask("DROP SCHEMA baton_guard_test CASCADE");
}
