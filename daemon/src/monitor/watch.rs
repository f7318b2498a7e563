//! One instance as this node sees it: what is probed, what its detectors hold, and how that stands to what is committed.

use std::sync::Arc;
use std::time::Duration;

use baton_core::detector::{Detector, ERROR_RATE, Observation, ProbeDetector, Rule};
use baton_core::id::{InstanceId, Revision, ServiceName};
use baton_core::policy::{Address, Check, Combine, ErrorRate, RecoveryStrategy, Spec};
use baton_core::probe::{Evidence, LocalTime, Outcome, Verdict};

use super::Probing;
use crate::prober::{CheckPlan, Pace, PlanKind, Target, TargetId};

/// Rounds of a check without a believed probe after which this node no longer knows.
const UNHEARD_ROUNDS: u32 = 3;
/// What it gets beside them: short checks must not run out of patience in a busy second.
const UNHEARD_GRACE: Duration = Duration::from_secs(3);

/// What other observers get, beside the time of one look, to look into a doubt of this node: it has to reach them, and
/// what they then see has to come back. A few commits, on a busy machine.
const LOOKED_INTO_GRACE: Duration = Duration::from_millis(500);

/// What a spec says of judging an instance, beside its checks.
#[derive(Clone, Debug, PartialEq)]
struct Judging {
    combine: Combine,
    error_rate: ErrorRate,
    /// Good probes wanted beyond `rise` when it comes back.
    extra: u32,
}

impl Judging {
    fn of(spec: &Spec) -> Self {
        Self {
            combine: spec.detection.combine,
            error_rate: spec.detection.error_rate.clone(),
            extra: match spec.recovery.strategy {
                RecoveryStrategy::Probing => spec.recovery.probes,
                RecoveryStrategy::Immediate | RecoveryStrategy::Gradual => 0,
            },
        }
    }
}

/// Checks made ready to run and how to judge by them, shared by all instances that are probed by them.
#[derive(Debug)]
pub(crate) struct PlanSet {
    source: Vec<Check>,
    plans: Vec<Arc<CheckPlan>>,
    judging: Judging,
}

impl PlanSet {
    /// Makes checks ready, or takes them from `old` where they are the same. A check that this version does not run is
    /// left out: it neither clears nor accuses an instance.
    pub(crate) fn of(service: &ServiceName, checks: &[Check], spec: &Spec, old: Option<&Self>) -> Self {
        let plan = |check: &Check| match CheckPlan::of(check) {
            Ok(plan) => plan.map(Arc::new),
            Err(error) => {
                tracing::error!(%service, check = %check.name, error = &error as &dyn std::error::Error,
                    "this stored check cannot be run and is left out");
                None
            }
        };
        let plans = match old.filter(|old| old.source == checks) {
            Some(old) => old.plans.clone(),
            None => checks.iter().filter_map(plan).collect(),
        };
        Self { source: checks.to_vec(), plans, judging: Judging::of(spec) }
    }

    /// Whether it was made of these checks and says to judge as this spec does.
    pub(crate) fn is_of(&self, checks: &[Check], spec: &Spec) -> bool {
        self.source == checks && self.judging == Judging::of(spec)
    }

    /// Whether both are the very same checks, made ready once.
    fn same_checks(&self, other: &Self) -> bool {
        self.plans.len() == other.plans.len()
            && self.plans.iter().zip(&other.plans).all(|(own, other)| Arc::ptr_eq(own, other))
    }

    /// Whether there is anything to probe by.
    pub(crate) fn is_empty(&self) -> bool {
        self.plans.is_empty()
    }

    /// A detector that has seen nothing.
    fn detector(&self) -> ProbeDetector {
        let Judging { combine, error_rate, extra } = &self.judging;
        let rule = |plan: &Arc<CheckPlan>| Rule {
            check: plan.name.clone(),
            connect_only: matches!(plan.kind, PlanKind::Tcp),
            rise: plan.rise,
            fall: plan.fall,
            extra: *extra,
        };
        ProbeDetector::new(self.plans.iter().map(rule), *combine, error_rate)
    }
}

/// One instance under watch.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Which thing is watched: another epoch is another thing.
    pub(crate) epoch: Revision,
    /// By which checks.
    pub(crate) plans: Arc<PlanSet>,
    /// The prober's targets, in the order of the checks.
    targets: Vec<TargetId>,
    detector: ProbeDetector,
    /// When it was first asked for how long nothing was heard, since the watch began or all was forgotten.
    asked: Option<LocalTime>,
    /// When the last believed probe of each check began.
    heard: Vec<Option<LocalTime>>,
    /// When the last believed failure of each check began.
    failed: Vec<Option<LocalTime>>,
    /// When the probe began by which it came to be held failing; none while it is not.
    failing_since: Option<LocalTime>,
    /// When this node's own doubt or accusation was first found committed; none while there is none.
    accused_at: Option<LocalTime>,
    /// Whether another observer doubts it.
    doubted: bool,
    pace: Pace,
    /// Whether the committed verdict was found to be the detectors' own.
    pub(crate) settled: bool,
    /// What was proposed last, and when, until it is found committed.
    pub(crate) sent: Option<(Verdict, LocalTime)>,
}

impl Watch {
    /// The name of one of its checks.
    pub(super) fn check(&self, check: usize) -> &str {
        self.plans.plans.get(check).map_or("", |plan| plan.name.as_str())
    }

    /// Begins to watch `of`. `hash` spreads each check's probes.
    pub(crate) fn begin(
        prober: &mut impl Probing,
        of: &Key,
        epoch: Revision,
        address: &Address,
        plans: &Arc<PlanSet>,
        hash: impl Fn(&str) -> u64,
    ) -> Self {
        // One held connection is enough for an instance, whichever of its checks ask for one.
        let watching = plans.plans.iter().position(|plan| plan.watch);
        let target = |(index, plan): (usize, &Arc<CheckPlan>)| {
            let watch = watching == Some(index);
            let (of, address, plan, hash) = (of.clone(), address.clone(), plan.clone(), hash(&plan.name));
            prober.insert(Target { of, address, plan, watch, hash })
        };
        let targets: Vec<TargetId> = plans.plans.iter().enumerate().map(target).collect();
        Self {
            epoch,
            asked: None,
            heard: vec![None; targets.len()],
            failed: vec![None; targets.len()],
            targets,
            detector: plans.detector(),
            plans: plans.clone(),
            failing_since: None,
            accused_at: None,
            doubted: false,
            pace: Pace::Fast,
            settled: false,
            sent: None,
        }
    }

    /// The prober's targets, in the order of the checks.
    pub(crate) fn targets(&self) -> &[TargetId] {
        &self.targets
    }

    /// What the detectors hold.
    pub(crate) fn detector(&self) -> &ProbeDetector {
        &self.detector
    }

    /// Takes note of a believed outcome of a check. Answers whether the verdict changed.
    pub(crate) fn observe(
        &mut self,
        prober: &mut impl Probing,
        check: usize,
        outcome: &Outcome,
        started: LocalTime,
        ended: LocalTime,
    ) -> bool {
        let changed = self.detector.observe(&Observation::Probe { check, outcome }, ended).is_some();
        if let Some(heard) = self.heard.get_mut(check) {
            *heard = Some(started);
        }
        match (outcome, self.failed.get_mut(check)) {
            (Outcome::Failure { .. }, Some(failed)) => *failed = Some(started),
            (Outcome::Failure { .. } | Outcome::Success, _) => {}
        }
        if changed {
            self.failing_since = self.is_failing().then(|| self.failing_since.unwrap_or(started));
        }
        self.keep_pace(prober);
        changed
    }

    /// Whether it is held for failing.
    pub(crate) fn is_failing(&self) -> bool {
        match self.detector.verdict() {
            Verdict::Suspect | Verdict::Down => true,
            Verdict::Up | Verdict::Unknown => false,
        }
    }

    /// When the probe began by which it came to be held failing.
    pub(crate) fn failing_since(&self) -> Option<LocalTime> {
        self.failing_since
    }

    /// Whether the last look that began at `time` or later failed: by any check. `None` until every check has looked.
    pub(crate) fn look_since(&self, time: LocalTime) -> Option<bool> {
        let fresh = |look: &Option<LocalTime>| look.is_some_and(|began| began >= time);
        let failed = self.heard.iter().zip(&self.failed).any(|(heard, failed)| fresh(failed) && heard == failed);
        (failed || self.heard.iter().all(fresh)).then_some(failed)
    }

    /// The longest that one look at it takes.
    pub(crate) fn longest_look(&self) -> Duration {
        self.plans.plans.iter().map(|plan| plan.timeout).max().unwrap_or_default()
    }

    /// Takes note of what is committed as this node's own verdict.
    pub(crate) fn note_committed(&mut self, committed: Verdict, now: LocalTime) {
        self.accused_at = match committed {
            Verdict::Suspect | Verdict::Down => Some(self.accused_at.unwrap_or(now)),
            Verdict::Up | Verdict::Unknown => None,
        };
    }

    /// Whether other observers have had the time to look into what this node says against it.
    pub(crate) fn looked_into(&self, now: LocalTime) -> bool {
        let enough = self.longest_look() + LOOKED_INTO_GRACE;
        self.accused_at.is_some_and(|since| now.since(since) >= enough)
    }

    /// Judges by another plan with the same checks: what was seen is forgotten, what is probed goes on. Answers whether
    /// that could be done.
    pub(crate) fn judge_by(&mut self, prober: &mut impl Probing, plans: &Arc<PlanSet>) -> bool {
        let same_checks = self.plans.same_checks(plans);
        if same_checks {
            self.plans = plans.clone();
            self.detector = plans.detector();
            self.reset(prober);
        }
        same_checks
    }

    /// An outcome could not be believed: look again soon, for something may have gone unseen.
    pub(crate) fn disbelieve(&mut self, prober: &mut impl Probing) {
        self.set_pace(prober, Pace::Fast);
    }

    /// Whether enough has been heard by probes that began after `time`: every check to say that it is well, and a
    /// failure of the one that decides to say that it is not: a fresh success is no witness against anybody.
    pub(crate) fn heard_enough_since(&self, time: LocalTime, now: LocalTime) -> bool {
        let fresh = |heard: &Option<LocalTime>| heard.is_some_and(|started| started >= time);
        match self.detector.verdict() {
            Verdict::Up | Verdict::Unknown => self.heard.iter().all(fresh),
            Verdict::Suspect | Verdict::Down => {
                let deciding = self.deciding(now);
                let decides = |plan: &CheckPlan| deciding.as_ref().is_none_or(|deciding| plan.name == *deciding);
                self.plans.plans.iter().zip(&self.failed).any(|(plan, failed)| decides(plan) && fresh(failed))
            }
        }
    }

    /// The check that decides against it; none where all of them do, by their error rate.
    fn deciding(&self, now: LocalTime) -> Option<String> {
        Some(self.detector.evidence(now).check).filter(|check| check != ERROR_RATE)
    }

    /// Lets time pass: a window empties.
    pub(crate) fn tick(&mut self, now: LocalTime) {
        if self.detector.tick(now).is_some() {
            self.failing_since = self.is_failing().then(|| self.failing_since.unwrap_or(now));
        }
    }

    /// Whether a check has given no probe that could be believed for so long that what was held says nothing about now.
    pub(crate) fn unheard_too_long(&mut self, now: LocalTime) -> bool {
        let asked = *self.asked.get_or_insert(now);
        // A silent check says nothing against one that was heard and accuses.
        let deciding = match self.detector.verdict() {
            Verdict::Up | Verdict::Unknown => None,
            Verdict::Suspect | Verdict::Down => self.deciding(now),
        };
        let asked_of = |plan: &CheckPlan| deciding.as_ref().is_none_or(|deciding| plan.name == *deciding);
        self.plans.plans.iter().zip(&self.heard).filter(|(plan, _)| asked_of(plan)).any(|(plan, heard)| {
            let patience = (plan.interval + plan.timeout) * UNHEARD_ROUNDS + UNHEARD_GRACE;
            now.since(heard.unwrap_or(asked)) > patience
        })
    }

    /// Forgets what was held, not when it was heard.
    pub(crate) fn forget_verdict(&mut self) {
        self.detector.reset();
        self.failing_since = None;
    }

    /// The evidence of one who knows nothing.
    pub(crate) fn silence(&self, now: LocalTime) -> Evidence {
        let asked = self.asked.unwrap_or(now);
        let last = self.heard.iter().map(|heard| heard.unwrap_or(asked)).min().unwrap_or(asked);
        Evidence {
            check: String::new(),
            class: None,
            detail: format!("no probe could be believed for {} ms", now.since(last).as_millis()),
            streak: 0,
            first_failure_age: None,
        }
    }

    /// Another observer doubts it, or no longer does. A doubt is looked into at once, unless this node doubts it too:
    /// then its own probes keep their distance from each other.
    pub(crate) fn set_doubted(&mut self, prober: &mut impl Probing, doubted: bool) {
        let news = doubted && !self.doubted;
        self.doubted = doubted;
        self.keep_pace(prober);
        if news && self.detector.verdict() == Verdict::Up {
            self.hurry(prober);
        }
    }

    /// Probes it at once.
    pub(crate) fn hurry(&self, prober: &mut impl Probing) {
        self.targets.iter().for_each(|target| prober.hurry(*target));
    }

    /// Forgets what was seen: whoever saw it cannot be trusted.
    pub(crate) fn reset(&mut self, prober: &mut impl Probing) {
        self.detector.reset();
        self.heard.fill(None);
        self.failed.fill(None);
        self.failing_since = None;
        self.asked = None;
        self.settled = false;
        self.keep_pace(prober);
    }

    fn keep_pace(&mut self, prober: &mut impl Probing) {
        let pace = if self.doubted || self.detector.in_doubt() { Pace::Fast } else { Pace::Normal };
        self.set_pace(prober, pace);
    }

    fn set_pace(&mut self, prober: &mut impl Probing, pace: Pace) {
        if self.pace != pace {
            self.pace = pace;
            self.targets.iter().for_each(|target| prober.pace(*target, pace));
        }
    }

    /// Ends the watch.
    pub(crate) fn end(self, prober: &mut impl Probing) {
        self.targets.iter().for_each(|target| prober.remove(*target));
    }
}

/// Which instance.
pub(crate) type Key = (ServiceName, InstanceId);
