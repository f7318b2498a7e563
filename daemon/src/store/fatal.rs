//! How the store says that the node must stop: once, with a reason, never taken back.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// A latch that holds why the node must stop. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fatal(Arc<Inner>);

/// Held by a task that must not die unnoticed.
#[derive(Debug)]
pub(crate) struct Vital {
    what: &'static str,
    fatal: Fatal,
}

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fatal.raise(format!("{} has panicked: this is a defect of this program", self.what));
        }
    }
}

#[derive(Debug, Default)]
struct Inner {
    reason: OnceLock<String>,
    raised: CancellationToken,
}

impl Fatal {
    /// Says that the node must stop. The first reason stays.
    pub(crate) fn raise(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.0.reason.set(reason.clone()).is_ok() {
            tracing::error!(%reason, "this node must stop");
        }
        self.0.raised.cancel();
    }

    /// Watches over a task without which the node only seems to live: hold it in the task, and a panic there stops the node.
    pub(crate) fn vital(&self, what: &'static str) -> Vital {
        Vital { what, fatal: self.clone() }
    }

    /// The reason, if the node must stop.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.0.reason.get().map(String::as_str)
    }

    /// Waits until the node must stop, which in a healthy life is for ever, and says why.
    pub(crate) async fn raised(&self) -> String {
        self.0.raised.cancelled().await;
        self.reason().unwrap_or_default().to_owned()
    }
}
