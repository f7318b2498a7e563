//! The world of a story: the replicated state behind its log, the nodes that observe, the leader that judges and plans.
//! Everything that decides is the core's; what is here stands for sockets, clocks and the network. What each line does to
//! it is in `act`.

use std::collections::{BTreeMap, BTreeSet};

use baton_core::breaker::Lets;
use baton_core::command::Command;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::planner::{Decision, Facts, instances_due, observers, plan_service};
use baton_core::time::{ClusterTime, Millis};

use super::directive::{Order, Told};
use super::judge::{self, Judge};
use super::laws::Laws;
use super::observer::Observer;
use super::tell::{self, Teller};
use crate::support::World;

/// The leader of these stories has led for long.
const LED: Millis = Millis::secs(3_600);

/// Rounds of proposals after which a story that does not come to rest is given up.
const ROUNDS_MAX: u32 = 50;

/// Moments at which something happens within one wait; an hour at ten a second are 36,000.
const MOMENTS_MAX: u32 = 200_000;

/// How often the leader looks after its observers.
const UPKEEP: Millis = Millis(250);

/// Calls once a second.
pub(super) const EACH_SECOND: Millis = Millis::secs(1);

/// Calls or heartbeats that go on.
#[derive(Debug, Default)]
pub(super) struct Habit {
    pub(super) calls: Vec<Told>,
    pub(super) calls_at: ClusterTime,
    pub(super) every: Option<Millis>,
    /// The interval that the instance promised last.
    pub(super) agreed: Option<Millis>,
    pub(super) beat_at: ClusterTime,
}

/// A story while it is told.
pub(crate) struct Story {
    pub(super) log: World,
    pub(super) name: Option<ServiceName>,
    pub(super) leader: NodeId,
    pub(super) leads_since: ClusterTime,
    pub(super) nodes: BTreeMap<NodeId, Observer>,
    pub(super) judges: BTreeMap<InstanceId, Judge>,
    pub(super) habits: BTreeMap<InstanceId, Habit>,
    live: BTreeSet<NodeId>,
    pub(super) sessions: u32,
    pub(super) last: Option<Command>,
    planned: Option<(Decision, String)>,
    /// When the planner wants to look again, as it said when it came to rest.
    wake: Option<ClusterTime>,
    laws: Laws,
    pub(super) teller: Teller,
}

pub(super) type Result<T = ()> = std::result::Result<T, String>;

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

    // -- Time -------------------------------------------------------------------------------------------------------

    pub(super) fn wait_until(&mut self, until: ClusterTime) -> Result {
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
    pub(super) fn happen(&mut self) -> Result {
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
            Lets::Freely => self.told(id, told, Some(generation)),
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
                self.told(id, &made, Some(generation))
            }
        }
    }

    // -- The log ----------------------------------------------------------------------------------------------------

    /// One log entry. A refusal is told, and changes nothing.
    pub(super) fn propose(&mut self, command: Command) -> Result {
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
    pub(super) fn settle(&mut self) -> Result {
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
        let plan =
            plan_service(&self.log.state, &*self.service()?, &Facts::default(), now, self.log.state.meta.revision);
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
        let due = instances_due(&*self.service()?, now, LED);
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

    pub(super) fn sync_judges(&mut self) -> Result {
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
}
