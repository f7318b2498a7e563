//! Instances to be managed: real HTTP servers in processes of their own, so that they can be killed and frozen.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::cluster::in_namespace;
use super::netns::Host;
use super::process::{BATON, Process, clean};
use super::{SOON, ports, until};

/// The port of an instance in a host of its own.
const HOST_PORT: u16 = 8080;

/// One instance.
pub(crate) struct Target {
    /// Its id as an instance.
    pub(crate) name: String,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    log: PathBuf,
    namespace: Option<String>,
    extra: Vec<String>,
    process: Process,
}

impl Target {
    /// A well server on loopback; `dir` gets its log.
    pub(crate) async fn start(name: &str, dir: &Path) -> Self {
        Self::with(name, dir, &[]).await
    }

    /// A server on loopback with switches of `baton example-server`.
    pub(crate) async fn with(name: &str, dir: &Path, extra: &[&str]) -> Self {
        let extra = extra.iter().map(|&arg| arg.to_owned()).collect();
        let target = Self::spawn(name, ports::free(), None, dir, extra);
        target.listening().await;
        target
    }

    /// A well server in a host of the namespace network.
    pub(crate) fn in_host(name: &str, host: &Host, dir: &Path) -> Self {
        Self::in_host_at(name, host, HOST_PORT, dir)
    }

    /// One of several well servers in one host.
    pub(crate) fn in_host_at(name: &str, host: &Host, port: u16, dir: &Path) -> Self {
        let address = SocketAddr::from((host.address, port));
        Self::spawn(name, address, Some(host.name.clone()), dir, Vec::new())
    }

    fn spawn(name: &str, address: SocketAddr, namespace: Option<String>, dir: &Path, extra: Vec<String>) -> Self {
        let log = dir.join(format!("target-{name}.log"));
        let process = run(name, address, namespace.as_deref(), &log, &extra);
        Self { name: name.to_owned(), address, log, namespace, extra, process }
    }

    async fn listening(&self) {
        until(SOON, &format!("server {} to listen", self.name), async || {
            tokio::net::TcpStream::connect(self.address).await.map(drop)
        })
        .await;
    }

    /// kill -9, and gone when this returns.
    pub(crate) fn kill9(&mut self) {
        self.process.kill9();
    }

    /// Frozen: the kernel still takes connections for it, nobody answers.
    pub(crate) fn freeze(&mut self) {
        self.process.signal(Signal::STOP);
    }

    /// Goes on where it was frozen.
    pub(crate) fn thaw(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Starts again at the same address.
    pub(crate) async fn revive(&mut self) {
        self.process = run(&self.name, self.address, self.namespace.as_deref(), &self.log, &self.extra);
        self.listening().await;
    }

    /// Its registration.
    pub(crate) fn registration(&self, priority: u32) -> Value {
        json!({"address": self.address.to_string(), "priority": priority})
    }
}

fn run(name: &str, address: SocketAddr, namespace: Option<&str>, log: &Path, extra: &[String]) -> Process {
    let mut command = match namespace {
        None => clean(BATON),
        Some(namespace) => in_namespace(namespace, BATON),
    };
    command.args(["example-server", "--listen", &address.to_string()]).args(extra);
    Process::start(&format!("server {name}"), command, log)
}

/// A spec whose checks notice quickly: http on /health, and no waiting between failovers.
pub(crate) fn watched() -> Value {
    json!({
        "checks": [{
            "name": "web", "type": "http", "path": "/health",
            "interval": "1s", "timeout": "500ms", "fast_interval": "200ms", "rise": 2, "fall": 3
        }],
        "recovery": {"strategy": "immediate"},
        "failover": {"min_interval": "0s", "max_in_window": 100}
    })
}

/// What DESIGN section 9 promises for [`watched`], from the death of the active to the news of the next: interval +
/// (fall - 1) x fast interval + 150 ms; each probe of a hanging instance takes its time-out on top.
pub(crate) fn promised(hanging: bool) -> Duration {
    let timeouts = if hanging { 3 * 500 } else { 0 };
    Duration::from_millis(1_000 + 2 * 200 + timeouts + 150)
}
