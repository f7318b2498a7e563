//! Breakers: opened, tried, closed. What a breaker does is `breaker`'s; here it is found, changed and told of.

use super::verdicts::moved_on;
use super::{Draft, Entry};
use crate::breaker::{Breaker, BreakerState, Changed};
use crate::calls::BreakerNumbers;
use crate::command::{BreakerTried, BreakerTrip, Done, Refusal, Reply, TrialGrant};
use crate::event::EventKind;
use crate::id::{InstanceId, Revision, ServiceName};
use crate::policy::BreakerPolicy;
use crate::state::AdminState;
use crate::time::ClusterTime;

impl Entry<'_> {
    pub(super) fn breaker_trip(&mut self, trip: &BreakerTrip) -> Reply {
        let changed = self.with_breaker(&trip.service, &trip.instance, trip.generation, |breaker, policy, now| {
            breaker.trip(policy, now, trip.numbers)
        })?;
        self.tell_breaker(&trip.service, &trip.instance, changed, None);
        Ok(Done::Ok)
    }

    pub(super) fn breaker_tried(&mut self, tried: &BreakerTried) -> Reply {
        let good = u32::try_from(tried.numbers.calls.saturating_sub(tried.numbers.failures)).unwrap_or(u32::MAX);
        let granted = u32::try_from(tried.granted).unwrap_or(u32::MAX);
        let changed =
            self.with_breaker(&tried.service, &tried.instance, tried.generation, |breaker, policy, now| {
                breaker.tried(policy, now, good, granted, tried.numbers)
            })?;
        self.tell_breaker(&tried.service, &tried.instance, changed, None);
        Ok(Done::Ok)
    }

    pub(super) fn trial_grant(&mut self, grant: &TrialGrant) -> Reply {
        let granted = self.with_breaker(&grant.service, &grant.instance, grant.generation, Breaker::grant)?;
        match granted {
            Ok(()) => Ok(Done::Granted { generation: grant.generation }),
            Err(why) => Err(Refusal::NoTrial { instance: grant.instance.clone(), why: why.to_string() }),
        }
    }

    /// Does something to the breaker that the proposer saw; refused when it is in another state by now.
    fn with_breaker<T>(
        &mut self,
        service: &ServiceName,
        instance: &InstanceId,
        generation: u64,
        change: impl FnOnce(&mut Breaker, &BreakerPolicy, ClusterTime) -> T,
    ) -> Result<T, Refusal> {
        let known = self.service(service)?;
        let held = known
            .instances
            .get(instance)
            .ok_or_else(|| Refusal::NoSuchInstance { service: service.clone(), instance: instance.clone() })?;
        if held.admin.state == AdminState::Maintenance {
            return Err(moved_on(format!("\"{instance}\", which is in maintenance: its calls are not judged")));
        }
        if held.breaker.generation != generation {
            return Err(moved_on(format!("the breaker of \"{instance}\"")));
        }
        let now = self.now;
        match self.instance_mut(service, instance) {
            Some(instance) => Ok(change(&mut instance.breaker, &known.spec.breaker, now)),
            None => Err(moved_on(format!("\"{instance}\""))),
        }
    }

    /// Tells of a change of state, with the numbers that caused it.
    pub(super) fn tell_breaker(
        &mut self,
        service: &ServiceName,
        id: &InstanceId,
        changed: Option<Changed>,
        cause: Option<Revision>,
    ) {
        let Some(changed) = changed else { return };
        let Some(known) = self.state.service(service) else { return };
        let Some(instance) = known.instances.get(id) else { return };
        let Breaker { open_for, trips, numbers, .. } = &instance.breaker;
        let reason = match (changed.to, numbers) {
            (BreakerState::Open, Some(numbers)) => {
                let BreakerNumbers { consecutive_failures, calls, failures, class } = numbers;
                let class = class.map_or_else(String::new, |class| format!(", the last one {class}"));
                let rule = rule_met(&known.spec.breaker, changed.from, numbers);
                let trip = if *trips <= 1 { "first trip".to_owned() } else { format!("trip {trips} in a row") };
                format!(
                    "{failures} of {calls} calls failed, {consecutive_failures} in a row{class}{rule}: open for \
                     {open_for} ({trip})"
                )
            }
            (BreakerState::Open, None) => format!("open for {open_for}"),
            (BreakerState::HalfOpen, _) => format!("it was open for {open_for}: trial calls may show how it is"),
            (BreakerState::Closed, Some(BreakerNumbers { calls: 1, .. })) => "the one trial call went well".to_owned(),
            (BreakerState::Closed, Some(numbers)) => format!("{} trial calls in a row went well", numbers.calls),
            (BreakerState::Closed, None) => "reset".to_owned(),
        };
        self.emit(
            Draft::new(EventKind::InstanceBreakerChanged, reason)
                .service(service)
                .instance(id)
                .change(Some(changed.from), Some(changed.to))
                .cause(cause),
        );
    }
}

/// The rule by which a breaker opened: `; 5 in a row are enough`. Empty where none of the present policy is met, which
/// may have been changed since the leader counted.
fn rule_met(policy: &BreakerPolicy, from: BreakerState, numbers: &BreakerNumbers) -> String {
    let BreakerNumbers { consecutive_failures, calls, failures, .. } = *numbers;
    match from {
        BreakerState::HalfOpen => return "; one failed trial call is enough".to_owned(),
        BreakerState::Closed | BreakerState::Open => {}
    }
    let (row, least) = (policy.consecutive_failures.max(1), policy.min_requests.max(1));
    let by_row = (consecutive_failures >= u64::from(row)).then(|| format!("{row} in a row are enough"));
    let by_rate = (calls >= u64::from(least) && failures as f64 / calls as f64 >= policy.error_rate).then(|| {
        let share = (policy.error_rate * 1_000.0).round() / 10.0;
        format!("{share} % of at least {least} calls are enough")
    });
    let met: Vec<String> = by_row.into_iter().chain(by_rate).collect();
    if met.is_empty() { String::new() } else { format!("; {}", met.join(", and ")) }
}
