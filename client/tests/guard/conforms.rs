//! The guards and the examples keep every rule of the conformance run, over real restarts.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use baton_client::guard::conformance::{
    self, HttpResource, Method, Options, Outcome, Report, Resource, Rule, Standing, Unanswered,
};
use baton_client::guard::{FileGuard, Guard, GuardError};
use baton_core::id::Token;
use tokio::sync::RwLock;
use tokio::task::spawn_blocking;

use crate::child::{Process, SOON, until};
use crate::guarded_sqlite::Database;

/// Less than by default, since each write waits for a disk.
fn options() -> Options {
    Options { steps: 100, rounds: 8, answer_within: SOON, ..Options::default() }
}

async fn passes<R: Resource>(resource: R) -> Report {
    conformance::run(Arc::new(resource), options()).await.unwrap_or_else(|failure| panic!("{failure}"))
}

fn skipped(report: &Report) -> Vec<Rule> {
    report.skipped.iter().map(|(rule, _)| *rule).collect()
}

fn failed(error: impl std::fmt::Display) -> Unanswered {
    Unanswered::silent(error.to_string())
}

/// A number in memory with a `FileGuard` before it; a restart opens the guard's file again.
struct Guarded {
    path: PathBuf,
    guard: Mutex<Arc<FileGuard>>,
    value: Arc<AtomicU64>,
}

impl Guarded {
    fn guard(&self) -> Arc<FileGuard> {
        Arc::clone(&self.guard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Resource for Guarded {
    async fn write(&self, token: u64, value: u64) -> Result<Outcome, Unanswered> {
        let (guard, stored) = (self.guard(), Arc::clone(&self.value));
        let admitted =
            spawn_blocking(move || guard.admit(Token(token), || stored.store(value, Ordering::SeqCst))).await;
        match admitted.map_err(failed)? {
            Ok(()) => Ok(Outcome::Accepted),
            Err(GuardError::Stale(_)) => Ok(Outcome::Refused),
            Err(error) => Err(failed(error)),
        }
    }

    async fn read(&self) -> Result<Standing, Unanswered> {
        Ok(Standing::Value(self.value.load(Ordering::SeqCst)))
    }

    async fn restart(&self) -> Result<bool, Unanswered> {
        let again = FileGuard::open(&self.path).map_err(failed)?;
        *self.guard.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(again);
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_file_guard_conforms() {
    let room = tempfile::tempdir().expect("a directory");
    let path = room.path().join("token");
    let guard = Mutex::new(Arc::new(FileGuard::create(&path, None).expect("made")));
    let report = passes(Guarded { path, guard, value: Arc::default() }).await;
    assert_eq!(skipped(&report), [Rule::NoTokenRefused], "{report}");
}

/// The SQLite example; a restart closes its connections and opens the file again.
struct Sqlite {
    path: PathBuf,
    database: RwLock<Database>,
}

impl Resource for Sqlite {
    async fn write(&self, token: u64, value: u64) -> Result<Outcome, Unanswered> {
        let database = self.database.read().await.clone();
        let value = i64::try_from(value).map_err(failed)?;
        let done = database.put(Token(token), value).await.map_err(failed)?;
        Ok(if done.is_ok() { Outcome::Accepted } else { Outcome::Refused })
    }

    async fn read(&self) -> Result<Standing, Unanswered> {
        let value = self.database.read().await.get().await.map_err(failed)?;
        Ok(value.map_or(Standing::Nothing, |value| Standing::Value(value.unsigned_abs())))
    }

    async fn restart(&self) -> Result<bool, Unanswered> {
        let mut database = self.database.write().await;
        database.clone().close().await;
        *database = Database::open(&self.path).await.map_err(failed)?;
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_sqlite_example_conforms() {
    let room = tempfile::tempdir().expect("a directory");
    let path = room.path().join("data.db");
    let database = RwLock::new(Database::open(&path).await.expect("opened"));
    let report = passes(Sqlite { path, database }).await;
    assert_eq!(skipped(&report), [Rule::NoTokenRefused], "{report}");
}

/// The HTTP example in a process of its own; a restart is `kill -9` and a new process on the same files.
struct Http {
    room: PathBuf,
    address: String,
    process: Mutex<Process>,
    spoken_to: HttpResource,
}

impl Http {
    fn start(room: PathBuf) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = free.local_addr().expect("it is bound").to_string();
        drop(free);
        let process = Mutex::new(Process::start("http", &room, &address));
        let spoken_to = HttpResource::new(&format!("http://{address}/value"), Method::Put).expect("an address");
        let http = Self { room, address, process, spoken_to };
        http.up();
        http
    }

    fn up(&self) {
        until("the example listens", || std::net::TcpStream::connect(&self.address).is_ok());
    }
}

impl Resource for Http {
    async fn write(&self, token: u64, value: u64) -> Result<Outcome, Unanswered> {
        self.spoken_to.write(token, value).await
    }

    async fn write_bare(&self, value: u64) -> Result<Option<Outcome>, Unanswered> {
        self.spoken_to.write_bare(value).await
    }

    async fn read(&self) -> Result<Standing, Unanswered> {
        self.spoken_to.read().await
    }

    async fn restart(&self) -> Result<bool, Unanswered> {
        {
            let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
            process.kill();
            *process = Process::start("http", &self.room, &self.address);
        }
        tokio::task::block_in_place(|| self.up());
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_http_example_conforms_over_kill_9() {
    let room = tempfile::tempdir().expect("a directory");
    let report = passes(Http::start(room.path().to_owned())).await;
    assert_eq!(skipped(&report), [], "{report}");
}

/// What a person sees with curl.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_example_says_why_it_refuses() {
    let room = tempfile::tempdir().expect("a directory");
    let http = Http::start(room.path().to_owned());
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let put = async |token: Option<&str>| {
        let mut request = client.put(format!("http://{}/value", http.address)).body("5");
        if let Some(token) = token {
            request = request.header("Baton-Token", token);
        }
        let answer = request.send().await.expect("answered");
        let highest = answer.headers().get("baton-highest-token").map(|value| value.to_str().expect("text").to_owned());
        (answer.status().as_u16(), highest, answer.text().await.expect("a body"))
    };
    assert_eq!(put(Some("42")).await, (204, None, String::new()));
    assert_eq!(put(Some("41")).await, (412, Some("42".to_owned()), "token 41 is stale: 42 has been seen\n".to_owned()));
    assert_eq!(put(None).await, (428, None, "baton-token is missing\n".to_owned()));
    assert_eq!(put(Some("forty")).await.0, 400);
    std::fs::write(room.path().join("token"), "baton-guard 1 4").expect("torn by hand");
    let (status, _, why) = put(Some("43")).await;
    assert!(status == 503 && why.contains("torn"), "{status} {why}");
}

#[test]
fn only_plain_http_addresses_are_taken() {
    for bad in ["", "value", "ftp://h/x", "https://h/x", "http://"] {
        assert!(HttpResource::new(bad, Method::Put).is_err(), "{bad}");
    }
}
