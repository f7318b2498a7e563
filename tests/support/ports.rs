//! Free loopback ports.
//!
//! Taken from below the range that the kernel draws outgoing ports from. A port found by binding to 0 lies inside that
//! range, and while its node is down any outgoing connection, even one *to* it, may be given the very same port; the
//! node could then not come back.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// The lowest port handed out.
const LOWEST: u16 = 12_000;
/// How many there are: up to 31,999, below Linux' default range of 32,768 and more.
const COUNT: u16 = 20_000;

/// How many were looked at by this process.
static LOOKED_AT: AtomicU16 = AtomicU16::new(0);

/// An address on loopback that nobody listened on a moment ago, and that is not handed out twice by this process.
/// Test processes start at different places of the range, so that they rarely meet.
pub(crate) fn free() -> SocketAddr {
    let start = u16::try_from(std::process::id() % u32::from(COUNT / 64)).expect("small") * 64;
    for _ in 0..COUNT {
        let offset = (start + LOOKED_AT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, LOWEST + offset));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no free port between {LOWEST} and {}", LOWEST + COUNT - 1)
}
