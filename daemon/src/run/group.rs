//! A child process in a process group of its own, with all that it starts: starting it, sending it signals, and making sure
//! that nobody of it is left. When any of this is done is `supervisor`'s to say.
//!
//! A process that leaves the group (`setsid`, a daemon that forks twice) is not reached by the group's signals. Where the
//! system lets a process adopt the orphans among its descendants (Linux), such a process becomes our own child at the latest
//! when its parent is killed, and is killed then: see [`Orphans`]. What was started by somebody else on the child's behalf
//! (a service manager, a container engine, `at`) is nobody's descendant here, and escapes.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use baton_core::id::{InstanceId, ServiceName, Token};
use rustix::fs::Access;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, kill_process_group, waitpgid, waitpid};
use tokio::process::{Child, Command};

use super::words::Ended;

/// The first wait between two looks at a group that was killed. A kernel needs less than this for a small one.
const LOOK_FIRST: Duration = Duration::from_micros(200);
/// The longest wait between two looks.
const LOOK_MAX: Duration = Duration::from_millis(20);
/// What a shell answers for a command that it does not find.
const NOT_FOUND: u8 = 127;
/// What a shell answers for a command that it may not or cannot run.
const NOT_RUN: u8 = 126;

/// Why a child was not started.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct NotStarted {
    /// The exit code that a shell would give.
    pub(crate) code: u8,
    source: io::Error,
}

/// What is run, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    /// The program and its arguments; never empty.
    pub(crate) command: Vec<OsString>,
    /// The service.
    pub(crate) service: ServiceName,
    /// The instance.
    pub(crate) instance: InstanceId,
}

/// A child and its process group.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    /// The number of the group: the child's own. Nobody else can have it while a process of the group is there, dead ones
    /// that nobody has waited for included.
    id: Pid,
}

impl Task {
    /// Whether there is anything to be started, looked for as the system will. Asked before the instance is registered: whoever
    /// has nothing to run must not take a service from somebody who has. What only the system knows it says at the start.
    pub(super) fn can_start(&self) -> Result<(), NotStarted> {
        let program = self.command.first().map(Path::new).unwrap_or(Path::new(""));
        let named = program.components().count() > 1 || program.is_absolute();
        let places: Vec<PathBuf> = if named {
            vec![program.to_owned()]
        } else {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|place| place.join(program)).collect()
        };
        let files: Vec<PathBuf> = places.into_iter().filter(|place| place.is_file()).collect();
        if files.iter().any(|file| rustix::fs::access(file, Access::EXEC_OK).is_ok()) {
            return Ok(());
        }
        let (code, kind) = match files.is_empty() {
            true => (NOT_FOUND, io::ErrorKind::NotFound),
            false => (NOT_RUN, io::ErrorKind::PermissionDenied),
        };
        Err(NotStarted { code, source: io::Error::new(kind, format!("{}: {kind}", program.display())) })
    }

    /// Starts the child, which speaks to the cluster, if it does, by this token in this session.
    pub(super) fn start(&self, token: Token, session: Option<&str>) -> Result<Group, NotStarted> {
        let fail = |source: io::Error| {
            let code = if source.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_RUN };
            NotStarted { code, source }
        };
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
        let child = Command::new(program)
            .args(arguments)
            .env("BATON_TOKEN", token.to_string())
            // Whatever this process itself has been given by another is not the child's.
            .env_remove("BATON_SESSION")
            .envs(session.map(|session| ("BATON_SESSION", session)))
            .env("BATON_ROLE", "active")
            .env("BATON_SERVICE", self.service.as_str())
            .env("BATON_INSTANCE", self.instance.as_str())
            .process_group(0)
            .spawn()
            .map_err(fail)?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        // A child that was just started has a number.
        let id = id.ok_or_else(|| fail(io::ErrorKind::Other.into()))?;
        Ok(Group { child, id })
    }
}

impl Group {
    /// Its number.
    pub(super) fn id(&self) -> Pid {
        self.id
    }

    /// Sends every process of the group a signal. Whoever was stopped goes on, so that it can do what it is told.
    pub(super) fn signal(&self, signal: Signal) {
        // It may have ended meanwhile.
        let _ = kill_process_group(self.id, signal);
        if signal == Signal::TERM || signal == Signal::INT {
            let _ = kill_process_group(self.id, Signal::CONT);
        }
    }

    /// Kills every process of the group.
    pub(super) fn kill(&self) {
        let _ = kill_process_group(self.id, Signal::KILL);
    }

    /// Waits for the end of the child itself. Dropping the future loses nothing.
    pub(super) async fn ended(&mut self) -> Ended {
        self.child.wait().await.map_or(Ended::Unknown, Ended::of)
    }

    /// Kills what is left of the group, and what has left it, until nobody is there. Only after the child itself has
    /// ended. Dropping the future loses nothing.
    pub(super) async fn emptied(&self, orphans: &Orphans) {
        let mut wait = LOOK_FIRST;
        while !(self.is_empty() & orphans.end()) {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LOOK_MAX);
        }
    }

    /// Whether nobody is left; whoever is, is killed.
    fn is_empty(&self) -> bool {
        // Those whose parent has ended are our own children, if we adopt orphans.
        while matches!(waitpgid(self.id, WaitOptions::NOHANG), Ok(Some(_))) {}
        match kill_process_group(self.id, Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => true,
            // Dead and not waited for by a parent that lives elsewhere: it does nothing any more.
            Ok(()) | Err(_) => processes().is_some_and(|all| !all.iter().any(|one| one.group == self.id && one.lives)),
        }
    }
}

/// What this process knows of the orphans among its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Orphans {
    /// This process adopts them, and has no children but them and `spared`.
    adopted: bool,
    spared: Option<Pid>,
}

impl Orphans {
    /// Adopts every descendant whose parent ends, instead of leaving it to the first process of the system. Only for a
    /// process that has no children but its child and `spared`: all others are killed with the group.
    pub(super) fn adopt() -> Self {
        #[cfg(target_os = "linux")]
        let adopted = rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_ok();
        #[cfg(not(target_os = "linux"))]
        let adopted = false;
        Self { adopted, spared: None }
    }

    /// The same, but for this child.
    pub(super) fn sparing(self, child: Option<Pid>) -> Self {
        Self { spared: child, ..self }
    }

    /// Kills who is left; whether nobody is.
    fn end(self) -> bool {
        let mut nobody = true;
        for one in self.left() {
            nobody = false;
            let _ = kill_process(one, Signal::KILL);
            let _ = waitpid(Some(one), WaitOptions::NOHANG);
        }
        nobody
    }

    /// Waits for those who have ended by themselves, so that the dead do not pile up under a child that runs for long.
    pub(super) fn reap(self, group: Option<&Group>) {
        let child = group.map(Group::id);
        for one in self.left().into_iter().filter(|one| Some(*one) != child) {
            let _ = waitpid(Some(one), WaitOptions::NOHANG);
        }
    }

    /// Our own children, but for the spared one.
    fn left(self) -> Vec<Pid> {
        if !self.adopted {
            return Vec::new();
        }
        let mut left = children();
        left.retain(|one| Some(*one) != self.spared);
        left
    }
}

/// The children of this process, dead ones included.
fn children() -> Vec<Pid> {
    // proc_pid_task_children(5): short, but not in every kernel.
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists: Vec<_> = tasks.map(|task| std::fs::read_to_string(task.path().join("children"))).collect();
    if lists.iter().any(Result::is_ok) {
        return lists.iter().flatten().flat_map(|list| list.split_whitespace().filter_map(pid)).collect();
    }
    let own = rustix::process::getpid();
    // Where the list of processes cannot be read either, nobody is known.
    processes().unwrap_or_default().iter().filter(|one| one.parent == own).map(|one| one.id).collect()
}

/// A process as the system lists it.
struct Listed {
    id: Pid,
    parent: Pid,
    group: Pid,
    /// It is not dead and waiting to be waited for.
    lives: bool,
}

/// Every process that can be seen; none where the system has no such list.
fn processes() -> Option<Vec<Listed>> {
    let entries = std::fs::read_dir("/proc").ok()?;
    let names = entries.flatten().map(|entry| entry.file_name());
    let ids = names.filter(|name| name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit));
    // Whoever has ended since the list was read has no line any more.
    let lines = ids.filter_map(|id| std::fs::read(std::path::Path::new("/proc").join(id).join("stat")).ok());
    let all: Vec<Listed> = lines.filter_map(|line| listed(&String::from_utf8_lossy(&line))).collect();
    (!all.is_empty()).then_some(all)
}

/// How many processes of a group do anything.
#[cfg(test)]
pub(super) fn of_group(group: Pid) -> usize {
    processes().expect("a list").iter().filter(|one| one.group == group && one.lives).count()
}

fn pid(text: &str) -> Option<Pid> {
    text.parse().ok().filter(|id| *id > 0).and_then(Pid::from_raw)
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)): `id (name) state parent group ...`, where the name may hold anything.
fn listed(line: &str) -> Option<Listed> {
    let (id, rest) = line.split_once(' ')?;
    let (_, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?;
    // What is outside of a container, or beyond the first process of the system, has the number 0.
    let mut number = || fields.next().map(|text| pid(text).unwrap_or(Pid::INIT));
    let (parent, group) = (number()?, number()?);
    Some(Listed { id: pid(id)?, parent, group, lives: !matches!(state, "Z" | "X" | "x") })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rustix::process::test_kill_process_group;

    use super::*;

    /// More than enough for any of this.
    const SOON: Duration = Duration::from_secs(20);

    fn task(script: &str) -> Task {
        let command = ["sh", "-c", script].map(OsString::from).to_vec();
        let name = |text: &str| text.to_owned();
        Task { command, service: name("orders").parse().expect("a name"), instance: name("a").parse().expect("a name") }
    }

    async fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let end = Instant::now() + SOON;
        while !holds() {
            assert!(Instant::now() < end, "waited for {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[test]
    fn a_line_of_the_list_is_read_whatever_the_name() {
        let one = listed("42 (a) b) Z 7 9 9 0 -1").expect("a process");
        assert_eq!((one.id.as_raw_pid(), one.parent.as_raw_pid(), one.group.as_raw_pid()), (42, 7, 9));
        assert!(!one.lives);
        assert!(listed("42 (sh) S 7 9 9").expect("a process").lives);
        assert!(listed("nonsense").is_none());
        let own = rustix::process::getpid();
        assert!(processes().expect("a list").iter().any(|one| one.id == own && one.lives));
    }

    #[tokio::test]
    async fn a_child_gets_its_token_and_its_end_is_told() {
        let told = r#"test "$BATON_TOKEN/$BATON_SESSION/$BATON_ROLE/$BATON_SERVICE/$BATON_INSTANCE" = 17/s1/active/orders/a && exit 7"#;
        let mut group = task(told).start(Token(17), Some("s1")).expect("a shell");
        assert_eq!(group.ended().await, Ended::Code(7));
        let mut group = task("kill -SEGV $$").start(Token(17), Some("s1")).expect("a shell");
        assert_eq!(group.ended().await, Ended::Signal(11));
    }

    #[tokio::test]
    async fn grandchildren_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let mark = dir.path().join("up");
        // The child ends at once; the one it started ignores a polite word.
        let script = format!("(trap '' TERM; touch {}; while :; do sleep 60; done) & exit 3", mark.display());
        let mut group = task(&script).start(Token(1), None).expect("a shell");
        assert_eq!(group.ended().await, Ended::Code(3));
        until("the grandchild", || mark.exists()).await;
        group.signal(Signal::TERM);
        assert_eq!(test_kill_process_group(group.id()), Ok(()), "a grandchild is still there");
        tokio::time::timeout(SOON, group.emptied(&Orphans::default())).await.expect("nobody survives KILL");
        assert_eq!(of_group(group.id()), 0);
    }

    #[tokio::test]
    async fn who_was_stopped_hears_the_polite_word() {
        let mut group = task("kill -STOP $$; sleep 60").start(Token(1), None).expect("a shell");
        let id = group.id();
        let stopped = || {
            let line = std::fs::read_to_string(format!("/proc/{}/stat", id.as_raw_pid())).unwrap_or_default();
            line.contains(") T ")
        };
        until("it to be stopped", stopped).await;
        group.signal(Signal::TERM);
        let ended = tokio::time::timeout(SOON, group.ended()).await;
        assert_eq!(ended, Ok(Ended::Signal(15)));
        group.kill();
    }

    #[tokio::test]
    async fn what_cannot_be_run_has_the_code_that_a_shell_gives() {
        let mut task = task("");
        task.command = vec!["no-such-program-anywhere".into()];
        assert_eq!(task.start(Token(1), None).expect_err("there is none").code, 127);
        task.command = vec!["/dev/null".into()];
        assert_eq!(task.start(Token(1), None).expect_err("it is no program").code, 126);
    }
}
