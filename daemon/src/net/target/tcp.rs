//! The TCP check: a connection can be made. Also the first step of every other check that needs one, and the last.

use std::net::SocketAddr;

use baton_core::probe::FailureClass;
use tokio::net::TcpStream;

use super::fault::Fault;
use super::resolve::Resolver;

/// Connects to the first address of `host` that lets itself be connected to. The caller bounds the time.
pub(crate) async fn connect(resolver: &Resolver, host: &str, port: u16) -> Result<TcpStream, Fault> {
    let mut last = Fault::target(FailureClass::Connection, "no address to connect to");
    for ip in resolver.addresses(host).await?.iter() {
        match TcpStream::connect(SocketAddr::new(*ip, port)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = Fault::of_io("connecting", &error),
        }
    }
    Err(last)
}

/// Lets a connection go that has served its purpose, by a reset (`SO_LINGER` of zero) and not by the usual farewell.
///
/// Whoever closes first keeps the connection in TIME_WAIT for a minute, and a prober always closes first: 5,000 checks a
/// second would leave 300,000 such sockets on this node, more than a kernel keeps by default (`tcp_max_tw_buckets`), and
/// one target that is asked 500 times a second would use up the ports towards it. The farewell guards against late
/// segments of what was said last; after a complete answer there is nothing left that could be lost. HAProxy ends its
/// checks in the same way. A failed probe closes as usual, so that the peer hears out what it may still want to say.
pub(crate) fn let_go(stream: &TcpStream) {
    // If it cannot be set, the connection ends in the usual way.
    let _ = stream.set_zero_linger();
}

/// Has small writes sent at once. Needed where more than one follow each other without an answer between them, as in a
/// TLS handshake or HTTP/2: each would wait for the acknowledgement of the one before. A single request does not.
pub(crate) fn without_delay(stream: &TcpStream) {
    // If it cannot be set, the probe takes a little longer.
    let _ = stream.set_nodelay(true);
}
