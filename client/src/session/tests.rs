//! Sessions against a server that is played by the test: what is asked of it, in which order, and what the worker hears.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_core::policy::{Liveness, Registration};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// More than enough for any of this.
const SOON: Duration = Duration::from_secs(20);

/// What a played server does with a request.
enum Reply {
    Says(u16, Value),
    Hangs,
}

/// What was asked: the method and the last part of the path, and the body.
type Asked = (String, Value);
type Play = Arc<dyn Fn(&Asked, usize) -> Reply + Send + Sync>;

/// A server, and what it was asked.
struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `play` gets each request and how often the same was asked before.
    async fn start(play: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (play, heard): (Play, _) = (Arc::new(play), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&play), Arc::clone(&heard)));
            }
        });
        Self { url, asked }
    }

    fn asked(&self, what: &str) -> Vec<Value> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().filter(|(path, _)| path == what).map(|(_, body)| body.clone()).collect()
    }
}

/// Reads requests off a connection that is kept alive, and answers each.
async fn serve(mut socket: TcpStream, play: Play, asked: Arc<Mutex<Vec<Asked>>>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
        while bytes.len() < head_end + length {
            socket.read_buf(&mut bytes).await?;
        }
        let body = serde_json::from_slice(&bytes[head_end..head_end + length]).unwrap_or(Value::Null);
        bytes.drain(..head_end + length);
        let mut line = head.split(' ');
        let (method, path) = (line.next().unwrap_or_default(), line.next().unwrap_or_default());
        let last = path.rsplit('/').next().and_then(|last| last.split('?').next()).unwrap_or_default();
        let this = (format!("{method} {last}"), body);
        let times = {
            let mut asked = asked.lock().expect("no panic");
            asked.push(this.clone());
            asked.iter().filter(|(what, _)| *what == this.0).count() - 1
        };
        let Reply::Says(status, body) = play(&this, times) else { return std::future::pending().await };
        let body = body.to_string();
        let kind = if status < 400 { "application/json" } else { "application/problem+json" };
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        socket.write_all(head.as_bytes()).await?;
        socket.write_all(body.as_bytes()).await?;
    }
}

fn stored(session: &str) -> Reply {
    Reply::Says(201, json!({"service": "jobs", "instance": "a", "generation": 1, "created": true, "session": session}))
}

fn active(token: u64, lease_ms: u64) -> Reply {
    let answer = json!({"role": "active", "token": token, "lease_ms": lease_ms, "phase": "active", "interval_ms": 30});
    Reply::Says(200, answer)
}

fn passive(phase: &str) -> Reply {
    Reply::Says(200, json!({"role": "passive", "phase": phase, "interval_ms": 30}))
}

fn no(status: u16, code: &str) -> Reply {
    Reply::Says(status, json!({"type": "about:blank", "title": "no", "status": status, "detail": code, "code": code}))
}

fn session(urls: &[&str]) -> Session {
    let registration = Registration { liveness: Liveness::Heartbeat, ..Registration::at(None) };
    let (service, instance) = ("jobs".parse().expect("a name"), "a".parse().expect("a name"));
    let client = Client::new(urls).expect("endpoints");
    Session::start(SessionConfig { client, service, instance, registration, follow_role: true }).expect("a timer")
}

/// The next news of any other kind than renewals and the like.
async fn next(session: &mut Session) -> SessionEvent {
    let news = async {
        loop {
            let event = session.next().await;
            if !matches!(event, SessionEvent::Extended { .. }) {
                return event;
            }
        }
    };
    tokio::time::timeout(SOON, news).await.expect("news in time")
}

async fn token(session: &mut Session) -> u64 {
    let event = next(session).await;
    let SessionEvent::Active { token, until, ttl } = event else { panic!("not active: {event:?}") };
    assert!(until <= boot_time().plus(ttl), "it counts from before the request");
    token.0
}

fn release(token: u64, leaving: bool) -> Release {
    Release { token: baton_core::id::Token(token), leaving, reason: "the end".to_owned() }
}

#[tokio::test]
async fn a_promotion_is_heard_renewed_and_given_back() {
    let server = Server::start(|(what, _), times| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" if times < 2 => passive("vacant"),
        "post heartbeat" => active(7, 600),
        "post release" => Reply::Says(200, json!({"released": true})),
        // The role stream hangs, and nobody is active yet.
        "get role" => Reply::Hangs,
        _ => no(503, "no_active"),
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(next(&mut session).await, SessionEvent::Passive { active: None });
    assert_eq!(token(&mut session).await, 7);
    let renewed = tokio::time::timeout(SOON, session.next()).await.expect("in time");
    assert!(matches!(renewed, SessionEvent::Extended { token, .. } if token.0 == 7), "{renewed:?}");
    session.release(release(7, true));
    assert_eq!(next(&mut session).await, SessionEvent::Released { token: baton_core::id::Token(7) });
    let wanted = json!({"token": 7, "session": "s1", "leaving": true, "reason": "the end"});
    assert_eq!(server.asked("post release"), [wanted]);
    let beats = server.asked("post heartbeat");
    assert!(beats.iter().all(|beat| beat["session"] == "s1"), "{beats:?}");
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(server.asked("post heartbeat").len(), beats.len(), "who leaves is silent");
}

#[tokio::test]
async fn an_endpoint_that_hangs_or_refuses_costs_no_lease() {
    let hanging = Server::start(|_, _| Reply::Hangs).await;
    let refusing = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        format!("http://{}", listener.local_addr().expect("it is bound"))
    };
    let play = |(what, _): &Asked, _: usize| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" => active(7, 500),
        _ => Reply::Hangs,
    };
    let good = Server::start(play).await;
    let mut session = session(&[&refusing, &hanging.url, &good.url]);
    assert_eq!(token(&mut session).await, 7);
    // Many a lease long.
    let end = boot_time().plus(Duration::from_secs(3));
    let mut until = boot_time();
    while until < end {
        let event = tokio::time::timeout(SOON, session.next()).await.expect("in time");
        if let SessionEvent::Extended { until: extended, .. } = event {
            until = extended;
        } else {
            let of_silence = matches!(event, SessionEvent::Reachable | SessionEvent::Unreachable { .. });
            assert!(of_silence, "the lease was lost: {event:?}");
        }
        assert!(boot_time() < until, "the lease ran out");
    }
}

#[tokio::test]
async fn a_step_down_is_told_and_a_later_token_is_another_tenure() {
    let server = Server::start(|(what, _), times| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" if times < 3 => active(7, 5_000),
        "post heartbeat" if times < 5 => passive("switching"),
        "post heartbeat" => active(9, 5_000),
        "post release" => Reply::Says(200, json!({"released": true})),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    let told = next(&mut session).await;
    assert!(
        matches!(&told, SessionEvent::StepDown { token, reason } if token.0 == 7 && reason == "the service is switching"),
        "{told:?}"
    );
    session.release(release(7, false));
    let (mut released, mut nine) = (false, false);
    while !(released && nine) {
        let event = next(&mut session).await;
        match &event {
            SessionEvent::Released { token } => released = token.0 == 7,
            SessionEvent::Active { token, .. } => nine = token.0 == 9,
            SessionEvent::Passive { .. } => {}
            SessionEvent::Extended { .. }
            | SessionEvent::StepDown { .. }
            | SessionEvent::Unreachable { .. }
            | SessionEvent::Reachable
            | SessionEvent::Over(_) => panic!("{event:?}"),
        }
    }
}

#[tokio::test]
async fn a_superseded_session_is_over_and_a_removed_one_begins_anew() {
    let beats = [AtomicUsize::new(0), AtomicUsize::new(0)];
    let server = Server::start(move |(what, body), times| {
        let second = usize::from(body["session"] == "s2");
        match (what.as_str(), times, second) {
            ("put a", 0, _) => stored("s1"),
            ("put a", _, _) => stored("s2"),
            ("post heartbeat", _, _) => match (beats[second].fetch_add(1, Ordering::Relaxed), second) {
                (0 | 1, 0) => active(7, 5_000),
                (0 | 1, _) => active(9, 5_000),
                (_, 0) => no(404, "no_such_instance"),
                (_, _) => no(409, "unknown_session"),
            },
            ("post release", _, _) => no(404, "no_such_instance"),
            _ => Reply::Hangs,
        }
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    let told = next(&mut session).await;
    assert!(matches!(&told, SessionEvent::StepDown { reason, .. } if reason.contains("deregistered")), "{told:?}");
    assert_eq!(server.asked("put a").len(), 1, "not before the old work has stopped");
    session.release(release(7, false));
    assert!(matches!(next(&mut session).await, SessionEvent::Released { .. }));
    assert_eq!(token(&mut session).await, 9);
    assert_eq!(next(&mut session).await, SessionEvent::Over(SessionOver::Superseded));
    let last = server.asked("post heartbeat").pop().expect("heartbeats");
    assert_eq!(last["session"], "s2");
}

#[tokio::test]
async fn a_release_is_said_until_it_is_heard() {
    let server = Server::start(|(what, _), times| match (what.as_str(), times) {
        ("put a", _) => stored("s1"),
        ("post heartbeat", _) => active(7, 5_000),
        ("post release", 0..3) => no(503, "no_leader"),
        ("post release", _) => Reply::Says(200, json!({"released": true})),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    session.release(release(7, false));
    assert!(matches!(next(&mut session).await, SessionEvent::Released { .. }));
    assert_eq!(server.asked("post release").len(), 4);
}

#[tokio::test]
async fn a_registration_that_is_refused_is_over_and_one_that_fails_is_tried_again() {
    let server = Server::start(|(what, _), times| match (what.as_str(), times) {
        ("put a", 0..4) => no(503, "no_leader"),
        _ => no(404, "no_such_service"),
    })
    .await;
    let mut session = session(&[&server.url]);
    assert!(matches!(next(&mut session).await, SessionEvent::Unreachable { .. }));
    let over = next(&mut session).await;
    assert!(
        matches!(&over, SessionEvent::Over(SessionOver::Refused { why }) if why.contains("no_such_service")),
        "{over:?}"
    );
}
