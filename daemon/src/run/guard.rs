//! Whether a watchdog guards the child's group, and what is done when none does: it is told of every new end of the lease, and
//! replaced when it dies or does not listen. What a watchdog does is `watchdog`'s.

use std::io;

use baton_core::probe::LocalTime;
use rustix::process::Pid;

use super::rules::{WELL_AFTER, backoff};
use super::watchdog::Watchdog;
use super::words::length;

/// The watchdog, and what it knows.
#[derive(Debug)]
pub(super) struct Guard {
    start: fn() -> io::Result<Watchdog>,
    watchdog: Option<Watchdog>,
    /// When the present one was started.
    started: LocalTime,
    /// What the present one has been told, whole.
    watched: Option<(Pid, LocalTime)>,
    /// What it should know.
    wanted: Option<(Pid, LocalTime)>,
    /// When another is started.
    again: Option<LocalTime>,
    /// Watchdogs in a row that were lost soon.
    lost: u32,
    say: fn(&str),
}

impl Guard {
    /// Starts the first one.
    pub(super) fn new(start: fn() -> io::Result<Watchdog>, now: LocalTime, say: fn(&str)) -> io::Result<Self> {
        let watchdog = Some(start()?);
        Ok(Self { start, watchdog, started: now, watched: None, wanted: None, again: None, lost: 0, say })
    }

    /// None at all, for tests of what is beside it.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        let start = || Err(io::ErrorKind::Unsupported.into());
        let (started, say) = (LocalTime::default(), |_: &str| {});
        Self { start, watchdog: None, started, watched: None, wanted: None, again: None, lost: 0, say }
    }

    /// The number of the present one.
    pub(super) fn id(&self) -> Option<Pid> {
        self.watchdog.as_ref().and_then(Watchdog::id)
    }

    /// When another is to be started.
    pub(super) fn wake_at(&self) -> Option<LocalTime> {
        self.again
    }

    /// Lets this group live until then; none: there is no group. What was not told as a whole counts as not told.
    pub(super) fn tell(&mut self, now: LocalTime, wanted: Option<(Pid, LocalTime)>) {
        self.wanted = wanted;
        if self.watched == wanted {
            return;
        }
        let Some(watchdog) = &mut self.watchdog else { return };
        let told = match wanted {
            Some((group, until)) => watchdog.watch(group, until),
            None => watchdog.rest(),
        };
        match told {
            Ok(()) => self.watched = wanted,
            Err(error) => self.lose(now, &format!("does not listen ({error})")),
        }
    }

    /// Looks whether the watchdog lives, and starts another when it is time for that.
    pub(super) fn look(&mut self, now: LocalTime) {
        if self.watchdog.as_mut().is_some_and(Watchdog::has_ended) {
            self.lose(now, "was killed");
        }
        if self.again.is_some_and(|at| at <= now) {
            self.start(now);
        }
    }

    /// The present one is of no use. It is dead before its socket is closed, or it would kill whom it was last told of.
    fn lose(&mut self, now: LocalTime, why: &str) {
        if let Some(watchdog) = self.watchdog.take() {
            watchdog.kill();
        }
        self.watched = None;
        let well = now.since(self.started) >= WELL_AFTER;
        self.lost = if well { 1 } else { self.lost.saturating_add(1) };
        if self.lost == 1 {
            (self.say)(&format!("the watchdog {why}"));
            self.start(now);
            return;
        }
        let wait = backoff(self.lost - 1);
        (self.say)(&format!("the watchdog {why}: another is started in {}", length(wait)));
        self.again = Some(now.plus(wait));
    }

    fn start(&mut self, now: LocalTime) {
        self.again = None;
        match (self.start)() {
            Ok(watchdog) => {
                (self.say)("its watchdog was lost: another has been started");
                (self.watchdog, self.started) = (Some(watchdog), now);
                self.tell(now, self.wanted);
            }
            Err(error) => {
                self.lost = self.lost.saturating_add(1);
                let wait = backoff(self.lost);
                (self.say)(&format!("no watchdog can be started: {error}; tried again in {}", length(wait)));
                self.again = Some(now.plus(wait));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::process::{Child, Command, Stdio};
    use std::sync::Mutex;
    use std::time::Duration;

    use rustix::process::test_kill_process;

    use super::*;

    /// The far ends of the sockets of all watchdogs that were started by a test.
    static ENDS: Mutex<Vec<UnixStream>> = Mutex::new(Vec::new());

    fn sleeper() -> Child {
        // Should a test fail, nobody waits for it.
        Command::new("sleep").arg("60").stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("sleep")
    }

    /// One that never reads, and has no room left.
    fn deaf() -> Watchdog {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_nonblocking(true).expect("a socket");
        while (&ours).write(&[b'\n'; 64]).is_ok() {}
        std::mem::forget(theirs);
        Watchdog::of(sleeper(), ours)
    }

    fn hearing() -> io::Result<Watchdog> {
        let (ours, theirs) = UnixStream::pair()?;
        ENDS.lock().expect("no panic").push(theirs);
        Ok(Watchdog::of(sleeper(), ours))
    }

    fn dead() -> io::Result<Watchdog> {
        let mut child = Command::new("true").spawn()?;
        child.wait()?;
        Ok(Watchdog::of(child, UnixStream::pair()?.0))
    }

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    #[test]
    fn one_that_does_not_listen_is_killed_and_the_next_one_is_told() {
        let mut guard = Guard { watchdog: Some(deaf()), start: hearing, ..Guard::none() };
        let old = guard.id().expect("a process");
        let group = Pid::from_raw(4_242).expect("a number");
        guard.tell(at(1_000), Some((group, at(9_000))));
        assert!(test_kill_process(old).is_err() || zombie(old), "it would kill the group when its socket closes");
        assert_ne!(guard.id(), Some(old), "another was started at once");
        assert_eq!(guard.watched, Some((group, at(9_000))));
        let mut heard = [0; 32];
        let told = ENDS.lock().expect("no panic").pop().expect("a watchdog").read(&mut heard).expect("a line");
        assert_eq!(&heard[..told], b"4242 9000000000\n");
        guard.watchdog.take().expect("a watchdog").kill();
    }

    fn zombie(pid: Pid) -> bool {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while std::time::Instant::now() < end {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if !stat.contains(") S ") && !stat.contains(") R ") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    #[test]
    fn watchdogs_that_die_at_once_are_replaced_ever_more_slowly_and_never_given_up() {
        let mut guard = Guard { watchdog: dead().ok(), start: dead, ..Guard::none() };
        let (mut now, mut starts) = (at(0), 1);
        guard.look(now);
        assert_eq!(guard.wake_at(), None, "the first one that is lost is replaced at once");
        guard.look(now);
        while now < at(3_600_000) {
            now = guard.wake_at().expect("another is started");
            guard.look(now);
            starts += 1;
            guard.look(now);
        }
        assert!((120..140).contains(&starts), "{starts} in an hour");
    }

    #[test]
    fn one_that_was_well_for_long_is_replaced_at_once() {
        let mut guard = Guard { watchdog: dead().ok(), start: hearing, ..Guard::none() };
        guard.look(at(60_000));
        assert!(guard.watchdog.is_some() && guard.wake_at().is_none());
        guard.watchdog.take().expect("a watchdog").kill();
    }
}
