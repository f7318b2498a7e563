//! Who may be promoted, and in which order.

use std::cmp::Reverse;
use std::sync::Arc;

use super::{CandidateReport, Facts};
use crate::assign::{GOLDEN, mix};
use crate::id::InstanceId;
use crate::policy::FailoverStrategy;
use crate::rules::{Seek, candidate_rules, may_be_promoted};
use crate::state::Instance;

/// The most candidates a report names; a service of thousands is not explained by thousands of lines.
const REPORTED_MAX: usize = 100;

/// The instances that may be promoted, best first by the service's strategy.
pub fn rank<'a>(seek: &Seek<'a>, facts: &Facts, seed: u64) -> Vec<&'a Arc<Instance>> {
    let service = seek.service;
    let mut ranked: Vec<&Arc<Instance>> =
        service.instances.values().filter(|it| may_be_promoted(seek, it, facts.lag_of(&it.id))).collect();
    let holder = service.assignment.last_holder.as_ref().and_then(|held| service.instances.get(&held.instance));
    match service.spec.failover.strategy {
        FailoverStrategy::Best => {
            let zone = holder.and_then(|holder| holder.registration.zone.as_deref());
            ranked.sort_by(|a, b| {
                let key = |instance: &Instance| {
                    let registration = &instance.registration;
                    let elsewhere = zone.is_some() && registration.zone.as_deref() != zone;
                    // Whoever tells no lag stands behind those who do: nobody knows how far it is behind.
                    let lag = facts.lag_of(&instance.id).unwrap_or(u64::MAX);
                    (registration.tier, Reverse(registration.priority), lag, elsewhere)
                };
                key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
            });
        }
        FailoverStrategy::Next => {
            ranked.sort_by(|a, b| place(a).cmp(&place(b)));
            // The following one: whoever stands behind the last holder, then around.
            if let Some(holder) = holder {
                let behind = ranked.iter().position(|instance| place(instance) > place(holder)).unwrap_or(0);
                ranked.rotate_left(behind);
            }
        }
        FailoverStrategy::Random => {
            ranked.sort_by(|a, b| a.id.cmp(&b.id));
            shuffle(&mut ranked, seed);
        }
    }
    ranked
}

fn place(instance: &Instance) -> (u32, &InstanceId) {
    (instance.registration.tier, &instance.id)
}

/// A Fisher–Yates shuffle driven by splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
/// 2014): the same seed, the same order, everywhere.
fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        let chosen = (mix(state) % (last as u64 + 1)) as usize;
        state = state.wrapping_add(GOLDEN);
        items.swap(last, chosen);
    }
}

/// Every candidate with every rule: those that may be promoted first, in order, then the others by id.
pub(super) fn report(seek: &Seek<'_>, facts: &Facts, seed: u64) -> Vec<CandidateReport> {
    let ranked = rank(seek, facts, seed);
    let others = seek.service.instances.values().filter(|it| !may_be_promoted(seek, it, facts.lag_of(&it.id)));
    let all = ranked.iter().copied().enumerate().map(|(at, instance)| (Some(at as u32 + 1), instance));
    all.chain(others.map(|instance| (None, instance)))
        .take(REPORTED_MAX)
        .map(|(rank, instance)| {
            let lag = facts.lag_of(&instance.id);
            CandidateReport {
                instance: instance.id.clone(),
                eligible: rank.is_some(),
                rank,
                health: instance.health,
                tier: instance.registration.tier,
                priority: instance.registration.priority,
                lag,
                rules: candidate_rules(seek, instance, lag),
            }
        })
        .collect()
}
