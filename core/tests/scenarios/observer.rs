//! One node as an observer: its probes, when they are believed, and its detectors. These and the rule of trust are the
//! core's own; the pace is that of the daemon's monitor, played without sockets. What it says of it is in `say`.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::command::VerdictsRecord;
use baton_core::detector::{Detector, Observation, ProbeDetector, Rule};
use baton_core::id::{InstanceId, NodeId, Revision};
use baton_core::policy::{Check, CheckKind, RecoveryStrategy};
use baton_core::probe::{Evidence, Health, LocalTime, Outcome, Timing, Verdict, trusted};
use baton_core::sight::SelfTrust;
use baton_core::state::{Instance, Service, State};
use baton_core::time::ClusterTime;

use super::directive::{Late, Seen};
use super::say::Survey;

/// Rounds of a check without a believed probe after which the node no longer knows, and the grace on top.
const UNHEARD_ROUNDS: u32 = 3;
const UNHEARD_GRACE: Duration = Duration::from_secs(3);

/// A blindness longer than this makes everything unknown.
const FORGET_AFTER: Duration = Duration::from_secs(3);

/// Clocks of different nodes have nothing to do with each other: node 2 began two hours before the story.
const ORIGIN: Duration = Duration::from_secs(3_600);

/// A probe under way.
#[derive(Debug)]
struct Flight {
    due: ClusterTime,
    began: ClusterTime,
    ends: ClusterTime,
    outcome: Outcome,
    /// How late the node's timers ran when it began.
    lag: Duration,
}

/// One check's probes.
#[derive(Debug, Default)]
struct Slot {
    /// When the next one is due.
    due: ClusterTime,
    /// When the last one began.
    began: ClusterTime,
    /// The one under way.
    flight: Option<Flight>,
    /// When the last believed one began, and the last believed failure.
    heard: Option<LocalTime>,
    failed: Option<LocalTime>,
}

/// One instance as this node sees it.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) epoch: Revision,
    checks: Vec<Check>,
    pub(super) detector: ProbeDetector,
    slots: Vec<Slot>,
    doubted: bool,
    asked: LocalTime,
    pub(super) sent: Option<Verdict>,
    /// When the probe began by which it came to be held failing.
    pub(super) failing_since: Option<LocalTime>,
    /// Since when this node's word against it is committed.
    pub(super) accused_at: Option<LocalTime>,
    /// Whether the last probe was not believed: said once a row.
    disbelieved: bool,
}

/// Whether the node hears its quorum.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sight {
    Clear { since: LocalTime },
    Lost { since: LocalTime, forgot: bool },
}

/// One node.
#[derive(Debug)]
pub(crate) struct Observer {
    pub(crate) node: NodeId,
    /// How late its timers run.
    pub(crate) lag: Duration,
    pub(crate) stopped: bool,
    pub(crate) silent_since: Option<ClusterTime>,
    /// What it proposed and nobody has received yet.
    pub(crate) held: Option<Vec<VerdictsRecord>>,
    pub(super) sight: Sight,
    pub(super) weather: BTreeMap<InstanceId, Vec<Seen>>,
    pub(super) watches: BTreeMap<InstanceId, Watch>,
    /// Whether it believes what it sees.
    pub(super) trust: SelfTrust,
    /// The last look around.
    pub(super) survey: Option<Survey>,
    /// When it last thought about what to say.
    pub(super) spoke_at: LocalTime,
}

impl Observer {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            lag: Duration::ZERO,
            stopped: false,
            silent_since: None,
            held: None,
            sight: Sight::Clear { since: LocalTime::default() },
            weather: BTreeMap::new(),
            watches: BTreeMap::new(),
            trust: SelfTrust::default(),
            survey: None,
            spoke_at: LocalTime::default(),
        }
    }

    pub(super) fn local(&self, at: ClusterTime) -> LocalTime {
        let origin = ORIGIN * u32::try_from(self.node).unwrap_or(u32::MAX);
        LocalTime(origin + Duration::from_millis(at.0))
    }

    /// The decision clock when this node's own clock shows `at`.
    pub(super) fn cluster(&self, at: LocalTime) -> ClusterTime {
        let since = at.since(self.local(ClusterTime(0)));
        ClusterTime(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// From now on every probe goes like this.
    pub(crate) fn set_weather(&mut self, id: &InstanceId, seen: &Seen, now: ClusterTime) {
        let local = self.local(now);
        let known = self.weather.entry(id.clone()).or_default();
        let began = known.is_empty();
        known.retain(|old| seen.check.is_some() && old.check != seen.check);
        known.push(seen.clone());
        if began && let Some(watch) = self.watches.get_mut(id) {
            let first = ClusterTime(now.0 + (self.node - 1) * 100);
            watch.slots.iter_mut().for_each(|slot| slot.due = first);
            watch.asked = local;
        }
    }

    /// Watches what it is asked to watch, by the state of now.
    pub(crate) fn sync(&mut self, state: &State, service: &Service, now: ClusterTime) {
        if self.stopped {
            return;
        }
        let asked = |instance: &Instance| {
            state.observers_of(service, instance).contains(&self.node) || instance.verdicts.contains_key(&self.node)
        };
        let current: BTreeMap<&InstanceId, &Instance> = service
            .instances
            .values()
            .filter(|instance| asked(instance))
            .map(|instance| (&instance.id, instance.as_ref()))
            .collect();
        self.watches.retain(|id, watch| {
            current
                .get(id)
                .is_some_and(|instance| instance.epoch == watch.epoch && service.checks_of(instance) == watch.checks)
        });
        for (id, instance) in current {
            let local = self.local(now);
            let first = ClusterTime(now.0 + (self.node - 1) * 100);
            let watch = self.watches.entry(id.clone()).or_insert_with(|| Watch::new(service, instance, local, first));
            watch.doubted = instance.health == Health::Suspect;
            watch.keep_pace(now);
        }
    }

    /// When its next probe begins or ends.
    pub(crate) fn next(&self, now: ClusterTime) -> Option<ClusterTime> {
        if self.stopped {
            return None;
        }
        let watches = self.watches.iter();
        let slots = watches.flat_map(|(id, watch)| {
            watch.slots.iter().enumerate().filter_map(move |(check, slot)| match &slot.flight {
                Some(flight) => Some(flight.ends),
                None => weather(&self.weather, id, &watch.checks[check]).map(|_| slot.due),
            })
        });
        slots.chain(self.wants_to_speak()).min().map(|at| at.max(now))
    }

    /// Does what is due. Answers what is worth telling.
    pub(crate) fn run(&mut self, now: ClusterTime) -> Vec<String> {
        let mut told = Vec::new();
        if self.stopped {
            return told;
        }
        let local = self.local(now);
        if let Sight::Lost { since, forgot: false } = self.sight
            && local.since(since) >= FORGET_AFTER
        {
            self.forget(local);
            self.sight = Sight::Lost { since, forgot: true };
            told.push(format!("node {} hears no quorum for {FORGET_AFTER:?}: it forgets what it held", self.node));
        }
        for (id, watch) in &mut self.watches {
            for check in 0..watch.slots.len() {
                let interval = watch.checks[check].interval;
                let timeout = watch.checks[check].timeout;
                let slot = &mut watch.slots[check];
                let ended = slot.flight.take_if(|flight| flight.ends <= now);
                let ended = match ended {
                    Some(flight) => {
                        slot.due = slot.due.max(now);
                        Some(flight)
                    }
                    None if slot.flight.is_some() || slot.due > now => None,
                    None => weather(&self.weather, id, &watch.checks[check]).and_then(|seen| {
                        let (due, outcome, lag) = (slot.due, seen.outcome.clone(), self.lag);
                        (slot.began, slot.due) = (now, now.plus(interval));
                        let ends = if seen.hangs { now.plus(timeout) } else { now };
                        let flight = Flight { due, began: now, ends, outcome, lag };
                        if seen.hangs {
                            slot.flight = Some(flight);
                            return None;
                        }
                        Some(flight)
                    }),
                };
                let Some(Flight { due, began: started, outcome, lag, .. }) = ended else { continue };
                let origin = local.0 - Duration::from_millis(now.0);
                let at = |time: ClusterTime| LocalTime(origin + Duration::from_millis(time.0));
                let timing =
                    Timing { due: at(due), started: at(started), ended: local, timeout: timeout.as_duration() };
                // The worst while it was under way.
                let lag = lag.max(self.lag);
                told.extend(watch.observe(self.node, id, self.sight, lag, check, &outcome, timing));
            }
            watch.detector.tick(local);
            watch.keep_pace(now);
        }
        told
    }

    /// One probe by hand: of one check, or of each.
    pub(crate) fn see(
        &mut self,
        id: &InstanceId,
        seen: &Seen,
        late: Late,
        now: ClusterTime,
    ) -> Result<Vec<String>, String> {
        let local = self.local(now);
        let Some(watch) = self.watches.get_mut(id) else {
            return Ok(vec![format!("node {} does not observe {id}", self.node)]);
        };
        let mut told = Vec::new();
        let mut found = false;
        for check in 0..watch.slots.len() {
            if seen.check.as_ref().is_some_and(|name| *name != watch.checks[check].name) {
                continue;
            }
            found = true;
            let timeout = watch.checks[check].timeout.as_duration();
            let lasted = if seen.hangs || late.ended > Duration::ZERO { timeout } else { Duration::ZERO };
            let started = LocalTime(local.0.saturating_sub(lasted));
            let due = LocalTime(started.0.saturating_sub(late.begun));
            let timing = Timing { due, started, ended: local.plus(late.ended), timeout };
            // By hand, each one is worth telling.
            watch.disbelieved = false;
            told.extend(watch.observe(self.node, id, self.sight, self.lag, check, &seen.outcome, timing));
        }
        if found { Ok(told) } else { Err(format!("{id} has no such check: {:?}", seen.check)) }
    }

    /// It hears its quorum no more.
    pub(crate) fn lose_sight(&mut self, now: ClusterTime) {
        self.sight = Sight::Lost { since: self.local(now), forgot: false };
    }

    /// It hears its quorum again: what was seen before counts only once it is seen again.
    pub(crate) fn look_again(&mut self, now: ClusterTime) {
        self.sight = Sight::Clear { since: self.local(now) };
    }

    /// What was proposed before may have been lost.
    pub(crate) fn speak_anew(&mut self) {
        self.watches.values_mut().for_each(|watch| watch.sent = None);
    }

    /// Whatever it held is from another time.
    pub(crate) fn stood_still(&mut self, now: ClusterTime) {
        self.forget(self.local(now));
    }

    fn forget(&mut self, now: LocalTime) {
        self.trust = SelfTrust::default();
        self.survey = None;
        self.watches.values_mut().for_each(|watch| watch.forget(now));
    }
}

/// How probes of that check go, where anybody said so.
fn weather<'a>(all: &'a BTreeMap<InstanceId, Vec<Seen>>, id: &InstanceId, check: &Check) -> Option<&'a Seen> {
    let of = |seen: &&Seen| seen.check.as_ref().is_none_or(|name| *name == check.name);
    all.get(id)?.iter().rev().find(of)
}

impl Watch {
    fn new(service: &Service, instance: &Instance, asked: LocalTime, first: ClusterTime) -> Self {
        let checks = service.checks_of(instance).to_vec();
        let extra = match service.spec.recovery.strategy {
            RecoveryStrategy::Probing => service.spec.recovery.probes,
            RecoveryStrategy::Immediate | RecoveryStrategy::Gradual => 0,
        };
        let rule = |check: &Check| Rule {
            check: check.name.clone(),
            connect_only: check.kind == CheckKind::Tcp,
            rise: check.rise,
            fall: check.fall,
            extra,
        };
        let detection = &service.spec.detection;
        Self {
            epoch: instance.epoch,
            detector: ProbeDetector::new(checks.iter().map(rule), detection.combine, &detection.error_rate),
            slots: checks.iter().map(|_| Slot { due: first, ..Slot::default() }).collect(),
            checks,
            doubted: false,
            asked,
            sent: None,
            failing_since: None,
            accused_at: None,
            disbelieved: false,
        }
    }

    /// While there is a doubt, the next probes come sooner. Those that are hurried are due now, and so not late.
    fn keep_pace(&mut self, now: ClusterTime) {
        if self.doubted || self.detector.in_doubt() || self.disbelieved {
            for (slot, check) in self.slots.iter_mut().zip(&self.checks) {
                slot.due = slot.due.min(slot.began.plus(check.fast_interval).max(now));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known of one probe")]
    fn observe(
        &mut self,
        node: NodeId,
        id: &InstanceId,
        sight: Sight,
        lag: Duration,
        check: usize,
        outcome: &Outcome,
        timing: Timing,
    ) -> Option<String> {
        let failed = *outcome != Outcome::Success;
        let why = match (failed, trusted(&timing, lag), sight) {
            (true, Err(distrust), _) => Some(distrust.to_string()),
            (true, Ok(()), Sight::Lost { .. }) => Some("this node hears no quorum".to_owned()),
            (true, Ok(()), Sight::Clear { .. }) | (false, ..) => None,
        };
        let news = why.is_some() && !self.disbelieved;
        self.disbelieved = why.is_some();
        match why {
            Some(why) if news => return Some(format!("node {node} does not believe its probe of {id}: {why}")),
            Some(_) => return None,
            None => {}
        }
        let slot = &mut self.slots[check];
        slot.heard = Some(timing.started);
        if failed {
            slot.failed = Some(timing.started);
        }
        if self.detector.observe(&Observation::Probe { check, outcome }, timing.ended).is_some() {
            self.failing_since = self.is_failing().then(|| self.failing_since.unwrap_or(timing.started));
        }
        None
    }

    /// Forgets what was seen.
    pub(super) fn forget(&mut self, now: LocalTime) {
        self.detector.reset();
        self.failing_since = None;
        self.asked = now;
        for slot in &mut self.slots {
            (slot.heard, slot.failed) = (None, None);
        }
    }

    /// Whether it is held for failing.
    pub(super) fn is_failing(&self) -> bool {
        matches!(self.detector.verdict(), Verdict::Suspect | Verdict::Down)
    }

    /// Whether the last look that began at `time` or later failed. `None` until every check has looked.
    pub(super) fn look_since(&self, time: LocalTime) -> Option<bool> {
        let fresh = |look: Option<LocalTime>| look.is_some_and(|began| began >= time);
        let failed = self.slots.iter().any(|slot| fresh(slot.failed) && slot.heard == slot.failed);
        (failed || self.slots.iter().all(|slot| fresh(slot.heard))).then_some(failed)
    }

    /// The longest that one look at it takes.
    pub(super) fn longest_look(&self) -> Duration {
        self.checks.iter().map(|check| check.timeout.as_duration()).max().unwrap_or_default()
    }

    /// Probes it at once.
    pub(super) fn hurry(&mut self, now: ClusterTime) {
        self.slots.iter_mut().for_each(|slot| slot.due = slot.due.min(now));
    }

    /// Whether enough has been heard by probes that began after `time`.
    pub(super) fn heard_enough(&self, time: LocalTime, evidence: &Evidence) -> bool {
        let fresh = |heard: Option<LocalTime>| heard.is_some_and(|started| started >= time);
        match self.detector.verdict() {
            Verdict::Up | Verdict::Unknown => self.slots.iter().all(|slot| fresh(slot.heard)),
            Verdict::Suspect | Verdict::Down => {
                let named = self.checks.iter().any(|check| check.name == evidence.check);
                let deciding = |check: &Check| !named || check.name == evidence.check;
                self.checks.iter().zip(&self.slots).any(|(check, slot)| deciding(check) && fresh(slot.failed))
            }
        }
    }

    pub(super) fn unheard(&self, now: LocalTime) -> bool {
        // A silent check says nothing against one that was heard and accuses.
        let deciding = self.is_failing().then(|| self.detector.evidence(now).check);
        let named = |check: &Check| deciding.as_ref().is_none_or(|deciding| check.name == *deciding);
        self.checks.iter().zip(&self.slots).filter(|(check, _)| named(check)).any(|(check, slot)| {
            let patience =
                (check.interval.as_duration() + check.timeout.as_duration()) * UNHEARD_ROUNDS + UNHEARD_GRACE;
            now.since(slot.heard.unwrap_or(self.asked)) > patience
        })
    }

    pub(super) fn silence(&self, now: LocalTime) -> Evidence {
        let last = self.slots.iter().map(|slot| slot.heard.unwrap_or(self.asked)).min().unwrap_or(self.asked);
        Evidence {
            check: String::new(),
            class: None,
            detail: format!("no probe could be believed for {} ms", now.since(last).as_millis()),
            streak: 0,
            first_failure_age: None,
        }
    }
}
