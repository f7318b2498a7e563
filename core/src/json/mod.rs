//! JSON from outside, read strictly: a small tree that keeps the order of members and refuses duplicates, and readers
//! that collect every error with its path. Nothing here knows what a service or an instance is.

mod fields;
mod slot;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Number;

pub use fields::{Fields, read};
pub use slot::{Slot, Word};

/// The path of the whole body.
pub const ROOT: &str = "$";

/// The most errors one answer names: enough for any honest mistake, few enough to read and to send.
pub const ERRORS_MAX: usize = 50;

/// The most characters of an offending value that an error message repeats.
const SHOWN_MAX: usize = 60;

/// One thing that is wrong with a body: where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{path}: {message}")]
pub struct FieldError {
    /// Where, as in `checks[0].interval`; `$` for the whole body.
    #[cfg_attr(feature = "openapi", schema(example = "checks[0].interval"))]
    pub path: String,
    /// The value that was found and what may stand there.
    #[cfg_attr(
        feature = "openapi",
        schema(example = "\"5x\" is not a duration: write a number and a unit, as in \"500ms\"")
    )]
    pub message: String,
}

/// A JSON value whose objects keep their order and have no member twice (`serde_json::Value` would silently keep the
/// last). Its depth is bounded by `serde_json`'s recursion limit of 128.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(String),
    /// An array.
    Array(Vec<Json>),
    /// An object, in the order in which it was written.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one JSON text. An error says the line and column, and for a duplicate the path of the field.
    pub fn parse(bytes: &[u8]) -> Result<Self, FieldError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(FieldError {
                path: ROOT.to_owned(),
                message: "the body is empty: send a JSON object".to_owned(),
            });
        }
        let twice = RefCell::new(None);
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let parsed = Node { at: Place::Root, twice: &twice }
            .deserialize(&mut deserializer)
            .and_then(|json| deserializer.end().map(|()| json));
        parsed.map_err(|error| match twice.take() {
            Some(path) => FieldError { path, message: error.to_string() },
            None => FieldError { path: ROOT.to_owned(), message: format!("not JSON: {error}") },
        })
    }

    /// The member `name` of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        let Json::Object(members) = self else { return None };
        members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The value as text for an error message, cut to what a line can hold.
    pub fn shown(&self) -> String {
        let mut short = Short { text: String::new(), left: SHOWN_MAX };
        // The only error is the cut itself, and it has left its mark.
        let _ = write!(short, "{self}");
        short.text
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Bool(value) => write!(f, "{value}"),
            Json::Number(value) => write!(f, "{value}"),
            Json::String(text) => write_quoted(f, text),
            Json::Array(items) => {
                f.write_char('[')?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index == 0 { "" } else { "," })?;
                }
                f.write_char(']')
            }
            Json::Object(members) => {
                f.write_char('{')?;
                for (index, (key, value)) in members.iter().enumerate() {
                    f.write_str(if index == 0 { "" } else { "," })?;
                    write_quoted(f, key)?;
                    write!(f, ":{value}")?;
                }
                f.write_char('}')
            }
        }
    }
}

fn write_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

/// A text that takes so many characters and then ends with an ellipsis.
struct Short {
    text: String,
    left: usize,
}

impl fmt::Write for Short {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        for c in more.chars() {
            if self.left == 0 {
                self.text.push('…');
                return Err(fmt::Error);
            }
            self.left -= 1;
            self.text.push(c);
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Node { at: Place::Root, twice: &RefCell::new(None) }.deserialize(deserializer)
    }
}

/// Where in the tree the parser stands: a chain on the stack, made into text only for an error.
#[derive(Clone, Copy)]
enum Place<'p> {
    Root,
    Member(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    fn path(self) -> String {
        match self {
            Place::Root => ROOT.to_owned(),
            Place::Member(parent, name) => join(&parent.path(), name),
            Place::Item(parent, index) => item(&parent.path(), index),
        }
    }
}

/// The path of the member `name` of the object at `path`.
fn join(path: &str, name: &str) -> String {
    // A key comes from outside and may be as long as the body.
    let name: String = name.chars().take(SHOWN_MAX).collect();
    if path == ROOT { name } else { format!("{path}.{name}") }
}

/// The path of an item of the array at `path`.
fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Parses one value, and leaves the path of the first duplicate in `twice`.
struct Node<'p> {
    at: Place<'p>,
    twice: &'p RefCell<Option<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Json;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Json, E> {
        Number::from_f64(value).map(Json::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) =
            items.next_element_seed(Node { at: Place::Item(&self.at, list.len()), twice: self.twice })?
        {
            list.push(value);
        }
        Ok(Json::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                self.twice.replace(Some(Place::Member(&self.at, &key).path()));
                let shown = Json::String(key).shown();
                return Err(A::Error::custom(format_args!("the field {shown} is given twice: write it once")));
            }
            let value = entries.next_value_seed(Node { at: Place::Member(&self.at, &key), twice: self.twice })?;
            members.push((key, value));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> FieldError {
        Json::parse(text.as_bytes()).expect_err(text)
    }

    #[test]
    fn a_tree_keeps_the_order_of_members_and_prints_what_it_read() {
        let text = r#"{"z":[1,-2,0.5,true,null],"a":{"q\"":"line\n"},"m":{}}"#;
        let json = Json::parse(text.as_bytes()).expect("valid");
        assert_eq!(json.to_string(), text);
        assert_eq!(json.get("m"), Some(&Json::Object(Vec::new())));
        assert_eq!(serde_json::from_str::<Json>(text).expect("valid"), json);
    }

    #[test]
    fn duplicates_are_refused_with_their_path() {
        for (text, path) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"checks":[{}, {"interval":"1s", "x":{}, "interval":"1s"}]}"#, "checks[1].interval"),
            (r#"[{"a":{"b":1,"b":2}}]"#, "$[0].a.b"),
            (r#"{"a":1,"\u0061":2}"#, "a"),
        ] {
            let error = error(text);
            assert_eq!(error.path, path);
            assert!(error.message.contains("twice") && error.message.contains("line 1 column"), "{error}");
            assert!(serde_json::from_str::<Json>(text).is_err());
        }
    }

    #[test]
    fn what_is_not_json_is_refused_with_line_and_column() {
        for (text, part) in [
            ("", "empty"),
            (" \n", "empty"),
            ("{\"a\":\n  x}", "line 2 column 3"),
            ("{} {}", "line 1 column 4"),
            ("{\"a\":1e999}", "out of range"),
            ("{'a':1}", "line 1 column 2"),
            ("\u{feff}{}", "line 1 column 1"),
            ("NaN", "line 1 column 1"),
        ] {
            let error = error(text);
            assert_eq!(error.path, ROOT);
            assert!(error.message.contains(part), "{error}");
        }
        assert_eq!(Json::parse(b"{\"a\":\"\xff\"}").expect_err("not UTF-8").path, ROOT);
        assert!(error(&"[".repeat(100_000)).message.contains("recursion limit"));
    }

    #[test]
    fn shown_values_are_short() {
        let long = Json::Array(vec![Json::String("ä".repeat(1_000))]);
        assert_eq!(long.shown().chars().count(), SHOWN_MAX + 1);
        assert_eq!(Json::String("a\u{1}b".to_owned()).shown(), "\"a\\u0001b\"");
        let key = error(&format!("{{\"{0}\":1,\"{0}\":1}}", "k".repeat(100_000)));
        assert!(key.path.len() <= SHOWN_MAX && key.message.len() < 200, "{key}");
    }
}
