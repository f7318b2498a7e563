//! Local programs that this node's own configuration names, run for how they end. No shell reads the command, the
//! environment holds what the caller says and nothing else, and the program gets a process group of its own, which is
//! killed as a whole when its time is up, when its first process ends, or when whoever waits for it is dropped: nothing
//! that it started is left behind, unless it left the group. What is run, and what its end means, is the caller's.
//!
//! A node that is itself killed (`kill -9`, the kernel short of memory) can kill nobody any more: its programs go on until
//! they end by themselves. A service manager that ends the whole control group, as systemd does for the unit that comes
//! with this, takes them along; elsewhere a command may begin with `setpriv --pdeathsig KILL`, or bound itself by `timeout`.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

/// How much of what a program writes is kept for the log, in bytes of each of its two outputs. The rest is read and
/// dropped, so that a talkative program is not stopped by a full pipe.
const SAID_MAX: usize = 1_024;

/// Where programs are looked for if this node was told nothing else.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How a program ended, and the beginning of what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code or signal.
    pub(crate) status: ExitStatus,
    /// On its standard output.
    pub(crate) out: String,
    /// On its standard error.
    pub(crate) err: String,
}

/// Why it is not known how a program ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// There is no such program, or one more process may not be.
    #[error("cannot be started: {0}")]
    Start(#[source] io::Error),
    /// It was started, and nobody knows what became of it.
    #[error("its end is not known: {0}")]
    Wait(#[source] io::Error),
}

/// A process group, for as long as nobody else can have its number: until its first process has been waited for.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a program writes to one pipe, of which a little is kept.
struct Heard<P> {
    pipe: Option<P>,
    said: Vec<u8>,
}

impl<P: AsyncRead + Unpin> Heard<P> {
    fn from(pipe: Option<P>) -> Self {
        Self { pipe, said: Vec::new() }
    }

    /// Reads a little of it. Never ends once there is no more.
    async fn listen(&mut self) {
        let mut read = [0; 512];
        let Some(open) = &mut self.pipe else { return std::future::pending().await };
        match open.read(&mut read).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(length) => self.said.extend_from_slice(&read[..length.min(SAID_MAX - self.said.len())]),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).trim_end().to_owned()
    }
}

/// Runs `command`, a program and its arguments, until it ends. Its environment is a search path and the `facts`; `input`
/// is what it may read, at most what a pipe takes at once (4,096 bytes), and without one there is nothing to read. The
/// caller bounds the time, and kills whatever is still running by dropping this.
pub(crate) async fn run(
    command: &[String],
    facts: &[(&str, String)],
    input: Option<&[u8]>,
) -> Result<Ended, ProgramError> {
    let (program, arguments) = command.split_first().ok_or_else(|| {
        ProgramError::Start(io::Error::new(io::ErrorKind::InvalidInput, "the command names no program"))
    })?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
        .envs(facts.iter().map(|(name, value)| (*name, value)))
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(ProgramError::Start)?;
    // Declared after the child, and so dropped before it: the group is killed while its number is still its own.
    let mut group = Group::of(&child);
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        // A program need not read what it is given.
        let _ = pipe.write_all(input).await;
    }
    let (mut out, mut err) = (Heard::from(child.stdout.take()), Heard::from(child.stderr.take()));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = out.listen() => {}
            () = err.listen() => {}
        }
    };
    // The child has just been waited for, so its number is free by the rules if its group is empty. Numbers are
    // handed out in turn, tens of thousands of them: none comes back between these two lines.
    group.kill();
    Ok(Ended { status: status.map_err(ProgramError::Wait)?, out: out.text(), err: err.text() })
}
