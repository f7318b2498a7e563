//! Instances that misbehave in ways a real server would not on request, each on a loopback port inside this process.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What a server does to whoever connects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Manner {
    /// Answers every request with this status.
    Status(u16),
    /// Takes the connection and never says a word.
    Hangs,
    /// Says the status line and hangs.
    StopsHalfway,
    /// Answers with what is no HTTP at all.
    Babbles,
    /// Closes at once.
    HangsUp,
    /// A status line and then headers without end.
    NeverEnds,
    /// Redirects to somewhere that would be well.
    Redirects(SocketAddr),
}

/// A misbehaving server; it ends with this value.
pub(crate) struct Misfit {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Misfit {
    /// Starts one.
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind(super::ports::free()).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            // Dropped with the set, and so ended with the server.
            let mut visits = tokio::task::JoinSet::new();
            loop {
                if let Ok((socket, _)) = listener.accept().await {
                    visits.spawn(visit(socket, manner));
                }
                while visits.try_join_next().is_some() {}
            }
        });
        Self { address, task }
    }
}

impl Drop for Misfit {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection. The visitor may go at any time, so no write needs to succeed.
async fn visit(mut socket: TcpStream, manner: Manner) {
    let mut request = [0u8; 4096];
    match manner {
        Manner::HangsUp => {}
        Manner::Hangs => while socket.read(&mut request).await.is_ok_and(|n| n > 0) {},
        Manner::Status(status) => {
            let answer = format!("HTTP/1.1 {status} Because\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if socket.read(&mut request).await.is_ok() {
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        }
        Manner::Redirects(to) => {
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{to}/health\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            if socket.read(&mut request).await.is_ok() {
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        }
        Manner::StopsHalfway => {
            // Asked first: a server that talks before it is asked is another kind of sick.
            let _ = socket.read(&mut request).await;
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await;
            while socket.read(&mut request).await.is_ok_and(|n| n > 0) {}
        }
        Manner::Babbles => {
            if socket.read(&mut request).await.is_ok() {
                let _ = socket.write_all(b"220 mail.example.com ESMTP\r\n\r\n").await;
            }
        }
        Manner::NeverEnds => {
            let _ = socket.read(&mut request).await;
            if socket.write_all(b"HTTP/1.1 200 OK\r\n").await.is_ok() {
                while socket.write_all(b"x-more: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await.is_ok()
                {
                }
            }
        }
    }
}
