//! The monitor's book: which instances are watched, what this node holds of each, and which verdicts must be proposed.
//!
//! A plain state machine. Results, changes of the state and losses of sight come in; targets for the prober and records
//! to propose go out. It is driven by levels, not by edges: what the detectors hold is compared with what is committed,
//! so that a lost proposal, a lost event or a spell of being counted out heals by itself.
//!
//! What a node may say (I11): while it has no leader or hears nothing of a quorum, it may be the one that is cut off, so
//! failures are not counted and nothing is proposed; when it sees again, a verdict counts only once a fresh probe has
//! spoken for it. After a longer blindness, or a stop of the whole process, everything is unknown again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use baton_core::command::{VerdictReport, VerdictsRecord};
use baton_core::detector::Detector;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::policy::Spec;
use baton_core::probe::{Health, LocalTime, Outcome, Verdict};
use baton_core::state::{Change, Instance, Service, State};

use super::Probing;
use super::watch::{Key, PlanSet, Watch};
use crate::prober::{ProbeResult, TargetId, spread};

/// The most verdicts in one command: a log entry of a few hundred kilobytes at most.
pub(crate) const REPORTS_MAX: usize = 500;

/// How long an accepted proposal may take to be seen in this node's own state before it is made again.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// The first wait after a proposal failed, and the longest; each failure doubles it. Short, because a failover may wait
/// for this very verdict, and one try costs the cluster little.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A blindness longer than this makes everything unknown: what was seen before it says nothing about now.
const FORGET_AFTER: Duration = Duration::from_secs(3);

/// Whether this node may trust what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
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
    node: NodeId,
    watches: BTreeMap<ServiceName, BTreeMap<InstanceId, Watch>>,
    plans: HashMap<ServiceName, ServicePlans>,
    by_target: HashMap<TargetId, (Key, usize)>,
    /// To be compared with what is committed.
    dirty: BTreeSet<Key>,
    /// Proposed, not yet found committed.
    awaiting: BTreeSet<Key>,
    sight: Sight,
    backoff: Duration,
    /// No proposal before this.
    not_before: LocalTime,
}

impl Book {
    /// An empty book. Blind until told that there is a quorum.
    pub(crate) fn new(node: NodeId, now: LocalTime) -> Self {
        Self {
            node,
            watches: BTreeMap::new(),
            plans: HashMap::new(),
            by_target: HashMap::new(),
            dirty: BTreeSet::new(),
            awaiting: BTreeSet::new(),
            sight: Sight::Lost { since: now, forgot: true },
            backoff: BACKOFF_MIN,
            not_before: now,
        }
    }

    // -- What is watched --------------------------------------------------------------------------------------------

    /// Compares everything: at the start, and when changes were missed.
    pub(crate) fn rescan(&mut self, state: &State, prober: &mut impl Probing) {
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
        for change in changes {
            match change {
                Change::Meta | Change::Transition(_) => {}
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

    /// The checks of a service, made ready once for all its instances.
    fn plans_of(&mut self, service: &Service) -> Arc<PlanSet> {
        if let Some(own) = self.plans.get_mut(&service.name) {
            if Arc::ptr_eq(&own.spec, &service.spec) {
                return own.plans.clone();
            }
            if own.plans.is_of(&service.spec.checks) {
                own.spec = service.spec.clone();
                return own.plans.clone();
            }
        }
        let plans = Arc::new(PlanSet::of(&service.name, &service.spec.checks));
        let own = ServicePlans { spec: service.spec.clone(), plans: plans.clone() };
        self.plans.insert(service.name.clone(), own);
        plans
    }

    fn instance_changed(&mut self, service: &Service, instance: &Instance, prober: &mut impl Probing) {
        let known = self.watches.get(&service.name).and_then(|known| known.get(&instance.id));
        let plans = match &instance.registration.overrides.checks {
            None => self.plans_of(service),
            Some(own) => match known {
                Some(watch) if watch.plans.is_of(own) => watch.plans.clone(),
                Some(_) | None => Arc::new(PlanSet::of(&service.name, own)),
            },
        };
        let known = self.watches.get(&service.name).and_then(|known| known.get(&instance.id));
        let same = known.is_some_and(|watch| watch.epoch == instance.epoch && Arc::ptr_eq(&watch.plans, &plans));
        let address = instance.registration.address.as_ref().filter(|_| !plans.is_empty());
        match address {
            Some(_) if same => {}
            Some(address) => {
                self.instance_gone(&service.name, &instance.id, prober);
                let node = self.node;
                let hash = |check: &str| spread((node, service.name.as_str(), instance.id.as_str(), check));
                let key = (service.name.clone(), instance.id.clone());
                let watch = Watch::begin(prober, &key, instance.epoch, address, &plans, hash);
                for (check, target) in watch.targets().iter().enumerate() {
                    self.by_target.insert(*target, (key.clone(), check));
                }
                self.watches.entry(key.0).or_default().insert(key.1, watch);
            }
            None => self.instance_gone(&service.name, &instance.id, prober),
        }
        let doubted = instance.health == Health::Suspect;
        if let Some(watch) = self.watches.get_mut(&service.name).and_then(|known| known.get_mut(&instance.id)) {
            watch.set_doubted(prober, doubted);
            self.dirty.insert((service.name.clone(), instance.id.clone()));
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
                let changed = watch.observe(prober, *check, outcome, result.timing.started, result.timing.ended);
                if changed || !watch.settled {
                    self.dirty.insert(key.clone());
                }
            }
            Err(distrust) => {
                tracing::debug!(service = %key.0, instance = %key.1, %distrust, "a failed probe is not counted");
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
        for watch in self.watches.values_mut().flat_map(BTreeMap::values_mut) {
            watch.reset(prober);
        }
    }

    // -- What is said -----------------------------------------------------------------------------------------------

    /// Compares everything that is held with what is committed, at the next proposal.
    pub(crate) fn compare_all(&mut self) {
        for (name, known) in &self.watches {
            self.dirty.extend(known.keys().map(|id| (name.clone(), id.clone())));
        }
    }

    /// Compares again what was proposed a while ago and has not been seen since.
    pub(crate) fn compare_overdue(&mut self, now: LocalTime) {
        let overdue: Vec<Key> = self
            .awaiting
            .iter()
            .filter(|(name, id)| {
                let sent = self.watches.get(name).and_then(|known| known.get(id)).and_then(|watch| watch.sent);
                sent.is_none_or(|(_, at)| now.since(at) >= CONFIRM_WITHIN)
            })
            .cloned()
            .collect();
        for key in overdue {
            self.awaiting.remove(&key);
            self.dirty.insert(key);
        }
    }

    /// When there may be something to propose, if there may be.
    pub(crate) fn wants_to_speak(&self) -> Option<LocalTime> {
        match self.sight {
            Sight::Clear { .. } if !self.dirty.is_empty() => Some(self.not_before),
            Sight::Clear { .. } | Sight::Lost { .. } => None,
        }
    }

    /// What to propose now: the verdicts that differ from the committed ones, at most [`REPORTS_MAX`] at once.
    pub(crate) fn proposal(&mut self, state: &State, now: LocalTime) -> Option<VerdictsRecord> {
        let Sight::Clear { since } = self.sight else { return None };
        // One who is counted out is not asked. When the node counts again, a change of it brings everything up.
        if !state.nodes.get(&self.node).is_some_and(|node| node.live) {
            self.dirty.clear();
            return None;
        }
        let mut verdicts = Vec::new();
        while verdicts.len() < REPORTS_MAX
            && let Some(key) = self.dirty.pop_first()
        {
            if let Some(report) = self.report(state, &key, since, now) {
                verdicts.push(report);
                self.awaiting.insert(key);
            }
        }
        (!verdicts.is_empty()).then_some(VerdictsRecord { observer: self.node, verdicts })
    }

    /// What must be said about one instance. `None`: nothing, or nothing yet; whatever changes that makes it dirty again.
    fn report(&mut self, state: &State, key: &Key, since: LocalTime, now: LocalTime) -> Option<VerdictReport> {
        let watch = self.watches.get_mut(&key.0)?.get_mut(&key.1)?;
        let instance = state.instance(&key.0, &key.1).filter(|instance| instance.epoch == watch.epoch)?;
        let committed = instance.verdicts.get(&self.node).map_or(Verdict::Unknown, |record| record.verdict);
        let unheard = watch.unheard_too_long(now);
        if unheard && watch.detector().verdict() != Verdict::Unknown {
            // Everything is to be earned again, by probes that can be believed.
            watch.forget_verdict();
        }
        let verdict = watch.detector().verdict();
        watch.settled = verdict == committed;
        if watch.settled {
            watch.sent = None;
            self.awaiting.remove(key);
            return None;
        }
        // Being unsure for a moment takes nothing back: the committed verdict stays until fresh probes have spoken. But
        // a node that has believed none of its probes for long says that it does not know.
        if !unheard && (verdict == Verdict::Unknown || !watch.heard_enough_since(since, now)) {
            return None;
        }
        if watch.sent.is_some_and(|(sent, at)| sent == verdict && now.since(at) < CONFIRM_WITHIN) {
            self.awaiting.insert(key.clone());
            return None;
        }
        watch.sent = Some((verdict, now));
        let evidence = if unheard { watch.silence(now) } else { watch.detector().evidence(now) };
        Some(VerdictReport { service: key.0.clone(), instance: key.1.clone(), epoch: watch.epoch, verdict, evidence })
    }

    /// The last proposal was accepted.
    pub(crate) fn accepted(&mut self) {
        self.backoff = BACKOFF_MIN;
    }

    /// The last proposal failed, or may have: only what is held now will be said, a little later.
    pub(crate) fn failed(&mut self, now: LocalTime) {
        self.not_before = now.plus(self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
        for key in std::mem::take(&mut self.awaiting) {
            if let Some(watch) = self.watches.get_mut(&key.0).and_then(|known| known.get_mut(&key.1)) {
                watch.sent = None;
            }
            self.dirty.insert(key);
        }
    }
}
