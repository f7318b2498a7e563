//! One process, one data directory. Nothing but the lock file lives here.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::StoreError;

/// The name of the lock file. It is never deleted: a deleted lock file can be locked twice.
const LOCK_FILE: &str = "LOCK";

/// Holds the data directory until the last clone is dropped. The kernel lets go of it when the process dies, however it
/// dies.
#[derive(Clone, Debug)]
pub(crate) struct DirLock(Arc<Held>);

#[derive(Debug)]
struct Held {
    // Dropped, and so unlocked, before `released` is heard of: fields drop in order, after `Drop::drop`.
    file: Option<File>,
    released: CancellationToken,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.file.take());
        self.released.cancel();
    }
}

impl DirLock {
    /// Takes the lock, or says who has it.
    pub(crate) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(LOCK_FILE);
        let io = |source| StoreError::Io { doing: "open the lock file", path: path.clone(), source };
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the message: a holder that cannot be read is still a holder.
                let _ = (&file).take(32).read_to_string(&mut holder);
                return Err(StoreError::InUse { dir: dir.to_owned(), holder: holder.trim().to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io)?;
        Ok(Self(Arc::new(Held { file: Some(file), released: CancellationToken::new() })))
    }

    /// A token that is cancelled when the directory is free again.
    pub(crate) fn released(&self) -> CancellationToken {
        self.0.released.clone()
    }
}

/// The parts of the data directory.
#[derive(Clone, Debug)]
pub(crate) struct DataDir {
    /// The directory.
    pub path: PathBuf,
}

impl DataDir {
    /// The log file.
    pub(crate) fn raft_db(&self) -> PathBuf {
        self.path.join("raft.db")
    }

    /// The state file.
    pub(crate) fn state_db(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// The current snapshot.
    pub(crate) fn snapshot(&self) -> PathBuf {
        self.path.join("snapshot.db")
    }

    /// A snapshot in the making, here or on its way from the leader. What is left of one is deleted at start.
    pub(crate) fn snapshot_in_the_making(&self, purpose: &str) -> PathBuf {
        self.path.join(format!("snapshot-{purpose}.tmp"))
    }
}
