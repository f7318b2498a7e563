//! One place in a body that holds a value, and the ways to read it. A reading that fails has left its error behind.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds, RangeInclusive};
use std::str::FromStr;

use super::{ERRORS_MAX, FieldError, Fields, Json, item, join};
use crate::time::Millis;

/// A closed set of words, as in `"active_passive"`.
pub trait Word: Copy + 'static {
    /// Every word with its spelling.
    fn words() -> &'static [(&'static str, Self)];
}

/// A value that was given, with its path and the place where errors are collected.
pub struct Slot<'j, 'e> {
    json: &'j Json,
    path: String,
    errors: &'e mut Vec<FieldError>,
}

impl<'j, 'e> Slot<'j, 'e> {
    pub(super) fn new(json: &'j Json, path: String, errors: &'e mut Vec<FieldError>) -> Self {
        Self { json, path, errors }
    }

    /// The value itself.
    pub fn json(&self) -> &'j Json {
        self.json
    }

    /// Records that the value is wrong: `"5x"` + ` is not a duration`.
    pub fn refuse(&mut self, why: impl Display) {
        let message = format!("{} {why}", self.json.shown());
        add(self.errors, &self.path, message);
    }

    /// Records an error in words of its own, where the value is not what is wrong.
    pub fn error(&mut self, message: impl Display) {
        add(self.errors, &self.path, message.to_string());
    }

    /// Refuses and returns nothing, for the last expression of a reading.
    fn refused<T>(&mut self, why: impl Display) -> Option<T> {
        self.refuse(why);
        None
    }

    /// `true` or `false`.
    pub fn boolean(mut self) -> Option<bool> {
        let Json::Bool(value) = self.json else { return self.refused("is not a boolean: write true or false") };
        Some(*value)
    }

    /// A whole number within `range`.
    pub fn whole(mut self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = if let Json::Number(number) = self.json { number.as_u64() } else { None };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.refused(format_args!("is not a whole number from {} to {}", range.start(), range.end())),
        }
    }

    /// A number within `range`.
    pub fn number(mut self, range: impl RangeBounds<f64>) -> Option<f64> {
        let number = if let Json::Number(number) = self.json { number.as_f64() } else { None };
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(number),
            None => self.refused(format_args!("is not a number{}", bounds_in_words(&range))),
        }
    }

    /// A text of so many bytes.
    pub fn text(mut self, bytes: RangeInclusive<usize>) -> Option<&'j str> {
        let Json::String(text) = self.json else { return self.refused("is not a text: write it between quotes") };
        if bytes.contains(&text.len()) {
            return Some(text);
        }
        let (least, most) = (bytes.start(), bytes.end());
        self.refused(format_args!("has {} bytes: write a text of {least} to {most}", text.len()))
    }

    /// A text that is spelt by the rules of `T`, whose error names the value and the remedy.
    pub fn parsed<T: FromStr<Err: Display>>(mut self) -> Option<T> {
        let Json::String(text) = self.json else { return self.refused("is not a text: write it between quotes") };
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                add(self.errors, &self.path, error.to_string());
                None
            }
        }
    }

    /// A duration within `range`.
    pub fn millis(mut self, range: RangeInclusive<Millis>) -> Option<Millis> {
        let Json::String(_) = self.json else {
            return self.refused("is not a duration: write a text with a number and a unit, as in \"500ms\", \"10s\"");
        };
        let (least, most) = (*range.start(), *range.end());
        let length = Slot::new(self.json, self.path.clone(), self.errors).parsed::<Millis>()?;
        if length < least {
            self.refused(format_args!("is too short: write at least \"{least}\""))
        } else if length > most {
            self.refused(format_args!("is too long: write at most \"{most}\""))
        } else {
            Some(length)
        }
    }

    /// One of a closed set of words.
    pub fn word<T: Word>(mut self) -> Option<T> {
        let found = if let Json::String(text) = self.json {
            T::words().iter().find(|(word, _)| word == text).map(|(_, value)| *value)
        } else {
            None
        };
        match found {
            Some(value) => Some(value),
            None => {
                let words: Vec<_> = T::words().iter().map(|(word, _)| format!("\"{word}\"")).collect();
                self.refused(match words.as_slice() {
                    [only] => format!("is not {only}"),
                    all => format!("is not one of {}", all.join(", ")),
                })
            }
        }
    }

    /// An array of so many items. Items that `read` cannot make sense of are left out, and have left their errors.
    pub fn list<T>(
        mut self,
        items: RangeInclusive<usize>,
        mut read: impl FnMut(Slot<'j, '_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let Json::Array(list) = self.json else { return self.refused("is not a list: write [ ... ]") };
        if !items.contains(&list.len()) {
            let (least, most) = (items.start(), items.end());
            return self.refused(format_args!("has {} items: write {least} to {most}", list.len()));
        }
        let mut values = Vec::with_capacity(list.len());
        for (index, json) in list.iter().enumerate() {
            values.extend(read(Slot::new(json, item(&self.path, index), self.errors)));
        }
        Some(values)
    }

    /// An object with a closed set of fields: those that `read` does not ask for are errors.
    pub fn object<T>(mut self, read: impl FnOnce(&mut Fields<'j, '_>) -> T) -> Option<T> {
        let Json::Object(members) = self.json else { return self.refused("is not an object: write { ... }") };
        let mut fields = Fields::new(members, self.path, self.errors);
        let value = read(&mut fields);
        fields.finish();
        Some(value)
    }

    /// An object with free keys, at most so many: `read` gets each key with its value.
    pub fn map<T>(mut self, most: usize, mut read: impl FnMut(&'j str, Slot<'j, '_>) -> Option<T>) -> Option<Vec<T>> {
        let Json::Object(members) = self.json else { return self.refused("is not an object: write { ... }") };
        if members.len() > most {
            return self.refused(format_args!("has {} entries: write at most {most}", members.len()));
        }
        let mut values = Vec::with_capacity(members.len());
        for (key, json) in members {
            values.extend(read(key, Slot::new(json, join(&self.path, key), self.errors)));
        }
        Some(values)
    }
}

/// Records an error, up to the most that one answer names.
pub(super) fn add(errors: &mut Vec<FieldError>, path: &str, message: String) {
    if errors.len() < ERRORS_MAX {
        errors.push(FieldError { path: path.to_owned(), message });
    }
}

fn bounds_in_words(range: &impl RangeBounds<f64>) -> String {
    let low = match range.start_bound() {
        Bound::Included(low) => Some(format!("at least {low}")),
        Bound::Excluded(low) => Some(format!("above {low}")),
        Bound::Unbounded => None,
    };
    let high = match range.end_bound() {
        Bound::Included(high) => Some(format!("at most {high}")),
        Bound::Excluded(high) => Some(format!("below {high}")),
        Bound::Unbounded => None,
    };
    match (low, high) {
        (Some(low), Some(high)) => format!(" {low} and {high}"),
        (Some(one), None) | (None, Some(one)) => format!(" {one}"),
        (None, None) => String::new(),
    }
}
