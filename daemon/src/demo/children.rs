//! The processes that the demo starts, their logs and their temporary directory; and that nothing of it is left behind.
//! What a process is for is the script's business.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{ChildStdin, Command};

use super::DemoError;

/// Lines of a log that are shown when something went wrong: a panic with its cause fits.
const TAIL_LINES: usize = 15;
/// How long killed children may take to be gone before their directory is removed all the same.
const REAP_MAX: Duration = Duration::from_secs(2);
/// Ports are looked for from here ...
const PORT_FIRST: u16 = 15_000;
/// ... up to here: below what Linux gives to outgoing connections (32768 on). A prober that connects to a dead server's port
/// could else be given that very port for its own end, and connect to itself.
const PORT_LAST: u16 = 32_000;

/// A directory that is removed with all that is in it.
#[derive(Debug)]
pub(super) struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Makes a new one.
    pub(super) fn new() -> io::Result<Self> {
        let parent = std::env::temp_dir();
        let pid = std::process::id();
        // A directory of a process with our id that was killed may still be there.
        for number in 0..100 {
            let path = parent.join(format!("baton-demo-{pid}-{number}"));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed now is for the system's own cleaning of its temporary directory.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A process of ours: killed when it is dropped, and ending by itself when we are gone, for the pipe to its stdin closes.
#[derive(Debug)]
pub(super) struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
    /// Held open for as long as we live.
    _stdin: Option<ChildStdin>,
}

impl Child {
    /// Starts this program with other arguments; what it says goes to the end of `log`.
    pub(super) fn start(name: &str, arguments: &[OsString], log: &Path) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Io { what: format!("starting {name}"), source };
        let program = std::env::current_exe().map_err(failed)?;
        let log = File::options().create(true).append(true).open(log).map_err(failed)?;
        let mut command = Command::new(program);
        // The environment of whoever runs the demo is not meant for its nodes.
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("BATON_") {
                command.env_remove(variable);
            }
        }
        let mut process = command
            .args(arguments)
            .arg("--exit-when-stdin-closes")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(log)
            // A Ctrl-C at the terminal is for the demo, which then ends them.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pid = process.id().ok_or_else(|| DemoError::Ended { name: name.to_owned(), how: "at once".to_owned() })?;
        Ok(Self { name: name.to_owned(), pid, _stdin: process.stdin.take(), process })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// An error if it has ended though nobody killed it.
    pub(super) fn still_runs(&mut self) -> Result<(), DemoError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(DemoError::Ended { name: self.name.clone(), how: status.to_string() }),
            Err(source) => Err(DemoError::Io { what: format!("looking after {}", self.name), source }),
        }
    }

    /// SIGKILL, and the moment at which it was sent.
    pub(super) async fn kill(mut self) -> Result<Instant, DemoError> {
        let failed = |source| DemoError::Io { what: format!("killing {}", self.name), source };
        let at = Instant::now();
        self.process.start_kill().map_err(failed)?;
        self.process.wait().await.map_err(failed)?;
        Ok(at)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Its files must be quiet before their directory is removed. Errors mean that it is gone already.
        let _ = self.process.start_kill();
        let began = Instant::now();
        while began.elapsed() < REAP_MAX && matches!(self.process.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Finds `count` free loopback ports.
pub(super) fn free_ports(count: usize) -> Result<Vec<u16>, DemoError> {
    let span = u32::from(PORT_LAST - PORT_FIRST);
    // Demos that start together begin at different places.
    let start = std::process::id().wrapping_mul(7_919) % span;
    let mut held = Vec::new();
    for step in 0..span {
        let port = PORT_FIRST + u16::try_from((start + step) % span).unwrap_or(0);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            held.push((port, listener));
        }
        if held.len() == count {
            return Ok(held.into_iter().map(|(port, _)| port).collect());
        }
    }
    let source = io::Error::from(io::ErrorKind::AddrInUse);
    Err(DemoError::Io { what: format!("finding {count} free ports on 127.0.0.1"), source })
}

/// The last lines of every log in `dir`, for whoever must find out what went wrong.
pub(super) fn log_tails(dir: &Path) -> Vec<(String, String)> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut logs: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.iter()
        .filter_map(|path| {
            let text = String::from_utf8_lossy(&fs::read(path).ok()?).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            let name = path.file_name()?.to_string_lossy().into_owned();
            (!tail.is_empty()).then_some((name, tail))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_directory_goes_with_all_that_is_in_it() {
        let dir = TempDir::new().expect("the temporary directory is writable");
        let path = dir.path().to_owned();
        fs::create_dir(path.join("node-1")).expect("it is ours");
        fs::write(path.join("node-1.log"), "a\n".repeat(40) + "last\n").expect("it is ours");
        let tails = log_tails(&path);
        assert_eq!(tails.len(), 1);
        assert!(tails[0].1.ends_with("a\nlast") && tails[0].1.lines().count() == TAIL_LINES, "{tails:?}");
        drop(dir);
        assert!(!path.exists());
    }

    #[test]
    fn ports_are_free_and_differ() {
        let ports = free_ports(9).expect("there are thousands");
        let mut sorted = ports.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), 9);
        assert!(ports.iter().all(|port| (PORT_FIRST..PORT_LAST).contains(port)));
    }
}
