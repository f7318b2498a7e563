//! The one clock by which a session counts its lease, and an alarm that goes by it. `CLOCK_BOOTTIME`: it counts while the
//! machine sleeps, and nobody sets it. A timer of another clock would ring after a sleep as if there had been none.

use baton_core::probe::LocalTime;

pub use imp::{Alarm, boot_time};

/// Why an alarm cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("no timer that counts the sleep of the machine: {0}")]
pub struct NoAlarm(std::io::Error);

#[cfg(target_os = "linux")]
mod imp {
    use std::os::fd::OwnedFd;
    use std::time::Duration;

    use rustix::time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::{LocalTime, NoAlarm};

    /// The time since the machine was started, sleep included.
    pub fn boot_time() -> LocalTime {
        let read = clock_gettime(ClockId::Boottime);
        // Neither part is ever negative for a clock that counts from the machine's start.
        let seconds = u64::try_from(read.tv_sec).unwrap_or(0);
        LocalTime(Duration::new(seconds, u32::try_from(read.tv_nsec).unwrap_or(0)))
    }

    /// Wakes at a given time, also after the machine has slept through it.
    #[derive(Debug)]
    pub struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// An alarm that is not set. Must be made within a runtime.
        pub fn new() -> Result<Self, NoAlarm> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Boottime, flags).map_err(|error| NoAlarm(error.into()))?;
            // Deprecated in favour of an `unsafe` one, for types whose descriptor may change or close under the runtime. An
            // `OwnedFd` that is never taken out does neither.
            #[expect(deprecated, reason = "its successor is unsafe, and an OwnedFd keeps what it asks for")]
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self).map_err(NoAlarm)
        }

        /// Resolves at `time`, at once if that is over, never for `None`. The newest call counts; dropping the future is
        /// harmless.
        pub async fn at(&mut self, time: Option<LocalTime>) {
            let Some(time) = time else { return std::future::pending().await };
            let value = Timespec {
                tv_sec: i64::try_from(time.0.as_secs()).unwrap_or(i64::MAX),
                // Zero in both would switch the timer off.
                tv_nsec: i64::from(time.0.subsec_nanos()).max(1),
            };
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let setting = Itimerspec { it_interval: never, it_value: value };
            if timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &setting).is_err() {
                // No valid time is refused; should one be, a coarse timer is better than none.
                return tokio::time::sleep(time.since(boot_time())).await;
            }
            while boot_time() < time {
                let Ok(mut ready) = self.0.readable().await else { return };
                // Readiness may be left from an earlier setting: reading says whether it is, and clears it.
                let _ = ready.try_io(|timer| rustix::io::read(timer.get_ref(), &mut [0_u8; 8]).map_err(Into::into));
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    use super::{LocalTime, NoAlarm};

    /// The longest time without a look at the clock.
    const LOOK: Duration = Duration::from_millis(20);

    /// The time by the best clock that the standard library has here.
    pub fn boot_time() -> LocalTime {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        LocalTime(ORIGIN.elapsed())
    }

    /// Wakes at a given time, by looking at the clock again and again.
    #[derive(Debug)]
    pub struct Alarm(());

    impl Alarm {
        /// An alarm that is not set.
        pub fn new() -> Result<Self, NoAlarm> {
            Ok(Self(()))
        }

        /// Resolves at `time`, at once if that is over, never for `None`.
        pub async fn at(&mut self, time: Option<LocalTime>) {
            let Some(time) = time else { return std::future::pending().await };
            while boot_time() < time {
                tokio::time::sleep(time.since(boot_time()).min(LOOK)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn an_alarm_rings_when_it_was_set_for_last() {
        let mut alarm = Alarm::new().expect("a timer");
        let begun = boot_time();
        alarm.at(Some(LocalTime::default())).await;
        tokio::select! {
            () = alarm.at(Some(begun.plus(Duration::from_millis(30)))) => {}
            () = std::future::ready(()) => {}
        }
        let wanted = begun.plus(Duration::from_millis(60));
        tokio::time::timeout(Duration::from_secs(20), alarm.at(Some(wanted))).await.expect("it rings");
        assert!(boot_time() >= wanted);
        assert!(tokio::time::timeout(Duration::from_millis(20), alarm.at(None)).await.is_err(), "never means never");
    }
}
