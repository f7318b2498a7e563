//! The world of one run: everybody in it, the network between them, what is going to happen. It hands each event to
//! whom it concerns; what they do is said in the rooms of the actors.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::{Clock, Micros};
use super::history::History;
use super::message::{Event, Message, NodeTimer, ProcessTimer};
use super::net::{Addr, Net};
use super::node::Node;
use super::process::Process;
use super::queue::Queue;
use super::renewals::LastGrant;
use super::rng::Rng;
use super::seen::{Seen, Sight};
use super::shape::{SLOTS, Shape};

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    /// The invariant's name: that of its file.
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
    pub(crate) at: Micros,
}

/// How many messages a stopped actor finds waiting when it goes on; what is beyond is lost, as full buffers lose it.
const BACKLOG_MAX: usize = 500;

/// Whether an actor gets to do anything.
#[derive(Debug, Default)]
pub(crate) struct Stopped {
    /// Since when, and whether the whole machine sleeps.
    pub(crate) since: Option<(Micros, bool)>,
    pub(crate) backlog: Vec<Event>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Micros,
    pub(crate) shape: Shape,
    pub(crate) queue: Queue<Event>,
    pub(crate) net: Net,
    pub(crate) rng: Rng,
    pub(crate) nodes: Vec<Node>,
    pub(crate) processes: Vec<Process>,
    /// The highest token that each service's resource has seen.
    pub(crate) guards: Vec<u64>,
    pub(crate) history: History,
    pub(crate) last_grant: LastGrant,
    pub(crate) seen: Seen,
    pub(crate) violation: Option<Violation>,
    /// Whether operators act and things break.
    pub(crate) shaking: bool,
    /// The highest term that a majority has elected.
    pub(crate) elected: u64,
    /// Operators' requests so far.
    pub(crate) requests: u64,
    /// Sessions so far: each is new.
    pub(crate) sessions: u64,
    /// What happened, where somebody wants to read it.
    pub(crate) told: Option<Vec<String>>,
    /// What happened, as a number: equal runs have equal ones.
    pub(crate) fingerprint: u64,
    pub(crate) stopped: BTreeMap<Addr, Stopped>,
}

/// Tells what happens, if anybody listens. The words are made only then.
macro_rules! tell {
    ($world:expr, $($what:tt)*) => {
        if $world.told.is_some() {
            let line = format!($($what)*);
            $world.tell(line);
        }
    };
}
pub(crate) use tell;

impl World {
    pub(crate) fn new(shape: Shape, tells: bool) -> Self {
        let mut rng = shape.rng();
        let net = Net::new(shape.weather, rng.split());
        let nodes = (0..shape.nodes)
            .map(|at| {
                let error = shape.node_error(&mut rng);
                Node::new(at, shape.nodes, some_clock(&mut rng, error))
            })
            .collect();
        let mut processes = Vec::new();
        for (service, instances) in shape.instances.iter().enumerate() {
            for letter in 0..*instances {
                for slot in 0..SLOTS {
                    processes.push({
                        let error = shape.process_error(&mut rng);
                        Process::new(processes.len(), service, letter, slot, some_clock(&mut rng, error))
                    });
                }
            }
        }
        let mut world = Self {
            now: 0,
            queue: Queue::new(),
            net,
            rng,
            nodes,
            processes,
            guards: vec![0; shape.instances.len()],
            history: History::default(),
            last_grant: LastGrant::new(),
            seen: Seen::default(),
            violation: None,
            shaking: true,
            elected: 0,
            requests: 0,
            sessions: 0,
            told: tells.then(Vec::new),
            fingerprint: 0,
            stopped: BTreeMap::new(),
            shape,
        };
        for node in 0..world.nodes.len() {
            world.start_node(node);
        }
        world.begin();
        world
    }

    pub(crate) fn tell(&mut self, line: String) {
        let (secs, micros) = (self.now / 1_000_000, self.now % 1_000_000);
        if let Some(told) = &mut self.told {
            told.push(format!("{secs:>4}.{micros:06}  {line}"));
        }
    }

    /// A promise is broken: the run ends here.
    pub(crate) fn broken(&mut self, invariant: &'static str, what: String) {
        if self.violation.is_none() {
            tell!(self, "BROKEN: {invariant}: {what}");
            self.violation = Some(Violation { invariant, what, at: self.now });
        }
    }

    /// Takes the next event. Whether there was one.
    pub(crate) fn step(&mut self, until: Micros) -> bool {
        let Some((at, event)) = self.queue.next() else { return false };
        if at > until {
            self.queue.plan(at, event);
            return false;
        }
        self.now = at;
        self.mark(&event);
        self.happen(event);
        true
    }

    fn mark(&mut self, event: &Event) {
        let (kind, whom) = match event {
            Event::Deliver { to: Addr::Node(at), .. } => (1, *at),
            Event::Deliver { to: Addr::Process(at), .. } => (2, *at),
            Event::Deliver { to: Addr::Operator | Addr::Resource(_), .. } => (3, 0),
            Event::Node { node, .. } => (4, *node),
            Event::Process { process, .. } => (5, *process),
            Event::Resume { .. } => (6, 0),
            Event::Start { .. } => (7, 0),
            Event::Return { .. } => (10, 0),
            Event::Operator => (8, 0),
            Event::Nemesis => (9, 0),
        };
        let value = self.now ^ (kind << 56) ^ ((whom as u64) << 48);
        self.fingerprint = Rng::new(self.fingerprint ^ value).next();
    }

    fn happen(&mut self, event: Event) {
        let whom = match &event {
            Event::Deliver { to, .. } => Some(*to),
            Event::Node { node, .. } => Some(Addr::Node(*node)),
            Event::Process { process, .. } => Some(Addr::Process(*process)),
            Event::Resume { .. } | Event::Start { .. } | Event::Return { .. } | Event::Operator | Event::Nemesis => {
                None
            }
        };
        if let Some(stopped) = whom.and_then(|whom| self.stopped.get_mut(&whom))
            && stopped.since.is_some()
        {
            if stopped.backlog.len() < BACKLOG_MAX {
                stopped.backlog.push(event);
            }
            return;
        }
        match event {
            Event::Deliver { from, to: Addr::Node(node), message } => self.node_hears(node, from, message),
            Event::Deliver { from: _, to: Addr::Process(process), message } => self.process_hears(process, message),
            Event::Deliver { from: _, to: Addr::Operator, message } => self.operator_hears(&message),
            Event::Deliver { from, to: Addr::Resource(service), message } => {
                self.resource_hears(service, from, &message);
            }
            Event::Node { node, boot, timer } => {
                if self.nodes[node].boot == boot && self.nodes[node].up {
                    self.node_timer(node, timer);
                }
            }
            Event::Process { process, boot, timer } => {
                if self.processes[process].boot == boot && self.processes[process].up {
                    self.process_timer(process, timer);
                }
            }
            Event::Resume { actor } => self.resume(actor),
            Event::Start { actor } => self.start(actor),
            Event::Return { node } => self.return_from_exile(node),
            Event::Operator => self.operator_acts(),
            Event::Nemesis => self.nemesis_acts(),
        }
    }

    pub(crate) fn plan(&mut self, after: Micros, event: Event) {
        self.queue.plan(self.now + after, event);
    }

    pub(crate) fn send(&mut self, from: Addr, to: Addr, message: Message) {
        let mut delays = self.net.delays(from, to);
        let last = delays.pop();
        for delay in delays {
            self.plan(delay, Event::Deliver { from, to, message: message.clone() });
        }
        if let Some(delay) = last {
            self.plan(delay, Event::Deliver { from, to, message });
        }
    }

    /// A node will do something after `length` by its own clock, or sooner or later than that, never before.
    pub(crate) fn node_will(&mut self, node: usize, length: Duration, timer: NodeTimer) {
        let (boot, after) = (self.nodes[node].boot, self.nodes[node].clock.until(length));
        self.plan(after, Event::Node { node, boot, timer });
    }

    pub(crate) fn process_will(&mut self, process: usize, length: Duration, timer: ProcessTimer) {
        let (boot, after) = (self.processes[process].boot, self.processes[process].clock.until(length));
        self.plan(after, Event::Process { process, boot, timer });
    }

    /// About `mean`, as a local length.
    pub(crate) fn about(&mut self, mean: Micros) -> Duration {
        Duration::from_micros(self.rng.about(mean))
    }

    /// From here on the actor takes no step. Time goes on.
    pub(crate) fn stop(&mut self, actor: Addr, asleep: bool) {
        let now = self.now;
        let stopped = self.stopped.entry(actor).or_default();
        if stopped.since.is_none() {
            stopped.since = Some((now, asleep));
            tell!(self, "{actor} {}", if asleep { "and its machine fall asleep" } else { "is stopped" });
        }
    }

    pub(crate) fn is_stopped(&self, actor: Addr) -> bool {
        self.stopped.get(&actor).is_some_and(|stopped| stopped.since.is_some())
    }

    pub(crate) fn resume(&mut self, actor: Addr) {
        let Some(stopped) = self.stopped.get_mut(&actor) else { return };
        let Some((since, asleep)) = stopped.since.take() else { return };
        let mut backlog = std::mem::take(&mut stopped.backlog);
        if asleep {
            match actor {
                Addr::Node(at) => self.nodes[at].clock.slept(since, self.now),
                Addr::Process(at) => self.processes[at].clock.slept(since, self.now),
                Addr::Operator | Addr::Resource(_) => {}
            }
        }
        tell!(self, "{actor} goes on; {} things wait for it", backlog.len());
        // What waits in different sockets, and timers, come in any order.
        if self.rng.chance(600) {
            self.rng.shuffle(&mut backlog);
        }
        let mut after = 1;
        for event in backlog {
            self.plan(after, event);
            after += self.rng.below(200);
        }
    }

    fn start(&mut self, actor: Addr) {
        match actor {
            Addr::Node(at) => {
                if !self.nodes[at].up {
                    self.seen.note(Sight::NodeRestarts);
                    self.start_node(at);
                }
            }
            Addr::Process(at) => {
                if !self.processes[at].up {
                    self.start_process(at);
                }
            }
            Addr::Operator | Addr::Resource(_) => {}
        }
    }

    /// The end of an actor's memory. Whatever it had planned is forgotten.
    pub(crate) fn crash(&mut self, actor: Addr) {
        self.stopped.remove(&actor);
        match actor {
            Addr::Node(at) => {
                let node = &mut self.nodes[at];
                (node.up, node.boot) = (false, node.boot + 1);
            }
            Addr::Process(at) => {
                let process = &mut self.processes[at];
                (process.up, process.boot) = (false, process.boot + 1);
            }
            Addr::Operator | Addr::Resource(_) => {}
        }
        tell!(self, "{actor} dies");
    }
}

fn some_clock(rng: &mut Rng, error: i64) -> Clock {
    Clock::new(error, Duration::from_millis(rng.below(100_000)))
}
