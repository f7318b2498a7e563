//! What the judge holds of one instance: the detectors over its calls and its heartbeats, and what is under way about it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::breaker::{Breaker, BreakerState};
use baton_core::calls::CallSlice;
use baton_core::detector::{AccrualDetector, CallJudge, Detector, Heartbeat, Observation};
use baton_core::id::{NodeId, Revision};
use baton_core::policy::{Check, CheckKind, Liveness, Spec};
use baton_core::probe::{Evidence, LocalTime, Verdict};
use baton_core::state::{Instance, Source};

/// A silence shorter than this makes no instance missing, however short its interval: five of Raft's heartbeats, within
/// which a busy node, a lost packet and its repetition have their place. A deadline that is shorter stands.
const PAUSE: Duration = Duration::from_millis(500);

/// Without a check of type `heartbeat`, heartbeats are expected three times a lease: two may be lost.
const BEATS_PER_LEASE: u64 = 3;

/// What was learnt of an instance's calls is kept for so long after the last of them.
const CALLS_KEPT: Duration = Duration::from_secs(600);

/// How often results of trial calls are told: all that came in meanwhile go together.
const TRIED_EVERY: Duration = Duration::from_millis(100);

/// The first wait after a proposal failed, and the longest; each failure doubles it.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Waits that grow from failure to failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF_MIN)
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (self.0 * 2).min(BACKOFF_MAX);
        wait
    }

    pub(super) fn over(&mut self) {
        *self = Self::default();
    }
}

/// How often an instance should be heard, and from when on it is missing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rhythm {
    pub(super) phi: f64,
    pub(super) expected: Duration,
    pub(super) pause: Duration,
    pub(super) deadline: Duration,
}

impl Rhythm {
    /// By the first check of type `heartbeat`: its interval, and as deadline `fall` intervals and a `timeout`. Without one by
    /// the lease: a third of its `ttl`, and all of it.
    pub(super) fn of(spec: &Spec, checks: &[Check]) -> Self {
        let check = checks.iter().find(|check| check.kind == CheckKind::Heartbeat);
        let (expected, deadline) = match check {
            Some(check) => {
                let interval = check.interval.as_duration();
                (interval, interval.saturating_mul(check.fall.max(1)).saturating_add(check.timeout.as_duration()))
            }
            None => {
                let lease = spec.lease.ttl;
                (Duration::from_millis((lease.0 / BEATS_PER_LEASE).max(1)), lease.as_duration())
            }
        };
        Self { phi: spec.detection.accrual.phi, expected, pause: PAUSE.min(deadline), deadline }
    }
}

/// The judge of an instance's calls.
#[derive(Debug)]
pub(super) struct Calls {
    judge: Box<CallJudge>,
    last: LocalTime,
    /// The breaker as the judge last saw it.
    generation: u64,
    state: BreakerState,
    /// Half open: results that the log does not hold yet.
    tried: Tried,
    /// Half open: results that are on their way into it.
    telling: Option<Tried>,
    /// A command about the breaker is on its way.
    asked: bool,
    not_before: LocalTime,
    backoff: Backoff,
}

/// Calls that ended while the breaker was half open.
#[derive(Clone, Debug, Default)]
struct Tried {
    slice: CallSlice,
    /// Good ones that named the breaker's generation. Only a call that was granted was given it, and so only these give a
    /// place back; the others never took one.
    granted: u64,
}

impl Tried {
    fn merge_after(&mut self, later: &Self) {
        self.slice.merge_after(&later.slice);
        self.granted = self.granted.saturating_add(later.granted);
    }
}

/// What should become of a breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BreakerWish {
    /// Too much failed: it should open.
    Trip(baton_core::calls::BreakerNumbers),
    /// Trial calls ended.
    Tried {
        /// How.
        numbers: baton_core::calls::BreakerNumbers,
        /// How many good ones of them had been granted.
        granted: u64,
    },
}

impl Calls {
    fn new(spec: &Spec, breaker: &Breaker, now: LocalTime) -> Self {
        Self {
            judge: Box::new(CallJudge::new(&spec.detection, &spec.breaker)),
            last: now,
            generation: breaker.generation,
            state: breaker.state,
            tried: Tried::default(),
            telling: None,
            asked: false,
            not_before: now,
            backoff: Backoff::default(),
        }
    }

    /// The breaker may have moved: what was counted for it in another generation says nothing any more.
    pub(super) fn follow(&mut self, breaker: &Breaker, now: LocalTime) {
        if self.generation == breaker.generation {
            return;
        }
        self.judge.breaker_reset();
        self.generation = breaker.generation;
        self.state = breaker.state;
        self.tried = Tried::default();
        self.telling = None;
        self.not_before = now;
        self.backoff.over();
    }

    fn observe(&mut self, slice: &CallSlice, named: bool, now: LocalTime) {
        self.last = now;
        self.judge.observe(&Observation::Calls(slice), now);
        match self.state {
            BreakerState::HalfOpen => {
                let granted = if named { slice.counts.answered() } else { 0 };
                self.tried.merge_after(&Tried { slice: slice.clone(), granted });
            }
            BreakerState::Closed | BreakerState::Open => {}
        }
    }

    /// What to ask of the breaker now, as it was last seen; it counts as asked. `Err`: not before then.
    pub(super) fn wish(&mut self, now: LocalTime) -> Result<Option<(u64, BreakerWish)>, LocalTime> {
        if self.asked {
            return Ok(None);
        }
        let wish = match self.state {
            BreakerState::Closed => self.judge.breaker_signal().map(BreakerWish::Trip),
            BreakerState::Open => None,
            BreakerState::HalfOpen => (!self.tried.slice.is_empty()).then(|| {
                let Tried { slice, granted } = &self.tried;
                let numbers = baton_core::calls::BreakerNumbers {
                    consecutive_failures: slice.longest,
                    calls: slice.calls(),
                    failures: slice.failures(),
                    class: slice.last_failure,
                };
                BreakerWish::Tried { numbers, granted: *granted }
            }),
        };
        let Some(wish) = wish else { return Ok(None) };
        if now < self.not_before {
            return Err(self.not_before);
        }
        self.asked = true;
        self.not_before = now.plus(TRIED_EVERY);
        match wish {
            BreakerWish::Trip(_) => {}
            BreakerWish::Tried { .. } => self.telling = Some(std::mem::take(&mut self.tried)),
        }
        Ok(Some((self.generation, wish)))
    }

    /// What was asked of the breaker in `generation` was answered. What failed is asked again a little later, while the
    /// generation is the same: whatever moves the breaker on begins anew.
    pub(super) fn answered(&mut self, generation: u64, fate: Fate, now: LocalTime) {
        self.asked = false;
        let told = self.telling.take();
        if generation != self.generation {
            return;
        }
        let again = match fate {
            Fate::Done => {
                self.backoff.over();
                return;
            }
            Fate::Undone => told,
            // A failure that is told twice opens it once; a success that is told twice might close it too soon.
            Fate::Unknown => told.filter(|told| told.slice.failures() > 0),
        };
        self.not_before = self.not_before.max(now.plus(self.backoff.next()));
        if let Some(told) = again {
            let later = std::mem::replace(&mut self.tried, told);
            self.tried.merge_after(&later);
        }
    }
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was applied.
    Done,
    /// It surely changed nothing: it was not proposed, or it was refused.
    Undone,
    /// Nobody knows.
    Unknown,
}

/// The judge of an instance's heartbeats, for one session.
#[derive(Debug)]
pub(super) struct Beats {
    session: Option<String>,
    rhythm: Rhythm,
    detector: AccrualDetector,
    /// What it last said of its lag, in its own unit.
    lag: Option<u64>,
    /// When silence alone changes the verdict, as it is scheduled.
    pub(super) wake: Option<LocalTime>,
}

impl Beats {
    fn new(session: Option<String>, rhythm: Rhythm, now: LocalTime) -> Self {
        let Rhythm { phi, expected, pause, deadline } = rhythm;
        let mut detector = AccrualDetector::new(phi, expected, pause, deadline);
        detector.tick(now);
        Self { session, rhythm, detector, lag: None, wake: None }
    }
}

/// Where a heartbeat has its place among those that one start of a node told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) boot: u64,
    pub(super) number: u64,
}

/// One instance as the judge sees it.
#[derive(Debug)]
pub(super) struct Watched {
    epoch: Revision,
    spec: Arc<Spec>,
    /// Since when its calls are judged by these rules: what was reported before, only a predecessor knows.
    since: LocalTime,
    pub(super) calls: Option<Calls>,
    pub(super) beats: Option<Beats>,
    /// The last heartbeat that each node told of: as many as there are nodes.
    last: Vec<Place>,
    /// What was proposed and not yet found committed, and when.
    pub(super) sent: BTreeMap<Source, (Verdict, LocalTime)>,
}

impl Watched {
    pub(super) fn begin(spec: &Arc<Spec>, instance: &Instance, now: LocalTime) -> Self {
        let mut watched = Self {
            epoch: instance.epoch,
            spec: spec.clone(),
            since: now,
            calls: None,
            beats: None,
            last: Vec::new(),
            sent: BTreeMap::new(),
        };
        watched.follow_beats(instance, now);
        watched
    }

    /// Takes note of how the instance and its service are now. Another epoch begins anew, and so do other rules, and for
    /// heartbeats another session.
    pub(super) fn follow(&mut self, spec: &Arc<Spec>, instance: &Instance, now: LocalTime) {
        if self.epoch != instance.epoch {
            // What is overtaken stays so.
            let last = std::mem::take(&mut self.last);
            *self = Self { last, ..Self::begin(spec, instance, now) };
            return;
        }
        if !Arc::ptr_eq(&self.spec, spec) {
            if self.spec.detection != spec.detection || self.spec.breaker != spec.breaker {
                self.calls = None;
                self.since = now;
            }
            self.spec = spec.clone();
        }
        self.follow_beats(instance, now);
        if let Some(calls) = &mut self.calls {
            calls.follow(&instance.breaker, now);
        }
    }

    fn follow_beats(&mut self, instance: &Instance, now: LocalTime) {
        match instance.registration.liveness {
            Liveness::Probe => self.beats = None,
            Liveness::Heartbeat => {
                let checks = instance.registration.overrides.checks.as_ref().unwrap_or(&self.spec.checks);
                let rhythm = Rhythm::of(&self.spec, checks);
                let same = self
                    .beats
                    .as_ref()
                    .is_some_and(|beats| beats.session == instance.session && beats.rhythm == rhythm);
                if !same {
                    self.beats = Some(Beats::new(instance.session.clone(), rhythm, now));
                }
            }
        }
    }

    /// Whether there is anything that this could say about an instance like that.
    pub(super) fn is_needed(&self, instance: &Instance) -> bool {
        self.calls.is_some() || self.beats.is_some() || !instance.judged.is_empty()
    }

    /// Takes note of calls. `named`: their callers named the breaker's present generation.
    pub(super) fn observe_calls(&mut self, breaker: &Breaker, slice: &CallSlice, named: bool, now: LocalTime) {
        let spec = &self.spec;
        let calls = self.calls.get_or_insert_with(|| Calls::new(spec, breaker, now));
        calls.follow(breaker, now);
        calls.observe(slice, named, now);
    }

    /// Whether a heartbeat is news: not one that was told before, and not one that a later one overtook on the way from the
    /// same node. Two that take different ways have no order.
    pub(super) fn is_news(&mut self, place: Place) -> bool {
        match self.last.iter_mut().find(|last| last.node == place.node) {
            Some(last) if last.boot == place.boot && last.number >= place.number => false,
            Some(last) => {
                *last = place;
                true
            }
            None => {
                self.last.push(place);
                true
            }
        }
    }

    /// Takes note of a heartbeat of the present session.
    pub(super) fn observe_beat(&mut self, heartbeat: Heartbeat, lag: Option<u64>, now: LocalTime) {
        if let Some(beats) = &mut self.beats {
            beats.lag = lag;
            beats.detector.observe(&Observation::Heartbeat(heartbeat), now);
        }
    }

    /// How long its heartbeats may stay away.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.beats.as_ref().map(|beats| beats.rhythm.deadline)
    }

    /// What its last heartbeat said of its lag.
    pub(super) fn lag(&self) -> Option<u64> {
        self.beats.as_ref().and_then(|beats| beats.lag)
    }

    /// When silence alone changes what its heartbeats say.
    pub(super) fn next_change(&self, now: LocalTime) -> Option<LocalTime> {
        self.beats.as_ref().and_then(|beats| beats.detector.next_change(now))
    }

    /// A window may have emptied. Whether that changed the verdict.
    pub(super) fn tick_calls(&mut self, now: LocalTime) -> bool {
        let Some(calls) = &mut self.calls else { return false };
        let changed = calls.judge.tick(now).is_some();
        if calls.judge.verdict() == Verdict::Unknown && now.since(calls.last) >= CALLS_KEPT {
            self.calls = None;
        }
        changed
    }

    /// A heartbeat may be missing. Whether that changed the verdict.
    pub(super) fn tick_beats(&mut self, now: LocalTime) -> bool {
        self.beats.as_mut().is_some_and(|beats| beats.detector.tick(now).is_some())
    }

    /// The judge was not there: silences begin anew.
    pub(super) fn forgive(&mut self, now: LocalTime) {
        if let Some(beats) = &mut self.beats {
            beats.detector.forgive(now);
        }
    }

    /// What is held by one source.
    pub(super) fn verdict(&self, source: Source) -> Verdict {
        let held = match source {
            Source::Calls => self.calls.as_ref().map(|calls| calls.judge.verdict()),
            Source::Heartbeats => self.beats.as_ref().map(|beats| beats.detector.verdict()),
        };
        held.unwrap_or(Verdict::Unknown)
    }

    /// Whether what is committed may be taken back where nothing is held. A verdict on calls stands until calls have stayed
    /// away for as long as any window is, under this very judge: a new leader knows nothing of what its predecessor heard.
    /// One on heartbeats is never taken back: whoever is judged by heartbeats is heard within its deadline, or missing.
    pub(super) fn may_take_back(&self, source: Source, now: LocalTime) -> bool {
        match source {
            Source::Calls => now.since(self.since) >= self.patience(),
            Source::Heartbeats => self.beats.is_none(),
        }
    }

    fn patience(&self) -> Duration {
        let detection = &self.spec.detection;
        detection.error_rate.window.max(detection.slow.window).as_duration()
    }

    /// Why it is held.
    pub(super) fn evidence(&self, source: Source, now: LocalTime) -> Evidence {
        let held = match source {
            Source::Calls => self.calls.as_ref().map(|calls| (calls.judge.verdict(), calls.judge.evidence(now))),
            Source::Heartbeats => {
                self.beats.as_ref().map(|beats| (beats.detector.verdict(), beats.detector.evidence(now)))
            }
        };
        match held {
            Some((Verdict::Up | Verdict::Suspect | Verdict::Down, evidence)) => evidence,
            Some((Verdict::Unknown, _)) | None => Evidence {
                check: source.as_str().to_owned(),
                class: None,
                detail: format!("too few {source} to judge by"),
                streak: 0,
                first_failure_age: None,
            },
        }
    }
}
