//! Baton: decides which instance of a service is active, proves that the old one has stopped, and tells everyone.

mod config;
mod consensus;
mod controller;
mod monitor;
mod net;
mod node;
mod prober;
mod store;

fn main() {}
