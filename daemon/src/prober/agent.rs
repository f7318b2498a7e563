//! The agent check: a local command, by the name that this node's own configuration gives it. Nothing that comes through
//! the API can say what is run. How a command is run is `program`'s; here is what it is told and what its end means.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::Address;
use baton_core::probe::FailureClass;
use rustix::process::Signal;

use super::fault::Fault;
use crate::program;

/// What a command is asked about.
pub(crate) struct Asked<'a> {
    /// The check, whose name is the command's.
    pub(crate) check: &'a str,
    /// Which instance.
    pub(crate) of: &'a (ServiceName, InstanceId),
    /// Where the instance is.
    pub(crate) address: &'a Address,
    /// The check's own port, or the instance's.
    pub(crate) port: u16,
}

/// The commands of this node.
#[derive(Debug)]
pub(crate) struct Agents(BTreeMap<String, Vec<String>>);

impl Agents {
    /// These commands.
    pub(crate) fn new(commands: &BTreeMap<InstanceId, Vec<String>>) -> Self {
        Self(commands.iter().map(|(name, command)| (name.as_str().to_owned(), command.clone())).collect())
    }

    /// Runs the command that has the check's name and judges how it ended. The caller bounds the time, and kills whatever
    /// is still running by dropping this.
    pub(crate) async fn run(&self, asked: &Asked<'_>) -> Result<(), Fault> {
        let name = asked.check;
        let Some(command) = self.0.get(name) else {
            return Err(Fault::Node { detail: format!("this node's configuration has no agent \"{name}\"") });
        };
        let host = &asked.address.host;
        let authority = Address { host: host.clone(), port: asked.port };
        let facts = [
            ("BATON_SERVICE", asked.of.0.to_string()),
            ("BATON_INSTANCE", asked.of.1.to_string()),
            ("BATON_ADDRESS", authority.to_string()),
            ("BATON_HOST", host.clone()),
            ("BATON_PORT", asked.port.to_string()),
            ("BATON_CHECK", name.to_owned()),
        ];
        // Whether there is such a program, and whether one more process may be, is this node's affair alone.
        let ended = program::run(command, &facts, None)
            .await
            .map_err(|error| Fault::Node { detail: format!("agent \"{name}\": {error}") })?;
        let program::Ended { status, out, err } = ended;
        tracing::debug!(agent = name, service = %asked.of.0, instance = %asked.of.1, %status, out, err, "an agent ended");
        judge(name, status)
    }
}

fn judge(name: &str, status: ExitStatus) -> Result<(), Fault> {
    let how = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(code), _) => format!("agent \"{name}\" exited with {code}"),
        // This node kills only whom it does not wait for any more. So it was the kernel, which was short of memory, or
        // somebody on this machine; an agent that fails by itself does not end like that.
        (None, Some(signal)) if signal == Signal::KILL.as_raw() => {
            let detail = format!("agent \"{name}\" was killed (signal 9), as by a system that is short of memory");
            return Err(Fault::Node { detail });
        }
        (None, Some(signal)) => format!("agent \"{name}\" was ended by signal {signal}"),
        (None, None) => format!("agent \"{name}\" ended in an unknown way"),
    };
    Err(Fault::target(FailureClass::Malformed, how))
}
