//! Baton from outside: real daemons on loopback or in network namespaces, spoken to as a stranger would.
//!
//! One module a behaviour; each test reads like the transcript of a session. What is shared is in `support`, and that
//! never uses a type of Baton's own: an answer is JSON, an event is text, a node is a process.
//!
//! `BATON_TESTS_NO_SKIP=1` turns a test that may not make network namespaces here into a failure.

mod support;

mod api;
mod automation;
mod cli;
mod demo;
mod deploy;
mod durability;
mod failback;
mod failover;
mod faults;
mod garbage;
mod guards;
mod heartbeats;
mod hooks;
mod observers;
mod openapi;
mod operator;
mod overlap;
mod partition;
mod patch;
mod pick;
mod probing;
mod recovery;
mod reports;
mod roles;
mod run;
mod selfdoubt;
mod starvation;
mod stream;
mod verify;
