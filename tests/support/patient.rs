//! Patients: servers inside this process that are well until they are told to fall ill, each in its own way, and well again
//! when they are told so. What a check of each kind asks, they answer over real sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// Each way to fall ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Illness {
    /// Nobody listens any more.
    Refused,
    /// Whoever connects gets a reset.
    Reset,
    /// Takes the connection and never says a word.
    Hangs,
    /// A body at one byte a second.
    Trickles,
    /// A body without end.
    Endless,
    /// Three of ten answers are 500, in no pattern that observers who take turns could fall into.
    ErrorsNowAndThen,
    /// 429.
    Busy,
    /// Its certificate expired years ago.
    CertificateExpired,
    /// `grpc.health.v1` says NOT_SERVING.
    NotServing,
    /// 200, and not what was agreed.
    WrongBody,
}

/// Every illness.
pub(crate) const ILLNESSES: [Illness; 10] = [
    Illness::Refused,
    Illness::Reset,
    Illness::Hangs,
    Illness::Trickles,
    Illness::Endless,
    Illness::ErrorsNowAndThen,
    Illness::Busy,
    Illness::CertificateExpired,
    Illness::NotServing,
    Illness::WrongBody,
];

/// The checks' settings, from which what is promised follows.
const INTERVAL: Duration = Duration::from_millis(500);
const FAST: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_millis(300);
const FALL: u32 = 3;
/// The window of the error rate.
const WINDOW: Duration = Duration::from_secs(3);
/// What agreeing takes beside: DESIGN section 9.
const AGREEING: Duration = Duration::from_millis(150);

impl Illness {
    /// A name for a service.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Hangs => "hangs",
            Self::Trickles => "trickles",
            Self::Endless => "endless",
            Self::ErrorsNowAndThen => "errors-30-percent",
            Self::Busy => "busy-429",
            Self::CertificateExpired => "tls-expired",
            Self::NotServing => "grpc-not-serving",
            Self::WrongBody => "wrong-body",
        }
    }

    /// The class that it must be seen as.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Refused | Self::Reset | Self::CertificateExpired => "connection",
            Self::Hangs | Self::Trickles => "timeout",
            Self::ErrorsNowAndThen => "server_error",
            Self::Busy => "rate_limit",
            Self::Endless | Self::NotServing | Self::WrongBody => "malformed",
        }
    }

    /// The longest time from falling ill to the cluster's agreement that these settings promise.
    pub(crate) fn promised(self) -> Duration {
        let in_a_row = INTERVAL + FAST * (FALL - 1) + AGREEING;
        match self {
            Self::Hangs | Self::Trickles => in_a_row + TIMEOUT * FALL,
            // By then the whole window is of the ill time.
            Self::ErrorsNowAndThen => WINDOW + FAST + AGREEING,
            Self::Refused
            | Self::Reset
            | Self::Endless
            | Self::Busy
            | Self::CertificateExpired
            | Self::NotServing
            | Self::WrongBody => in_a_row,
        }
    }

    /// The spec of a service whose instances are checked for it.
    pub(crate) fn spec(self, ca: &str) -> Value {
        let ms = |length: Duration| format!("{}ms", length.as_millis());
        let mut check = json!({
            "name": "check", "interval": ms(INTERVAL), "fast_interval": ms(FAST), "timeout": ms(TIMEOUT), "fall": FALL
        });
        let kind = match self {
            Self::Refused | Self::Reset | Self::Hangs | Self::Busy => json!({"type": "http", "path": "/health"}),
            Self::Trickles | Self::Endless | Self::WrongBody => {
                json!({"type": "http", "path": "/health", "expect_body": "^ok$"})
            }
            // Enough looks for a rate within the window.
            Self::ErrorsNowAndThen => json!({"type": "http", "path": "/health", "interval": ms(FAST)}),
            Self::CertificateExpired => json!({"type": "tls", "tls": {"server_name": "patient.test", "ca": ca}}),
            Self::NotServing => json!({"type": "grpc"}),
        };
        check.as_object_mut().expect("an object").extend(kind.as_object().expect("an object").clone());
        json!({
            "mode": "active_active",
            "checks": [check],
            "detection": {"error_rate": {"window": ms(WINDOW), "min_requests": 10, "threshold": 0.2}},
            "recovery": {"strategy": "immediate", "cooldown": "0s"}
        })
    }
}

/// The certificates of patients that speak TLS: one that is well, one that expired, and who vouches for both.
pub(crate) struct Papers {
    /// PEM of the authority.
    pub(crate) ca: String,
    well: TlsAcceptor,
    expired: TlsAcceptor,
}

impl Papers {
    /// Makes them.
    pub(crate) fn new() -> Arc<Self> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        let acceptor = |until: i32| {
            let key = KeyPair::generate().expect("a key");
            let mut leaf = CertificateParams::new(vec!["patient.test".to_owned()]).expect("a name");
            leaf.not_before = date_time_ymd(2000, 1, 1);
            leaf.not_after = date_time_ymd(until, 1, 1);
            let certificate: CertificateDer<'static> = leaf.signed_by(&key, &issuer).expect("signed").der().clone();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![certificate], key)
                .expect("a server's configuration");
            TlsAcceptor::from(Arc::new(config))
        };
        Arc::new(Self { ca: ca.pem(), well: acceptor(2090), expired: acceptor(2001) })
    }
}

/// A server that can fall ill; it ends with this value.
pub(crate) struct Patient {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    ill: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Patient {
    /// Starts one that is well.
    pub(crate) async fn start(illness: Illness, papers: &Arc<Papers>) -> Self {
        let address = super::ports::free();
        let listener = TcpListener::bind(address).await.expect("a free port");
        let (ill, seen) = watch::channel(false);
        let task = tokio::spawn(live(illness, listener, seen, papers.clone()));
        Self { address, ill, task }
    }

    /// From now on it is ill, or well.
    pub(crate) fn set_ill(&self, ill: bool) {
        self.ill.send_replace(ill);
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn live(illness: Illness, listener: TcpListener, mut ill: watch::Receiver<bool>, papers: Arc<Papers>) {
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut listener = Some(listener);
    let mut visits = JoinSet::new();
    let mut count = 0u64;
    loop {
        if illness == Illness::Refused {
            let ill = *ill.borrow();
            match (ill, &listener) {
                (true, Some(_)) => listener = None,
                (false, None) => listener = Some(TcpListener::bind(address).await.expect("its own port")),
                (true, None) | (false, Some(_)) => {}
            }
        }
        let came = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok((socket, _)) = came => {
                count += 1;
                let ill = *ill.borrow();
                visits.spawn(visit(illness, ill, count, socket, papers.clone()));
            }
            changed = ill.changed() => if changed.is_err() { return },
        }
        while visits.try_join_next().is_some() {}
    }
}

/// splitmix64's finalizer: the same numbers each time, and no pattern in them.
fn mixed(count: u64) -> u64 {
    let mut mixed = count.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// One connection. The visitor may go at any time, so no write needs to succeed.
async fn visit(illness: Illness, ill: bool, count: u64, mut socket: TcpStream, papers: Arc<Papers>) {
    match illness {
        Illness::CertificateExpired => {
            let acceptor = if ill { &papers.expired } else { &papers.well };
            if let Ok(mut tls) = acceptor.accept(socket).await {
                let _ = tls.read(&mut [0; 16]).await;
            }
        }
        Illness::NotServing => serve_grpc(socket, ill).await,
        Illness::Reset if ill => {
            let _ = socket.set_zero_linger();
        }
        Illness::Hangs if ill => while socket.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {},
        Illness::Trickles if ill => {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
            while socket.write_all(b"o").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Illness::Endless if ill => {
            let _ = socket.read(&mut [0; 4096]).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while socket.write_all(&[b'a'; 4096]).await.is_ok() {}
        }
        Illness::ErrorsNowAndThen if ill && mixed(count) % 10 < 3 => answer(&mut socket, 500, "no").await,
        Illness::Busy if ill => answer(&mut socket, 429, "later").await,
        Illness::WrongBody if ill => answer(&mut socket, 200, "maintenance page").await,
        Illness::Refused
        | Illness::Reset
        | Illness::Hangs
        | Illness::Trickles
        | Illness::Endless
        | Illness::ErrorsNowAndThen
        | Illness::Busy
        | Illness::WrongBody => answer(&mut socket, 200, "ok").await,
    }
}

async fn answer(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), status: u16, body: &str) {
    let text =
        format!("HTTP/1.1 {status} Because\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    if socket.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0) {
        let _ = socket.write_all(text.as_bytes()).await;
        // Whoever asked closes first.
        let _ = socket.read(&mut [0; 16]).await;
    }
}

/// `grpc.health.v1.Health/Check`, whatever is asked: a message of one field, the status.
async fn serve_grpc(socket: TcpStream, ill: bool) {
    let service = service_fn(move |_: hyper::Request<Incoming>| async move {
        let status = if ill { 2 } else { 1 };
        let message = Bytes::from(vec![0, 0, 0, 0, 2, 0x08, status]);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
        let mut response = Response::new(StreamBody::new(stream::iter(frames)));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        Ok::<_, Infallible>(response)
    });
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(socket), service)
        .await;
}
