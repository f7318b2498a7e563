//! The cluster's events as the demo hears them: followed through every node, told as they come, and kept so that the script
//! can wait for one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_client::view::Snapshot;
use baton_client::{Client, EventStream, StreamItem, WatchFilter};
use baton_core::event::{Event, EventKind};
use baton_core::id::Revision;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::DemoError;
use super::narrator::Narrator;

/// Events kept. A play makes about two hundred; one that is left running forgets the oldest half when it is full.
const KEPT_MAX: usize = 10_000;

/// An event, and when it came to us.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// What happened.
    pub(super) event: Event,
    /// When its line came in.
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
struct Kept {
    events: Vec<Heard>,
    /// How often the connection was lost and found again, and what was seen to go wrong.
    moves: u32,
    problems: Vec<String>,
}

/// The followed stream. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Feed {
    kept: Arc<Mutex<Kept>>,
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What is worth a line while the script plays: moves, health, doubts and nodes, not the registrations it makes itself
/// nor everybody's first `up`.
fn worth_telling(event: &Event) -> bool {
    match event.kind {
        EventKind::ActiveChanged
        | EventKind::TransitionStarted
        | EventKind::TransitionAborted
        | EventKind::InstanceHealthChanged
        | EventKind::InstanceBreakerChanged
        | EventKind::InstanceAdminChanged
        | EventKind::InstanceReset
        | EventKind::AutomationPaused
        | EventKind::AutomationResumed
        | EventKind::AutomationBraked
        | EventKind::NodeLost
        | EventKind::NodeBack => true,
        EventKind::VerdictChanged => {
            matches!(event.to.as_ref().and_then(Option::as_deref), Some("suspect" | "down"))
        }
        EventKind::TransitionStep
        | EventKind::TransitionFinished
        | EventKind::NodeJoined
        | EventKind::ServiceCreated
        | EventKind::ServiceUpdated
        | EventKind::ServiceDeleted
        | EventKind::InstanceRegistered
        | EventKind::InstanceUpdated
        | EventKind::InstanceDeregistered => false,
    }
}

impl Feed {
    /// Follows the stream, beginning with the endpoint of number `first`.
    pub(super) fn follow(client: Client, first: usize, narrator: Arc<Narrator>) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let (told, news) = watch::channel(0);
        let filter = WatchFilter { after: Some(0), ..WatchFilter::default() };
        let mut stream = EventStream::new(client, &filter).starting_at(first);
        let mine = Arc::clone(&kept);
        let task = tokio::spawn(async move {
            let mut last: Revision = 0;
            loop {
                match stream.next().await {
                    Ok(StreamItem::Event { event, .. }) => {
                        let heard = Heard { event: *event, at: Instant::now() };
                        let mut kept = mine.lock().unwrap_or_else(PoisonError::into_inner);
                        if heard.event.revision != last + 1 {
                            kept.problems.push(format!("revision {} came after {last}", heard.event.revision));
                        }
                        last = heard.event.revision;
                        if worth_telling(&heard.event) {
                            narrator.event(&heard.event);
                        }
                        if kept.events.len() >= KEPT_MAX {
                            kept.events.drain(..KEPT_MAX / 2);
                        }
                        kept.events.push(heard);
                    }
                    Ok(StreamItem::Connected { endpoint }) => {
                        let mut kept = mine.lock().unwrap_or_else(PoisonError::into_inner);
                        if kept.moves > 0 {
                            narrator.fact(&format!("the event stream goes on at {endpoint}, after revision {last}"));
                        }
                        kept.moves += 1;
                    }
                    // A node that knows no revision yet begins with what it has.
                    Ok(StreamItem::Snapshot { data, .. }) => {
                        if let Ok(snapshot) = serde_json::from_str::<Snapshot>(&data) {
                            last = snapshot.revision;
                        }
                    }
                    Ok(StreamItem::Reset { data }) => {
                        let mut kept = mine.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.problems.push(format!("the stream was reset: {data}"));
                    }
                    Ok(StreamItem::Unknown { event, .. }) => {
                        let mut kept = mine.lock().unwrap_or_else(PoisonError::into_inner);
                        kept.problems.push(format!("an event of the unknown type \"{event}\""));
                    }
                    Ok(StreamItem::Bookmark { .. } | StreamItem::Lost { .. }) => {}
                    Err(error) => {
                        mine.lock().unwrap_or_else(PoisonError::into_inner).problems.push(error.to_string());
                        told.send_modify(|count| *count += 1);
                        return;
                    }
                }
                told.send_modify(|count| *count += 1);
            }
        });
        Self { kept, news, task }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last revision heard.
    pub(super) fn last(&self) -> Revision {
        self.kept().events.last().map_or(0, |heard| heard.event.revision)
    }

    /// All that was heard after a revision.
    pub(super) fn after(&self, revision: Revision) -> Vec<Heard> {
        self.kept().events.iter().filter(|heard| heard.event.revision > revision).cloned().collect()
    }

    /// Gaps, repeats, resets and refusals: should be empty.
    pub(super) fn problems(&self) -> Vec<String> {
        self.kept().problems.clone()
    }

    /// Waits for the first event after `revision` that is `wanted`.
    pub(super) async fn wait(
        &self,
        what: &str,
        revision: Revision,
        limit: Duration,
        wanted: impl Fn(&Event) -> bool,
    ) -> Result<Heard, DemoError> {
        let mut news = self.news.clone();
        let found = async {
            loop {
                // Marked as seen before looking, so that nothing slips in between.
                news.borrow_and_update();
                let hit = self
                    .kept()
                    .events
                    .iter()
                    .find(|heard| heard.event.revision > revision && wanted(&heard.event))
                    .cloned();
                if hit.is_some() || news.changed().await.is_err() {
                    return hit;
                }
            }
        };
        match tokio::time::timeout(limit, found).await {
            Ok(Some(heard)) => Ok(heard),
            Ok(None) => {
                Err(DemoError::Wrong { what: format!("the event stream ended: {}", self.problems().join("; ")) })
            }
            Err(_) => Err(DemoError::Deadline { what: what.to_owned(), limit }),
        }
    }
}
