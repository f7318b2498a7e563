//! A wall clock is stepped by an hour, forth and back, on the leader and on a follower, while leases run: nobody gains or loses
//! a lease by it, and what fails over meanwhile takes as long as ever. The clock is stepped for one process by a small library
//! that is built here (`clock.c`), since no test may set the machine's own.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use super::stage::{Keeper, SERVICE, Stage, signal};
use crate::support::netns::may_make_namespaces;
use crate::support::{Load, scenario};

/// The step, in seconds.
const HOUR: i64 = 3_600;
/// The lease's length.
const TTL: Duration = Duration::from_millis(500);
/// A failover by release has no wait in it: with a wall clock an hour off it must not have one either.
const FAILOVER_MAX_MS: u64 = 10_000;

/// Builds the library; none, said aloud, where there is no compiler.
fn built(dir: &Path) -> Option<String> {
    let (source, library) = (dir.join("clock.c"), dir.join("clock.so"));
    std::fs::write(&source, include_str!("clock.c")).expect("a file in a temporary directory");
    let output = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(&source).output();
    match output {
        Ok(output) => {
            assert!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
            Some(library.display().to_string())
        }
        Err(error) => {
            assert!(std::env::var_os("BATON_TESTS_NO_SKIP").is_none(), "no C compiler: {error}");
            let _ = writeln!(std::io::stderr(), "SKIPPED overlap::clock: no C compiler: {error}");
            None
        }
    }
}

#[test]
fn a_wall_clock_that_is_stepped_by_an_hour_moves_nothing() {
    if !may_make_namespaces("overlap::clock::a_wall_clock_that_is_stepped_by_an_hour_moves_nothing") {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(library) = built(dir.path()) else { return };
    let file = |node: u64| dir.path().join(format!("offset{node}"));
    let step = |node: u64, seconds: i64| {
        // Written beside and renamed: a node never reads half a number.
        let beside = dir.path().join("offset");
        std::fs::write(&beside, seconds.to_string())
            .and_then(|()| std::fs::rename(&beside, file(node)))
            .expect("a file");
    };
    (1..=3).for_each(|node| step(node, 0));
    let env = |node: u64| {
        let offset = file(node).display().to_string();
        vec![("LD_PRELOAD".to_owned(), library.clone()), ("CLOCK_OFFSET_FILE".to_owned(), offset)]
    };
    scenario(Load::Heavy, async {
        let mut stage = Stage::set_with(Keeper::Run, TTL, env).await;
        let (leader, term) = stage.cluster.leader().await;
        let follower = stage.cluster.others(leader)[0];
        for node in [leader, follower] {
            let before = stage.holder().expect("somebody works");
            for seconds in [HOUR, -HOUR, 0, -HOUR, HOUR] {
                step(node, seconds);
                // Longer than the lease: whoever counted by the wall clock has now lost it, or promoted another.
                tokio::time::sleep(2 * TTL).await;
                stage.settled().await;
                let now = stage.holder().expect("somebody works");
                assert_eq!(
                    (now.token, now.pid),
                    (before.token, before.pid),
                    "moved by a step of node {node} to {seconds} s"
                );
            }
            assert_eq!(stage.cluster.leader().await, (leader, term), "a step of node {node}");

            // With the clock of this node still an hour ahead, the holder dies.
            signal(before.pid, Signal::KILL);
            stage.next_holder(&before).await;
            stage.settled().await;
            let record = newest(&stage).await;
            let total = record["durations"]["total_ms"].as_u64();
            println!(
                "node {node} of leader {leader} is an hour ahead; the failover took {total:?} ms: {}",
                record["finished_at"]
            );
            assert!(total.is_some_and(|ms| ms < FAILOVER_MAX_MS), "{record:#}");
            // The leader's clock labels the record: else the clock was not stepped, and all this shows nothing.
            let ahead = ahead(&record);
            let wanted = if node == leader { Duration::from_secs(3_600) } else { Duration::ZERO };
            assert!(ahead.abs_diff(wanted) < Duration::from_secs(120), "labelled {ahead:?} ahead: {record:#}");
            step(node, 0);
            stage.judge();
        }
        let counts = stage.account().await;
        println!("{counts}; {}", stage.book.figures());
    });
}

/// The record of the last promotion.
async fn newest(stage: &Stage) -> Value {
    let transitions = stage.cluster.api(1).all(&format!("/v1/transitions?service={SERVICE}")).await;
    let newest = transitions.into_iter().max_by_key(|record| record["token"].as_u64());
    newest.expect("a record")
}

/// How far the label of a record's end is ahead of this process's own clock; zero where it is not.
fn ahead(record: &Value) -> Duration {
    let label: jiff::Timestamp = record["finished_at"].as_str().and_then(|text| text.parse().ok()).expect("a time");
    let ahead = label.duration_since(jiff::Timestamp::now());
    Duration::try_from(ahead).unwrap_or_default()
}
