//! The binary `baton`: server and command line. Only the doors are here; each room says for itself what it does.

mod api;
mod cli;
mod clock;
mod config;
mod consensus;
mod controller;
mod demo;
mod effects;
mod example_server;
mod judge;
mod leases;
mod monitor;
mod net;
mod node;
mod orphan;
mod prober;
mod program;
mod reports;
mod run;
mod store;
mod terminal;

fn main() -> std::process::ExitCode {
    cli::main()
}
