//! What clients tell of their calls: the words for it, what a telling amounts to, and the counts. Summing over a slice of
//! time is next door in `slice`, latencies in `latencies`. Judging is `detector`'s, and no instance's name enters here.

mod latencies;
mod slice;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use latencies::Latencies;
pub use slice::CallSlice;

use crate::policy::words;
use crate::probe::FailureClass;

words! {
    /// How a call went, in the words of reports: a success, or one of the classes of failure.
    CallOutcome {
        /// Answered as it should be.
        Success = "success",
        /// No answer in time.
        Timeout = "timeout",
        /// Refused, reset, unreachable, not resolved, or TLS failed.
        Connection = "connection",
        /// HTTP 5xx.
        ServerError = "server_error",
        /// HTTP 429.
        RateLimit = "rate_limit",
        /// An answer that is not what was agreed.
        Malformed = "malformed",
        /// Answered, but slower than the caller can use.
        Slow = "slow",
        /// HTTP 4xx other than 429: the caller's own fault. Counted, not a failure.
        ClientError = "client_error",
    }
}

impl CallOutcome {
    /// The class of failure it is counted under; none for a success.
    pub const fn class(self) -> Option<FailureClass> {
        match self {
            Self::Success => None,
            Self::Timeout => Some(FailureClass::Timeout),
            Self::Connection => Some(FailureClass::Connection),
            Self::ServerError => Some(FailureClass::ServerError),
            Self::RateLimit => Some(FailureClass::RateLimit),
            Self::Malformed => Some(FailureClass::Malformed),
            Self::Slow => Some(FailureClass::Slow),
            Self::ClientError => Some(FailureClass::ClientError),
        }
    }

    /// Whether it speaks against the instance: all but a success and a client's own error do. A client error is an answer
    /// of a server that works, so it ends a row of failures as a success does (Envoy's outlier detection and linkerd
    /// read it so, too).
    pub const fn is_failure(self) -> bool {
        match self {
            Self::Success | Self::ClientError => false,
            Self::Timeout | Self::Connection | Self::ServerError | Self::RateLimit | Self::Malformed | Self::Slow => {
                true
            }
        }
    }

    /// Whether its latency tells how long the instance takes for its work. A refused connection, an error and a
    /// client's mistake come back at once, and would make an instance look the quicker the more it fails; a success, a
    /// slow answer and a time-out (which took at least that long) tell of the work.
    pub const fn tells_latency(self) -> bool {
        match self {
            Self::Success | Self::Slow | Self::Timeout => true,
            Self::Connection | Self::ServerError | Self::RateLimit | Self::Malformed | Self::ClientError => false,
        }
    }
}

/// One call as its caller tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// What it amounts to; see [`classify`].
    pub outcome: CallOutcome,
    /// How long it took, where the caller says so.
    pub latency: Option<Duration>,
    /// How many calls went like this, one after the other. None at all is no call.
    pub count: u32,
}

/// What one call amounts to, from what the client says of it: its word, else what its HTTP `status` means, else a
/// success. A call that took longer than `timeout` is a [`CallOutcome::Timeout`] even where the caller was content,
/// for an answer after it is none; one that failed keeps the class in which it failed.
///
/// For a caller every status below 400 is an answer: unlike a probe's `expect_status`, nobody has said which one was
/// wanted. A number that is no status at all is malformed.
pub fn classify(
    outcome: Option<CallOutcome>,
    status: Option<u16>,
    latency: Option<Duration>,
    timeout: Duration,
) -> CallOutcome {
    let said = outcome.or_else(|| status.map(of_status)).unwrap_or(CallOutcome::Success);
    let late = latency.is_some_and(|latency| latency > timeout);
    if late && !said.is_failure() { CallOutcome::Timeout } else { said }
}

const fn of_status(status: u16) -> CallOutcome {
    match status {
        100..=399 => CallOutcome::Success,
        429 => CallOutcome::RateLimit,
        400..=499 => CallOutcome::ClientError,
        500..=599 => CallOutcome::ServerError,
        _ => CallOutcome::Malformed,
    }
}

/// How often each thing happened. All sums saturate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallCounts {
    /// Answered as it should be.
    pub success: u64,
    /// No answer in time.
    pub timeout: u64,
    /// Refused, reset, unreachable, not resolved, or TLS failed.
    pub connection: u64,
    /// HTTP 5xx.
    pub server_error: u64,
    /// HTTP 429.
    pub rate_limit: u64,
    /// Not what was agreed.
    pub malformed: u64,
    /// Too slow.
    pub slow: u64,
    /// HTTP 4xx other than 429: not a failure.
    pub client_error: u64,
}

impl CallCounts {
    /// Counts `count` calls that went like this.
    pub const fn add(&mut self, outcome: CallOutcome, count: u64) {
        let field = match outcome {
            CallOutcome::Success => &mut self.success,
            CallOutcome::Timeout => &mut self.timeout,
            CallOutcome::Connection => &mut self.connection,
            CallOutcome::ServerError => &mut self.server_error,
            CallOutcome::RateLimit => &mut self.rate_limit,
            CallOutcome::Malformed => &mut self.malformed,
            CallOutcome::Slow => &mut self.slow,
            CallOutcome::ClientError => &mut self.client_error,
        };
        *field = field.saturating_add(count);
    }

    /// Adds what another one counted.
    pub const fn merge(&mut self, other: &Self) {
        self.success = self.success.saturating_add(other.success);
        self.timeout = self.timeout.saturating_add(other.timeout);
        self.connection = self.connection.saturating_add(other.connection);
        self.server_error = self.server_error.saturating_add(other.server_error);
        self.rate_limit = self.rate_limit.saturating_add(other.rate_limit);
        self.malformed = self.malformed.saturating_add(other.malformed);
        self.slow = self.slow.saturating_add(other.slow);
        self.client_error = self.client_error.saturating_add(other.client_error);
    }

    /// All calls, client errors included.
    pub const fn calls(&self) -> u64 {
        self.failures().saturating_add(self.answered())
    }

    /// Those that speak against the instance.
    pub const fn failures(&self) -> u64 {
        self.timeout
            .saturating_add(self.connection)
            .saturating_add(self.server_error)
            .saturating_add(self.rate_limit)
            .saturating_add(self.malformed)
            .saturating_add(self.slow)
    }

    /// Those that do not: successes and client errors.
    pub const fn answered(&self) -> u64 {
        self.success.saturating_add(self.client_error)
    }
}

/// The numbers that opened (or closed) a breaker; they travel in events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerNumbers {
    /// The longest row of failures.
    pub consecutive_failures: u64,
    /// Calls within the breaker's window.
    pub calls: u64,
    /// Failures among them.
    pub failures: u64,
    /// The class of the last failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_amounts_to_what_its_caller_says_unless_it_came_too_late() {
        use CallOutcome as O;
        let timeout = Duration::from_secs(30);
        let (in_time, late) = (Some(timeout), Some(timeout + Duration::from_nanos(1)));
        for (outcome, status, latency, expected) in [
            (Some(O::Success), None, in_time, O::Success),
            (Some(O::Success), None, late, O::Timeout),
            (Some(O::ClientError), None, late, O::Timeout),
            (Some(O::ServerError), None, late, O::ServerError),
            (Some(O::Slow), None, late, O::Slow),
            // The word is the caller's judgement, and the status is only what it was shown.
            (Some(O::Malformed), Some(200), None, O::Malformed),
            (Some(O::Success), Some(503), None, O::Success),
            (None, Some(200), None, O::Success),
            (None, Some(304), in_time, O::Success),
            (None, Some(204), late, O::Timeout),
            (None, Some(404), None, O::ClientError),
            (None, Some(404), late, O::Timeout),
            (None, Some(429), late, O::RateLimit),
            (None, Some(500), None, O::ServerError),
            (None, Some(599), None, O::ServerError),
            (None, Some(0), None, O::Malformed),
            (None, Some(600), None, O::Malformed),
            (None, None, in_time, O::Success),
            (None, None, late, O::Timeout),
            (None, None, None, O::Success),
        ] {
            assert_eq!(classify(outcome, status, latency, timeout), expected, "{outcome:?} {status:?} {latency:?}");
        }
    }

    #[test]
    fn every_word_is_counted_in_its_own_field() {
        let mut counts = CallCounts::default();
        for (place, (_, outcome)) in CallOutcome::ALL.iter().enumerate() {
            counts.add(*outcome, 1 << place);
        }
        let written = serde_json::to_value(counts).unwrap();
        for (place, (word, outcome)) in CallOutcome::ALL.iter().enumerate() {
            assert_eq!(written[*word], 1 << place, "{word}");
            assert_eq!(
                outcome.class().map(|class| class.as_str()),
                (*outcome != CallOutcome::Success).then_some(*word)
            );
        }
        assert_eq!((counts.calls(), counts.failures(), counts.answered()), (255, 126, 129));
        assert_eq!(serde_json::from_value::<CallCounts>(written).unwrap(), counts);
    }

    #[test]
    fn counts_saturate() {
        let mut counts = CallCounts { success: u64::MAX, timeout: u64::MAX - 1, ..CallCounts::default() };
        counts.add(CallOutcome::Success, 1);
        counts.add(CallOutcome::Timeout, 7);
        counts.merge(&counts.clone());
        assert_eq!((counts.success, counts.timeout, counts.calls()), (u64::MAX, u64::MAX, u64::MAX));
    }
}
