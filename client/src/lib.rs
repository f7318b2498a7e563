//! What travels between Baton and its clients: the wire views, an HTTP client and an event stream.
//!
//! A view is what the daemon answers, told in the words of `baton-core`; the client asks and listens, and decides nothing.
//! [`guard`] is for the other end: for resources that check fencing tokens.

mod error;
pub mod guard;
mod http;
mod routes;
mod sse;
mod stream;
pub mod view;

pub use error::ClientError;
pub use http::{Client, Pages};
pub use sse::{Frame, FrameTooLong, SseParser};
pub use stream::{EventStream, StreamItem, WatchFilter};
