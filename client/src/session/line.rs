//! The line between a session and whoever does the work: news one way, wishes the other. Both ends are plain channels, so
//! that either side can be played by a test.

use baton_core::id::Token;
use tokio::sync::{mpsc, watch};

use super::SessionEvent;

/// News that may wait to be heard. A worker that is so far behind has been stopped, and its session then waits for it.
const NEWS_MAX: usize = 16;

/// A token that is given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which.
    pub token: Token,
    /// The instance is no candidate until its next heartbeat in a session: its process ends.
    pub leaving: bool,
    /// Why, for the record.
    pub reason: String,
}

/// What a worker asks of its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To give a token back.
    Release(Release),
    /// To say that the instance serves under this token.
    Acknowledge(Token),
    /// To end: the worker holds nothing, and the instance goes away.
    Leave {
        /// Why, for the record.
        reason: String,
    },
}

/// The worker's end of a session.
#[derive(Debug)]
pub struct Session {
    news: mpsc::Receiver<SessionEvent>,
    asked: mpsc::UnboundedSender<Asked>,
    id: watch::Receiver<Option<String>>,
}

/// The session's end.
#[derive(Debug)]
pub struct SessionEnd {
    /// Where news goes.
    pub news: mpsc::Sender<SessionEvent>,
    /// Where the worker's wishes come from. It closes when the worker is gone.
    pub asked: mpsc::UnboundedReceiver<Asked>,
    /// The session that the present registration has opened.
    pub id: watch::Sender<Option<String>>,
}

impl Session {
    /// Both ends of a line.
    pub fn line() -> (Self, SessionEnd) {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        // Unbounded in form only: there are a release and an acknowledgement a token, and a token is given back before the
        // next is used.
        let (ask, asked) = mpsc::unbounded_channel();
        let (named, id) = watch::channel(None);
        (Self { news, asked: ask, id }, SessionEnd { news: tell, asked, id: named })
    }

    /// What happened next. After the session is over, nothing does. Dropping the future loses nothing.
    pub async fn next(&mut self) -> SessionEvent {
        match self.news.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// The session that the present registration has opened, as whoever speaks for the instance itself must name it; none
    /// before there is one.
    pub fn id(&self) -> Option<String> {
        self.id.borrow().clone()
    }

    /// Gives a token back: the work under it has stopped, all of it. `Released` follows.
    pub fn release(&self, release: Release) {
        self.ask(Asked::Release(release));
    }

    /// Says that the instance serves under this token, where the service asks for that (`failover.require_ack`); elsewhere it
    /// does no harm. It is said until it is heard, or the token is given back or taken away.
    pub fn acknowledge(&self, token: Token) {
        self.ask(Asked::Acknowledge(token));
    }

    /// Says that the instance goes away, so that it is no candidate any more. Only for a worker that holds nothing: one that
    /// does gives that back, with `leaving`. `Left` follows, unless the instance turns out to have been promoted just now:
    /// then `Active` comes first, and is to be released with `leaving`.
    pub fn leave(&self, reason: String) {
        self.ask(Asked::Leave { reason });
    }

    fn ask(&self, asked: Asked) {
        // A session that is over is told so by its last event; then nothing that is asked of it has a meaning.
        let _ = self.asked.send(asked);
    }
}
