//! What probing costs: CPU seconds per 1,000 HTTP checks and the memory of one real node, with an interval of one second.
//!
//! ```text
//! cargo bench -p baton --bench probes                                   # 1,000 and 5,000 instances, 30 seconds each
//! cargo bench -p baton --bench probes -- --instances 1000 --seconds 10
//! ```
//!
//! One node and one server, each a process of its own, on this machine. All instances are at the server's address: to the
//! prober they are different instances with their own connections. What is counted is the node's own time, user and
//! system, from `/proc`; the server's is its own. A node with no instances at all is measured too: the rest of the figure
//! is what probing adds.

use std::error::Error;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

type Failure = Box<dyn Error + Send + Sync>;

/// How long anything may take to come up.
const DEADLINE: Duration = Duration::from_secs(120);
/// Registrations under way at once.
const AT_ONCE: usize = 32;
/// The kernel counts a process' time in hundredths of a second (`USER_HZ`, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

struct Options {
    seconds: u64,
    instances: Vec<usize>,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options = Self { seconds: 30, instances: vec![1_000, 5_000] };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--seconds" => options.seconds = value()?.parse()?,
                "--instances" => options.instances = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--bench" => {}
                other => return Err(format!("unknown option {other}: --seconds N, --instances 1000,5000").into()),
            }
        }
        Ok(options)
    }
}

/// A child process; ended when dropped.
struct Running(Child);

impl Running {
    fn start(args: &[&str], log: &Path) -> Result<Self, Failure> {
        let log = File::create(log)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn()?))
    }

    /// User and system time so far, in seconds.
    fn cpu(&self) -> Result<f64, Failure> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name in brackets may hold anything; the numbers come behind it, utime and stime as the 12th and 13th.
        let numbers = stat.rsplit_once(')').ok_or("no name in stat")?.1;
        let ticks: f64 = numbers.split_whitespace().skip(11).take(2).map(|field| field.parse().unwrap_or(0.0)).sum();
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Resident memory, in MiB.
    fn memory(&self) -> Result<u64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).ok_or("no number")?.parse()?;
        Ok(kib / 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> Result<String, Failure> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}

async fn put(client: &reqwest::Client, url: String, body: Value) -> Result<(), Failure> {
    let answer = client.put(&url).json(&body).send().await?;
    let status = answer.status();
    if status.is_success() { Ok(()) } else { Err(format!("{url}: {status} {}", answer.text().await?).into()) }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let begun = Instant::now();
    while !holds().await.unwrap_or(false) {
        if begun.elapsed() > DEADLINE {
            return Err(format!("waited {DEADLINE:?} for {what}").into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// The sum of a counter over its labels, and over those of them that say `success`.
async fn probes(client: &reqwest::Client, base: &str) -> Result<(f64, f64), Failure> {
    let text = client.get(format!("{base}/metrics")).send().await?.text().await?;
    let lines = text.lines().filter(|line| line.starts_with("baton_probes_total{"));
    Ok(lines.fold((0.0, 0.0), |(all, good), line| {
        let value: f64 = line.rsplit(' ').next().and_then(|value| value.parse().ok()).unwrap_or(0.0);
        (all + value, if line.contains("outcome=\"success\"") { good + value } else { good })
    }))
}

async fn measure(instances: usize, seconds: u64) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let (listen, peer, target) = (free_port()?, free_port()?, free_port()?);
    let server = Running::start(&["example-server", "--listen", &target], &dir.path().join("server.log"))?;
    let data = dir.path().join("data").display().to_string();
    let node = Running::start(
        &["serve", "--data-dir", &data, "--listen", &listen, "--peer-listen", &peer, "--log", "warn"],
        &dir.path().join("node.log"),
    )?;
    let (client, base) = (reqwest::Client::new(), format!("http://{listen}"));
    until("the node to be ready", async || Ok(client.get(format!("{base}/readyz")).send().await?.status() == 200))
        .await?;
    let check = json!({"type": "http", "path": "/health", "interval": "1s", "timeout": "500ms"});
    // Services of a hundred, so that no single answer is of unusual size.
    for service in 0..instances.div_ceil(100) {
        let spec = json!({"mode": "active_active", "checks": [check]});
        put(&client, format!("{base}/v1/services/s{service}"), spec).await?;
    }
    let registrations = (0..instances).map(|at| {
        let url = format!("{base}/v1/services/s{}/instances/i{at}", at / 100);
        put(&client, url, json!({"address": target}))
    });
    let registered: Vec<Result<(), Failure>> = stream::iter(registrations).buffer_unordered(AT_ONCE).collect().await;
    registered.into_iter().collect::<Result<Vec<()>, Failure>>()?;
    // Settled: all known, nobody probed at the fast pace any more.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (cpu, served, (all, good)) = (node.cpu()?, server.cpu()?, probes(&client, &base).await?);
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let took = begun.elapsed().as_secs_f64();
    let (cpu, served) = (node.cpu()? - cpu, server.cpu()? - served);
    let (all, good) = probes(&client, &base).await.map(|(a, g)| (a - all, g - good))?;
    let per_thousand = if all > 0.0 { format!("{:.4}", cpu / all * 1_000.0) } else { "-".to_owned() };
    println!(
        "{instances:>9}  {:>8.0}  {:>8.1} %  {:>10}  {:>8} MiB  {:>7.1} %  {:>6.0}",
        all / took,
        cpu / took * 100.0,
        per_thousand,
        node.memory()?,
        served / took * 100.0,
        all - good
    );
    Ok(())
}

fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("instances  checks/s  node's CPU  s per 1,000  memory (RSS)  server's  failed");
    runtime.block_on(async {
        for instances in std::iter::once(0).chain(options.instances) {
            measure(instances, options.seconds).await?;
        }
        Ok(())
    })
}
