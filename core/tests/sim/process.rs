//! A process that runs as an instance: it registers, heartbeats, works while it may. And what it works on, with its
//! guard.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::command::{Command, Done, InstancePut};
use baton_core::id::{InstanceId, ServiceName, Token};
use baton_core::policy::{Liveness, Registration};
use baton_core::probe::LocalTime;

use super::clock::{Clock, MS};
use super::message::{Answer, Ask, Beat, Message, ProcessTimer, RequestId};
use super::net::Addr;
use super::seen::Sight;
use super::shape::{LETTERS, NAMES};
use super::world::{World, tell};

/// How long a registration is waited for.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// How often it works while it may.
const WORK_EVERY: Duration = Duration::from_millis(40);

/// What a process asked, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Register,
    Beat,
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
    pub(crate) session: Option<String>,
    registering: Option<String>,
    asked: BTreeMap<RequestId, (Asked, LocalTime)>,
    requests: u64,
    /// The node that it talks to, until that one does not answer.
    node: usize,
    /// The token under which it believes itself active.
    pub(crate) token: Option<Token>,
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
            registering: None,
            asked: BTreeMap::new(),
            requests: 0,
            node: 0,
            token: None,
        }
    }

    pub(crate) fn name(&self) -> ServiceName {
        service_name(self.service)
    }
}

pub(crate) fn service_name(at: usize) -> ServiceName {
    NAMES[at].parse().expect("a service name")
}

impl World {
    fn process_time(&self, at: usize) -> LocalTime {
        self.processes[at].clock.at(self.now)
    }

    pub(crate) fn start_process(&mut self, at: usize) {
        let node = self.rng.at(self.nodes.len());
        let process = &mut self.processes[at];
        process.up = true;
        process.node = node;
        (process.session, process.registering, process.token) = (None, None, None);
        process.asked.clear();
        tell!(self, "p{at} starts as {}/{}", self.processes[at].name(), self.processes[at].instance);
        self.process_will(at, Duration::ZERO, ProcessTimer::Register);
        self.process_will(at, WORK_EVERY, ProcessTimer::Work);
    }

    pub(crate) fn process_timer(&mut self, at: usize, timer: &ProcessTimer) {
        match timer {
            ProcessTimer::Register => self.register(at),
            ProcessTimer::Beat => self.beat(at),
            ProcessTimer::Work => {
                if let Some(token) = self.processes[at].token {
                    let resource = Addr::Resource(self.processes[at].service);
                    self.send(Addr::Process(at), resource, Message::Work { token });
                }
                self.process_will(at, WORK_EVERY, ProcessTimer::Work);
            }
        }
    }

    /// Sends a request to the node that it talks to.
    fn ask(&mut self, at: usize, what: (Asked, LocalTime), ask: Ask) {
        let process = &mut self.processes[at];
        process.requests += 1;
        // No number is used twice, whatever its incarnation: late answers of the one before it find nobody.
        let request = (process.boot << 32) + process.requests;
        process.asked.insert(request, what);
        let node = process.node;
        self.send(Addr::Process(at), Addr::Node(node), Message::Ask { request, ask });
    }

    /// Another node may know better.
    fn another_node(&mut self, at: usize) {
        self.processes[at].node = self.rng.at(self.nodes.len());
    }

    fn register(&mut self, at: usize) {
        if self.processes[at].session.is_some() {
            return;
        }
        self.sessions += 1;
        let session = format!("s{}", self.sessions);
        let now = self.process_time(at);
        let process = &mut self.processes[at];
        process.registering = Some(session.clone());
        let mut registration = Registration::at(None);
        registration.liveness = Liveness::Heartbeat;
        registration.priority = 100 * (1 + u32::try_from(process.at % 3).expect("a small number"));
        let (service, instance) = (process.name(), process.instance.clone());
        let put = InstancePut {
            service,
            instance,
            registration: Box::new(registration),
            session,
            if_generation: None,
            actor: format!("p{at}"),
        };
        self.ask(at, (Asked::Register, now), Ask::Write(Command::InstancePut(put)));
        self.another_node(at);
        self.process_will(at, PATIENCE, ProcessTimer::Register);
    }

    fn beat(&mut self, at: usize) {
        let now = self.process_time(at);
        let process = &mut self.processes[at];
        let Some(session) = process.session.clone() else { return };
        let late = process.asked.values().any(|(_, sent)| now.since(*sent) > Duration::from_millis(300));
        process.asked.retain(|_, (_, sent)| now.since(*sent) <= Duration::from_secs(3));
        let (service, instance) = (process.name(), process.instance.clone());
        let beat = Beat { service, instance, session, era: self.elected };
        if late {
            self.another_node(at);
        }
        self.ask(at, (Asked::Beat, now), Ask::Heartbeat(beat));
        self.process_will(at, Duration::from_millis(80), ProcessTimer::Beat);
    }

    pub(crate) fn process_hears(&mut self, at: usize, message: Message) {
        let Message::Answer { request, answer } = message else { return };
        if !self.processes[at].up {
            return;
        }
        let Some((asked, _)) = self.processes[at].asked.remove(&request) else { return };
        match (asked, answer) {
            (Asked::Register, Answer::Reply(Ok(Done::Stored { session: Some(session), .. }))) => {
                let process = &mut self.processes[at];
                if process.session.is_none() && process.registering.as_ref() == Some(&session) {
                    process.session = Some(session);
                    self.process_will(at, Duration::ZERO, ProcessTimer::Beat);
                }
            }
            (Asked::Beat, Answer::Role { active }) => self.processes[at].token = active,
            (Asked::Beat, Answer::UnknownSession) => {
                self.seen.note(Sight::SessionsSuperseded);
                let process = &mut self.processes[at];
                (process.session, process.token) = (None, None);
                tell!(self, "p{at} learns that its session is over");
                // A supervisor starts it anew some time later; of a twin one is enough.
                if self.processes[at].slot == 0 {
                    let after = self.about(800 * MS);
                    self.process_will(at, after, ProcessTimer::Register);
                }
            }
            (Asked::Register | Asked::Beat, _) => self.another_node(at),
        }
    }

    /// The guard of what a service's instances work on: it remembers the highest token that it saw.
    pub(crate) fn resource_hears(&mut self, service: usize, from: Addr, message: &Message) {
        let Message::Work { token } = message else { return };
        let highest = self.guards[service];
        if token.0 < highest {
            self.seen.note(Sight::OldTokensRefused);
            tell!(self, "r{service} refuses token {token} of {from}: it has seen {highest}");
            return;
        }
        self.guards[service] = token.0;
    }
}
