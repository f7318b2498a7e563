//! What goes on beside proposals and reads: who leads is published, the clock follows the applied stamps, the first
//! leader gives the cluster its id, and a log that grows too heavy asks for a snapshot.

use std::sync::Arc;
use std::time::Instant;

use baton_core::command::Command;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver;
use openraft::vote::RaftLeaderId;
use uuid::Uuid;

use super::{Inner, Leadership};

/// The weight of retained entries beyond which a snapshot is asked for, whatever their number: they are all in memory.
const LOG_BYTES: usize = 64 * 1024 * 1024;

/// Runs until the node stops.
pub(super) async fn run(inner: Arc<Inner>) {
    let mut server = inner.raft.server_metrics();
    let mut applied = inner.reader.watch();
    let mut snapshot_asked_at = 0;
    loop {
        let view = inner.reader.view();
        inner.clock.observe(view.state.meta.cluster_time, Instant::now());
        let became_leader = {
            let metrics = server.borrow_watched();
            let term = metrics.vote.leader_id.term();
            let leads = metrics.state == ServerState::Leader;
            let next =
                Leadership { term, leader: metrics.current_leader, is_leader: leads && view.applied_term == term };
            let changed = inner.leadership.send_if_modified(|seen| {
                let changed = *seen != next;
                *seen = next.clone();
                changed
            });
            changed && next.is_leader
        };
        if became_leader {
            tracing::info!(term = view.applied_term, "this node leads");
            if view.state.meta.cluster_id.is_empty() {
                let inner = inner.clone();
                tokio::spawn(async move {
                    let command = Command::ClusterCreate { cluster_id: Uuid::now_v7().to_string() };
                    if let Err(error) = inner.proposer.propose(command).await {
                        // The next leader finds that there is none, and makes one.
                        tracing::warn!(%error, "the cluster has no id yet");
                    }
                });
            }
        }
        if inner.log_gauge.bytes() > LOG_BYTES
            && view.applied_index > snapshot_asked_at + inner.tuning.keep_behind_snapshot
        {
            snapshot_asked_at = view.applied_index;
            if let Err(error) = inner.raft.trigger().snapshot().await {
                tracing::warn!(%error, "a snapshot could not be asked for");
            }
        }
        drop(view);
        tokio::select! {
            changed = server.changed() => if changed.is_err() { break },
            changed = applied.changed() => if changed.is_err() { break },
        }
    }
    // Only openraft's end brings this here. If nobody asked for it, it is a failure.
    if !inner.shutdown.is_cancelled() {
        let state = inner.raft.metrics().borrow_watched().running_state.clone();
        let reason = state.err().map_or_else(|| "it says no reason".to_owned(), |error| error.to_string());
        inner.fatal.raise(format!("Raft has stopped: {reason}"));
    }
}
