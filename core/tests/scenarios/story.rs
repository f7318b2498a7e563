//! The world of a story: the replicated state behind its log, the nodes that observe, the leader that judges and plans.
//! Everything that decides is the core's; what is here stands for sockets, clocks and the network.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use baton_core::breaker::Lets;
use baton_core::command::{Command, InstanceAdmin, InstanceDelete, InstancePut, InstanceReset, ServicePut};
use baton_core::detector::HeartbeatState;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::planner::{Decision, ManualRequest, instances_due, observers, plan_manual, plan_service};
use baton_core::state::{Instance, Service};
use baton_core::time::{ClusterTime, Millis};

use super::directive::{Directive, Fate, Nodes, Order, Told, Which};
use super::judge::{self, Judge};
use super::laws::Laws;
use super::observer::Observer;
use super::tell::{self, Teller};
use crate::support::{World, announce};

/// Rounds of proposals after which a story that does not come to rest is given up.
const ROUNDS_MAX: u32 = 50;

/// Moments at which something happens within one wait; an hour at ten a second are 36,000.
const MOMENTS_MAX: u32 = 200_000;

/// How often the leader looks after its observers.
const UPKEEP: Millis = Millis(250);

/// Calls once a second.
const EACH_SECOND: Millis = Millis::secs(1);

/// Calls or heartbeats that go on.
#[derive(Debug, Default)]
struct Habit {
    calls: Vec<Told>,
    calls_at: ClusterTime,
    every: Option<Millis>,
    /// The interval that the instance promised last.
    agreed: Option<Millis>,
    beat_at: ClusterTime,
}

/// A story while it is told.
pub(crate) struct Story {
    log: World,
    name: Option<ServiceName>,
    leader: NodeId,
    leads_since: ClusterTime,
    nodes: BTreeMap<NodeId, Observer>,
    judges: BTreeMap<InstanceId, Judge>,
    habits: BTreeMap<InstanceId, Habit>,
    live: BTreeSet<NodeId>,
    sessions: u32,
    last: Option<Command>,
    planned: Option<(Decision, String)>,
    /// When the planner wants to look again, as it said when it came to rest.
    wake: Option<ClusterTime>,
    laws: Laws,
    teller: Teller,
}

type Result<T = ()> = std::result::Result<T, String>;

impl Story {
    pub(crate) fn new() -> Self {
        let log = World { state: Default::default(), index: 0, now: ClusterTime(0), events: Vec::new() };
        Self {
            log,
            name: None,
            leader: 1,
            leads_since: ClusterTime(0),
            nodes: BTreeMap::new(),
            judges: BTreeMap::new(),
            habits: BTreeMap::new(),
            live: BTreeSet::new(),
            sessions: 0,
            last: None,
            planned: None,
            wake: None,
            laws: Laws::default(),
            teller: Teller::default(),
        }
    }

    /// Does what a line says, and everything that follows from it. Answers the lines to tell.
    pub(crate) fn obey(&mut self, order: &Order) -> Result<Vec<String>> {
        if let Some(at) = order.at {
            if ClusterTime(at.0) < self.log.now {
                return Err(format!("the story is {} old already", tell::time(self.log.now)));
            }
            self.wait_until(ClusterTime(at.0))?;
        }
        self.act(&order.what)?;
        self.settle()?;
        if self.teller.is_silent() && order.what.acts() {
            self.teller.remark(self.log.now, "(nothing changes)");
        }
        self.teller.quietly = order.quietly;
        Ok(self.teller.take())
    }

    /// The hash of the state at the end of the story, having checked what must hold there.
    pub(crate) fn end(&self) -> Result<String> {
        self.laws.at_the_end(&self.log.state)
    }

    fn act(&mut self, what: &Directive) -> Result {
        match what {
            Directive::Nodes(count) => {
                for node in self.nodes.len() as u64 + 1..=*count {
                    self.nodes.insert(node, Observer::new(node));
                    self.propose(announce(node))?;
                }
                Ok(())
            }
            Directive::Service(service, spec) => {
                self.name = Some(service.clone());
                let (service, spec, actor) = (service.clone(), spec.clone(), "alice".to_owned());
                self.propose(Command::ServicePut(ServicePut { service, spec, if_generation: None, actor }))
            }
            Directive::Instance(id, registration) => {
                self.sessions += 1;
                let put = InstancePut {
                    service: self.service()?.name.clone(),
                    instance: id.clone(),
                    registration: registration.clone(),
                    session: format!("session-{}", self.sessions),
                    if_generation: None,
                    actor: "alice".to_owned(),
                };
                self.propose(Command::InstancePut(put))
            }
            Directive::Deregister(id) => {
                let (service, actor) = (self.service()?.name.clone(), "alice".to_owned());
                let delete = InstanceDelete { service, instance: id.clone(), if_generation: None, actor };
                self.propose(Command::InstanceDelete(delete))
            }
            Directive::See(nodes, which, seen, late) => {
                let now = self.log.now;
                let ids = self.instances(which)?;
                for node in self.observing(nodes)? {
                    for id in &ids {
                        let Some(observer) = self.nodes.get_mut(&node) else { continue };
                        let told = observer.see(id, seen, *late, now)?;
                        // Whoever does not observe it is no part of "all".
                        let told = told.into_iter().filter(|_| *nodes != Nodes::All || self.observes(node, id));
                        let told: Vec<String> = told.collect();
                        told.into_iter().for_each(|line| self.teller.remark(now, line));
                    }
                    self.settle()?;
                }
                Ok(())
            }
            Directive::FromNowSee(nodes, which, seen) => {
                let now = self.log.now;
                let ids = self.instances(which)?;
                for node in self.observing(nodes)? {
                    for id in &ids {
                        self.nodes.entry(node).and_modify(|observer| observer.set_weather(id, seen, now));
                    }
                }
                Ok(())
            }
            Directive::Node(node, fate) => self.fate(*node, fate),
            Directive::Calls(id, generation, told) => {
                let instance = self.instance(id)?;
                let generation = generation.unwrap_or(instance.breaker.generation);
                self.told(id, told, generation)
            }
            Directive::FromNowCalls(id, calls) => {
                self.instance(id)?;
                let at = self.log.now.plus(EACH_SECOND);
                let habit = self.habits.entry(id.clone()).or_default();
                (habit.calls, habit.calls_at) = (calls.clone(), at);
                Ok(())
            }
            Directive::TrialCall(id, generation) => {
                let command = judge::trial(self.service()?.as_ref(), self.instance(id)?.as_ref(), *generation);
                let now = self.log.now;
                if self.propose(command.clone()).is_ok() && self.last.as_ref() == Some(&command) {
                    let instance = self.instance(id)?;
                    let out = instance.breaker.trials_out(&self.service()?.spec.breaker, now);
                    if !self.teller.is_silent() {
                        return Ok(());
                    }
                    self.teller.remark(now, format!("granted: {out} trial calls are out"));
                }
                Ok(())
            }
            Directive::Beat(id, state) => self.beat(id, state),
            Directive::FromNowBeat(id, every) => {
                self.instance(id)?;
                let at = self.log.now.plus(every.unwrap_or_default());
                let habit = self.habits.entry(id.clone()).or_default();
                let agreed = habit.agreed;
                (habit.every, habit.agreed, habit.beat_at) = (*every, every.or(agreed), at);
                if habit.agreed != agreed {
                    // Whoever judges begins with the interval that was agreed.
                    self.judges.remove(id);
                }
                Ok(())
            }
            Directive::Admin { actor, instance, state, lasts, reason } => {
                let admin = InstanceAdmin {
                    service: self.service()?.name.clone(),
                    instance: instance.clone(),
                    state: *state,
                    reason: reason.clone(),
                    lasts: *lasts,
                    actor: actor.clone(),
                };
                self.propose(Command::InstanceAdmin(admin))
            }
            Directive::Reset { actor, instance, reason } => {
                let (service, instance) = (self.service()?.name.clone(), instance.clone());
                let (reason, actor) = (reason.clone(), actor.clone());
                self.propose(Command::InstanceReset(InstanceReset { service, instance, reason, actor }))
            }
            Directive::Move { actor, wanted, to, asserting, reason } => {
                let request = ManualRequest {
                    wanted: *wanted,
                    to: to.clone(),
                    reason: reason.clone(),
                    actor: actor.clone(),
                    asserts_stopped: *asserting,
                };
                let (state, seed) = (&self.log.state, self.log.state.meta.revision);
                match plan_manual(state, &self.service()?.name, &request, self.log.now, seed) {
                    Ok(plan) => plan.command.map_or(Ok(()), |command| self.propose(command)),
                    Err(refusal) => {
                        self.teller.remark(self.log.now, format!("refused ({}): {refusal}", refusal.code()));
                        Ok(())
                    }
                }
            }
            Directive::Wait(length) => self.wait_until(self.log.now.plus(*length)),
            Directive::Jump(length) => {
                self.log.now = self.log.now.plus(*length);
                let now = self.log.now;
                // Each finds that it stood still, as the daemon does.
                self.nodes.values_mut().for_each(|observer| observer.stood_still(now));
                self.judges.values_mut().for_each(|judge| judge.forgive(now));
                self.happen()?;
                self.settle()
            }
            Directive::Again => {
                let last = self.last.clone().ok_or("there is no last log entry")?;
                self.propose(last)
            }
            Directive::Show(which) => {
                let service = self.service()?;
                for id in self.instances(which)? {
                    let lines = tell::instance(&self.log.state, &service, &*self.instance(&id)?, self.log.now);
                    lines.into_iter().for_each(|line| self.teller.remark(self.log.now, line));
                }
                Ok(())
            }
            Directive::Explain => {
                let service = self.service()?;
                let plan = plan_service(&self.log.state, &service, self.log.now, self.log.state.meta.revision);
                let report = plan.report;
                self.teller.remark(self.log.now, format!("{}: {}", report.decision, report.summary));
                for gate in report.gates {
                    self.teller.remark(self.log.now, format!("   {} {}: {}", gate.verdict, gate.gate, gate.why));
                }
                for candidate in report.candidates {
                    let failed = candidate.rules.iter().find(|rule| !rule.pass);
                    let why = failed.map_or_else(|| "may be promoted".to_owned(), |rule| rule.why.clone());
                    self.teller.remark(self.log.now, format!("   candidate {}: {why}", candidate.instance));
                }
                Ok(())
            }
            Directive::Observers(id) => {
                let (service, instance) = (self.service()?, self.instance(id)?);
                let nodes: Vec<String> =
                    self.log.state.observers_of(&service, &instance).iter().map(ToString::to_string).collect();
                self.teller.remark(self.log.now, format!("{id} is observed by nodes {}", nodes.join(", ")));
                Ok(())
            }
            Directive::Weights => {
                let line = tell::weights(&*self.service()?, self.log.now);
                self.teller.remark(self.log.now, line);
                Ok(())
            }
        }
    }

    fn fate(&mut self, node: NodeId, fate: &Fate) -> Result {
        let now = self.log.now;
        let leader = self.leader;
        let observer = self.nodes.get_mut(&node).ok_or_else(|| format!("there is no node {node}"))?;
        match fate {
            Fate::RunsLate(length) => observer.lag = *length,
            Fate::FallsSilent | Fate::StandsStill if node == leader => {
                return Err("the leader: let another node lead first, or write `jump`".to_owned());
            }
            Fate::FallsSilent => {
                observer.silent_since = Some(now);
                observer.lose_sight(now);
            }
            Fate::IsHeardAgain => {
                observer.silent_since = None;
                observer.look_again(now);
            }
            Fate::StandsStill => {
                observer.silent_since = Some(now);
                observer.stopped = true;
            }
            Fate::GoesOn => {
                observer.silent_since = None;
                observer.stopped = false;
                observer.stood_still(now);
                observer.look_again(now);
                // The first that it does is what it meant to do when it was stopped.
                let told = observer.run(now);
                told.into_iter().for_each(|line| self.teller.remark(now, line));
            }
            Fate::MessagesHeld => observer.held = Some(Vec::new()),
            Fate::MessagesArrive => {
                for record in observer.held.take().unwrap_or_default() {
                    self.propose(Command::VerdictsRecord(record))?;
                }
                self.nodes.entry(node).and_modify(Observer::speak_anew);
            }
            Fate::Leads => {
                (self.leader, self.leads_since) = (node, now);
                // What the leader before had heard, this one has not.
                self.judges.clear();
            }
        }
        Ok(())
    }

    fn told(&mut self, id: &InstanceId, told: &[Told], generation: u64) -> Result {
        let (now, instance) = (self.log.now, self.instance(id)?);
        self.sync_judges()?;
        let judge = self.judges.get_mut(id).ok_or("nobody judges it")?;
        if let Some(late) = judge.calls(&judge::slice(told), generation, &instance, now) {
            self.teller.remark(now, late);
        }
        Ok(())
    }

    fn beat(&mut self, id: &InstanceId, state: &str) -> Result {
        let state = HeartbeatState::ALL.iter().find(|(word, _)| *word == state).map(|(_, state)| *state);
        let state = state.ok_or("a heartbeat says ok, degraded or failing")?;
        self.instance(id)?;
        self.sync_judges()?;
        let now = self.log.now;
        self.judges.get_mut(id).ok_or("nobody judges it")?.beat(state, now)
    }

    // -- Time -------------------------------------------------------------------------------------------------------

    fn wait_until(&mut self, until: ClusterTime) -> Result {
        for _ in 0..MOMENTS_MAX {
            match self.next()?.filter(|at| *at <= until) {
                Some(at) => {
                    self.log.now = at;
                    self.happen()?;
                    self.settle()?;
                }
                None => {
                    self.log.now = until;
                    return self.settle();
                }
            }
        }
        Err(format!("more than {MOMENTS_MAX} moments in one wait"))
    }

    /// The next moment at which anything happens.
    fn next(&self) -> Result<Option<ClusterTime>> {
        let now = self.log.now;
        let mut moments: Vec<ClusterTime> = Vec::new();
        if let Some(wake) = self.wake {
            if wake <= now {
                return Err(format!("at rest, and to be woken at {}, which is past", tell::time(wake)));
            }
            moments.push(wake);
        }
        moments.extend(self.nodes.values().filter_map(|observer| observer.next(now)));
        moments.extend(self.judges.values().filter_map(|judge| judge.next(now)));
        for habit in self.habits.values() {
            moments.extend((!habit.calls.is_empty()).then_some(habit.calls_at));
            moments.extend(habit.every.map(|_| habit.beat_at));
        }
        let looks = self.nodes.values().any(|observer| {
            observer.silent_since.is_some() || !self.log.state.nodes.get(&observer.node).is_some_and(|node| node.live)
        });
        if looks {
            moments.push(ClusterTime((now.0 / UPKEEP.0 + 1) * UPKEEP.0));
        }
        Ok(moments.into_iter().map(|at| at.max(now)).min())
    }

    /// What is due at this moment, outside the log.
    fn happen(&mut self) -> Result {
        let now = self.log.now;
        self.judges.values_mut().for_each(|judge| judge.tick(now));
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            let told = self.nodes.get_mut(&node).map(|observer| observer.run(now)).unwrap_or_default();
            told.into_iter().for_each(|line| self.teller.remark(now, line));
            if self.speak(node)? {
                // News of one node's doubt reach the others before their next look.
                self.settle()?;
            }
        }
        for id in self.habits.keys().cloned().collect::<Vec<_>>() {
            let Some(habit) = self.habits.get_mut(&id) else { continue };
            let beats = habit.every.is_some() && habit.beat_at <= now;
            let calls = !habit.calls.is_empty() && habit.calls_at <= now;
            if beats {
                habit.beat_at = now.plus(habit.every.unwrap_or_default());
                self.beat(&id, "ok")?;
            }
            if calls && let Some(habit) = self.habits.get_mut(&id) {
                habit.calls_at = now.plus(EACH_SECOND);
                let told = habit.calls.clone();
                self.traffic(&id, &told)?;
            }
        }
        let heard =
            |observer: &Observer| (observer.node, Some(observer.silent_since.map_or(Millis::ZERO, |at| now.since(at))));
        let heard = self.nodes.values().map(heard).collect();
        let leading_for = now.since(self.leads_since);
        for command in observers(&self.log.state, self.leader, &heard, leading_for) {
            self.propose(command)?;
        }
        Ok(())
    }

    /// Calls as far as the breaker lets them through: all, some as trials, or none.
    fn traffic(&mut self, id: &InstanceId, told: &[Told]) -> Result {
        let (service, instance) = (self.service()?, self.instance(id)?);
        let generation = instance.breaker.generation;
        match judge::lets(&service, &instance, self.log.now) {
            Lets::Freely => self.told(id, told, generation),
            Lets::Nothing => Ok(()),
            Lets::ATrial => {
                let one = |told: &Told| std::iter::repeat_n(Told { count: 1, ..*told }, told.count as usize);
                let mut made = Vec::new();
                for call in told.iter().flat_map(one) {
                    let instance = self.instance(id)?;
                    if judge::lets(&service, &instance, self.log.now) != Lets::ATrial {
                        break;
                    }
                    self.propose(judge::trial(&service, &instance, Some(generation)))?;
                    made.push(call);
                }
                self.told(id, &made, generation)
            }
        }
    }

    // -- The log ----------------------------------------------------------------------------------------------------

    /// One log entry. A refusal is told, and changes nothing.
    fn propose(&mut self, command: Command) -> Result {
        let before = self.log.state.clone();
        let told = self.log.events.len();
        self.last = Some(command.clone());
        let reply = self.log.send(command);
        let now = self.log.now;
        if let Err(refusal) = reply {
            let mut untouched = before;
            untouched.meta.cluster_time = self.log.state.meta.cluster_time;
            if untouched != self.log.state {
                return Err(format!("refused ({refusal}), and yet it changed something"));
            }
            self.teller.remark(now, format!("refused ({}): {refusal}", refusal.code()));
        }
        let events = &self.log.events[told..];
        self.laws.after_entry(&self.log.state, events)?;
        events.iter().for_each(|event| self.teller.event(now, event));
        let live: BTreeSet<NodeId> = self.log.state.live_nodes().collect();
        for node in self.live.symmetric_difference(&live) {
            self.nodes.entry(*node).and_modify(Observer::speak_anew);
        }
        self.live = live;
        Ok(())
    }

    /// Lets everybody say and do what they have to, until nobody has anything left.
    fn settle(&mut self) -> Result {
        for _ in 0..ROUNDS_MAX {
            if !self.round()? {
                return Ok(());
            }
        }
        Err(format!("the story does not come to rest within {ROUNDS_MAX} rounds"))
    }

    /// One round; whether anything was proposed.
    fn round(&mut self) -> Result<bool> {
        let Ok(service) = self.service() else { return Ok(false) };
        let now = self.log.now;
        let mut moved = false;
        for node in self.nodes.keys().copied().collect::<Vec<_>>() {
            moved |= self.speak(node)?;
        }
        self.sync_judges()?;
        for id in service.instances.keys() {
            let (Ok(service), Ok(instance)) = (self.service(), self.instance(id)) else { continue };
            let Some(judge) = self.judges.get_mut(id) else { continue };
            if let Some(command) = judge.proposal(&service, &instance, now) {
                // Calls were told: that is behind it. A judgement that is not taken would be proposed for ever.
                let calls = !matches!(command, Command::JudgementsRecord(_));
                let before = self.log.state.meta.revision;
                self.propose(command)?;
                moved |= calls || self.log.state.meta.revision != before;
            }
        }
        let plan = plan_service(&self.log.state, &*self.service()?, now, self.log.state.meta.revision);
        let decided = (plan.report.decision, plan.report.summary);
        if self.planned.as_ref() != Some(&decided) {
            if !(decided.0 == Decision::Nothing && self.planned.as_ref().is_some_and(|(last, _)| *last == decided.0)) {
                self.teller.remark(now, format!("plan: {}: {}", decided.0, decided.1));
            }
            self.planned = Some(decided);
        }
        if let Some(command) = plan.command {
            self.propose(command)?;
            moved = true;
        }
        let due = instances_due(&*self.service()?, now);
        self.wake = [plan.wake_at, due.wake_at].into_iter().flatten().min();
        if let Some(command) = due.command {
            self.propose(command)?;
            moved = true;
        }
        Ok(moved)
    }

    /// Lets one node say what it has to; whether it did.
    fn speak(&mut self, node: NodeId) -> Result<bool> {
        let (Ok(service), now) = (self.service(), self.log.now) else { return Ok(false) };
        let Some(observer) = self.nodes.get_mut(&node) else { return Ok(false) };
        observer.sync(&self.log.state, &service, now);
        let (record, told) = observer.proposal(&self.log.state, &service, now);
        told.into_iter().for_each(|line| self.teller.remark(now, line));
        match (record, &mut observer.held) {
            (None, _) => Ok(false),
            (Some(record), Some(held)) => {
                held.push(record);
                Ok(false)
            }
            (Some(record), None) => {
                self.propose(Command::VerdictsRecord(record))?;
                Ok(true)
            }
        }
    }

    fn sync_judges(&mut self) -> Result {
        let service = self.service()?;
        self.judges
            .retain(|id, judge| service.instances.get(id).is_some_and(|instance| judge.is_of(&service, instance)));
        for (id, instance) in &service.instances {
            let every = self.habits.get(id).and_then(|habit| habit.agreed);
            let now = self.log.now;
            self.judges.entry(id.clone()).or_insert_with(|| Judge::new(&service, instance, every, now));
        }
        Ok(())
    }

    // -- Who is meant -----------------------------------------------------------------------------------------------

    fn service(&self) -> Result<Arc<Service>> {
        let name = self.name.as_ref().ok_or("there is no service yet")?;
        self.log.state.service(name).cloned().ok_or_else(|| format!("there is no service {name}"))
    }

    fn instance(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        self.service()?.instances.get(id).cloned().ok_or_else(|| format!("there is no instance {id}"))
    }

    fn instances(&self, which: &Which) -> Result<Vec<InstanceId>> {
        match which {
            Which::Everything => Ok(self.service()?.instances.keys().cloned().collect()),
            Which::These(ids) => {
                ids.iter().try_for_each(|id| self.instance(id).map(|_| ()))?;
                Ok(ids.clone())
            }
        }
    }

    fn observing(&self, nodes: &Nodes) -> Result<Vec<NodeId>> {
        match nodes {
            Nodes::All => Ok(self.nodes.keys().copied().collect()),
            Nodes::These(nodes) => {
                let unknown = nodes.iter().find(|node| !self.nodes.contains_key(node));
                unknown.map_or_else(|| Ok(nodes.clone()), |node| Err(format!("there is no node {node}")))
            }
        }
    }

    fn observes(&self, node: NodeId, id: &InstanceId) -> bool {
        let (Ok(service), Ok(instance)) = (self.service(), self.instance(id)) else { return false };
        self.log.state.observers_of(&service, &instance).contains(&node)
    }
}

impl Directive {
    /// Whether something should come of it, so that it is worth telling where nothing does.
    fn acts(&self) -> bool {
        match self {
            Self::Nodes(_)
            | Self::Service(..)
            | Self::Instance(..)
            | Self::Deregister(_)
            | Self::See(..)
            | Self::Calls(..)
            | Self::TrialCall(..)
            | Self::Beat(..)
            | Self::Admin { .. }
            | Self::Reset { .. }
            | Self::Move { .. }
            | Self::Wait(_)
            | Self::Jump(_)
            | Self::Again => true,
            Self::FromNowSee(..)
            | Self::Node(..)
            | Self::FromNowCalls(..)
            | Self::FromNowBeat(..)
            | Self::Show(_)
            | Self::Explain
            | Self::Observers(_)
            | Self::Weights => false,
        }
    }
}
