//! The watchdog of a supervisor: a small process of its own that kills the child's group when the supervisor cannot. The
//! supervisor tells it, over a socket, which group may live until when, and renews that with every renewal of the lease. When
//! the socket closes (the supervisor was killed) or the time is over (it was stopped, or hangs), the group is killed.
//!
//! It decides nothing else: it knows no token, no cluster and no child. It has a process group of its own, so that whatever
//! stops the supervisor's group does not stop it.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use baton_client::{Alarm, boot_time};
use baton_core::probe::LocalTime;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::signal::unix::{SignalKind, signal};

use crate::terminal::exit::Exit;
use crate::terminal::output::{complain, remark};

/// The word of the command line for it.
pub(super) const WORD: &str = "run-watchdog";
/// What is said when no group is to be watched.
const NOBODY: &str = "nobody";
/// What is said in place of a time where a group may live as long as its supervisor does (`on_quorum_loss: freeze`).
const NO_END: &str = "no-end";

/// The supervisor's end.
#[derive(Debug)]
pub(super) struct Watchdog {
    child: Child,
    socket: UnixStream,
}

impl Watchdog {
    /// Starts one. It ends with this process.
    pub(super) fn start() -> io::Result<Self> {
        // Neither end is inherited by any other child.
        let (ours, theirs) = UnixStream::pair()?;
        // A watchdog that does not read must not hold up its master.
        ours.set_nonblocking(true)?;
        let child = Command::new(own_program()?)
            .arg0("baton")
            .arg(WORD)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self { child, socket: ours })
    }

    /// What a test has started in place of one.
    #[cfg(test)]
    pub(super) fn of(child: Child, socket: UnixStream) -> Self {
        Self { child, socket }
    }

    /// Kills it. It does nothing any more when this returns, whatever it was told: only then its socket is closed.
    pub(super) fn kill(mut self) {
        // Both fail only for one that is dead.
        let _ = self.child.kill();
        let _ = self.child.try_wait();
    }

    /// Its number, while it lives.
    pub(super) fn id(&self) -> Option<Pid> {
        Some(Pid::from_child(&self.child))
    }

    /// Whether it has ended, which it should not.
    pub(super) fn has_ended(&mut self) -> bool {
        self.child.try_wait().map_or(true, |status| status.is_some())
    }

    /// Lets this group live until then: a time that no clock will ever show has a word of its own.
    pub(super) fn watch(&mut self, group: Pid, until: LocalTime) -> io::Result<()> {
        let until = u64::try_from(until.0.as_nanos()).map_or_else(|_| NO_END.to_owned(), |nanos| nanos.to_string());
        self.say(&format!("{} {until}", group.as_raw_pid()))
    }

    /// There is no group to be watched.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        self.say(NOBODY)
    }

    /// Says a line. An error says that it was not taken as a whole: then nothing that is said later counts either.
    fn say(&mut self, line: &str) -> io::Result<()> {
        self.socket.write_all(format!("{line}\n").as_bytes())
    }
}

/// The program of this very process, also where its file has been replaced since.
fn own_program() -> io::Result<PathBuf> {
    let same = Path::new("/proc/self/exe");
    if same.exists() { Ok(same.to_owned()) } else { std::env::current_exe() }
}

/// What a watchdog was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Watched {
    group: Pid,
    /// None: as long as the supervisor lives.
    until: Option<LocalTime>,
}

/// Reads what a supervisor says; an error for what is none of it.
fn heard(line: &str) -> Result<Option<Watched>, ()> {
    if line == NOBODY {
        return Ok(None);
    }
    let (group, nanos) = line.split_once(' ').ok_or(())?;
    let group: i32 = group.parse().ok().filter(|group| *group > 1).ok_or(())?;
    let group = Pid::from_raw(group).ok_or(())?;
    if nanos == NO_END {
        return Ok(Some(Watched { group, until: None }));
    }
    let nanos: u64 = nanos.parse().map_err(|_| ())?;
    Ok(Some(Watched { group, until: Some(LocalTime(Duration::from_nanos(nanos))) }))
}

/// Runs a watchdog until its supervisor has gone.
pub(crate) async fn watchdog() -> Exit {
    // Who stops a whole service sends this to every process of it; the supervisor's end is the end of this one.
    let deaf: io::Result<Vec<_>> =
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].into_iter().map(signal).collect();
    let (_deaf, mut alarm, mut lines) = match (deaf, Alarm::new(), listen()) {
        (Ok(deaf), Ok(alarm), Ok(lines)) => (deaf, alarm, lines),
        (Err(error), _, _) | (_, _, Err(error)) => return cannot(&error.to_string()),
        (_, Err(error), _) => return cannot(&error.to_string()),
    };
    let mut watched: Option<Watched> = None;
    // However it ends, nobody is left unguarded.
    let mut exit = Exit::Done;
    loop {
        tokio::select! {
            line = lines.next_line() => match line.ok().flatten().map(|line: String| heard(&line)) {
                Some(Ok(news)) => watched = news,
                Some(Err(())) => {
                    exit = cannot("this is for baton run alone");
                    break;
                }
                None => break,
            },
            () = alarm.at(watched.and_then(|watched| watched.until)) => {
                if let Some(Watched { group, until: Some(until) }) = watched.take() {
                    let late = boot_time().since(until).as_millis();
                    let _ = kill_process_group(group, Signal::KILL);
                    remark(&format!(
                        "baton run: the supervisor let the lease run out (it is stopped, or starved): its watchdog has killed \
                         process group {group}, {late} ms late"
                    ));
                }
            }
        }
    }
    if let Some(Watched { group, .. }) = watched {
        let _ = kill_process_group(group, Signal::KILL);
        remark(&format!("baton run: the supervisor is gone: its watchdog has killed process group {group}"));
    }
    exit
}

/// The socket that the supervisor gave as stdin.
fn listen() -> io::Result<Lines<BufReader<tokio::net::UnixStream>>> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    Ok(BufReader::new(tokio::net::UnixStream::from_std(socket)?).lines())
}

fn cannot(why: &str) -> Exit {
    complain(&format!("{WORD}: {why}"));
    Exit::Error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_understood() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut watchdog = Watchdog::of(Command::new("true").spawn().expect("true"), ours);
        let group = Pid::from_raw(42).expect("a number");
        let forever = LocalTime(baton_client::FOREVER.0.saturating_sub(Duration::from_millis(250)));
        for until in [LocalTime(Duration::from_secs(7)), forever] {
            watchdog.watch(group, until).expect("there is room");
        }
        watchdog.rest().expect("there is room");
        drop(watchdog.child.wait());
        drop(watchdog);
        let lines = std::io::read_to_string(theirs).expect("lines");
        let said: Vec<_> = lines.lines().map(heard).collect();
        let until = |until| Ok(Some(Watched { group, until }));
        assert_eq!(said, [until(Some(LocalTime(Duration::from_secs(7)))), until(None), Ok(None)]);
    }

    #[test]
    fn only_a_group_and_a_time_are_understood() {
        let watched = heard("42 1500000000").expect("good").expect("a group");
        assert_eq!((watched.group.as_raw_pid(), watched.until), (42, Some(LocalTime(Duration::from_millis(1_500)))));
        let watched = heard("42 no-end").expect("good").expect("a group");
        assert_eq!((watched.group.as_raw_pid(), watched.until), (42, None));
        assert_eq!(heard("nobody"), Ok(None));
        for bad in ["", "42", "0 5", "1 5", "-3 5", "x 5", "42 x", "42 -1", "1 no-end", "no-end"] {
            assert_eq!(heard(bad), Err(()), "{bad}");
        }
    }
}
