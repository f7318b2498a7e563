//! The runner with real children and a session that is played by the test.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use baton_client::{Asked, Release, Session, SessionEnd, SessionEvent, boot_time};
use baton_core::id::Token;
use rustix::process::Pid;
use tokio::task::JoinHandle;

use super::group::{Orphans, Task, of_group};
use super::guard::Guard;
use super::rules::{AckBy, Restart, Rules};
use super::signals::Signals;
use super::supervisor::Supervisor;
use super::{RunError, Runner};

/// More than enough for any of this.
const SOON: Duration = Duration::from_secs(20);
/// A lease long enough not to end by itself here.
const LONG: Duration = Duration::from_secs(3_600);

/// A runner whose child is a shell, the session's end of its line, and a directory for marks.
struct Trial {
    runner: JoinHandle<Result<u8, RunError>>,
    end: SessionEnd,
    dir: tempfile::TempDir,
}

impl Trial {
    /// `$D` in the script is the directory.
    fn new(script: &str, restart: Restart) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let script = script.replace("$D", &dir.path().display().to_string());
        let (service, instance) = ("orders".parse().expect("a name"), "a".parse().expect("a name"));
        let task = Task { command: ["sh", "-c", &script].map(OsString::from).to_vec(), service, instance };
        let rules = Rules { restart, ack: AckBy::Started, grace: None, stop_timeout: SOON };
        let supervisor = Supervisor::new("orders/a".to_owned(), "sh".to_owned(), rules);
        let (session, end) = Session::line();
        // Other tests of this process have children too: none are adopted.
        let runner = Runner {
            task,
            supervisor,
            session,
            group: None,
            ended: false,
            orphans: Orphans::default(),
            guard: Guard::none(),
            say: |_| {},
        };
        Self { runner: tokio::spawn(runner.run(Signals::new().expect("signals"))), end, dir }
    }

    async fn tell(&self, event: SessionEvent) {
        self.end.news.send(event).await.expect("the runner lives");
    }

    async fn active(&self, token: u64, ttl: Duration) {
        self.tell(SessionEvent::Active { token: Token(token), until: boot_time().plus(ttl), ttl }).await;
    }

    async fn released(&mut self) -> Release {
        loop {
            match self.asked().await {
                Asked::Release(release) => return release,
                Asked::Acknowledge(_) => {}
                asked @ Asked::Leave { .. } => panic!("{asked:?} before a release"),
            }
        }
    }

    async fn asked(&mut self) -> Asked {
        let asked = tokio::time::timeout(SOON, self.end.asked.recv()).await;
        asked.expect("a wish in time").expect("the runner lives")
    }

    async fn mark(&self, name: &str) -> PathBuf {
        let mark = self.dir.path().join(name);
        let end = Instant::now() + SOON;
        while !Path::new(&mark).exists() {
            assert!(Instant::now() < end, "waited for {name}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        mark
    }

    async fn code(self) -> u8 {
        let code = tokio::time::timeout(SOON, self.runner).await.expect("it ends in time").expect("no panic");
        code.expect("a code")
    }
}

#[tokio::test]
async fn the_end_of_the_child_is_told_at_once_and_its_code_passed_on() {
    let mut trial = Trial::new("touch $D/up; read x < $D/pipe; exit 5", Restart::Never);
    let pipe = trial.dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
    assert!(made.success());
    trial.active(17, LONG).await;
    trial.mark("up").await;
    assert_eq!(trial.asked().await, Asked::Acknowledge(Token(17)), "as soon as it runs");
    let writer = tokio::task::spawn_blocking(move || std::fs::write(&pipe, "go\n").map(|()| Instant::now()));
    let release = trial.released().await;
    let took = writer.await.expect("no panic").expect("it reads").elapsed();
    assert_eq!((release.token, release.leaving), (Token(17), true));
    assert!(release.reason.contains("exit code 5"), "{}", release.reason);
    println!("released {took:?} after the child had what it waited for");
    trial.tell(SessionEvent::Released { token: Token(17) }).await;
    assert_eq!(trial.code().await, 5);
}

#[tokio::test]
async fn the_child_is_dead_before_its_lease_ends_though_it_will_not_stop() {
    let mut trial = Trial::new("trap '' TERM; touch $D/up; while :; do sleep 0.05; done", Restart::Never);
    // Its margin is 150 ms: on a machine that is busy with other tests, KILL takes some time.
    let ttl = Duration::from_secs(3);
    let until = boot_time().plus(ttl);
    trial.tell(SessionEvent::Active { token: Token(3), until, ttl }).await;
    trial.mark("up").await;
    let release = trial.released().await;
    let left = until.since(boot_time());
    println!("everybody was dead {left:?} before the end of the lease");
    assert!(left > Duration::ZERO, "the group outlived its lease");
    assert!(!release.leaving, "it was not its own end");
    trial.tell(SessionEvent::Released { token: Token(3) }).await;
    trial.tell(SessionEvent::Over(baton_client::SessionOver::Superseded)).await;
    assert_eq!(trial.code().await, 6);
}

#[tokio::test]
async fn nobody_of_the_group_is_left_when_the_token_is_given_back() {
    let many = "i=0; while test $i -lt 60; do sleep 300 & i=$((i+1)); done; echo $$ > $D/id; exit 0";
    let mut trial = Trial::new(many, Restart::Never);
    trial.active(5, LONG).await;
    trial.released().await;
    let id = std::fs::read_to_string(trial.mark("id").await).expect("a number");
    let group = id.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
    assert_eq!(of_group(group), 0, "processes of the group live on");
    trial.tell(SessionEvent::Released { token: Token(5) }).await;
    assert_eq!(trial.code().await, 0);
}

#[tokio::test]
async fn a_failing_child_comes_again_with_the_next_token() {
    let mut trial = Trial::new("touch $D/up-$BATON_TOKEN; test $BATON_TOKEN = 8", Restart::OnFailure);
    trial.active(7, LONG).await;
    trial.mark("up-7").await;
    let release = trial.released().await;
    assert_eq!((release.token, release.leaving), (Token(7), false));
    trial.tell(SessionEvent::Released { token: Token(7) }).await;
    trial.active(8, LONG).await;
    trial.mark("up-8").await;
    assert!(trial.released().await.leaving);
    trial.tell(SessionEvent::Released { token: Token(8) }).await;
    assert_eq!(trial.code().await, 0);
}

#[tokio::test]
async fn a_step_down_lets_the_child_finish() {
    let script = "trap 'touch $D/asked; exit 0' TERM; touch $D/up; while :; do sleep 0.02; done";
    let mut trial = Trial::new(script, Restart::Never);
    trial.active(7, LONG).await;
    trial.mark("up").await;
    trial.tell(SessionEvent::StepDown { token: Token(7), reason: "switchover".to_owned() }).await;
    trial.mark("asked").await;
    assert!(!trial.released().await.leaving);
    trial.tell(SessionEvent::Released { token: Token(7) }).await;
    trial.tell(SessionEvent::Passive { active: None }).await;
    trial.active(9, LONG).await;
    trial.tell(SessionEvent::Over(baton_client::SessionOver::Superseded)).await;
    assert_eq!(trial.code().await, 6);
}
