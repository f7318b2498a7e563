//! This test binary, started once more as a process of its own that can be killed.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_client::guard::{FileGuard, Guard, GuardError};
use baton_core::id::Token;

use crate::guarded_http;

/// What the child is to be.
const ROLE: &str = "BATON_GUARD_TEST_ROLE";
/// Where its files are.
const DIRECTORY: &str = "BATON_GUARD_TEST_DIRECTORY";
/// Where it listens, or the token it presents.
const ARGUMENT: &str = "BATON_GUARD_TEST_ARGUMENT";
/// How long a child may take to be there: seconds when a machine is busy.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A child process; killed when it is let go.
pub(crate) struct Process(Child);

impl Process {
    /// Starts a child: `http`, listening at `argument`, or `hold`, which sits in the guard with the token `argument`.
    pub(crate) fn start(role: &str, directory: &Path, argument: &str) -> Self {
        let child = Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["--exact", "child::the_child", "--nocapture"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .env(ARGUMENT, argument)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("this binary starts once more");
        Self(child)
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("it can be killed");
        self.0.wait().expect("it can be waited for");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `done` holds.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < SOON, "{what}: not within {SOON:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Nothing in a run of the tests; the child's life in a child.
#[test]
fn the_child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let directory = PathBuf::from(std::env::var(DIRECTORY).expect("the parent says where"));
    let argument = std::env::var(ARGUMENT).expect("the parent says what");
    match role.as_str() {
        "http" => {
            let mut bound = TcpListener::bind(&argument);
            // The one that was killed a moment ago may not have let go of its port yet.
            until("the port is free", || {
                if bound.is_err() {
                    bound = TcpListener::bind(&argument);
                }
                bound.is_ok()
            });
            guarded_http::serve(&bound.expect("it is bound"), &directory).expect("it serves");
        }
        "hold" => hold(&directory, Token(argument.parse().expect("a token"))).expect("it is admitted"),
        other => panic!("no such role: {other}"),
    }
}

/// Sits in the guard until it is killed, and says so by a file.
fn hold(directory: &Path, token: Token) -> Result<(), GuardError> {
    FileGuard::open(directory.join("token"))?.admit(token, || {
        std::fs::write(directory.join("inside"), "").expect("it can be written");
        loop {
            std::thread::park();
        }
    })
}
