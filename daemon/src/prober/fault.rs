//! How a probe can fail, and which of it is the node's own trouble: a node that has run out of descriptors must not say
//! that every instance is down.

use std::io;

use baton_core::probe::FailureClass;
use rustix::io::Errno;

/// Why a probe did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The instance did not answer as agreed.
    Target { class: FailureClass, detail: String },
    /// This node could not ask.
    Node { detail: String },
}

/// What this node lacks when it sees one of these: descriptors, memory, local ports.
const OWN: [Errno; 6] = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS, Errno::ADDRNOTAVAIL, Errno::AGAIN];

impl Fault {
    pub(crate) fn target(class: FailureClass, detail: impl Into<String>) -> Self {
        Self::Target { class, detail: detail.into() }
    }

    /// What an error of a socket means. `doing` says what was being done.
    pub(crate) fn of_io(doing: &str, error: &io::Error) -> Self {
        let own = error.raw_os_error().is_some_and(|code| OWN.iter().any(|errno| errno.raw_os_error() == code));
        if own {
            return Self::Node { detail: format!("{doing}: {error}") };
        }
        // The kinds that are met every day get plain words; the rest speak for themselves.
        if error.kind() == io::ErrorKind::TimedOut {
            Self::target(FailureClass::Timeout, format!("{doing}: the kernel gave up waiting"))
        } else if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::target(FailureClass::Connection, "connection refused")
        } else if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) {
            Self::target(FailureClass::Connection, format!("{doing}: connection reset"))
        } else if matches!(error.kind(), io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) {
            Self::target(FailureClass::Connection, format!("{doing}: unreachable"))
        } else {
            Self::target(FailureClass::Connection, format!("{doing}: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_not_the_instances_fault() {
        for errno in OWN {
            let fault = Fault::of_io("connecting", &io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(fault, Fault::Node { .. }), "{errno:?}");
        }
        for (errno, class) in [
            (Errno::CONNREFUSED, FailureClass::Connection),
            (Errno::CONNRESET, FailureClass::Connection),
            (Errno::HOSTUNREACH, FailureClass::Connection),
            (Errno::TIMEDOUT, FailureClass::Timeout),
        ] {
            let fault = Fault::of_io("connecting", &io::Error::from_raw_os_error(errno.raw_os_error()));
            assert!(matches!(fault, Fault::Target { class: found, .. } if found == class), "{errno:?}");
        }
    }
}
