//! How an instance comes back after it was unhealthy: held back for a while, then with a growing share of the calls. The
//! strategies are those of the spec; `probing` is the observers' own, who ask for more good probes in a row.
//!
//! The intuition: what has just failed fails again more often than what has not. An instance that comes back at once with
//! all of its calls may die of them, and one that flaps takes its service along each time.

use serde::{Deserialize, Serialize};

use crate::policy::{RecoveryPolicy, RecoveryStrategy};
use crate::time::{ClusterTime, Millis};

/// The share of its weight with which an instance comes back, in thousandths.
const FIRST_SHARE: u64 = 100;

/// All of it.
const WHOLE: u64 = 1_000;

/// What is remembered of an instance that was unhealthy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// How often it became unhealthy in a row, that is without having been well for `cooldown` between.
    pub failures: u32,
    /// When it last became unhealthy, on the decision clock.
    pub failed_at: ClusterTime,
    /// Since when nothing says down any more, while it is still held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub good_since: Option<ClusterTime>,
    /// When it was last taken back; the ramp counts from here. None while it is held back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_since: Option<ClusterTime>,
    /// No candidate before this: it failed `cooldown_after` times in a row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cooldown_until: Option<ClusterTime>,
}

impl Recovery {
    /// Takes note that the instance became unhealthy, after what was remembered of `earlier` times.
    pub fn failed(earlier: Option<&Self>, policy: &RecoveryPolicy, now: ClusterTime) -> Self {
        let in_a_row =
            earlier.is_some_and(|earlier| earlier.back_since.is_none_or(|back| now.since(back) < policy.cooldown));
        let failures = if in_a_row { earlier.map_or(0, |earlier| earlier.failures).saturating_add(1) } else { 1 };
        let cools = policy.cooldown > Millis::ZERO && failures >= policy.cooldown_after;
        Self {
            failures,
            failed_at: now,
            good_since: None,
            back_since: None,
            cooldown_until: cools.then(|| now.plus(policy.cooldown)),
        }
    }

    /// `1 failure in a row`, `3 failures in a row`.
    pub fn failures_told(&self) -> String {
        let failures = self.failures;
        format!("{failures} {} in a row", if failures == 1 { "failure" } else { "failures" })
    }

    /// How long it must have been well before it is taken back.
    pub fn delay(&self, policy: &RecoveryPolicy) -> Millis {
        match policy.strategy {
            RecoveryStrategy::Immediate | RecoveryStrategy::Probing => Millis::ZERO,
            RecoveryStrategy::Gradual => {
                policy.initial_delay.grown(policy.multiplier, self.failures.saturating_sub(1), policy.max_delay)
            }
        }
    }

    /// When it is taken back if it stays well; `None` while it is not well, or is back.
    pub fn due(&self, policy: &RecoveryPolicy) -> Option<ClusterTime> {
        match self.back_since {
            Some(_) => None,
            None => self.good_since.map(|since| since.plus(self.delay(policy))),
        }
    }

    /// When nothing of this matters any more: it has been well for so long that a next failure would be a first one, and
    /// has its whole weight.
    pub fn forgotten_at(&self, policy: &RecoveryPolicy) -> Option<ClusterTime> {
        self.back_since.map(|back| back.plus(policy.cooldown.max(policy.ramp)))
    }

    /// What is left of the cool-down at `now`.
    pub fn cooling(&self, now: ClusterTime) -> Option<Millis> {
        self.cooldown_until.filter(|until| now < *until).map(|until| until.since(now))
    }

    /// The share of its weight that it gets at `now`, in thousandths.
    pub fn share(&self, policy: &RecoveryPolicy, now: ClusterTime) -> u64 {
        let ramps = match policy.strategy {
            RecoveryStrategy::Gradual => policy.ramp > Millis::ZERO,
            RecoveryStrategy::Immediate | RecoveryStrategy::Probing => false,
        };
        match self.back_since {
            Some(back) if ramps => {
                let gone = now.since(back).0.min(policy.ramp.0);
                FIRST_SHARE + (WHOLE - FIRST_SHARE) * gone / policy.ramp.0
            }
            Some(_) | None => WHOLE,
        }
    }
}

/// The share of an instance that never failed, in thousandths.
pub const fn whole_share() -> u64 {
    WHOLE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Spec;

    fn policy() -> RecoveryPolicy {
        Spec::default().recovery
    }

    const fn at(seconds: u64) -> ClusterTime {
        ClusterTime(seconds * 1_000)
    }

    #[test]
    fn the_delay_grows_with_failures_in_a_row() {
        let mut recovery = Recovery::failed(None, &policy(), at(0));
        let mut seen = vec![recovery.delay(&policy())];
        for second in 1..12 {
            recovery = Recovery::failed(Some(&recovery), &policy(), at(second));
            seen.push(recovery.delay(&policy()));
        }
        let seconds: Vec<u64> = seen.iter().map(|delay| delay.0 / 1_000).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        let now = RecoveryPolicy { strategy: RecoveryStrategy::Immediate, ..policy() };
        assert_eq!(recovery.delay(&now), Millis::ZERO);
    }

    #[test]
    fn three_failures_in_a_row_cool_down() {
        let mut recovery = Recovery::failed(None, &policy(), at(0));
        for _ in 0..2 {
            assert_eq!(recovery.cooldown_until, None);
            recovery.back_since = Some(at(10));
            recovery = Recovery::failed(Some(&recovery), &policy(), at(20));
        }
        assert_eq!((recovery.failures, recovery.cooldown_until), (3, Some(at(320))));
        assert_eq!(recovery.cooling(at(20)), Some(Millis::secs(300)));
        assert_eq!(recovery.cooling(at(320)), None);
    }

    #[test]
    fn whoever_was_well_for_long_begins_anew() {
        let mut recovery = Recovery::failed(None, &policy(), at(0));
        recovery.back_since = Some(at(10));
        assert_eq!(Recovery::failed(Some(&recovery), &policy(), at(309)).failures, 2);
        assert_eq!(Recovery::failed(Some(&recovery), &policy(), at(310)).failures, 1);
        assert_eq!(recovery.forgotten_at(&policy()), Some(at(310)));
    }

    #[test]
    fn the_weight_ramps_from_a_tenth_to_all() {
        let mut recovery = Recovery::failed(None, &policy(), at(0));
        recovery.back_since = Some(at(100));
        let shares: Vec<u64> = [100, 130, 160, 500].map(|second| recovery.share(&policy(), at(second))).to_vec();
        assert_eq!(shares, [100, 550, 1_000, 1_000]);
        let none = RecoveryPolicy { ramp: Millis::ZERO, ..policy() };
        assert_eq!(recovery.share(&none, at(100)), 1_000);
        let probing = RecoveryPolicy { strategy: RecoveryStrategy::Probing, ..policy() };
        assert_eq!(recovery.share(&probing, at(100)), 1_000);
    }
}
