//! Committed writes per second on three real nodes, over the real HTTP API, at 1, 16, 64 and 256 clients, with the
//! disk's own fsync rate beside them.
//!
//! ```text
//! cargo bench -p baton --bench writes                      # every step, five seconds each, at the leader
//! cargo bench -p baton --bench writes -- --seconds 2 --clients 1,64 --spread
//! ```
//!
//! One write is one `PUT …/instances/…` that changes a registration: it is parsed, proposed, fsynced by a majority,
//! applied in a transaction and answered. Each client has one connection and waits for each answer before the next
//! write. Clients, nodes and disk share this machine; say so beside the figures.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

type Failure = Box<dyn Error + Send + Sync>;

/// Instances that each client writes in turn.
const INSTANCES_EACH: u64 = 8;
/// How long the cluster may take to come up.
const START_DEADLINE: Duration = Duration::from_secs(30);

struct Options {
    seconds: u64,
    clients: Vec<usize>,
    spread: bool,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options = Self { seconds: 5, clients: vec![1, 16, 64, 256], spread: false };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--seconds" => options.seconds = value()?.parse()?,
                "--clients" => options.clients = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--spread" => options.spread = true,
                "--bench" => {}
                other => return Err(format!("unknown option {other}: --seconds N, --clients 1,16, --spread").into()),
            }
        }
        Ok(options)
    }
}

/// Three daemons as child processes; ended when dropped.
struct Nodes {
    children: Vec<Child>,
    api: Vec<SocketAddr>,
    _dir: tempfile::TempDir,
}

impl Nodes {
    fn start() -> Result<Self, Failure> {
        let dir = tempfile::tempdir()?;
        let ports: Vec<TcpListener> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
        let addresses: Vec<SocketAddr> = ports.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        drop(ports);
        let (api, peers) = addresses.split_at(3);
        let cluster: Vec<String> = peers.iter().enumerate().map(|(at, peer)| format!("{}={peer}", at + 1)).collect();
        let mut nodes = Self { children: Vec::new(), api: api.to_vec(), _dir: dir };
        for (at, (listen, peer)) in api.iter().zip(peers).enumerate() {
            let data = nodes._dir.path().join(format!("node-{}", at + 1));
            let log = File::create(nodes._dir.path().join(format!("node-{}.log", at + 1)))?;
            let child = Command::new(env!("CARGO_BIN_EXE_baton"))
                .args(["serve", "--node-id", &(at + 1).to_string(), "--log", "warn"])
                .arg("--data-dir")
                .arg(data)
                .args(["--listen", &listen.to_string(), "--peer-listen", &peer.to_string()])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()?;
            nodes.children.push(child);
        }
        Ok(nodes)
    }

    /// The CPU seconds that all nodes have used, and the resident MiB of the largest, from /proc.
    fn usage(&self) -> (f64, u64) {
        let ticks = |child: &Child| -> Option<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        let resident = |child: &Child| -> Option<u64> {
            let status = File::open(format!("/proc/{}/status", child.id())).ok()?;
            let line = BufReader::new(status).lines().map_while(Result::ok).find(|line| line.starts_with("VmRSS:"))?;
            Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
        };
        // A clock tick is 1/100 s on every Linux that Rust runs on.
        let cpu = self.children.iter().filter_map(ticks).sum::<u64>() as f64 / 100.0;
        (cpu, self.children.iter().filter_map(resident).max().unwrap_or(0))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let socket = tokio::net::TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn call(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: String,
) -> Result<(StatusCode, Bytes), Failure> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}

/// Waits until every node is ready, and says which leads.
async fn ready(nodes: &Nodes) -> Result<usize, Failure> {
    let deadline = Instant::now() + START_DEADLINE;
    for api in &nodes.api {
        loop {
            if Instant::now() > deadline {
                return Err("the cluster did not become ready".into());
            }
            if let Ok(mut sender) = connect(*api).await
                && let Ok((StatusCode::OK, _)) = call(&mut sender, Method::GET, "/readyz", String::new()).await
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let (_, body) = call(&mut connect(nodes.api[0]).await?, Method::GET, "/v1/cluster", String::new()).await?;
    let cluster: serde_json::Value = serde_json::from_slice(&body)?;
    let leader = cluster["leader"].as_u64().ok_or("no leader in /v1/cluster")?;
    Ok(leader as usize - 1)
}

/// One client: writes until told to stop, and returns how long each write took, in microseconds.
async fn client(address: SocketAddr, id: usize, round: u64, stop: Arc<AtomicBool>) -> Result<Vec<u32>, Failure> {
    let mut sender = connect(address).await?;
    let mut took = Vec::with_capacity(1 << 14);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = format!("/v1/services/bench/instances/c{id}-{}", count % INSTANCES_EACH);
        // Each write differs from the one before it: one that changes nothing would make no event.
        let priority = (round * 300_000 + count / INSTANCES_EACH) % 1_000_000;
        let body = format!(r#"{{"address":"127.0.0.1:9","priority":{priority},"metadata":{{"client":"{id}"}}}}"#);
        let start = Instant::now();
        let (status, answer) = call(&mut sender, Method::PUT, &path, body).await?;
        if !status.is_success() {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into());
        }
        took.push(start.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
        count += 1;
    }
    Ok(took)
}

/// How many appends of 4 KiB with fdatasync the disk does in a second.
fn fsync_rate(dir: &Path) -> Result<f64, Failure> {
    let mut file = File::create(dir.join("fsync"))?;
    let block = [7u8; 4096];
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < Duration::from_secs(1) {
        file.write_all(&block)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn percentile(sorted: &[u32], share: f64) -> f64 {
    let at = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1));
    sorted.get(at - 1).map_or(f64::NAN, |us| f64::from(*us) / 1_000.0)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let nodes = Nodes::start()?;
    let leader = ready(&nodes).await?;
    println!("disk: {:.0} fdatasync/s of 4 KiB (alone, before the run)", fsync_rate(nodes._dir.path())?);
    println!(
        "three nodes, {} cores for nodes and clients together, clients at {}",
        std::thread::available_parallelism()?,
        if options.spread { "all nodes in turn" } else { "the leader" }
    );
    let mut sender = connect(nodes.api[leader]).await?;
    let (status, body) = call(&mut sender, Method::PUT, "/v1/services/bench", "{}".to_owned()).await?;
    if !status.is_success() {
        return Err(format!("cannot create the service: {status}: {}", String::from_utf8_lossy(&body)).into());
    }
    println!(
        "{:>8} {:>10} {:>9} {:>9} {:>9} {:>14} {:>9}",
        "clients", "writes/s", "p50 ms", "p99 ms", "max ms", "node CPU µs/w", "RSS MiB"
    );
    for (round, &clients) in options.clients.iter().enumerate() {
        let stop = Arc::new(AtomicBool::new(false));
        let tasks: Vec<_> = (0..clients)
            .map(|id| {
                let at = if options.spread { id % nodes.api.len() } else { leader };
                tokio::spawn(client(nodes.api[at], id, round as u64, stop.clone()))
            })
            .collect();
        let (cpu_before, _) = nodes.usage();
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        stop.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await??);
        }
        let elapsed = start.elapsed().as_secs_f64();
        let (cpu, resident) = nodes.usage();
        took.sort_unstable();
        let writes = took.len() as f64;
        println!(
            "{clients:>8} {:>10.0} {:>9.2} {:>9.2} {:>9.2} {:>14.0} {resident:>9}",
            writes / elapsed,
            percentile(&took, 0.50),
            percentile(&took, 0.99),
            percentile(&took, 1.0),
            (cpu - cpu_before) * 1e6 / writes,
        );
    }
    Ok(())
}
