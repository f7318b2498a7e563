//! The judge's book: what the leader holds of each instance from calls and heartbeats, and what must be proposed.
//!
//! A plain state machine, as the monitor's book is. What nodes tell and changes of the state come in; answers and commands
//! go out. It is driven by levels: what the detectors hold is compared with what is committed, so that a lost proposal, a
//! lost event or another leader heals by itself. A new leader begins with an empty book. It takes nothing back that its
//! predecessor had committed before it has listened for as long as that could be based on, and it misses nobody before a
//! full deadline has passed under its own eyes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use baton_core::command::{BreakerTried, BreakerTrip, Command, Judgement, JudgementsRecord};
use baton_core::detector::Heartbeat;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::policy::{Liveness, Spec};
use baton_core::probe::{LATENESS_MIN, LocalTime, Verdict, tolerance};
use baton_core::state::{AdminState, Change, Instance, Service, Source, State};
use baton_core::time::ClusterTime;

use super::counts::Counts;
use super::watched::{Backoff, BreakerWish, Fate, Place, Watched};
use crate::reports::wire::{
    Beat, BeatAnswer, CallsAnswer, CallsAsk, CountsAnswer, CountsAsk, Known, SliceOf, TotalsAsk,
};

/// The most judgements in one command: a log entry of a few hundred kilobytes at most.
pub(super) const JUDGEMENTS_MAX: usize = 500;

/// How long an accepted proposal may take to be seen in this node's own state before it is made again.
const CONFIRM_WITHIN: Duration = Duration::from_secs(1);

/// An instance by its names.
pub(super) type Key = (ServiceName, InstanceId);

/// What the leader holds.
#[derive(Debug)]
pub(super) struct Book {
    watched: BTreeMap<ServiceName, BTreeMap<InstanceId, Watched>>,
    /// The specs by which they are watched.
    specs: BTreeMap<ServiceName, Arc<Spec>>,
    counts: Counts,
    /// Which telling of calls each node made last, and in which of its starts.
    heard: BTreeMap<NodeId, (u64, u64)>,
    /// When silence alone changes something.
    alarms: BTreeSet<(LocalTime, Key)>,
    /// To be compared with what is committed.
    dirty: BTreeSet<Key>,
    /// Proposed, not yet found committed.
    awaiting: BTreeSet<Key>,
    /// Their breakers may have to be moved.
    breakers: BTreeSet<Key>,
    /// Their breakers will have to be, but not before then. One that is here in vain is looked at in vain, and no more.
    breaker_alarms: BTreeSet<(LocalTime, Key)>,
    backoff: Backoff,
    not_before: LocalTime,
}

impl Book {
    /// An empty book, of a leader that has just begun.
    pub(super) fn new(now: LocalTime) -> Self {
        Self {
            watched: BTreeMap::new(),
            specs: BTreeMap::new(),
            counts: Counts::default(),
            heard: BTreeMap::new(),
            alarms: BTreeSet::new(),
            dirty: BTreeSet::new(),
            awaiting: BTreeSet::new(),
            breakers: BTreeSet::new(),
            breaker_alarms: BTreeSet::new(),
            backoff: Backoff::default(),
            not_before: now,
        }
    }

    // -- What is watched --------------------------------------------------------------------------------------------

    /// Compares everything: at the start, and when changes were missed.
    pub(super) fn rescan(&mut self, state: &State, now: LocalTime) {
        let gone = |(name, id): &Key| state.instance(name, id).is_none();
        let known = self.watched.iter().flat_map(|(name, held)| held.keys().map(|id| (name.clone(), id.clone())));
        for key in known.filter(gone).collect::<Vec<_>>() {
            self.instance_gone(&key);
        }
        for service in state.services.values() {
            for instance in service.instances.values() {
                self.instance_changed(service, instance, now);
            }
        }
        self.counts.prune(state);
    }

    /// Takes note of what changed in the state.
    pub(super) fn changed(&mut self, state: &State, changes: &BTreeSet<Change>, now: LocalTime) {
        for change in changes {
            match change {
                Change::Meta | Change::Transition(_) | Change::Node(_) | Change::Debt(_) => {}
                Change::Service(name) => self.service_changed(state, name, now),
                Change::Instance(name, id) => match (state.service(name), state.instance(name, id)) {
                    (Some(service), Some(instance)) => self.instance_changed(service, instance, now),
                    (Some(_), None) | (None, _) => self.instance_gone(&(name.clone(), id.clone())),
                },
            }
        }
    }

    /// Another spec concerns all that are watched; a service that is gone has none.
    fn service_changed(&mut self, state: &State, name: &ServiceName, now: LocalTime) {
        let Some(held) = self.watched.get(name) else {
            self.specs.remove(name);
            return;
        };
        // A service changes with each event about it, and may have very many instances.
        let spec = state.service(name).map(|service| service.spec.clone());
        if let (Some(known), Some(spec)) = (self.specs.get(name), &spec)
            && Arc::ptr_eq(known, spec)
        {
            return;
        }
        match spec {
            Some(spec) => self.specs.insert(name.clone(), spec),
            None => self.specs.remove(name),
        };
        let ids: Vec<InstanceId> = held.keys().cloned().collect();
        for id in ids {
            match (state.service(name), state.instance(name, &id)) {
                (Some(service), Some(instance)) => self.instance_changed(service, instance, now),
                (Some(_), None) | (None, _) => self.instance_gone(&(name.clone(), id)),
            }
        }
    }

    fn instance_changed(&mut self, service: &Service, instance: &Instance, now: LocalTime) {
        let key = (service.name.clone(), instance.id.clone());
        let held = self.watched.get_mut(&service.name).and_then(|held| held.get_mut(&instance.id));
        let needed = match held {
            Some(watched) => {
                self.alarms.remove(&(alarm_of(watched), key.clone()));
                watched.follow(&service.spec, instance, now);
                watched.is_needed(instance)
            }
            None => {
                let needed = instance.registration.liveness == Liveness::Heartbeat || !instance.judged.is_empty();
                if needed {
                    self.watch(service, instance, now);
                }
                needed
            }
        };
        if needed {
            self.set_alarm(&key, now);
            self.breakers.insert(key.clone());
            self.dirty.insert(key);
        } else {
            self.instance_gone(&key);
        }
    }

    fn watch(&mut self, service: &Service, instance: &Instance, now: LocalTime) -> &mut Watched {
        let held = self.watched.entry(service.name.clone()).or_default();
        held.entry(instance.id.clone()).or_insert_with(|| Watched::begin(&service.spec, instance, now))
    }

    fn instance_gone(&mut self, key: &Key) {
        let Some(held) = self.watched.get_mut(&key.0) else { return };
        if let Some(watched) = held.remove(&key.1) {
            self.alarms.remove(&(alarm_of(&watched), key.clone()));
        }
        if held.is_empty() {
            self.watched.remove(&key.0);
        }
        self.dirty.remove(key);
        self.awaiting.remove(key);
        self.breakers.remove(key);
    }

    fn get(&mut self, key: &Key) -> Option<&mut Watched> {
        self.watched.get_mut(&key.0)?.get_mut(&key.1)
    }

    /// Sets the alarm of an instance whose silence counts. It has none set.
    fn set_alarm(&mut self, key: &Key, now: LocalTime) {
        let Some(watched) = self.watched.get_mut(&key.0).and_then(|held| held.get_mut(&key.1)) else { return };
        let wake = watched.next_change(now);
        if let Some(beats) = &mut watched.beats {
            beats.wake = wake;
        }
        if let Some(wake) = wake {
            self.alarms.insert((wake, key.clone()));
        }
    }

    // -- What is heard ----------------------------------------------------------------------------------------------

    /// Takes note of calls that a node tells of.
    pub(super) fn calls(&mut self, state: &State, from: NodeId, ask: &CallsAsk, now: LocalTime) -> CallsAnswer {
        let mut answer = CallsAnswer::default();
        let heard = self.heard.entry(from).or_default();
        if heard.0 == ask.boot && ask.number <= heard.1 {
            // Heard before: only the answer was lost.
            return answer;
        }
        *heard = (ask.boot, ask.number);
        for SliceOf { service, instance, epoch, generation, slice } in &ask.slices {
            let known = state.service(service).zip(state.instance(service, instance)).filter(|(_, instance)| {
                // A generation that never was is no better than one that is over. Nobody is judged in maintenance.
                instance.epoch == *epoch
                    && instance.admin.state != AdminState::Maintenance
                    && generation.is_none_or(|named| named == instance.breaker.generation)
            });
            let Some((service, instance)) = known else {
                answer.late += slice.calls();
                continue;
            };
            let watched = self.watch(service, instance, now);
            // What the instance is now may be news that has not come by yet.
            watched.follow(&service.spec, instance, now);
            watched.observe_calls(&instance.breaker, slice, generation.is_some(), now);
            let key = (service.name.clone(), instance.id.clone());
            self.breakers.insert(key.clone());
            self.dirty.insert(key);
        }
        answer
    }

    /// Takes note of a heartbeat, at `at` by the decision clock. One that is no news is answered all the same.
    pub(super) fn beat(
        &mut self,
        state: &State,
        beat: &Beat,
        place: Option<Place>,
        now: LocalTime,
        at: ClusterTime,
    ) -> BeatAnswer {
        let Some(service) = state.service(&beat.service) else { return BeatAnswer::NoSuchService };
        let Some(instance) = service.instances.get(&beat.instance) else { return BeatAnswer::NoSuchInstance };
        match instance.registration.liveness {
            Liveness::Probe => return BeatAnswer::NotHeartbeat,
            Liveness::Heartbeat if instance.session.as_ref() != Some(&beat.session) => {
                return BeatAnswer::UnknownSession;
            }
            Liveness::Heartbeat => {}
        }
        let key = (service.name.clone(), instance.id.clone());
        let watched = self.watch(service, instance, now);
        let alarm = alarm_of(watched);
        // The news of a new session may come later than its first heartbeat.
        watched.follow(&service.spec, instance, now);
        if place.is_none_or(|place| watched.is_news(place)) {
            watched.observe_beat(Heartbeat { state: beat.state }, beat.lag, now);
        }
        let differs = watched.verdict(Source::Heartbeats) != committed(instance, Source::Heartbeats);
        self.alarms.remove(&(alarm, key.clone()));
        self.set_alarm(&key, now);
        if differs {
            self.dirty.insert(key);
        }
        BeatAnswer::Taken(super::renewals::told(service, instance, at))
    }

    /// What an instance's last heartbeat said of its lag.
    pub(super) fn lag(&self, (service, instance): &Key) -> Option<u64> {
        self.watched.get(service)?.get(instance)?.lag()
    }

    /// Takes note of what a node has counted.
    pub(super) fn totals(&mut self, state: &State, from: NodeId, told: TotalsAsk) {
        self.counts.told(state, from, told);
    }

    /// What is known of a service's instances beside the log.
    pub(super) fn counts(&self, state: &State, ask: &CountsAsk) -> CountsAnswer {
        let name = &ask.service;
        let Some(service) = state.service(name) else { return CountsAnswer::default() };
        let held = self.watched.get(name);
        let known = |instance: &Arc<Instance>| {
            let lag = held.and_then(|held| held.get(&instance.id)).and_then(Watched::lag);
            (instance.id.clone(), Known { counts: self.counts.of(name, instance), lag })
        };
        let instances = match &ask.instances {
            Some(ids) => ids.iter().filter_map(|id| service.instances.get(id)).map(known).collect(),
            None => service.instances.values().map(known).collect(),
        };
        CountsAnswer { instances }
    }

    /// Lets time pass for windows: some may have emptied.
    pub(super) fn sweep(&mut self, now: LocalTime) {
        for (name, held) in &mut self.watched {
            for (id, watched) in held {
                if watched.tick_calls(now) {
                    self.dirty.insert((name.clone(), id.clone()));
                }
            }
        }
    }

    /// When the next silence is too long, or a breaker may be spoken of.
    pub(super) fn alarm(&self) -> Option<LocalTime> {
        let first = |alarms: &BTreeSet<(LocalTime, Key)>| alarms.first().map(|(at, _)| *at);
        [first(&self.alarms), first(&self.breaker_alarms)].into_iter().flatten().min()
    }

    /// Looks at those whose silence is too long by now, and at breakers whose time has come.
    pub(super) fn ring(&mut self, now: LocalTime) {
        while self.breaker_alarms.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.breaker_alarms.pop_first()
        {
            self.breakers.insert(key);
        }
        while self.alarms.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, key)) = self.alarms.pop_first()
        {
            let Some(watched) = self.get(&key) else { continue };
            let changed = watched.tick_beats(now);
            // One millisecond at least: an alarm that changed nothing must not ring for ever.
            let next = watched.next_change(now).map(|at| at.max(now.plus(Duration::from_millis(1))));
            if let Some(beats) = &mut watched.beats {
                beats.wake = next;
            }
            if let Some(next) = next {
                self.alarms.insert((next, key.clone()));
            }
            if changed {
                self.dirty.insert(key);
            }
        }
    }

    /// The leader was cut off: every silence until `now` may be its own.
    pub(super) fn forgive(&mut self, now: LocalTime) {
        self.forgive_where(now, |_| true);
    }

    /// The leader's own timers were that late: a silence until `now` may be its own, of whoever it may be late for by less.
    /// How much that is, is said by the rule for probes: half of what an instance is given, within some bounds.
    pub(super) fn ran_late(&mut self, late: Duration, now: LocalTime) {
        if late > LATENESS_MIN {
            self.forgive_where(now, |watched| watched.deadline().is_some_and(|deadline| late > tolerance(deadline)));
        }
    }

    fn forgive_where(&mut self, now: LocalTime, is_meant: impl Fn(&Watched) -> bool) {
        let mut forgiven = Vec::new();
        for (name, held) in &mut self.watched {
            for (id, watched) in held.iter_mut().filter(|(_, watched)| watched.beats.is_some() && is_meant(watched)) {
                let key = (name.clone(), id.clone());
                forgiven.push((alarm_of(watched), key));
                watched.forgive(now);
            }
        }
        for alarm in forgiven {
            self.alarms.remove(&alarm);
            self.set_alarm(&alarm.1, now);
            self.dirty.insert(alarm.1);
        }
    }

    // -- What is said -----------------------------------------------------------------------------------------------

    /// Compares everything that is held with what is committed, at the next proposal.
    pub(super) fn compare_all(&mut self) {
        for (name, held) in &self.watched {
            self.dirty.extend(held.keys().map(|id| (name.clone(), id.clone())));
        }
        self.breakers.extend(self.dirty.iter().cloned());
    }

    /// When there may be judgements to propose, if there may be.
    pub(super) fn wants_to_judge(&self) -> Option<LocalTime> {
        (!self.dirty.is_empty()).then_some(self.not_before)
    }

    /// The judgements that differ from what is committed, at most [`JUDGEMENTS_MAX`] at once.
    pub(super) fn judgements(&mut self, state: &State, now: LocalTime) -> Option<JudgementsRecord> {
        let mut judgements = Vec::new();
        while judgements.len() < JUDGEMENTS_MAX
            && let Some(key) = self.dirty.pop_first()
        {
            let before = judgements.len();
            if let Some(instance) = state.instance(&key.0, &key.1)
                && let Some(watched) = self.get(&key)
            {
                for (_, source) in Source::ALL {
                    judgements.extend(judgement(watched, &key, instance, *source, now));
                }
                if watched.sent.is_empty() {
                    self.awaiting.remove(&key);
                } else {
                    self.awaiting.insert(key);
                }
            }
            debug_assert!(judgements.len() <= before + Source::ALL.len(), "one a source");
        }
        (!judgements.is_empty()).then_some(JudgementsRecord { judgements })
    }

    /// Those of the judgements that the book still holds, as they are; the others are looked at again.
    pub(super) fn still_held(&mut self, state: &State, mut record: JudgementsRecord) -> Option<JudgementsRecord> {
        record.judgements.retain(|judgement| {
            let Judgement { service, instance, epoch, source, verdict, .. } = judgement;
            let key = (service.clone(), instance.clone());
            let Some(watched) = self.get(&key) else { return false };
            let same = state.instance(service, instance).is_some_and(|instance| instance.epoch == *epoch);
            let holds = same && watched.verdict(*source) == *verdict;
            if !holds {
                watched.sent.remove(source);
                self.dirty.insert(key);
            }
            holds
        });
        (!record.judgements.is_empty()).then_some(record)
    }

    /// The last judgements were accepted.
    pub(super) fn judged(&mut self) {
        self.backoff.over();
    }

    /// The last judgements were not accepted, or may not have been: what is held then is said a little later.
    pub(super) fn not_judged(&mut self, now: LocalTime) {
        self.not_before = now.plus(self.backoff.next());
        for key in std::mem::take(&mut self.awaiting) {
            if let Some(watched) = self.get(&key) {
                watched.sent.clear();
                self.dirty.insert(key);
            }
        }
    }

    /// Compares again what was proposed a while ago and has not been seen since.
    pub(super) fn compare_overdue(&mut self, now: LocalTime) {
        for key in std::mem::take(&mut self.awaiting) {
            let Some(watched) = self.get(&key) else { continue };
            let overdue = watched.sent.values().any(|(_, at)| now.since(*at) >= CONFIRM_WITHIN);
            if overdue {
                self.dirty.insert(key)
            } else {
                self.awaiting.insert(key)
            };
        }
    }

    /// The breakers that must be moved, at most so many, with the generation that was seen.
    pub(super) fn breaker_commands(&mut self, state: &State, now: LocalTime, most: usize) -> Vec<(Key, u64, Command)> {
        let mut commands = Vec::new();
        while commands.len() < most
            && let Some(key) = self.breakers.pop_first()
        {
            let Some(instance) = state.instance(&key.0, &key.1) else { continue };
            // Its breaker stays as it is; coming out of maintenance is another epoch.
            if instance.admin.state == AdminState::Maintenance {
                continue;
            }
            let Some(calls) = self.get(&key).and_then(|watched| watched.calls.as_mut()) else { continue };
            // What is known of the state may be older than the state.
            calls.follow(&instance.breaker, now);
            match calls.wish(now) {
                Ok(None) => {}
                Ok(Some((generation, wish))) => {
                    let (service, instance) = key.clone();
                    let command = match wish {
                        BreakerWish::Trip(numbers) => {
                            Command::BreakerTrip(BreakerTrip { service, instance, generation, numbers })
                        }
                        BreakerWish::Tried { numbers, granted } => {
                            Command::BreakerTried(BreakerTried { service, instance, generation, numbers, granted })
                        }
                    };
                    commands.push((key, generation, command));
                }
                Err(not_before) => {
                    self.breaker_alarms.insert((not_before, key));
                }
            }
        }
        commands
    }

    /// What was asked of a breaker in `generation` was answered.
    pub(super) fn breaker_answered(&mut self, key: Key, generation: u64, fate: Fate, now: LocalTime) {
        if let Some(calls) = self.get(&key).and_then(|watched| watched.calls.as_mut()) {
            calls.answered(generation, fate, now);
            self.breakers.insert(key);
        }
    }
}

/// Where an instance's alarm stands.
fn alarm_of(watched: &Watched) -> LocalTime {
    watched.beats.as_ref().and_then(|beats| beats.wake).unwrap_or_default()
}

fn committed(instance: &Instance, source: Source) -> Verdict {
    instance.judged.get(&source).map_or(Verdict::Unknown, |record| record.verdict)
}

/// What must be said of one instance by one source, if anything.
fn judgement(
    watched: &mut Watched,
    key: &Key,
    instance: &Instance,
    source: Source,
    now: LocalTime,
) -> Option<Judgement> {
    // In maintenance nothing is judged; coming out of it is another epoch.
    if instance.admin.state == AdminState::Maintenance {
        watched.sent.clear();
        return None;
    }
    let verdict = watched.verdict(source);
    let settled = verdict == committed(instance, source);
    if settled || (verdict == Verdict::Unknown && !watched.may_take_back(source, now)) {
        watched.sent.remove(&source);
        return None;
    }
    if watched.sent.get(&source).is_some_and(|(sent, at)| *sent == verdict && now.since(*at) < CONFIRM_WITHIN) {
        return None;
    }
    watched.sent.insert(source, (verdict, now));
    let evidence = watched.evidence(source, now);
    let (service, instance_id) = key.clone();
    Some(Judgement { service, instance: instance_id, epoch: instance.epoch, source, verdict, evidence })
}
