//! Webhooks: what is sent, by whom it can be verified, and which answers confirm.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::*;

const SECRET: &str = "a plain text of 24 bytes";

/// One request as it came: its first line, its headers in lower case, its body.
struct Request {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Reads one request with a body of known length.
async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Request> {
    let mut read = Vec::new();
    let head = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(read[..head].to_vec()).ok()?;
    let mut lines = text.lines();
    let line = lines.next()?.to_owned();
    let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: Vec<_> = lines.filter_map(header).collect();
    let mut request = Request { line, headers, body: read[head..].to_vec() };
    let length: usize = request.header("content-length")?.parse().ok()?;
    while request.body.len() < length {
        if stream.read_buf(&mut request.body).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
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

/// Hands over each request and answers these bytes.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, told: mpsc::Sender<Request>, bytes: &str) {
    let Some(request) = read(&mut stream).await else { return };
    let _ = told.send(request).await;
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn answers(bytes: &str) -> (SocketAddr, mpsc::Receiver<Request>) {
    let (tell, told) = mpsc::channel(8);
    let bytes: Arc<str> = bytes.into();
    let address = serve(move |stream| {
        let (tell, bytes) = (tell.clone(), bytes.clone());
        async move { answer(stream, tell, &bytes).await }
    })
    .await;
    (address, told)
}

fn hook(url: &str) -> FencingHook {
    FencingHook { url: Some(url.to_owned()), agent: None, timeout: Millis(2_000), attempts: 3 }
}

fn signing() -> HookMeans {
    means(HookConfig { secret: Some(SECRET.parse().expect("a secret")), ..HookConfig::default() })
}

/// HMAC-SHA256 as RFC 2104 writes it, by another implementation of SHA-256 than the one that signs.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |with: u8| -> Vec<u8> { (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect() };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}

/// Base64 as RFC 4648 writes it, of what has a length of 3 n + 2, as a SHA-256 has.
fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    assert_eq!(bytes.len() % 3, 2);
    let mut padded = bytes.to_vec();
    padded.push(0);
    let groups = padded.chunks(3).map(|three| u32::from_be_bytes([0, three[0], three[1], three[2]]));
    let text: String =
        groups.flat_map(|bits| [18, 12, 6, 0].map(|shift| char::from(digits[(bits >> shift & 63) as usize]))).collect();
    format!("{}=", &text[..text.len() - 1])
}

#[tokio::test]
async fn a_webhook_says_who_is_to_be_cut_off_and_why() {
    let (address, mut told) = answers("HTTP/1.1 204 No Content\r\n\r\n").await;
    let result = run_hook(&hook(&format!("http://{address}/fence?rack=3")), &ask(), &signing()).await;
    assert_eq!((result.ok, result.code, result.status), (true, None, Some(204)), "{result:?}");
    assert_eq!(result.detail, format!("the webhook at {address} (signed) answered 204"));
    let request = told.recv().await.expect("a request");
    assert_eq!(request.line, "POST /fence?rack=3 HTTP/1.1");
    assert_eq!(request.header("host"), Some(address.to_string().as_str()));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).expect("JSON");
    assert_eq!(body["type"], "fencing.requested");
    assert!(body["timestamp"].as_str().is_some_and(|time| time.parse::<jiff::Timestamp>().is_ok()), "{body}");
    let expected = serde_json::json!({
        "action": "off", "transition": "tr-57", "attempt": 2, "service": "orders", "instance": "a",
        "address": "10.0.0.1:5432", "token": 42, "reason": "2 of 3 observers say down", "node": 3,
    });
    assert_eq!(body["data"], expected);
}

#[tokio::test]
async fn a_signature_is_what_anybody_computes_who_has_the_secret() {
    let (address, mut told) = answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let before = jiff::Timestamp::now().as_second();
    assert!(run_hook(&hook(&format!("http://{address}")), &ask(), &signing()).await.ok);
    let request = told.recv().await.expect("a request");
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    assert_eq!(id, Some("tr-57.2"));
    let timestamp: i64 = timestamp.expect("a timestamp").parse().expect("seconds");
    assert!((before..=before + 5).contains(&timestamp), "{timestamp} is not now, which is {before}");

    let message = [format!("tr-57.2.{timestamp}.").as_bytes(), &request.body].concat();
    let expected = format!("v1,{}", base64(&hmac_sha256(SECRET.as_bytes(), &message)));
    let signature = request.header("webhook-signature").expect("a signature");
    assert_eq!(signature, expected);
    // And nobody who has another one, or another body, computes the same.
    assert_ne!(signature, format!("v1,{}", base64(&hmac_sha256(b"a plain text of 24 bytez", &message))));
    let forged = String::from_utf8(message).expect("text").replace("\"instance\":\"a\"", "\"instance\":\"b\"");
    assert_ne!(signature, format!("v1,{}", base64(&hmac_sha256(SECRET.as_bytes(), forged.as_bytes()))));
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed_and_that_is_said() {
    let (address, mut told) = answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let result = run_hook(&hook(&format!("http://{address}/")), &ask(), &means(HookConfig::default())).await;
    assert!(result.ok && result.detail.contains("not signed: this node has no [webhooks] secret"), "{result:?}");
    let request = told.recv().await.expect("a request");
    assert_eq!(request.header("webhook-signature"), None);
    assert_eq!(request.header("webhook-id"), Some("tr-57.2"));
}

#[tokio::test]
async fn every_status_but_2xx_is_a_failure_and_no_body_is_repeated() {
    for status in [301, 302, 307, 400, 401, 404, 409, 429, 500, 503] {
        let body = "the body of the answer";
        let (other, mut reached) = answers("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let (address, mut told) = answers(&format!(
            "HTTP/1.1 {status} X\r\nlocation: http://{other}/\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let result = run_hook(&hook(&format!("http://{address}/")), &ask(), &signing()).await;
        assert_eq!((result.status, result.code), (Some(status), None), "{result:?}");
        assert_failed(&result, &format!("answered {status}"));
        assert!(!result.detail.contains("the body"), "{result:?}");
        assert_eq!(result.detail.contains("redirects are not followed"), status < 400, "{result:?}");
        assert!(told.recv().await.is_some() && told.try_recv().is_err(), "it is asked once");
        assert!(reached.try_recv().is_err(), "nobody is asked whom the answer names");
    }
}

#[tokio::test]
async fn a_body_without_end_holds_nothing_up() {
    let address = serve(|mut stream| async move {
        let _ = read(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n").await;
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let result = run_hook(&hook(&format!("http://{address}/")), &ask(), &signing()).await;
    assert!(result.ok && result.took < Duration::from_secs(1), "{result:?}");
}

#[tokio::test]
async fn no_answer_is_no_confirmation_and_nobody_claims_to_know_more() {
    let silent = serve(|mut stream| async move {
        let _ = read(&mut stream).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    })
    .await;
    let patient = FencingHook { timeout: Millis(300), ..hook(&format!("http://{silent}/")) };
    let result = run_hook(&patient, &ask(), &signing()).await;
    assert_failed(&result, "did not answer within 300ms: whether it cut the holder off is not known");
    assert!(result.took >= Duration::from_millis(300) && result.took < Duration::from_secs(2), "{result:?}");
    assert_eq!(result.status, None);

    let hangs_up = serve(|mut stream| async move {
        let _ = read(&mut stream).await;
    })
    .await;
    let result = run_hook(&hook(&format!("http://{hangs_up}/")), &ask(), &signing()).await;
    assert_failed(&result, "closed before the answer was complete; whether it cut the holder off is not known");

    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed = listener.local_addr().expect("its address");
    drop(listener);
    let result = run_hook(&hook(&format!("http://{closed}/")), &ask(), &signing()).await;
    assert_failed(&result, "connection refused");
    assert!(!result.detail.contains("not known"), "nothing was sent: {result:?}");
}

#[tokio::test]
async fn a_webhook_goes_only_where_a_probe_may_go() {
    for url in ["http://169.254.169.254/latest", "https://[fe80::1]:8443/", "http://[::ffff:169.254.169.254]/"] {
        let result = run_hook(&hook(url), &ask(), &signing()).await;
        assert_failed(&result, "deny-list");
        assert!(result.took < Duration::from_secs(1), "{result:?}");
    }
    assert_failed(&run_hook(&hook("ftp://127.0.0.1/"), &ask(), &signing()).await, "not a URL");
}

#[tokio::test]
async fn what_a_url_hides_in_its_path_is_not_told() {
    let (address, _told) = answers("HTTP/1.1 500 X\r\ncontent-length: 0\r\n\r\n").await;
    let result = run_hook(&hook(&format!("http://{address}/T0KEN?key=hunter2")), &ask(), &signing()).await;
    assert!(!result.detail.contains("T0KEN") && !result.detail.contains("hunter2"), "{result:?}");
}

/// A server over TLS with a certificate for 127.0.0.1, issued by itself under this name, and that certificate.
async fn secure(name: &str) -> (SocketAddr, mpsc::Receiver<Request>, Vec<rustls::pki_types::CertificateDer<'static>>) {
    let key = KeyPair::generate().expect("a key");
    let mut certificate = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    certificate.distinguished_name.push(DnType::CommonName, name);
    let certificate = certificate.self_signed(&key).expect("a certificate");
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (tell, told) = mpsc::channel(8);
    let address = serve(move |stream| {
        let (acceptor, tell) = (acceptor.clone(), tell.clone());
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            answer(stream, tell, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        }
    })
    .await;
    (address, told, vec![certificate.der().clone()])
}

#[tokio::test]
async fn https_is_verified_by_whom_this_node_trusts() {
    let (address, mut told, ca) = secure("one").await;
    let url = format!("https://{address}/");
    let config = || HookConfig { secret: Some(SECRET.parse().expect("a secret")), ..HookConfig::default() };
    let trusting = HookMeans::new(3, config(), &ProbeConfig { ca, ..ProbeConfig::default() });
    let result = run_hook(&FencingHook { timeout: Millis(10_000), ..hook(&url) }, &ask(), &trusting).await;
    assert!(result.ok && result.status == Some(200), "{result:?}");
    assert!(told.recv().await.is_some_and(|request| request.header("webhook-signature").is_some()));

    // Somebody else's certificate: nothing is sent over it.
    let (_, _, other) = secure("two").await;
    let wary = HookMeans::new(3, config(), &ProbeConfig { ca: other, ..ProbeConfig::default() });
    let result = run_hook(&FencingHook { timeout: Millis(10_000), ..hook(&url) }, &ask(), &wary).await;
    assert_failed(&result, "TLS: unknown issuer");
    assert!(!result.detail.contains("not known"), "nothing was sent: {result:?}");
    assert!(told.try_recv().is_err());
}
