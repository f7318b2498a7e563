//! The line between a session and whoever does the work: news one way, releases the other. Both ends are plain channels, so
//! that either side can be played by a test.

use baton_core::id::Token;
use tokio::sync::mpsc;

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

/// The worker's end of a session.
#[derive(Debug)]
pub struct Session {
    news: mpsc::Receiver<SessionEvent>,
    releases: mpsc::UnboundedSender<Release>,
}

/// The session's end.
#[derive(Debug)]
pub struct SessionEnd {
    /// Where news goes.
    pub news: mpsc::Sender<SessionEvent>,
    /// Where releases come from. It closes when the worker is gone.
    pub releases: mpsc::UnboundedReceiver<Release>,
}

impl Session {
    /// Both ends of a line.
    pub fn line() -> (Self, SessionEnd) {
        let (tell, news) = mpsc::channel(NEWS_MAX);
        // Unbounded in form only: there is one release a token, and a token is given back before the next is used.
        let (release, releases) = mpsc::unbounded_channel();
        (Self { news, releases: release }, SessionEnd { news: tell, releases })
    }

    /// What happened next. After the session is over, nothing does. Dropping the future loses nothing.
    pub async fn next(&mut self) -> SessionEvent {
        match self.news.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Gives a token back: the work under it has stopped, all of it. `Released` follows.
    pub fn release(&self, release: Release) {
        // A session that is over is told so by its last event; then a release has no meaning.
        let _ = self.releases.send(release);
    }
}
