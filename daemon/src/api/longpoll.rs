//! Reading the state: as fresh as was asked for, and, where the client says so, only when it has something new.

use std::ops::Bound;
use std::sync::Arc;

use baton_core::command::Refusal;
use baton_core::id::{InstanceId, Revision, ServiceName};
use baton_core::state::{Instance, Service};
use imbl::OrdMap;
use tokio::time::Instant;

use super::ApiState;
use super::error::ApiError;
use super::query::{Consistency, Fresh};
use super::views::CountsOf;
use crate::reports::CountsAsk;
use crate::store::View;

/// A view that is as fresh as was asked for.
pub(crate) async fn read(state: &ApiState, consistency: Consistency) -> Result<Arc<View>, ApiError> {
    match consistency {
        Consistency::Linearizable => state.consensus.barrier().await?,
        Consistency::Stale => {}
    }
    Ok(state.consensus.reader().view())
}

/// A view that is as fresh as was asked for, waiting where that was asked for until `changed` is after the client's
/// revision. `changed` says when what the client asks about changed last, or `None` where it is not there, which is an
/// answer at once.
///
/// It never answers with a view older than the client's revision: where the node does not get that far in time, it says
/// so.
pub(crate) async fn read_changed(
    state: &ApiState,
    fresh: &Fresh,
    changed: impl Fn(&View) -> Option<Revision>,
) -> Result<Arc<View>, ApiError> {
    let reader = state.consensus.reader();
    let mut applied = reader.watch();
    let view = read(state, fresh.consistency).await?;
    let Some(poll) = fresh.poll else { return Ok(view) };
    let deadline = Instant::now() + poll.wait;
    loop {
        // Marked as seen before the look, so that what is published in between wakes the wait below.
        applied.borrow_and_update();
        let view = reader.view();
        let revision = view.state.meta.revision;
        let caught_up = revision >= poll.after;
        if caught_up && changed(&view).is_none_or(|changed| changed > poll.after) {
            return Ok(view);
        }
        let over = tokio::select! {
            news = applied.changed() => news.is_err(),
            () = tokio::time::sleep_until(deadline) => true,
            () = state.shutdown.cancelled() => true,
        };
        if over {
            let behind = ApiError::Behind { seen: poll.after, applied: revision };
            return if caught_up { Ok(view) } else { Err(behind) };
        }
    }
}

/// What is counted of these instances, or of all of a service: the leader's word, so a stale answer does without.
pub(crate) async fn counts(
    state: &ApiState,
    consistency: Consistency,
    service: &ServiceName,
    instances: Option<Vec<InstanceId>>,
) -> CountsOf {
    match consistency {
        Consistency::Linearizable => state.reports.counts(&CountsAsk { service: service.clone(), instances }).await,
        Consistency::Stale => None,
    }
}

/// The service of that name in a view.
pub(crate) fn service_in<'v>(view: &'v View, name: &ServiceName) -> Result<&'v Arc<Service>, ApiError> {
    view.state.service(name).ok_or_else(|| Refusal::NoSuchService { service: name.clone() }.into())
}

/// The instance of that id in a view, and its service.
pub(crate) fn instance_in<'v>(
    view: &'v View,
    name: &ServiceName,
    id: &InstanceId,
) -> Result<(&'v Arc<Service>, &'v Arc<Instance>), ApiError> {
    let service = service_in(view, name)?;
    let instance = service
        .instances
        .get(id)
        .ok_or_else(|| Refusal::NoSuchInstance { service: name.clone(), instance: id.clone() })?;
    Ok((service, instance))
}

/// The entries of a map after a cursor, in order, found without walking those before.
pub(crate) fn page_after<'m, K: Ord, V>(
    map: &'m OrdMap<K, V>,
    cursor: Option<&K>,
) -> impl Iterator<Item = (&'m K, &'m V)> {
    let start = cursor.map_or(Bound::Unbounded, Bound::Excluded);
    map.range::<_, K>((start, Bound::Unbounded))
}
