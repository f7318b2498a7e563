//! This node's own monotonic clock. Only reading it lives here.

use baton_core::probe::LocalTime;

/// Reads one clock, by which everything about probes is timed. Sleep of the machine counts: a probe that was under way
/// when the machine was suspended is late, and its failure must not be believed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Clock;

impl Clock {
    /// The time now.
    #[cfg(target_os = "linux")]
    pub(crate) fn now(self) -> LocalTime {
        let read = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        // Neither part is ever negative for a clock that counts from the machine's start.
        let seconds = u64::try_from(read.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(read.tv_nsec).unwrap_or(0);
        LocalTime(std::time::Duration::new(seconds, nanos))
    }

    /// The time now, by the best clock that the standard library has here.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn now(self) -> LocalTime {
        static ORIGIN: std::sync::LazyLock<std::time::Instant> = std::sync::LazyLock::new(std::time::Instant::now);
        LocalTime(ORIGIN.elapsed())
    }
}
