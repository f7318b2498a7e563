//! The demo holds what it shows, and cleans up behind itself, also when it is interrupted.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::process::{BATON, Process, clean, run};
use crate::support::{Load, SOON, scenario, until, when};

/// The whole demo, on a machine that has other things to do.
const WHOLE: Duration = Duration::from_secs(200);

/// The demo with a temporary directory and a mark of its own; all that it starts inherits both.
fn demo(mark: &str, scratch: &Path) -> Command {
    let mut command = clean(BATON);
    command.arg("demo").env("TMPDIR", scratch).env("DEMO_TEST_MARK", mark);
    command
}

/// The processes that carry the mark, by id and name.
fn marked(mark: &str) -> Vec<String> {
    let wanted = format!("DEMO_TEST_MARK={mark}");
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let carries = |path: &Path| {
        // A process that has ended in the meantime, or is somebody else's, has no environment to read.
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
    };
    let paths = entries.filter_map(|entry| entry.ok().map(|entry| entry.path()));
    paths
        .filter(|path| carries(path))
        .map(|path| format!("{} {}", path.display(), std::fs::read_to_string(path.join("cmdline")).unwrap_or_default()))
        .collect()
}

async fn nothing_is_left(mark: &str, scratch: &Path) {
    until(SOON, "the demo's processes to be gone", async || {
        let left = marked(mark);
        when(left.is_empty(), left)
    })
    .await;
    let left: Vec<_> = std::fs::read_dir(scratch).expect("the scratch directory").collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    scenario(Load::Heavy, async {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let mark = format!("once-{}", std::process::id());
        let mut command = demo(&mark, scratch.path());
        command.arg("--once");
        let outcome = run(command, WHOLE).await;
        println!("{}\n{}", outcome.stdout, outcome.stderr);
        assert_eq!(outcome.code, Some(0), "every expectation of the demo holds");
        for word in ["active", "token", "failover", "leader"] {
            assert!(outcome.stdout.to_lowercase().contains(word), "the demo does not speak of {word}");
        }
        assert!(!outcome.stdout.contains('\u{1b}'), "no colour into a pipe");
        nothing_is_left(&mark, scratch.path()).await;
    });
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    scenario(Load::Heavy, async {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let logs = tempfile::tempdir().expect("a temporary directory");
        // A terminal's Ctrl-C goes to the whole group; `kill -INT` only to the demo itself. And SIGTERM ends it as well.
        for (name, signal, group) in
            [("group", Signal::INT, true), ("alone", Signal::INT, false), ("term", Signal::TERM, false)]
        {
            let mark = format!("{name}-{}", std::process::id());
            let mut process = Process::start("demo", demo(&mark, scratch.path()), &logs.path().join(name));
            // Itself, three nodes and at least one server.
            until(SOON, "the demo to be under way", async || {
                assert!(process.ended().is_none(), "the demo ended by itself: {}", process.output());
                let running = marked(&mark);
                when(running.len() >= 5, running)
            })
            .await;
            if group {
                process.signal_group(signal)
            } else {
                process.signal(signal)
            }
            process.end(SOON).await;
            assert!(!process.output().contains("panicked"), "{}", process.output());
            nothing_is_left(&mark, scratch.path()).await;
        }
    });
}
