//! What one look at an instance says: outcomes, classes of failure, verdicts, and whether a look can be believed at all.
//! The looking itself is the daemon's; judging a row of looks is `detector`'s.

use std::time::Duration;

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
    /// What the leader judges an instance by, beside the observers' probes.
    Source {
        /// How clients say that their calls went.
        Calls = "calls",
        /// The instance's own heartbeats.
        Heartbeats = "heartbeats",
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

impl Outcome {
    /// A failure with what was seen, cut to [`DETAIL_MAX`] bytes at a character's edge.
    pub fn failure(class: FailureClass, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        detail.truncate(detail.floor_char_boundary(DETAIL_MAX));
        Self::Failure { class, detail }
    }
}

/// The class of an HTTP status that was not expected. 5xx, 429 and the other 4xx have classes of their own; a redirect
/// or a success that nobody asked for is an answer that is not what was agreed.
///
/// For a probe every class is a failed check, `client_error` too: whoever asks for 200 and gets 404 has not found what
/// was agreed. Only in reports is `client_error` counted without being a failure, since there the caller may be wrong.
pub const fn class_of_status(status: u16) -> FailureClass {
    match status {
        429 => FailureClass::RateLimit,
        400..=499 => FailureClass::ClientError,
        500..=599 => FailureClass::ServerError,
        _ => FailureClass::Malformed,
    }
}

/// The class of a gRPC status; `None` for `OK`. The codes are those of the gRPC project
/// (<https://grpc.io/docs/guides/status-codes/>); one that is not among them is an answer that is not what was agreed.
///
/// `UNKNOWN` and `INTERNAL` are the server's own errors, like 5xx. `CANCELLED` is for the caller who gave up, and so is
/// told of no server; where a server says it by itself, it gave up the work because some time ran out (gRPC's own
/// mapping from HTTP/2 makes it of a stream that was reset with `CANCEL`): a time-out. `UNIMPLEMENTED` is the server's:
/// whoever was told to ask a server for a method expects it there.
pub const fn class_of_grpc_status(code: u32) -> Option<FailureClass> {
    match code {
        0 => None,
        // CANCELLED, DEADLINE_EXCEEDED
        1 | 4 => Some(FailureClass::Timeout),
        // UNAVAILABLE
        14 => Some(FailureClass::Connection),
        // RESOURCE_EXHAUSTED
        8 => Some(FailureClass::RateLimit),
        // UNKNOWN, ABORTED, UNIMPLEMENTED, INTERNAL, DATA_LOSS
        2 | 10 | 12 | 13 | 15 => Some(FailureClass::ServerError),
        // INVALID_ARGUMENT, NOT_FOUND, ALREADY_EXISTS, PERMISSION_DENIED, FAILED_PRECONDITION, OUT_OF_RANGE,
        // UNAUTHENTICATED
        3 | 5 | 6 | 7 | 9 | 11 | 16 => Some(FailureClass::ClientError),
        _ => Some(FailureClass::Malformed),
    }
}

/// A reading of one node's own monotonic clock: the time since that clock's origin. Means nothing to another node, and
/// must not be mixed with the cluster's decision clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime(pub Duration);

impl LocalTime {
    /// The time `length` later.
    #[must_use]
    pub const fn plus(self, length: Duration) -> Self {
        Self(self.0.saturating_add(length))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// When a probe should have run and when it did, by the clock of the node that ran it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// When the node meant to begin it: its place in the schedule or, where the node's own limit of probes in flight
    /// held it back, the moment when there was room.
    pub due: LocalTime,
    /// When it began.
    pub started: LocalTime,
    /// When its outcome was known.
    pub ended: LocalTime,
    /// The time that it was given.
    pub timeout: Duration,
}

/// The lateness of its own timers beyond which a node does not believe a failure it saw. A kernel that schedules a
/// starved process every few tens of milliseconds stays below it; a stopped, swapping or throttled process does not.
pub const LATENESS_MAX: Duration = Duration::from_millis(100);

/// The least lateness that is held against a probe, however short its time-out: timers have a grain.
pub const LATENESS_MIN: Duration = Duration::from_millis(10);

/// Why a failed probe says nothing about the instance. Nothing that the instance can do leads here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// The probe began late.
    #[error("the probe began {} ms late", late.as_millis())]
    StartedLate {
        /// By how much.
        late: Duration,
    },
    /// The probe's own time-out fired late.
    #[error("the probe's own time-out fired {} ms late", late.as_millis())]
    EndedLate {
        /// By how much.
        late: Duration,
    },
    /// The node's timers ran late while the probe was under way.
    #[error("this node's timers ran {} ms late during the probe", late.as_millis())]
    NodeLate {
        /// By how much, at worst.
        late: Duration,
    },
    /// The node lacked what it takes to probe: descriptors, memory, ports.
    #[error("this node could not probe: {detail}")]
    NodeShort {
        /// What it lacked.
        detail: String,
    },
}

impl Distrust {
    /// The reason in one word, for a metric's label.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::StartedLate { .. } => "started_late",
            Self::EndedLate { .. } => "ended_late",
            Self::NodeLate { .. } => "node_late",
            Self::NodeShort { .. } => "node_short",
        }
    }
}

/// How late this node's timers may be for a probe with this time-out: half the time-out, so that the instance had at
/// least the other half, within [`LATENESS_MIN`] and [`LATENESS_MAX`].
pub fn tolerance(timeout: Duration) -> Duration {
    (timeout / 2).clamp(LATENESS_MIN, LATENESS_MAX)
}

/// Whether a *failure* with this timing may be believed. `node_lag` is the worst lateness of the node's own timers while
/// the probe was under way. A success needs no such leave: an answer that came in time came in time.
///
/// The lesson is haproxy#1902, where a checker starved of CPU marked every server down.
pub fn trusted(timing: &Timing, node_lag: Duration) -> Result<(), Distrust> {
    let tolerance = tolerance(timing.timeout);
    let started_late = timing.started.since(timing.due);
    let ended_late = timing.ended.since(timing.started.plus(timing.timeout));
    if started_late > tolerance {
        Err(Distrust::StartedLate { late: started_late })
    } else if ended_late > tolerance {
        Err(Distrust::EndedLate { late: ended_late })
    } else if node_lag > tolerance {
        Err(Distrust::NodeLate { late: node_lag })
    } else {
        Ok(())
    }
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

impl Evidence {
    /// What was seen, in a few words.
    pub fn told(&self) -> String {
        match self.class {
            // What is counted in a row says how many; a rate or a percentile says so itself.
            Some(class) if self.in_a_row() => {
                format!("{} failed {} in a row, {class}: {}", self.check, self.streak, self.detail)
            }
            Some(class) => format!("{}, {class}: {}", self.check, self.detail),
            None => self.detail.clone(),
        }
    }

    fn in_a_row(&self) -> bool {
        use crate::detector::{CONSECUTIVE_CALLS, ERROR_RATE, HEARTBEAT, SLOW_CALLS};
        ![ERROR_RATE, SLOW_CALLS, HEARTBEAT, CONSECUTIVE_CALLS].contains(&self.check.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    fn judge(due: u64, started: u64, ended: u64, timeout: u64, lag: u64) -> Result<(), &'static str> {
        let timing =
            Timing { due: at(due), started: at(started), ended: at(ended), timeout: Duration::from_millis(timeout) };
        trusted(&timing, Duration::from_millis(lag)).map_err(|distrust| distrust.word())
    }

    #[test]
    fn a_failure_is_believed_only_when_the_clocks_were_in_time() {
        let table = [
            // due, started, ended, time-out, lag
            (1_000, 1_000, 1_001, 500, 0, Ok(())),
            (1_000, 1_100, 1_600, 500, 100, Ok(())),
            (1_000, 1_101, 1_102, 500, 0, Err("started_late")),
            (1_000, 1_000, 1_600, 500, 0, Ok(())),
            (1_000, 1_000, 1_601, 500, 0, Err("ended_late")),
            (1_000, 1_000, 1_500, 500, 101, Err("node_late")),
            // A probe with little time is hurt by less lateness.
            (1_000, 1_026, 1_030, 50, 0, Err("started_late")),
            (1_000, 1_025, 1_030, 50, 0, Ok(())),
            (1_000, 1_000, 1_030, 50, 26, Err("node_late")),
            // However little time it has, the grain of timers is not held against it.
            (1_000, 1_010, 1_012, 1, 10, Ok(())),
            // However much time it has, a long stop is.
            (1_000, 1_000, 5_000, 60_000, 101, Err("node_late")),
        ];
        for (due, started, ended, timeout, lag, expected) in table {
            assert_eq!(
                judge(due, started, ended, timeout, lag),
                expected,
                "due {due}, started {started}, ended {ended}, time-out {timeout}, lag {lag}"
            );
        }
    }

    #[test]
    fn statuses_have_classes() {
        for (status, class) in [
            (200, FailureClass::Malformed),
            (302, FailureClass::Malformed),
            (404, FailureClass::ClientError),
            (429, FailureClass::RateLimit),
            (500, FailureClass::ServerError),
            (599, FailureClass::ServerError),
        ] {
            assert_eq!(class_of_status(status), class, "{status}");
        }
    }

    #[test]
    fn grpc_statuses_have_classes() {
        assert_eq!(class_of_grpc_status(0), None);
        for (class, codes) in [
            (FailureClass::Timeout, &[1, 4][..]),
            (FailureClass::Connection, &[14]),
            (FailureClass::RateLimit, &[8]),
            (FailureClass::ServerError, &[2, 10, 12, 13, 15]),
            (FailureClass::ClientError, &[3, 5, 6, 7, 9, 11, 16]),
            (FailureClass::Malformed, &[17, u32::MAX]),
        ] {
            for &code in codes {
                assert_eq!(class_of_grpc_status(code), Some(class), "{code}");
            }
        }
    }

    #[test]
    fn a_detail_is_cut_at_a_characters_edge() {
        let long = "ä".repeat(DETAIL_MAX);
        let Outcome::Failure { detail, .. } = Outcome::failure(FailureClass::Malformed, format!("x{long}")) else {
            panic!("a failure was asked for");
        };
        assert_eq!(detail.len(), DETAIL_MAX - 1);
    }
}
