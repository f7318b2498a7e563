//! The nodes, as this one sees them. Always local: an operator needs it most when there is no quorum.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use baton_client::view::{ClusterView, LocalView, NodeRole, NodeView};
use baton_core::id::NodeId;
use tokio::sync::Mutex;

use super::answer::Answer;
use super::error::ApiError;
use super::query::{Consistency, Query};
use super::{ApiState, views};
use crate::consensus::MemberRole;
use crate::store::View;

/// A leader that was not heard for so long is none: many heartbeats, and what an election takes. It is also the time
/// after which default reads give up.
const LEADER_SILENCE_MAX: Duration = Duration::from_secs(2);

/// The state hash of the last view that was asked about. The lock is held while it is made, so that many who ask at
/// once cost one walk over the state.
pub(crate) type HashCache = Mutex<Option<(u64, String)>>;

async fn state_hash(cache: &HashCache, view: &Arc<View>) -> Result<String, ApiError> {
    let mut known = cache.lock().await;
    if let Some((index, hash)) = known.as_ref()
        && *index == view.applied_index
    {
        return Ok(hash.clone());
    }
    let walked = Arc::clone(view);
    // It takes milliseconds to seconds with the size of the state: not on a thread that serves others.
    let hash = tokio::task::spawn_blocking(move || walked.state.hash())
        .await
        .map_err(|error| ApiError::internal("hashing the state", error))?
        .map_err(|error| ApiError::internal("hashing the state", error))?;
    *known = Some((view.applied_index, hash.clone()));
    Ok(hash)
}

/// The leader, where a sign of it is recent. Raft names the last one it knew until there is another, which without a
/// quorum may be never.
pub(crate) fn leader_heard(state: &ApiState) -> Option<NodeId> {
    let recent = state.consensus.staleness().is_some_and(|age| age <= LEADER_SILENCE_MAX);
    state.consensus.status().leader.filter(|_| recent)
}

/// The nodes, and what this one holds
///
/// Always answered from this node's own knowledge, at once and without a quorum: ask several nodes to compare. Equal
/// `local.applied_index` means equal `local.state_hash`.
#[utoipa::path(get, path = "/v1/cluster", tag = "cluster", operation_id = "get_cluster",
    params(
        ("consistency" = Option<String>, Query, description = "Accepted, without effect: the answer is always local"),
    ),
    responses((status = 200, description = "The cluster as this node sees it", body = ClusterView)))]
pub(crate) async fn cluster(State(state): State<ApiState>, _: Query<Consistency>) -> Result<Answer, ApiError> {
    let view = state.consensus.reader().view();
    let status = state.consensus.status();
    let leader = leader_heard(&state);
    let nodes = status
        .members
        .iter()
        .map(|member| {
            let announced = view.state.nodes.get(&member.id);
            NodeView {
                id: member.id,
                role: match member.role {
                    MemberRole::Leader if leader == Some(member.id) => NodeRole::Leader,
                    // It led when this node heard of it last.
                    MemberRole::Leader | MemberRole::Follower => NodeRole::Follower,
                    MemberRole::Learner => NodeRole::Learner,
                },
                api: announced.map(|node| node.api.clone()),
                peer: Some(member.peer.clone()),
                live: announced.is_some_and(|node| node.live),
                last_contact_ms: member.last_contact.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
                version: announced.map(|node| node.version.clone()),
            }
        })
        .collect();
    let local = LocalView {
        id: status.node_id,
        applied_index: view.applied_index,
        revision: view.state.meta.revision,
        state_hash: state_hash(&state.hash, &view).await?,
    };
    let told = ClusterView {
        cluster_id: view.state.meta.cluster_id.clone(),
        leader,
        term: status.term,
        nodes,
        automation: views::cluster_automation(&view.state, state.consensus.now().time),
        local,
    };
    Ok(Answer::json(&told)?.at(view.state.meta.revision))
}
