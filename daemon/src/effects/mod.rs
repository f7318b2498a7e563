//! Effects: carries out what the log says, and decides nothing. What is to be done, by which node, in which attempt and
//! for how long is committed before anything is done here; how it came out is proposed, and what follows from that is
//! the planner's. So nothing here counts attempts, waits between them, or gives up.
//!
//! Each node runs this loop, and only the leader acts in it: a run of a fencing hook belongs to one node and one term. What
//! is under way when the term ends is broken off, since nobody waits for it any more: the next leader finds a run without
//! an outcome, and begins another whose record says so.

mod fence_agent;
mod hook;
mod signature;
#[cfg(test)]
mod tests;
mod wanted;
mod webhook;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use baton_core::command::{Command, HookEnd};
use baton_core::id::TransitionId;
use baton_core::state::Change;
use baton_core::transition::HookOutcome;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Leadership};
use crate::store::Changed;
pub(crate) use hook::{HookConfig, HookMeans};
use hook::{HookResult, run_hook};
pub(crate) use signature::Secret;
use wanted::{Wanted, wanted};

/// Runs under way at once. More services than that lose their actives at once only when something larger has happened, which
/// the planner's brake is for; each may be a process.
const RUNS_MAX: usize = 64;
/// How soon an outcome that could not be proposed is proposed again.
const RETRY: Duration = Duration::from_millis(200);
/// How long an outcome is proposed: a cluster without a leader may have one again, and then it is worth knowing. After that
/// the planner has long taken the run for lost.
const TELL_FOR: Duration = Duration::from_secs(300);

/// Runs until `shutdown`.
pub(crate) async fn run(consensus: Consensus, means: HookMeans, shutdown: CancellationToken) {
    let means = Arc::new(means);
    let mut leadership = consensus.leadership();
    let mut begun = Begun::default();
    loop {
        let leads = tokio::select! {
            () = shutdown.cancelled() => return,
            leads = leadership.wait_for(|leadership| leadership.is_leader) => match leads {
                Ok(leads) => leads.clone(),
                Err(_) => return,
            },
        };
        begun.enter(leads.term);
        let tenure = Tenure { consensus: &consensus, means: &means, leads, begun: &mut begun, look: BTreeSet::new() };
        tenure.run(&mut leadership, &shutdown).await;
    }
}

/// The runs that this node has begun in a term. Kept apart from the tenure, and keyed by the term: whatever makes this node
/// doubt for a moment that it leads, it begins nothing twice. A restart cannot bring a term back, for a node that was
/// restarted is elected anew before it leads.
#[derive(Debug, Default)]
struct Begun {
    term: u64,
    runs: BTreeSet<(TransitionId, u32)>,
}

impl Begun {
    fn enter(&mut self, term: u64) {
        if self.term != term {
            *self = Self { term, runs: BTreeSet::new() };
        }
    }

    /// Whether this is the first time.
    fn begin(&mut self, transition: TransitionId, attempt: u32) -> bool {
        self.runs.insert((transition, attempt))
    }
}

/// One term as leader.
struct Tenure<'a> {
    consensus: &'a Consensus,
    means: &'a Arc<HookMeans>,
    leads: Leadership,
    begun: &'a mut Begun,
    /// Transitions to look at.
    look: BTreeSet<TransitionId>,
}

type Runs = FuturesUnordered<BoxFuture<'static, HookEnd>>;

impl Tenure<'_> {
    async fn run(mut self, leadership: &mut watch::Receiver<Leadership>, shutdown: &CancellationToken) {
        let mut changes = self.consensus.reader().changes();
        // Subscribed before this look at everything: nothing falls between.
        self.look_at_everything();
        let mut runs = Runs::new();
        loop {
            self.begin(&runs);
            tokio::select! {
                () = shutdown.cancelled() => return,
                // The guard that is handed out must not live across another await, so it ends here.
                () = async { _ = leadership.wait_for(|now| !now.is_leader || now.term != self.leads.term).await } => {
                    if !runs.is_empty() {
                        tracing::warn!(term = self.leads.term, under_way = runs.len(),
                            "this node no longer leads: fencing hooks are broken off, the next leader begins them anew");
                    }
                    return;
                }
                changed = changes.recv() => self.mark(changed),
                Some(end) = runs.next(), if !runs.is_empty() => {
                    tokio::spawn(tell(self.consensus.clone(), end, shutdown.clone()));
                    // There is room for one that had to wait.
                    self.look_at_everything();
                }
            }
        }
    }

    fn look_at_everything(&mut self) {
        let view = self.consensus.reader().view();
        self.look.extend(view.state.services.values().filter_map(|service| service.assignment.transition));
    }

    fn mark(&mut self, changed: Result<Changed, broadcast::error::RecvError>) {
        match changed {
            Ok(Changed::Objects(objects)) => {
                let transition = |change: &Change| match change {
                    Change::Transition(id) => Some(*id),
                    Change::Meta | Change::Node(_) | Change::Service(_) | Change::Instance(..) | Change::Debt(_) => {
                        None
                    }
                };
                self.look.extend(objects.iter().filter_map(transition));
            }
            Ok(Changed::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => self.look_at_everything(),
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    /// Begins what the log wants, each run once. What does not fit is looked at again when another has ended.
    fn begin(&mut self, runs: &Runs) {
        let view = self.consensus.reader().view();
        while let Some(id) = self.look.pop_first() {
            for wanted in wanted(&view.state, id, self.means.node, self.leads.term) {
                if runs.len() >= RUNS_MAX {
                    return;
                }
                if self.begun.begin(id, wanted.ask.attempt) {
                    runs.push(Box::pin(carry_out(wanted, self.means.clone())));
                }
            }
        }
    }
}

/// One run, and what is to be said of it.
async fn carry_out(wanted: Wanted, means: Arc<HookMeans>) -> HookEnd {
    let Wanted { hook, ask } = wanted;
    let result = match &hook {
        Some(hook) => run_hook(hook, &ask, &means).await,
        None => HookResult::not_run("the service's spec has no fencing.hook any more"),
    };
    let kind = match &hook {
        Some(hook) if hook.url.is_some() => "webhook",
        Some(_) => "agent",
        None => "none",
    };
    let outcome = if result.ok { "confirmed" } else { "failed" };
    metrics::counter!("baton_fencing_hooks_total", "kind" => kind, "outcome" => outcome).increment(1);
    let HookResult { ok, code, status, detail, took } = result;
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let outcome = HookOutcome { ok, code, status, detail, took_ms };
    HookEnd { service: ask.service, transition: ask.transition, attempt: ask.attempt, outcome }
}

/// Proposes an outcome until it is in the log, or nobody wants it. It is true whoever leads by then.
async fn tell(consensus: Consensus, end: HookEnd, shutdown: CancellationToken) {
    let HookEnd { transition, attempt, .. } = end;
    let give_up = Instant::now() + TELL_FOR;
    loop {
        let proposed = tokio::select! {
            () = shutdown.cancelled() => return,
            proposed = consensus.propose(Command::HookEnd(end.clone())) => proposed,
        };
        match proposed {
            Ok(Ok(_)) => return,
            // It is there already, by an earlier try whose answer was lost, or nobody keeps the record any more.
            Ok(Err(refusal)) => {
                tracing::debug!(%transition, attempt, %refusal, "the outcome of a fencing hook was refused");
                return;
            }
            Err(error) if Instant::now() >= give_up => {
                tracing::error!(%transition, attempt, %error, ok = end.outcome.ok, detail = end.outcome.detail,
                    "the outcome of a fencing hook is in no record");
                return;
            }
            Err(error) => {
                tracing::warn!(%transition, attempt, %error, "the outcome of a fencing hook could not be proposed yet")
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
}
