//! Hosts as network namespaces: each has an address of its own on one switch, and a cable that can be pulled.
//!
//! Nothing touches the machine's own network: the switch is a bridge in a namespace too. Names carry the process id,
//! so that two runs never meet, and everything is deleted on drop. A node's own side of the cable keeps its address, so
//! the test, from a thread that has entered the namespace, can still ask a node that nobody else can reach.

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Networks made by this process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Set inside the user namespace that [`may_make_namespaces`] starts a test in.
const INSIDE: &str = "BATON_TESTS_INSIDE_USER_NAMESPACE";

/// A hardware address of the locally administered kind that no host here has.
const NOBODY: &str = "02:00:00:00:00:fe";

/// One host.
pub(crate) struct Host {
    /// Its namespace.
    pub(crate) name: String,
    /// Its address.
    pub(crate) address: Ipv4Addr,
    port: String,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Hosts on one switch.
pub(crate) struct Lan {
    switch: String,
    hosts: Vec<Host>,
}

impl Lan {
    /// `count` hosts that reach each other.
    pub(crate) fn new(count: u8) -> Self {
        let tag = format!("baton{}x{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let switch = format!("{tag}s");
        must(&["netns", "add", &switch]);
        let mut lan = Self { switch: switch.clone(), hosts: Vec::new() };
        must(&["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        must(&["-n", &switch, "link", "set", "br0", "up"]);
        for number in 1..=count {
            lan.add_host(&format!("{tag}h{number}"), number);
        }
        lan
    }

    fn add_host(&mut self, name: &str, number: u8) {
        let address = Ipv4Addr::new(10, 77, 0, number);
        let port = format!("port{number}");
        must(&["netns", "add", name]);
        // The host exists for `drop` from here on, even if the next step fails.
        let (runtime, stop, thread) = enter(name);
        let host = Host { name: name.to_owned(), address, port, runtime, stop: Some(stop), thread: Some(thread) };
        self.hosts.push(host);
        let port = &self.hosts[self.hosts.len() - 1].port;
        let switch = &self.switch;
        must(&["link", "add", port, "netns", switch, "type", "veth", "peer", "name", "eth0", "netns", name]);
        must(&["-n", switch, "link", "set", port, "master", "br0"]);
        must(&["-n", switch, "link", "set", port, "up"]);
        must(&["-n", name, "addr", "add", &format!("{address}/24"), "dev", "eth0"]);
        must(&["-n", name, "link", "set", "lo", "up"]);
        must(&["-n", name, "link", "set", "eth0", "up"]);
    }

    /// The hosts.
    pub(crate) fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of a node: node 1 lives in the first.
    pub(crate) fn host_of(&self, node: u64) -> &Host {
        &self.hosts[usize::try_from(node).expect("node ids here are small") - 1]
    }

    /// Pulls the cable of a node's host: what was on its way is lost, and nobody is told.
    pub(crate) fn cut(&self, node: u64) {
        must(&["-n", &self.switch, "link", "set", &self.host_of(node).port, "down"]);
    }

    /// Plugs it in again.
    pub(crate) fn heal(&self, node: u64) {
        must(&["-n", &self.switch, "link", "set", &self.host_of(node).port, "up"]);
    }

    /// Loses every packet from a node's host to another, and nothing else: it believes in a neighbour who is not there.
    pub(crate) fn lose(&self, from: u64, to: u64) {
        let (from, to) = (self.host_of(from), self.host_of(to).address.to_string());
        must(&["-n", &from.name, "neigh", "replace", &to, "lladdr", NOBODY, "dev", "eth0", "nud", "permanent"]);
    }

    /// Delivers them again.
    pub(crate) fn find(&self, from: u64, to: u64) {
        let (from, to) = (self.host_of(from), self.host_of(to).address.to_string());
        must(&["-n", &from.name, "neigh", "del", &to, "dev", "eth0"]);
    }
}

impl Host {
    /// The runtime of the thread inside: what is spawned there speaks from this host.
    pub(crate) fn runtime(&self) -> Handle {
        self.runtime.clone()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &mut self.hosts {
            if let Some(stop) = host.stop.take() {
                let _ = stop.send(());
            }
            if let Some(thread) = host.thread.take() {
                let _ = thread.join();
            }
            let _ = ip(&["netns", "del", &host.name]);
        }
        let _ = ip(&["netns", "del", &self.switch]);
    }
}

/// A thread inside the namespace with a runtime: sockets that are made there belong to that host.
fn enter(name: &str) -> (Handle, oneshot::Sender<()>, JoinHandle<()>) {
    let file = File::open(format!("/run/netns/{name}")).or_else(|_| File::open(format!("/var/run/netns/{name}")));
    let file = file.expect("ip netns add makes this file");
    let (stop, stopped) = oneshot::channel();
    let (tell, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .expect("a namespace made here can be entered");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _ = tell.send(runtime.handle().clone());
        let _ = runtime.block_on(stopped);
    });
    (told.recv().expect("the thread inside the namespace says where it is"), stop, thread)
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("no `ip` command: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn must(args: &[&str]) {
    ip(args).unwrap_or_else(|error| panic!("ip {}: {error}", args.join(" ")));
}

/// Whether `test` (its path, as `--exact` takes it) may go on here. As root it may; otherwise it is played in a user
/// namespace where that is allowed, by running this very test binary again inside one; else it is skipped aloud.
pub(crate) fn may_make_namespaces(test: &str) -> bool {
    let probe = format!("baton{}x{}p", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
    let why = match ip(&["netns", "add", &probe]) {
        Ok(()) => {
            let _ = ip(&["netns", "del", &probe]);
            return true;
        }
        Err(why) => why,
    };
    if std::env::var_os(INSIDE).is_none() && played_in_user_namespace(test) {
        return false;
    }
    assert!(std::env::var_os("BATON_TESTS_NO_SKIP").is_none(), "{test} cannot make network namespaces: {why}");
    // Past the test harness, which keeps what a passing test prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: cannot make network namespaces here: {why}");
    false
}

/// False where user namespaces are not to be had; the test's failure inside one is this test's failure.
fn played_in_user_namespace(test: &str) -> bool {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "--net"]);
        command
    };
    // `ip netns` keeps its names below /run, which only the real root may write to.
    let own_run = "mount -t tmpfs tmpfs /run && mkdir -p /run/netns && exec \"$@\"";
    let probe = unshare().args(["sh", "-c", own_run, "sh", "ip", "netns", "add", "probe"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return false;
    }
    let binary = std::env::current_exe().expect("a test knows its own binary");
    let mut command = unshare();
    command.args(["sh", "-c", own_run, "sh"]).arg(binary).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let output = command.output().expect("unshare was there a moment ago");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed inside its user namespace: {}", output.status);
    true
}

/// The injector itself: a connection can be made, hangs while the cable is out, and goes on when it is back.
#[test]
fn a_cable_can_be_pulled_and_plugged_in_again() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    if !may_make_namespaces("support::netns::a_cable_can_be_pulled_and_plugged_in_again") {
        return;
    }
    super::scenario(super::Load::Light, async {
        let lan = Lan::new(2);
        let address = (lan.host_of(1).address, 7400);
        let inside = |node: u64| lan.host_of(node).runtime();
        let listener = inside(1).spawn(async move { tokio::net::TcpListener::bind(address).await });
        let listener = listener.await.expect("a thread inside").expect("its own address can be bound");
        let echo = inside(1).spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a visitor");
            let (mut reader, mut writer) = socket.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
        let mut socket = inside(2).spawn(async move { tokio::net::TcpStream::connect(address).await });
        let mut socket = (&mut socket).await.expect("a thread inside").expect("the hosts reach each other");

        let mut answer = [0u8; 1];
        socket.write_all(b"1").await.expect("a byte");
        socket.read_exact(&mut answer).await.expect("its echo");
        lan.cut(1);
        socket.write_all(b"2").await.expect("the kernel keeps it");
        let silence = std::time::Duration::from_millis(500);
        assert!(tokio::time::timeout(silence, socket.read_exact(&mut answer)).await.is_err(), "through a pulled cable");
        lan.heal(1);
        let heard = tokio::time::timeout(super::SOON, socket.read_exact(&mut answer)).await;
        heard.expect("the connection goes on").expect("its echo");
        assert_eq!(answer, *b"2");
        drop(socket);
        let _ = echo.await;
    });
}
