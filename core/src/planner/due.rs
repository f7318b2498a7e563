//! What time alone brings to instances: the ends of open breakers, of recoveries' delays, of maintenance, of the patience
//! with missing instances. Beside the plan and never before it: a failover does not wait for housekeeping.

use crate::command::{Command, InstancesDue};
use crate::state::Service;
use crate::time::ClusterTime;

/// The most instances in one command: the rest follows at once, in another.
const AT_ONCE_MAX: usize = 500;

/// What has come due of a service, and when the next thing will.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Due {
    /// What to propose, if anything is due.
    pub command: Option<Command>,
    /// When to look again if nothing changes before.
    pub wake_at: Option<ClusterTime>,
}

/// Looks for what has come due at `now`.
pub fn instances_due(service: &Service, now: ClusterTime) -> Due {
    let mut instances = Vec::new();
    let mut wake_at: Option<ClusterTime> = None;
    for instance in service.instances.values() {
        match instance.due(service) {
            Some(at) if at <= now && instances.len() < AT_ONCE_MAX => instances.push(instance.id.clone()),
            Some(at) => wake_at = Some(wake_at.map_or(at, |earlier| earlier.min(at))),
            None => {}
        }
    }
    let due = InstancesDue { service: service.name.clone(), instances };
    Due { command: (!due.instances.is_empty()).then_some(Command::InstancesDue(due)), wake_at }
}
