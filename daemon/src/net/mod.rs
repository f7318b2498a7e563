//! The accept loop of both listeners, the API's and the peers': connection limit, a time-out for those who connect and
//! then say nothing, and a graceful end. What is served is a router's business. The other direction, from this node to
//! what an operator named, is `target`.

pub(crate) mod target;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// How long to rest after the operating system refused a connection (no file descriptor is free, most likely), instead
/// of asking it again at once and for ever.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What one listener allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at a time; more wait in the kernel's backlog.
    pub connections: usize,
    /// How long a client may take for the head of a request, the first one included.
    pub header_timeout: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
    /// How long requests that run may go on after the end was asked for.
    pub drain: Duration,
    /// The flow-control window of an HTTP/2 connection and each of its streams, in bytes.
    pub window: u32,
}

impl Limits {
    /// For the API: many clients, none of them trusted.
    pub(crate) const API: Self = Self {
        connections: 16_384,
        header_timeout: Duration::from_secs(10),
        streams: 256,
        drain: Duration::from_secs(5),
        window: 1024 * 1024,
    };
    /// For the peers: few connections, some with large bodies.
    pub(crate) const PEERS: Self = Self {
        connections: 1_024,
        header_timeout: Duration::from_secs(10),
        streams: 1_024,
        drain: Duration::from_millis(500),
        window: 8 * 1024 * 1024,
    };
}

/// Serves HTTP/1.1 and HTTP/2 (with prior knowledge) until the token is cancelled, then lets what runs finish for as long
/// as the limits say. The handlers find the client's address as `ConnectInfo<SocketAddr>`.
pub(crate) async fn serve(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .initial_connection_window_size(limits.window)
        .initial_stream_window_size(limits.window)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let builder = Arc::new(builder);
    let slots = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    // Ends what is left when the time for draining is over.
    let abandon = CancellationToken::new();

    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            slot = slots.clone().acquire_owned() => slot,
        };
        let (stream, address) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let watcher = graceful.watcher();
        let (builder, router, abandon) = (builder.clone(), router.clone(), abandon.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let spoken = Arc::new(AtomicBool::new(false));
            let service = service(router, address, spoken.clone());
            // Small answers must not wait for more: a refusal only costs latency.
            let _ = stream.set_nodelay(true);
            let connection = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
            let mut connection = pin!(connection);
            let silence = tokio::time::sleep(limits.header_timeout);
            tokio::select! {
                result = &mut connection => return ended(address, result),
                () = abandon.cancelled() => return,
                () = silence => {}
            }
            if spoken.load(Ordering::Relaxed) {
                tokio::select! {
                    result = connection => ended(address, result),
                    () = abandon.cancelled() => {}
                }
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::debug!("some requests were cut off at the end");
    }
    abandon.cancel();
}

fn ended<E: std::fmt::Display>(address: SocketAddr, result: Result<(), E>) {
    if let Err(error) = result {
        tracing::debug!(%address, %error, "a connection ended badly");
    }
}

/// One connection's way to the router: notes that a request came, and whose it is.
fn service(
    router: Router,
    address: SocketAddr,
    spoken: Arc<AtomicBool>,
) -> impl hyper::service::Service<
    http::Request<Incoming>,
    Response = axum::response::Response,
    Error = std::convert::Infallible,
    Future: Send + 'static,
> + Send
+ 'static {
    service_fn(move |mut request: http::Request<Incoming>| {
        spoken.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(ConnectInfo(address));
        // A router is always ready, so it need not be asked.
        router.clone().call(request)
    })
}

/// Connects with a time-out, without Nagle's delay.
pub(crate) async fn connect(address: &str, patience: Duration) -> std::io::Result<TcpStream> {
    let stream = tokio::time::timeout(patience, TcpStream::connect(address))
        .await
        .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no connection in time"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
