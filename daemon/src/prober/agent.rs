//! The agent check: a local command, by the name that this node's own configuration gives it. Nothing that comes through
//! the API can say what is run. A command gets a process group of its own, which is killed as a whole when its time is
//! up, when it ends, or when the probe is dropped: nothing that it started is left behind, unless it left the group.
//!
//! A node that is itself killed (`kill -9`, the kernel short of memory) can kill nobody any more: its agents go on until they
//! end by themselves. A service manager that ends the whole control group, as systemd does for the unit that comes with
//! this, takes them along; elsewhere a command may begin with `setpriv --pdeathsig KILL`, or bound itself by `timeout`.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};

use std::os::unix::process::ExitStatusExt;

use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::Address;
use baton_core::probe::FailureClass;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::fault::Fault;

/// How much of what a command writes is kept for the log, in bytes. The rest is read and dropped, so that a talkative
/// command is not stopped by a full pipe.
const SAID_MAX: usize = 1_024;

/// Where commands are looked for if this node was told nothing else.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

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

/// A process group, for as long as nobody else can have its number: until its first process has been waited for.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn kill(&mut self) {
        if let Some(group) = self.0.take() {
            // It may have ended meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a command writes to one pipe, of which a little is kept.
struct Heard<P> {
    pipe: Option<P>,
    said: Vec<u8>,
}

impl<P: AsyncRead + Unpin> Heard<P> {
    fn from(pipe: Option<P>) -> Self {
        Self { pipe, said: Vec::new() }
    }

    /// Reads a little of it. Never ends once there is no more.
    async fn listen(&mut self) {
        let mut read = [0; 512];
        let Some(open) = &mut self.pipe else { return std::future::pending().await };
        match open.read(&mut read).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(length) => self.said.extend_from_slice(&read[..length.min(SAID_MAX - self.said.len())]),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said).trim_end().to_owned()
    }
}

impl Agents {
    /// These commands.
    pub(crate) fn new(commands: &BTreeMap<InstanceId, Vec<String>>) -> Self {
        Self(commands.iter().map(|(name, command)| (name.as_str().to_owned(), command.clone())).collect())
    }

    /// Runs the command that has the check's name and judges how it ended. The caller bounds the time, and kills whatever
    /// is still running by dropping this.
    pub(crate) async fn run(&self, asked: &Asked<'_>) -> Result<(), Fault> {
        let name = asked.check;
        let Some((program, arguments)) = self.0.get(name).and_then(|command| command.split_first()) else {
            return Err(Fault::Node { detail: format!("this node's configuration has no agent \"{name}\"") });
        };
        let host = &asked.address.host;
        let authority = Address { host: host.clone(), port: asked.port };
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| PATH.into()))
            .env("BATON_SERVICE", asked.of.0.as_str())
            .env("BATON_INSTANCE", asked.of.1.as_str())
            .env("BATON_ADDRESS", authority.to_string())
            .env("BATON_HOST", host)
            .env("BATON_PORT", asked.port.to_string())
            .env("BATON_CHECK", name)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // Whether there is such a program, and whether one more process may be, is this node's affair alone.
        let node =
            |doing: &str, error: io::Error| Fault::Node { detail: format!("agent \"{name}\": {doing}: {error}") };
        let mut child = command.spawn().map_err(|error| node("cannot be started", error))?;
        // Declared after the child, and so dropped before it: the group is killed while its number is still its own.
        let mut group = Group::of(&child);
        let (mut out, mut err) = (Heard::from(child.stdout.take()), Heard::from(child.stderr.take()));
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = out.listen() => {}
                () = err.listen() => {}
            }
        };
        // The child has just been waited for, so its number is free by the rules if its group is empty. Numbers are
        // handed out in turn, tens of thousands of them: none comes back between these two lines.
        group.kill();
        let status = status.map_err(|error| node("its end is not known", error))?;
        tracing::debug!(agent = name, service = %asked.of.0, instance = %asked.of.1, %status,
            out = out.text(), err = err.text(), "an agent ended");
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
