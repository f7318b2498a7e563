//! `baton example-server`: a small HTTP server that fails on command. The demo's services run on it, and tests may. It
//! knows nothing of Baton: what it stands for is the legacy daemon that is only probed.
//!
//! `GET /` answers who it is; `GET /health` whether it is well. After `--fail-after N` calls of `/` everything answers 500 for
//! `--fail-duration`, counted from the Nth call; then it is well for good (it breaks once). `--fail-rate R` fails that share of the
//! calls of `/`, never of `/health`: such a server is sick in a way that a health check does not see.

use std::fs::OpenOptions;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use axum::{Router, serve};
use baton_core::time::Millis;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::orphan;
use crate::terminal::exit::Exit;
use crate::terminal::output;

/// The arguments of `baton example-server`.
#[derive(Debug, Args)]
pub(crate) struct ExampleServerArgs {
    /// Where to listen
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// What it calls itself
    #[arg(long, default_value = "example")]
    name: String,
    /// Break once after so many calls of /
    #[arg(long, value_name = "N")]
    fail_after: Option<u64>,
    /// How long it stays broken
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    fail_duration: Millis,
    /// The share of calls of / that fail, from 0 to 1
    #[arg(long, value_name = "R", default_value_t = 0.0, value_parser = share)]
    fail_rate: f64,
    /// Where the request log goes, a line a request; stderr if not given
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// End when stdin closes
    #[arg(long, hide = true)]
    exit_when_stdin_closes: bool,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) | Err(_) => Err("write a number from 0 to 1".to_owned()),
    }
}

/// When the server fails. Pure, but for the dice.
struct Faults {
    fail_after: Option<u64>,
    fail_duration: Duration,
    fail_rate: f64,
    calls: AtomicU64,
    /// When the last good call before the break came.
    broke_at: OnceLock<Instant>,
    dice: RandomState,
}

impl Faults {
    fn broken(&self, now: Instant) -> bool {
        self.broke_at.get().is_some_and(|&at| now.saturating_duration_since(at) < self.fail_duration)
    }

    /// Counts a call and tells its number, and whether it goes well.
    fn call(&self, now: Instant) -> (u64, bool) {
        let broken = self.broken(now);
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if self.fail_after == Some(number) {
            // It can be set once only, for only one call has this number.
            let _ = self.broke_at.set(now);
        }
        (number, !broken && !self.unlucky(number))
    }

    fn unlucky(&self, number: u64) -> bool {
        // 53 bits are what a float holds exactly: an even share in [0, 1).
        let thrown = (self.dice.hash_one(number) >> 11) as f64 / (1_u64 << 53) as f64;
        thrown < self.fail_rate
    }
}

struct Server {
    name: String,
    faults: Faults,
    log: Mutex<Box<dyn Write + Send>>,
}

async fn index(State(server): State<Arc<Server>>) -> Response {
    let (number, good) = server.faults.call(Instant::now());
    let body = serde_json::json!({ "server": server.name, "requests": number });
    let status = if good { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    (status, Json(body)).into_response()
}

async fn health(State(server): State<Arc<Server>>) -> (StatusCode, &'static str) {
    if server.faults.broken(Instant::now()) {
        (StatusCode::INTERNAL_SERVER_ERROR, "broken")
    } else {
        (StatusCode::OK, "ok")
    }
}

/// Writes the line of each request. The write blocks its thread for a moment: a log that loses lines would be no use, and
/// this server has nothing better to do.
async fn logged(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    if let Ok(mut log) = server.log.lock() {
        let status = response.status().as_u16();
        // A full disk must not make the example fail in a way that nobody asked for.
        let _ = writeln!(log, "{} {method} {} {status}", output::wall_now(), crate::terminal::words::one_line(&path));
    }
    response
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/health", get(health))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), logged))
        .with_state(server)
}

/// Runs the server until it is told to end.
pub(crate) async fn run(args: ExampleServerArgs) -> Exit {
    match run_server(args).await {
        Ok(()) => Exit::Done,
        Err(error) => {
            output::complain(&error.to_string());
            Exit::Error
        }
    }
}

async fn run_server(args: ExampleServerArgs) -> io::Result<()> {
    let log: Box<dyn Write + Send> = match &args.log {
        Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        None => Box::new(io::stderr()),
    };
    let listener = TcpListener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    output::data(&format!("{} listens on http://{address}", args.name));
    let server = Arc::new(Server {
        name: args.name,
        faults: Faults {
            fail_after: args.fail_after,
            fail_duration: args.fail_duration.as_duration(),
            fail_rate: args.fail_rate,
            calls: AtomicU64::new(0),
            broke_at: OnceLock::new(),
            dice: RandomState::new(),
        },
        log: Mutex::new(log),
    });
    let mut terminate = signal(SignalKind::terminate())?;
    let orphaned =
        async { if args.exit_when_stdin_closes { orphan::stdin_closed().await } else { std::future::pending().await } };
    // It ends at once and without ceremony: nothing it holds is worth draining for.
    tokio::select! {
        ended = serve(listener, router(server)).into_future() => ended,
        _ = terminate.recv() => Ok(()),
        interrupted = tokio::signal::ctrl_c() => interrupted,
        () = orphaned => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(fail_after: Option<u64>, fail_rate: f64) -> Faults {
        Faults {
            fail_after,
            fail_duration: Duration::from_secs(10),
            fail_rate,
            calls: AtomicU64::new(0),
            broke_at: OnceLock::new(),
            dice: RandomState::new(),
        }
    }

    #[test]
    fn it_breaks_once_after_so_many_calls_and_for_so_long() {
        let faults = faults(Some(3), 0.0);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!([1, 2, 3].map(|_| faults.call(at(0)).1), [true; 3]);
        assert!(faults.broken(at(0)) && faults.broken(at(9)));
        assert_eq!(faults.call(at(9)), (4, false));
        assert!(!faults.broken(at(10)));
        assert!((0..10).all(|_| faults.call(at(10)).1));
    }

    #[test]
    fn about_the_given_share_fails_and_health_does_not() {
        let faults = faults(None, 0.1);
        let now = Instant::now();
        let failed = (0..10_000).filter(|_| !faults.call(now).1).count();
        assert!((700..1_300).contains(&failed), "{failed} of 10000");
        assert!(!faults.broken(now));
    }

    #[test]
    fn a_share_is_from_0_to_1() {
        assert_eq!(share("0.1"), Ok(0.1));
        for bad in ["", "x", "-0.1", "1.1", "NaN"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
