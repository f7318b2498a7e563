//! The signals that `baton run` hears, and what each of them means for the child. What is done with them is decided elsewhere.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// What a signal to `baton run` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// `baton run` is to end, and the child with it.
    End(Signal),
    /// It is for the child.
    Pass(Signal),
}

/// Every signal that is heard. KILL and STOP cannot be; the rest is as the system has it.
const HEARD: [Meaning; 7] = [
    Meaning::End(Signal::TERM),
    Meaning::End(Signal::INT),
    Meaning::Pass(Signal::HUP),
    Meaning::Pass(Signal::QUIT),
    Meaning::Pass(Signal::USR1),
    Meaning::Pass(Signal::USR2),
    Meaning::Pass(Signal::WINCH),
];

/// The signals that come.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Meaning, Stream)>);

impl Meaning {
    fn signal(self) -> Signal {
        match self {
            Self::End(signal) | Self::Pass(signal) => signal,
        }
    }
}

impl Signals {
    /// Hears them from now on; none of them ends the process by itself any more.
    pub(super) fn new() -> io::Result<Self> {
        let hear = |meaning: Meaning| Ok((meaning, signal(SignalKind::from_raw(meaning.signal().as_raw()))?));
        HEARD.into_iter().map(hear).collect::<io::Result<_>>().map(Self)
    }

    /// The next one. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> Meaning {
        std::future::poll_fn(|context| {
            for (meaning, stream) in &mut self.0 {
                if let std::task::Poll::Ready(Some(())) = stream.poll_recv(context) {
                    return std::task::Poll::Ready(*meaning);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }

    /// The next one that is to end this process, while there is no child to pass any to.
    pub(super) async fn end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Meaning::End(signal) => return signal,
                Meaning::Pass(signal) if Self::ends(signal) => return signal,
                Meaning::Pass(_) => {}
            }
        }
    }

    /// Whether a program that does not hear it is ended by it, as somebody who closes a terminal means it to be.
    pub(super) fn ends(signal: Signal) -> bool {
        signal == Signal::HUP || signal == Signal::QUIT
    }
}
