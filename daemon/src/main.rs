//! x
mod monitor;
mod prober;
fn main() {}
