//! Guards: what stands before a resource and refuses a holder that has been replaced.
//!
//! Baton gives every promotion a [`Token`], a number that only rises. An old active that was paused, cut off or slow
//! does not know that it has been replaced; whatever it still sends carries the old number. A resource that remembers
//! the highest number it saw and refuses every lower one is therefore safe against it, with no clock in the argument
//! (promise I3). Source of the idea: Burrows, "The Chubby lock service" (2006, sequencers); Kleppmann, "How to do
//! distributed locking" (2016).
//!
//! Here are a guard that keeps the number in a file ([`FileGuard`]), the statements that keep it in a database beside
//! the work itself ([`sql`]), the words by which it travels in HTTP ([`http`]), and a test that tells whether a
//! resource keeps the promise ([`conformance`]). What a resource does with admitted work does not enter.

pub mod conformance;
mod file;
pub mod http;
pub mod sql;

use std::path::PathBuf;

use baton_core::id::Token;

pub use file::FileGuard;

/// The refusal of a token: somebody has come with a higher one, so whoever presents this one has been replaced.
///
/// It is final: no later try with the same token can be accepted. Who gets it stops working and asks Baton who is
/// active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token {presented} is stale: {highest} has been seen")]
pub struct Stale {
    /// The token that was refused.
    pub presented: Token,
    /// The highest one seen so far.
    pub highest: Token,
}

/// Why a guard did not let somebody pass. Only [`GuardError::Stale`] says anything about the token; after any of the
/// others the caller knows nothing, and nothing was admitted.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The token is lower than one seen before.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// What was kept cannot be read as what a guard writes. It is never taken for "nothing seen": a person has to look
    /// which token was the highest (the record of the last transition tells) and write it with [`FileGuard::create`].
    #[error("{} is not a guard's file: {why}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A step of reading, locking or keeping failed.
    #[error("cannot {step} {}: {source}", path.display())]
    Io {
        /// What was to be done: `read`, `lock`, `write`, …
        step: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An earlier write failed, so nobody knows what the disk holds: this guard admits nobody until it is opened again.
    #[error("an earlier write to {} failed; open it again when the disk is well", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// What another kind of guard stumbled over.
    #[error("the guard cannot decide: {0}")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Remembers the highest token seen by one resource, and refuses every lower one.
///
/// Whoever implements it promises: (1) when work is admitted, its token is durable as the highest, or one equal to it
/// was; (2) an equal token is admitted, since one holder does many things; (3) while the work of [`Guard::admit`] runs,
/// no other token is admitted; (4) where it cannot tell, it refuses. [`conformance`] tests what can be seen of this
/// from outside.
pub trait Guard: Send + Sync {
    /// Admits `token`, does `work` while nobody with another token can be admitted, and returns what came of it.
    /// Blocks: on the work of others, and on the disk when the token is new. In asynchronous code call it on a blocking
    /// thread.
    fn admit<T, W: FnOnce() -> T>(&self, token: Token, work: W) -> Result<T, GuardError>;

    /// The highest token seen; `None` when there was none yet.
    fn highest(&self) -> Result<Option<Token>, GuardError>;

    /// Admits `token` without doing anything under it: to present a new token before the first work.
    ///
    /// It is not enough around work that takes time. Between a `check` that passed and the work behind it a higher
    /// token may be admitted, and the old work then lands on top of the new: that is what [`Guard::admit`] is for.
    fn check(&self, token: Token) -> Result<(), GuardError> {
        self.admit(token, || ())
    }
}
