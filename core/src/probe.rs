//! What one look at an instance says: outcomes, classes of failure, verdicts, and whether a look can be believed at all.
//! The looking itself is the daemon's; judging a row of looks is `detector`'s.

use serde::{Deserialize, Serialize};

use crate::policy::words;
use crate::time::Millis;

words! {
    /// What one observer holds of one instance.
    Verdict {
        /// Nobody has looked, or the looker cannot trust itself.
        Unknown = "unknown",
        /// It answers as it should.
        Up = "up",
        /// Something failed, not often enough to say `down`.
        Suspect = "suspect",
        /// It failed often enough in a row.
        Down = "down",
    }
}

words! {
    /// What the cluster agrees on about one instance.
    Health {
        /// Nobody has looked.
        Unknown = "unknown",
        /// Somebody sees it up and nobody doubts it.
        Healthy = "healthy",
        /// Somebody doubts it, no verdict quorum says down.
        Suspect = "suspect",
        /// A verdict quorum says down.
        Unhealthy = "unhealthy",
        /// Taken out by an operator.
        Isolated = "isolated",
    }
}

words! {
    /// How a call or a probe failed.
    FailureClass {
        /// No answer in time.
        Timeout = "timeout",
        /// Refused, reset, unreachable, not resolved, or TLS failed.
        Connection = "connection",
        /// HTTP 5xx.
        ServerError = "server_error",
        /// HTTP 429.
        RateLimit = "rate_limit",
        /// An answer that is not what was agreed: unparsable, wrong body, unexpected status without a class of its own.
        Malformed = "malformed",
        /// Slower than the slow-call limit.
        Slow = "slow",
        /// HTTP 4xx other than 429.
        ClientError = "client_error",
    }
}

/// The longest `detail` of a failure that is kept, in bytes. It travels through the log once per change of verdict.
pub const DETAIL_MAX: usize = 200;

/// How one probe went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The instance answered as agreed.
    Success,
    /// It did not.
    Failure {
        /// In which way.
        class: FailureClass,
        /// What was seen, in a few words; at most [`DETAIL_MAX`] bytes, never a body.
        detail: String,
    },
}

/// Why an observer holds its verdict: travels with it through the log into the transition's record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Evidence {
    /// The check that decided.
    pub check: String,
    /// The class of the last failure, where the verdict is not `up`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// What was seen last, in a few words.
    pub detail: String,
    /// Outcomes of this kind in a row.
    pub streak: u32,
    /// How long before the verdict was proposed the first failure of the row was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure_age: Option<Millis>,
}
