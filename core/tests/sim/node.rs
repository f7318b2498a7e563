//! A node: its part in Raft, the state that it has applied, its disk. What it does as a leader is in `leader`.

use std::time::Duration;

use baton_core::apply::{Position, apply_batch};
use baton_core::command::{Command, NodeAnnounce};
use baton_core::event::EventKind;
use baton_core::id::{NodeId, ServiceName};
use baton_core::lease::Leases;
use baton_core::mutant::{Mutant, planted};
use baton_core::probe::LocalTime;
use baton_core::state::State;
use baton_core::time::ClusterTime;

use super::clock::Clock;
use super::invariants;
use super::leader::Lead;
use super::message::{Answer, Ask, Event, Message, NodeTimer, RequestId, Waiter};
use super::net::Addr;
use super::raft::{Raft, Turn};
use super::seen::Sight;
use super::world::{World, tell};

/// How often a leader says that it leads.
const HEARTBEAT_EVERY: Duration = Duration::from_millis(50);

/// How long a node waits for a leader: from this up to twice as long.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) at: usize,
    pub(crate) up: bool,
    /// How often it has died.
    pub(crate) boot: u64,
    pub(crate) clock: Clock,
    pub(crate) raft: Raft,
    pub(crate) state: State,
    pub(crate) applied: u64,
    /// Whether it is about to apply what is committed.
    applying: bool,
    /// What is in its state file: it may trail.
    durable: (u64, State),
    /// When its patience runs out.
    election_at: LocalTime,
    /// The decision clock: the last stamp that was ahead, and when it was seen.
    pub(crate) stamp: (ClusterTime, LocalTime),
    /// What it remembers as the leader of a term.
    pub(crate) lead: Option<Lead>,
    /// The table of leases: the real one.
    pub(crate) leases: Leases,
    /// Since when it runs for leader, where it does.
    runs_since: Option<LocalTime>,
    /// The terms in which it led. Only those look who tell what was seen.
    led: Vec<u64>,
    /// Until when its disk is stuck, in true time: nothing is appended before.
    pub(crate) stuck_until: u64,
}

impl Node {
    pub(crate) fn new(at: usize, size: usize, clock: Clock) -> Self {
        Self {
            at,
            up: false,
            boot: 0,
            clock,
            raft: Raft::new(at, size),
            state: State::default(),
            applied: 0,
            applying: false,
            durable: (0, State::default()),
            election_at: LocalTime::default(),
            stamp: (ClusterTime(0), LocalTime::default()),
            lead: None,
            leases: Leases::new(),
            runs_since: None,
            led: Vec::new(),
            stuck_until: 0,
        }
    }

    pub(crate) fn led_before(&self, term: u64) -> bool {
        self.led.iter().any(|led| *led < term)
    }

    /// Its number in `core`.
    pub(crate) fn id(&self) -> NodeId {
        self.at as NodeId + 1
    }

    /// The decision clock.
    pub(crate) fn cluster_time(&self, now: LocalTime) -> ClusterTime {
        let passed = now.since(self.stamp.1).as_millis();
        ClusterTime(self.stamp.0.0 + u64::try_from(passed).expect("a short time"))
    }
}

impl World {
    pub(crate) fn local(&self, node: usize) -> LocalTime {
        self.nodes[node].clock.at(self.now)
    }

    /// A node starts with what its disk holds.
    pub(crate) fn start_node(&mut self, at: usize) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        node.up = true;
        node.raft.restart();
        node.lead = None;
        node.leases = Leases::new();
        node.runs_since = None;
        node.applying = false;
        let rows: Vec<_> = node.durable.1.rows().map(|row| row.expect("a state is written as rows")).collect();
        node.state = State::from_rows(rows).expect("rows are read as a state");
        node.applied = node.durable.0;
        let same = node.state == node.durable.1;
        node.stamp = (node.state.meta.cluster_time, now);
        if !same {
            self.broken(invariants::I9, format!("n{}: the rows of its state are read as another state", at + 1));
        }
        tell!(self, "n{} starts, with entries applied up to {}", at + 1, self.nodes[at].applied);
        self.new_patience(at);
        self.node_will(at, PATIENCE, NodeTimer::Election);
        let after = self.about(self.shape.persist_every);
        self.node_will(at, after, NodeTimer::Persist);
    }

    fn new_patience(&mut self, at: usize) {
        let more = Duration::from_micros(self.rng.below(PATIENCE.as_micros() as u64));
        self.nodes[at].election_at = self.local(at).plus(PATIENCE + more);
    }

    pub(crate) fn node_hears(&mut self, at: usize, from: Addr, message: Message) {
        if !self.nodes[at].up {
            return;
        }
        match message {
            Message::Raft(message) => {
                if let Addr::Node(from) = from {
                    self.nodes[at].raft.receive(from, message);
                    self.after_raft(at);
                }
            }
            Message::Ask { request, ask } => self.asked(at, from, request, ask),
            Message::Forward { client, request, ask } => {
                if let Addr::Node(via) = from {
                    self.lead_hears(at, via, client, request, ask);
                }
            }
            Message::Relay { client, request, answer } => self.answer(at, client, request, answer),
            Message::Answer { .. } | Message::Prompt | Message::Work { .. } => {}
        }
    }

    /// A client asks this node.
    fn asked(&mut self, at: usize, client: Addr, request: RequestId, ask: Ask) {
        match self.nodes[at].raft.leader {
            Some(leader) if leader == at => self.lead_hears(at, at, client, request, ask),
            Some(leader) => {
                self.send(Addr::Node(at), Addr::Node(leader), Message::Forward { client, request, ask });
            }
            None => self.answer(at, client, request, Answer::Unavailable),
        }
    }

    pub(crate) fn answer(&mut self, at: usize, client: Addr, request: RequestId, answer: Answer) {
        self.send(Addr::Node(at), client, Message::Answer { request, answer });
    }

    /// The leader answers through the node that was asked.
    pub(crate) fn relay(&mut self, at: usize, via: usize, client: Addr, request: RequestId, answer: Answer) {
        if via == at {
            self.answer(at, client, request, answer);
        } else {
            self.send(Addr::Node(at), Addr::Node(via), Message::Relay { client, request, answer });
        }
    }

    /// Sends what Raft wants sent, and sees to what follows.
    pub(crate) fn after_raft(&mut self, at: usize) {
        let raft = &mut self.nodes[at].raft;
        let (out, turns) = (std::mem::take(&mut raft.out), std::mem::take(&mut raft.turns));
        let (heard, taken_back) = (std::mem::take(&mut raft.heard), std::mem::take(&mut raft.taken_back));
        if taken_back > 0 {
            self.seen.note(Sight::EntriesOverwritten);
        }
        for (to, message) in out {
            self.send(Addr::Node(at), Addr::Node(to), Message::Raft(message));
        }
        if heard {
            self.new_patience(at);
        }
        for turn in turns {
            match turn {
                Turn::Elected => self.elected(at),
                Turn::SteppedDown => self.stepped_down(at),
            }
        }
        let node = &mut self.nodes[at];
        if node.raft.commit > node.applied && !node.applying {
            node.applying = true;
            let after = self.about(self.shape.apply_lag);
            self.node_will(at, after, NodeTimer::Apply);
        }
        self.rounds_moved(at);
    }

    fn elected(&mut self, at: usize) {
        let now = self.local(at);
        let term = self.nodes[at].raft.term;
        self.elected = self.elected.max(term);
        self.seen.note(Sight::Elections);
        let ran = self.nodes[at].runs_since.map_or(Duration::ZERO, |since| now.since(since));
        tell!(self, "n{} leads in term {term}, after {} ms of candidacy", at + 1, ran.as_millis());
        let first_index = self.nodes[at].raft.last_index();
        let node = &mut self.nodes[at];
        node.lead = Some(Lead::new(term, now, first_index));
        node.led.push(term);
        let runs_since = node.runs_since.take();
        // The wait of a new leader counts from here, where a majority has voted for it. The fault: from its candidacy.
        let from = if planted(Mutant::WaitFromCandidacy) { runs_since.unwrap_or(now) } else { now };
        node.leases.begin(term, from);
        self.node_will(at, HEARTBEAT_EVERY, NodeTimer::Heartbeat { term });
        self.node_will(at, Duration::ZERO, NodeTimer::Tick { term });
    }

    fn stepped_down(&mut self, at: usize) {
        self.nodes[at].runs_since = None;
        if self.nodes[at].lead.take().is_some() {
            self.seen.note(Sight::DeposedLeaders);
            tell!(self, "n{} leads no longer", at + 1);
        }
    }

    pub(crate) fn node_timer(&mut self, at: usize, timer: NodeTimer) {
        match timer {
            NodeTimer::Election => self.look_for_leader(at),
            NodeTimer::Apply => self.apply_committed(at),
            NodeTimer::Persist => {
                let node = &mut self.nodes[at];
                node.durable = (node.applied, node.state.clone());
                let after = self.about(self.shape.persist_every);
                self.node_will(at, after, NodeTimer::Persist);
            }
            NodeTimer::Heartbeat { term } => {
                let raft = &mut self.nodes[at].raft;
                if raft.leads() && raft.term == term {
                    raft.send_to_all();
                    self.after_raft(at);
                    self.node_will(at, HEARTBEAT_EVERY, NodeTimer::Heartbeat { term });
                }
            }
            NodeTimer::Flush { term } => self.flush(at, term),
            NodeTimer::Plan { term } => self.plan_services(at, term),
            NodeTimer::Tick { term } => self.tick(at, term),
            NodeTimer::Propose { term, command, waiter } => self.seal_and_propose(at, term, command, waiter),
            NodeTimer::Round { term } => self.begin_round(at, term),
            NodeTimer::RoundOver { term, number } => self.round_over(at, term, number),
            NodeTimer::Grant { term, point, renewal, tried } => self.grant(at, term, point, renewal, tried),
        }
    }

    fn look_for_leader(&mut self, at: usize) {
        let now = self.local(at);
        if now >= self.nodes[at].election_at {
            self.new_patience(at);
            self.run_for_leader(at);
        }
        let wait = self.nodes[at].election_at.since(now);
        self.node_will(at, wait, NodeTimer::Election);
    }

    pub(crate) fn run_for_leader(&mut self, at: usize) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        if node.up && !node.raft.leads() {
            node.runs_since.get_or_insert(now);
            node.raft.campaign();
            self.after_raft(at);
        }
    }

    /// Applies what is committed, perhaps not all of it at once.
    fn apply_committed(&mut self, at: usize) {
        self.nodes[at].applying = false;
        let up_to = self.nodes[at].raft.commit;
        while self.nodes[at].applied < up_to && self.violation.is_none() {
            self.apply_next(at);
            if self.rng.chance(20) {
                break;
            }
        }
        self.after_raft(at);
    }

    fn apply_next(&mut self, at: usize) {
        let local = self.local(at);
        let node = &mut self.nodes[at];
        let index = node.applied + 1;
        let Some(entry) = node.raft.entry(index).cloned() else { return };
        let applied =
            entry.batch.as_ref().map(|batch| apply_batch(&mut node.state, Position { term: entry.term, index }, batch));
        node.applied = index;
        let stamp = node.state.meta.cluster_time;
        if stamp > node.cluster_time(local) {
            node.stamp = (stamp, local);
        }
        if index <= self.history.len() {
            tell!(self, "n{} applies {index}", at + 1);
        } else if let (Some(batch), Some(applied)) = (&entry.batch, &applied) {
            for (command, reply) in batch.commands.iter().zip(&applied.replies) {
                tell!(self, "n{} applies {index} first: {} -> {reply:?}", at + 1, short(command));
            }
        }
        invariants::applied(self, at, index, &entry, applied.as_ref());
        self.lead_applied(at, index, entry.term, applied.as_ref());
        for event in applied.iter().flat_map(|applied| &applied.events).map(|recorded| &recorded.event) {
            if let (EventKind::ActiveChanged, Some(name)) = (event.kind, &event.service) {
                self.push_roles(at, name);
            }
        }
    }

    /// Tells the processes that listen here that something about their role has changed.
    fn push_roles(&mut self, at: usize, service: &ServiceName) {
        for process in 0..self.processes.len() {
            let listens = self.processes[process].up && self.processes[process].node == at;
            if listens && self.processes[process].name() == *service {
                self.send(Addr::Node(at), Addr::Process(process), Message::Prompt);
            }
        }
    }

    /// Who it is, for all to know: proposed when it leads for the first time, and by others when they see it missing.
    pub(crate) fn announcement(at: usize) -> Command {
        Command::NodeAnnounce(NodeAnnounce {
            node: at as NodeId + 1,
            api: format!("127.0.0.1:74{at}0"),
            peer: format!("127.0.0.1:74{at}1"),
            version: "0.1.0".to_owned(),
        })
    }

    pub(crate) fn propose_soon(&mut self, at: usize, term: u64, command: Command, waiter: Waiter) {
        let after = self.about(self.shape.think);
        self.node_will(at, after, NodeTimer::Propose { term, command, waiter });
    }

    pub(crate) fn start_later(&mut self, actor: Addr, after: u64) {
        self.plan(after, Event::Start { actor });
    }
}

/// A command, short enough for a line.
pub(crate) fn short(command: &Command) -> String {
    let text = if let Command::JudgementsRecord(record) = command {
        let told = record.judgements.iter().map(|it| format!("{}/{} {}", it.service, it.instance, it.verdict));
        format!("Judged {}", told.collect::<Vec<_>>().join(", "))
    } else if let Command::ServicePut(put) = command {
        format!("ServicePut {} {:?}", put.service, put.spec.lease)
    } else if let Command::InstancePut(put) = command {
        format!("InstancePut {}/{} {}", put.service, put.instance, put.session)
    } else {
        format!("{command:?}")
    };
    let cut = text.floor_char_boundary(400);
    text[..cut].to_owned()
}
