//! Baton: decides which instance of a service is active, proves that the old one has stopped, and tells everyone.

mod consensus;
mod monitor;
mod net;
mod prober;
mod store;

fn main() {}
