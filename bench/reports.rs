//! Reported calls per second on one of three real nodes, over the real HTTP API, in batches of 1,000, and what each costs.
//!
//! ```text
//! cargo bench -p baton --bench reports                     # 100,000 a second to each node in turn, then as fast as it goes
//! cargo bench -p baton --bench reports -- --seconds 3 --rate 50000 --instances 1000
//! ```
//!
//! One report is `{"instance", "status", "latency_ms"}`; every tenth failed. Breakers are told not to open, so that what is
//! measured is the way of a report: read, summed, told to the leader, judged. Each client has one connection and waits for
//! each answer. Clients and nodes share this machine; the CPU time told is the nodes' alone, from /proc.

use std::error::Error;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
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

/// Reports in one body.
const BATCH: usize = 1_000;
/// Bodies that are sent in turn.
const BODIES: usize = 16;
/// How long the cluster may take to come up.
const START_DEADLINE: Duration = Duration::from_secs(30);

struct Options {
    seconds: u64,
    rate: u64,
    instances: usize,
}

impl Options {
    fn parse() -> Result<Self, Failure> {
        let mut options = Self { seconds: 5, rate: 100_000, instances: 20 };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} wants a value"));
            match arg.as_str() {
                "--seconds" => options.seconds = value()?.parse()?,
                "--rate" => options.rate = value()?.parse()?,
                "--instances" => options.instances = value()?.parse()?,
                "--bench" => {}
                other => return Err(format!("unknown option {other}: --seconds N, --rate N, --instances N").into()),
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

    /// The CPU seconds that a node has used, from /proc.
    fn cpu(&self, node: usize) -> f64 {
        let ticks = || -> Option<u64> {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.children.get(node)?.id())).ok()?;
            let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
            Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
        };
        // A clock tick is 1/100 s on every Linux that Rust runs on.
        ticks().unwrap_or_default() as f64 / 100.0
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
    body: Bytes,
) -> Result<(StatusCode, Bytes), Failure> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    sender.ready().await?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().collect().await?.to_bytes()))
}

async fn must(
    sender: &mut SendRequest<Full<Bytes>>,
    method: Method,
    path: &str,
    body: String,
) -> Result<Bytes, Failure> {
    let (status, answer) = call(sender, method, path, body.into()).await?;
    if status.is_success() { Ok(answer) } else { Err(format!("{path}: {status}: {answer:?}").into()) }
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
                && let Ok((StatusCode::OK, _)) = call(&mut sender, Method::GET, "/readyz", Bytes::new()).await
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let mut sender = connect(nodes.api[0]).await?;
    let cluster: serde_json::Value =
        serde_json::from_slice(&must(&mut sender, Method::GET, "/v1/cluster", String::new()).await?)?;
    Ok(cluster["leader"].as_u64().ok_or("no leader in /v1/cluster")? as usize - 1)
}

/// Bodies of [`BATCH`] reports: instances in turn, latencies that differ, every tenth a failure.
fn bodies(instances: usize) -> Vec<Bytes> {
    let report = |n: usize| {
        let (instance, status) = (n % instances, if n.is_multiple_of(10) { 503 } else { 200 });
        format!(r#"{{"instance":"i-{instance}","status":{status},"latency_ms":{}.{}}}"#, 1 + n * 7 % 90, n % 10)
    };
    let body = |at: usize| {
        let reports: Vec<String> = (at * BATCH..(at + 1) * BATCH).map(report).collect();
        Bytes::from(format!(r#"{{"reports":[{}]}}"#, reports.join(",")))
    };
    (0..BODIES).map(body).collect()
}

/// Sends bodies one after the other, at most one every `pause`; how many, and how long each took in microseconds.
async fn client(
    address: SocketAddr,
    bodies: Arc<Vec<Bytes>>,
    pause: Duration,
    stop: Arc<AtomicBool>,
) -> Result<Vec<u32>, Failure> {
    let mut sender = connect(address).await?;
    let mut took = Vec::new();
    let mut due = tokio::time::Instant::now();
    for body in bodies.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        tokio::time::sleep_until(due).await;
        due += pause;
        let start = Instant::now();
        let (status, answer) = call(&mut sender, Method::POST, "/v1/services/bench/reports", body.clone()).await?;
        // Nothing may have been dropped: what is measured would be something else.
        if status != StatusCode::ACCEPTED || !answer.ends_with(br#""dropped_total":0}"#) {
            return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into());
        }
        took.push(start.elapsed().as_micros().min(u128::from(u32::MAX)) as u32);
    }
    Ok(took)
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
    let follower = (leader + 1) % nodes.api.len();
    let mut sender = connect(nodes.api[leader]).await?;
    let never = r#"{"breaker":{"consecutive_failures":1000000,"error_rate":1.0}}"#.to_owned();
    must(&mut sender, Method::PUT, "/v1/services/bench", never).await?;
    for instance in 0..options.instances {
        let path = format!("/v1/services/bench/instances/i-{instance}");
        must(&mut sender, Method::PUT, &path, r#"{"address":"127.0.0.1:9"}"#.to_owned()).await?;
    }
    let bodies = Arc::new(bodies(options.instances));
    println!(
        "three nodes, {} cores for nodes and clients together, {} instances, batches of {BATCH} ({} bytes)",
        std::thread::available_parallelism()?,
        options.instances,
        bodies[0].len()
    );
    println!(
        "{:<26} {:>10} {:>8} {:>8} {:>15} {:>17}",
        "clients at", "reports/s", "p50 ms", "p99 ms", "its CPU, cores", "leader's, cores"
    );
    // A body each so often from one client; or, with no pause, from two at once.
    let pause = Duration::from_secs_f64(BATCH as f64 / options.rate.max(1) as f64);
    let paced = format!("{}/s", options.rate);
    for (what, at, clients, pause) in [
        (format!("the leader, {paced}"), leader, 1, pause),
        (format!("a follower, {paced}"), follower, 1, pause),
        ("the leader, unpaced".to_owned(), leader, 2, Duration::ZERO),
        ("a follower, unpaced".to_owned(), follower, 2, Duration::ZERO),
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let address = nodes.api[at];
        let tasks: Vec<_> =
            (0..clients).map(|_| tokio::spawn(client(address, bodies.clone(), pause, stop.clone()))).collect();
        let (own, leads) = (nodes.cpu(at), nodes.cpu(leader));
        let start = Instant::now();
        tokio::time::sleep(Duration::from_secs(options.seconds)).await;
        stop.store(true, Ordering::Relaxed);
        let mut took = Vec::new();
        for task in tasks {
            took.extend(task.await??);
        }
        let elapsed = start.elapsed().as_secs_f64();
        let (own, leads) = (nodes.cpu(at) - own, nodes.cpu(leader) - leads);
        took.sort_unstable();
        println!(
            "{what:<26} {:>10.0} {:>8.2} {:>8.2} {:>15.2} {:>17.2}",
            took.len() as f64 * BATCH as f64 / elapsed,
            percentile(&took, 0.50),
            percentile(&took, 0.99),
            own / elapsed,
            leads / elapsed,
        );
    }
    Ok(())
}
