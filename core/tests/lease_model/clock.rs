//! Time, as the model sees it: how long a lease and a wait can last in true time, and their place on a small lattice.
//! Only the arithmetic of clocks may enter.
//!
//! A holder's timers are upper bounds (it must have stopped) and a leader's timers are lower bounds (it must have
//! waited), so the worst case is one case: every holder's clock slow by 1 %, every leader's fast by 1 %. All other
//! rates are covered, since any process may be late at any time. A lease of `ttl` then lasts ttl / 0.99, a wait of W
//! takes W / 1.01.
//!
//! All comparisons of the rule are closed (≤, ≥), and a system of closed constraints reaches with whole ticks what it
//! reaches in dense time (Henzinger, Manna, Pnueli: What good are digital clocks?, 1992), given the same comparisons
//! between the lengths. A state in which two hold involves the upper bounds of their two leases and the one of a lease
//! that was released on the way, and two full waits at most. So the lattice must agree with true time on k × lease ≥ m
//! × wait for k ≤ 3, m ≤ 2, which a test below checks.

/// A length or an age, in ticks.
pub(crate) type Ticks = u8;

/// A lease's length, counted by a clock that runs at 99 % of true time: 1 / 0.99, in units of 1 / 9999.
const SLOW: u64 = 10_100;

/// The same by a clock that runs at 101 %: 1 / 1.01.
const FAST: u64 = 9_900;

/// The rule's margin: W is 103 % of `ttl`.
pub(crate) const MARGIN: u64 = 103;

/// The longest that any lease lasts, in ticks.
pub(crate) const LONGEST_LEASE: Ticks = Ttl::Usual.lease();

/// The longest wait: timers of a leader stop counting here.
pub(crate) const LONGEST_WAIT: Ticks = LONGEST_LEASE + 1;

/// The two lengths that a spec may ask for. The usual one is twice the short one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Ttl {
    Short,
    Usual,
}

impl Ttl {
    /// How long a lease can last in true time, on the slowest clock that is allowed.
    pub(crate) const fn lease(self) -> Ticks {
        match self {
            Self::Short => 1,
            Self::Usual => 2,
        }
    }

    /// How soon a leader that waits `percent` of this length can be done, on the fastest clock that is allowed: one
    /// tick after the last moment of a lease where the margin covers both clocks, at that very moment where it does
    /// not.
    pub(crate) const fn wait(self, percent: u64) -> Ticks {
        if percent * FAST > 100 * SLOW { self.lease() + 1 } else { self.lease() }
    }
}

#[test]
fn the_lattice_compares_as_true_time_does() {
    let (lease, wait) = (Ttl::Usual.lease(), Ttl::Usual.wait(MARGIN));
    for k in 0..=3 {
        for m in 0..=2 {
            let truly = k * 100 * SLOW >= m * MARGIN * FAST;
            let here = k * u64::from(lease) >= m * u64::from(wait);
            assert_eq!(here, truly, "{k} leases against {m} waits");
        }
    }
    // Half the length: its wait is over before the usual lease is.
    let wait_for_half = 50 * MARGIN / 100 * FAST;
    assert_eq!(Ttl::Short.wait(MARGIN) <= lease, wait_for_half <= 100 * SLOW);
}

#[test]
fn two_percent_is_too_little() {
    assert_eq!(Ttl::Usual.wait(103), 3);
    assert_eq!(Ttl::Usual.wait(102), 2, "1.02 / 1.01 is less than 1 / 0.99");
}
