//! How a child ended, and the words for what `baton run` tells the person at the terminal.

use std::fmt;
use std::process::ExitStatus;
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use baton_core::id::InstanceId;

/// What shells add to the number of the signal that ended a process.
const SIGNAL_BASE: i32 = 128;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// With this exit code.
    Code(u8),
    /// By this signal.
    Signal(i32),
    /// Nobody knows.
    Unknown,
}

impl Ended {
    /// How this process ended.
    pub(super) fn of(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            // A kernel passes on the lowest eight bits only.
            (Some(code), _) => u8::try_from(code).map_or(Self::Unknown, Self::Code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }

    /// The exit code that a shell would give it.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => u8::try_from(SIGNAL_BASE + signal).unwrap_or(u8::MAX),
            Self::Unknown => u8::MAX,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("nobody knows how"),
        }
    }
}

/// Who is active, as a remark.
pub(super) fn who(active: Option<&InstanceId>) -> String {
    active.map_or_else(|| "nobody is active".to_owned(), |active| format!("active: {active}"))
}

/// A length as people read it: `250 ms`, `3.2 s`.
pub(super) fn length(length: Duration) -> String {
    let ms = length.as_millis();
    if ms < 1_000 {
        return format!("{ms} ms");
    }
    let tenths = (ms + 50) / 100;
    if tenths.is_multiple_of(10) { format!("{} s", tenths / 10) } else { format!("{}.{} s", tenths / 10, tenths % 10) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_have_the_codes_that_shells_give() {
        assert_eq!(Ended::of(ExitStatus::from_raw(7 << 8)), Ended::Code(7));
        assert_eq!(Ended::of(ExitStatus::from_raw(9)), Ended::Signal(9));
        assert_eq!([Ended::Code(7).code(), Ended::Signal(15).code(), Ended::Unknown.code()], [7, 143, 255]);
    }

    #[test]
    fn lengths_are_short() {
        let told = |ms| length(Duration::from_millis(ms));
        assert_eq!([told(250), told(999), told(3_249), told(30_000)], ["250 ms", "999 ms", "3.2 s", "30 s"]);
    }
}
