//! One HTTP/1.1 request on a connection of its own. No redirects, no proxy, no pool, no retry. Whatever is answered costs
//! bounded memory; the caller bounds the time. What the answer means is not known here.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::fault::Fault;

/// What this protocol is called in a handshake of TLS (RFC 7301, section 6).
pub(crate) const ALPN: &[u8] = b"http/1.1";

/// The most bytes of a status line and headers that are taken in. Of headers there may be 100, as is hyper's own limit: to
/// set another, even the same, costs it an allocation for each answer.
const HEAD_MAX: usize = 32 * 1024;

/// A stream that is not shut down when hyper is done with it: how it ends is decided by whoever owns it.
struct Unended<S>(S);

impl<S: AsyncRead + Unpin> AsyncRead for Unended<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unended<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The connection under a request. It makes progress only while somebody drives it, so no task is needed for it.
pub(crate) struct Driven<S: AsyncRead + AsyncWrite + Unpin, B: Body + 'static> {
    connection: http1::Connection<TokioIo<Unended<S>>, B>,
    over: bool,
}

impl<S, B> Driven<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    /// Runs `work` with the connection under it. How the connection ends, `work` is told by its own error.
    pub(crate) async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|context| {
            if !self.over && Pin::new(&mut self.connection).poll(context).is_ready() {
                self.over = true;
            }
            match work.as_mut().poll(context) {
                Poll::Ready(done) => Poll::Ready(done),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Sends `request` over `stream` and waits for the head of the answer. Its body, if anybody wants it, is read while the
/// connection is driven.
pub(crate) async fn send<S, B>(stream: S, request: Request<B>) -> Result<(Response<Incoming>, Driven<S, B>), Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let failed = |error: hyper::Error| Fault::of_hyper("HTTP/1.1", &error);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_MAX)
        .handshake::<_, B>(TokioIo::new(Unended(stream)))
        .await
        .map_err(failed)?;
    let mut driven = Driven { connection, over: false };
    let response = driven.run(sender.send_request(request)).await.map_err(failed)?;
    Ok((response, driven))
}
