//! How long a service is without an active that everybody knows: three real nodes, two `baton run`, a subscriber at each node.
//!
//! ```text
//! cargo bench -p baton --bench failover                       # 50 kills, 20 stops
//! cargo bench -p baton --bench failover -- --kills 200 --stops 50
//! ```
//!
//! *kill*: the active's child is killed with SIGKILL. Counted until the last of the three subscribers has been told of the new
//! active (`active.changed` with its token, on `GET /v1/watch`). The lease has its default length: what makes it quick is
//! that the supervisor sees the child's end and gives the token back.
//!
//! *stop*: the supervisor and its child are stopped with SIGSTOP, so that nobody can say anything; `ttl` is 500 ms. The new active
//! cannot be promoted before ttl × 1.03 has passed since the last renewal; counted from the stop.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::mpsc;

#[path = "../tests/support/ports.rs"]
mod ports;

type Failure = Box<dyn Error + Send + Sync>;

/// How long anything may take to come up or to settle.
const DEADLINE: Duration = Duration::from_secs(60);
/// The rest between two rounds: the one that was killed is started again, registers, and is a candidate.
const REST: Duration = Duration::from_millis(1_200);

struct Cluster {
    children: Vec<Child>,
    api: Vec<String>,
    dir: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let (api, peers): (Vec<_>, Vec<_>) = (0..3).map(|_| (ports::free(), ports::free())).unzip();
        let members: Vec<String> = peers.iter().enumerate().map(|(at, peer)| format!("{}={peer}", at + 1)).collect();
        let mut cluster =
            Self { children: Vec::new(), api: api.iter().map(|address| format!("http://{address}")).collect(), dir };
        for (at, (listen, peer)) in api.iter().zip(&peers).enumerate() {
            let id = (at + 1).to_string();
            let data = cluster.dir.path().join(format!("node-{id}"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
            command.args(["serve", "--node-id", &id, "--log", "warn", "--data-dir"]).arg(data);
            command.args(["--listen", &listen.to_string(), "--peer-listen", &peer.to_string()]);
            command.args(["--initial-cluster", &members.join(",")]);
            cluster.spawn(&format!("node-{id}"), command)?;
        }
        Ok(cluster)
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> Result<u32, Failure> {
        let log = File::create(self.dir.path().join(format!("{name}.log")))?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let id = child.id();
        self.children.push(child);
        Ok(id)
    }

    /// Starts `baton run` for an instance; its child writes down its own process id under its token, and waits.
    fn supervise(&mut self, service: &str, instance: &str) -> Result<u32, Failure> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(["--endpoint", &self.api.join(","), "run", "--service", service, "--instance", instance]);
        command.args(["--", "sh", "-c"]);
        command.arg(
            "echo $$ > \"$0.$BATON_TOKEN.new\" && mv \"$0.$BATON_TOKEN.new\" \"$0.$BATON_TOKEN\"; exec sleep 100000",
        );
        command.arg(self.dir.path().join(service));
        self.spawn(&format!("{service}-{instance}"), command)
    }

    /// Waits for the end of a supervisor whose child has ended; one that goes on all the same is told to end.
    fn ended(&mut self, supervisor: u32) -> Result<(), Failure> {
        let child = self.children.iter_mut().find(|child| child.id() == supervisor).ok_or("no such supervisor")?;
        let begun = Instant::now();
        while child.try_wait()?.is_none() {
            if begun.elapsed() > Duration::from_secs(3) {
                kill_process(pid(supervisor)?, Signal::TERM)?;
                child.wait()?;
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn paper(&self, service: &str, token: u64) -> PathBuf {
        self.dir.path().join(format!("{service}.{token}"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The supervisors first, in order: they take their children with them.
        for child in self.children.iter_mut().skip(3) {
            if matches!(child.try_wait(), Ok(Some(_))) {
                continue;
            }
            let _ = i32::try_from(child.id()).ok().and_then(Pid::from_raw).map(|pid| {
                let _ = kill_process(pid, Signal::CONT);
                kill_process(pid, Signal::TERM)
            });
            let _ = child.wait();
        }
        for child in self.children.iter_mut().take(3) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn pid(number: u32) -> Result<Pid, Failure> {
    i32::try_from(number).ok().and_then(Pid::from_raw).ok_or_else(|| format!("{number} is no process id").into())
}

/// The process id that the child of that token wrote down.
async fn child_of(paper: &Path) -> Result<Pid, Failure> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Ok(text) = std::fs::read_to_string(paper) {
            return pid(text.trim().parse()?);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Err(format!("no child wrote {}", paper.display()).into())
}

/// Somebody is active, as one subscriber was told.
#[derive(Debug)]
struct News {
    subscriber: usize,
    instance: String,
    token: u64,
    at: Instant,
}

/// Follows the service at one node.
async fn subscribe(
    subscriber: usize,
    api: String,
    service: &'static str,
    news: mpsc::UnboundedSender<News>,
    ready: Arc<AtomicU64>,
) -> Result<(), Failure> {
    let url = format!("{api}/v1/watch?service={service}&type=active.changed");
    let mut body = reqwest::Client::new().get(url).send().await?.error_for_status()?.bytes_stream();
    let mut text = String::new();
    while let Some(chunk) = body.next().await {
        let at = Instant::now();
        ready.fetch_or(1 << subscriber, Ordering::Relaxed);
        text.push_str(&String::from_utf8_lossy(&chunk?));
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            let Some(data) = line.strip_prefix("data:") else { continue };
            let Ok(event) = serde_json::from_str::<Value>(data.trim()) else { continue };
            if let (Some("active.changed"), Some(instance), Some(token)) =
                (event["type"].as_str(), event["to"].as_str(), event["token"].as_u64())
            {
                let _ = news.send(News { subscriber, instance: instance.to_owned(), token, at });
            }
        }
    }
    Err("the stream has ended".into())
}

/// The median, the 99th percentile and the worst, in milliseconds.
fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len()) - 1;
        times[index].as_secs_f64() * 1_000.0
    };
    println!("{what:<44} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>9.1}", times.len(), at(0.0), at(0.5), at(0.99), at(1.0));
}

struct Round {
    first: Duration,
    last: Duration,
}

/// Waits until all three subscribers know of an active with a higher token.
async fn everybody_knows(
    news: &mut mpsc::UnboundedReceiver<News>,
    after: u64,
    since: Instant,
) -> Result<(Round, String, u64), Failure> {
    let mut heard: [Option<Duration>; 3] = [None; 3];
    let (mut instance, mut token) = (String::new(), after);
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while heard.iter().any(Option::is_none) {
        let told = tokio::time::timeout_at(deadline, news.recv()).await?.ok_or("the subscribers are gone")?;
        if told.token > after {
            heard[told.subscriber].get_or_insert(told.at.saturating_duration_since(since));
            (instance, token) = (told.instance, told.token);
        }
    }
    let heard = || heard.iter().flatten().copied();
    let round = Round { first: heard().min().unwrap_or_default(), last: heard().max().unwrap_or_default() };
    Ok((round, instance, token))
}

async fn until_ready(client: &reqwest::Client, api: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Ok(answer) = client.get(format!("{api}/readyz")).send().await
            && answer.status() == 200
        {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err("a node does not get ready".into())
}

async fn play(service: &'static str, ttl: Option<&str>, rounds: usize, stop: bool) -> Result<(), Failure> {
    let mut cluster = Cluster::start()?;
    let client = reqwest::Client::new();
    for api in &cluster.api {
        until_ready(&client, api).await?;
    }
    let mut spec = json!({"failover": {"min_interval": "0s", "max_in_window": 1000}, "recovery": {"strategy": "immediate", "cooldown": "0s"}});
    if let Some(ttl) = ttl {
        spec["lease"] = json!({"ttl": ttl});
    }
    let url = format!("{}/v1/services/{service}", cluster.api[0]);
    client.put(&url).json(&spec).send().await?.error_for_status()?;
    let (sender, mut news) = mpsc::unbounded_channel();
    let ready = Arc::new(AtomicU64::new(0));
    for (at, api) in cluster.api.clone().into_iter().enumerate() {
        tokio::spawn(subscribe(at, api, service, sender.clone(), Arc::clone(&ready)));
    }
    let begun = Instant::now();
    while ready.load(Ordering::Relaxed) != 0b111 && begun.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut supervisors = [("a", cluster.supervise(service, "a")?), ("b", cluster.supervise(service, "b")?)];
    let (_, mut active, mut token) = everybody_knows(&mut news, 0, Instant::now()).await?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let child = child_of(&cluster.paper(service, token)).await?;
        tokio::time::sleep(REST).await;
        let (name, supervisor) = *supervisors.iter().find(|(name, _)| *name == active).ok_or("an unknown active")?;
        let since = Instant::now();
        if stop {
            kill_process(pid(supervisor)?, Signal::STOP)?;
            kill_process(child, Signal::STOP)?;
        } else {
            kill_process(child, Signal::KILL)?;
        }
        let (round, next, minted) = everybody_knows(&mut news, token, since).await?;
        first.push(round.first);
        last.push(round.last);
        if stop {
            // Its watchdog may have ended it already.
            let _ = kill_process(child, Signal::CONT);
            kill_process(pid(supervisor)?, Signal::CONT)?;
        }
        cluster.ended(supervisor)?;
        if let Some(of) = supervisors.iter_mut().find(|(other, _)| *other == name) {
            of.1 = cluster.supervise(service, name)?;
        }
        (active, token) = (next, minted);
    }
    let what = if stop { "SIGSTOP of the holder, ttl 500ms" } else { "kill -9 of the child" };
    told(&format!("{what}: the first knows"), first);
    told(&format!("{what}: all three know"), last);
    Ok(())
}

fn main() -> Result<ExitCode, Failure> {
    let (mut kills, mut stops) = (50, 20);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
        match arg.as_str() {
            "--kills" => kills = value()?.parse()?,
            "--stops" => stops = value()?.parse()?,
            "--bench" => {}
            other => return Err(format!("unknown option {other}: --kills N, --stops N").into()),
        }
    }
    println!("{:<44} {:>6} {:>9} {:>9} {:>9} {:>9}", "", "rounds", "best ms", "p50 ms", "p99 ms", "worst ms");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        if kills > 0 {
            play("kills", None, kills, false).await?;
        }
        if stops > 0 {
            play("stops", Some("500ms"), stops, true).await?;
        }
        Ok(ExitCode::SUCCESS)
    })
}
