//! What travels between Baton and its clients: the wire views, an HTTP client and an event stream.
//!
//! Nothing here decides anything: a view is what the daemon answers, told in the words of `baton-core`.

pub mod view;
