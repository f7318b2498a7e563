//! The leader's judging of heartbeats, small: silence that is longer than some share of the lease is taken for death, a sign of life
//! for life, and now and then somebody is accused who is well. Nothing that must be safe may rest on it.

use baton_core::command::{Command, Judgement, JudgementsRecord};
use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::Liveness;
use baton_core::probe::{Evidence, Source, Verdict};

use super::message::Waiter;
use super::world::World;

impl World {
    pub(crate) fn judge(&mut self, at: usize, term: u64) {
        let now = self.local(at);
        let slander = if self.shaking { self.shape.slander } else { 0 };
        let mut judgements = Vec::new();
        let node = &self.nodes[at];
        let Some(lead) = &node.lead else { return };
        if lead.judging {
            return;
        }
        for (name, service) in &node.state.services {
            let patience = service.spec.lease.ttl.as_duration() * self.shape.silence / 100;
            for (id, instance) in &service.instances {
                if instance.registration.liveness != Liveness::Heartbeat {
                    continue;
                }
                let held = instance.judged.get(&Source::Heartbeats).map(|record| record.verdict);
                let key = (name.clone(), id.clone());
                let heard = lead.heard.get(&key).filter(|(session, _)| instance.session.as_ref() == Some(session));
                let since = heard.map_or(lead.since, |(_, at)| (*at).max(lead.since));
                let hasty = self.shape.hasty && self.shaking && heard.is_none() && service.is_active(id);
                let silent = now.since(since) > if hasty { patience / 10 } else { patience };
                let slandered = !silent && slander > 0 && self.rng.chance(slander);
                let verdict = match (silent || slandered, heard) {
                    (true, _) => Verdict::Down,
                    (false, Some(_)) => Verdict::Up,
                    (false, None) => continue,
                };
                if held != Some(verdict) {
                    judgements.push(judgement(name, id, instance.epoch, verdict));
                }
            }
        }
        if !judgements.is_empty() {
            if let Some(lead) = self.lead(at, term) {
                lead.judging = true;
            }
            self.propose_soon(at, term, Command::JudgementsRecord(JudgementsRecord { judgements }), Waiter::Judge);
        }
    }
}

fn judgement(service: &ServiceName, instance: &InstanceId, epoch: u64, verdict: Verdict) -> Judgement {
    let evidence = Evidence {
        check: "heartbeat".to_owned(),
        class: None,
        detail: format!("{verdict} by its heartbeats"),
        streak: 1,
        first_failure_age: None,
    };
    let (service, instance) = (service.clone(), instance.clone());
    Judgement { service, instance, epoch, source: Source::Heartbeats, verdict, evidence }
}
