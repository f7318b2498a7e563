//! What travels between Baton and its clients: the wire views, an HTTP client, an event stream, and the session of an
//! instance that speaks for itself.
//!
//! A view is what the daemon answers, told in the words of `baton-core`; the client asks and listens, and decides nothing:
//! what a lease is worth is said by `baton_core::holder`. [`guard`] is for the other end: for resources that check fencing
//! tokens.

mod error;
pub mod guard;
mod http;
mod routes;
mod session;
mod sse;
mod stream;
pub mod view;

pub use error::ClientError;
pub use http::{Client, Pages};
pub use session::{
    Alarm, Asked, FOREVER, NoAlarm, Release, Session, SessionConfig, SessionEnd, SessionEvent, SessionOver, boot_time,
};
pub use sse::{Frame, FrameTooLong, SseParser};
pub use stream::{EventStream, StreamItem, WatchFilter};
