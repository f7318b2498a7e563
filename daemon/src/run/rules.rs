//! What a supervisor goes by: when a child is started again, how long it may take to stop, and how that fits into a lease.
//! Lengths only; who waits for them is `supervisor`'s.

use std::time::Duration;

use baton_core::time::Millis;

/// The longest grace where nobody says: a service that needs longer than this to stop wants to be asked about it.
const GRACE_MAX: Duration = Duration::from_secs(5);
/// The least time between KILL and the end of the lease: what a kernel needs to end a group, on a machine that is busy.
const MARGIN_MIN: Duration = Duration::from_millis(20);
/// The share of a lease that is kept free between KILL and its end.
const MARGIN_SHARE: u32 = 20;
/// The wait before the second start of a child that ended. It doubles from end to end.
pub(super) const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two starts.
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A child that ran for so long was well: its end begins the waits anew.
pub(super) const WELL_AFTER: Duration = Duration::from_secs(30);

/// When a child that ended by itself is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Restart {
    /// Never: the end of the child is the end of `baton run`, with the child's exit code.
    #[default]
    Never,
    /// When its exit code was not 0, or a signal ended it.
    OnFailure,
    /// However it ended.
    Always,
}

/// Who says that the child serves, where the service wants to be told (`failover.require_ack`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum AckBy {
    /// `baton run` does, as soon as the child runs.
    #[default]
    Started,
    /// The child itself, or an operator: `POST /v1/services/S/instances/I/ack` with BATON_TOKEN and BATON_SESSION.
    Manual,
}

/// What was said on the command line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// When a child that ended by itself is started again.
    pub(crate) restart: Restart,
    /// Who says that the child serves.
    pub(crate) ack: AckBy,
    /// The time between TERM and KILL when a lease runs out; none: a quarter of the lease.
    pub(crate) grace: Option<Duration>,
    /// The time between a signal to `baton run` (or an ordered step-down) and KILL, as long as the lease is renewed.
    pub(crate) stop_timeout: Duration,
}

/// A grace that leaves no room for renewals.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--grace {grace} is more than half of the lease of {ttl}: the child would be told to stop while the lease can still be \
     renewed. Give at most --grace {most}, or raise lease.ttl of the service to {least} or more"
)]
pub(crate) struct GraceTooLong {
    grace: Millis,
    ttl: Millis,
    most: Millis,
    least: Millis,
}

impl Rules {
    /// Whether the grace fits into a lease of this length.
    pub(crate) fn fits(&self, ttl: Duration) -> Result<(), GraceTooLong> {
        match self.grace {
            Some(grace) if grace > ttl / 2 => Err(GraceTooLong {
                grace: millis(grace),
                ttl: millis(ttl),
                most: millis(ttl / 2),
                least: millis(grace * 2),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// The time between TERM and KILL within a lease of this length. A lease may have become shorter since the command
    /// line was checked; half of it is the most in any case.
    pub(super) fn grace(&self, ttl: Duration) -> Duration {
        self.grace.map_or((ttl / 4).min(GRACE_MAX), |grace| grace.min(ttl / 2))
    }
}

/// The time between KILL and the end of a lease of this length.
pub(super) fn margin(ttl: Duration) -> Duration {
    (ttl / MARGIN_SHARE).max(MARGIN_MIN)
}

/// The wait before the next start of a child that ended `times` times in a row.
pub(super) fn backoff(times: u32) -> Duration {
    let doublings = times.saturating_sub(1).min(16);
    (BACKOFF_FIRST * 2_u32.pow(doublings)).min(BACKOFF_MAX)
}

fn millis(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn rules(grace: Option<Duration>) -> Rules {
        Rules { restart: Restart::Never, ack: AckBy::Started, grace, stop_timeout: ms(30_000) }
    }

    #[test]
    fn grace_and_margin_follow_the_lease() {
        // ttl, grace by default, margin
        for (ttl, grace, kept) in [(250, 62, 20), (500, 125, 25), (10_000, 2_500, 500), (60_000, 5_000, 3_000)] {
            assert_eq!(rules(None).grace(ms(ttl)).as_millis(), grace, "{ttl}");
            assert_eq!(margin(ms(ttl)), ms(kept), "{ttl}");
        }
        assert_eq!(rules(Some(ms(4_000))).grace(ms(10_000)), ms(4_000));
        assert_eq!(rules(Some(ms(4_000))).grace(ms(500)), ms(250), "the lease has become shorter");
    }

    #[test]
    fn a_grace_longer_than_half_the_lease_is_refused_with_the_remedy() {
        assert_eq!(rules(Some(ms(5_000))).fits(ms(10_000)), Ok(()));
        assert_eq!(rules(None).fits(ms(250)), Ok(()));
        let told = rules(Some(ms(8_000))).fits(ms(10_000)).expect_err("too long").to_string();
        assert!(told.contains("at most --grace 5s, or raise lease.ttl of the service to 16s"), "{told}");
    }

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let waits: Vec<u128> = [1, 2, 3, 9, 10, 1_000].map(|times| backoff(times).as_millis()).to_vec();
        assert_eq!(waits, [100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
