//! What time alone brings to instances: the ends of open breakers, of recoveries' delays, of maintenance, of the patience
//! with missing instances. Beside the plan and never before it: a failover does not wait for housekeeping.

use crate::command::{Command, InstancesDue};
use crate::id::InstanceId;
use crate::state::Service;
use crate::time::{ClusterTime, Millis};

/// The most instances in one command: the rest follows at once, in another.
const AT_ONCE_MAX: usize = 500;

/// How long a leader must have led before it removes what is missing. The decision clock went on while there was no quorum
/// and nobody could be seen: whoever is well must have had the time to show it.
const SETTLED: Millis = Millis::secs(10);

/// What has come due of a service, and when the next thing will.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// What to propose, if anything is due.
    pub command: Option<Command>,
    /// When to look again if nothing changes before.
    pub wake_at: Option<ClusterTime>,
}

/// Looks for what has come due at `now`, for a leader that has led for so long.
pub fn instances_due(service: &Service, now: ClusterTime, led_for: Millis) -> Due {
    let settled = SETTLED.max(Millis(service.longest_interval().0.saturating_mul(2)));
    let settled_at = now.plus(Millis(settled.0.saturating_sub(led_for.0)));
    let mut due = InstancesDue { service: service.name.clone(), instances: Vec::new(), missing: Vec::new() };
    let mut wake_at: Option<ClusterTime> = None;
    let mut take = |list: &mut Vec<InstanceId>, id: &InstanceId, at: Option<ClusterTime>| match at {
        Some(at) if at <= now && list.len() < AT_ONCE_MAX => list.push(id.clone()),
        Some(at) => wake_at = Some(wake_at.map_or(at, |earlier| earlier.min(at))),
        None => {}
    };
    for instance in service.instances.values() {
        let missing = instance.deregistered_at(service).map(|at| at.max(settled_at));
        take(&mut due.instances, &instance.id, instance.due(service));
        take(&mut due.missing, &instance.id, missing);
    }
    let something = !due.instances.is_empty() || !due.missing.is_empty();
    Due { command: something.then_some(Command::InstancesDue(due)), wake_at }
}
