//! How late this node's own timers run. A task ticks; when a tick comes late, so may every other timer have, and failures
//! that were seen meanwhile are not believed (haproxy#1902). What that means for a probe is decided in
//! `baton_core::probe::trusted`; here it is only measured.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_core::probe::{LATENESS_MIN, LocalTime};

use super::Clock;

/// Time between two ticks. Short enough that a stop longer than what is held against a probe cannot fall between two.
const TICK: Duration = Duration::from_millis(20);

/// The most late ticks remembered. With one every 20 ms this spans 5 s of constant lateness, and older ones are merged,
/// never forgotten while they could matter.
const SPIKES_MAX: usize = 256;

/// Late ticks older than this are forgotten: no probe takes so long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// A late tick: when it came at last, and by how much it was late.
#[derive(Clone, Copy, Debug)]
struct Spike {
    ended: LocalTime,
    late: Duration,
}

/// What the ticks showed. Time is an argument.
#[derive(Debug)]
struct Ticks {
    last: LocalTime,
    spikes: VecDeque<Spike>,
}

impl Ticks {
    fn starting(now: LocalTime) -> Self {
        Self { last: now, spikes: VecDeque::new() }
    }

    fn tick(&mut self, now: LocalTime) {
        let late = now.since(self.last.plus(TICK));
        self.last = now;
        if late < LATENESS_MIN {
            return;
        }
        self.spikes.retain(|spike| now.since(spike.ended) < REMEMBERED);
        self.spikes.push_back(Spike { ended: now, late });
        if self.spikes.len() > SPIKES_MAX
            && let Some(oldest) = self.spikes.pop_front()
            && let Some(next) = self.spikes.front_mut()
        {
            // Two become one that is as late as the worse and as recent as the newer: errs towards distrust.
            next.late = next.late.max(oldest.late);
        }
    }

    /// The worst lateness that touched the time from `start` to `now`. A tick that is overdue at `now` counts too, since
    /// whoever asks may have been woken before the tick was.
    fn worst(&self, start: LocalTime, now: LocalTime) -> Duration {
        let overdue = now.since(self.last.plus(TICK));
        let seen = self.spikes.iter().filter(|spike| spike.ended >= start).map(|spike| spike.late).max();
        seen.unwrap_or(Duration::ZERO).max(overdue)
    }
}

/// Measures the lateness of the runtime it was started on.
#[derive(Clone, Debug)]
pub(crate) struct LagMeter {
    clock: Clock,
    ticks: Arc<Mutex<Ticks>>,
}

impl LagMeter {
    /// Starts ticking on the present runtime, until the last meter is dropped.
    pub(crate) fn start(clock: Clock) -> Self {
        let ticks = Arc::new(Mutex::new(Ticks::starting(clock.now())));
        let watched = Arc::downgrade(&ticks);
        tokio::spawn(async move {
            let mut interval = tokio::time::interval(TICK);
            // Late ticks are not made up for: each next one is due a full period after the late one came.
            interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                interval.tick().await;
                let Some(ticks) = watched.upgrade() else { return };
                lock(&ticks).tick(clock.now());
            }
        });
        Self { clock, ticks }
    }

    /// The worst lateness from `start` until now.
    pub(crate) fn worst_since(&self, start: LocalTime) -> Duration {
        lock(&self.ticks).worst(start, self.clock.now())
    }
}

/// The ticks are plain numbers, whole after every statement: a panic elsewhere cannot have broken them.
fn lock(ticks: &Mutex<Ticks>) -> MutexGuard<'_, Ticks> {
    ticks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_stop_is_seen_by_whoever_was_under_way() {
        let mut ticks = Ticks::starting(at(0));
        for now in (20..=100).step_by(20) {
            ticks.tick(at(now));
        }
        assert_eq!(ticks.worst(at(0), at(110)), ms(0));
        // Stopped from 100 to 900: a probe that is woken first must see it already.
        assert_eq!(ticks.worst(at(90), at(900)), ms(780));
        ticks.tick(at(900));
        ticks.tick(at(920));
        assert_eq!(ticks.worst(at(90), at(930)), ms(780), "begun before, ended after");
        assert_eq!(ticks.worst(at(500), at(930)), ms(780), "due in the middle");
        assert_eq!(ticks.worst(at(901), at(930)), ms(0), "begun after it");
    }

    #[test]
    fn memory_is_bounded_and_errs_towards_distrust() {
        let mut ticks = Ticks::starting(at(0));
        ticks.tick(at(500));
        let mut now = 500;
        for _ in 0..SPIKES_MAX * 2 {
            now += 40;
            ticks.tick(at(now));
        }
        assert_eq!(ticks.spikes.len(), SPIKES_MAX);
        assert_eq!(ticks.worst(at(0), at(now)), ms(480), "the long stop is still known to a probe from before it");
        assert_eq!(ticks.worst(at(now - 400), at(now)), ms(20), "and is not held against a recent one");
    }

    #[tokio::test]
    async fn a_blocked_runtime_is_measured() {
        let meter = LagMeter::start(Clock);
        tokio::time::sleep(ms(50)).await;
        let start = Clock.now();
        std::thread::sleep(ms(300));
        tokio::task::yield_now().await;
        let worst = meter.worst_since(start);
        assert!(worst >= ms(200), "{worst:?} of a 300 ms stop were noticed");
    }
}
