//! What a node does as a leader, in the order in which the daemon does it: it takes what clients ask, proposes it in
//! batches, plans what changed, judges heartbeats. A deposed leader that does not know it does all of this too.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use baton_core::apply::BatchApplied;
use baton_core::command::{Batch, Command, Judgement, JudgementsRecord, Refusal, Reply};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::planner::{instances_due, plan_manual, plan_service};
use baton_core::policy::Liveness;
use baton_core::probe::{Evidence, LocalTime, Source, Verdict};
use baton_core::state::Change;
use baton_core::time::{ClusterTime, Millis, WallTime};

use super::message::{Answer, Ask, Beat, NodeTimer, RequestId, Waiter};
use super::net::Addr;
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
    /// When each session was heard last.
    heard: BTreeMap<(ServiceName, InstanceId), (String, LocalTime)>,
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
    judging: bool,
}

impl Lead {
    pub(crate) const fn new(term: u64, since: LocalTime) -> Self {
        Self {
            term,
            since,
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
        }
    }
}

impl World {
    /// What this node remembers as the leader of that term, if it believes to lead in it still.
    fn lead(&mut self, at: usize, term: u64) -> Option<&mut Lead> {
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
                match plan_manual(&node.state, &service, &wanted, time, node.state.meta.revision) {
                    Ok(plan) => {
                        if let Some(command) = plan.command {
                            self.propose_soon(at, term, command, waiter);
                        }
                    }
                    Err(refusal) => self.relay(at, via, client, request, Answer::Reply(Err(refusal))),
                }
            }
            Ask::Heartbeat(beat) => self.heartbeat(at, via, client, request, beat),
        }
    }

    fn heartbeat(&mut self, at: usize, via: usize, client: Addr, request: RequestId, beat: Beat) {
        let (now, well) = (self.local(at), self.leads_well(at));
        let node = &mut self.nodes[at];
        let Some(lead) = &mut node.lead else { return };
        let instance = node.state.instance(&beat.service, &beat.instance);
        let answer = match instance {
            Some(instance) if instance.session.as_ref() == Some(&beat.session) => {
                let service = node.state.service(&beat.service);
                let active = service.filter(|service| service.is_active(&beat.instance));
                lead.heard.insert((beat.service, beat.instance), (beat.session, now));
                Answer::Role { active: active.and_then(|service| service.active_token()) }
            }
            Some(_) | None if well => Answer::UnknownSession,
            Some(_) | None => Answer::Unavailable,
        };
        self.relay(at, via, client, request, answer);
    }

    // -- Proposing --------------------------------------------------------------------------------------------------

    /// Puts a command with those that wait to be appended together.
    pub(crate) fn propose(&mut self, at: usize, term: u64, command: Command, waiter: Waiter) {
        let Some(lead) = self.lead(at, term) else { return };
        lead.waiting.push((command, waiter));
        if !std::mem::replace(&mut lead.flushing, true) {
            let after = self.about(300);
            self.node_will(at, after, NodeTimer::Flush { term });
        }
    }

    pub(crate) fn flush(&mut self, at: usize, term: u64) {
        let now = self.local(at);
        let time = self.nodes[at].cluster_time(now);
        let Some(lead) = self.lead(at, term) else { return };
        lead.flushing = false;
        let (commands, waiters): (Vec<_>, Vec<_>) = std::mem::take(&mut lead.waiting).into_iter().unzip();
        let wall = WallTime(WALL + i64::try_from(time.0).expect("a short time"));
        let batch = Rc::new(Batch { time, wall, commands });
        if let Some(index) = self.nodes[at].raft.append(Some(batch))
            && let Some(lead) = self.lead(at, term)
        {
            lead.proposed.insert(index, waiters);
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
                Change::Meta | Change::Node(_) | Change::Transition(_) => {}
            }
        }
        if entry_term == term && applied.is_none() {
            // Its own first entry: from here on it knows all that was decided before, and acts.
            let all: Vec<ServiceName> = self.nodes[at].state.services.keys().cloned().collect();
            if let Some(lead) = self.lead(at, term) {
                lead.dirty.extend(all);
            }
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
            Waiter::Plan(service) => {
                if let Err(refusal) = &reply {
                    tell!(self, "n{}: the plan for {service} was refused: {refusal}", at + 1);
                    self.seen.note(Sight::PlansRefused);
                }
                let again = !matches!(reply, Err(Refusal::NoSuchService { .. }));
                if let Some(lead) = self.lead(at, term) {
                    lead.busy.remove(&service);
                    if again {
                        lead.dirty.insert(service);
                    }
                }
            }
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
        let plan = plan_service(&node.state, service, time, node.state.meta.revision);
        let led_for = Millis(u64::try_from(now.since(lead.since).as_millis()).expect("a short time"));
        let due = instances_due(service, time, led_for);
        let due_busy = lead.due_busy.contains(name);
        let wake = [plan.wake_at, due.wake_at].into_iter().flatten().min();
        if let Some(command) = plan.command {
            tell!(self, "n{} plans {name}: {}", at + 1, plan.report.summary);
            if let Some(lead) = self.lead(at, term) {
                lead.busy.insert(name.clone());
            }
            self.propose_soon(at, term, command, Waiter::Plan(name.clone()));
        }
        if let Some(command) = due.command
            && !due_busy
        {
            if let Some(lead) = self.lead(at, term) {
                lead.due_busy.insert(name.clone());
            }
            self.propose_soon(at, term, command, Waiter::Due(name.clone()));
        }
        if let (Some(at_time), Some(lead)) = (wake, self.lead(at, term)) {
            lead.wake.insert(name.clone(), at_time);
        }
    }

    // -- Judging ----------------------------------------------------------------------------------------------------

    pub(crate) fn tick(&mut self, at: usize, term: u64) {
        if self.lead(at, term).is_none() {
            return;
        }
        if self.leads_well(at) {
            let time = self.nodes[at].cluster_time(self.local(at));
            if let Some(lead) = self.lead(at, term) {
                let awake: Vec<ServiceName> =
                    lead.wake.iter().filter(|(_, at)| **at <= time).map(|(name, _)| name.clone()).collect();
                for name in awake {
                    lead.wake.remove(&name);
                    lead.dirty.insert(name);
                }
            }
            self.judge(at, term);
            self.plan_soon(at, term);
        }
        self.node_will(at, TICK_EVERY, NodeTimer::Tick { term });
    }

    /// Silence longer than the lease's length is taken for death; a sign of life for life.
    fn judge(&mut self, at: usize, term: u64) {
        let now = self.local(at);
        let slander = self.shape.slander;
        let mut judgements = Vec::new();
        let node = &self.nodes[at];
        let Some(lead) = &node.lead else { return };
        if lead.judging {
            return;
        }
        for (name, service) in &node.state.services {
            let ttl = service.spec.lease.ttl.as_duration();
            for (id, instance) in &service.instances {
                if instance.registration.liveness != Liveness::Heartbeat {
                    continue;
                }
                let held = instance.judged.get(&Source::Heartbeats).map(|record| record.verdict);
                let key = (name.clone(), id.clone());
                let heard = lead.heard.get(&key).filter(|(session, _)| instance.session.as_ref() == Some(session));
                let since = heard.map_or(lead.since, |(_, at)| (*at).max(lead.since));
                let silent = now.since(since) > ttl;
                let slandered = !silent && self.shaking && slander > 0 && self.rng.chance(slander);
                let verdict = match (silent || slandered, heard) {
                    (true, _) => Verdict::Down,
                    (false, Some(_)) => Verdict::Up,
                    (false, None) => continue,
                };
                if held != Some(verdict) {
                    judgements.push(judgement(name, id, instance.epoch, verdict));
                }
            }
        }
        if !judgements.is_empty() {
            if let Some(lead) = self.lead(at, term) {
                lead.judging = true;
            }
            self.propose_soon(at, term, Command::JudgementsRecord(JudgementsRecord { judgements }), Waiter::Judge);
        }
    }

    /// A round may have been confirmed, or an entry applied that somebody waited for.
    pub(crate) fn rounds_moved(&mut self, _at: usize) {}
}

fn judgement(service: &ServiceName, instance: &InstanceId, epoch: u64, verdict: Verdict) -> Judgement {
    let evidence = Evidence {
        check: "heartbeat".to_owned(),
        class: None,
        detail: format!("{verdict} by its heartbeats"),
        streak: 1,
        first_failure_age: None,
    };
    let (service, instance) = (service.clone(), instance.clone());
    Judgement { service, instance, epoch, source: Source::Heartbeats, verdict, evidence }
}
