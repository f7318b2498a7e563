//! The history, page by page. The same events as on `/v1/watch`, for those who come later.

use axum::extract::State;
use baton_client::view::{EventPage, Problem};
use baton_core::id::Revision;
use bytes::{BufMut, Bytes, BytesMut};
use std::sync::Arc;

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::longpoll::read;
use super::query::{Args, Consistency, FromArgs, LIMIT_MAX, Query};
use super::watch::Filter;
use crate::store::StoredEvent;

/// How many events one answer looks at to find those that were asked for. A filter that lets little through gets a page
/// that is short, and a cursor to go on from.
const LOOKED_AT_MAX: usize = 10 * LIMIT_MAX;

/// The parameters of the list.
pub(crate) struct Wanted {
    consistency: Consistency,
    after: Option<Revision>,
    limit: usize,
    filter: Filter,
}

impl FromArgs for Wanted {
    fn from_args(args: &mut Args) -> Self {
        let consistency = args.consistency();
        // A list is paged by adding `cursor` to its address, so both may be there: the later one is where to go on.
        let after = args.number("after").max(args.number("cursor"));
        Self { consistency, after, limit: args.limit(), filter: Filter::from_args(args) }
    }
}

/// Events after a revision, in order
///
/// Behind the compaction: 410 `compacted` with `compacted_through`. `next_cursor` is a revision and can be used as
/// `after` too.
#[utoipa::path(get, path = "/v1/events", tag = "events", operation_id = "list_events",
    params(
        ("after" = Option<u64>, Query, description = "Only events after this one (default: from the oldest kept)"),
        ("limit" = Option<u32>, Query, description = "Items on a page, 1 to 1000 (default 100)"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("service" = Option<String>, Query, description = "Only those of these services, comma-separated"),
        ("type" = Option<String>, Query, description = "Only those of these types, comma-separated"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
    ),
    responses(
        (status = 200, description = "A page of events", body = EventPage),
        (status = 410, description = "`compacted`: events up to `compacted_through` are forgotten", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn list(State(state): State<ApiState>, Query(wanted): Query<Wanted>) -> Result<Answer, ApiError> {
    let view = read(&state, wanted.consistency).await?;
    let last = view.state.meta.revision;
    let log = state.consensus.reader().events();
    let mut cursor = wanted.after.unwrap_or(view.state.meta.compacted_through);
    let mut found: Vec<Arc<StoredEvent>> = Vec::new();
    let mut looked_at = 0;
    while found.len() < wanted.limit && looked_at < LOOKED_AT_MAX && cursor < last {
        let batch = log.after(cursor, LIMIT_MAX).await?;
        let Some(end) = batch.last().map(|event| event.revision) else { break };
        looked_at += batch.len();
        for event in batch {
            if found.len() == wanted.limit || event.revision > last {
                break;
            }
            cursor = event.revision;
            if wanted.filter.lets_through(&event.event) {
                found.push(event);
            }
        }
        if cursor < end {
            break;
        }
    }
    let next_cursor = (cursor < last).then_some(cursor);
    Ok(Answer::raw(body(&found, next_cursor)).at(last))
}

/// The page, made of texts that were serialized once for everybody.
fn body(events: &[Arc<StoredEvent>], next_cursor: Option<Revision>) -> Bytes {
    let length: usize = events.iter().map(|event| event.json.len() + 1).sum();
    let mut body = BytesMut::with_capacity(length + 64);
    body.put_slice(b"{\"items\":[");
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.put_u8(b',');
        }
        body.put_slice(&event.json);
    }
    body.put_slice(b"],\"next_cursor\":");
    match next_cursor {
        Some(cursor) => body.put_slice(format!("\"{cursor}\"").as_bytes()),
        None => body.put_slice(b"null"),
    }
    body.put_u8(b'}');
    body.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_core::event::{Event, EventKind};
    use baton_core::time::WallTime;

    fn event(revision: Revision) -> Arc<StoredEvent> {
        let event = Event {
            revision,
            time: WallTime(0),
            kind: EventKind::NodeJoined,
            service: None,
            instance: None,
            node: Some(1),
            source: None,
            from: None,
            to: None,
            token: None,
            transition: None,
            reason: "node 1 joined".to_owned(),
            actor: None,
            cause: None,
        };
        let json = serde_json::to_vec(&event).expect("events serialize").into();
        Arc::new(StoredEvent { revision, event, json })
    }

    #[test]
    fn a_page_made_of_texts_is_the_page() {
        for (events, next) in [(vec![], None), (vec![event(1)], None), (vec![event(7), event(8)], Some(8))] {
            let page: EventPage = serde_json::from_slice(&body(&events, next)).expect("a page");
            assert_eq!(page.items, events.iter().map(|event| event.event.clone()).collect::<Vec<_>>());
            assert_eq!(page.next_cursor, next.map(|next| next.to_string()));
        }
    }
}
