//! What travels between Baton and its clients: an HTTP client and an event stream over several endpoints.
//! No decision about services is made here; the servers decide, this crate asks and listens.

mod error;
mod http;
mod sse;

pub use error::{ClientError, FieldError};
pub use http::{Client, Pages};
pub use sse::{EventStream, Frame, FrameTooLong, SseParser, StreamItem, WatchFilter};
