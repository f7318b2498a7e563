//! The monitor's book: which instances this node watches, what it holds of each, and (in `say`) what it says of them.
//!
//! A plain state machine. Results, changes of the state and losses of sight come in; targets for the prober and records
//! to propose go out. It is driven by levels, not by edges: what the detectors hold is compared with what is committed,
//! so that a lost proposal, a lost event or a spell of being counted out heals by itself.
//!
//! Which instances: those that this node is assigned to, and those of which it still holds a committed verdict, since it
//! stands in until the newly assigned have looked. A node that is counted out goes on watching what it would be assigned
//! to if it were heard: it costs little, and when it is back it has looked already.
//!
//! What a node may say (I11): while it has no leader or hears nothing of a quorum, it may be the one that is cut off, so
//! failures are not counted and nothing is proposed; when it sees again, a verdict counts only once a fresh probe has
//! spoken for it. After a longer blindness, or a stop of the whole process, everything is unknown again. And while all
//! that others see well fails to it, it accuses nobody (`baton_core::sight`).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use baton_core::assign;
use baton_core::detector::Detector;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::policy::Spec;
use baton_core::probe::{Distrust, Health, LocalTime, Outcome, Verdict};
use baton_core::sight::SelfTrust;
use baton_core::state::{AdminState, Change, Instance, Service, State};

use super::Probing;
use super::say::BACKOFF_MIN;
use super::short::Shortages;
use super::survey::Survey;
use super::watch::{Key, PlanSet, Watch};
use crate::prober::{ProbeResult, TargetId, spread};
use crate::reports::ProbeTally;

/// A blindness longer than this makes everything unknown: what was seen before it says nothing about now.
const FORGET_AFTER: Duration = Duration::from_secs(3);

/// Whether this node may trust what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sight {
    /// It hears its quorum. Only probes begun after `since` count for a proposal.
    Clear { since: LocalTime },
    /// It does not, since then.
    Lost { since: LocalTime, forgot: bool },
}

/// The checks of a service, made ready.
#[derive(Debug)]
struct ServicePlans {
    spec: Arc<Spec>,
    plans: Arc<PlanSet>,
}

/// What this node watches and holds.
#[derive(Debug)]
pub(crate) struct Book {
    pub(super) node: NodeId,
    /// The live nodes as of the last scan, and this one: they share the instances.
    nodes: Vec<NodeId>,
    pub(super) watches: BTreeMap<ServiceName, BTreeMap<InstanceId, Watch>>,
    plans: HashMap<ServiceName, ServicePlans>,
    by_target: HashMap<TargetId, (Key, usize)>,
    /// To be compared with what is committed.
    pub(super) dirty: BTreeSet<Key>,
    /// Proposed, not yet found committed.
    pub(super) awaiting: BTreeSet<Key>,
    /// Held down, and not said to be until more is known.
    pub(super) held_back: BTreeSet<Key>,
    pub(super) sight: Sight,
    /// Whether this node believes what it sees.
    pub(super) trust: SelfTrust,
    /// The last look around.
    pub(super) survey: Option<Survey>,
    /// How often it has looked around.
    pub(super) surveys: usize,
    pub(super) backoff: Duration,
    /// No proposal before this.
    pub(super) not_before: LocalTime,
    /// Where believed probes are counted.
    tally: ProbeTally,
    /// Checks that this node lacks the means for.
    short: Shortages,
}

impl Book {
    /// An empty book. Blind until told that there is a quorum.
    pub(crate) fn new(node: NodeId, now: LocalTime) -> Self {
        Self {
            node,
            nodes: Vec::new(),
            watches: BTreeMap::new(),
            plans: HashMap::new(),
            by_target: HashMap::new(),
            dirty: BTreeSet::new(),
            awaiting: BTreeSet::new(),
            held_back: BTreeSet::new(),
            sight: Sight::Lost { since: now, forgot: true },
            tally: ProbeTally::default(),
            trust: SelfTrust::default(),
            survey: None,
            surveys: 0,
            backoff: BACKOFF_MIN,
            not_before: now,
            short: Shortages::default(),
        }
    }

    /// Counts believed probes into `tally` from now on.
    pub(crate) fn counting(mut self, tally: ProbeTally) -> Self {
        self.tally = tally;
        self
    }

    // -- What is watched --------------------------------------------------------------------------------------------

    /// Compares everything: at the start, and when changes were missed.
    pub(crate) fn rescan(&mut self, state: &State, prober: &mut impl Probing) {
        self.nodes = self.nodes_of(state);
        let gone: Vec<ServiceName> =
            self.watches.keys().filter(|name| !state.services.contains_key(*name)).cloned().collect();
        for name in gone {
            self.service_gone(&name, prober);
        }
        for service in state.services.values() {
            self.service_changed(service, prober);
        }
    }

    /// Takes note of what changed in the state.
    pub(crate) fn changed(&mut self, state: &State, changes: &BTreeSet<Change>, prober: &mut impl Probing) {
        if changes.iter().any(|change| matches!(change, Change::Node(_))) && self.nodes != self.nodes_of(state) {
            // Another node was lost or is back: what each of the others watches may be another.
            self.rescan(state, prober);
        }
        for change in changes {
            match change {
                Change::Meta | Change::Transition(_) | Change::Debt(_) => {}
                // This node counts again, or no longer: what is committed of it may have changed everywhere.
                Change::Node(id) if *id == self.node => self.counted_again(),
                Change::Node(_) => {}
                Change::Service(name) => match state.service(name) {
                    // A service changes with each event about it; only another spec concerns the prober.
                    Some(service) if self.plans.get(name).is_some_and(|own| Arc::ptr_eq(&own.spec, &service.spec)) => {}
                    Some(service) => self.service_changed(service, prober),
                    None => self.service_gone(name, prober),
                },
                Change::Instance(name, id) => match (state.service(name), state.instance(name, id)) {
                    (Some(service), Some(instance)) => self.instance_changed(service, instance, prober),
                    (Some(_), None) | (None, _) => self.instance_gone(name, id, prober),
                },
            }
        }
    }

    fn counted_again(&mut self) {
        self.awaiting.clear();
        for watch in self.watches.values_mut().flat_map(BTreeMap::values_mut) {
            watch.sent = None;
        }
        self.compare_all();
    }

    fn service_changed(&mut self, service: &Service, prober: &mut impl Probing) {
        let gone: Vec<InstanceId> = match self.watches.get(&service.name) {
            Some(known) => known.keys().filter(|id| !service.instances.contains_key(*id)).cloned().collect(),
            None => Vec::new(),
        };
        for id in gone {
            self.instance_gone(&service.name, &id, prober);
        }
        self.plans_of(service);
        for instance in service.instances.values() {
            self.instance_changed(service, instance, prober);
        }
    }

    fn service_gone(&mut self, name: &ServiceName, prober: &mut impl Probing) {
        self.short.forget(name);
        self.plans.remove(name);
        let ids: Vec<InstanceId> =
            self.watches.get(name).map_or_else(Vec::new, |known| known.keys().cloned().collect());
        for id in ids {
            self.instance_gone(name, &id, prober);
        }
    }

    fn instance_gone(&mut self, name: &ServiceName, id: &InstanceId, prober: &mut impl Probing) {
        let Some(known) = self.watches.get_mut(name) else { return };
        if let Some(watch) = known.remove(id) {
            for target in watch.targets() {
                self.by_target.remove(target);
            }
            watch.end(prober);
        }
        if known.is_empty() {
            self.watches.remove(name);
        }
    }

    /// The live nodes and this one.
    fn nodes_of(&self, state: &State) -> Vec<NodeId> {
        let mut nodes: Vec<NodeId> = state.live_nodes().collect();
        if !nodes.contains(&self.node) {
            nodes.push(self.node);
        }
        nodes
    }

    /// Whether this node watches an instance: it is assigned, or stands in until others have looked.
    fn observes(&self, service: &Service, instance: &Instance) -> bool {
        match instance.admin.state {
            AdminState::Maintenance => return false,
            AdminState::Enabled | AdminState::Draining | AdminState::Isolated => {}
        }
        let wanted = service.spec.detection.observers;
        instance.verdicts.contains_key(&self.node)
            || self.nodes.len() <= wanted as usize
            || assign::observers_of(self.nodes.iter().copied(), &service.name, &instance.id, wanted)
                .contains(&self.node)
    }

    /// The checks of a service, made ready once for all its instances.
    fn plans_of(&mut self, service: &Service) -> Arc<PlanSet> {
        let (spec, known) = (&service.spec, self.plans.get_mut(&service.name));
        if let Some(own) = known {
            if !Arc::ptr_eq(&own.spec, spec) {
                own.spec = spec.clone();
                if !own.plans.is_of(&spec.checks, spec) {
                    self.short.forget(&service.name);
                    own.plans = Arc::new(PlanSet::of(&service.name, &spec.checks, spec, Some(&own.plans)));
                }
            }
            return own.plans.clone();
        }
        let plans = Arc::new(PlanSet::of(&service.name, &spec.checks, spec, None));
        let own = ServicePlans { spec: spec.clone(), plans: plans.clone() };
        self.plans.insert(service.name.clone(), own);
        plans
    }

    fn watch(&self, service: &ServiceName, id: &InstanceId) -> Option<&Watch> {
        self.watches.get(service)?.get(id)
    }

    pub(super) fn watch_mut(&mut self, key: &Key) -> Option<&mut Watch> {
        self.watches.get_mut(&key.0)?.get_mut(&key.1)
    }

    fn instance_changed(&mut self, service: &Service, instance: &Instance, prober: &mut impl Probing) {
        if !self.observes(service, instance) {
            self.instance_gone(&service.name, &instance.id, prober);
            return;
        }
        let known = self.watch(&service.name, &instance.id).map(|watch| watch.plans.clone());
        let plans = match (&instance.registration.overrides.checks, known) {
            (None, _) => self.plans_of(service),
            (Some(own), Some(known)) if known.is_of(own, &service.spec) => known,
            (Some(own), known) => Arc::new(PlanSet::of(&service.name, own, &service.spec, known.as_deref())),
        };
        let key = (service.name.clone(), instance.id.clone());
        let same = match self.watch_mut(&key).filter(|watch| watch.epoch == instance.epoch) {
            Some(watch) => Arc::ptr_eq(&watch.plans, &plans) || watch.judge_by(prober, &plans),
            None => false,
        };
        let address = instance.registration.address.as_ref().filter(|_| !plans.is_empty());
        match address {
            Some(_) if same => {}
            Some(address) => {
                self.instance_gone(&service.name, &instance.id, prober);
                let node = self.node;
                let hash = |check: &str| spread((node, service.name.as_str(), instance.id.as_str(), check));
                let watch = Watch::begin(prober, &key, instance.epoch, address, &plans, hash);
                for (check, target) in watch.targets().iter().enumerate() {
                    self.by_target.insert(*target, (key.clone(), check));
                }
                self.watches.entry(key.0.clone()).or_default().insert(key.1.clone(), watch);
            }
            None => self.instance_gone(&service.name, &instance.id, prober),
        }
        let doubted = instance.health == Health::Suspect;
        if let Some(watch) = self.watch_mut(&key) {
            watch.set_doubted(prober, doubted);
            self.dirty.insert(key);
        }
    }

    // -- What is seen -----------------------------------------------------------------------------------------------

    /// Takes note of a probe. One of a target that was let go is late and finds nobody.
    pub(crate) fn seen(&mut self, result: &ProbeResult, prober: &mut impl Probing) {
        let Some((key, check)) = self.by_target.get(&result.target) else { return };
        let Some(watch) = self.watches.get_mut(&key.0).and_then(|known| known.get_mut(&key.1)) else { return };
        let lost = match self.sight {
            Sight::Lost { .. } => true,
            Sight::Clear { .. } => false,
        };
        match &result.seen {
            // It is not counted, and it is not forgotten: the next look comes soon, however long the interval is.
            Ok(Outcome::Failure { .. }) if lost => watch.disbelieve(prober),
            Ok(outcome) => {
                // Believed: from here on it counts.
                self.short.carried_out(&key.0, watch.check(*check));
                self.tally.count(key, watch.epoch, outcome);
                let changed = watch.observe(prober, *check, outcome, result.timing.started, result.timing.ended);
                if changed || !watch.settled {
                    self.dirty.insert(key.clone());
                }
                if self.survey.as_ref().is_some_and(|survey| survey.asked.contains(key)) {
                    // One answer more to the question whether it is this node that is ill.
                    self.dirty.append(&mut self.held_back);
                }
            }
            Err(distrust) => {
                tracing::debug!(service = %key.0, instance = %key.1, %distrust, "a failed probe is not counted");
                match distrust {
                    Distrust::NodeShort { detail } => {
                        let check = watch.check(*check);
                        if self.short.met(&key.0, check, result.timing.ended) {
                            tracing::warn!(service = %key.0, instance = %key.1, check, missing = %detail,
                                "this node cannot carry out this check, and says nothing of its instances by it: \
                                 others may; told once");
                        }
                    }
                    Distrust::StartedLate { .. } | Distrust::EndedLate { .. } | Distrust::NodeLate { .. } => {}
                }
                watch.disbelieve(prober);
            }
        }
    }

    /// The connection that was held to a target has ended, and the target is being probed: a hint that it may be in
    /// trouble. It is looked at closely until its probes have spoken; what is held of it does not change.
    pub(crate) fn hinted(&mut self, target: TargetId, prober: &mut impl Probing) {
        let Some((key, _)) = self.by_target.get(&target) else { return };
        if let Some(watch) = self.watches.get_mut(&key.0).and_then(|known| known.get_mut(&key.1)) {
            watch.disbelieve(prober);
        }
    }

    /// Checks that this node lacks the means for now.
    pub(super) fn short_of(&self) -> usize {
        self.short.count()
    }

    /// The quorum is out of reach, as of `now`; said again and again while it is so.
    pub(crate) fn sight_lost(&mut self, now: LocalTime, prober: &mut impl Probing) {
        match self.sight {
            Sight::Clear { .. } => self.sight = Sight::Lost { since: now, forgot: false },
            Sight::Lost { since, forgot: false } if now.since(since) >= FORGET_AFTER => {
                tracing::warn!("no quorum for {FORGET_AFTER:?}: this node holds every instance for unknown");
                self.forget(prober);
                self.sight = Sight::Lost { since, forgot: true };
            }
            Sight::Lost { .. } => {}
        }
    }

    /// The quorum is within reach (again), or another leader is: what was seen before counts only once it is seen again.
    /// What is waiting to be said is looked at right away.
    pub(crate) fn look_again(&mut self, now: LocalTime, prober: &mut impl Probing) {
        self.not_before = now;
        self.backoff = BACKOFF_MIN;
        self.doubt_itself(now, prober);
    }

    /// What was seen until now counts only once it is seen again; when that is said is not changed by it.
    pub(crate) fn doubt_itself(&mut self, now: LocalTime, prober: &mut impl Probing) {
        self.sight = Sight::Clear { since: now };
        for watch in self.watches.values().flat_map(BTreeMap::values) {
            if !watch.settled && watch.detector().verdict() != Verdict::Unknown {
                watch.hurry(prober);
            }
        }
        self.compare_all();
    }

    /// This node itself stood still: whatever it held is from another time.
    pub(crate) fn stood_still(&mut self, now: LocalTime, stop: Duration, prober: &mut impl Probing) {
        tracing::warn!("this node stood still for {stop:?}: it holds every instance for unknown until it has looked");
        self.forget(prober);
        match &mut self.sight {
            Sight::Clear { since } => *since = now,
            Sight::Lost { .. } => {}
        }
    }

    fn forget(&mut self, prober: &mut impl Probing) {
        self.trust = SelfTrust::default();
        self.survey = None;
        for watch in self.watches.values_mut().flat_map(BTreeMap::values_mut) {
            watch.reset(prober);
        }
    }
}
