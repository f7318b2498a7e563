//! A histogram of latencies of fixed size.
//!
//! The intuition: nobody needs to know whether a call took 812 or 815 ms, but 1 ms and 2 ms differ as much as 1 s and
//! 2 s do. So each octave is cut into the same number of equal parts, as in `HdrHistogram` (Tene) and DDSketch's linear
//! variant: a position is two shifts, and the error is the same share of the value everywhere.
//!
//! ```text
//!   bucket   0        1       2            8       9        ...  160              161
//!   from     0      64 µs   72 µs  ...  120 µs  128 µs, 144 µs  62.9 s      67.1 s and all above
//!            └ below ┘└──── one octave, 8 parts ─┘└─ the next ...
//! ```
//!
//! A percentile is off by at most an eighth of its value (one part of an octave), between 64 µs and 67 s; below it is off
//! by at most 64 µs, above it is told as 67 s.

use std::fmt;
use std::time::Duration;

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::window::Summed;

/// Parts of an octave, as a power of two. Eight parts: an error of 12.5 % is far below the multipliers that are put on
/// percentiles, and a histogram still fits in ten cache lines.
const PARTS_LOG2: u32 = 3;
const PARTS: usize = 1 << PARTS_LOG2;

/// The least latency that is told apart, in microseconds, as a power of two: 64 µs, below any call over a network.
const LEAST_LOG2: u32 = 6;

/// The first latency that is not told apart any more, in microseconds, as a power of two: 67.1 s, above any time-out in
/// use.
const MOST_LOG2: u32 = 26;

const OCTAVES: usize = (MOST_LOG2 - LEAST_LOG2) as usize;

/// One bucket for what is below, the octaves, one for what is above.
const BUCKETS: usize = 1 + OCTAVES * PARTS + 1;

/// Buckets are summed in groups first, so that a percentile looks at one group only. Eight, for a processor adds so many at
/// once.
const GROUP: usize = 8;
const GROUPS: usize = BUCKETS.div_ceil(GROUP);

/// Buckets and what fills the last group: those are never counted in.
const ROOM: usize = GROUPS * GROUP;

/// How many calls took how long. Counts saturate.
#[derive(Clone, PartialEq, Eq)]
pub struct Latencies {
    buckets: [u32; ROOM],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: [0; ROOM] }
    }
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.filled().map(|(bucket, count)| (from(bucket), count))).finish()
    }
}

/// The bucket of a latency.
fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if micros < 1 << LEAST_LOG2 {
        return 0;
    }
    let octave = micros.ilog2();
    if octave >= MOST_LOG2 {
        return BUCKETS - 1;
    }
    let part = (micros >> (octave - PARTS_LOG2)) as usize & (PARTS - 1);
    1 + (octave - LEAST_LOG2) as usize * PARTS + part
}

/// The least latency of a bucket, in microseconds. For the one behind the last it is that of the last: what is above is
/// told as its beginning.
fn from(bucket: usize) -> u64 {
    let Some(place) = bucket.min(BUCKETS - 1).checked_sub(1) else { return 0 };
    ((PARTS + place % PARTS) as u64) << ((place / PARTS) as u32 + LEAST_LOG2 - PARTS_LOG2)
}

/// The latency at that share of a bucket, as if what lies in it were spread evenly.
fn within(bucket: usize, share: f64) -> Duration {
    let (low, high) = (from(bucket), from(bucket + 1));
    let micros = low as f64 + (high - low) as f64 * share;
    Duration::from_nanos((micros * 1_000.0) as u64)
}

impl Latencies {
    /// Counts `count` calls that took so long.
    pub fn record(&mut self, latency: Duration, count: u32) {
        let bucket = &mut self.buckets[bucket_of(latency)];
        *bucket = bucket.saturating_add(count);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        let (own, _) = self.buckets.as_chunks_mut::<GROUP>();
        let (other, _) = other.buckets.as_chunks::<GROUP>();
        for (own, other) in own.iter_mut().zip(other) {
            // Most calls of a slice of time are alike, so most groups are empty.
            if other.iter().fold(0, |any, count| any | count) != 0 {
                own.iter_mut().zip(other).for_each(|(own, other)| *own = own.saturating_add(*other));
            }
        }
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|count| u64::from(*count)).sum()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        // Looks at all of them, which is quicker than looking for the first that is not empty: it can be done in parallel.
        self.buckets.iter().fold(0, |any, count| any | count) == 0
    }

    /// The latency that the share `q` (0 to 1) of all calls did not exceed: the bucket of the ⌈q × count⌉-th smallest, and
    /// within it by even spread. `None` where nothing was counted. See the top of this file for how far it may be off.
    pub fn percentile(&self, q: f64) -> Option<Duration> {
        self.percentile_of(q, 1).1
    }

    /// How many latencies were counted and, where they are at least `least`, their percentile: both in one pass.
    pub(crate) fn percentile_of(&self, q: f64, least: u64) -> (u64, Option<Duration>) {
        let (buckets, _) = self.buckets.as_chunks::<GROUP>();
        let groups: [u64; GROUPS] =
            std::array::from_fn(|group| buckets[group].iter().map(|count| u64::from(*count)).sum());
        let count = groups.iter().sum();
        if count < least.max(1) {
            return (count, None);
        }
        // A q that is no number asks for nothing sensible, and gets the greatest.
        let q = if q.is_nan() { 1.0 } else { q };
        // Counts are below 2^40, so a double holds them exactly; the cast saturates.
        let rank = ((q * count as f64).ceil() as u64).clamp(1, count);
        let mut below = 0;
        for (group, held) in groups.iter().enumerate() {
            if below + held < rank {
                below += held;
                continue;
            }
            for (place, held) in buckets[group].iter().enumerate() {
                let held = u64::from(*held);
                if below + held >= rank {
                    return (count, Some(within(group * GROUP + place, (rank - below) as f64 / held as f64)));
                }
                below += held;
            }
        }
        (count, None)
    }

    fn filled(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        self.buckets.iter().copied().enumerate().filter(|(_, count)| *count > 0)
    }
}

impl Summed for Latencies {
    fn add(&mut self, other: &Self) {
        self.merge(other);
    }

    fn subtract(&mut self, other: &Self) -> bool {
        let mut exact = true;
        for (own, other) in self.buckets.iter_mut().zip(&other.buckets) {
            exact &= *own != u32::MAX;
            *own = own.saturating_sub(*other);
        }
        exact
    }

    fn clear(&mut self) {
        self.buckets.fill(0);
    }
}

/// Written as the pairs `[bucket, count]` that are not empty, in rising order.
impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.filled())
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Pairs)
    }
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Latencies;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("pairs [bucket, count] in rising order")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Latencies, A::Error> {
        let mut latencies = Latencies::default();
        let mut next = 0;
        while let Some((bucket, count)) = seq.next_element::<(usize, u32)>()? {
            if bucket < next {
                return Err(A::Error::custom(format_args!("bucket {bucket} comes twice or out of order")));
            }
            let held = latencies.buckets[..BUCKETS].get_mut(bucket);
            *held.ok_or_else(|| A::Error::custom(format_args!("there is no bucket {bucket}, only {BUCKETS}")))? = count;
            next = bucket + 1;
        }
        Ok(latencies)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn buckets_follow_each_other_without_gap() {
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        for bucket in 1..BUCKETS {
            assert_eq!(bucket_of(micros(from(bucket))), bucket, "its own beginning");
            assert_eq!(bucket_of(micros(from(bucket) - 1)), bucket - 1, "what lies just before");
        }
        assert_eq!((from(1), from(BUCKETS - 1)), (64, 1 << 26));
    }

    #[test]
    fn percentiles_of_few() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.percentile(0.5), latencies.is_empty()), (None, true));
        latencies.record(micros(1_000), 1);
        for q in [0.0, 0.5, 1.0, f64::NAN, -1.0, 7.0] {
            let told = latencies.percentile(q).unwrap();
            assert!((micros(960)..=micros(1_024)).contains(&told), "q {q}: {told:?}");
        }
        latencies.record(micros(1_000_000), 1);
        assert!(latencies.percentile(0.5).unwrap() <= micros(1_024), "the first of two is a half of them");
        assert!(latencies.percentile(0.51).unwrap() >= micros(917_504));
    }

    #[test]
    fn what_is_beyond_the_last_bucket_is_told_as_its_beginning() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(3_600), 1);
        assert_eq!(latencies.percentile(0.95), Some(micros(1 << 26)));
    }

    #[test]
    fn counts_saturate() {
        let mut latencies = Latencies::default();
        latencies.record(micros(100), u32::MAX);
        latencies.record(micros(100), u32::MAX);
        latencies.merge(&latencies.clone());
        assert_eq!(latencies.count(), u64::from(u32::MAX));
        assert!(!Summed::subtract(&mut latencies, &Latencies::default()), "it cannot be said what is left");
    }

    #[test]
    fn a_peer_cannot_write_beside_the_buckets() {
        for (text, error) in [
            ("[[162,1]]", "there is no bucket 162"),
            ("[[3,1],[3,1]]", "twice or out of order"),
            ("[[3,1],[2,1]]", "twice or out of order"),
            ("[[3,4294967296]]", "invalid value"),
            ("[[-1,1]]", "invalid value"),
            ("[[3]]", "invalid length"),
            ("{}", "pairs [bucket, count]"),
        ] {
            let refused = serde_json::from_str::<Latencies>(text).unwrap_err().to_string();
            assert!(refused.contains(error), "{text}: {refused}");
        }
        assert_eq!(serde_json::from_str::<Latencies>("[[0,1],[161,2]]").unwrap().count(), 3);
    }

    proptest! {
        #[test]
        fn a_percentile_is_off_by_an_eighth_at_most(
            values in proptest::collection::vec(0_u64..80_000_000, 1..200),
            q in 0.0_f64..=1.0,
        ) {
            let mut latencies = Latencies::default();
            for value in &values {
                latencies.record(micros(*value), 1);
            }
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len());
            let truth = sorted[rank - 1].min(1 << MOST_LOG2) as f64;
            let told = latencies.percentile(q).unwrap().as_secs_f64() * 1e6;
            prop_assert!((told - truth).abs() <= (truth / 8.0).max(64.0) + 1.0, "told {told}, truth {truth}");
            let written = serde_json::to_string(&latencies).unwrap();
            prop_assert_eq!(serde_json::from_str::<Latencies>(&written).unwrap(), latencies);
        }
    }
}
