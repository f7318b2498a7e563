//! A process that runs as an instance: it registers, drives the real holder's machine, works while it may, stops and
//! says so.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::command::{Command, Done, InstancePut};
use baton_core::holder::{Change, Holder, LeaseAnswer, RoleAnswer, Stop};
use baton_core::id::{InstanceId, ServiceName, Token};
use baton_core::mutant::{Mutant, planted};
use baton_core::policy::{Liveness, Registration};
use baton_core::probe::LocalTime;

use super::clock::{Clock, MS, Micros};
use super::invariants;
use super::message::{Answer, Ask, Beat, Message, ProcessTimer, RequestId};
use super::net::Addr;
use super::seen::Sight;
use super::shape::{LETTERS, NAMES};
use super::world::{World, tell};

/// How long a registration is waited for.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often it works while it may.
const WORK_EVERY: Duration = Duration::from_millis(40);

/// What a process has asked and waits for.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    Register { session: String },
    Beat { number: u64, until: LocalTime },
    Say { command: Command, again: u32, until: LocalTime },
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) at: usize,
    pub(crate) service: usize,
    pub(crate) instance: InstanceId,
    /// 0 for the one that runs; 1 for the twin that somebody starts under the same name.
    pub(crate) slot: usize,
    pub(crate) up: bool,
    pub(crate) boot: u64,
    pub(crate) clock: Clock,
    /// Its session, with the machine that is the subject of all this.
    pub(crate) session: Option<(String, Holder)>,
    asked: BTreeMap<RequestId, Asked>,
    requests: u64,
    /// The node that it talks to, until that one does not answer. Pushes of its role come from there too.
    pub(crate) node: usize,
    /// The wake-up that counts: those planned before it do not.
    wake: u64,
    /// About how long it takes to stop when it is told to, before it says so.
    stopping: Micros,
}

impl Process {
    pub(crate) fn new(at: usize, service: usize, letter: usize, slot: usize, clock: Clock) -> Self {
        Self {
            at,
            service,
            instance: LETTERS[letter].parse().expect("an instance id"),
            slot,
            up: false,
            boot: 0,
            clock,
            session: None,
            asked: BTreeMap::new(),
            requests: 0,
            node: 0,
            wake: 0,
            stopping: 5 * MS,
        }
    }

    pub(crate) fn name(&self) -> ServiceName {
        service_name(self.service)
    }

    /// What its clock says.
    pub(crate) fn time(&self, now: Micros) -> LocalTime {
        // The fault: a clock that stands still while the machine sleeps.
        if planted(Mutant::ClockStopsInSleep) { self.clock.without_sleep(now) } else { self.clock.at(now) }
    }

    /// The token under which it may act at true time `now`, were it to look at its clock.
    pub(crate) fn may_act(&self, now: Micros) -> Option<Token> {
        if !self.up {
            return None;
        }
        self.session.as_ref()?.1.may_act(self.time(now))
    }
}

pub(crate) fn service_name(at: usize) -> ServiceName {
    NAMES[at].parse().expect("a service name")
}

impl World {
    pub(crate) fn process_time(&self, at: usize) -> LocalTime {
        self.processes[at].time(self.now)
    }

    pub(crate) fn start_process(&mut self, at: usize) {
        let node = self.rng.at(self.nodes.len());
        let stopping = self.rng.one(&[100, 5 * MS, 50 * MS, 400 * MS]);
        let process = &mut self.processes[at];
        process.up = true;
        (process.node, process.stopping) = (node, stopping);
        process.session = None;
        process.asked.clear();
        tell!(self, "p{at} starts as {}/{}", self.processes[at].name(), self.processes[at].instance);
        self.process_will(at, Duration::ZERO, ProcessTimer::Register);
        self.process_will(at, WORK_EVERY, ProcessTimer::Work);
    }

    pub(crate) fn process_timer(&mut self, at: usize, timer: ProcessTimer) {
        match timer {
            ProcessTimer::Register => self.register(at),
            ProcessTimer::Wake { number } => {
                if self.processes[at].wake == number {
                    self.look(at);
                }
            }
            ProcessTimer::Work => {
                if let Some(token) = self.processes[at].may_act(self.now) {
                    invariants::holds(self, at, token);
                    let resource = Addr::Resource(self.processes[at].service);
                    self.send(Addr::Process(at), resource, Message::Work { token });
                }
                self.process_will(at, WORK_EVERY, ProcessTimer::Work);
            }
            ProcessTimer::Stopped { session, token, leaving } => self.say_released(at, &session, token, leaving),
            ProcessTimer::Serve { session, token } => self.say_served(at, &session, token),
        }
    }

    /// Sends a request to the node that it talks to.
    pub(crate) fn ask(&mut self, at: usize, asked: Asked, ask: Ask) {
        let process = &mut self.processes[at];
        process.requests += 1;
        // No number is used twice, whatever its incarnation: late answers of the one before it find nobody.
        let request = (process.boot << 32) + process.requests;
        process.asked.insert(request, asked);
        let node = process.node;
        self.send(Addr::Process(at), Addr::Node(node), Message::Ask { request, ask });
    }

    /// Another node may know better.
    fn another_node(&mut self, at: usize) {
        self.processes[at].node = self.rng.at(self.nodes.len());
    }

    pub(crate) fn register(&mut self, at: usize) {
        if self.processes[at].session.is_some() {
            return;
        }
        self.sessions += 1;
        let session = format!("s{}", self.sessions);
        let process = &mut self.processes[at];
        process.asked.retain(|_, asked| !matches!(asked, Asked::Register { .. }));
        let mut registration = Registration::at(None);
        registration.liveness = Liveness::Heartbeat;
        registration.priority = 100 * (1 + u32::try_from(process.at / 2 % 3).expect("a small number"));
        let (service, instance) = (process.name(), process.instance.clone());
        let put = InstancePut {
            service,
            instance,
            registration: Box::new(registration),
            session: session.clone(),
            if_generation: None,
            actor: format!("p{at}"),
        };
        self.ask(at, Asked::Register { session }, Ask::Write(Command::InstancePut(put)));
        self.another_node(at);
        self.process_will(at, PATIENCE, ProcessTimer::Register);
    }

    /// Looks at its clock, and does what has come due.
    fn look(&mut self, at: usize) {
        let now = self.process_time(at);
        let late: Vec<(RequestId, Asked)> = {
            let over = |asked: &Asked| match asked {
                Asked::Register { .. } => false,
                Asked::Beat { until, .. } | Asked::Say { until, .. } => now >= *until,
            };
            let process = &mut self.processes[at];
            let ids: Vec<RequestId> =
                process.asked.iter().filter(|(_, asked)| over(asked)).map(|(id, _)| *id).collect();
            ids.into_iter().filter_map(|id| process.asked.remove(&id).map(|asked| (id, asked))).collect()
        };
        for (_, asked) in late {
            self.another_node(at);
            match asked {
                Asked::Beat { number, .. } => {
                    if let Some((_, holder)) = &mut self.processes[at].session {
                        holder.unanswered(number, now);
                    }
                }
                Asked::Say { command, again, .. } if again > 0 => self.say(at, command, again - 1),
                Asked::Say { .. } | Asked::Register { .. } => {}
            }
        }
        let Some((session, holder)) = &mut self.processes[at].session else { return };
        let changes = holder.elapsed(now);
        let beat = holder.beat_at().is_some_and(|due| now >= due).then(|| holder.send(now));
        let session = session.clone();
        if let Some(beat) = beat {
            let process = &self.processes[at];
            let (service, instance) = (process.name(), process.instance.clone());
            let lag = self.some_lag();
            let beat_ask = Beat { service, instance, session: session.clone(), lag, era: self.elected };
            let asked = Asked::Beat { number: beat.number, until: now.plus(beat.timeout) };
            self.ask(at, asked, Ask::Heartbeat(beat_ask));
        }
        self.changed(at, &session, changes);
        self.wake_later(at);
    }

    /// How far an instance is behind. Once all is healed nobody is.
    fn some_lag(&mut self) -> Option<u64> {
        if self.shaking { self.rng.one(&[None, Some(0), Some(50), Some(500)]) } else { Some(0) }
    }

    /// Plans the next look.
    pub(crate) fn wake_later(&mut self, at: usize) {
        let now = self.process_time(at);
        let process = &mut self.processes[at];
        process.wake += 1;
        let number = process.wake;
        let holder = process.session.as_ref().map(|(_, holder)| holder);
        let timers = holder.map(|holder| [holder.beat_at(), holder.lapses_at()]).into_iter().flatten().flatten();
        let waits = process.asked.values().filter_map(|asked| match asked {
            Asked::Register { .. } => None,
            Asked::Beat { until, .. } | Asked::Say { until, .. } => Some(*until),
        });
        if let Some(next) = timers.chain(waits).min() {
            let after = next.since(now);
            self.process_will(at, after, ProcessTimer::Wake { number });
        }
    }

    pub(crate) fn process_hears(&mut self, at: usize, message: Message) {
        if !self.processes[at].up {
            return;
        }
        match message {
            Message::Answer { request, answer } => {
                let Some(asked) = self.processes[at].asked.remove(&request) else {
                    // Whoever is no longer waited for may still be the holder's business: see below.
                    return;
                };
                self.answered(at, asked, answer);
                self.wake_later(at);
            }
            Message::Prompt => {
                let now = self.process_time(at);
                if let Some((_, holder)) = &mut self.processes[at].session {
                    holder.prompted(now);
                    self.wake_later(at);
                }
            }
            Message::Raft(_)
            | Message::Ask { .. }
            | Message::Forward { .. }
            | Message::Relay { .. }
            | Message::Work { .. } => {}
        }
    }

    fn answered(&mut self, at: usize, asked: Asked, answer: Answer) {
        let now = self.process_time(at);
        match (asked, answer) {
            (Asked::Register { session }, Answer::Reply(Ok(Done::Stored { .. }))) => {
                let process = &mut self.processes[at];
                if process.session.is_none() {
                    process.session = Some((session.clone(), Holder::new(now)));
                    tell!(self, "p{at} is registered in session {session}");
                }
            }
            (Asked::Beat { number, .. }, Answer::Role { lease, interval }) => {
                let lease = lease.map(|granted| LeaseAnswer {
                    token: granted.token,
                    ttl: granted.ttl.as_duration(),
                    on_quorum_loss: granted.on_quorum_loss,
                });
                let Some((session, holder)) = &mut self.processes[at].session else { return };
                let changes = holder.answered(number, &RoleAnswer { lease, interval }, now);
                if lease.is_some() && changes.is_empty() {
                    self.seen.note(Sight::AnswersIgnored);
                }
                let session = session.clone();
                self.changed(at, &session, changes);
            }
            (Asked::Beat { number, .. }, Answer::UnknownSession) => {
                let Some((session, holder)) = &mut self.processes[at].session else { return };
                let changes = holder.superseded(number);
                let session = session.clone();
                self.changed(at, &session, changes);
            }
            (Asked::Beat { number, .. }, Answer::Undecided) => {
                if let Some((_, holder)) = &mut self.processes[at].session {
                    holder.undecided(number);
                }
            }
            (Asked::Beat { number, .. }, Answer::Unavailable | Answer::Reply(_)) => {
                if let Some((_, holder)) = &mut self.processes[at].session {
                    holder.unanswered(number, now);
                }
                self.another_node(at);
            }
            (Asked::Say { command, again, .. }, Answer::Unavailable) if again > 0 => {
                self.another_node(at);
                self.say(at, command, again - 1);
            }
            (Asked::Say { .. }, _) => {}
            (Asked::Register { .. }, _) => self.another_node(at),
        }
    }

    /// What the machine says of its role.
    fn changed(&mut self, at: usize, session: &str, changes: Vec<Change>) {
        for change in changes {
            tell!(self, "p{at} in {session}: {change:?}");
            match change {
                Change::Active { token, .. } => {
                    invariants::holds(self, at, token);
                    // Some take long before they serve, and some never do.
                    if !self.shaking || self.rng.chance(900) {
                        let mean = self.rng.one(&[100, 20 * MS, 300 * MS]);
                        let after = self.about(mean);
                        let session = session.to_owned();
                        self.process_will(at, after, ProcessTimer::Serve { session, token });
                    }
                }
                Change::Extended { .. } => {
                    if let Some(token) = self.processes[at].may_act(self.now) {
                        invariants::holds(self, at, token);
                    }
                }
                Change::Stopped { token, why } => {
                    match why {
                        Stop::SteppedDown => self.seen.note(Sight::StepDowns),
                        Stop::Lapsed => self.seen.note(Sight::LeasesLapsed),
                        Stop::Superseded => self.over(at),
                        Stop::Replaced => {}
                    }
                    // Whoever has stopped says so; one whose lease ran out may be in no state to.
                    if why != Stop::Lapsed || self.rng.chance(500) {
                        let after = self.about(self.processes[at].stopping);
                        let (session, leaving) = (session.to_owned(), false);
                        self.process_will(at, after, ProcessTimer::Stopped { session, token, leaving });
                    }
                }
                Change::Unreleased { token } => {
                    let says = |asked: &Asked| matches!(asked, Asked::Say { command: Command::Release(it), .. } if it.token == token);
                    if !self.processes[at].asked.values().any(says) {
                        self.seen.note(Sight::ReleasesSaidAgain);
                        self.say_released(at, session, token, false);
                    }
                }
                Change::Superseded => self.over(at),
            }
        }
    }

    /// Its session is over.
    fn over(&mut self, at: usize) {
        self.seen.note(Sight::SessionsSuperseded);
        self.processes[at].session = None;
        // A supervisor starts it anew some time later; of a twin one is enough.
        if self.processes[at].slot == 0 {
            let after = self.about(self.shape.comes_again);
            self.process_will(at, after, ProcessTimer::Register);
        }
    }
}
