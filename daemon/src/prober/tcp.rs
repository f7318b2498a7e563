//! The TCP check: a connection can be made. Also the first step of every other check.

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
