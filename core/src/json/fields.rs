//! The fields of one object, asked for by name. What nobody asked for is an error; what was left out has a default.

use std::fmt::Display;
use std::ops::{RangeBounds, RangeInclusive};
use std::str::FromStr;

use super::slot::{Slot, Word, add};
use super::{FieldError, Json, ROOT, join};
use crate::time::Millis;

/// How many letters a field may be off for its neighbour to be suggested.
const TYPO_MAX: usize = 2;

/// Unknown names longer than this are not compared: no field of ours is near them.
const TYPO_NAME_MAX: usize = 40;

/// Reads a whole body: `read` asks for its fields and makes the value, or `None` where a required one is missing.
/// All errors are reported together.
pub fn read<T>(body: &Json, read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>) -> Result<T, Vec<FieldError>> {
    let mut errors = Vec::new();
    let value = Slot::new(body, ROOT.to_owned(), &mut errors).object(read).flatten();
    match value {
        Some(value) if errors.is_empty() => Ok(value),
        _ if !errors.is_empty() => Err(errors),
        // The reader gave up without a word. The sender is still owed an answer that is not a success.
        _ => Err(vec![FieldError { path: ROOT.to_owned(), message: format!("{} is incomplete", body.shown()) }]),
    }
}

/// The fields of one object. `null` counts as an error unless a field is read as nullable.
pub struct Fields<'j, 'e> {
    members: &'j [(String, Json)],
    path: String,
    errors: &'e mut Vec<FieldError>,
    known: Vec<&'static str>,
}

impl<'j, 'e> Fields<'j, 'e> {
    pub(super) fn new(members: &'j [(String, Json)], path: String, errors: &'e mut Vec<FieldError>) -> Self {
        Self { members, path, errors, known: Vec::new() }
    }

    fn member(&mut self, name: &'static str) -> Option<&'j Json> {
        if !self.known.contains(&name) {
            self.known.push(name);
        }
        self.members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    fn slot(&mut self, name: &'static str, json: &'j Json) -> Slot<'j, '_> {
        Slot::new(json, join(&self.path, name), self.errors)
    }

    /// The field `name`, if it was given.
    pub fn field(&mut self, name: &'static str) -> Option<Slot<'j, '_>> {
        match self.member(name)? {
            Json::Null => {
                self.error(name, "null has no meaning here: leave the field out, or write a value");
                None
            }
            json => Some(self.slot(name, json)),
        }
    }

    /// The field `name`, which may be null: `None` where it was left out, `Some(None)` for null.
    pub fn nullable(&mut self, name: &'static str) -> Option<Option<Slot<'j, '_>>> {
        match self.member(name)? {
            Json::Null => Some(None),
            json => Some(Some(self.slot(name, json))),
        }
    }

    /// The field `name`, which must be given; `example` shows how.
    pub fn required(&mut self, name: &'static str, example: &str) -> Option<Slot<'j, '_>> {
        if self.member(name).is_none() {
            self.error(name, format_args!("is missing: write it as in {example}"));
            return None;
        }
        self.field(name)
    }

    /// Whether the field was given, rightly or wrongly.
    pub fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(key, _)| key == name)
    }

    /// Whether no error is known of the field itself, so that it can be compared with others.
    pub fn sound(&self, name: &str) -> bool {
        let path = join(&self.path, name);
        self.errors.iter().all(|error| error.path != path)
    }

    /// Records an error of the field `name`, in words of its own.
    pub fn error(&mut self, name: &str, message: impl Display) {
        add(self.errors, &join(&self.path, name), message.to_string());
    }

    /// A duration.
    pub fn millis(&mut self, name: &'static str, default: Millis, range: RangeInclusive<Millis>) -> Millis {
        self.field(name).and_then(|slot| slot.millis(range)).unwrap_or(default)
    }

    /// One of a closed set of words.
    pub fn word<T: Word>(&mut self, name: &'static str, default: T) -> T {
        self.field(name).and_then(Slot::word).unwrap_or(default)
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.field(name).and_then(Slot::boolean).unwrap_or(default)
    }

    /// A whole number.
    pub fn whole(&mut self, name: &'static str, default: u32, range: RangeInclusive<u32>) -> u32 {
        let range = u64::from(*range.start())..=u64::from(*range.end());
        let number = self.field(name).and_then(|slot| slot.whole(range));
        number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default)
    }

    /// A number.
    pub fn number(&mut self, name: &'static str, default: f64, range: impl RangeBounds<f64>) -> f64 {
        self.field(name).and_then(|slot| slot.number(range)).unwrap_or(default)
    }

    /// A text of so many bytes.
    pub fn text(&mut self, name: &'static str, bytes: RangeInclusive<usize>) -> Option<&'j str> {
        self.field(name).and_then(|slot| slot.text(bytes))
    }

    /// A text that is spelt by the rules of `T`.
    pub fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        self.field(name).and_then(Slot::parsed)
    }

    /// An object with a closed set of fields.
    pub fn object<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Fields<'j, '_>) -> T) -> Option<T> {
        self.field(name).and_then(|slot| slot.object(read))
    }

    /// Sees to it that `low` is not above `high`. If just one of the two was given, the other follows it; a default
    /// must not make a legal wish illegal.
    pub fn in_order<T: PartialOrd + Copy + Display>(&mut self, low: (&str, &mut T), high: (&str, &mut T)) {
        let ((low_name, low), (high_name, high)) = (low, high);
        if *low <= *high || !self.sound(low_name) || !self.sound(high_name) {
            return;
        }
        match (self.has(low_name), self.has(high_name)) {
            (true, true) => self.error(
                low_name,
                format_args!(
                    "\"{low}\" is above `{high_name}`, which is \"{high}\": write at most that, or raise the other"
                ),
            ),
            (true, false) => *high = *low,
            (false, true | false) => *low = *high,
        }
    }

    /// Reports the fields that nobody asked for.
    pub(super) fn finish(self) {
        for (key, _) in self.members.iter().filter(|(key, _)| !self.known.contains(&key.as_str())) {
            let near = self.known.iter().map(|known| (distance(key, known), known)).min();
            let message = match near {
                Some((off, known)) if off <= TYPO_MAX && off < key.chars().count().min(known.len()) => {
                    format!("unknown field: did you mean `{known}`?")
                }
                Some(_) => format!("unknown field: the fields here are {}", self.known.join(", ")),
                None => "unknown field: no fields are known here".to_owned(),
            };
            add(self.errors, &join(&self.path, key), message);
        }
    }
}

/// The edits between two names (Levenshtein, 1965); far for names that are too long to be a slip.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(TYPO_NAME_MAX + 1).collect();
    if a.len() > TYPO_NAME_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=a.len()).collect();
    for (above, right) in b.chars().enumerate() {
        let mut corner = above;
        row[0] = above + 1;
        for (index, &left) in a.iter().enumerate() {
            let substituted = corner + usize::from(left != right);
            corner = row[index + 1];
            row[index + 1] = substituted.min(corner + 1).min(row[index] + 1);
        }
    }
    row[a.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The body of a request like `POST …/failover`.
    #[derive(Debug, PartialEq)]
    struct Wish {
        to: Option<String>,
        reason: String,
        dry_run: bool,
        wait: Millis,
        floor: u32,
        ceiling: u32,
    }

    fn wish(text: &str) -> Result<Wish, Vec<(String, String)>> {
        let body = Json::parse(text.as_bytes()).expect("JSON");
        let wish = read(&body, |f| {
            let to = f.text("to", 1..=9).map(str::to_owned);
            let reason = f.required("reason", "\"disk is dying\"").and_then(|slot| slot.text(1..=20));
            let dry_run = f.boolean("dry_run", false);
            let wait = f.millis("wait", Millis(500), Millis(10)..=Millis::secs(10));
            let (mut floor, mut ceiling) = (f.whole("floor", 5, 0..=100), f.whole("ceiling", 10, 0..=100));
            f.in_order(("floor", &mut floor), ("ceiling", &mut ceiling));
            Some(Wish { to, reason: reason?.to_owned(), dry_run, wait, floor, ceiling })
        });
        wish.map_err(|errors| errors.into_iter().map(|error| (error.path, error.message)).collect())
    }

    #[test]
    fn what_is_given_is_read_and_what_is_left_out_has_a_default() {
        let expected =
            Wish { to: None, reason: "x".to_owned(), dry_run: false, wait: Millis(500), floor: 5, ceiling: 10 };
        assert_eq!(wish(r#"{"reason":"x"}"#), Ok(expected));
        let full = wish(r#"{"to":"b","reason":"x","dry_run":true,"wait":"1s","floor":1,"ceiling":1}"#).expect("valid");
        assert_eq!((full.to.as_deref(), full.dry_run, full.wait), (Some("b"), true, Millis::secs(1)));
    }

    #[test]
    fn every_error_is_named_with_its_value_and_a_remedy() {
        for (text, path, part) in [
            ("[1]", "$", "[1] is not an object"),
            (r#"{}"#, "reason", "is missing: write it as in \"disk is dying\""),
            (r#"{"reason":""}"#, "reason", "\"\" has 0 bytes"),
            (r#"{"reason":7}"#, "reason", "7 is not a text"),
            (r#"{"reason":null}"#, "reason", "null has no meaning"),
            (r#"{"reason":"x","dry_run":"yes"}"#, "dry_run", "\"yes\" is not a boolean"),
            (r#"{"reason":"x","wait":"5x"}"#, "wait", "\"5x\" is not a duration: write a number and a unit"),
            (r#"{"reason":"x","wait":5}"#, "wait", "5 is not a duration"),
            (r#"{"reason":"x","wait":"9ms"}"#, "wait", "\"9ms\" is too short: write at least \"10ms\""),
            (r#"{"reason":"x","wait":"11s"}"#, "wait", "write at most \"10s\""),
            (r#"{"reason":"x","floor":-1}"#, "floor", "-1 is not a whole number from 0 to 100"),
            (r#"{"reason":"x","floor":1.0}"#, "floor", "1.0 is not a whole"),
            (r#"{"reason":"x","floor":18446744073709551616}"#, "floor", "is not a whole"),
            (r#"{"reason":"x","floor":4294967297}"#, "floor", "is not a whole"),
            (r#"{"reason":"x","floor":9,"ceiling":8}"#, "floor", "\"9\" is above `ceiling`, which is \"8\""),
            (r#"{"reason":"x","dryrun":true}"#, "dryrun", "did you mean `dry_run`?"),
            (r#"{"reason":"x","tp":"b"}"#, "tp", "did you mean `to`?"),
            (r#"{"reason":"x","proof":1}"#, "proof", "the fields here are to, reason, dry_run, wait"),
        ] {
            let errors = wish(text).expect_err(text);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].0 == path && errors[0].1.contains(part), "{errors:?}");
        }
    }

    #[test]
    fn errors_are_reported_together_up_to_a_bound() {
        let paths = |text: &str| wish(text).expect_err(text).into_iter().map(|error| error.0).collect::<Vec<_>>();
        assert_eq!(paths(r#"{"x":1,"dry_run":1,"wait":"y"}"#), ["reason", "dry_run", "wait", "x"]);
        let many: Vec<String> = (0..500).map(|n| format!("\"unknown{n}\":1")).collect();
        assert_eq!(paths(&format!("{{{}}}", many.join(","))).len(), super::super::ERRORS_MAX);
    }

    #[test]
    fn a_default_gives_way_to_a_wish() {
        let pair = |text: &str| wish(text).map(|wish| (wish.floor, wish.ceiling));
        assert_eq!(pair(r#"{"reason":"x","floor":50}"#), Ok((50, 50)));
        assert_eq!(pair(r#"{"reason":"x","ceiling":2}"#), Ok((2, 2)));
        // A wrong value is one error, not two.
        let errors = pair(r#"{"reason":"x","floor":50,"ceiling":"low"}"#).expect_err("wrong type");
        assert_eq!(errors.len(), 1, "{errors:?}");
    }

    #[test]
    fn a_reader_that_gives_up_in_silence_is_no_success() {
        assert!(read::<()>(&Json::Object(Vec::new()), |_| None).is_err());
    }

    #[test]
    fn distances_are_edits() {
        for (a, b, edits) in [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("intervall", "interval", 1)] {
            assert_eq!((distance(a, b), distance(b, a)), (edits, edits));
        }
        assert_eq!(distance(&"x".repeat(1_000), "x"), usize::MAX);
    }
}
