//! The leader as the judge of one instance: what clients tell and what its heartbeats say become judgements, trips and
//! trials, by the core's own detectors. Which command follows from what is played here as the daemon plays it.

use std::time::Duration;

use baton_core::breaker::{BreakerState, Lets};
use baton_core::calls::{BreakerNumbers, Call, CallSlice};
use baton_core::command::{BreakerTried, BreakerTrip, Command, Judgement, JudgementsRecord, TrialGrant};
use baton_core::detector::{AccrualDetector, CallJudge, Detector, Heartbeat, HeartbeatState, Observation};
use baton_core::id::Revision;
use baton_core::policy::{BreakerPolicy, Detection, Liveness};
use baton_core::probe::{Evidence, LocalTime, Verdict};
use baton_core::state::{AdminState, Instance, Service, Source};
use baton_core::time::{ClusterTime, Millis};

use super::directive::Told;

/// The interval that heartbeats are agreed on where the story names none: a third of the default lease's ten seconds is
/// more than any of the stories needs, so it is a second.
const BEAT: Millis = Millis::secs(1);

/// How often a judge looks at its clock.
pub(crate) const TICK: Millis = Millis(100);

/// One instance before its judge.
#[derive(Debug)]
pub(crate) struct Judge {
    epoch: Revision,
    detection: Detection,
    breaker: BreakerPolicy,
    calls: CallJudge,
    generation: u64,
    beats: Option<AccrualDetector>,
    /// Good and bad trial calls that were told and are not proposed yet.
    tried: CallSlice,
    /// Those of the good ones that named the breaker's generation.
    granted: u64,
    /// Since when it judges. Until it has heard something, or has waited long enough to have heard, it takes nothing back.
    began: ClusterTime,
}

fn local(at: ClusterTime) -> LocalTime {
    LocalTime(Duration::from_millis(at.0))
}

/// Calls as a slice.
pub(crate) fn slice(calls: &[Told]) -> CallSlice {
    let mut slice = CallSlice::default();
    for told in calls {
        slice.record(&Call { outcome: told.outcome, latency: told.latency, count: told.count });
    }
    slice
}

impl Judge {
    /// A judge that has heard nothing. `every` is the interval of its heartbeats.
    pub(crate) fn new(service: &Service, instance: &Instance, every: Option<Millis>, now: ClusterTime) -> Self {
        let spec = &service.spec;
        let every = every.unwrap_or(BEAT).as_duration();
        let beats = match instance.registration.liveness {
            Liveness::Probe => None,
            Liveness::Heartbeat => {
                let deadline = spec.lease.ttl.as_duration();
                let mut beats = AccrualDetector::new(spec.detection.accrual.phi, every, Duration::ZERO, deadline);
                // Its first look at the clock: silence is counted from here.
                beats.tick(local(now));
                Some(beats)
            }
        };
        Self {
            epoch: instance.epoch,
            detection: spec.detection.clone(),
            breaker: spec.breaker.clone(),
            calls: CallJudge::new(&spec.detection, &spec.breaker),
            generation: instance.breaker.generation,
            beats,
            tried: CallSlice::default(),
            granted: 0,
            began: now,
        }
    }

    /// How long a judge of calls and one of heartbeats have nothing to say where they have heard nothing.
    fn patience(&self, source: Source, service: &Service) -> Millis {
        match source {
            Source::Calls => self.detection.error_rate.window.max(self.detection.slow.window),
            Source::Heartbeats => service.spec.lease.ttl,
        }
    }

    /// Whether it is about what is registered and wanted now.
    pub(crate) fn is_of(&self, service: &Service, instance: &Instance) -> bool {
        let heartbeats = instance.registration.liveness == Liveness::Heartbeat;
        self.epoch == instance.epoch
            && self.detection == service.spec.detection
            && self.breaker == service.spec.breaker
            && self.beats.is_some() == heartbeats
    }

    /// When its verdict may change by time alone.
    pub(crate) fn next(&self, now: ClusterTime) -> Option<ClusterTime> {
        let calls = (self.calls.verdict() != Verdict::Unknown || self.calls.breaker_numbers().calls > 0)
            .then(|| ClusterTime((now.0 / TICK.0 + 1) * TICK.0));
        let beats = self.beats.as_ref().and_then(|beats| beats.next_change(local(now))).map(|at| {
            // Up to the next whole millisecond: the decision clock has no finer grain.
            ClusterTime(u64::try_from(at.0.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
        });
        [calls, beats].into_iter().flatten().min()
    }

    /// Calls of clients; those who named the breaker's generation had asked whether they may.
    pub(crate) fn calls(
        &mut self,
        told: &CallSlice,
        generation: Option<u64>,
        instance: &Instance,
        now: ClusterTime,
    ) -> Option<String> {
        if let Some(generation) = generation
            && generation != instance.breaker.generation
        {
            return Some(format!(
                "late: these calls began at generation {generation}, the breaker is at {}: they count for nothing",
                instance.breaker.generation
            ));
        }
        self.calls.observe(&Observation::Calls(told), local(now));
        if instance.breaker.state == BreakerState::HalfOpen {
            self.tried.merge_after(told);
            self.granted += if generation.is_some() { told.counts.answered() } else { 0 };
        }
        None
    }

    /// A heartbeat.
    pub(crate) fn beat(&mut self, state: HeartbeatState, now: ClusterTime) -> Result<(), String> {
        let beats = self.beats.as_mut().ok_or("its liveness is \"probe\": its heartbeats are refused")?;
        beats.observe(&Observation::Heartbeat(Heartbeat { state }), local(now));
        Ok(())
    }

    /// The judge itself was stopped: the silence of meanwhile may be its own.
    pub(crate) fn forgive(&mut self, now: ClusterTime) {
        if let Some(beats) = &mut self.beats {
            beats.forgive(local(now));
        }
        self.began = now;
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: ClusterTime) {
        self.calls.tick(local(now));
        if let Some(beats) = &mut self.beats {
            beats.tick(local(now));
        }
    }

    /// What it has to say, if anything: first of the breaker, then of the verdicts.
    pub(crate) fn proposal(&mut self, known: &Service, instance: &Instance, now: ClusterTime) -> Option<Command> {
        // Whoever is in maintenance is not judged; what comes out of it is another epoch.
        if instance.admin.state == AdminState::Maintenance {
            return None;
        }
        let breaker = &instance.breaker;
        if self.generation != breaker.generation {
            // What was counted before the breaker moved says nothing about after.
            self.generation = breaker.generation;
            self.calls.breaker_reset();
            self.tried = CallSlice::default();
            self.granted = 0;
        }
        let (service, id, generation) = (known.name.clone(), instance.id.clone(), breaker.generation);
        match breaker.state {
            BreakerState::Closed => {
                if let Some(numbers) = self.calls.breaker_signal() {
                    let trip = BreakerTrip { service, instance: id, generation, numbers };
                    return Some(Command::BreakerTrip(trip));
                }
            }
            BreakerState::HalfOpen if !self.tried.is_empty() => {
                let told = std::mem::take(&mut self.tried);
                let granted = std::mem::take(&mut self.granted);
                let numbers = BreakerNumbers {
                    consecutive_failures: told.longest,
                    calls: told.calls(),
                    failures: told.failures(),
                    class: told.last_failure,
                };
                let tried = BreakerTried { service, instance: id, generation, numbers, granted };
                return Some(Command::BreakerTried(tried));
            }
            BreakerState::HalfOpen | BreakerState::Open => {}
        }
        if instance.admin.state == AdminState::Maintenance {
            // Nobody judges it; what was proposed all the same would be dropped, and proposed again, and so on.
            return None;
        }
        let mut judgements = Vec::new();
        let mut compare = |source: Source, verdict: Verdict, evidence: Evidence| {
            let committed = instance.judged.get(&source).map_or(Verdict::Unknown, |record| record.verdict);
            let unsure = verdict == Verdict::Unknown && now.since(self.began) < self.patience(source, known);
            if committed != verdict && !unsure {
                let (service, instance, epoch) = (service.clone(), id.clone(), self.epoch);
                judgements.push(Judgement { service, instance, epoch, source, verdict, evidence });
            }
        };
        compare(Source::Calls, self.calls.verdict(), self.calls.evidence(local(now)));
        if let Some(beats) = &self.beats {
            compare(Source::Heartbeats, beats.verdict(), beats.evidence(local(now)));
        }
        (!judgements.is_empty()).then_some(Command::JudgementsRecord(JudgementsRecord { judgements }))
    }
}

/// The question for one trial call.
pub(crate) fn trial(service: &Service, instance: &Instance, generation: Option<u64>) -> Command {
    Command::TrialGrant(TrialGrant {
        service: service.name.clone(),
        instance: instance.id.clone(),
        generation: generation.unwrap_or(instance.breaker.generation),
    })
}

/// Whether the breaker lets calls through now.
pub(crate) fn lets(service: &Service, instance: &Instance, now: ClusterTime) -> Lets {
    instance.breaker.lets_through(&service.spec.breaker, now)
}
