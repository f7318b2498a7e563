//! Where the overlap is looked for: three nodes and two instances, each in a host of its own, a file that all share, a guard,
//! and clients that ask every node all the time who is active. The instances reach the nodes through the network only; the
//! file and the guard they reach always.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::book::{Book, Told, stale_answers};
use super::guard::Guard;
use super::record::{self, Counts};
use super::worker::{Orders, boot_ns};
use crate::support::cluster::{Cluster, in_namespace};
use crate::support::netns::Lan;
use crate::support::process::{BATON, Process};
use crate::support::{SOON, until, when};

/// The one service.
pub(super) const SERVICE: &str = "db";
/// Its instances.
const INSTANCES: [&str; 2] = ["a", "b"];
/// Set by whoever wants to see the history of a game that was well.
const KEEP: &str = "BATON_OVERLAP_KEEP";
/// Hosts before the instances' own.
const NODES: u64 = 3;
/// A line so old is one of a holder that works.
const FRESH: u64 = 60_000_000;
/// Instances that have ended are not missed for so long.
const RESTARTED_AFTER: Duration = Duration::from_secs(1);
/// How long all must be well.
const MOMENT: Duration = Duration::from_millis(200);
/// The pause between two questions of one client.
const ASKS: Duration = Duration::from_millis(40);

/// How an instance keeps its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    /// As the child of `baton run`.
    Run,
    /// By itself.
    Itself,
}

/// One instance.
pub(super) struct Instance {
    /// Its id.
    pub(super) id: &'static str,
    /// Its host's number.
    pub(super) host: u64,
    /// `baton run`, or the worker itself.
    pub(super) process: Process,
}

/// All of it.
pub(super) struct Stage {
    // The first fields end first: nobody writes any more when the directory goes.
    pub(super) instances: Vec<Instance>,
    asking: JoinSet<()>,
    pub(super) cluster: Cluster,
    pub(super) lan: Lan,
    pub(super) book: Book,
    pub(super) guard: Guard,
    told: Arc<Mutex<Vec<Told>>>,
    keeper: Keeper,
    /// The lease's length.
    pub(super) ttl: Duration,
    orders: Orders,
    diary: File,
    dir: TempDir,
}

impl Stage {
    /// Sets it up, with a first active that works.
    pub(super) async fn set(keeper: Keeper, ttl: Duration) -> Self {
        Self::set_with(keeper, ttl, |_| Vec::new()).await
    }

    /// The same, with this in the environment of each node.
    pub(super) async fn set_with(keeper: Keeper, ttl: Duration, env: impl Fn(u64) -> Vec<(String, String)>) -> Self {
        let lan = Lan::new(5);
        let cluster = Cluster::in_hosts_with(&lan, usize::try_from(NODES).expect("three"), env).await;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let orders = Orders { history: dir.path().join("history"), guard: dir.path().join("guard") };
        File::create(&orders.history).expect("a file");
        let diary = OpenOptions::new().create(true).append(true).open(dir.path().join("diary")).expect("a file");
        let guard = Guard::at(&orders.guard);
        cluster.api(1).put(&format!("/v1/services/{SERVICE}"), &spec(ttl)).await.done();
        let book = Book::of(&orders.history);
        let told = Arc::default();
        let mut asking = JoinSet::new();
        for node in cluster.ids() {
            asking.spawn(ask(cluster.api(node).clone(), node, Arc::clone(&told)));
        }
        let mut stage =
            Self { instances: Vec::new(), asking, cluster, lan, book, guard, told, keeper, ttl, orders, diary, dir };
        for (id, host) in INSTANCES.into_iter().zip(NODES + 1..) {
            let process = stage.process(id, host);
            stage.instances.push(Instance { id, host, process });
        }
        stage.settled().await;
        stage
    }

    /// Another process for an instance, in this host.
    pub(super) fn process(&self, id: &str, host: u64) -> Process {
        let namespace = &self.lan.host_of(host).name;
        let endpoints: Vec<&str> = self.cluster.ids().into_iter().map(|node| self.cluster.api(node).base()).collect();
        let worker = Orders::command();
        let command = match self.keeper {
            Keeper::Run => {
                let mut command = in_namespace(namespace, BATON);
                command.args(["run", "--service", SERVICE, "--instance", id, "--endpoint", &endpoints.join(","), "--"]);
                command.args(worker);
                self.orders.give(&mut command);
                command
            }
            Keeper::Itself => {
                let mut command = in_namespace(namespace, &worker[0]);
                command.args(&worker[1..]);
                self.orders.give_alone(&mut command, id, &endpoints.join(","));
                command
            }
        };
        Process::start(&format!("instance {id}"), command, &self.dir.path().join(format!("instance-{id}.log")))
    }

    /// After this a lease surely has ended: DESIGN section 5, with no delay.
    pub(super) fn wait(&self) -> Duration {
        self.ttl.mul_f64(1.03)
    }

    /// Writes down what is done, with the time of the lines.
    pub(super) fn note(&mut self, what: &str) {
        writeln!(self.diary, "{} {what}", boot_ns()).expect("a line in the diary");
    }

    /// Reads what is new in the history; the holder by the newest line.
    pub(super) fn holder(&mut self) -> Option<Holder> {
        self.book.read();
        let (at, tenure) = self.book.newest()?;
        let host = self.instances.iter().find(|it| it.id == tenure.instance).map(|it| it.host)?;
        Some(Holder { token: tenure.token, id: tenure.instance.clone(), pid: tenure.pid, host, at })
    }

    /// Waits for a line of a higher token. Where none comes for a while, whoever has ended is started again, as a service
    /// manager does.
    pub(super) async fn next_holder(&mut self, after: &Holder) -> Holder {
        let (token, begun) = (after.token, Instant::now());
        let next = until(SOON, &format!("a holder after token {token}"), async || {
            if begun.elapsed() > RESTARTED_AFTER {
                self.revive();
            }
            let holder = self.holder().ok_or_else(|| "nobody ever wrote".to_owned())?;
            // The cause, before what follows from it.
            let breaches = self.book.breaches();
            assert!(breaches.is_empty(), "{breaches:#?}");
            when(holder.token > token, holder).map_err(|holder| format!("{holder:?}"))
        })
        .await;
        self.note(&format!("seen: {next:?}"));
        next
    }

    /// Starts again whoever has ended; whether anybody had.
    fn revive(&mut self) -> bool {
        let mut any = false;
        for index in 0..self.instances.len() {
            let Instance { id, host, .. } = self.instances[index];
            if let Some(how) = self.instances[index].process.ended() {
                self.note(&format!("{id} had ended, {how}, and is started again"));
                self.instances[index].process = self.process(id, host);
                any = true;
            }
        }
        any
    }

    /// Everything is as it should be, and stays so for a moment: all nodes ready and of one mind, all instances well, somebody
    /// works.
    pub(super) async fn settled(&mut self) {
        for id in self.cluster.ids() {
            self.cluster.ready(id).await;
        }
        let (leader, _) = self.cluster.leader().await;
        loop {
            self.revive();
            for Instance { id, .. } in &self.instances {
                self.cluster.health(leader, SERVICE, id, "healthy").await;
            }
            until(SOON, "somebody to work", async || {
                let holder = self.holder();
                let works = holder.as_ref().is_some_and(|holder| boot_ns().saturating_sub(holder.at) < FRESH);
                when(works, holder)
            })
            .await;
            // A supervisor whose child has just died is about to end.
            tokio::time::sleep(MOMENT).await;
            if self.instances.iter_mut().all(|it| it.process.ended().is_none()) {
                return;
            }
        }
    }

    /// A process of this host that is the instance's own, or was started by it.
    pub(super) fn family(&self, index: usize) -> Vec<u32> {
        let mut family = vec![self.instances[index].process.number()];
        // Children are looked for until no more are found; each has a parent that is found before it.
        loop {
            let more: Vec<u32> = parents()
                .filter(|(pid, parent)| family.contains(parent) && !family.contains(pid))
                .map(|(pid, _)| pid)
                .collect();
            if more.is_empty() {
                return family;
            }
            family.extend(more);
        }
    }

    /// Stops processes.
    pub(super) fn stop(&mut self, pids: &[u32]) {
        for pid in pids {
            self.book.stops(*pid);
            signal(*pid, Signal::STOP);
        }
    }

    /// Wakes them.
    pub(super) fn wake(&mut self, pids: &[u32]) {
        self.book.read();
        for pid in pids {
            self.book.wakes(*pid, boot_ns());
            signal(*pid, Signal::CONT);
        }
    }

    /// Fails the test if the history has anything that must not be.
    #[track_caller]
    pub(super) fn judge(&mut self) {
        self.book.read();
        let tried = self.guard.since(self.book.tried());
        self.book.guarded(&tried);
        let mut breaches = self.book.breaches();
        breaches.extend(stale_answers(&self.told.lock().unwrap_or_else(PoisonError::into_inner)));
        assert!(breaches.is_empty(), "{breaches:#?}");
    }

    /// The end: the cluster's own record against the history, and all nodes against each other.
    pub(super) async fn account(&mut self) -> Counts {
        self.judge();
        let api = self.cluster.api(1);
        let transitions = api.all(&format!("/v1/transitions?service={SERVICE}")).await;
        let events = api.all(&format!("/v1/events?after=0&service={SERVICE}&type=active.changed")).await;
        self.book.read();
        let counts = record::check(&transitions, &events, self.book.tenures(), record::OF_LEASES);
        self.cluster.same_state_everywhere().await;
        counts.unwrap_or_else(|breaches| panic!("{breaches:#?}"))
    }

    /// How many answers were taken down.
    pub(super) fn answers(&self) -> usize {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn keep(&mut self) -> std::io::Result<PathBuf> {
        for file in std::fs::read_dir(self.cluster.dir())? {
            let path = file?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                std::fs::copy(&path, self.dir.path().join(name))?;
            }
        }
        let mut tried = File::create(self.dir.path().join("guarded"))?;
        for it in self.guard.since(0) {
            writeln!(
                tried,
                "{} {} {} {}",
                it.at,
                it.token,
                it.pid,
                if it.accepted() { "accepted" } else { "refused" }
            )?;
        }
        self.dir.disable_cleanup(true);
        Ok(self.dir.path().to_owned())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.asking.abort_all();
        if std::thread::panicking() || std::env::var_os(KEEP).is_some() {
            match self.keep() {
                Ok(path) => println!("the history, the diary of faults and all logs are kept in {}", path.display()),
                Err(error) => println!("the history cannot be kept: {error}"),
            }
        }
    }
}

/// The service's spec: what notices quickly, and no waiting between moves.
pub(super) fn spec(ttl: Duration) -> Value {
    json!({
        "lease": {"ttl": format!("{}ms", ttl.as_millis())},
        "checks": [{"type": "heartbeat", "interval": "100ms", "fall": 3, "timeout": "200ms"}],
        "recovery": {"strategy": "immediate", "cooldown": "0s"},
        "failover": {"min_interval": "0s", "max_in_window": 1000, "window": "1s"}
    })
}

/// Who wrote the newest line.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub(super) token: u64,
    pub(super) id: String,
    pub(super) pid: u32,
    pub(super) host: u64,
    /// When it wrote it.
    pub(super) at: u64,
}

/// Sends a signal; a process that has gone meanwhile needs none.
pub(super) fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    let _ = kill_process(pid, signal);
}

/// Every process of this machine with its parent.
fn parents() -> impl Iterator<Item = (u32, u32)> {
    std::fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(Path::new("/proc").join(format!("{pid}/stat"))).ok()?;
        // Behind the name, which may have any character in it: the state, then the parent.
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}

/// Asks one node all the time who is active.
async fn ask(api: crate::support::http::Api, node: u64, told: Arc<Mutex<Vec<Told>>>) {
    let path = format!("/v1/services/{SERVICE}/active");
    loop {
        let asked = boot_ns();
        let begun = Instant::now();
        if let Ok(answer) = api.call(Method::GET, &path).send(Duration::from_secs(3)).await
            && let (200, Some(token)) = (answer.status, answer.json["token"].as_u64())
        {
            let told_now = Told { node, asked, answered: boot_ns(), token };
            told.lock().unwrap_or_else(PoisonError::into_inner).push(told_now);
        }
        tokio::time::sleep(ASKS.saturating_sub(begun.elapsed())).await;
    }
}
