//! Child processes that never outlive their test, and whose output can be shown when it fails.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::until;

/// How much of a process's output is shown when a test fails.
const TAIL_LINES: usize = 60;

/// The binary under test.
pub(crate) const BATON: &str = env!("CARGO_BIN_EXE_baton");

/// A command without the settings of whoever runs the tests: no `BATON_*`, no colour, no log level, no proxy.
pub(crate) fn clean(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BATON_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("http_proxy").env_remove("HTTP_PROXY").env("NO_COLOR", "1");
    command
}

/// One run of a program, in a process group of its own, with its output in a file.
pub(crate) struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output is added to the file `log`.
    pub(crate) fn start(name: &str, mut command: Command, log: &Path) -> Self {
        let mut file =
            OpenOptions::new().create(true).append(true).open(log).expect("a log file in a temporary directory");
        writeln!(file, "--- {command:?}").expect("a line in the log");
        let second: File = file.try_clone().expect("a second handle of the log");
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(second)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}: {command:?}"));
        Self { name: name.to_owned(), log: log.to_owned(), child, ended: None }
    }

    /// Its process id, which is its group's too.
    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The same as the system's tools write it.
    pub(crate) fn number(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("a child can be waited for");
        }
        self.ended
    }

    /// Sends it a signal, unless it has ended.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process(Pid::from_child(&self.child), signal).expect("a child can be signalled");
        }
    }

    /// Sends a signal to it and all that it started, as a terminal does on Ctrl-C.
    pub(crate) fn signal_group(&mut self, signal: Signal) {
        if self.ended().is_none() {
            kill_process_group(Pid::from_child(&self.child), signal).expect("a child's group can be signalled");
        }
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill9(&mut self) {
        if self.ended().is_none() {
            self.child.kill().expect("a child can be killed");
            self.ended = Some(self.child.wait().expect("a killed child can be waited for"));
        }
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} to end", self.name);
        until(deadline, &what, async || self.ended().ok_or("it runs")).await
    }

    /// All that it said so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_none() {
            // What it started is in its group; a child that has ended may have left a group number to somebody else.
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let lines: Vec<&str> = output.lines().collect();
            println!("===== {} ({:?}), the end of its output:", self.name, self.ended);
            for line in lines.iter().skip(lines.len().saturating_sub(TAIL_LINES)) {
                println!("{line}");
            }
        }
    }
}

/// What a command that ends by itself said and how it ended.
pub(crate) struct Outcome {
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) stdout: String,
    /// Standard error.
    pub(crate) stderr: String,
}

/// Runs `baton` with these arguments to its end; a run that doesn't end is killed and fails the test.
pub(crate) async fn baton<S: AsRef<OsStr>>(args: &[S]) -> Outcome {
    let mut command = clean(BATON);
    command.args(args).stdin(Stdio::null());
    run(command, super::SOON).await
}

/// Runs a command to its end, or kills it at the deadline and fails the test.
pub(crate) async fn run(command: Command, deadline: Duration) -> Outcome {
    let said = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = tokio::time::timeout(deadline, command.output())
        .await
        .unwrap_or_else(|_| panic!("{said} did not end within {deadline:?}"))
        .unwrap_or_else(|error| panic!("{said} does not start: {error}"));
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
