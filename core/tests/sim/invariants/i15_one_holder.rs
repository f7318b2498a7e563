//! I15: no two holders' leases overlap in real time, where no proof was used that I15 does not cover. Whether a process
//! holds is asked of its own machine, at true time: were it to look at its clock now, would it act?

use baton_core::id::Token;

use crate::sim::world::World;

pub(crate) const NAME: &str = "I15";

/// The process at `at` may act under `token` from now on.
pub(crate) fn check(world: &World, at: usize, token: Token) -> Result<(), String> {
    let process = &world.processes[at];
    if !world.shape.strict[process.service] {
        return Ok(());
    }
    for other in world.processes.iter().filter(|other| other.at != at && other.service == process.service) {
        if let Some(theirs) = other.may_act(world.now) {
            return Err(format!(
                "p{at} acts as {}/{} under token {token}, and p{} as \"{}\" under token {theirs} still may",
                process.name(),
                process.instance,
                other.at,
                other.instance
            ));
        }
    }
    Ok(())
}
