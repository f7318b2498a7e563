//! What travels between Baton and its clients: the wire views, an HTTP client and an event stream.
//!
//! Nothing here decides anything: a view is what the daemon answers, told in the words of `baton-core`; the client asks
//! and listens.

mod error;
mod http;
mod routes;
mod session;
mod sse;
mod stream;
pub mod view;

pub use error::ClientError;
pub use http::{Client, Pages};
pub use session::{Alarm, NoAlarm, Release, Session, SessionEnd, SessionEvent, SessionOver, boot_time};
pub use sse::{Frame, FrameTooLong, SseParser};
pub use stream::{EventStream, StreamItem, WatchFilter};
