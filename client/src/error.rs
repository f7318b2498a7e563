//! What can go wrong between a client and the cluster. One enum, so that a caller can tell "nobody is there" from
//! "they said no" from "they said something we do not understand".

use std::fmt;

use crate::view::Problem;

/// The longest foreign text that is repeated in an error, in characters: enough to recognise it, short enough for a line.
pub(crate) const SHOWN_MAX: usize = 200;

/// Why a request or a stream has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What was given is not the address of a Baton API.
    #[error("\"{endpoint}\" is not an endpoint: {why}; write it like http://127.0.0.1:7400")]
    Endpoint {
        /// The offending text.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// No endpoint could be reached; nothing was asked of anybody.
    #[error("no connection to {tried}: {why}")]
    NoConnection {
        /// The endpoints that were tried.
        tried: String,
        /// What the last of them came to.
        why: String,
    },
    /// The request was sent and no whole answer came. A write may have happened or may still happen.
    #[error("{endpoint} did not answer: {why}")]
    NoAnswer {
        /// The endpoint that was asked.
        endpoint: String,
        /// What was seen.
        why: String,
    },
    /// The server understood and said no (RFC 9457).
    #[error("{}", describe(.0))]
    Problem(Box<Problem>),
    /// An answer that is not Baton's.
    #[error("unexpected answer to {what}: {why}")]
    Unexpected {
        /// What was asked.
        what: String,
        /// What came.
        why: String,
    },
}

impl ClientError {
    /// The problem's stable word, where it is one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Problem(problem) => Some(&problem.code),
            Self::Endpoint { .. } | Self::NoConnection { .. } | Self::NoAnswer { .. } | Self::Unexpected { .. } => None,
        }
    }

    /// Whether it is a problem with this HTTP status.
    pub fn is_status(&self, wanted: u16) -> bool {
        match self {
            Self::Problem(problem) => problem.status == wanted,
            Self::Endpoint { .. } | Self::NoConnection { .. } | Self::NoAnswer { .. } | Self::Unexpected { .. } => {
                false
            }
        }
    }
}

fn describe(problem: &Problem) -> String {
    let mut text = if problem.detail.is_empty() { problem.title.clone() } else { problem.detail.clone() };
    // The detail of a single error is that error.
    let known = text.clone();
    for error in problem.errors.iter().filter(|error| error.to_string() != known) {
        text.push_str(&format!("\n  {}: {}", error.path, error.message));
    }
    format!("{text} [{} {}]", problem.status, problem.code)
}

/// What is at the bottom of an error, in one line: "Connection refused", not that a request could not be sent because a
/// client could not connect because of it.
pub(crate) fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cut(&cause.to_string())
}

/// Foreign text, cut to a length that can be shown and without anything that could move a terminal's cursor.
pub(crate) fn cut(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_MAX).collect()
}

/// A list of endpoints for an error's text.
pub(crate) fn list<T: fmt::Display>(endpoints: &[T]) -> String {
    endpoints
        .iter()
        .map(|endpoint| endpoint.to_string().trim_end_matches('/').to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use baton_core::json::FieldError;

    use super::*;

    #[test]
    fn a_problem_tells_every_error_with_its_path() {
        let error = ClientError::Problem(Box::new(Problem {
            status: 422,
            code: "invalid_input".to_owned(),
            detail: "2 things are wrong".to_owned(),
            errors: vec![
                FieldError { path: "checks[0].interval".to_owned(), message: "not a duration".to_owned() },
                FieldError { path: "$".to_owned(), message: "too long".to_owned() },
            ],
            ..Problem::default()
        }));
        assert_eq!(
            error.to_string(),
            "2 things are wrong\n  checks[0].interval: not a duration\n  $: too long [422 invalid_input]"
        );
    }

    #[test]
    fn the_only_error_is_told_once() {
        let only = FieldError { path: "for".to_owned(), message: "is missing: write \"30m\"".to_owned() };
        let error = ClientError::Problem(Box::new(Problem {
            status: 400,
            code: "invalid_input".to_owned(),
            detail: only.to_string(),
            errors: vec![only],
            ..Problem::default()
        }));
        assert_eq!(error.to_string(), "for: is missing: write \"30m\" [400 invalid_input]");
    }

    #[test]
    fn foreign_text_cannot_move_the_cursor() {
        assert_eq!(cut("a\u{1b}[2Jb\nc"), "a [2Jb c");
    }
}
