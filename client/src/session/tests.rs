//! Sessions against a server that is played by the test: what is asked of it, in which order, and what the worker hears.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use baton_core::policy::{Liveness, Mode, Registration, Spec};
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

    /// Waits until this was asked so often.
    async fn was_asked(&self, what: &str, times: usize) {
        let end = boot_time().plus(SOON);
        while self.asked(what).len() < times {
            assert!(boot_time() < end, "{what} was not asked {times} times, but {}", self.asked(what).len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
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

/// A service in which every instance works, as it is read.
fn all_work() -> Reply {
    let spec = Spec { mode: Mode::ActiveActive, ..Spec::default() };
    let (at, phase) = ("2026-01-02T03:04:05.000Z", "active");
    let view = json!({"name": "jobs", "mode": spec.mode, "spec": spec, "generation": 2, "created_at": at, "updated_at": at,
        "revision": 9, "phase": phase, "active": null, "transition": null, "instances": []});
    Reply::Says(200, view)
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
            | SessionEvent::Left
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
async fn only_a_word_of_the_cluster_about_the_token_ends_a_release() {
    for refusal in [401, 403, 408, 429, 500, 503] {
        let server = Server::start(move |(what, _), times| match (what.as_str(), times) {
            ("put a", _) => stored("s1"),
            ("post heartbeat", 0) => active(7, 5_000),
            ("post heartbeat", _) => no(503, "no_leader"),
            ("post release", 0..2) => no(refusal, "another"),
            ("post release", _) => no(409, "not_holder"),
            _ => Reply::Hangs,
        })
        .await;
        let mut session = session(&[&server.url]);
        assert_eq!(token(&mut session).await, 7);
        session.release(release(7, false));
        assert!(matches!(next(&mut session).await, SessionEvent::Released { .. }));
        assert_eq!(server.asked("post release").len(), 3, "{refusal} was taken for an answer");
    }
}

#[tokio::test]
async fn a_release_is_said_for_longer_than_any_lease_lasts() {
    let begun = boot_time();
    let long = Duration::from_secs(4);
    let server = Server::start(move |(what, _), _| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" => active(7, 300),
        "post release" if boot_time().since(begun) < long => no(503, "no_leader"),
        "post release" => Reply::Says(200, json!({"released": true})),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    session.release(release(7, false));
    assert_eq!(next(&mut session).await, SessionEvent::Released { token: baton_core::id::Token(7) });
    assert!(boot_time().since(begun) >= long, "it was given up");
}

#[tokio::test]
async fn a_release_that_the_cluster_has_forgotten_is_said_again() {
    let server = Server::start(|(what, _), times| match (what.as_str(), times) {
        ("put a", _) => stored("s1"),
        ("post heartbeat", 0..20) => active(7, 5_000),
        ("post heartbeat", 20..) => passive("active"),
        ("post release", _) => Reply::Says(200, json!({"released": true})),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    session.release(release(7, false));
    assert!(matches!(next(&mut session).await, SessionEvent::Released { .. }));
    // Grants of a released token go on.
    server.was_asked("post release", 2).await;
    server.was_asked("post heartbeat", 25).await;
    let said = server.asked("post release").len();
    assert!(said <= 4, "{said} times for 20 heartbeats");
}

#[tokio::test]
async fn who_serves_says_so_until_it_is_heard() {
    let server = Server::start(|(what, _), times| match (what.as_str(), times) {
        ("put a", _) => stored("s1"),
        ("post heartbeat", _) => active(7, 5_000),
        ("post ack", 0..2) => no(503, "no_leader"),
        ("post ack", _) => Reply::Says(200, json!({})),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    session.acknowledge(baton_core::id::Token(7));
    assert_eq!(token(&mut session).await, 7);
    assert_eq!(session.id().as_deref(), Some("s1"));
    assert_eq!(server.asked("post ack").len(), 0, "nobody had the token when it was said");
    session.acknowledge(baton_core::id::Token(7));
    session.acknowledge(baton_core::id::Token(7));
    server.was_asked("post ack", 3).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(server.asked("post ack"), vec![json!({"token": 7, "session": "s1"}); 3]);
}

#[tokio::test]
async fn who_holds_nothing_says_that_it_goes() {
    let server = Server::start(|(what, _), _| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" => passive("active"),
        "post release" => Reply::Says(200, json!({"released": true})),
        "get role" => Reply::Hangs,
        _ => no(503, "no_active"),
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(next(&mut session).await, SessionEvent::Passive { active: None });
    session.leave("the end".to_owned());
    assert_eq!(next(&mut session).await, SessionEvent::Left);
    let wanted = json!({"session": "s1", "leaving": true, "reason": "the end"});
    assert_eq!(server.asked("post release"), [wanted]);
    let beats = server.asked("post heartbeat").len();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(server.asked("post heartbeat").len(), beats, "who leaves is silent");
}

#[tokio::test]
async fn who_goes_while_its_release_is_not_heard_says_both_at_once() {
    let server = Server::start(|(what, body), _| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" => active(7, 5_000),
        "post release" if body["leaving"] == true => Reply::Says(200, json!({"released": true})),
        "post release" => no(503, "no_leader"),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    session.release(release(7, false));
    server.was_asked("post release", 1).await;
    session.leave("the end".to_owned());
    assert!(matches!(next(&mut session).await, SessionEvent::Released { .. }));
    assert_eq!(next(&mut session).await, SessionEvent::Left);
    let last = server.asked("post release").pop().expect("releases");
    assert_eq!(last, json!({"token": 7, "session": "s1", "leaving": true, "reason": "the end"}));
}

#[tokio::test]
async fn who_goes_and_was_promoted_just_now_hears_of_it_and_gives_that_back() {
    let server = Server::start(|(what, body), times| match (what.as_str(), times) {
        ("put a", _) => stored("s1"),
        ("post heartbeat", 0) => passive("failing_over"),
        ("post heartbeat", _) => active(9, 5_000),
        ("post release", _) if body["token"].is_null() => no(409, "is_active"),
        ("post release", _) => Reply::Says(200, json!({"released": true})),
        ("get role", _) => Reply::Hangs,
        _ => no(503, "no_active"),
    })
    .await;
    let mut session = session(&[&server.url]);
    server.was_asked("post heartbeat", 1).await;
    session.leave("the end".to_owned());
    while !matches!(next(&mut session).await, SessionEvent::Active { token, .. } if token.0 == 9) {}
    session.release(release(9, true));
    assert!(matches!(next(&mut session).await, SessionEvent::Released { .. }));
    assert_eq!(next(&mut session).await, SessionEvent::Left);
    let last = server.asked("post release").pop().expect("releases");
    assert_eq!((&last["token"], &last["leaving"]), (&json!(9), &json!(true)));
}

#[tokio::test]
async fn whoever_cannot_be_registered_can_go() {
    let server = Server::start(|_, _| no(503, "no_leader")).await;
    let mut session = session(&[&server.url]);
    session.leave("the end".to_owned());
    while next(&mut session).await != SessionEvent::Left {}
}

#[tokio::test]
async fn an_answer_without_a_lease_is_neither_a_lease_nor_a_step_down() {
    let server = Server::start(|(what, _), times| match (what.as_str(), times) {
        ("put a", _) => stored("s1"),
        ("post heartbeat", 0) => active(7, 1_000),
        ("post heartbeat", 1..6) => {
            Reply::Says(200, json!({"role": "active", "token": 7, "phase": "failing_over", "interval_ms": 30}))
        }
        ("post heartbeat", _) => active(7, 1_000),
        _ => Reply::Hangs,
    })
    .await;
    let mut session = session(&[&server.url]);
    assert_eq!(token(&mut session).await, 7);
    let event = tokio::time::timeout(SOON, session.next()).await.expect("in time");
    assert!(matches!(event, SessionEvent::Extended { token, .. } if token.0 == 7), "{event:?}");
    assert!(server.asked("post heartbeat").len() >= 7, "it was told of a renewal that was none");
}

#[tokio::test]
async fn a_service_of_which_all_work_at_a_time_ends_the_session() {
    let server = Server::start(|(what, _), _| match what.as_str() {
        "put a" => stored("s1"),
        "post heartbeat" => Reply::Says(200, json!({"role": "active", "phase": "active", "interval_ms": 1_000})),
        _ => all_work(),
    })
    .await;
    let mut session = session(&[&server.url]);
    let over = next(&mut session).await;
    let SessionEvent::Over(SessionOver::Refused { why }) = &over else { panic!("{over:?}") };
    assert!(why.contains("is active_active now"), "{why}");
    let beats = server.asked("post heartbeat").len();
    assert!(beats <= 10, "{beats} heartbeats: it rests between them");
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
