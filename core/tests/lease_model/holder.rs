//! What a process does: it sends heartbeats, hears answers, acts while its lease runs, and may stop and say so. Nothing
//! else.

use super::clock::{LONGEST_LEASE, Ticks};
use super::model::{LeaseModel, Mutant};
use super::state::{Beat, NODES, Node, Process, Token, What, World};

impl LeaseModel {
    /// Whether the process runs. The one that registers a second time does when a majority has its registration, a
    /// little sooner than anybody tells it its session.
    pub(crate) fn runs(&self, world: &World, process: Process) -> bool {
        let has = |node: &&Node| node.log.entries().iter().any(|entry| entry.what == What::Register);
        self.config.processes.contains(&process)
            && (process != Process::A2 || world.nodes.iter().filter(has).count() > NODES / 2)
    }

    pub(crate) fn beat(&self, world: &mut World, process: Process) -> bool {
        if !self.runs(world, process) {
            return false;
        }
        world.beats[process.at()] = Some(Beat { age: 0, era: world.elected });
        world.holders[process.at()].newest = 0;
        true
    }

    /// Hears the answer that names this token. The lease counts from just before the request was sent that it answers.
    pub(crate) fn hear(&self, world: &mut World, process: Process, token: Token) -> bool {
        let Some(at) = world.answers.iter().position(|answer| answer.to == process && answer.token == token) else {
            return false;
        };
        let answer = world.answers.remove(at);
        let holder = &mut world.holders[process.at()];
        let is_released = match self.mutant {
            Some(Mutant::AnswerAfterRelease) => false,
            Some(Mutant::LowerAnswerAfterRelease) => token == holder.released,
            Some(_) | None => token <= holder.released,
        };
        if is_released {
            return true;
        }
        let counted: Ticks = match self.mutant {
            Some(Mutant::AnswerToTheNewest) => holder.newest,
            Some(Mutant::CountedFromReceipt) => 0,
            Some(_) | None => answer.age,
        };
        let Some(left) = answer.ttl.lease().checked_sub(counted) else { return true };
        if holder.token == token {
            // Each answer stands for itself: the longest lease counts.
            holder.left = holder.left.max(Some(left));
        } else if holder.token < token {
            holder.token = token;
            holder.left = Some(left);
        }
        true
    }

    /// Stops, and says so.
    pub(crate) fn stop(&self, world: &mut World, process: Process) -> bool {
        let holder = &mut world.holders[process.at()];
        if !self.config.releases || holder.token <= holder.released {
            return false;
        }
        holder.released = holder.token;
        holder.left = None;
        holder.token = 0;
        world.releases[process.at()] |= 1 << holder.released;
        true
    }
}

const _: () = assert!(LONGEST_LEASE >= 1, "a lease that ends as it begins shows nothing");
