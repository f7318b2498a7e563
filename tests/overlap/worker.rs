//! The worker: this test binary started again, as the child of `baton run` or as a program that keeps its lease itself. It does
//! what must never be done by two at once: it writes to a file that everybody shares, every two milliseconds, whoever it is and
//! whatever the others do. Before its first line it presents its token to the guard, and then with every line.
//!
//! A line is `<CLOCK_BOOTTIME in ns> <instance> <token> <pid>`; the time is read just before the write. All hosts are namespaces
//! of one machine, so there is one clock. A worker that is refused by the guard goes on: it is the careless kind.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use super::stage::SERVICE;

/// The shared file.
const HISTORY: &str = "OVERLAP_HISTORY";
/// The guard's socket.
const GUARD: &str = "OVERLAP_GUARD";
/// Where the cluster is, for a worker that keeps its lease itself.
const ENDPOINTS: &str = "OVERLAP_ENDPOINTS";
/// Its instance, likewise.
const INSTANCE: &str = "OVERLAP_INSTANCE";
/// The pause between two lines.
const PACE: Duration = Duration::from_millis(2);
/// How often a worker that keeps its lease itself asks for more of it: five times within the shortest lease used here.
const BEAT: Duration = Duration::from_millis(100);
/// How long it waits for one answer.
const ANSWER: Duration = Duration::from_millis(150);

/// `CLOCK_BOOTTIME` in nanoseconds.
pub(super) fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let part = |value: i64| u64::try_from(value).expect("a clock that counts from the start of the machine");
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// What a worker must know.
#[derive(Clone, Debug)]
pub(super) struct Orders {
    /// The shared file.
    pub(super) history: PathBuf,
    /// The guard's socket.
    pub(super) guard: PathBuf,
}

impl Orders {
    /// The command line of a worker, its program first.
    pub(super) fn command() -> Vec<String> {
        let binary = std::env::current_exe().expect("a test knows its own binary").display().to_string();
        let words = ["overlap::worker", "--exact", "--ignored", "--nocapture"];
        std::iter::once(binary).chain(words.map(str::to_owned)).collect()
    }

    /// Hands them to `command`, whose child may be the worker.
    pub(super) fn give(&self, command: &mut Command) {
        command.env(HISTORY, &self.history).env(GUARD, &self.guard);
    }

    /// The same for a worker that keeps its lease itself.
    pub(super) fn give_alone(&self, command: &mut Command, instance: &str, endpoints: &str) {
        self.give(command);
        command.env(INSTANCE, instance).env(ENDPOINTS, endpoints);
    }
}

/// Works until it is killed. Without orders, as when somebody runs all ignored tests, it has nothing to do.
pub(super) fn work() {
    let (Some(history), Some(guard)) = (std::env::var_os(HISTORY), std::env::var_os(GUARD)) else { return };
    let mut desk = Desk::open(&Orders { history: history.into(), guard: guard.into() });
    let said = |name: &str| std::env::var(name).ok();
    match (said(INSTANCE), said(ENDPOINTS)) {
        (Some(instance), Some(endpoints)) => alone(&mut desk, &instance, &endpoints),
        _ => {
            let token = said("BATON_TOKEN").and_then(|token| token.parse().ok()).expect("baton run gives a token");
            let instance = said("BATON_INSTANCE").expect("baton run gives its instance's name");
            desk.present(token);
            loop {
                desk.write(&instance, token);
                std::thread::sleep(PACE);
            }
        }
    }
}

/// The file and the guard.
struct Desk {
    file: std::fs::File,
    guard: BufReader<UnixStream>,
}

impl Desk {
    fn open(orders: &Orders) -> Self {
        let file = OpenOptions::new().append(true).open(&orders.history).expect("the shared file");
        let guard = BufReader::new(UnixStream::connect(&orders.guard).expect("the guard"));
        Self { file, guard }
    }

    /// Does something to the guarded resource. What it says is in its own book.
    fn present(&mut self, token: u64) {
        let told = format!("{token} {}\n", std::process::id());
        self.guard.get_mut().write_all(told.as_bytes()).expect("the guard lives as long as the test");
        self.guard.read_line(&mut String::new()).expect("an answer");
    }

    /// One line in one write, which the kernel adds to the file whole.
    fn write(&mut self, instance: &str, token: u64) {
        let line = format!("{} {instance} {token} {}\n", boot_ns(), std::process::id());
        self.file.write_all(line.as_bytes()).expect("a line in the shared file");
        self.present(token);
    }
}

/// A lease: the token, and when it ends by the clock of the lines.
type Lease = Option<(u64, u64)>;

/// A program that keeps its lease itself, written from the lease rule and not from Baton's library: the lease counts from just
/// before the request was sent, and is looked at before every single write.
fn alone(desk: &mut Desk, instance: &str, endpoints: &str) {
    let lease: Arc<Mutex<Lease>> = Arc::default();
    let asks = lease.clone();
    let (instance, endpoints) = (instance.to_owned(), endpoints.to_owned());
    let name = instance.clone();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(keep(&asks, &instance, &endpoints));
    });
    let mut presented = 0;
    loop {
        let held = *lease.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = held
            && boot_ns() < until
        {
            if token != presented {
                presented = token;
                desk.present(token);
                continue;
            }
            desk.write(&name, token);
        }
        std::thread::sleep(PACE);
    }
}

/// Registers and renews, at one endpoint after the other; ends when another has registered in its place.
async fn keep(lease: &Mutex<Lease>, instance: &str, endpoints: &str) {
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let path = format!("/v1/services/{SERVICE}/instances/{instance}");
    let mut at = 0;
    let mut session = Value::Null;
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        let base = format!("{}{path}", endpoints[at % endpoints.len()]);
        let sent = boot_ns();
        let asked = if session.is_null() {
            client.put(base).json(&json!({"liveness": "heartbeat"})).timeout(ANSWER * 10)
        } else {
            client.post(format!("{base}/heartbeat")).json(&json!({"session": session})).timeout(ANSWER)
        };
        let answered = match asked.send().await {
            Ok(answer) => (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default()),
            Err(_) => (0, Value::Null),
        };
        match answered {
            (409, told) if told["code"] == "unknown_session" => {
                *lease.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return;
            }
            (200 | 201, told) if session.is_null() => session = told["session"].clone(),
            (200, told) => {
                let granted = (told["token"].as_u64(), told["lease_ms"].as_u64());
                let mut held = lease.lock().unwrap_or_else(PoisonError::into_inner);
                *held = match (told["role"].as_str(), granted) {
                    (Some("active"), (Some(token), Some(ms))) => Some((token, sent + ms * 1_000_000)),
                    _ => None,
                };
            }
            // Deregistered, and its service perhaps too: it comes again, and what lease it has runs to its end.
            (404, _) => session = Value::Null,
            // Nobody there, or nobody who may speak: another is asked.
            _ => at += 1,
        }
    }
}
