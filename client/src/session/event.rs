//! What a session tells whoever does the work. Times are those of the session's own clock, which counts the sleep of
//! the machine; nothing here reads it.

use std::time::Duration;

use baton_core::id::{InstanceId, Token};
use baton_core::probe::LocalTime;

/// The end of a lease under `on_quorum_loss: freeze`: its holder goes on without a quorum, until it is told to step down.
pub const FOREVER: LocalTime = LocalTime(Duration::MAX);

/// News of a session, in the order in which they came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// The instance waits: it is registered, and somebody else is active, or nobody yet.
    Passive {
        /// Who is active, where it is known.
        active: Option<InstanceId>,
    },
    /// The instance is the active one: it may act by this token, until then and no longer.
    Active {
        /// The fencing token of its promotion. It goes with everything that is written.
        token: Token,
        /// When the lease ends; [`FOREVER`] where it does not end by itself.
        until: LocalTime,
        /// The length of a lease of this tenure.
        ttl: Duration,
    },
    /// The lease was renewed.
    Extended {
        /// Whose lease it is.
        token: Token,
        /// When it ends now; never before the time that was told first.
        until: LocalTime,
    },
    /// The cluster renews no more: stop, then release. The lease runs to the end that was told last.
    StepDown {
        /// Which token is to be given back.
        token: Token,
        /// Why, as far as it is known.
        reason: String,
    },
    /// A release has been heard by the cluster. Where the instance leaves, also: it was not, and the lease is over.
    Released {
        /// Of which token.
        token: Token,
    },
    /// The cluster has heard that the instance goes away, or nobody there could be told in time: nothing is left to wait for.
    Left,
    /// Nobody renews: requests fail. Told once until an answer comes again.
    Unreachable {
        /// What was seen last.
        why: String,
    },
    /// An answer came after some had failed.
    Reachable,
    /// The session is over, and so is any lease that it had: nothing more comes.
    Over(SessionOver),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOver {
    /// Somebody else has registered under the same id, and is the instance now.
    Superseded,
    /// The cluster refuses the instance for a reason that does not pass by itself.
    Refused {
        /// What it said.
        why: String,
    },
}
