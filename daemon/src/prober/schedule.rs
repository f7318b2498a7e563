//! When each target is probed next. Pure: time is an argument, nothing waits here.
//!
//! One ordered queue for all targets, in slots of a few milliseconds, so that ten thousand targets cost few wake-ups.
//! Each target has its own place in the interval, from a hash, so that targets are never in step with one another nor
//! nodes with each other; whatever moved a target (a doubt, a long probe), at the normal pace it comes back to its place.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use baton_core::probe::LocalTime;

/// The grain of the schedule. Probes due in the same slot start at one wake-up; a probe is late by less than this.
pub(crate) const SLOT: Duration = Duration::from_millis(5);

/// With more targets than this, first probes are spread over the whole interval; with fewer, over the fast one, so that a
/// small cluster knows its instances at once.
const FEW: usize = 1_000;

/// A target's number. Never used twice, so that a late result of a target that was replaced finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TargetId(pub(crate) u64);

/// How fast a target is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At its interval.
    Normal,
    /// At its fast interval: something is in doubt.
    Fast,
}

/// A target's intervals and its place in them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rhythm {
    /// From one probe to the next.
    pub(crate) interval: Duration,
    /// The same while in doubt.
    pub(crate) fast: Duration,
    /// A hash of who probes what: decides the place in the interval.
    pub(crate) hash: u64,
}

#[derive(Debug)]
enum Stand {
    /// In the queue at `due`. `last` is when it was due before and when that probe ended.
    Waiting { due: LocalTime, last: Option<(LocalTime, LocalTime)> },
    /// A probe that was due at `due` is under way; `again`: another one is wanted right after it.
    Flying { due: LocalTime, again: bool },
}

#[derive(Debug)]
struct Entry {
    rhythm: Rhythm,
    pace: Pace,
    stand: Stand,
}

/// The queue of all targets of this node.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    entries: HashMap<TargetId, Entry>,
    queue: BTreeSet<(LocalTime, TargetId)>,
}

/// The beginning of the next slot, or `time` itself where it begins one.
fn slot(time: LocalTime) -> LocalTime {
    let grain = SLOT.as_nanos();
    let slots = time.0.as_nanos().div_ceil(grain);
    LocalTime(Duration::from_nanos(u64::try_from(slots * grain).unwrap_or(u64::MAX)))
}

fn share(hash: u64, whole: Duration) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(hash % nanos)
}

impl Rhythm {
    /// This target's next place in its interval after `time`.
    fn place_after(&self, time: LocalTime) -> LocalTime {
        let interval = self.interval.max(SLOT);
        let phase = share(self.hash, interval);
        let passed = time.0.as_nanos().saturating_sub(phase.as_nanos()) / interval.as_nanos();
        let next = |rounds: u128| {
            let nanos = rounds * interval.as_nanos() + phase.as_nanos();
            slot(LocalTime(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))))
        };
        if time.0 < phase { next(0) } else { next(passed + 1) }
    }

    /// When to probe after a probe that was due at `due` and ended at `ended`. Never before it ended.
    fn after(&self, due: LocalTime, ended: LocalTime, pace: Pace) -> LocalTime {
        let rested = slot(ended.plus(SLOT));
        match pace {
            Pace::Fast => slot(due.plus(self.fast.min(self.interval))).max(rested),
            Pace::Normal => {
                let place = self.place_after(due);
                if place >= rested { place } else { self.place_after(ended).max(rested) }
            }
        }
    }
}

impl Schedule {
    /// Adds a target; its first probe is soon, at its own place. In doubt until told otherwise.
    pub(crate) fn insert(&mut self, id: TargetId, rhythm: Rhythm, now: LocalTime) {
        let spread = if self.entries.len() < FEW { rhythm.fast.min(rhythm.interval) } else { rhythm.interval };
        let due = slot(now.plus(share(rhythm.hash, spread)));
        self.entries.insert(id, Entry { rhythm, pace: Pace::Fast, stand: Stand::Waiting { due, last: None } });
        self.queue.insert((due, id));
    }

    /// Forgets a target.
    pub(crate) fn remove(&mut self, id: TargetId) {
        if let Some(Entry { stand: Stand::Waiting { due, .. }, .. }) = self.entries.remove(&id) {
            self.queue.remove(&(due, id));
        }
    }

    /// Sets a target's pace; its next probe moves accordingly, never into the past.
    pub(crate) fn pace(&mut self, id: TargetId, pace: Pace, now: LocalTime) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if entry.pace == pace {
            return;
        }
        entry.pace = pace;
        if let Stand::Waiting { due, last: Some((last_due, ended)) } = &mut entry.stand {
            let moved = entry.rhythm.after(*last_due, *ended, pace).max(now);
            // A doubt brings a probe nearer; it never puts off one that was to hurry.
            let moved = if pace == Pace::Fast { moved.min(*due) } else { moved };
            self.queue.remove(&(*due, id));
            self.queue.insert((moved, id));
            *due = moved;
        }
    }

    /// Probes a target at once, or again at once if it is being probed.
    pub(crate) fn hurry(&mut self, id: TargetId, now: LocalTime) {
        match self.entries.get_mut(&id).map(|entry| &mut entry.stand) {
            Some(Stand::Waiting { due, .. }) if *due > now => {
                self.queue.remove(&(*due, id));
                self.queue.insert((now, id));
                *due = now;
            }
            Some(Stand::Flying { again, .. }) => *again = true,
            Some(Stand::Waiting { .. }) | None => {}
        }
    }

    /// Takes a target whose time has come, with the time when it was due.
    pub(crate) fn pop(&mut self, now: LocalTime) -> Option<(TargetId, LocalTime)> {
        let &(due, id) = self.queue.first().filter(|(due, _)| *due <= now)?;
        self.queue.pop_first();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stand = Stand::Flying { due, again: false };
        }
        Some((id, due))
    }

    /// A probe ended at `ended`: the target goes back into the queue.
    pub(crate) fn finished(&mut self, id: TargetId, ended: LocalTime) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        let Stand::Flying { due: last_due, again } = entry.stand else { return };
        let due = if again { slot(ended.plus(SLOT)) } else { entry.rhythm.after(last_due, ended, entry.pace) };
        entry.stand = Stand::Waiting { due, last: Some((last_due, ended)) };
        self.queue.insert((due, id));
    }

    /// When the next target is due.
    pub(crate) fn next_due(&self) -> Option<LocalTime> {
        self.queue.first().map(|(due, _)| *due)
    }

    /// How many targets there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const fn at(ms: u64) -> LocalTime {
        LocalTime(Duration::from_millis(ms))
    }

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn rhythm(hash: u64) -> Rhythm {
        // Spread the small numbers of the tests as a real hash would.
        Rhythm { interval: ms(1_000), fast: ms(200), hash: hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) }
    }

    /// Runs the schedule with probes that take `takes`, and tells when each target was due.
    fn run(schedule: &mut Schedule, from: u64, to: u64, takes: u64) -> Vec<(u64, TargetId)> {
        let mut due = Vec::new();
        let mut ending: BTreeMap<u64, Vec<TargetId>> = BTreeMap::new();
        for now in from..to {
            for id in ending.remove(&now).unwrap_or_default() {
                schedule.finished(id, at(now));
            }
            while let Some((id, _)) = schedule.pop(at(now)) {
                due.push((now, id));
                ending.entry(now + takes).or_default().push(id);
            }
        }
        due
    }

    fn gaps(due: &[(u64, TargetId)]) -> Vec<u64> {
        due.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    #[test]
    fn the_normal_pace_is_exact() {
        let mut schedule = Schedule::default();
        let id = TargetId(1);
        schedule.insert(id, rhythm(1), at(0));
        schedule.pace(id, Pace::Normal, at(0));
        let due = run(&mut schedule, 0, 10_000, 3);
        assert!(due[0].0 <= 200, "the first look is soon");
        assert!(gaps(&due)[0] <= 1_000);
        assert!(gaps(&due)[1..].iter().all(|&gap| gap == 1_000), "{due:?}");
    }

    #[test]
    fn a_doubt_makes_it_fast_and_calm_brings_it_back_to_its_place() {
        let mut schedule = Schedule::default();
        let id = TargetId(1);
        schedule.insert(id, rhythm(7), at(0));
        schedule.pace(id, Pace::Normal, at(0));
        let calm = run(&mut schedule, 0, 3_000, 3);
        let place = calm.last().map(|(now, _)| now % 1_000);
        schedule.pace(id, Pace::Fast, at(3_000));
        let fast = run(&mut schedule, 3_000, 4_500, 3);
        assert!(fast[0].0 - calm[calm.len() - 1].0 <= 1_000);
        assert_eq!(schedule.next_due().map(|due| due >= at(4_500)), Some(true), "nothing is due in the past");
        assert!(gaps(&fast).iter().all(|&gap| gap == 200), "{fast:?}");
        schedule.pace(id, Pace::Normal, at(4_500));
        let again = run(&mut schedule, 4_500, 8_500, 3);
        assert!(again[0].0 - fast[fast.len() - 1].0 <= 1_000, "never longer than the interval");
        assert_eq!(again.last().map(|(now, _)| now % 1_000), place);
    }

    #[test]
    fn a_slow_target_is_not_probed_twice_at_once_and_delays_nobody() {
        let mut schedule = Schedule::default();
        let (slow, quick) = (TargetId(1), TargetId(2));
        schedule.insert(slow, rhythm(1), at(0));
        schedule.insert(quick, rhythm(2), at(0));
        schedule.pace(quick, Pace::Normal, at(0));
        let (mut slow_due, mut quick_due, mut free_at) = (Vec::new(), Vec::new(), None);
        for now in 0..10_000 {
            if free_at == Some(now) {
                schedule.finished(slow, at(now));
                free_at = None;
            }
            while let Some((id, _)) = schedule.pop(at(now)) {
                if id == slow {
                    assert_eq!(free_at, None, "two probes of one target at once");
                    slow_due.push((now, id));
                    free_at = Some(now + 500);
                } else {
                    quick_due.push((now, id));
                    schedule.finished(quick, at(now));
                }
            }
        }
        assert!(gaps(&slow_due).iter().all(|gap| (500..=510).contains(gap)), "{slow_due:?}");
        assert!(gaps(&quick_due)[1..].iter().all(|&gap| gap == 1_000), "{quick_due:?}");
    }

    #[test]
    fn probes_are_spread_and_wake_ups_shared() {
        let mut schedule = Schedule::default();
        for number in 0..10_000 {
            schedule.insert(TargetId(number), rhythm(number), at(0));
            schedule.pace(TargetId(number), Pace::Normal, at(0));
        }
        run(&mut schedule, 0, 2_000, 3);
        let due = run(&mut schedule, 2_000, 3_000, 3);
        assert_eq!(due.len(), 10_000, "each once in an interval");
        let mut per_wake: BTreeMap<u64, usize> = BTreeMap::new();
        for (now, _) in &due {
            *per_wake.entry(*now).or_default() += 1;
        }
        assert_eq!(per_wake.len(), 200, "one wake-up a slot");
        let busiest = per_wake.values().max().copied().unwrap_or(0);
        assert!(busiest < 100, "50 are due in a slot on average, {busiest} in the busiest");
    }

    #[test]
    fn a_hurry_is_at_once_and_late_ends_are_ignored() {
        let mut schedule = Schedule::default();
        let id = TargetId(1);
        schedule.insert(id, rhythm(3), at(0));
        schedule.hurry(id, at(0));
        assert_eq!(schedule.pop(at(0)), Some((id, at(0))));
        schedule.hurry(id, at(10));
        assert_eq!(schedule.pop(at(50)), None, "it is under way");
        schedule.finished(id, at(50));
        assert_eq!(schedule.next_due(), Some(at(55)));
        schedule.finished(id, at(51));
        assert_eq!(schedule.pop(at(55)), Some((id, at(55))));
        schedule.remove(id);
        schedule.finished(id, at(60));
        assert_eq!((schedule.len(), schedule.next_due()), (0, None));
    }
}
