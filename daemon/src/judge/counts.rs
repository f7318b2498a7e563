//! What all nodes have counted of each instance, as they tell it. Sums of levels: told twice, they count once.

use std::collections::BTreeMap;

use baton_client::view::FailureCounts;
use baton_core::id::{InstanceId, NodeId, Revision, ServiceName};
use baton_core::state::{Instance, State};

use crate::reports::wire::{TotalOf, TotalsAsk};

/// What one node last told of an instance.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// Which start of the node it was.
    boot: u64,
    counts: FailureCounts,
}

/// What is counted of one instance.
#[derive(Debug, Default)]
struct Counted {
    epoch: Revision,
    by_node: BTreeMap<NodeId, Told>,
    /// What nodes had counted before they were started again.
    before: FailureCounts,
}

/// What is counted, by instance.
#[derive(Debug, Default)]
pub(super) struct Counts {
    services: BTreeMap<ServiceName, BTreeMap<InstanceId, Counted>>,
}

fn add(sum: &mut FailureCounts, more: &FailureCounts) {
    sum.probes.merge(&more.probes);
    sum.calls.merge(&more.calls);
}

impl Counts {
    /// Takes note of what a node has counted. What it tells of an instance that is gone, or of an epoch that is over, is
    /// late.
    pub(super) fn told(&mut self, state: &State, from: NodeId, told: TotalsAsk) {
        for TotalOf { service, instance, epoch, probes, calls } in told.totals {
            let Some(known) = state.instance(&service, &instance).filter(|known| known.epoch == epoch) else {
                continue;
            };
            let counted = self.services.entry(service).or_default().entry(instance).or_default();
            if counted.epoch != known.epoch {
                *counted = Counted { epoch, ..Counted::default() };
            }
            let held = counted.by_node.entry(from).or_default();
            if held.boot != told.boot {
                add(&mut counted.before, &held.counts);
            }
            *held = Told { boot: told.boot, counts: FailureCounts { probes, calls } };
        }
    }

    /// What is counted of an instance; noughts where nothing is yet.
    pub(super) fn of(&self, service: &ServiceName, instance: &Instance) -> FailureCounts {
        let counted = self.services.get(service).and_then(|held| held.get(&instance.id));
        let counted = counted.filter(|counted| counted.epoch == instance.epoch);
        counted.map_or_else(FailureCounts::default, |counted| {
            counted.by_node.values().fold(counted.before, |mut sum, told| {
                add(&mut sum, &told.counts);
                sum
            })
        })
    }

    /// Lets go of what is gone.
    pub(super) fn prune(&mut self, state: &State) {
        self.services.retain(|name, held| {
            let Some(service) = state.service(name) else { return false };
            held.retain(|id, _| service.instances.contains_key(id));
            !held.is_empty()
        });
    }
}
