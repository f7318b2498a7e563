//! The model as stateright sees it: where it begins, what can happen, what must hold. What an action does is said in
//! the rooms of the actors (`raft`, `leader`, `holder`); which model is explored is said in `configs` and `mutants`.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use stateright::{Model, Property};

use super::clock::{LONGEST_LEASE, LONGEST_WAIT, MARGIN, Ticks};
use super::properties::{ALL, Kind};
use super::service::Service;
use super::state::{
    Holder, Instance, Log, NODES, Node, NodeAt, PROCESSES, Process, Proof, Role, Table, Term, Token, What, World,
};

pub(crate) use super::configs::{Config, Start};
pub(crate) use super::mutants::Mutant;

/// One step of one actor, or of time. Between any two of them any process may pause: whoever takes no step while time
/// passes was stopped, scheduled late, or asleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Action {
    /// A tick of true time.
    Tick,
    /// A tick of true time in which this process's host sleeps, and its clock stands still. Only for the mutant.
    TickAsleep(Process),
    /// A process stamps a heartbeat and sends it.
    Beat(Process),
    /// A leader receives a heartbeat, begins a read-index round, and the other node confirms the leader's term.
    Confirm(NodeAt, NodeAt, Process),
    /// A round without a request. Only for the mutant.
    Round(NodeAt, NodeAt),
    /// A heartbeat is received and asked nothing for. Only for mutants.
    Receive(NodeAt, Process),
    /// A leader checks, records and sends.
    Grant(NodeAt, Process),
    /// The record that should have been made at the sending. Only for the mutant.
    Record(NodeAt),
    /// A process hears an answer.
    Hear(Process, Token),
    /// A process stops and says so.
    Stop(Process),
    /// A leader finds the wait over, and seals.
    Seal(NodeAt),
    /// A leader gives a seal up: its promotion surely never entered the log. (A mutant: whatever became of it.)
    Unseal(NodeAt),
    /// A leader appends an entry to its own log.
    Append(NodeAt, Proposal),
    /// A leader's log reaches another node.
    Replicate(NodeAt, NodeAt),
    /// A leader learns that a majority has its log, and applies it.
    Commit(NodeAt),
    /// A node becomes a candidate of the term. A step of its own only where a mutant counts from it: for the others,
    /// what others do in between they might as well do before it.
    Campaign(NodeAt, Term),
    /// A candidate of the term receives the vote that makes a majority.
    Elect(NodeAt, NodeAt, Term),
    /// Somebody looks whether the node is a leader. Only for the mutant that keys its table by such looks.
    Look(NodeAt),
}

/// What a leader proposes. The rest of the entry follows from what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Proposal {
    ByLease(Instance),
    Vacant(Instance),
    TimedOut(Instance),
    Released(Process, Token),
    Register,
    Delete,
    Create,
    Shorten,
}

/// The protocol in one configuration, whole or with one clause left out.
pub(crate) struct LeaseModel {
    pub(crate) config: &'static Config,
    pub(crate) mutant: Option<Mutant>,
    /// The properties that are watched.
    watched: BTreeSet<Kind>,
    /// Whether a property's first state was reported. The checker would go on and replace it by a later one; the first
    /// in the order of a breadth-first search is the shortest.
    reported: [AtomicBool; ALL.len()],
}

impl LeaseModel {
    pub(crate) fn new(config: &'static Config, mutant: Option<Mutant>, watched: &[Kind]) -> Self {
        Self {
            config,
            mutant,
            watched: watched.iter().copied().collect(),
            reported: std::array::from_fn(|_| AtomicBool::new(false)),
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// What a node has applied.
    pub(crate) fn applied(&self, node: &Node) -> Service {
        Service::of(self.config, self.mutant, node.log.prefix(node.applied))
    }

    /// What a node's log will make when all of it is applied.
    pub(crate) fn foreseen(&self, node: &Node) -> Service {
        Service::of(self.config, self.mutant, node.log.entries())
    }

    /// How many percent of a lease a leader waits.
    pub(crate) fn margin(&self) -> u64 {
        match self.mutant {
            Some(Mutant::MarginForOneClock) => 101,
            Some(Mutant::MarginOfTwoPercent) => 102,
            Some(_) | None => MARGIN,
        }
    }

    /// The entry that minted a token, as any node that has applied it knows.
    pub(crate) fn minted_by(world: &World, token: Token) -> Option<(Term, What)> {
        let at = usize::from(token.checked_sub(super::state::BASE_TOKEN + 1)?);
        world.nodes.iter().find_map(|node| node.log.prefix(node.applied).get(at).map(|entry| (entry.term, entry.what)))
    }

    /// The state in which a search first meets a property is the only one that is reported.
    pub(crate) fn first(&self, kind: Kind) -> bool {
        !self.reported[kind.at()].swap(true, Ordering::Relaxed)
    }

    fn tick(&self, world: &mut World, asleep: Option<Process>) {
        let older = |age: Ticks, most: Ticks| (age + 1).min(most);
        for node in &mut world.nodes {
            if node.role == Role::Candidate && self.is(Mutant::WaitFromCandidacy) {
                node.candidacy = older(node.candidacy, LONGEST_WAIT);
            }
            let Some(table) = &mut node.table else { continue };
            table.in_office = older(table.in_office, LONGEST_WAIT);
            table.renewed = table.renewed.map(|(token, age)| (token, older(age, LONGEST_WAIT)));
        }
        for process in PROCESSES.into_iter().filter(|process| asleep != Some(*process)) {
            let at = process.at();
            let pending = world.nodes.iter_mut().filter_map(|node| node.table.as_mut());
            // Nobody misses a heartbeat whose lease would be over: to its sender, any answer would be void.
            for beat in pending.map(|table| &mut table.confirmed[at]).chain([&mut world.beats[at]]) {
                *beat = beat.map(|b| super::state::Beat { age: b.age + 1, ..b }).filter(|b| b.age <= LONGEST_LEASE);
            }
            for answer in world.answers.iter_mut().filter(|answer| answer.to == process) {
                answer.age += 1;
            }
            let holder = &mut world.holders[at];
            holder.left = holder.left.and_then(|left| left.checked_sub(1));
            if holder.left.is_none() {
                // It might still release; but its word may take as long as it likes, so it might have said it before.
                holder.token = 0;
            }
            if self.is(Mutant::AnswerToTheNewest) {
                holder.newest = older(holder.newest, LONGEST_LEASE + 1);
            }
        }
        let newest_counts = self.is(Mutant::AnswerToTheNewest) || self.is(Mutant::CountedFromReceipt);
        world.answers.retain(|answer| answer.age <= answer.ttl.lease() || newest_counts && answer.age <= LONGEST_LEASE);
        if !self.config.delay {
            world.answers.clear();
        }
    }
}

impl Model for LeaseModel {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let follower = Node { term: 1, role: Role::Follower, log: Log::EMPTY, applied: 0, table: None, candidacy: 0 };
        let leader = Node { role: Role::Leader, table: Some(Table::new(1, 0)), ..follower };
        let idle = Holder { token: 0, left: None, released: 0, newest: 0 };
        vec![World {
            nodes: [leader, follower, follower],
            holders: [idle; 3],
            beats: [None; 3],
            answers: Vec::new(),
            releases: [0; 3],
            elected: 1,
            deposed_extended: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.push(Action::Tick);
        if self.is(Mutant::ClockStopsInSleep) {
            actions.extend(PROCESSES.map(Action::TickAsleep));
        }
        if self.config.delay {
            actions.extend(PROCESSES.map(Action::Beat));
        }
        if self.config.releases {
            actions.extend(PROCESSES.map(Action::Stop));
        }
        for answer in &world.answers {
            actions.push(Action::Hear(answer.to, answer.token));
        }
        for (node, _) in world.nodes.iter().enumerate().filter(|(_, node)| node.role == Role::Leader) {
            self.leader_actions(world, node, actions);
        }
        for (term, node) in self.config.campaigns.iter().copied() {
            if self.is(Mutant::WaitFromCandidacy) {
                actions.push(Action::Campaign(node, term));
            }
            actions.extend((0..NODES).filter(|voter| *voter != node).map(|voter| Action::Elect(node, voter, term)));
        }
        if self.is(Mutant::TableKeyedByFlag) {
            actions.extend((0..NODES).map(Action::Look));
        }
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let taken = match action {
            Action::Tick => {
                self.tick(&mut world, None);
                true
            }
            Action::TickAsleep(process) => {
                self.tick(&mut world, Some(process));
                true
            }
            Action::Beat(process) => self.beat(&mut world, process),
            Action::Hear(process, token) => self.hear(&mut world, process, token),
            Action::Stop(process) => self.stop(&mut world, process),
            Action::Confirm(leader, by, process) => self.confirm(&mut world, leader, by, process),
            Action::Round(leader, by) => self.round(&mut world, leader, by),
            Action::Receive(leader, process) => self.receive(&mut world, leader, process),
            Action::Grant(leader, process) => self.grant(&mut world, leader, process),
            Action::Record(leader) => self.record(&mut world, leader),
            Action::Seal(leader) => self.seal(&mut world, leader),
            Action::Unseal(leader) => self.unseal(&mut world, leader),
            Action::Append(leader, proposal) => self.append(&mut world, leader, proposal),
            Action::Replicate(leader, to) => self.replicate(&mut world, leader, to),
            Action::Commit(leader) => self.commit(&mut world, leader),
            Action::Campaign(node, term) => self.campaign(&mut world, node, term),
            Action::Elect(node, voter, term) => self.elect(&mut world, node, voter, term),
            Action::Look(node) => self.look(&mut world, node),
        };
        self.forget(&mut world);
        // A step that changes nothing is no step.
        (taken && world != *last).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        ALL.into_iter().filter(|kind| self.watched.contains(kind)).map(Kind::property).collect()
    }
}

impl LeaseModel {
    fn leader_actions(&self, world: &World, node: NodeAt, actions: &mut Vec<Action>) {
        let others = || self.config.followers.iter().copied().filter(move |other| *other != node);
        for process in PROCESSES {
            match self.mutant {
                Some(Mutant::NoReadIndex | Mutant::RoundBeforeReceipt) => actions.push(Action::Receive(node, process)),
                Some(_) | None => actions.extend(others().map(|by| Action::Confirm(node, by, process))),
            }
        }
        if self.is(Mutant::RoundBeforeReceipt) {
            actions.extend(others().map(|by| Action::Round(node, by)));
        }
        actions.extend(PROCESSES.map(|process| Action::Grant(node, process)));
        if self.is(Mutant::RecordedAfterSending) {
            actions.push(Action::Record(node));
        }
        actions.extend([Action::Seal(node), Action::Unseal(node), Action::Commit(node)]);
        actions.extend(others().map(|to| Action::Replicate(node, to)));
        for instance in Instance::ALL {
            actions.push(Action::Append(node, Proposal::ByLease(instance)));
            actions.push(Action::Append(node, Proposal::Vacant(instance)));
            if self.is(Mutant::TimeoutIsAProof) {
                actions.push(Action::Append(node, Proposal::TimedOut(instance)));
            }
        }
        for process in PROCESSES {
            let released = (1..8).filter(|token| world.releases[process.at()] & (1 << token) != 0);
            actions.extend(released.map(|token| Action::Append(node, Proposal::Released(process, token))));
        }
        let config = self.config;
        let others = [
            (config.registers, Proposal::Register),
            (config.deletes, Proposal::Delete),
            (config.deletes, Proposal::Create),
            (config.shortens, Proposal::Shorten),
        ];
        actions.extend(others.into_iter().filter(|(on, _)| *on).map(|(_, proposal)| Action::Append(node, proposal)));
    }

    /// Whether a promotion that replaces this token, by lease, is in a log behind what is applied.
    pub(crate) fn in_flight(node: &Node, token: Token) -> bool {
        node.log.entries()[usize::from(node.applied)..]
            .iter()
            .any(|entry| matches!(entry.what, What::Promote { proof: Proof::Lease, seen, .. } if seen == token))
    }

    /// Whether this leader can no longer get a promotion into a log that counts: its bounds are used up, or it was
    /// deposed and nobody is elected any more.
    pub(crate) fn is_spent(&self, world: &World, node: &Node) -> bool {
        let is_promotion = |what: What| matches!(what, What::Promote { .. });
        let promotions = node.log.entries().iter().filter(|entry| is_promotion(entry.what)).count();
        promotions >= self.config.promotions
            || node.log.len() >= self.config.longest_log
            || node.term < world.elected && self.is_last(world)
    }

    /// Whether no node is elected any more.
    pub(crate) fn is_last(&self, world: &World) -> bool {
        self.config.campaigns.iter().all(|(term, _)| *term <= world.elected)
    }

    /// Forgets what can make no difference any more, so that states that differ in nothing else are one.
    fn forget(&self, world: &mut World) {
        for at in 0..NODES {
            let node = world.nodes[at];
            let Some(table) = node.table.filter(|_| node.role == Role::Leader && self.is_spent(world, &node)) else {
                continue;
            };
            // A leader that will propose nothing needs no timers, and no heartbeats of those who hold nothing.
            let (now, then) = (self.applied(&node), self.foreseen(&node));
            let holds = |process: Process| [now, then].iter().any(|s| s.active[process.instance().at()].is_some());
            let confirmed = PROCESSES.map(|process| table.confirmed[process.at()].filter(|_| holds(process)));
            let table = Table { in_office: 0, renewed: None, confirmed, ..table };
            world.nodes[at].table = Some(table);
            let deposed = node.term < world.elected && self.is_last(world);
            if deposed
                && table.confirmed.iter().all(Option::is_none)
                && table.unrecorded == 0
                && !table.spare_round
                && self.mutant != Some(Mutant::NoReadIndex)
            {
                // Nobody confirms its term any more: it can do nothing but follow.
                world.nodes[at].role = Role::Follower;
                world.nodes[at].table = None;
            }
        }
        let deposed = |node: &Node| node.role == Role::Leader && node.term < world.elected;
        let calm = self.is_last(world) && !world.nodes.iter().any(deposed) && !self.config.registers;
        let elected = world.elected;
        for (at, node) in world.nodes.iter_mut().enumerate().filter(|(_, node)| node.role != Role::Leader) {
            if !self.config.campaigns.iter().any(|(term, who)| *who == at && *term > elected) {
                // It will not lead: what it knows to be committed is nobody's concern.
                node.applied = 0;
            }
            if calm {
                // It follows the last leader, which counts copies of its own term's entries only.
                node.term = elected;
                if elected > 1 && node.log.last_term() < elected {
                    node.log = Log::EMPTY;
                }
            }
        }
    }
}
