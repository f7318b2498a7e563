//! The circuit breaker of one instance: whether calls may go there. A pure machine over replicated state: what happened
//! comes in with the leader's time, the next state goes out, and every node holds the same.
//!
//! ```text
//!            consecutive failures, or the error rate
//!   closed ───────────────────────────────────────────▶ open ◀────────┐
//!     ▲                                                  │ open_for    │ one bad trial call
//!     │ success_threshold good trial calls               ▼             │
//!     └────────────────────────────────────────────── half_open ───────┘
//! ```
//!
//! The intuition: an instance that fails is left alone for a while, then tried with a few calls instead of all of them.
//! States and names are resilience4j's (`CircuitBreaker`, count of permitted calls in half-open); that one bad trial call
//! reopens it is Hystrix's and gobreaker's rule. From gobreaker comes the generation: a result that began in another state
//! is late and counts for nothing.

use serde::{Deserialize, Serialize};

use crate::calls::BreakerNumbers;
use crate::policy::{BreakerPolicy, words};
use crate::time::{ClusterTime, Millis};

words! {
    /// Whether calls may go to an instance.
    BreakerState {
        /// Calls flow.
        Closed = "closed",
        /// Calls are refused.
        Open = "open",
        /// A few trial calls are let through.
        HalfOpen = "half_open",
    }
}

/// The breaker of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// Whether calls may go there.
    pub state: BreakerState,
    /// Counts the changes of state, from 1. What belongs to an older one is late.
    pub generation: u64,
    /// Since when it is in this state, on the decision clock.
    pub since: ClusterTime,
    /// How often it opened in a row; decides how long it stays open.
    pub trips: u32,
    /// How long it stays open, or did the last time.
    pub open_for: Millis,
    /// Half open: when each trial call that is out was let through, oldest first.
    pub trials: Vec<ClusterTime>,
    /// Half open: good trial calls so far.
    pub successes: u32,
    /// The numbers behind the last change of state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<BreakerNumbers>,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The state before.
    pub from: BreakerState,
    /// The state now.
    pub to: BreakerState,
}

/// Why a trial call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTrial {
    /// Trial calls are for half-open breakers.
    #[error("the breaker is {0}, and only a half-open one lets trial calls through")]
    NotHalfOpen(BreakerState),
    /// As many as may be out are out.
    #[error("{0} trial calls are out already")]
    AllOut(u32),
}

impl Breaker {
    /// A closed breaker of an instance that nobody has called.
    pub const fn closed(now: ClusterTime) -> Self {
        Self {
            state: BreakerState::Closed,
            generation: 1,
            since: now,
            trips: 0,
            open_for: Millis::ZERO,
            trials: Vec::new(),
            successes: 0,
            numbers: None,
        }
    }

    /// The breaker of an instance that was stored before there were breakers.
    pub(crate) const fn untouched() -> Self {
        Self::closed(ClusterTime(0))
    }

    /// Whether a call may be let through at `now` without asking for a trial, or with one.
    pub fn lets_through(&self, policy: &BreakerPolicy, now: ClusterTime) -> Lets {
        match self.state {
            BreakerState::Closed => Lets::Freely,
            BreakerState::Open => Lets::Nothing,
            BreakerState::HalfOpen => {
                if self.trials_out(policy, now) < policy.half_open_max_calls {
                    Lets::ATrial
                } else {
                    Lets::Nothing
                }
            }
        }
    }

    /// When an open breaker becomes half open.
    pub fn open_until(&self) -> Option<ClusterTime> {
        match self.state {
            BreakerState::Open => Some(self.since.plus(self.open_for)),
            BreakerState::Closed | BreakerState::HalfOpen => None,
        }
    }

    /// Trial calls that are out and not timed out at `now`.
    pub fn trials_out(&self, policy: &BreakerPolicy, now: ClusterTime) -> u32 {
        let out = self.trials.iter().filter(|granted| now < granted.plus(policy.half_open_timeout)).count();
        u32::try_from(out).unwrap_or(u32::MAX)
    }

    /// Too much failed: opens it from closed and half open. An open one stays as it is.
    ///
    /// Each trip in a row stays open longer. A trip follows on the one before where it comes out of half open, or within
    /// as long after closing as the breaker was open.
    pub fn trip(&mut self, policy: &BreakerPolicy, now: ClusterTime, numbers: BreakerNumbers) -> Option<Changed> {
        let in_a_row = match self.state {
            BreakerState::Open => return None,
            BreakerState::HalfOpen => true,
            BreakerState::Closed => self.trips > 0 && now.since(self.since) < self.open_for,
        };
        self.trips = if in_a_row { self.trips.saturating_add(1) } else { 1 };
        self.open_for = policy.open_for.grown(policy.open_for_multiplier, self.trips - 1, policy.open_for_max);
        Some(self.enter(BreakerState::Open, now, Some(numbers)))
    }

    /// Time passed: an open breaker whose time is over becomes half open.
    pub fn elapse(&mut self, now: ClusterTime) -> Option<Changed> {
        let over = self.open_until().is_some_and(|until| now >= until);
        over.then(|| self.enter(BreakerState::HalfOpen, now, None))
    }

    /// Lets one trial call through. One that was not heard of within `half_open_timeout` gives its place to another: it
    /// proves nothing, for its caller may be gone.
    pub fn grant(&mut self, policy: &BreakerPolicy, now: ClusterTime) -> Result<(), NoTrial> {
        match self.state {
            BreakerState::HalfOpen => {}
            BreakerState::Closed | BreakerState::Open => return Err(NoTrial::NotHalfOpen(self.state)),
        }
        self.trials.retain(|granted| now < granted.plus(policy.half_open_timeout));
        if self.trials.len() as u64 >= u64::from(policy.half_open_max_calls) {
            return Err(NoTrial::AllOut(policy.half_open_max_calls));
        }
        self.trials.push(now);
        Ok(())
    }

    /// Calls to a half-open instance ended: one bad one opens the breaker again, enough good ones close it. `granted` of the
    /// good ones had been let through as trials, and give their places back, oldest first. Whoever called without asking took
    /// no place and has none to give: else such calls would let more and more trials out at once.
    pub fn tried(
        &mut self,
        policy: &BreakerPolicy,
        now: ClusterTime,
        successes: u32,
        granted: u32,
        numbers: BreakerNumbers,
    ) -> Option<Changed> {
        match self.state {
            BreakerState::HalfOpen => {}
            BreakerState::Closed | BreakerState::Open => return None,
        }
        if numbers.failures > 0 {
            return self.trip(policy, now, numbers);
        }
        self.trials.drain(..self.trials.len().min(granted.min(successes) as usize));
        self.successes = self.successes.saturating_add(successes);
        // What closes it is all of them, not only those that were told of last.
        let all = BreakerNumbers { calls: u64::from(self.successes), ..numbers };
        (self.successes >= policy.success_threshold).then(|| self.enter(BreakerState::Closed, now, Some(all)))
    }

    /// Closes it whatever happened, and forgets earlier trips. Late results of before do not count.
    pub fn reset(&mut self, now: ClusterTime) -> Option<Changed> {
        self.trips = 0;
        self.open_for = Millis::ZERO;
        let changed = self.enter(BreakerState::Closed, now, None);
        (changed.from != changed.to).then_some(changed)
    }

    fn enter(&mut self, to: BreakerState, now: ClusterTime, numbers: Option<BreakerNumbers>) -> Changed {
        let from = self.state;
        self.state = to;
        self.generation += 1;
        self.since = now;
        self.trials.clear();
        self.successes = 0;
        self.numbers = numbers;
        Changed { from, to }
    }
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lets {
    /// Every call.
    Freely,
    /// One more trial call, which must be asked for.
    ATrial,
    /// No call.
    Nothing,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Spec;

    fn policy() -> BreakerPolicy {
        Spec::default().breaker
    }

    const fn at(seconds: u64) -> ClusterTime {
        ClusterTime(seconds * 1_000)
    }

    fn failed(failures: u64) -> BreakerNumbers {
        BreakerNumbers { consecutive_failures: failures, calls: failures, failures, class: None }
    }

    fn good(calls: u64) -> BreakerNumbers {
        BreakerNumbers { consecutive_failures: 0, calls, failures: 0, class: None }
    }

    fn half_open() -> Breaker {
        let mut breaker = Breaker::closed(at(0));
        breaker.trip(&policy(), at(0), failed(5)).expect("it opens");
        breaker.elapse(at(30)).expect("it is half open");
        breaker
    }

    #[test]
    fn it_opens_waits_tries_and_closes() {
        let mut breaker = Breaker::closed(at(0));
        assert_eq!(breaker.lets_through(&policy(), at(0)), Lets::Freely);
        let opened = breaker.trip(&policy(), at(1), failed(5));
        assert_eq!(opened, Some(Changed { from: BreakerState::Closed, to: BreakerState::Open }));
        assert_eq!(breaker.trip(&policy(), at(2), failed(6)), None, "it is open already");
        assert_eq!(breaker.open_until(), Some(at(31)));
        assert_eq!(breaker.elapse(ClusterTime(30_999)), None);
        assert_eq!(breaker.lets_through(&policy(), at(30)), Lets::Nothing);
        assert!(breaker.elapse(at(31)).is_some());
        assert_eq!(breaker.lets_through(&policy(), at(31)), Lets::ATrial);
        assert_eq!(breaker.tried(&policy(), at(32), 2, 2, good(2)), None);
        let closed = breaker.tried(&policy(), at(33), 1, 1, good(1));
        assert_eq!(closed, Some(Changed { from: BreakerState::HalfOpen, to: BreakerState::Closed }));
        assert_eq!(breaker.generation, 4, "each change of state is a generation");
    }

    #[test]
    fn one_bad_trial_call_opens_it_for_longer() {
        let mut breaker = half_open();
        breaker.tried(&policy(), at(31), 2, 2, good(2));
        assert!(breaker.tried(&policy(), at(32), 5, 5, failed(1)).is_some(), "good calls beside it do not help");
        assert_eq!((breaker.state, breaker.trips, breaker.open_for), (BreakerState::Open, 2, Millis::secs(60)));
        for trips in 3..=9 {
            breaker.elapse(at(10_000 * u64::from(trips)));
            breaker.tried(&policy(), at(10_000 * u64::from(trips)), 0, 0, failed(1));
            assert_eq!(breaker.trips, trips);
        }
        assert_eq!(breaker.open_for, policy().open_for_max);
    }

    #[test]
    fn a_trip_long_after_closing_is_a_first_one() {
        for (closed_for, trips) in [(29, 2), (30, 1)] {
            let mut breaker = half_open();
            breaker.tried(&policy(), at(31), 3, 3, good(3)).expect("it closes");
            breaker.trip(&policy(), at(31 + closed_for), failed(5)).expect("it opens");
            assert_eq!(breaker.trips, trips, "{closed_for} s after closing");
        }
    }

    #[test]
    fn trial_calls_are_bounded_and_time_out() {
        let mut breaker = half_open();
        for _ in 0..3 {
            assert_eq!(breaker.grant(&policy(), at(30)), Ok(()));
        }
        assert_eq!(breaker.grant(&policy(), at(39)), Err(NoTrial::AllOut(3)));
        assert_eq!(breaker.lets_through(&policy(), at(39)), Lets::Nothing);
        assert_eq!(breaker.grant(&policy(), at(40)), Ok(()), "nobody heard of the first three within 10 s");
        assert_eq!(breaker.trials.len(), 1);
        breaker.tried(&policy(), at(41), 1, 1, good(1));
        assert!(breaker.trials.is_empty(), "a call that ended gives its place back");
        assert_eq!([41, 42, 43].map(|second| breaker.grant(&policy(), at(second))), [Ok(()); 3]);
        breaker.tried(&policy(), at(44), 1, 0, good(1));
        assert_eq!(breaker.grant(&policy(), at(44)), Err(NoTrial::AllOut(3)), "whoever did not ask took no place");
        assert_eq!(breaker.successes, 2, "but that it went well counts");
        let mut closed = Breaker::closed(at(0));
        assert_eq!(closed.grant(&policy(), at(0)), Err(NoTrial::NotHalfOpen(BreakerState::Closed)));
    }

    #[test]
    fn a_reset_closes_it_and_makes_earlier_results_late() {
        let mut breaker = half_open();
        let before = breaker.generation;
        assert!(breaker.reset(at(31)).is_some());
        assert_eq!((breaker.state, breaker.trips), (BreakerState::Closed, 0));
        assert!(breaker.generation > before);
        assert_eq!(breaker.reset(at(32)), None, "it was closed");
    }
}
