//! What a node does as a leader, in the order in which the daemon does it: it takes what clients ask, plans what changed,
//! and looks at its alarms. A deposed leader that does not know it does all of this too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_core::command::{Command, InstanceReturned};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::lease::Rounds;
use baton_core::planner::{Facts, instances_due, plan_manual, plan_service};
use baton_core::probe::LocalTime;
use baton_core::time::{ClusterTime, Millis};

use super::message::{Answer, Ask, Beat, NodeTimer, RequestId, Waiter};
use super::net::Addr;
use super::renewals::{Pending, Round};
use super::world::{World, tell};

/// How often a leader looks at its heartbeats and its alarms.
const TICK_EVERY: Duration = Duration::from_millis(20);

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
    pub(crate) waiting: Vec<(Command, Waiter)>,
    pub(crate) flushing: bool,
    /// Who waits for what becomes of the entry at an index.
    pub(crate) proposed: BTreeMap<u64, Vec<Waiter>>,
    /// Services to be planned, those with a proposal under way, and when to look again.
    pub(crate) dirty: BTreeSet<ServiceName>,
    pub(crate) busy: BTreeSet<ServiceName>,
    pub(crate) due_busy: BTreeSet<ServiceName>,
    pub(crate) wake: BTreeMap<ServiceName, ClusterTime>,
    pub(crate) planning: bool,
    pub(crate) judging: bool,
    /// How far each instance is behind, by its last heartbeat.
    pub(crate) lags: BTreeMap<ServiceName, BTreeMap<InstanceId, u64>>,
    /// Debts and returns about which a proposal is under way, and whether upkeep is.
    pub(crate) debts_busy: BTreeSet<ServiceName>,
    pub(crate) returns_busy: BTreeSet<(ServiceName, InstanceId)>,
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

    pub(crate) fn plan_soon(&mut self, at: usize, term: u64) {
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
