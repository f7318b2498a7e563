//! `baton run`: a child process that runs while its instance is active, under the lease of its token. This is where the
//! decisions of `supervisor` meet the world: the session, the child's group, signals, time. Nothing is decided here.

mod group;
mod guard;
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
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

pub(crate) use self::group::Task;
use self::group::{Group, NotStarted, Orphans};
use self::guard::Guard;
use self::rules::GraceTooLong;
pub(crate) use self::rules::{AckBy, Restart, Rules};
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
    /// There is nothing to be started.
    #[error("the command cannot be started: {0}; nothing was registered")]
    Command(#[from] NotStarted),
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
    task.can_start()?;
    let guard = Guard::new(Watchdog::start, boot_time(), say).map_err(RunError::Watchdog)?;
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
        orphans: Orphans::adopt().sparing(guard.id()),
        guard,
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

/// All that a supervisor acts with.
struct Runner {
    task: Task,
    supervisor: Supervisor,
    session: Session,
    group: Option<Group>,
    /// The child itself has ended; who is left of its group is killed.
    ended: bool,
    orphans: Orphans,
    guard: Guard,
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
                    self.look_after_guard();
                    continue;
                }
            };
            if let Some(code) = self.act(input) {
                return Ok(code);
            }
        }
    }

    async fn wait(&mut self, signals: &mut Signals, deaths: &mut Stream, alarm: &mut Alarm) -> Came {
        let wake = self.supervisor.wake_at().into_iter().chain(self.guard.wake_at()).min();
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
                Input::Session(_) | Input::NotStarted { .. } | Input::Started | Input::Asked(_) | Input::Time => {}
            }
            for output in self.supervisor.step(boot_time(), input) {
                match output {
                    Output::Start(token) => match self.task.start(token, self.session.id().as_deref()) {
                        Ok(group) => {
                            self.group = Some(group);
                            self.ended = false;
                            inputs.push_back(Input::Started);
                        }
                        Err(error) => {
                            inputs.push_back(Input::NotStarted { code: error.code, why: error.to_string() });
                        }
                    },
                    Output::Signal(signal) => self.group.iter().for_each(|group| group.signal(signal)),
                    Output::Kill => self.group.iter().for_each(Group::kill),
                    Output::Release(release) => self.session.release(release),
                    Output::Acknowledge(token) => self.session.acknowledge(token),
                    Output::Leave(reason) => self.session.leave(reason),
                    Output::Say(line) => (self.say)(&line),
                    Output::Exit(code) => {
                        // Whoever guards has nobody to guard any more, and must not take this end for a death.
                        self.look_after_guard();
                        return Some(code);
                    }
                }
            }
            self.look_after_guard();
        }
        None
    }

    /// Sees to it that somebody guards the group, and knows until when.
    fn look_after_guard(&mut self) {
        let now = boot_time();
        let group = self.group.as_ref().map(Group::id);
        self.guard.look(now);
        self.guard.tell(now, group.zip(self.supervisor.lives_until()));
        self.orphans = self.orphans.sparing(self.guard.id());
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
