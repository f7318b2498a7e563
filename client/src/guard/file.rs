//! A guard that keeps the highest token in a file, with the standard library alone. How a file is locked, replaced and
//! believed is here; what is done with an admitted token is the caller's.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use baton_core::id::Token;

use super::{Guard, GuardError, Stale};

/// The longest file that is read. One line of 52 bytes is the longest that is ever written.
const FILE_MAX: u64 = 128;

/// How the one line of the file begins. The number is the version of the form.
const MAGIC: &str = "baton-guard 1";

/// What stands for a token where none has been seen.
const NONE: &str = "none";

/// The highest token of one resource, in a file of its own.
///
/// - *Durable before admitted*: a higher token is written to a new file, that is fsynced, renamed over the old one, and
///   the directory fsynced, before any work with it is done.
/// - *Torn or garbled is refused*: the line ends in a checksum, and a file that is not to the letter what a guard
///   writes is an error, never "nothing seen".
/// - *Threads and processes take turns*: an advisory lock (`flock`) on `<file>.lock` is held while work is done. The
///   lock file is never removed; removing it by hand while guards are open takes the exclusion away.
/// - *After an I/O error* it admits nobody until it is opened again: after a failed fsync nobody knows what is on the
///   disk.
///
/// Put it on a local file system, and beside the data that it guards: a backup that brings the data back without the
/// file, or the file from before, brings old holders back too. All calls block.
#[derive(Debug)]
pub struct FileGuard {
    path: PathBuf,
    directory: PathBuf,
    /// Held open for its lock. One open file has one lock for the whole process, so threads take turns by `inside`
    /// first.
    lock: File,
    inside: Mutex<Inside>,
}

/// What this guard knows beside the file.
#[derive(Debug, Default)]
struct Inside {
    /// What this guard itself has made durable. The file may show more: a process may have died between its rename and
    /// its fsync of the directory, and then what everybody reads can still be lost with the power.
    durable: Option<Token>,
    broken: bool,
}

/// Lets the file's lock go, also when the work panics.
struct Locked<'a>(&'a File);

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It can fail only for a descriptor that is none, and then nothing is locked.
        let _ = self.0.unlock();
    }
}

impl FileGuard {
    /// The guard whose file is at `path`. A missing file is an error: somebody may have lost it, and with it the
    /// promise.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, GuardError> {
        let guard = Self::at(path.as_ref())?;
        guard.highest()?;
        Ok(guard)
    }

    /// Makes the file at `path`, with `highest` as the highest token seen so far: `None` for a resource that never saw
    /// any. An existing file is an error and is left as it is.
    pub fn create(path: impl AsRef<Path>, highest: Option<Token>) -> Result<Self, GuardError> {
        let guard = Self::at(path.as_ref())?;
        {
            let (mut inside, _locked) = guard.enter()?;
            if guard.path.symlink_metadata().is_ok() {
                let source = io::Error::from(io::ErrorKind::AlreadyExists);
                return Err(GuardError::Io { step: "create", path: guard.path.clone(), source });
            }
            guard.keep(&mut inside, highest)?;
        }
        Ok(guard)
    }

    /// The guard at `path`, made with nothing seen where there is no file. Convenient, and weaker than
    /// [`FileGuard::open`]: a file that was lost is taken for one that never was.
    pub fn open_or_create(path: impl AsRef<Path>) -> Result<Self, GuardError> {
        let guard = Self::at(path.as_ref())?;
        {
            let (mut inside, _locked) = guard.enter()?;
            if guard.path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                guard.keep(&mut inside, None)?;
            }
        }
        guard.highest()?;
        Ok(guard)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn at(path: &Path) -> Result<Self, GuardError> {
        let name = path
            .file_name()
            .ok_or_else(|| GuardError::Garbled { path: path.to_owned(), why: "its path names no file".to_owned() })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Two spellings of one directory must come to one lock.
        let directory = parent.canonicalize().map_err(failed("find", parent))?;
        let lock_path = directory.join(suffixed(name.to_owned(), ".lock"));
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        Ok(Self { path: directory.join(name), directory, lock, inside: Mutex::default() })
    }

    /// Waits until it is this thread's turn in this process, and this process's among all.
    fn enter(&self) -> Result<(MutexGuard<'_, Inside>, Locked<'_>), GuardError> {
        // What is behind the mutex is changed last in each step, so a panic of somebody's work leaves nothing half
        // done.
        let inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.broken {
            return Err(GuardError::Broken { path: self.path.clone() });
        }
        loop {
            match self.lock.lock() {
                Ok(()) => return Ok((inside, Locked(&self.lock))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(GuardError::Io { step: "lock", path: self.path.clone(), source }),
            }
        }
    }

    fn read(&self) -> Result<Option<Token>, GuardError> {
        let garbled = |why: &str| GuardError::Garbled { path: self.path.clone(), why: why.to_owned() };
        // The rename that keeps a token would replace a link and leave its target behind.
        let found = self.path.symlink_metadata().map_err(failed("read", &self.path))?;
        if !found.is_file() {
            return Err(garbled("it is not a regular file"));
        }
        let mut text = Vec::new();
        let file = File::open(&self.path).map_err(failed("read", &self.path))?;
        file.take(FILE_MAX + 1).read_to_end(&mut text).map_err(failed("read", &self.path))?;
        if text.is_empty() {
            return Err(garbled("it is empty"));
        }
        parse(&text).ok_or_else(|| garbled("its line is torn or was changed"))
    }

    /// Makes `highest` durable. Where a step fails the guard is broken: the old file may stand, or the new one, or
    /// neither surely.
    fn keep(&self, inside: &mut Inside, highest: Option<Token>) -> Result<(), GuardError> {
        inside.broken = true;
        let name = self.path.file_name().unwrap_or_default().to_owned();
        let fresh = self.directory.join(suffixed(name, ".new"));
        // Left behind by a writer that died: whoever holds the lock may take it away. Never written to in place, so
        // that a link at this name leads nowhere.
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &fresh)(error)),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&fresh).map_err(failed("write", &fresh))?;
        file.write_all(line(highest).as_bytes()).map_err(failed("write", &fresh))?;
        file.sync_all().map_err(failed("sync", &fresh))?;
        fs::rename(&fresh, &self.path).map_err(failed("rename", &fresh))?;
        let directory = File::open(&self.directory).map_err(failed("open", &self.directory))?;
        directory.sync_all().map_err(failed("sync", &self.directory))?;
        *inside = Inside { durable: highest, broken: false };
        Ok(())
    }
}

impl Guard for FileGuard {
    fn admit<T, W: FnOnce() -> T>(&self, token: Token, work: W) -> Result<T, GuardError> {
        let (mut inside, _locked) = self.enter()?;
        let highest = self.read()?;
        if let Some(highest) = highest.filter(|highest| token < *highest) {
            return Err(Stale { presented: token, highest }.into());
        }
        // An equal token that somebody else wrote is written once more: its reader cannot know that it is durable, and
        // syncing another's pages after its fsync failed may be told "well" of data that is gone.
        if highest != Some(token) || inside.durable != Some(token) {
            self.keep(&mut inside, Some(token))?;
        }
        Ok(work())
    }

    fn highest(&self) -> Result<Option<Token>, GuardError> {
        let (_inside, _locked) = self.enter()?;
        self.read()
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GuardError {
    let path = path.to_owned();
    move |source| GuardError::Io { step, path, source }
}

fn suffixed(mut name: OsString, suffix: &str) -> OsString {
    name.push(suffix);
    name
}

/// The whole of the file: `baton-guard 1 42 5f0c…\n`.
fn line(highest: Option<Token>) -> String {
    let head = highest.map_or_else(|| format!("{MAGIC} {NONE}"), |token| format!("{MAGIC} {token}"));
    let sum = fnv1a(head.as_bytes());
    format!("{head} {sum:016x}\n")
}

/// What the file says, or nothing where it is not to the letter what [`line`] writes.
fn parse(text: &[u8]) -> Option<Option<Token>> {
    let told = std::str::from_utf8(text).ok()?;
    let word = told.strip_prefix(MAGIC)?.strip_prefix(' ')?.split(' ').next()?;
    let highest = if word == NONE { None } else { Some(Token(word.parse().ok()?)) };
    (line(highest) == told).then_some(highest)
}

/// FNV-1a, 64 bits (Fowler, Noll and Vo): against torn and flipped bytes, not against anybody who means harm.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
