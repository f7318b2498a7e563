//! A test for resources: does this one keep the promise that a guard makes? Run it against yours.
//!
//! It writes to the resource with tokens that rise, repeat and fall, one after the other and many at once, starts it
//! again where that is offered, and says which rule was broken, by which sequence, under which seed. It sees a resource
//! from outside only: what it finds is a fault, and what it does not find is no proof.
//!
//! *Never run it against a resource in use.* It raises the highest token far above what Baton has minted, so that the
//! real holder would be refused from then on.
//!
//! How the writes of many at once are judged is `judge`'s; in which order things are tried is `script`'s; HTTP is
//! `http`'s.

mod http;
mod judge;
mod report;
mod script;
mod seed;

use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

pub use http::{HttpResource, Method, NotAResource};
pub use report::{Failure, Report, Rule};

/// What a resource did with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The write was done.
    Accepted,
    /// The token was refused and nothing was done.
    Refused,
}

/// What is read from a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It cannot be read.
    NotOffered,
    /// No value has been written.
    Nothing,
    /// The value of the last accepted write.
    Value(u64),
}

/// No outcome could be learned: the resource did not answer, or neither yes nor no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unanswered {
    /// What was seen instead.
    pub why: String,
    /// Whether nothing came at all: no connection, or no answer on it. Otherwise the answer was no outcome.
    pub silent: bool,
}

impl Unanswered {
    /// Nobody answered.
    pub fn silent(why: impl Into<String>) -> Self {
        Self { why: why.into(), silent: true }
    }

    /// An answer that says neither yes nor no.
    pub fn wrong(why: impl Into<String>) -> Self {
        Self { why: why.into(), silent: false }
    }
}

/// A resource as the test sees it. `write` is enough; each of the others lets more rules be tried. An `async fn` will
/// do for any of them.
pub trait Resource: Send + Sync + 'static {
    /// Writes `value` with `token`. Called many times at once.
    fn write(&self, token: u64, value: u64) -> impl Future<Output = Result<Outcome, Unanswered>> + Send;

    /// Writes `value` with no token at all; `None` where there is no way to leave it out.
    fn write_bare(&self, value: u64) -> impl Future<Output = Result<Option<Outcome>, Unanswered>> + Send {
        let _ = value;
        ready(Ok(None))
    }

    /// The value that stands: that of the last accepted write.
    fn read(&self) -> impl Future<Output = Result<Standing, Unanswered>> + Send {
        ready(Ok(Standing::NotOffered))
    }

    /// Ends the resource, the harder the better (`kill -9`), and returns true when it is up again; false where that is
    /// not offered.
    fn restart(&self) -> impl Future<Output = Result<bool, Unanswered>> + Send {
        ready(Ok(false))
    }
}

/// How much is tried. The same options on a fresh resource try the same again, but for the interleaving of what is at
/// once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What the random parts grow from.
    pub seed: u64,
    /// The first token: higher than any that the resource has seen. Taken as 2 where it is less, and as 2^53 − 2^41 − 1
    /// where it is more, so that there is room on both sides.
    pub first: u64,
    /// Random writes one after the other.
    pub steps: usize,
    /// Rounds of writes at once.
    pub rounds: usize,
    /// Writers at once, each with a token of its own; 2 or more.
    pub writers: usize,
    /// Writes of each writer in a round.
    pub writes: usize,
    /// How long one write, read or restart may take.
    pub answer_within: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            first: 1_000,
            steps: 200,
            rounds: 20,
            writers: 8,
            writes: 4,
            // Far beyond what a write takes, and short enough that a resource that hangs is found out while one looks
            // on.
            answer_within: Duration::from_secs(10),
        }
    }
}

/// Runs the whole test, and ends with the first broken rule: what comes after it would be judged by a wrong measure.
pub async fn run<R: Resource>(resource: Arc<R>, options: Options) -> Result<Report, Box<Failure>> {
    script::Run::new(resource, options).all().await
}
