//! gRPC checks, of servers that speak HTTP/2 well enough to say anything, and of some that do not.

use std::convert::Infallible;

use ::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::tls::{Authority, Good};
use super::*;

/// What a server answers with: status, headers, data and trailers.
#[derive(Clone, Default)]
struct Says {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    data: Vec<Bytes>,
    trailers: Option<Vec<(&'static str, &'static str)>>,
    /// Never ends the answer.
    stays: bool,
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");
const OK: (&str, &str) = ("grpc-status", "0");

fn says(message: &'static [u8]) -> Says {
    let data = vec![Bytes::from_static(message)];
    Says { status: 200, headers: vec![GRPC], data, trailers: Some(vec![OK]), stays: false }
}

fn only(headers: &[(&'static str, &'static str)]) -> Says {
    Says { status: 200, headers: headers.to_vec(), ..Says::default() }
}

fn serving(status: u8) -> Says {
    Says { data: vec![Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status])], ..says(b"") }
}

fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value"))).collect()
}

async fn respond(says: Says) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let mut frames: Vec<Frame<Bytes>> = says.data.into_iter().map(Frame::data).collect();
    frames.extend(says.trailers.as_deref().map(|trailers| Frame::trailers(map(trailers))));
    let frames = stream::iter(frames.into_iter().map(Ok));
    let stays = says.stays;
    let end = stream::once(async move {
        if stays {
            std::future::pending::<()>().await;
        }
        Ok(Frame::data(Bytes::new()))
    });
    let body: std::pin::Pin<Box<dyn futures_util::Stream<Item = _> + Send>> =
        if stays { Box::pin(frames.chain(end)) } else { Box::pin(frames) };
    let mut response = Response::new(StreamBody::new(body));
    *response.status_mut() = says.status.try_into().expect("a status");
    *response.headers_mut() = map(&says.headers);
    Ok(response)
}

/// Speaks HTTP/2 over `stream` and answers each request the same, telling what was asked.
async fn speak(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    says: Says,
    tell: tokio::sync::mpsc::Sender<(String, String, Bytes)>,
) {
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (says, tell) = (says.clone(), tell.clone());
        async move {
            let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or("").to_owned());
            let head = format!("{} {} {:?}", request.method(), request.uri(), request.version());
            let hints = format!("{:?} {:?} {:?}", header("content-type"), header("te"), header("grpc-timeout"));
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let _ = tell.try_send((head, hints, body));
            respond(says).await
        }
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn grpc_server(says: Says) -> SocketAddr {
    let (tell, _) = tokio::sync::mpsc::channel(1);
    serve(move |stream| speak(stream, says.clone(), tell.clone())).await
}

async fn ask(says: Says) -> Result<Outcome, Distrust> {
    probe(grpc_server(says).await, &check(CheckKind::Grpc)).await.0
}

#[tokio::test]
async fn serving_is_the_only_good_answer() {
    assert_eq!(ask(serving(1)).await, Ok(Outcome::Success));
    for (status, word) in [
        (0, "grpc.health.v1 says UNKNOWN"),
        (2, "grpc.health.v1 says NOT_SERVING"),
        (3, "grpc.health.v1 says SERVICE_UNKNOWN"),
        (9, "grpc.health.v1 says what the protocol does not know"),
    ] {
        assert_failed(ask(serving(status)).await, FailureClass::Malformed, word);
    }
}

#[tokio::test]
async fn a_grpc_check_asks_by_the_protocol() {
    let (tell, mut told) = tokio::sync::mpsc::channel(1);
    let address = serve(move |stream| speak(stream, serving(1), tell.clone())).await;
    let named = Check { service: "a.b".to_owned(), ..check(CheckKind::Grpc) };
    assert_eq!(probe(address, &named).await.0, Ok(Outcome::Success));
    let (head, hints, body) = told.recv().await.expect("a request");
    assert_eq!(head, format!("POST http://{address}/grpc.health.v1.Health/Check HTTP/2.0"));
    assert_eq!(hints, r#"Some("application/grpc") Some("trailers") Some("300m")"#);
    assert_eq!(&body[..], b"\0\0\0\0\x05\x0a\x03a.b");
}

#[tokio::test]
async fn a_grpc_status_has_a_class_of_its_own() {
    for (status, class, words) in [
        ("5", FailureClass::ClientError, "the gRPC status NOT_FOUND (5)"),
        ("8", FailureClass::RateLimit, "RESOURCE_EXHAUSTED (8)"),
        ("12", FailureClass::ServerError, "UNIMPLEMENTED (12)"),
        ("14", FailureClass::Connection, "UNAVAILABLE (14)"),
        ("4", FailureClass::Timeout, "DEADLINE_EXCEEDED (4)"),
        ("99", FailureClass::Malformed, "the gRPC status 99"),
        ("x", FailureClass::Malformed, "without a grpc-status"),
    ] {
        assert_failed(ask(only(&[GRPC, ("grpc-status", status)])).await, class, words);
        let late = Says { trailers: Some(vec![("grpc-status", status)]), ..serving(1) };
        assert_failed(ask(late).await, class, words);
    }
    let unavailable = Says { status: 503, ..only(&[]) };
    assert_failed(ask(unavailable).await, FailureClass::ServerError, "answered 503");
}

#[tokio::test]
async fn what_is_no_grpc_answer_is_malformed() {
    let wrong = |says| async move { assert_failed(ask(says).await, FailureClass::Malformed, "") };
    wrong(only(&[("content-type", "text/html")])).await;
    wrong(says(b"")).await;
    wrong(says(b"\0\0\0\0\x02\x08")).await;
    wrong(says(b"<html>")).await;
    wrong(Says { trailers: None, ..serving(1) }).await;
    wrong(Says { trailers: Some(Vec::new()), ..serving(1) }).await;
    let endless = Says { data: vec![Bytes::from_static(&[0; 1_000]); 20], ..serving(1) };
    assert_failed(ask(endless).await, FailureClass::Malformed, "larger than 4096 bytes");

    let grpc = check(CheckKind::Grpc);
    let http_1 = answers("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    assert_failed(probe(http_1, &grpc).await.0, FailureClass::Malformed, "not HTTP/2");
    let garbage = answers(vec![0xff; 1_000]).await;
    assert_failed(probe(garbage, &grpc).await.0, FailureClass::Malformed, "not HTTP/2");
    let closes = serve(|mut stream| async move {
        let mut read = [0; 4_096];
        while stream.read(&mut read).await.is_ok_and(|length| !read[..length].ends_with(b"\0\0\0\0\0")) {}
    })
    .await;
    assert_failed(probe(closes, &grpc).await.0, FailureClass::Connection, "closed before the answer was complete");
}

#[tokio::test]
async fn a_grpc_server_that_hangs_is_given_up_in_time() {
    let silent = serve(|stream| async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(stream);
    })
    .await;
    let half = grpc_server(Says { trailers: None, stays: true, ..serving(1) }).await;
    for (address, words) in
        [(silent, "connected, but no answer within 300ms"), (half, "the body was not complete within 300ms")]
    {
        let (seen, took) = probe(address, &check(CheckKind::Grpc)).await;
        assert_failed(seen, FailureClass::Timeout, words);
        assert!(took >= TIMEOUT.as_duration() && took < TIMEOUT.as_duration() * 2, "{took:?}");
    }
}

#[tokio::test]
async fn grpc_over_tls_asks_for_http_2() {
    let ca = Authority::called("one");
    let over = |ca: &Authority| {
        let tls = baton_core::policy::CheckTls { verify: true, server_name: None, ca: Some(ca.pem()) };
        Check { tls: Some(tls), timeout: Millis(1_000), ..check(CheckKind::Grpc) }
    };
    for (protocols, expected) in [(&["h2", "http/1.1"][..], None), (&["http/1.1"], Some("does not speak the protocol"))]
    {
        let acceptor = ca.server("127.0.0.1", Good::Now, protocols);
        let (tell, mut told) = tokio::sync::mpsc::channel(1);
        let address = serve(move |stream| {
            let (acceptor, tell) = (acceptor.clone(), tell.clone());
            async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    speak(stream, serving(1), tell).await;
                }
            }
        })
        .await;
        let (seen, _) = probe(address, &over(&ca)).await;
        match expected {
            None => {
                assert_eq!(seen, Ok(Outcome::Success));
                assert!(told.recv().await.is_some_and(|(head, ..)| head.starts_with("POST https://")));
            }
            Some(words) => assert_failed(seen, FailureClass::Connection, words),
        }
    }
}
