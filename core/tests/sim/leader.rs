//! What a node does as a leader, in the order in which the daemon does it: it takes what clients ask, proposes it in
//! batches, plans what changed, judges heartbeats. A deposed leader that does not know it does all of this too.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use baton_core::apply::BatchApplied;
use baton_core::command::{Batch, Command, InstanceReturned, Refusal, Reply};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::lease::{LeaseClaim, LeaseTerms, Rounds, Seal, Unsealable};
use baton_core::planner::{Facts, instances_due, plan_manual, plan_service};
use baton_core::probe::LocalTime;
use baton_core::state::{Change, State};
use baton_core::time::{ClusterTime, Millis, WallTime};

use super::message::{Answer, Ask, Beat, Message, NodeTimer, RequestId, Waiter};
use super::net::Addr;
use super::renewals::{Pending, Round};
use super::seen::Sight;
use super::world::{World, tell};

/// How often a leader looks at its heartbeats and its alarms.
const TICK_EVERY: Duration = Duration::from_millis(20);

/// The sum of the wall clock's label and the decision clock: labels decide nothing.
const WALL: i64 = 1_763_635_320_000;

/// A leader's memory. It belongs to one term.
#[derive(Debug)]
pub(crate) struct Lead {
    pub(crate) term: u64,
    pub(crate) since: LocalTime,
    /// The index of its first entry.
    pub(crate) first_index: u64,
    /// Renewals that wait for a round, whether one is about to begin, and the one that is under way.
    pub(crate) rounds: Rounds<Pending>,
    pub(crate) round_planned: bool,
    pub(crate) round: Option<Round>,
    /// When each session was heard last.
    pub(crate) heard: BTreeMap<(ServiceName, InstanceId), (String, LocalTime)>,
    /// What waits to be appended, and whether that is due.
    waiting: Vec<(Command, Waiter)>,
    flushing: bool,
    /// Who waits for what becomes of the entry at an index.
    proposed: BTreeMap<u64, Vec<Waiter>>,
    /// Services to be planned, those with a proposal under way, and when to look again.
    dirty: BTreeSet<ServiceName>,
    busy: BTreeSet<ServiceName>,
    due_busy: BTreeSet<ServiceName>,
    wake: BTreeMap<ServiceName, ClusterTime>,
    planning: bool,
    pub(crate) judging: bool,
    /// How far each instance is behind, by its last heartbeat.
    lags: BTreeMap<ServiceName, BTreeMap<InstanceId, u64>>,
    /// Debts and returns about which a proposal is under way, and whether upkeep is.
    pub(crate) debts_busy: BTreeSet<ServiceName>,
    returns_busy: BTreeSet<(ServiceName, InstanceId)>,
    pub(crate) upkeep_busy: usize,
}

impl Lead {
    pub(crate) fn new(term: u64, since: LocalTime, first_index: u64) -> Self {
        Self {
            term,
            since,
            first_index,
            rounds: Rounds::default(),
            round_planned: false,
            round: None,
            heard: BTreeMap::new(),
            waiting: Vec::new(),
            flushing: false,
            proposed: BTreeMap::new(),
            dirty: BTreeSet::new(),
            busy: BTreeSet::new(),
            due_busy: BTreeSet::new(),
            wake: BTreeMap::new(),
            planning: false,
            judging: false,
            lags: BTreeMap::new(),
            debts_busy: BTreeSet::new(),
            returns_busy: BTreeSet::new(),
            upkeep_busy: 0,
        }
    }

    /// What it is at, for whoever wonders why nothing happens.
    pub(crate) fn told(&self) -> String {
        format!("(dirty {:?}, busy {:?}, wakes {:?})", self.dirty, self.busy, self.wake)
    }
}

impl World {
    /// What this node remembers as the leader of that term, if it believes to lead in it still.
    pub(crate) fn lead(&mut self, at: usize, term: u64) -> Option<&mut Lead> {
        self.nodes[at].lead.as_mut().filter(|lead| lead.term == term)
    }

    /// Whether it leads and has applied its own first entry.
    fn leads_well(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.raft.leads() && node.raft.entry(node.applied).is_some_and(|entry| entry.term == node.raft.term)
    }

    /// Somebody asks for something, and takes this node for the leader.
    pub(crate) fn lead_hears(&mut self, at: usize, via: usize, client: Addr, request: RequestId, ask: Ask) {
        let Some(term) = self.nodes[at].lead.as_ref().map(|lead| lead.term) else {
            self.relay(at, via, client, request, Answer::Unavailable);
            return;
        };
        let waiter = Waiter::Client { via, client, request };
        match ask {
            Ask::Write(command) => self.propose(at, term, command, waiter),
            Ask::Manual(service, wanted) => {
                let (now, node) = (self.local(at), &self.nodes[at]);
                let time = node.cluster_time(now);
                let facts = self.facts(at, &service, now);
                match plan_manual(&node.state, &service, &wanted, &facts, time, node.state.meta.revision) {
                    Ok(plan) => {
                        if let Some(command) = plan.command {
                            self.propose_soon(at, term, command, waiter);
                        }
                    }
                    Err(refusal) => self.relay(at, via, client, request, Answer::Reply(Err(refusal))),
                }
            }
            Ask::Heartbeat(beat) => {
                self.note_beat(at, term, &beat);
                self.heartbeat(at, Pending { via, client, request, beat });
            }
        }
    }

    /// What a heartbeat tells beside the wish for more time.
    fn note_beat(&mut self, at: usize, term: u64, beat: &Beat) {
        let node = &mut self.nodes[at];
        let Some(instance) = node.state.instance(&beat.service, &beat.instance) else { return };
        if instance.session.as_ref() != Some(&beat.session) {
            return;
        }
        let left = instance.left;
        let Some(lead) = &mut node.lead else { return };
        let lags = lead.lags.entry(beat.service.clone()).or_default();
        match beat.lag {
            Some(lag) => lags.insert(beat.instance.clone(), lag),
            None => lags.remove(&beat.instance),
        };
        let key = (beat.service.clone(), beat.instance.clone());
        if left && lead.returns_busy.insert(key.clone()) {
            let (service, instance) = key.clone();
            let returned = InstanceReturned { service, instance, session: beat.session.clone() };
            self.propose_soon(at, term, Command::InstanceReturned(returned), Waiter::Returned(key.0, key.1));
        }
    }

    /// What this node, as a leader, knows of a service beside the log.
    pub(crate) fn facts(&self, at: usize, service: &ServiceName, now: LocalTime) -> Facts {
        let node = &self.nodes[at];
        let (Some(known), Some(lead)) = (node.state.service(service), &node.lead) else { return Facts::default() };
        let lags = lead.lags.get(service).cloned().unwrap_or_default();
        Facts::of(known, node.id(), lead.term, &node.leases, lags, now)
    }

    // -- Proposing --------------------------------------------------------------------------------------------------

    /// Puts a command with those that wait to be appended together.
    pub(crate) fn propose(&mut self, at: usize, term: u64, command: Command, waiter: Waiter) {
        let Some(lead) = self.lead(at, term) else {
            // It leads no longer: what it wanted goes to whoever does, as any node's proposal would.
            if let Some(leader) = self.nodes[at].raft.leader.filter(|leader| *leader != at) {
                let forward = Message::Forward { client: Addr::Node(at), request: 0, ask: Ask::Write(command) };
                self.seen.note(Sight::ProposalsForwarded);
                self.send(Addr::Node(at), Addr::Node(leader), forward);
            }
            return;
        };
        lead.waiting.push((command, waiter));
        if !std::mem::replace(&mut lead.flushing, true) {
            let after = self.about(self.shape.batching);
            self.node_will(at, after, NodeTimer::Flush { term });
        }
    }

    /// Proposes what was planned a moment ago. What claims that a lease has run out is proposed under a seal only: the
    /// table looks once more, and closes the token, in one step.
    pub(crate) fn seal_and_propose(&mut self, at: usize, term: u64, mut command: Command, waiter: Waiter) {
        let (service, claim) = match (&mut command, &waiter) {
            (Command::TransitionStart(start), Waiter::Plan { .. }) => (start.service.clone(), start.lease.as_mut()),
            (Command::Promote(promote), Waiter::Plan { .. }) => (promote.service.clone(), promote.lease.as_mut()),
            (Command::DebtForget { service, claim }, Waiter::Debt { .. }) => (service.clone(), Some(claim)),
            _ => {
                self.propose(at, term, command, waiter);
                return;
            }
        };
        let mut sealed = None;
        if let Some(claim) = claim {
            match self.seal(at, term, &service, claim) {
                Some(seal) => sealed = Some(seal),
                None => {
                    self.settled(at, term, waiter);
                    return;
                }
            }
        }
        let waiter = match waiter {
            Waiter::Plan { service, .. } => Waiter::Plan { service, seal: sealed },
            Waiter::Debt { service, .. } => Waiter::Debt { service, seal: sealed },
            other => other,
        };
        self.propose(at, term, command, waiter);
    }

    /// Seals the token that a claim is about, and puts the claim right.
    fn seal(&mut self, at: usize, term: u64, service: &ServiceName, claim: &mut LeaseClaim) -> Option<Seal> {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        let holder = node.state.service(service).and_then(|it| it.assignment.last_holder.clone());
        let holder = holder.or_else(|| node.state.debts.get(service).map(|debt| debt.holder.clone()))?;
        let terms: LeaseTerms = holder.lease.filter(|_| holder.token == Some(claim.token))?;
        match node.leases.seal(term, claim.token, &terms, now) {
            Ok((seal, found)) => {
                *claim = found;
                tell!(self, "n{} seals token {}", at + 1, claim.token);
                Some(seal)
            }
            Err(refused @ (Unsealable::Runs { .. } | Unsealable::OtherTerm)) => {
                tell!(self, "n{} cannot seal token {}: {refused}", at + 1, claim.token);
                self.seen.note(Sight::SealsRefused);
                None
            }
        }
    }

    pub(crate) fn flush(&mut self, at: usize, term: u64) {
        let now = self.local(at);
        if self.nodes[at].stuck_until > self.now {
            let after = Duration::from_micros(self.nodes[at].stuck_until - self.now);
            self.node_will(at, after, NodeTimer::Flush { term });
            return;
        }
        let time = self.nodes[at].cluster_time(now);
        let Some(lead) = self.lead(at, term) else { return };
        lead.flushing = false;
        let (commands, waiters): (Vec<_>, Vec<_>) = std::mem::take(&mut lead.waiting).into_iter().unzip();
        let wall = WallTime(WALL + i64::try_from(time.0).expect("a short time"));
        let batch = Rc::new(Batch { time, wall, commands });
        if let Some(index) = self.nodes[at].raft.append(Some(batch)) {
            #[cfg(feature = "mutants")]
            for waiter in &waiters {
                if let Waiter::Plan { seal: Some(seal), .. } | Waiter::Debt { seal: Some(seal), .. } = waiter {
                    self.nodes[at].leases.appended(seal, now);
                }
            }
            if let Some(lead) = self.lead(at, term) {
                lead.proposed.insert(index, waiters);
            }
        }
        self.after_raft(at);
    }

    /// An entry is applied on this node.
    pub(crate) fn lead_applied(&mut self, at: usize, index: u64, entry_term: u64, applied: Option<&BatchApplied>) {
        let Some(lead) = &mut self.nodes[at].lead else { return };
        let term = lead.term;
        let waiters = lead.proposed.remove(&index).unwrap_or_default();
        for change in applied.into_iter().flat_map(|applied| &applied.changes) {
            match change {
                Change::Service(name) | Change::Instance(name, _) => {
                    lead.dirty.insert(name.clone());
                }
                Change::Meta | Change::Node(_) | Change::Transition(_) | Change::Debt(_) => {}
            }
        }
        // What is said of all services at once is no change of any of them.
        let meta = |state: &State| (state.meta.brake.is_some(), state.meta.pause.clone());
        let for_all = meta(self.history.before(index)) != meta(&self.nodes[at].state);
        let first = entry_term == term && applied.is_none();
        if first || for_all {
            let all: Vec<ServiceName> = self.nodes[at].state.services.keys().cloned().collect();
            if let Some(lead) = self.lead(at, term) {
                lead.dirty.extend(all);
            }
        }
        if first {
            // From here on it knows all that was decided before, and acts.
            for node in 0..self.nodes.len() {
                if !self.nodes[at].state.nodes.contains_key(&(node as u64 + 1)) {
                    self.propose(at, term, Self::announcement(node), Waiter::Nobody);
                }
            }
        }
        for (waiter, reply) in waiters.into_iter().zip(applied.into_iter().flat_map(|applied| &applied.replies)) {
            self.became(at, term, waiter, reply.clone());
        }
        self.plan_soon(at, term);
    }

    /// What became of a proposal.
    fn became(&mut self, at: usize, term: u64, waiter: Waiter, reply: Reply) {
        match waiter {
            Waiter::Client { via, client, request } => self.relay(at, via, client, request, Answer::Reply(reply)),
            waiter @ Waiter::Plan { .. } => {
                if let Err(refusal) = &reply {
                    tell!(self, "n{}: a plan was refused: {refusal}", at + 1);
                    self.seen.note(Sight::PlansRefused);
                }
                let again = !matches!(reply, Err(Refusal::NoSuchService { .. }));
                let service = match &waiter {
                    Waiter::Plan { service, .. } if again => Some(service.clone()),
                    _ => None,
                };
                self.settled(at, term, waiter);
                if let (Some(service), Some(lead)) = (service, self.lead(at, term)) {
                    lead.dirty.insert(service);
                }
            }
            waiter @ (Waiter::Debt { .. } | Waiter::Returned(..) | Waiter::Upkeep) => self.settled(at, term, waiter),
            Waiter::Due(service) => {
                if let Some(lead) = self.lead(at, term) {
                    lead.due_busy.remove(&service);
                    lead.dirty.insert(service);
                }
            }
            Waiter::Judge => {
                if let Some(lead) = self.lead(at, term) {
                    lead.judging = false;
                }
            }
            Waiter::Nobody => {}
        }
    }

    /// A proposal is decided, or was not made: what was closed for it is opened, and another may be made.
    fn settled(&mut self, at: usize, term: u64, waiter: Waiter) {
        let seal = match waiter {
            Waiter::Plan { service, seal } => {
                if let Some(lead) = self.lead(at, term) {
                    lead.busy.remove(&service);
                    if seal.is_none() {
                        lead.wake.entry(service).or_default();
                    }
                }
                seal
            }
            Waiter::Debt { service, seal } => {
                if let Some(lead) = self.lead(at, term) {
                    lead.debts_busy.remove(&service);
                }
                seal
            }
            Waiter::Returned(service, instance) => {
                if let Some(lead) = self.lead(at, term) {
                    lead.returns_busy.remove(&(service, instance));
                }
                None
            }
            Waiter::Upkeep => {
                if let Some(lead) = self.lead(at, term) {
                    lead.upkeep_busy -= 1;
                }
                None
            }
            Waiter::Client { .. } | Waiter::Due(_) | Waiter::Judge | Waiter::Nobody => None,
        };
        if let Some(seal) = seal {
            self.nodes[at].leases.unseal(seal);
        }
    }

    // -- Planning ---------------------------------------------------------------------------------------------------

    fn plan_soon(&mut self, at: usize, term: u64) {
        if !self.leads_well(at) {
            return;
        }
        let Some(lead) = self.lead(at, term) else { return };
        if !lead.dirty.is_empty() && !std::mem::replace(&mut lead.planning, true) {
            let after = self.about(self.shape.think);
            self.node_will(at, after, NodeTimer::Plan { term });
        }
    }

    pub(crate) fn plan_services(&mut self, at: usize, term: u64) {
        let Some(lead) = self.lead(at, term) else { return };
        lead.planning = false;
        self.wake_up(at, term);
        let Some(lead) = self.lead(at, term) else { return };
        for name in std::mem::take(&mut lead.dirty) {
            self.plan_one(at, term, &name);
        }
    }

    fn plan_one(&mut self, at: usize, term: u64, name: &ServiceName) {
        let now = self.local(at);
        let node = &self.nodes[at];
        let time = node.cluster_time(now);
        let (Some(service), Some(lead)) = (node.state.service(name), &node.lead) else { return };
        if lead.busy.contains(name) {
            // Whatever becomes of it, the service is looked at again then.
            return;
        }
        let facts = self.facts(at, name, now);
        let plan = plan_service(&node.state, service, &facts, time, node.state.meta.revision);
        let led_for = Millis(u64::try_from(now.since(lead.since).as_millis()).expect("a short time"));
        let due = instances_due(service, time, led_for);
        let due_busy = lead.due_busy.contains(name);
        let wake = [plan.wake_at, due.wake_at].into_iter().flatten().min();
        if let Some(command) = plan.command {
            tell!(self, "n{} plans {name}: {}", at + 1, plan.report.summary);
            if let Some(lead) = self.lead(at, term) {
                lead.busy.insert(name.clone());
            }
            self.propose_soon(at, term, command, Waiter::Plan { service: name.clone(), seal: None });
        }
        if let Some(command) = due.command
            && !due_busy
        {
            if let Some(lead) = self.lead(at, term) {
                lead.due_busy.insert(name.clone());
            }
            self.propose_soon(at, term, command, Waiter::Due(name.clone()));
        }
        if let Some(at_time) = wake {
            let after = at_time.since(time).as_duration();
            if let Some(lead) = self.lead(at, term) {
                lead.wake.insert(name.clone(), at_time);
            }
            // Beside the tick, so that it is done at that very time.
            self.node_will(at, after, NodeTimer::Plan { term });
        }
    }

    // -- Judging ----------------------------------------------------------------------------------------------------

    pub(crate) fn tick(&mut self, at: usize, term: u64) {
        if self.lead(at, term).is_none() {
            return;
        }
        if self.leads_well(at) {
            self.wake_up(at, term);
            self.upkeep(at, term);
            self.judge(at, term);
            self.plan_soon(at, term);
        }
        self.node_will(at, TICK_EVERY, NodeTimer::Tick { term });
    }

    /// Marks the services whose time has come.
    fn wake_up(&mut self, at: usize, term: u64) {
        let time = self.nodes[at].cluster_time(self.local(at));
        let Some(lead) = self.lead(at, term) else { return };
        let awake: Vec<ServiceName> =
            lead.wake.iter().filter(|(_, at)| **at <= time).map(|(name, _)| name.clone()).collect();
        for name in awake {
            lead.wake.remove(&name);
            lead.dirty.insert(name);
        }
    }
}
