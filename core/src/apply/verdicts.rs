//! Verdicts come in, health follows. Health is never set: it is counted from the verdicts of live observers and what the
//! leader judges beside them, and whoever was unhealthy is held back as the service's recovery says.

use super::{Draft, Entry};
use crate::command::{Done, Judgement, JudgementsRecord, Refusal, Reply, VerdictReport, VerdictsRecord};
use crate::event::EventKind;
use crate::id::{InstanceId, NodeId, Revision, ServiceName};
use crate::probe::{Evidence, Health, Verdict};
use crate::recovery::Recovery;
use crate::state::{AdminState, HealthInputs, Instance, Service, VerdictRecord};
use crate::time::ClusterTime;

impl Entry<'_> {
    pub(super) fn verdicts_record(&mut self, record: &VerdictsRecord) -> Reply {
        let observer = record.observer;
        if !self.state.nodes.get(&observer).is_some_and(|node| node.live) {
            return Err(Refusal::MovedOn { what: format!("whether node {observer} observes") });
        }
        for report in &record.verdicts {
            self.verdict(observer, report);
        }
        Ok(Done::Ok)
    }

    /// Takes one verdict. One about an instance that is gone or was re-registered since is late and is dropped, and so is
    /// one of a node that does not observe it. A node that was released may still change its mind while it stands in.
    fn verdict(&mut self, observer: NodeId, report: &VerdictReport) {
        let Some(service) = self.state.service(&report.service) else { return };
        let Some(instance) = service.instances.get(&report.instance) else { return };
        let held = instance.verdicts.get(&observer).map_or(Verdict::Unknown, |held| held.verdict);
        let asked = held != Verdict::Unknown || self.state.observers_of(service, instance).contains(&observer);
        if instance.epoch != report.epoch || held == report.verdict || !asked {
            return;
        }
        let (now, wall) = (self.now, self.wall);
        let evidence = &report.evidence;
        if let Some(instance) = self.instance_mut(&report.service, &report.instance) {
            match report.verdict {
                Verdict::Unknown => {
                    instance.verdicts.remove(&observer);
                }
                Verdict::Up | Verdict::Suspect | Verdict::Down => {
                    let record = VerdictRecord { verdict: report.verdict, since: wall, evidence: evidence.clone() };
                    instance.verdicts.insert(observer, record);
                }
            }
            note_doubt(instance, report.verdict, evidence, now);
        }
        let reason = format!("node {observer}: {}", evidence.told());
        let cause = self.emit(
            Draft::new(EventKind::VerdictChanged, reason)
                .service(&report.service)
                .instance(&report.instance)
                .node(observer)
                .change(Some(held), Some(report.verdict)),
        );
        self.count_instance_again(&report.service, &report.instance, cause);
    }

    pub(super) fn judgements_record(&mut self, record: &JudgementsRecord) -> Reply {
        for judgement in &record.judgements {
            self.judgement(judgement);
        }
        Ok(Done::Ok)
    }

    /// Takes what the leader judges by one source. One about an older epoch is late and is dropped.
    fn judgement(&mut self, judgement: &Judgement) {
        let Judgement { service, instance: id, epoch, source, verdict, evidence } = judgement;
        let Some(instance) = self.state.instance(service, id) else { return };
        let held = instance.judged.get(source).map_or(Verdict::Unknown, |held| held.verdict);
        if instance.epoch != *epoch || held == *verdict || instance.admin.state == AdminState::Maintenance {
            return;
        }
        let (now, wall) = (self.now, self.wall);
        if let Some(instance) = self.instance_mut(service, id) {
            match verdict {
                Verdict::Unknown => {
                    instance.judged.remove(source);
                }
                Verdict::Up | Verdict::Suspect | Verdict::Down => {
                    let record = VerdictRecord { verdict: *verdict, since: wall, evidence: evidence.clone() };
                    instance.judged.insert(*source, record);
                }
            }
            note_doubt(instance, *verdict, evidence, now);
        }
        let cause = self.emit(
            Draft::new(EventKind::VerdictChanged, format!("{source}: {}", evidence.told()))
                .service(service)
                .instance(id)
                .source(*source)
                .change(Some(held), Some(*verdict)),
        );
        self.count_instance_again(service, id, cause);
    }

    /// Counts an instance's verdicts again and tells when its health changed.
    pub(super) fn count_instance_again(&mut self, service: &ServiceName, id: &InstanceId, cause: Revision) {
        let Some(known) = self.state.services.get(service).cloned() else { return };
        let Some(instance) = known.instances.get(id) else { return };
        let observers = self.state.observers_of(&known, instance);
        let released = released(instance, &observers);
        let counts = instance.count(&observers, known.probes(instance), &known.spec.detection);
        let now = self.now;
        let (health, recovery) = next_health(&known, instance, &counts, now);
        let doubted = matches!(counts.verdict, Verdict::Suspect | Verdict::Down) || counts.down + counts.suspect > 0;
        let row_over = !doubted && (instance.first_failure.is_some() || instance.suspect_since.is_some());
        if row_over || !released.is_empty() || recovery != instance.recovery {
            let recovery = recovery.clone();
            if let Some(instance) = self.instance_mut(service, id) {
                for observer in &released {
                    instance.verdicts.remove(observer);
                }
                if row_over {
                    // The row of failures is over: the next one starts its own clock.
                    instance.first_failure = None;
                    instance.suspect_since = None;
                }
                instance.recovery = recovery;
            }
        }
        let old = instance.health;
        if old == health {
            return;
        }
        let reason = health_reason(&known, instance, &counts, recovery.as_ref(), health);
        let revision = self.emit(
            Draft::new(EventKind::InstanceHealthChanged, reason)
                .service(service)
                .instance(id)
                .change(Some(old), Some(health))
                .cause(Some(cause)),
        );
        if let Some(instance) = self.instance_mut(service, id) {
            instance.health = health;
            instance.health_since = now;
            instance.health_revision = revision;
        }
    }

    /// Ends the time for which an instance that is well again is held back.
    pub(super) fn take_back(&mut self, service: &ServiceName, id: &InstanceId, cause: Revision) {
        let now = self.now;
        if let Some(recovery) = self.instance_mut(service, id).and_then(|instance| instance.recovery.as_mut()) {
            (recovery.good_since, recovery.back_since) = (None, Some(now));
        }
        self.count_instance_again(service, id, cause);
    }

    pub(super) fn count_service_again(&mut self, service: &ServiceName, cause: Revision) {
        let Some(known) = self.state.services.get(service).cloned() else { return };
        for id in known.instances.keys() {
            self.count_instance_again(service, id, cause);
        }
    }

    /// The set of observers changed, so every denominator did.
    pub(super) fn count_everything_again(&mut self, cause: Revision) {
        let names: Vec<ServiceName> = self.state.services.keys().cloned().collect();
        for name in names {
            self.count_service_again(&name, cause);
        }
    }
}

/// Keeps when the present row of failures began, and when it was first doubted.
fn note_doubt(instance: &mut Instance, verdict: Verdict, evidence: &Evidence, now: ClusterTime) {
    match verdict {
        Verdict::Unknown | Verdict::Up => {}
        Verdict::Suspect | Verdict::Down => {
            let seen = evidence.first_failure_age.map_or(now, |age| ClusterTime(now.0.saturating_sub(age.0)));
            instance.first_failure = Some(instance.first_failure.map_or(seen, |earlier| earlier.min(seen)));
            instance.suspect_since.get_or_insert(now);
        }
    }
}

/// The nodes that were released and need not stand in any more: all that are assigned have looked.
fn released(instance: &Instance, observers: &[NodeId]) -> Vec<NodeId> {
    let all_have_looked = observers.iter().all(|observer| instance.verdicts.contains_key(observer));
    let strangers = instance.verdicts.keys().filter(|observer| !observers.contains(observer));
    if all_have_looked { strangers.copied().collect() } else { Vec::new() }
}

/// The health that the counts mean, and what is remembered of its failures: whoever was unhealthy is held back.
fn next_health(
    service: &Service,
    instance: &Instance,
    counts: &HealthInputs,
    now: ClusterTime,
) -> (Health, Option<Recovery>) {
    let policy = &service.spec.recovery;
    let remembered = instance.recovery.clone();
    let held_back = remembered.as_ref().is_some_and(|recovery| recovery.back_since.is_none());
    // Whoever does not count as well does not wait for the end of a delay either: it begins anew.
    let not_waiting = |recovery: Recovery| if held_back { Recovery { good_since: None, ..recovery } } else { recovery };
    match instance.admin.state {
        AdminState::Isolated => return (Health::Isolated, remembered.map(not_waiting)),
        AdminState::Maintenance => return (Health::Unknown, remembered.map(not_waiting)),
        AdminState::Enabled | AdminState::Draining => {}
    }
    match counts.verdict {
        Verdict::Down if held_back => (Health::Unhealthy, remembered.map(not_waiting)),
        Verdict::Down => (Health::Unhealthy, Some(Recovery::failed(remembered.as_ref(), policy, now))),
        Verdict::Unknown => (Health::Unknown, remembered.map(not_waiting)),
        well @ (Verdict::Suspect | Verdict::Up) => {
            let health = if well == Verdict::Up { Health::Healthy } else { Health::Suspect };
            let Some(recovery) = remembered.filter(|_| held_back) else { return (health, instance.recovery.clone()) };
            let waiting = Recovery { good_since: recovery.good_since.or(Some(now)), ..recovery };
            if waiting.due(policy).is_some_and(|due| now >= due) {
                (health, Some(Recovery { good_since: None, back_since: Some(now), ..waiting }))
            } else {
                (Health::Unhealthy, Some(waiting))
            }
        }
    }
}

fn health_reason(
    service: &Service,
    instance: &Instance,
    counts: &HealthInputs,
    recovery: Option<&Recovery>,
    health: Health,
) -> String {
    let HealthInputs { observers, quorum, up, suspect, down, .. } = counts;
    let doubts = instance.doubts();
    match health {
        Health::Unhealthy => {
            let cools = recovery
                .and_then(|recovery| recovery.cooldown_until.map(|_| recovery.failures_told()))
                .map_or_else(String::new, |failures| {
                    format!(" ({failures}: cooling down for {})", service.spec.recovery.cooldown)
                });
            if counts.probes == Verdict::Down {
                format!("{down} of {observers} observers say down, {quorum} are enough: {doubts}{cools}")
            } else {
                format!("{doubts}{cools}")
            }
        }
        Health::Suspect if counts.vetoed => {
            format!("{up} of {observers} observers see it well, and one is enough to veto that it is down: {doubts}")
        }
        Health::Suspect if down + suspect == 0 => doubts,
        Health::Suspect => {
            format!("{down} of {observers} observers say down and {suspect} suspect, {quorum} must say down: {doubts}")
        }
        Health::Healthy if counts.probes == Verdict::Up => {
            format!("{up} of {observers} observers say up, nobody doubts it")
        }
        Health::Healthy => "it shows signs of life, and nobody doubts it".to_owned(),
        Health::Unknown if instance.admin.state == AdminState::Maintenance => "it is in maintenance".to_owned(),
        Health::Unknown => format!("none of {observers} observers has anything to say of it"),
        Health::Isolated => format!("it is isolated by an operator: {}", instance.admin.reason),
    }
}

/// Whether a refusal means that the proposer should look again rather than give up.
pub(super) fn moved_on(what: impl Into<String>) -> Refusal {
    Refusal::MovedOn { what: what.into() }
}
