//! How a probe can fail, and which of it is the node's own trouble: a node that has run out of descriptors must not say
//! that every instance is down.

use std::error::Error;
use std::io;

use baton_core::probe::FailureClass;
use rustix::io::Errno;

use super::tls;

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

/// Whether an error tells of what this node lacks.
pub(crate) fn is_own(error: &io::Error) -> bool {
    error.raw_os_error().is_some_and(|code| OWN.iter().any(|errno| errno.raw_os_error() == code))
}

impl Fault {
    pub(crate) fn target(class: FailureClass, detail: impl Into<String>) -> Self {
        Self::Target { class, detail: detail.into() }
    }

    /// What an error of a socket means. `doing` says what was being done.
    pub(crate) fn of_io(doing: &str, error: &io::Error) -> Self {
        if is_own(error) {
            return Self::Node { detail: format!("{doing}: {error}") };
        }
        if let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Self::of_tls(tls);
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
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            Self::target(FailureClass::Connection, format!("{doing}: the connection was closed"))
        } else {
            Self::target(FailureClass::Connection, format!("{doing}: {error}"))
        }
    }

    /// What an error of an HTTP connection means that should speak `protocol`.
    pub(crate) fn of_hyper(protocol: &str, error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::target(FailureClass::Malformed, "the head of the answer is too large");
        }
        if error.is_parse() {
            return Self::target(FailureClass::Malformed, format!("the answer is not {protocol}"));
        }
        let closed =
            || Self::target(FailureClass::Connection, "the connection was closed before the answer was complete");
        let mut source = error.source();
        while let Some(cause) = source {
            if let Some(cause) = cause.downcast_ref::<io::Error>() {
                // hyper and h2 tell of an early end as an I/O error of their own making, without a number from the kernel.
                let early = matches!(cause.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe);
                if early && cause.raw_os_error().is_none() {
                    return closed();
                }
                if cause.raw_os_error().is_some() || cause.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) {
                    return Self::of_io("waiting for the answer", cause);
                }
            }
            if let Some(cause) = cause.downcast_ref::<h2::Error>() {
                return Self::of_h2(cause);
            }
            source = cause.source();
        }
        if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
            return closed();
        }
        Self::target(FailureClass::Malformed, format!("the answer broke off: {error}"))
    }

    /// What an error of HTTP/2 means: what the server said when it ended a stream or the connection (RFC 9113, section
    /// 7), or that it did not keep to the protocol.
    fn of_h2(error: &h2::Error) -> Self {
        let Some(reason) = error.reason().filter(|_| error.is_remote()) else {
            return Self::target(FailureClass::Malformed, format!("the answer is not HTTP/2 ({error})"));
        };
        let class = match reason {
            h2::Reason::ENHANCE_YOUR_CALM => FailureClass::RateLimit,
            h2::Reason::INTERNAL_ERROR => FailureClass::ServerError,
            h2::Reason::HTTP_1_1_REQUIRED => FailureClass::Malformed,
            _ => FailureClass::Connection,
        };
        Self::target(class, format!("the server ended the request: {}", reason.description()))
    }

    /// What an error of TLS means. A clock or a source of randomness that this node lacks is nobody else's fault.
    fn of_tls(error: &rustls::Error) -> Self {
        let detail = tls::in_words(error);
        if matches!(error, rustls::Error::FailedToGetCurrentTime | rustls::Error::FailedToGetRandomBytes) {
            Self::Node { detail }
        } else {
            Self::target(FailureClass::Connection, detail)
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
