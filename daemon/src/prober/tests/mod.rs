//! The prober against real sockets on loopback: everything an instance can do wrong, and that it costs nobody else.

mod agent;
mod closing;
mod grpc;
mod held;
mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_core::policy::{Check, CheckKind};
use baton_core::probe::{FailureClass, Outcome};
use baton_core::time::Millis;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const TIMEOUT: Millis = Millis(300);

fn check(kind: CheckKind) -> Check {
    Check { interval: Millis(1_000), fast_interval: Millis(20), timeout: TIMEOUT, ..Check::of(kind) }
}

fn target(address: SocketAddr, check: &Check) -> Target {
    let plan = CheckPlan::of(check).expect("a good check").expect("a check that is run");
    let of = ("web".parse().expect("a name"), "a".parse().expect("a name"));
    Target {
        of,
        address: address.to_string().parse().expect("an address"),
        watch: plan.watch,
        plan: Arc::new(plan),
        hash: 0,
    }
}

fn prober() -> Prober {
    prober_with(&ProbeConfig::default())
}

fn prober_with(config: &ProbeConfig) -> Prober {
    Prober::start(Clock, LagMeter::start(Clock), config)
}

/// The results among the next news.
async fn results(prober: &mut Prober) -> Vec<ProbeResult> {
    let result = |news| match news {
        ProberNews::Result(result) => Some(result),
        ProberNews::Ended(_) => None,
    };
    prober.next().await.into_iter().filter_map(result).collect()
}

/// Probes once, and answers what was seen and how long it took.
async fn probe(address: SocketAddr, check: &Check) -> (Result<Outcome, Distrust>, Duration) {
    probe_with(&ProbeConfig::default(), address, check).await
}

async fn probe_with(config: &ProbeConfig, address: SocketAddr, check: &Check) -> (Result<Outcome, Distrust>, Duration) {
    let mut prober = prober_with(config);
    prober.insert(target(address, check));
    let result = results(&mut prober).await.remove(0);
    (result.seen, result.timing.ended.since(result.timing.started))
}

/// Listens, and plays `server` for each connection.
async fn serve<F>(server: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(server(stream));
        }
    });
    address
}

/// Answers each request with these bytes, and keeps the connection open.
async fn answers(bytes: impl Into<Vec<u8>>) -> SocketAddr {
    let bytes: Arc<[u8]> = bytes.into().into();
    serve(move |mut stream| {
        let bytes = bytes.clone();
        async move {
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&bytes).await;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    })
    .await
}

async fn closed_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("its address")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn assert_failed(seen: Result<Outcome, Distrust>, class: FailureClass, words: &str) {
    match seen {
        Ok(Outcome::Failure { class: found, detail }) => {
            assert_eq!(found, class, "{detail}");
            assert!(detail.contains(words), "\"{detail}\" does not say \"{words}\"");
        }
        other => panic!("{other:?} instead of {class} ({words})"),
    }
}

#[tokio::test]
async fn a_tcp_check_needs_a_connection_and_nothing_more() {
    let silent = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    assert_eq!(probe(silent, &check(CheckKind::Tcp)).await.0, Ok(Outcome::Success));
    let (seen, took) = probe(closed_port().await, &check(CheckKind::Tcp)).await;
    assert_failed(seen, FailureClass::Connection, "refused");
    assert!(took < TIMEOUT.as_duration(), "a refusal is known at once, not after {took:?}");
    // A port of the check's own wins over the instance's.
    let other_port = Check { port: Some(silent.port()), ..check(CheckKind::Tcp) };
    assert_eq!(probe(closed_port().await, &other_port).await.0, Ok(Outcome::Success));
}

#[tokio::test]
async fn denied_addresses_are_never_connected_to() {
    let metadata = "169.254.169.254:80".parse().expect("an address");
    let (seen, took) = probe(metadata, &check(CheckKind::Tcp)).await;
    assert_failed(seen, FailureClass::Connection, "deny-list");
    assert!(took < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn an_http_check_judges_status_and_body() {
    let http = check(CheckKind::Http);
    assert_eq!(probe(answers(ok("well")).await, &http).await.0, Ok(Outcome::Success));
    for (status, class) in [
        ("500 Oops", FailureClass::ServerError),
        ("503 Busy", FailureClass::ServerError),
        ("429 Slow Down", FailureClass::RateLimit),
        ("404 Not Found", FailureClass::ClientError),
        ("302 Found\r\nlocation: http://127.0.0.1:1/", FailureClass::Malformed),
    ] {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
        assert_failed(probe(answers(answer).await, &http).await.0, class, &format!("answered {}", &status[..3]));
    }
    let expects_503 = Check { expect_status: vec!["503".parse().expect("a status")], ..http.clone() };
    let busy = answers("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(probe(busy, &expects_503).await.0, Ok(Outcome::Success), "what is expected is a success");

    let wants_well = Check { expect_body: Some("^we(ll|t)$".to_owned()), ..http };
    assert_eq!(probe(answers(ok("well")).await, &wants_well).await.0, Ok(Outcome::Success));
    assert_failed(
        probe(answers(ok("unwell: a secret")).await, &wants_well).await.0,
        FailureClass::Malformed,
        "does not match expect_body (16 bytes",
    );
    // Without a length the body ends with the connection.
    let brief = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 4_096]).await;
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nwell").await;
    })
    .await;
    assert_eq!(probe(brief, &wants_well).await.0, Ok(Outcome::Success));
}

#[tokio::test]
async fn an_http_check_asks_for_what_it_was_told_to() {
    let (tell, mut told) = tokio::sync::mpsc::channel(4);
    let address = serve(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut request = vec![0; 4_096];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let _ = tell.send(String::from_utf8_lossy(&request[..length]).to_lowercase()).await;
            let _ = stream.write_all(ok("").as_bytes()).await;
        }
    })
    .await;
    let mut asks = Check { path: "/health?deep=1".to_owned(), method: "HEAD".to_owned(), ..check(CheckKind::Http) };
    assert_eq!(probe(address, &asks).await.0, Ok(Outcome::Success));
    let request = told.recv().await.expect("a request");
    assert!(request.starts_with("head /health?deep=1 http/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("\r\nhost: {address}\r\n")), "{request}");
    asks.headers = [("Host", "web.example"), ("X-Probe", "yes")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    assert_eq!(probe(address, &asks).await.0, Ok(Outcome::Success));
    let request = told.recv().await.expect("a request");
    assert_eq!(request.matches("\r\nhost: ").count(), 1, "{request}");
    assert!(request.contains("\r\nhost: web.example\r\n") && request.contains("\r\nx-probe: yes\r\n"), "{request}");
}

#[tokio::test]
async fn whoever_does_not_answer_is_given_up_in_time() {
    let http = check(CheckKind::Http);
    let body = Check { expect_body: Some("never".to_owned()), ..http.clone() };
    let hangs = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let trickles = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for (address, check, words) in [
        (hangs, &http, "connected, but no answer within 300ms"),
        (trickles, &body, "the body was not complete within 300ms"),
    ] {
        let (seen, took) = probe(address, check).await;
        assert_failed(seen, FailureClass::Timeout, words);
        assert!(took >= TIMEOUT.as_duration() && took < TIMEOUT.as_duration() * 2, "{took:?}");
    }
    assert_eq!(probe(trickles, &http).await.0, Ok(Outcome::Success), "a body that nobody asked for is not waited for");
}

#[tokio::test]
async fn whatever_is_answered_costs_bounded_memory() {
    let endless_body = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await;
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let body = Check { expect_body: Some("never".to_owned()), ..check(CheckKind::Http) };
    let (seen, took) = probe(endless_body, &body).await;
    assert_failed(seen, FailureClass::Malformed, "(65536 bytes, the first 65536 bytes looked at)");
    assert!(took < TIMEOUT.as_duration(), "{took:?}");

    let endless_head = serve(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let (seen, took) = probe(endless_head, &check(CheckKind::Http)).await;
    assert_failed(seen, FailureClass::Malformed, "too large");
    assert!(took < TIMEOUT.as_duration(), "{took:?}");

    let many = (0..1_000).map(|number| format!("x-{number}: y\r\n")).collect::<String>();
    let (seen, _) = probe(answers(format!("HTTP/1.1 200 OK\r\n{many}\r\n")).await, &check(CheckKind::Http)).await;
    assert_failed(seen, FailureClass::Malformed, "too large");
}

#[tokio::test]
async fn garbage_and_broken_connections_are_told_apart() {
    let http = check(CheckKind::Http);
    let body = Check { expect_body: Some("x".to_owned()), ..http.clone() };
    assert_failed(
        probe(answers("SSH-2.0-OpenSSH_9.6\r\n").await, &http).await.0,
        FailureClass::Malformed,
        "not HTTP/1.1",
    );
    let closes = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 4_096]).await;
    })
    .await;
    assert_failed(probe(closes, &http).await.0, FailureClass::Connection, "closed");
    // Closing with unread bytes makes the kernel send a reset.
    let resets = serve(|stream| async move {
        let _ = stream.readable().await;
    })
    .await;
    assert_failed(probe(resets, &http).await.0, FailureClass::Connection, "reset");
    let cut = serve(|mut stream| async move {
        let _ = stream.read(&mut [0; 4_096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    assert_failed(probe(cut, &body).await.0, FailureClass::Connection, "closed before");
    let chunked = answers("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno chunk\r\n").await;
    assert_failed(probe(chunked, &body).await.0, FailureClass::Malformed, "broke off");
}

#[tokio::test]
async fn heartbeats_are_not_the_probers() {
    assert!(CheckPlan::of(&Check::of(CheckKind::Heartbeat)).expect("nothing to refuse").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_targets_delay_nobody() {
    let hangs = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let well = answers(ok("")).await;
    let mut prober = prober();
    let http = check(CheckKind::Http);
    for number in 0..200_u64 {
        prober.insert(Target { hash: number * 100_000, ..target(hangs, &http) });
    }
    let quick = prober.insert(target(well, &http));
    let (begin, mut answers, mut worst) = (Instant::now(), 0, Duration::ZERO);
    while begin.elapsed() < Duration::from_secs(1) {
        for result in results(&mut prober).await {
            if result.target == quick {
                answers += 1;
                worst = worst.max(result.timing.ended.since(result.timing.due));
            }
        }
    }
    assert!(answers >= 15, "{answers} of about 40 probes in a second, at the fast pace of 20 ms");
    assert!(worst < Duration::from_millis(200), "one waited {worst:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_hanging_targets_than_may_be_in_flight_are_still_believed() {
    let hangs = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let mut prober = prober();
    prober.in_flight_max = 4;
    for number in 0..12_u64 {
        prober.insert(Target { hash: number * 1_000_000, ..target(hangs, &check(CheckKind::Http)) });
    }
    let (begin, mut failures) = (Instant::now(), HashMap::<TargetId, usize>::new());
    while failures.len() < 12 {
        assert!(begin.elapsed() < Duration::from_secs(20), "only {} of 12 are ever believed", failures.len());
        for result in results(&mut prober).await {
            assert!(prober.flying.len() <= 4);
            // A busy machine may run one late, which is then rightly not believed; it comes again.
            assert!(!matches!(result.seen, Err(Distrust::NodeShort { .. })), "{:?}", result.seen);
            if result.seen.is_err() {
                continue;
            }
            assert_failed(result.seen, FailureClass::Timeout, "no answer");
            *failures.entry(result.target).or_default() += 1;
        }
    }
}

#[tokio::test]
async fn a_target_that_was_let_go_says_nothing_more() {
    let hangs = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let mut prober = prober();
    let old = prober.insert(target(hangs, &check(CheckKind::Http)));
    assert!(tokio::time::timeout(Duration::from_millis(100), results(&mut prober)).await.is_err(), "it is under way");
    prober.remove(old);
    let new = prober.insert(target(closed_port().await, &check(CheckKind::Http)));
    assert_ne!(old, new);
    assert!(results(&mut prober).await.iter().all(|result| result.target == new));
    assert!(prober.by_task.is_empty() && prober.flying.is_empty());
}

#[tokio::test]
async fn a_failure_seen_by_a_stopped_node_is_not_believed() {
    let hangs = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let mut prober = prober();
    prober.insert(target(hangs, &check(CheckKind::Http)));
    assert!(tokio::time::timeout(Duration::from_millis(50), results(&mut prober)).await.is_err(), "it is under way");
    // The whole runtime stands still, as under SIGSTOP.
    std::thread::sleep(Duration::from_millis(800));
    let result = results(&mut prober).await.remove(0);
    assert!(result.seen.is_err(), "{result:?}");
    // The next one is in time again.
    assert_failed(results(&mut prober).await.remove(0).seen, FailureClass::Timeout, "no answer");
}
