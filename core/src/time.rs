//! Three kinds of time that must not be mixed: lengths (`Millis`), the decision clock (`ClusterTime`) and
//! labels for people (`WallTime`). Nothing here reads a clock; every `now` is an argument.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A length of time in whole milliseconds, written as people write it: `"500ms"`, `"10s"`, `"5m"`, `"1h"`, `"2d"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, example = "500ms"))]
pub struct Millis(pub u64);

/// The longest length accepted from outside: ten years. Beyond it a typo is likelier than a wish, and sums stay far
/// from overflow.
pub const LONGEST: Millis = Millis(10 * 365 * 24 * 3_600_000);

/// The longest length that is told to the millisecond.
const TOLD_TO_THE_MS: Millis = Millis(10_000);

const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

impl Millis {
    /// No time at all: a legal delay.
    pub const ZERO: Self = Self(0);

    /// Whole seconds.
    pub const fn secs(seconds: u64) -> Self {
        Self(seconds * 1_000)
    }

    /// This length multiplied `times` times over, and never more than `max`: how waits grow from failure to failure.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    pub fn grown(self, multiplier: f64, times: u32, max: Self) -> Self {
        let mut grown = self;
        for _ in 0..times {
            let next = Self((grown.0 as f64 * multiplier) as u64);
            if next <= grown || grown >= max {
                break;
            }
            grown = next;
        }
        grown.min(max)
    }

    /// The length as a sentence tells it: beyond [`TOLD_TO_THE_MS`] in whole seconds, since nobody reads milliseconds
    /// there. Not for what is parsed again: that is what `Display` is for.
    pub fn told(self) -> String {
        if self <= TOLD_TO_THE_MS {
            return self.to_string();
        }
        Self::secs(self.0 / 1_000 + u64::from(self.0 % 1_000 >= 500)).to_string()
    }

    /// A length that is waited for at most, as a sentence tells it: rounded up to whole seconds from one second on, so that
    /// nobody waits in vain and nobody reads milliseconds.
    pub fn at_most(self) -> String {
        if self < Self::secs(1) { self.to_string() } else { Self::secs(self.0.div_ceil(1_000)).to_string() }
    }

    /// A length that has passed, as a sentence tells it: whole seconds from one second on.
    pub fn passed(self) -> String {
        if self < Self::secs(1) { self.to_string() } else { Self::secs(self.0 / 1_000).to_string() }
    }

    /// The same length for the standard library.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a duration: write a number and a unit, as in \"500ms\", \"10s\", \"5m\", \"1h\" (at most ten years)"
)]
pub struct InvalidDuration(String);

impl FromStr for Millis {
    type Err = InvalidDuration;
    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        let error = || InvalidDuration(text.chars().take(40).collect());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = text[..digits].parse().map_err(|_| error())?;
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &text[digits..]).ok_or_else(error)?;
        let length = number.checked_mul(*unit).map(Millis).ok_or_else(error)?;
        if length > LONGEST { Err(error()) } else { Ok(length) }
    }
}

impl TryFrom<String> for Millis {
    type Error = InvalidDuration;
    fn try_from(text: String) -> Result<Self, InvalidDuration> {
        text.parse()
    }
}

impl From<Millis> for String {
    fn from(length: Millis) -> String {
        length.to_string()
    }
}

impl fmt::Display for Millis {
    /// The largest unit that leaves no remainder, so that printing and parsing are inverse.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (name, unit) = UNITS.iter().rev().find(|(_, unit)| self.0.is_multiple_of(*unit)).unwrap_or(&UNITS[0]);
        write!(f, "{}{}", self.0 / unit, name)
    }
}

/// The decision clock, in milliseconds since the cluster was made. The leader advances it by its monotonic clock and
/// stamps it into each log entry; no wall clock ever steps it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = u64))]
pub struct ClusterTime(pub u64);

impl ClusterTime {
    /// The time `length` later.
    #[must_use]
    pub const fn plus(self, length: Millis) -> Self {
        Self(self.0.saturating_add(length.0))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A label for people: milliseconds of UTC since 1970, stamped by the leader and written as RFC 3339. Decides nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, format = DateTime, example = "2026-11-20T10:42:00.123Z"))]
pub struct WallTime(pub i64);

/// Why a text is not a time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not an RFC 3339 time such as \"2026-11-20T10:42:00.123Z\"")]
pub struct InvalidTime(String);

impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Out of range is only possible for a clock thousands of years off; an honest label is still owed.
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl FromStr for WallTime {
    type Err = InvalidTime;
    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let error = |_| InvalidTime(text.chars().take(40).collect());
        if let Some(digits) = text.strip_suffix("ms") {
            return digits.parse().map(WallTime).map_err(|_| InvalidTime(text.chars().take(40).collect()));
        }
        text.parse::<jiff::Timestamp>().map(|time| WallTime(time.as_millisecond())).map_err(error)
    }
}

impl TryFrom<String> for WallTime {
    type Error = InvalidTime;
    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<WallTime> for String {
    fn from(time: WallTime) -> String {
        time.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_round_trip_in_their_largest_unit() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("1s", 1_000),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("3d", 259_200_000),
        ] {
            assert_eq!(text.parse(), Ok(Millis(ms)));
            assert_eq!(Millis(ms).to_string(), text);
        }
        assert_eq!("0ms".parse(), Ok(Millis(0)));
        assert_eq!("1000ms".parse::<Millis>().map(|d| d.to_string()), Ok("1s".to_owned()));
    }

    #[test]
    fn long_lengths_are_told_without_their_milliseconds() {
        for (ms, told) in [
            (0, "0s"),
            (87, "87ms"),
            (4_400, "4400ms"),
            (10_000, "10s"),
            (10_001, "10s"),
            (26_376, "26s"),
            (26_500, "27s"),
        ] {
            assert_eq!(Millis(ms).told(), told);
        }
        assert_eq!((Millis(290_400).told(), Millis(299_900).told()), ("290s".to_owned(), "5m".to_owned()));
    }

    #[test]
    fn waits_are_rounded_up_and_what_has_passed_down() {
        for (ms, at_most, passed) in [
            (0, "0s", "0s"),
            (999, "999ms", "999ms"),
            (1_001, "2s", "1s"),
            (46_703, "47s", "46s"),
            (60_000, "1m", "1m"),
        ] {
            assert_eq!((Millis(ms).at_most().as_str(), Millis(ms).passed().as_str()), (at_most, passed));
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for bad in ["", "5", "s", "-1s", "1.5s", "1 s", "1w", "99999999999999999999s", "4000d", "1S", "１s"] {
            assert!(bad.parse::<Millis>().is_err(), "{bad}");
        }
    }

    #[test]
    fn wall_times_are_rfc_3339_with_milliseconds() {
        assert_eq!(WallTime(1_763_635_320_007).to_string(), "2025-11-20T10:42:00.007Z");
        assert_eq!("2025-11-20T10:42:00.007Z".parse(), Ok(WallTime(1_763_635_320_007)));
        assert_eq!(WallTime(i64::MAX).to_string().parse(), Ok(WallTime(i64::MAX)));
        assert!("yesterday".parse::<WallTime>().is_err());
    }

    #[test]
    fn cluster_time_never_goes_below_zero() {
        assert_eq!(ClusterTime(5).since(ClusterTime(9)), Millis::ZERO);
        assert_eq!(ClusterTime(u64::MAX).plus(Millis(1)), ClusterTime(u64::MAX));
    }
}
