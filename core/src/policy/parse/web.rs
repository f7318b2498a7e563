//! Texts that end up in an HTTP request: request targets, headers, URLs. Strict here, so that a prober never has to
//! escape, guess or refuse.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::json::Slot;
use crate::policy::Address;

/// The longest request target, in bytes. Servers commonly refuse 8 KiB; a health check needs far less.
const TARGET_MAX: usize = 1_024;

/// The longest URL of a hook, in bytes: the length that every proxy on the way takes.
const URL_MAX: usize = 2_048;

/// The most headers of one check: they are sent with each probe and kept in every node's memory.
const HEADERS_MAX: usize = 32;

/// The longest header name, in bytes.
const HEADER_NAME_MAX: usize = 64;

/// The longest header value, in bytes: a bearer token fits.
const HEADER_VALUE_MAX: usize = 4_096;

/// Headers that frame the message and belong to whoever sends it.
const FRAMING: [&str; 5] = ["connection", "content-length", "te", "transfer-encoding", "upgrade"];

/// Bytes of a request target besides letters and digits: RFC 3986's `pchar`, `/`, `?`, and the brackets that queries
/// use in practice.
const TARGET_MARKS: &[u8] = b"-._~!$&'()*+,;=:@/?%[]";

/// Bytes of a header name besides letters and digits (RFC 9110, section 5.6.2).
const TOKEN_MARKS: &[u8] = b"!#$%&'*+-.^_`|~";

/// A path with its query, as it stands in the first line of a request.
pub(super) struct Target(pub(super) String);

/// Why a text is not a [`Target`] or a [`Url`].
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidTarget {
    #[error("{0:?} is not a path: write at most 1024 bytes that begin with \"/\"")]
    Start(String),
    #[error("{0:?} is not a path: {1:?} may not stand there; percent-encode it")]
    Character(String, char),
    #[error("{0:?} is not a URL: write \"https://host[:port]/path\", or http, without credentials and fragment")]
    Url(String),
}

/// As much of an offending text as an error repeats.
fn cut(text: &str) -> String {
    text.chars().take(60).collect()
}

fn strange(text: &str) -> Option<char> {
    text.chars().find(|&c| !(c.is_ascii_alphanumeric() || c.is_ascii() && TARGET_MARKS.contains(&(c as u8))))
}

impl FromStr for Target {
    type Err = InvalidTarget;
    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        if !text.starts_with('/') || text.len() > TARGET_MAX {
            return Err(InvalidTarget::Start(cut(text)));
        }
        match strange(text) {
            Some(c) => Err(InvalidTarget::Character(cut(text), c)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// The URL of a webhook.
pub(super) struct Url(String);

impl FromStr for Url {
    type Err = InvalidTarget;
    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let error = || InvalidTarget::Url(cut(text));
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or_else(error)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let address = authority.parse::<Address>().or_else(|_| format!("{authority}:80").parse::<Address>());
        if text.len() > URL_MAX || strange(target).is_some() || address.is_err() {
            return Err(error());
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Headers to send. A name may stand there just once, in whatever case.
pub(super) fn headers(slot: Slot<'_, '_>) -> Option<BTreeMap<String, String>> {
    let mut names: Vec<String> = Vec::new();
    let entries = slot.map(HEADERS_MAX, |name, mut slot| {
        let lower = name.to_ascii_lowercase();
        let token = |b: u8| b.is_ascii_alphanumeric() || TOKEN_MARKS.contains(&b);
        if name.is_empty() || name.len() > HEADER_NAME_MAX || !name.bytes().all(token) {
            slot.error("not a header name: use 1 to 64 letters, digits and \"-\"");
            return None;
        }
        if FRAMING.contains(&lower.as_str()) {
            slot.error("this header belongs to the connection, which the prober makes: leave it out");
            return None;
        }
        if names.contains(&lower) {
            slot.error("this header is given twice, in different case: write it once");
            return None;
        }
        names.push(lower);
        let value = header_value(slot)?;
        Some((name.to_owned(), value))
    })?;
    Some(entries.into_iter().collect())
}

/// Printable ASCII without blanks at its ends, so that it cannot end the header early and every server reads it alike.
fn header_value(slot: Slot<'_, '_>) -> Option<String> {
    let value: HeaderValue = slot.parsed()?;
    Some(value.0)
}

struct HeaderValue(String);

impl FromStr for HeaderValue {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if printable && text.len() <= HEADER_VALUE_MAX && text.trim() == text {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "{:?} is not a header value: use at most 4096 printable ASCII characters, no blank first or last",
            cut(text)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_targets_are_ready_to_be_sent() {
        for good in ["/", "/health", "/a/b?x=1&y[]=%20;z", "/~user/@me"] {
            assert!(good.parse::<Target>().is_ok(), "{good}");
        }
        for bad in
            ["", "health", "/a b", "/a\r\nHost: x", "/ä", "/a#b", "/<x>", "/\u{7f}", &format!("/{}", "a".repeat(1_024))]
        {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_are_http_with_a_host_and_nothing_hidden() {
        for good in [
            "http://h",
            "https://h.example:8443/fence?node=1",
            "http://[::1]:80/x",
            "http://[::1]/",
            "https://10.0.0.1?x",
        ] {
            assert_eq!(good.parse::<Url>().map(|url| url.to_string()).ok().as_deref(), Some(good));
        }
        for bad in [
            "",
            "h",
            "ftp://h",
            "http://",
            "http:///x",
            "http://a:b@h/",
            "http://h:0/",
            "http://h:x/",
            "http://h/#x",
            "http://h/a b",
            "HTTP://h\n",
        ] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }
}
