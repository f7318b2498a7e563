//! Reading a query string: each parameter by name, once, with every error reported and nothing unknown let through.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query as Pairs};
use axum::http::request::Parts;
use baton_core::json::FieldError;
use baton_core::time::Millis;

use super::error::ApiError;

/// The most items on a page, and how many there are when nobody says: a page stays within a few megabytes.
pub(crate) const LIMIT_MAX: usize = 1_000;
const LIMIT_DEFAULT: usize = 100;

/// The longest long poll. Beyond it proxies hang up, and a client that wants more has `/v1/watch`.
pub(crate) const WAIT_MAX: Millis = Millis::secs(300);
const WAIT_DEFAULT: Millis = Millis::secs(30);

/// The most items in a comma-separated list: as many as fit on a request line that servers and proxies take.
const LIST_MAX: usize = 256;

/// The parameters of one request, taken out one by one.
pub(crate) struct Args {
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
    errors: Vec<FieldError>,
}

impl Args {
    fn of(given: Vec<(String, String)>) -> Self {
        Self { given, known: Vec::new(), errors: Vec::new() }
    }

    pub(crate) fn error(&mut self, name: &str, message: impl Display) {
        self.errors.push(FieldError { path: name.to_owned(), message: message.to_string() });
    }

    /// The text of a parameter, if it was given.
    pub(crate) fn text(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let mut values = self.given.extract_if(.., |(key, _)| key == name).map(|(_, value)| value);
        let first = values.next();
        if values.next().is_some() {
            drop(values);
            self.error(name, "is given twice: give it once");
            return None;
        }
        first
    }

    /// A parameter spelt by the rules of `T`.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        let text = self.text(name)?;
        self.read(name, &text)
    }

    fn read<T: FromStr<Err: Display>>(&mut self, name: &'static str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.error(name, error)).ok()
    }

    /// A whole number.
    pub(crate) fn number(&mut self, name: &'static str) -> Option<u64> {
        let text = self.text(name)?;
        let number = whole(&text);
        if number.is_none() {
            self.error(name, format_args!("\"{}\" is not a whole number", short(&text)));
        }
        number
    }

    /// A comma-separated list; empty where the parameter is absent.
    pub(crate) fn list<T>(&mut self, name: &'static str, mut read: impl FnMut(&str) -> Result<T, String>) -> Vec<T> {
        let Some(text) = self.text(name) else { return Vec::new() };
        let mut items = Vec::new();
        for part in text.split(',') {
            if items.len() == LIST_MAX {
                self.error(name, format_args!("names more than {LIST_MAX}"));
                break;
            }
            match read(part.trim()) {
                Ok(item) => items.push(item),
                Err(why) => self.error(name, why),
            }
        }
        items
    }

    /// How fresh the answer must be.
    pub(crate) fn consistency(&mut self) -> Consistency {
        match self.text("consistency").as_deref() {
            None | Some("linearizable") => Consistency::Linearizable,
            Some("stale") => Consistency::Stale,
            Some(other) => {
                let message = format!("\"{}\" is not one of \"linearizable\", \"stale\"", short(other));
                self.error("consistency", message);
                Consistency::Linearizable
            }
        }
    }

    /// How many items a page holds.
    pub(crate) fn limit(&mut self) -> usize {
        let Some(number) = self.number("limit") else { return LIMIT_DEFAULT };
        match usize::try_from(number) {
            Ok(limit @ 1..=LIMIT_MAX) => limit,
            Ok(_) | Err(_) => {
                self.error("limit", format_args!("{number} is not from 1 to {LIMIT_MAX}"));
                LIMIT_DEFAULT
            }
        }
    }

    /// Whether to wait for something newer than a revision, and how long.
    pub(crate) fn poll(&mut self) -> Option<Poll> {
        let after = self.number("after");
        let wait = self.parsed::<Millis>("wait");
        if let Some(long) = wait.filter(|wait| *wait > WAIT_MAX) {
            self.error("wait", format_args!("\"{long}\" is too long: wait at most \"{WAIT_MAX}\""));
        }
        if wait.is_some() && after.is_none() && !self.errors.iter().any(|error| error.path == "after") {
            self.error("after", "is missing: `wait` needs the revision after which to answer");
        }
        after.map(|after| Poll { after, wait: wait.unwrap_or(WAIT_DEFAULT).as_duration() })
    }

    fn finish(mut self) -> Result<(), ApiError> {
        let unknown: Vec<String> = self.given.iter().map(|(name, _)| name.clone()).collect();
        for name in unknown {
            let message = match self.known.as_slice() {
                [] => "unknown parameter: there are none here".to_owned(),
                known => format!("unknown parameter: the parameters here are {}", known.join(", ")),
            };
            self.error(short(&name), message);
        }
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::Invalid(self.errors)) }
    }
}

/// A whole number as digits and nothing else: no sign, no spaces.
pub(crate) fn whole(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What of a text an error message repeats.
pub(crate) fn short(text: &str) -> &str {
    const SHOWN_MAX: usize = 60;
    text.char_indices().nth(SHOWN_MAX).map_or(text, |(end, _)| &text[..end])
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consistency {
    /// At least as new as everything that was acknowledged before the request: the default.
    Linearizable,
    /// What this node holds, at once; the headers say how old that may be.
    Stale,
}

/// A wish to wait for something newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Poll {
    /// Than this revision.
    pub(crate) after: u64,
    /// For so long.
    pub(crate) wait: Duration,
}

/// What one endpoint takes from its query string.
pub(crate) trait FromArgs {
    /// Takes its parameters out; errors stay in `args`.
    fn from_args(args: &mut Args) -> Self;
}

/// An endpoint's parameters.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: FromArgs> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let pairs = Pairs::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|_| super::error::invalid("query", "the query string is not name=value pairs"))?;
        let mut args = Args::of(pairs.0);
        let value = T::from_args(&mut args);
        args.finish()?;
        Ok(Self(value))
    }
}

/// Just `consistency`.
impl FromArgs for Consistency {
    fn from_args(args: &mut Args) -> Self {
        args.consistency()
    }
}

/// No parameters at all.
impl FromArgs for () {
    fn from_args(_args: &mut Args) {}
}

/// `consistency`, and a wish to wait.
pub(crate) struct Fresh {
    pub(crate) consistency: Consistency,
    pub(crate) poll: Option<Poll>,
}

impl FromArgs for Fresh {
    fn from_args(args: &mut Args) -> Self {
        Self { consistency: args.consistency(), poll: args.poll() }
    }
}

/// The parameters of a list. A cursor is the key of the last item on the page before; what it looks like is our own
/// affair, so it is parsed as what it must be and refused as a whole.
pub(crate) struct Listing<K> {
    pub(crate) fresh: Fresh,
    pub(crate) limit: usize,
    pub(crate) cursor: Option<K>,
}

impl<K: FromStr> FromArgs for Listing<K> {
    fn from_args(args: &mut Args) -> Self {
        let fresh = Fresh::from_args(args);
        let limit = args.limit();
        Self { fresh, limit, cursor: cursor(args) }
    }
}

/// Where a page begins.
pub(crate) fn cursor<K: FromStr>(args: &mut Args) -> Option<K> {
    let text = args.text("cursor")?;
    let key = text.parse().ok();
    if key.is_none() {
        args.error("cursor", format_args!("\"{}\" is not a cursor: use a page's `next_cursor`", short(&text)));
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::id::ServiceName;

    fn read<T: FromArgs>(query: &str) -> Result<T, Vec<(String, String)>> {
        let uri = format!("http://x/y?{query}").parse().expect("a URI");
        let mut args = Args::of(Pairs::<Vec<(String, String)>>::try_from_uri(&uri).expect("pairs").0);
        let value = T::from_args(&mut args);
        match args.finish() {
            Ok(()) => Ok(value),
            Err(ApiError::Invalid(errors)) => Err(errors.into_iter().map(|e| (e.path, e.message)).collect()),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn consistency_is_one_of_two_words() {
        assert_eq!(read::<Consistency>(""), Ok(Consistency::Linearizable));
        assert_eq!(read::<Consistency>("consistency=linearizable"), Ok(Consistency::Linearizable));
        assert_eq!(read::<Consistency>("consistency=stale"), Ok(Consistency::Stale));
        for bad in ["consistency=Stale", "consistency=", "consistency=stale&consistency=stale", "consistancy=stale"] {
            let errors = read::<Consistency>(bad).expect_err(bad);
            assert_eq!(errors.len(), 1, "{errors:?}");
            assert!(errors[0].0.starts_with("consist"), "{errors:?}");
        }
    }

    #[test]
    fn a_poll_needs_a_revision_and_an_honest_wait() {
        let poll = |query: &str| read::<Fresh>(query).map(|fresh| fresh.poll);
        assert_eq!(poll(""), Ok(None));
        assert_eq!(poll("after=7"), Ok(Some(Poll { after: 7, wait: Duration::from_secs(30) })));
        assert_eq!(poll("after=7&wait=0s"), Ok(Some(Poll { after: 7, wait: Duration::ZERO })));
        for (bad, path) in [
            ("wait=1s", "after"),
            ("after=x", "after"),
            ("after=-1", "after"),
            ("after=%2B1", "after"),
            ("after=x&wait=1s", "after"),
            ("after=1&wait=1", "wait"),
            ("after=1&wait=6m", "wait"),
        ] {
            let errors = poll(bad).expect_err(bad);
            assert_eq!(errors.iter().map(|error| error.0.as_str()).collect::<Vec<_>>(), [path], "{bad}");
        }
    }

    #[test]
    fn pages_are_bounded_and_cursors_checked() {
        let page = |query: &str| read::<Listing<ServiceName>>(query).map(|page| (page.limit, page.cursor));
        assert_eq!(page(""), Ok((100, None)));
        assert_eq!(page("limit=1000&cursor=orders"), Ok((1000, "orders".parse().ok())));
        for (bad, path) in
            [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=", "limit"), ("cursor=%C3", "cursor")]
        {
            assert_eq!(page(bad).expect_err(bad)[0].0, path);
        }
    }

    #[test]
    fn all_errors_are_told_at_once() {
        let errors = read::<Fresh>("consistency=x&after=y&huh=1").map(|_| ()).expect_err("three errors");
        assert_eq!(errors.iter().map(|e| e.0.as_str()).collect::<Vec<_>>(), ["consistency", "after", "huh"]);
        assert!(errors[2].1.contains("consistency, after, wait"), "{errors:?}");
    }

    #[test]
    fn what_is_repeated_is_cut_between_characters() {
        assert_eq!(short("abc"), "abc");
        assert_eq!(short(&"ä".repeat(100)).chars().count(), 60);
    }
}
