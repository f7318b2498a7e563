//! Verdicts come in, health follows. Health is never set: it is counted from the verdicts of live observers.

use super::{Draft, Entry};
use crate::command::{Done, Refusal, Reply, VerdictReport, VerdictsRecord};
use crate::event::EventKind;
use crate::id::{InstanceId, NodeId, Revision, ServiceName};
use crate::probe::{Health, Verdict};
use crate::state::{HealthInputs, Instance, VerdictRecord};
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

    /// Takes one verdict. One about an instance that is gone, or was re-registered since, is late and is dropped.
    fn verdict(&mut self, observer: NodeId, report: &VerdictReport) {
        let Some(instance) = self.state.instance(&report.service, &report.instance) else { return };
        let held = instance.verdicts.get(&observer).map_or(Verdict::Unknown, |held| held.verdict);
        if instance.epoch != report.epoch || held == report.verdict {
            return;
        }
        let (now, wall) = (self.now, self.wall);
        let evidence = &report.evidence;
        if let Some(instance) = self.instance_mut(&report.service, &report.instance) {
            match report.verdict {
                Verdict::Unknown => {
                    instance.verdicts.remove(&observer);
                }
                Verdict::Up => {
                    instance.verdicts.insert(
                        observer,
                        VerdictRecord { verdict: report.verdict, since: wall, evidence: evidence.clone() },
                    );
                }
                Verdict::Suspect | Verdict::Down => {
                    instance.verdicts.insert(
                        observer,
                        VerdictRecord { verdict: report.verdict, since: wall, evidence: evidence.clone() },
                    );
                    let seen = evidence.first_failure_age.map_or(now, |age| ClusterTime(now.0.saturating_sub(age.0)));
                    instance.first_failure = Some(instance.first_failure.map_or(seen, |earlier| earlier.min(seen)));
                    instance.suspect_since.get_or_insert(now);
                }
            }
        }
        let reason = match evidence.class {
            Some(class) => format!(
                "node {observer}: {} failed {} in a row, {class}: {}",
                evidence.check, evidence.streak, evidence.detail
            ),
            None => format!("node {observer}: {}", evidence.detail),
        };
        let cause = self.emit(
            Draft::new(EventKind::VerdictChanged, reason)
                .service(&report.service)
                .instance(&report.instance)
                .node(observer)
                .change(Some(held), Some(report.verdict)),
        );
        self.count_instance_again(&report.service, &report.instance, cause);
    }

    /// Counts an instance's verdicts again and tells when its health changed.
    pub(super) fn count_instance_again(&mut self, service: &ServiceName, id: &InstanceId, cause: Revision) {
        let Some(known) = self.state.services.get(service).cloned() else { return };
        let Some(instance) = known.instances.get(id) else { return };
        let counts = instance.count(self.state.observers(), known.spec.detection.quorum);
        let (old, new) = (instance.health, counts.health());
        let doubted = counts.down + counts.suspect > 0;
        let now = self.now;
        if !doubted && (instance.first_failure.is_some() || instance.suspect_since.is_some()) {
            // The row of failures is over: the next one starts its own clock.
            if let Some(instance) = self.instance_mut(service, id) {
                instance.first_failure = None;
                instance.suspect_since = None;
            }
        }
        if old == new {
            return;
        }
        let reason = health_reason(instance, &counts, new);
        let revision = self.emit(
            Draft::new(EventKind::InstanceHealthChanged, reason)
                .service(service)
                .instance(id)
                .change(Some(old), Some(new))
                .cause(Some(cause)),
        );
        if let Some(instance) = self.instance_mut(service, id) {
            instance.health = new;
            instance.health_since = now;
            instance.health_revision = revision;
        }
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

fn health_reason(instance: &Instance, counts: &HealthInputs, health: Health) -> String {
    let HealthInputs { observers, quorum, up, suspect, down } = counts;
    match health {
        Health::Unhealthy => {
            format!("{down} of {observers} observers say down, {quorum} are enough: {}", instance.doubts())
        }
        Health::Suspect => {
            format!(
                "{down} of {observers} observers say down and {suspect} suspect, {quorum} must say down: {}",
                instance.doubts()
            )
        }
        Health::Healthy => format!("{up} of {observers} observers say up, nobody doubts it"),
        Health::Unknown | Health::Isolated => format!("none of {observers} observers has seen it"),
    }
}

/// Whether a refusal means that the proposer should look again rather than give up.
pub(super) fn moved_on(what: impl Into<String>) -> Refusal {
    Refusal::MovedOn { what: what.into() }
}
