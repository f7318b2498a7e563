//! Sliding windows: rings of time slices with a running sum. Fixed memory, no allocation once made, and each record costs
//! the same however much the window holds. What is summed is the caller's; what is concluded from it, `detector`'s.
//!
//! The intuition: forgetting each call exactly `length` after it came would mean to remember each call. Forgetting a
//! whole slice at a time needs N sums, and the total is kept by adding what comes and subtracting what leaves (as
//! resilience4j's time-based sliding window does):
//!
//! ```text
//!            ┌── leaves next            the newest, still filling ──┐
//!   time ──▶ [ 3 ][ 0 ][ 7 ][ 2 ][ 5 ][ 1 ][ 0 ][ 4 ][ 6 ][ 2 …     ]      sum 30
//!            └───────────────── N slices of length / N ─────────────┘
//! ```
//!
//! So the sum covers the last `length`, or up to one slice less. Slices begin at whole multiples of their length by the
//! clock that is used, so that windows of one length turn together.

use std::time::Duration;

use crate::probe::LocalTime;

/// What can be summed in a window.
pub trait Summed: Default {
    /// Adds what `other` holds.
    fn add(&mut self, other: &Self);

    /// Takes away what `other` holds, which was added before. Answers `false` where that cannot be done exactly, because
    /// a sum had hit its bound; the window then adds up its slices anew.
    fn subtract(&mut self, other: &Self) -> bool;

    /// Makes it hold nothing.
    fn clear(&mut self);
}

/// A sum over the last so much time, in N slices.
#[derive(Clone, Debug)]
pub struct Window<T, const N: usize> {
    /// The length of a slice, in nanoseconds.
    grain: u64,
    /// When the newest slice ends (its end is not part of it), in nanoseconds of the clock.
    ends: u64,
    /// The newest slice.
    newest: usize,
    slices: [T; N],
    sum: T,
}

impl<T: Summed, const N: usize> Window<T, N> {
    /// An empty window of that length. A length below N nanoseconds is taken as N nanoseconds.
    pub fn new(length: Duration) -> Self {
        const { assert!(N > 0, "a window has at least one slice") };
        Self {
            grain: (nanos(length) / N as u64).max(1),
            ends: 0,
            newest: 0,
            slices: std::array::from_fn(|_| T::default()),
            sum: T::default(),
        }
    }

    /// The length of a slice.
    pub const fn grain(&self) -> Duration {
        Duration::from_nanos(self.grain)
    }

    /// Whether the newest slice has ended, so that the next use at `now` begins another one.
    pub fn is_due(&self, now: LocalTime) -> bool {
        nanos(now.0) >= self.ends
    }

    /// Records something at `now`: `put` is called twice, with the newest slice and with the sum, and must add the same to
    /// both. A time that stands still or goes back falls into the newest slice.
    pub fn record(&mut self, now: LocalTime, mut put: impl FnMut(&mut T)) {
        self.advance(now);
        put(&mut self.slices[self.newest]);
        put(&mut self.sum);
    }

    /// The sum over the window that ends at `now`.
    pub fn sum(&mut self, now: LocalTime) -> &T {
        self.advance(now);
        &self.sum
    }

    /// The sum as it was when the window was last used.
    pub const fn last_sum(&self) -> &T {
        &self.sum
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slices.iter_mut().for_each(T::clear);
        self.sum.clear();
    }

    /// Lets go of the slices that have left the window at `now`. At most N of them however long it was, and none until
    /// the newest has ended.
    fn advance(&mut self, now: LocalTime) {
        let now = nanos(now.0);
        if now < self.ends {
            return;
        }
        let ended = ((now - self.ends) / self.grain).saturating_add(1);
        self.ends = self.ends.saturating_add(ended.saturating_mul(self.grain));
        if ended >= N as u64 {
            self.clear();
            return;
        }
        let mut exact = true;
        for _ in 0..ended {
            self.newest = if self.newest + 1 == N { 0 } else { self.newest + 1 };
            let leaving = &mut self.slices[self.newest];
            exact &= self.sum.subtract(leaving);
            leaving.clear();
        }
        if !exact {
            self.sum.clear();
            self.slices.iter().for_each(|slice| self.sum.add(slice));
        }
    }
}

/// The longest time that is told apart is some 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Summed for u8 {
        fn add(&mut self, other: &Self) {
            *self = self.saturating_add(*other);
        }

        fn subtract(&mut self, other: &Self) -> bool {
            let exact = *self != Self::MAX;
            *self = self.saturating_sub(*other);
            exact
        }

        fn clear(&mut self) {
            *self = 0;
        }
    }

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    /// Ten slices of 100 ms.
    fn window() -> Window<u8, 10> {
        Window::new(Duration::from_secs(1))
    }

    #[test]
    fn it_slides_slice_by_slice() {
        let mut window = window();
        for slice in 0..10 {
            window.record(at(5_000 + slice * 100), |held| *held += 1);
        }
        assert_eq!(*window.sum(at(5_999)), 10);
        for gone in 1..=10 {
            assert_eq!(*window.sum(at(5_899 + gone * 100)), 10 - u8::try_from(gone).unwrap() + 1, "just before");
            assert_eq!(*window.sum(at(5_900 + gone * 100)), 10 - u8::try_from(gone).unwrap(), "slice {gone} left");
        }
    }

    #[test]
    fn nothing_is_forgotten_within_the_window_less_a_slice_and_all_is_after_it() {
        for began in [0, 50, 99] {
            let mut window = window();
            window.record(at(7_000 + began), |held| *held = 1);
            assert_eq!(*window.sum(at(7_000 + began + 900)), 1);
            assert_eq!(*window.sum(at(7_000 + began + 1_000)), 0);
        }
    }

    #[test]
    fn a_long_pause_empties_it() {
        let mut window = window();
        window.record(at(100), |held| *held = 3);
        assert_eq!(*window.sum(at(10_000_000)), 0);
        window.record(at(10_000_000), |held| *held += 1);
        assert_eq!(*window.sum(at(10_000_899)), 1);
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_is_harmless() {
        let mut window = window();
        window.record(at(5_000), |held| *held += 1);
        window.record(at(5_000), |held| *held += 1);
        window.record(at(4_000), |held| *held += 1);
        window.record(at(0), |held| *held += 1);
        assert_eq!(*window.sum(at(1)), 4);
        assert_eq!(*window.sum(at(5_999)), 4, "what came from the past belongs to the newest slice");
        assert_eq!(*window.sum(at(6_000)), 0);
    }

    #[test]
    fn a_sum_that_hit_its_bound_is_made_anew() {
        let mut window = window();
        window.record(at(0), |held| *held = held.saturating_add(200));
        window.record(at(100), |held| *held = held.saturating_add(100));
        assert_eq!(*window.sum(at(100)), u8::MAX);
        assert_eq!(*window.sum(at(1_000)), 100, "255 - 200 would be 55");
    }

    #[test]
    fn the_ends_of_time() {
        let mut window: Window<u8, 3> = Window::new(Duration::ZERO);
        window.record(LocalTime(Duration::MAX), |held| *held = 1);
        assert_eq!(*window.sum(LocalTime::default()), 1);
        let mut window: Window<u8, 3> = Window::new(Duration::MAX);
        window.record(LocalTime(Duration::ZERO), |held| *held = 1);
        assert_eq!(*window.sum(at(1_000_000)), 1);
    }

    proptest! {
        /// The running sum against adding up what lies in the slices that count.
        #[test]
        fn the_sum_is_what_a_naive_count_says(
            length in 1_u64..500,
            start in 0_u64..10_000,
            steps in proptest::collection::vec((0_u64..120, 0_u8..9), 1..80),
        ) {
            const SLICES: u64 = 7;
            let mut window: Window<u8, 7> = Window::new(Duration::from_nanos(length));
            let grain = (length / SLICES).max(1);
            let mut now = start;
            let mut all: Vec<(u64, u8)> = Vec::new();
            for (step, value) in steps {
                now += step;
                let time = LocalTime(Duration::from_nanos(now));
                window.record(time, |held| *held = held.saturating_add(value));
                all.push((now / grain, value));
                let counted = all.iter().filter(|(slice, _)| slice + SLICES > now / grain);
                let naive = counted.fold(0_u8, |sum, (_, value)| sum.saturating_add(*value));
                prop_assert_eq!(*window.sum(time), naive, "at {}", now);
            }
        }
    }
}
