//! When something that an operator asks for comes to its end: after a length, or at a time of day. The time of day becomes a
//! length here, at the edge: inside, no wall clock decides.

use std::str::FromStr;

use baton_core::json::{Fields, Json};
use baton_core::time::{Millis, WallTime};

/// The shortest time that anything may be given.
const SHORTEST: Millis = Millis(1);

/// The longest time that something may be given, and how that is said.
#[derive(Clone, Copy, Debug)]
pub(super) struct Longest {
    /// The length.
    pub(super) length: Millis,
    /// The same in words, as in `ten years`.
    pub(super) told: &'static str,
}

/// The end that was asked for, if one was: at most one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// After how long.
    pub(super) lasts: Option<Millis>,
    /// At what time of day.
    pub(super) until: Option<WallTime>,
}

impl Ending {
    /// The fields `for` and `until` of a request that came at `now`.
    pub(super) fn read(fields: &mut Fields<'_, '_>, now: WallTime, longest: Longest) -> Self {
        let lasts = fields.field("for").and_then(|slot| slot.millis(SHORTEST..=longest.length));
        let until = fields.parsed::<Until>("until").map(|until| until.0);
        if let Some(late) = until.filter(|until| ahead(*until, now, longest).is_none()) {
            let why = if late <= now {
                "is not in the future".to_owned()
            } else {
                format!("is more than {} away", longest.told)
            };
            fields.error("until", format_args!("{late} {why}: here it is {now}"));
        }
        if fields.has("until") && fields.has("for") {
            fields.error("until", "cannot be given together with \"for\": give one of them");
        }
        Self { lasts, until }
    }

    /// How far it lies ahead of `now`; none where there is none.
    pub(super) fn length(&self, now: WallTime, longest: Longest) -> Option<Millis> {
        self.lasts.or_else(|| self.until.and_then(|until| ahead(until, now, longest)))
    }
}

/// A time of day that somebody wrote. Only RFC 3339, not all that jiff would take for a time.
struct Until(WallTime);

impl FromStr for Until {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let dated = text.get(..10).is_some_and(|date| date.bytes().all(|b| b.is_ascii_digit() || b == b'-'));
        let time = text.parse::<jiff::Timestamp>().ok().filter(|_| dated && !text.contains('['));
        time.map(|time| Self(WallTime(time.as_millisecond()))).ok_or_else(|| {
            let shown = Json::String(text.chars().take(40).collect()).shown();
            format!("{shown} is not an RFC 3339 time such as \"2026-11-20T10:42:00Z\"")
        })
    }
}

/// How far a time lies ahead; none where it does not, or lies further than it may.
fn ahead(until: WallTime, now: WallTime, longest: Longest) -> Option<Millis> {
    let length = u64::try_from(until.0.saturating_sub(now.0)).ok().map(Millis)?;
    (SHORTEST..=longest.length).contains(&length).then_some(length)
}
