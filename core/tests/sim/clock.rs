//! True time, which only the simulator knows, and the clocks by which everybody else lives: each errs by up to 1 %, at
//! a rate that may change. Only the arithmetic of clocks may enter.

use std::time::Duration;

use baton_core::probe::LocalTime;

/// True time, or a length of it, in microseconds since the run began.
pub(crate) type Micros = u64;

/// One millisecond.
pub(crate) const MS: Micros = 1_000;

/// One second.
pub(crate) const SEC: Micros = 1_000_000;

/// Parts per million by which a clock may err: the promise I15 is made for 1 %.
pub(crate) const ERROR_MAX: i64 = 10_000;

/// A machine's boot-time clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// True time at which this rate began to hold, and what the clock showed then, in nanoseconds.
    since: Micros,
    showed: u64,
    /// How many parts per million it runs fast.
    error: i64,
    /// How long the machine slept, in nanoseconds of this clock: what a clock that stops in sleep would not count.
    slept: u64,
}

impl Clock {
    pub(crate) fn new(error: i64, showed: Duration) -> Self {
        debug_assert!(error.abs() <= ERROR_MAX);
        Self { since: 0, showed: u64::try_from(showed.as_nanos()).expect("a short time"), error, slept: 0 }
    }

    fn nanos(&self, now: Micros) -> u64 {
        let rate = u64::try_from(1_000_000 + self.error).expect("no clock runs backwards");
        self.showed + (now - self.since) * rate / 1_000
    }

    /// What it shows at true time `now`: `CLOCK_BOOTTIME`.
    pub(crate) fn at(&self, now: Micros) -> LocalTime {
        LocalTime(Duration::from_nanos(self.nanos(now)))
    }

    /// What a clock shows that stands still while the machine sleeps: `CLOCK_MONOTONIC`.
    pub(crate) fn without_sleep(&self, now: Micros) -> LocalTime {
        LocalTime(Duration::from_nanos(self.nanos(now) - self.slept))
    }

    /// From `now` on it errs by another rate.
    pub(crate) fn drift(&mut self, now: Micros, error: i64) {
        debug_assert!(error.abs() <= ERROR_MAX);
        (self.showed, self.since, self.error) = (self.nanos(now), now, error);
    }

    /// The machine has slept from `from` to `to`.
    pub(crate) fn slept(&mut self, from: Micros, to: Micros) {
        self.slept += self.nanos(to).saturating_sub(self.nanos(from.max(self.since)));
    }

    /// How long in true time until this clock has counted `length`, at its present rate, and a little more.
    pub(crate) fn until(&self, length: Duration) -> Micros {
        let rate = u64::try_from(1_000_000 + self.error).expect("no clock runs backwards");
        u64::try_from(length.as_nanos()).expect("a short time") * 1_000 / rate + 1
    }
}

#[test]
fn a_timer_has_run_out_when_it_fires() {
    for error in [-10_000, -1, 0, 1, 9_999, 10_000] {
        let mut clock = Clock::new(error, Duration::from_secs(7));
        for length in [1, 999, 250_000_000, 10_300_000_000] {
            let (length, now) = (Duration::from_nanos(length), 1_234_567);
            let end = now + clock.until(length);
            assert!(clock.at(end).since(clock.at(now)) >= length, "{error} {length:?}");
        }
        let before = clock.at(5_000_000);
        clock.drift(5_000_000, -error);
        assert_eq!(clock.at(5_000_000), before, "a rate that changes is no jump");
        let before = clock.without_sleep(5_000_000);
        clock.slept(5_000_000, 6_000_000);
        let counted = clock.without_sleep(7_000_000).since(before);
        assert!(counted <= Duration::from_millis(1_011), "{counted:?}");
    }
}
