//! Held connections, for checks with `watch`: one idle TCP connection to an instance, whose end says that something has
//! happened to it, milliseconds after it did. It is a hint that starts a probe at once, never a verdict: servers close
//! idle connections for many reasons.
//!
//! Nothing is sent over it, so a server that wants to hear something soon will end it; whoever does so again and again
//! is asked ever more rarely. TCP keepalive is not needed: a peer that vanished without a word fails its probes, and a
//! probe that finds nobody lets go of the held connection too, so that a new one is made to whoever comes back.
//!
//! Under a check over TLS it is the bare TCP connection, without a handshake.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use baton_core::probe::LocalTime;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::probe::Means;
use super::schedule::TargetId;
use super::{Target, tcp};

/// The most held connections, if the process may open files enough; else an eighth of those. A task and a socket each:
/// a few kilobytes.
const HELD_MAX: usize = 16_384;

/// A connection that ended sooner was not accepted: whoever listens takes nobody, or a proxy found no server behind it.
const A_MOMENT: Duration = Duration::from_millis(50);

/// A connection that lasted for fewer intervals than this ended quickly.
const QUICK: u32 = 3;

/// How many quick ends in a row are taken for chance.
const QUICK_ENDS: u32 = 5;

/// The longest pause before a connection is made again, in intervals.
const PAUSE_MAX: u32 = 10;

/// The most that a server may send over a connection on which it was asked nothing. A greeting is far shorter.
const UNASKED_MAX: usize = 64 * 1024;

/// How a held connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was never made.
    NotMade,
    /// The server ended it, or the network did, that long after it was made.
    Ended(Duration),
    /// The server would not stop sending.
    Talkative,
}

/// How things stand with one target's connection.
#[derive(Debug)]
struct Hold {
    target: Arc<Target>,
    /// The task that holds it, and which one it is.
    task: Option<(AbortHandle, u64)>,
    quick_ends: u32,
    /// No connection is made before this.
    not_before: LocalTime,
}

impl Hold {
    /// The server has ended its connection after `lasted`: decides when there may be another.
    fn pause(&mut self, lasted: Duration, now: LocalTime) {
        let interval = self.target.plan.interval;
        self.quick_ends = if lasted < interval * QUICK { self.quick_ends.saturating_add(1) } else { 0 };
        let beyond = self.quick_ends.saturating_sub(QUICK_ENDS - 1);
        let intervals = 1_u32.checked_shl(beyond).unwrap_or(PAUSE_MAX).min(PAUSE_MAX);
        self.not_before = now.plus(interval * intervals);
    }
}

/// The held connections of a node.
#[derive(Debug)]
pub(crate) struct Holds {
    means: Arc<Means>,
    by_target: HashMap<TargetId, Hold>,
    tasks: JoinSet<(TargetId, u64, End)>,
    pub(super) max: usize,
    last_task: u64,
}

/// Counts one established connection for as long as it is there.
struct Counted;

impl Counted {
    fn new() -> Self {
        metrics::gauge!("baton_probe_held_connections").increment(1.0);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        metrics::gauge!("baton_probe_held_connections").decrement(1.0);
    }
}

impl Holds {
    /// Holds none yet. `files` is how many files the process may open, if that is limited.
    pub(crate) fn new(means: Arc<Means>, files: Option<u64>) -> Self {
        let eighth = files.map_or(HELD_MAX, |files| usize::try_from(files / 8).unwrap_or(HELD_MAX));
        Self { means, by_target: HashMap::new(), tasks: JoinSet::new(), max: eighth.min(HELD_MAX), last_task: 0 }
    }

    /// A connection to `target` is to be held, once a probe has found it well.
    pub(crate) fn insert(&mut self, id: TargetId, target: Arc<Target>) {
        let hold = Hold { target, task: None, quick_ends: 0, not_before: LocalTime::default() };
        self.by_target.insert(id, hold);
    }

    /// Closes the connection to a target, if one is held, and makes no other.
    pub(crate) fn remove(&mut self, id: TargetId) {
        if let Some(Hold { task: Some((task, _)), .. }) = self.by_target.remove(&id) {
            task.abort();
        }
    }

    /// A probe found the target well: now a connection may be made.
    pub(crate) fn found_well(&mut self, id: TargetId, now: LocalTime) {
        let Some(hold) = self.by_target.get_mut(&id) else { return };
        if hold.task.is_some() || now < hold.not_before {
            return;
        }
        if self.tasks.len() >= self.max {
            metrics::counter!("baton_probe_held_refused_total").increment(1);
            return;
        }
        self.last_task += 1;
        let number = self.last_task;
        let (means, target) = (self.means.clone(), hold.target.clone());
        let task = self.tasks.spawn(async move { (id, number, hold_to_the_end(&means, &target).await) });
        hold.task = Some((task, number));
    }

    /// A probe found nobody: whatever connection is held leads nowhere.
    pub(crate) fn found_nobody(&mut self, id: TargetId, now: LocalTime) {
        let Some(hold) = self.by_target.get_mut(&id) else { return };
        if let Some((task, _)) = hold.task.take() {
            task.abort();
            hold.not_before = hold.not_before.max(now.plus(hold.target.plan.interval));
        }
    }

    /// Waits until a connection has ended that says something about its target. May be dropped at any time; waits for
    /// ever while nothing is held.
    pub(crate) async fn ended(&mut self) -> TargetId {
        loop {
            match self.tasks.join_next().await {
                Some(ended) => {
                    if let Some(id) = self.landed(ended) {
                        return id;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    fn landed(&mut self, ended: Result<(TargetId, u64, End), JoinError>) -> Option<TargetId> {
        let (id, number, end) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a held connection panicked: this is a defect, please report it");
                }
                return None;
            }
        };
        let now = self.means.clock.now();
        // One that was let go while it ended says nothing of the one that came after it.
        let hold =
            self.by_target.get_mut(&id).filter(|hold| hold.task.as_ref().is_some_and(|(_, own)| *own == number))?;
        hold.task = None;
        match end {
            End::NotMade | End::Talkative => {
                hold.pause(Duration::ZERO, now);
                None
            }
            End::Ended(lasted) => {
                hold.pause(lasted, now);
                metrics::counter!("baton_probe_held_ended_total").increment(1);
                (lasted >= A_MOMENT).then_some(id)
            }
        }
    }
}

#[cfg(test)]
impl Holds {
    pub(super) fn len(&self) -> usize {
        self.by_target.values().filter(|hold| hold.task.is_some()).count()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

async fn hold_to_the_end(means: &Means, target: &Target) -> End {
    let port = target.plan.port.unwrap_or(target.address.port);
    let connecting = tcp::connect(&means.resolver, &target.address.host, port);
    // Why there is none, the next probe will tell.
    let Ok(Ok(stream)) = tokio::time::timeout(target.plan.timeout, connecting).await else { return End::NotMade };
    let counted = Counted::new();
    let since = means.clock.now();
    let silent = listen(&stream).await;
    drop(counted);
    if silent { End::Ended(means.clock.now().since(since)) } else { End::Talkative }
}

/// Reads and drops what the server sends, until it ends the connection: `true`, or has sent too much: `false`.
async fn listen(stream: &TcpStream) -> bool {
    let mut heard = 0;
    while heard < UNASKED_MAX {
        if stream.readable().await.is_err() {
            return true;
        }
        // Not kept across the wait: while nothing comes, nothing is taken up.
        let mut read = [0; 1_024];
        match stream.try_read(&mut read) {
            Ok(0) => return true,
            Ok(length) => heard += length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
    false
}
