//! The binary `baton`: server and command line. Only the doors are here; each room says for itself what it does.

mod cli;
mod demo;
mod example_server;
mod orphan;

fn main() -> std::process::ExitCode {
    cli::main()
}
