//! The guarded resource: it remembers the highest token that it saw, refuses every lower one, and keeps a book of all that was
//! asked of it, in the order in which it decided. It lives in the test's own process, which nobody stops or cuts off.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::worker::boot_ns;

/// One write that was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tried {
    /// When it was decided.
    pub(super) at: u64,
    /// The token that was presented.
    pub(super) token: u64,
    /// By whom.
    pub(super) pid: u32,
    /// The highest token so far, this one included.
    pub(super) highest: u64,
}

impl Tried {
    /// Whether it was let through.
    pub(super) fn accepted(&self) -> bool {
        self.token >= self.highest
    }
}

/// The resource.
#[derive(Clone, Default)]
pub(super) struct Guard {
    book: Arc<Mutex<Vec<Tried>>>,
}

impl Guard {
    /// Listens at this path for the rest of the test's process.
    pub(super) fn at(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("a socket in a temporary directory");
        let guard = Self::default();
        let (inner, path) = (guard.clone(), path.to_owned());
        std::thread::spawn(move || {
            // Ends with its directory: then nobody can connect any more.
            for visitor in listener.incoming().take_while(|_| path.exists()) {
                let guard = inner.clone();
                std::thread::spawn(move || visitor.map(|visitor| guard.serve(visitor)));
            }
        });
        guard
    }

    /// One try, decided and written down in one step.
    pub(super) fn present(&self, token: u64, pid: u32) -> Tried {
        let mut book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = book.last().map_or(token, |last| last.highest.max(token));
        let tried = Tried { at: boot_ns(), token, pid, highest };
        book.push(tried);
        tried
    }

    /// All that was tried from this one on.
    pub(super) fn since(&self, from: usize) -> Vec<Tried> {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.get(from..).unwrap_or_default().to_vec()
    }

    fn serve(&self, visitor: UnixStream) -> Option<()> {
        let mut answers = visitor.try_clone().ok()?;
        for line in BufReader::new(visitor).lines() {
            let line = line.ok()?;
            let (token, pid) = line.split_once(' ')?;
            let tried = self.present(token.parse().ok()?, pid.parse().ok()?);
            writeln!(answers, "{}", if tried.accepted() { "accepted" } else { "refused" }).ok()?;
        }
        None
    }
}
