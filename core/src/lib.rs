//! Baton's decisions, and nothing else.
//!
//! Everything here is a function of its arguments: the state, an input, and `now` where time matters. There is no
//! socket, no file, no clock, no thread and no source of entropy in this crate; `clippy.toml` beside it says so to the
//! compiler. The same code runs in the daemon, in the property tests and under a simulator.

pub mod apply;
pub mod assign;
pub mod breaker;
pub mod calls;
pub mod command;
pub mod detector;
pub mod event;
pub mod holder;
pub mod id;
pub mod json;
pub mod lease;
pub mod mutant;
pub mod pick;
pub mod planner;
pub mod policy;
pub mod probe;
pub mod recovery;
pub mod rules;
pub mod sight;
pub mod state;
pub mod time;
pub mod transition;
pub mod window;
