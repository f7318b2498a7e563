//! `baton run`: a child process that runs while its instance is active, under the lease of its token. This is where the
//! decisions of `supervisor` meet the world: the session, the child's group, signals, time. Nothing is decided here.

mod group;
mod rules;
mod signals;
mod supervisor;
mod watchdog;
mod words;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod trial;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use baton_client::{Alarm, Client, ClientError, NoAlarm, Session, SessionConfig, boot_time};
use baton_core::id::ServiceName;
use baton_core::policy::{Mode, Registration, Spec};
use baton_core::probe::LocalTime;
use rustix::process::Pid;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

pub(crate) use self::group::Task;
use self::group::{Group, Orphans};
use self::rules::GraceTooLong;
pub(crate) use self::rules::{Restart, Rules};
use self::signals::{Meaning, Signals};
use self::supervisor::{Input, Output, Supervisor};
use self::watchdog::Watchdog;
pub(crate) use self::watchdog::watchdog;
use self::words::Ended;
use crate::terminal::output::remark;

/// The wait before a cluster that does not answer is asked for the service again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why a child cannot be supervised at all.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The cluster refuses what was asked of it, or cannot be asked at all.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// All instances of such a service work at a time: there is no active to be.
    #[error("\"{service}\" is {mode}: baton run is for active_passive services, of which one instance works at a time")]
    NotActivePassive {
        /// The service.
        service: ServiceName,
        /// Its mode.
        mode: Mode,
    },
    /// The grace does not fit into the service's lease.
    #[error(transparent)]
    Grace(#[from] GraceTooLong),
    /// Without signals nobody could end it.
    #[error("signals cannot be received: {0}")]
    Signals(std::io::Error),
    /// Without a timer nobody would end the child in time.
    #[error(transparent)]
    Alarm(#[from] NoAlarm),
    /// Without a watchdog nobody would stop the child when this process is killed.
    #[error("the watchdog cannot be started: {0}")]
    Watchdog(std::io::Error),
}

/// Keeps a command running while its instance is active, until it ends for good; the exit code.
pub(crate) async fn supervise(
    client: Client,
    task: Task,
    registration: Registration,
    rules: Rules,
) -> Result<u8, RunError> {
    // From the first moment on: whoever is the first process of a container is ended by no signal that it does not hear.
    let mut signals = Signals::new().map_err(RunError::Signals)?;
    let name = format!("{}/{}", task.service, task.instance);
    let spec = tokio::select! {
        spec = spec_of(&client, &task.service, &name) => spec?,
        signal = signals.end() => return Ok(Ended::Signal(signal.as_raw()).code()),
    };
    match spec.mode {
        Mode::ActivePassive => {}
        mode @ Mode::ActiveActive => return Err(RunError::NotActivePassive { service: task.service, mode }),
    }
    rules.fits(spec.lease.ttl.as_duration())?;
    let watchdog = Watchdog::start().map_err(RunError::Watchdog)?;
    let (service, instance) = (task.service.clone(), task.instance.clone());
    let follow_role = !spec.lease.release_on_disconnect;
    let session = Session::start(SessionConfig { client, service, instance, registration, follow_role })?;
    let command = task.command.first().map_or("CMD".into(), |program| {
        Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
    });
    let runner = Runner {
        task,
        supervisor: Supervisor::new(name, command, rules),
        session,
        group: None,
        ended: false,
        orphans: Orphans::adopt().sparing(watchdog.id()),
        watchdog: Some(watchdog),
        watched: None,
        revived: 0,
        say,
    };
    runner.run(signals).await
}

/// The service's spec, as soon as anybody tells it. A cluster that cannot be reached yet is waited for, as one that is lost
/// later is: who starts first after a power cut is nobody's choice.
async fn spec_of(client: &Client, service: &ServiceName, name: &str) -> Result<Spec, RunError> {
    let mut told = false;
    loop {
        let error = match client.service(service).await {
            Ok(view) => return Ok(view.spec),
            Err(error) => error,
        };
        let passes = match &error {
            ClientError::Problem(problem) => problem.status >= 500 || problem.status == 429,
            ClientError::NoConnection { .. } | ClientError::NoAnswer { .. } => true,
            ClientError::Endpoint { .. } | ClientError::Unexpected { .. } => false,
        };
        if !passes {
            return Err(error.into());
        }
        if !std::mem::replace(&mut told, true) {
            say(&format!("{name} waits for the cluster: {error}"));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// How often a watchdog that has ended is replaced. One that ends at once, whatever the reason, must not be started for ever.
const REVIVED_MAX: u32 = 20;

/// All that a supervisor acts with.
struct Runner {
    task: Task,
    supervisor: Supervisor,
    session: Session,
    group: Option<Group>,
    /// The child itself has ended; who is left of its group is killed.
    ended: bool,
    orphans: Orphans,
    watchdog: Option<Watchdog>,
    /// What the watchdog was told last.
    watched: Option<(Pid, LocalTime)>,
    /// How many watchdogs were started in place of one that had ended.
    revived: u32,
    say: fn(&str),
}

/// What came.
enum Came {
    Input(Input),
    Signal(Meaning),
    /// Some child of this process has ended.
    Child,
}

impl Runner {
    /// Supervises until the end; the exit code.
    async fn run(mut self, mut signals: Signals) -> Result<u8, RunError> {
        let mut deaths = signal(SignalKind::child()).map_err(RunError::Signals)?;
        let mut alarm = Alarm::new()?;
        loop {
            let came = self.wait(&mut signals, &mut deaths, &mut alarm).await;
            let input = match came {
                Came::Input(input) => input,
                Came::Signal(Meaning::End(signal)) => Input::Asked(signal),
                Came::Signal(Meaning::Pass(signal)) => match &self.group {
                    Some(group) if !self.ended => {
                        group.signal(signal);
                        continue;
                    }
                    // Nobody to pass it to: what would end any other program ends this one.
                    Some(_) | None if Signals::ends(signal) => Input::Asked(signal),
                    Some(_) | None => continue,
                },
                Came::Child => {
                    self.orphans.reap(self.group.as_ref());
                    self.revive_watchdog();
                    continue;
                }
            };
            if let Some(code) = self.act(input) {
                return Ok(code);
            }
        }
    }

    async fn wait(&mut self, signals: &mut Signals, deaths: &mut Stream, alarm: &mut Alarm) -> Came {
        let wake = self.supervisor.wake_at();
        tokio::select! {
            input = of_group(self.group.as_mut(), self.ended, &self.orphans) => Came::Input(input),
            event = self.session.next() => Came::Input(Input::Session(event)),
            meaning = signals.next() => Came::Signal(meaning),
            _ = deaths.recv() => Came::Child,
            () = alarm.at(wake) => Came::Input(Input::Time),
        }
    }

    /// Lets the supervisor decide and does what it says; the exit code, if that was the last of it.
    fn act(&mut self, input: Input) -> Option<u8> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            match &input {
                Input::Ended(_) => self.ended = true,
                Input::Empty => self.group = None,
                Input::Session(_) | Input::NotStarted { .. } | Input::Asked(_) | Input::Time => {}
            }
            for output in self.supervisor.step(boot_time(), input) {
                match output {
                    Output::Start(token) => match self.task.start(token) {
                        Ok(group) => {
                            self.group = Some(group);
                            self.ended = false;
                        }
                        Err(error) => {
                            inputs.push_back(Input::NotStarted { code: error.code, why: error.to_string() });
                        }
                    },
                    Output::Signal(signal) => self.group.iter().for_each(|group| group.signal(signal)),
                    Output::Kill => self.group.iter().for_each(Group::kill),
                    Output::Release(release) => self.session.release(release),
                    Output::Say(line) => (self.say)(&line),
                    Output::Exit(code) => return Some(code),
                }
            }
            self.tell_watchdog();
        }
        None
    }

    fn tell_watchdog(&mut self) {
        let group = self.group.as_ref().map(Group::id);
        let wanted = group.zip(self.supervisor.lives_until());
        if wanted == self.watched {
            return;
        }
        self.watched = wanted;
        let Some(watchdog) = &mut self.watchdog else { return };
        let told = match wanted {
            Some((group, until)) => watchdog.watch(group, until),
            None => watchdog.rest(),
        };
        // One that does not listen is stopped, or dead; a dead one is replaced when its end is told.
        if let Err(error) = told
            && error.kind() != std::io::ErrorKind::WouldBlock
        {
            self.revive_watchdog();
        }
    }

    fn revive_watchdog(&mut self) {
        if !self.watchdog.as_mut().is_some_and(Watchdog::has_ended) {
            return;
        }
        self.revived += 1;
        if self.revived > REVIVED_MAX {
            (self.say)("its watchdogs are killed again and again: there is none from here on");
            self.watchdog = None;
            return;
        }
        match Watchdog::start() {
            Ok(mut watchdog) => {
                (self.say)("the watchdog was killed: another has been started");
                if let Some((group, until)) = self.watched {
                    // A failure is seen at the next renewal.
                    let _ = watchdog.watch(group, until);
                }
                self.orphans = self.orphans.sparing(watchdog.id());
                self.watchdog = Some(watchdog);
            }
            Err(error) => {
                (self.say)(&format!("the watchdog was killed and no other can be started: {error}"));
                self.watchdog = None;
            }
        }
    }
}

/// What becomes of the child: first its own end, then that of its group.
async fn of_group(group: Option<&mut Group>, ended: bool, orphans: &Orphans) -> Input {
    match group {
        Some(group) if ended => {
            group.emptied(orphans).await;
            Input::Empty
        }
        Some(group) => Input::Ended(group.ended().await),
        None => std::future::pending().await,
    }
}

fn say(line: &str) {
    remark(&format!("baton run: {line}"));
}
