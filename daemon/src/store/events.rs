//! The events, as they are served: each serialized once and shared by everyone who streams it. Recent ones come from
//! memory, older ones from the table through a connection of their own. Who wants which event is not known here.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use baton_core::apply::Recorded;
use baton_core::event::Event;
use baton_core::id::Revision;
use bytes::Bytes;
use sqlx::{Row, SqliteConnection};
use tokio::sync::{Mutex, watch};

use super::StoreError;
use super::sql;

/// Events kept in memory. Streams that are no further behind than this never touch the table; at a few hundred bytes
/// each it is some megabytes.
const RECENT: usize = 8_192;
/// The most events that one call returns, whatever it asks for.
pub(crate) const EVENTS_PAGE_MAX: usize = 1_000;

/// An event with its JSON.
#[derive(Debug)]
pub(crate) struct StoredEvent {
    /// Its number.
    pub revision: Revision,
    /// The event.
    pub event: Event,
    /// Its JSON, the same text on every node.
    pub json: Bytes,
}

/// Why events cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventsError {
    /// They have been forgotten.
    #[error("events up to {through} are forgotten")]
    Compacted {
        /// The last one that is.
        through: Revision,
    },
    /// The table cannot be read.
    #[error("the events table cannot be read")]
    Store(#[from] StoreError),
}

impl StoredEvent {
    pub(super) fn new(recorded: Recorded) -> Self {
        Self { revision: recorded.event.revision, event: recorded.event, json: recorded.json.into() }
    }
}

/// The events of this node's state.
#[derive(Debug)]
pub(crate) struct EventLog {
    last: watch::Sender<Revision>,
    recent: RwLock<Recent>,
    path: PathBuf,
    // Opened when first needed. One page is read at a time: catching up may be slow, it may not be expensive.
    older: Mutex<Option<SqliteConnection>>,
}

#[derive(Debug, Default)]
struct Recent {
    compacted_through: Revision,
    /// Events up to here are in the table; later ones are only here.
    written: Revision,
    // Without gaps, up to the last one.
    ring: VecDeque<Arc<StoredEvent>>,
}

impl Recent {
    /// Lets go of the oldest beyond what is kept, but never of one that is not in the table yet.
    fn shrink(&mut self) {
        let surplus = self.ring.len().saturating_sub(RECENT);
        let written = self.ring.partition_point(|event| event.revision <= self.written);
        self.ring.drain(..surplus.min(written));
    }
}

impl EventLog {
    pub(super) fn new(path: PathBuf, last: Revision, compacted_through: Revision) -> Self {
        Self {
            last: watch::Sender::new(last),
            recent: RwLock::new(Recent { compacted_through, written: last, ring: VecDeque::new() }),
            path,
            older: Mutex::new(None),
        }
    }

    /// The revision of the last event.
    pub(crate) fn last(&self) -> Revision {
        *self.last.borrow()
    }

    /// The revision of the last event, as it rises.
    pub(crate) fn watch(&self) -> watch::Receiver<Revision> {
        self.last.subscribe()
    }

    /// Up to `limit` of the events after `revision`, in order and without a gap. Empty when there are none yet.
    pub(crate) async fn after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<StoredEvent>>, EventsError> {
        let limit = limit.min(EVENTS_PAGE_MAX);
        if let Some(found) = self.after_in_memory(revision, limit)? {
            return Ok(found);
        }
        let found = self.after_on_disk(revision, limit).await?;
        match found.first() {
            Some(first) if first.revision == revision + 1 => Ok(found),
            // A compaction overtook the reading, or a restore left its gap.
            Some(first) => Err(EventsError::Compacted { through: first.revision - 1 }),
            None => Err(EventsError::Compacted { through: self.last() }),
        }
    }

    /// `None`: look on disk.
    fn after_in_memory(&self, revision: Revision, limit: usize) -> Result<Option<Vec<Arc<StoredEvent>>>, EventsError> {
        let recent = self.recent.read().unwrap_or_else(PoisonError::into_inner);
        if revision >= self.last() {
            return Ok(Some(Vec::new()));
        }
        if revision < recent.compacted_through {
            return Err(EventsError::Compacted { through: recent.compacted_through });
        }
        let start = recent.ring.partition_point(|event| event.revision <= revision);
        let found: Vec<_> = recent.ring.range(start..).take(limit).cloned().collect();
        let follows = found.first().is_some_and(|first| first.revision == revision + 1);
        Ok(follows.then_some(found))
    }

    async fn after_on_disk(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<StoredEvent>>, StoreError> {
        let mut slot = self.older.lock().await;
        let conn = match slot.as_mut() {
            Some(conn) => conn,
            None => slot.insert(sql::open_reader(&self.path).await?),
        };
        let rows = sqlx::query("SELECT revision, body FROM events WHERE revision > ? ORDER BY revision LIMIT ?")
            .bind(revision.cast_signed())
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(conn)
            .await?;
        let mut events: Vec<Arc<StoredEvent>> = Vec::with_capacity(rows.len());
        for row in rows {
            let revision = row.try_get::<i64, _>(0)?.cast_unsigned();
            if events.last().is_some_and(|last| last.revision + 1 != revision) {
                break;
            }
            let body: String = row.try_get(1)?;
            let event =
                serde_json::from_str(&body).map_err(|source| StoreError::Unreadable { what: "event", source })?;
            events.push(Arc::new(StoredEvent { revision, event, json: body.into() }));
        }
        Ok(events)
    }

    /// Takes in the events of a committed batch.
    pub(super) fn extend(&self, events: Vec<Arc<StoredEvent>>, compacted_through: Revision) {
        let Some(last) = events.last().map(|event| event.revision) else {
            self.recent.write().unwrap_or_else(PoisonError::into_inner).compacted_through = compacted_through;
            return;
        };
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.compacted_through = compacted_through;
            let expected = recent.ring.back().map(|event| event.revision + 1);
            if expected.is_some_and(|expected| events.first().is_some_and(|first| first.revision != expected)) {
                recent.ring.clear();
            }
            recent.ring.extend(events);
            recent.shrink();
        }
        self.last.send_replace(last);
    }

    /// Events up to `revision` are in the table from now on.
    pub(super) fn written(&self, revision: Revision) {
        let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
        recent.written = recent.written.max(revision);
        recent.shrink();
    }

    /// Starts over after a snapshot was installed: the table is another one.
    pub(super) fn reset(&self, last: Revision, compacted_through: Revision) {
        {
            let mut recent = self.recent.write().unwrap_or_else(PoisonError::into_inner);
            recent.compacted_through = compacted_through;
            recent.written = last;
            recent.ring.clear();
        }
        self.last.send_replace(last);
    }
}
