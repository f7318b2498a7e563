//! The leader's hands: looks at what changed, asks the planner, proposes what it says. No decision is made here; whoever
//! wants to know why something was or was not done asks `core::planner`.
//!
//! Each node runs this loop, and only a leader that has applied its own term's first entry acts in it. A proposal that
//! comes too late is refused by `apply`, so two leaders that both believe in themselves do no harm.

mod lane;

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::command::{Command, Refusal, Reply};
use baton_core::id::{NodeId, ServiceName};
use baton_core::lease::{Seal, Unsealable};
use baton_core::planner::{self, instances_due, plan_service};
use baton_core::state::{Brake, Change, Pause};
use baton_core::time::Millis;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Leadership, ProposeError};
use crate::leases::LeaderBook;
use crate::store::Changed;
use lane::Lane;

/// Proposals under way at once: enough to keep the log busy when many services move, few enough to stay polite.
const IN_FLIGHT_MAX: usize = 64;
/// The same for what time alone brings: beside the plans, and with less of the log.
const DUE_IN_FLIGHT_MAX: usize = 16;
/// How soon a proposal that could not be made is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// How often the leader looks after the cluster itself.
const UPKEEP_EVERY: Duration = Duration::from_millis(250);
/// How long after the end of a lease it is looked at again: timers have a grain.
const GRAIN: Duration = Duration::from_millis(1);

/// Runs until `shutdown`.
pub(crate) async fn run(consensus: Consensus, leases: LeaderBook, shutdown: CancellationToken) {
    let mut leadership = consensus.leadership();
    loop {
        let leads = tokio::select! {
            () = shutdown.cancelled() => return,
            leads = leadership.wait_for(|leadership| leadership.is_leader) => match leads {
                Ok(leads) => leads.clone(),
                Err(_) => return,
            },
        };
        tracing::info!(term = leads.term, "this node leads: it plans from here on");
        Tenure::new(consensus.clone(), leases.clone(), leads).run(&mut leadership, &shutdown).await;
    }
}

/// One term as leader. Nothing of it outlives the term.
struct Tenure {
    consensus: Consensus,
    leases: LeaderBook,
    leads: Leadership,
    since: Instant,
    /// Services to plan.
    plans: Lane,
    /// Services to look through for what time alone brings.
    dues: Lane,
    /// Seals of proposals whose fate is not known.
    in_doubt: Vec<Seal>,
    /// The pause of all and the brake, as every plan of this moment knows them.
    pause: Option<Pause>,
    brake: Option<Brake>,
}

type Outcome = (ServiceName, Result<Reply, ProposeError>, Option<Seal>);

type Proposals = FuturesUnordered<BoxFuture<'static, Outcome>>;

impl Tenure {
    fn new(consensus: Consensus, leases: LeaderBook, leads: Leadership) -> Self {
        // A majority has voted for this node before it could know that it leads: from here every wait counts.
        leases.begin(leads.term);
        let (plans, dues) = (Lane::new(IN_FLIGHT_MAX), Lane::new(DUE_IN_FLIGHT_MAX));
        Self {
            consensus,
            leases,
            leads,
            since: Instant::now(),
            plans,
            dues,
            in_doubt: Vec::new(),
            pause: None,
            brake: None,
        }
    }

    async fn run(&mut self, leadership: &mut watch::Receiver<Leadership>, shutdown: &CancellationToken) {
        let mut changes = self.consensus.reader().changes();
        // Subscribed before this look at everything: nothing falls between.
        self.everything_is_dirty();
        self.mark_all_where_all_are_held();
        let (mut planned, mut housekeeping) = (Proposals::new(), Proposals::new());
        let mut upkeeping: Option<BoxFuture<'static, Vec<Seal>>> = None;
        let mut upkeep = interval(UPKEEP_EVERY);
        upkeep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.plan_dirty(&planned);
            self.do_what_is_due(&housekeeping);
            let wake = [self.plans.next_wake(), self.dues.next_wake()].into_iter().flatten().min();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = leads_no_longer(leadership, self.leads.term) => {
                    tracing::info!(term = self.leads.term, "this node no longer leads: it stops planning");
                    return;
                }
                changed = changes.recv() => self.mark(changed),
                Some((service, outcome, seal)) = planned.next(), if !planned.is_empty() => {
                    self.lift(seal, &outcome);
                    self.finished(&service, outcome);
                }
                Some((service, outcome, _)) = housekeeping.next(), if !housekeeping.is_empty() => self.kept(&service, outcome),
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    self.plans.wake(now);
                    self.dues.wake(now);
                }
                _ = upkeep.tick(), if upkeeping.is_none() => upkeeping = self.upkeep(),
                in_doubt = finish(&mut upkeeping) => {
                    upkeeping = None;
                    self.in_doubt.extend(in_doubt);
                }
            }
        }
    }

    fn everything_is_dirty(&mut self) {
        for service in self.consensus.reader().view().state.services.keys() {
            self.changed(service);
        }
    }

    /// A pause of all, or the brake, has come or gone: what is planned for any service may be another thing now.
    fn mark_all_where_all_are_held(&mut self) {
        let view = self.consensus.reader().view();
        let meta = &view.state.meta;
        if self.pause != meta.pause || self.brake != meta.brake {
            self.pause.clone_from(&meta.pause);
            self.brake.clone_from(&meta.brake);
            self.everything_is_dirty();
        }
    }

    fn changed(&mut self, service: &ServiceName) {
        self.plans.mark(service);
        self.dues.mark(service);
    }

    fn mark(&mut self, changed: Result<Changed, broadcast::error::RecvError>) {
        match changed {
            Ok(Changed::Objects(objects)) => {
                for change in objects.iter() {
                    match change {
                        Change::Service(name) | Change::Instance(name, _) => self.changed(name),
                        // Every entry changes that: only what concerns all services is looked at.
                        Change::Meta => self.mark_all_where_all_are_held(),
                        Change::Node(_) | Change::Transition(_) | Change::Debt(_) => {}
                    }
                }
            }
            Ok(Changed::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => self.everything_is_dirty(),
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    /// Plans what is dirty and has no proposal under way; what does not fit stays dirty.
    fn plan_dirty(&mut self, proposals: &Proposals) {
        let mut last = None;
        while let Some(name) = self.plans.take_after(last.as_ref()) {
            let view = self.consensus.reader().view();
            let now = self.consensus.now().time;
            if let Some(service) = view.state.service(&name) {
                // The revision as seed, as everywhere: `explain` of this state names what is done here.
                let facts = self.leases.facts(service, self.consensus.node_id(), self.leads.term);
                let plan = plan_service(&view.state, service, &facts, now, view.state.meta.revision);
                if let Some(at) = plan.wake_at {
                    self.plans.wake_at(&name, Instant::now() + at.since(now).as_duration());
                }
                if let Some(mut command) = plan.command {
                    match self.leases.seal(self.leads.term, &view.state, &mut command) {
                        Ok(seal) => {
                            tracing::info!(service = %name, decision = %plan.report.decision, "{}", plan.report.summary);
                            self.plans.begin(&name);
                            proposals.push(self.propose(&name, command, seal));
                        }
                        // Renewed between the look and the seal: the lease's new end is waited for.
                        Err(Unsealable::Runs { left }) => self.plans.wake_at(&name, Instant::now() + left + GRAIN),
                        Err(Unsealable::OtherTerm) => {}
                    }
                }
            }
            last = Some(name);
        }
    }

    /// Looks through what is dirty for what time alone brings. After the plans, and in a lane of its own: a failover does
    /// not wait for housekeeping.
    fn do_what_is_due(&mut self, proposals: &Proposals) {
        let mut last = None;
        while let Some(name) = self.dues.take_after(last.as_ref()) {
            let view = self.consensus.reader().view();
            let now = self.consensus.now().time;
            if let Some(service) = view.state.service(&name) {
                let led_for = Millis(u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX));
                let due = instances_due(service, now, led_for);
                if let Some(at) = due.wake_at {
                    self.dues.wake_at(&name, Instant::now() + at.since(now).as_duration());
                }
                if let Some(command) = due.command {
                    tracing::debug!(service = %name, ?command, "the time has come");
                    self.dues.begin(&name);
                    proposals.push(self.propose(&name, command, None));
                }
            }
            last = Some(name);
        }
    }

    fn propose(&self, service: &ServiceName, command: Command, seal: Option<Seal>) -> BoxFuture<'static, Outcome> {
        let (consensus, service) = (self.consensus.clone(), service.clone());
        Box::pin(async move {
            let outcome = consensus.propose(command).await;
            (service, outcome, seal)
        })
    }

    /// Lifts the seal of a proposal that was answered, or that surely never entered the log. Where neither is known, it stays
    /// until it is: see [`Self::upkeep`].
    fn lift(&mut self, seal: Option<Seal>, outcome: &Result<Reply, ProposeError>) {
        if let Some(seal) = seal {
            self.in_doubt.extend(lift(&self.leases, seal, outcome));
        }
    }

    /// Looks after the cluster itself: whose verdicts count, how much history is kept.
    /// Proposed beside the plans, never before them: a failover does not wait for housekeeping.
    fn upkeep(&mut self) -> Option<BoxFuture<'static, Vec<Seal>>> {
        let status = self.consensus.status();
        let heard: BTreeMap<NodeId, Option<Millis>> = status
            .members
            .iter()
            .map(|member| (member.id, member.last_contact.map(|ago| Millis(ago.as_millis() as u64))))
            .collect();
        let leading_for = Millis(self.since.elapsed().as_millis() as u64);
        let view = self.consensus.reader().view();
        let mut commands = planner::observers(&view.state, status.node_id, &heard, leading_for);
        commands.extend(planner::retention(&view.state));
        commands.extend(planner::pauses_due(&view.state, self.consensus.now().time));
        commands.extend(self.leases.debts_due(&view.state, self.leads.term));
        self.leases.retain(&view.state);
        let mut in_doubt = std::mem::take(&mut self.in_doubt);
        if !in_doubt.is_empty() {
            // It says nothing. But what was sent before it is before it in the log, or is not there: once this is answered,
            // nothing of that is undecided any more.
            commands.push(Command::EventsCompact { through: 0 });
        }
        if commands.is_empty() {
            return None;
        }
        let (consensus, leases, term) = (self.consensus.clone(), self.leases.clone(), self.leads.term);
        Some(Box::pin(async move {
            for mut command in commands {
                let settles = matches!(command, Command::EventsCompact { through: 0 });
                let Ok(seal) = leases.seal(term, &consensus.reader().view().state, &mut command) else { continue };
                tracing::info!(?command, "upkeep");
                let outcome = consensus.propose(command).await;
                if settles && outcome.is_ok() {
                    in_doubt.drain(..).for_each(|seal| leases.unseal(seal));
                }
                if let Some(seal) = seal {
                    in_doubt.extend(lift(&leases, seal, &outcome));
                }
                match outcome {
                    Ok(Ok(_)) => {}
                    Ok(Err(refusal)) => tracing::debug!(%refusal, "upkeep was refused: it is looked at again"),
                    Err(error) => {
                        tracing::warn!(%error, "upkeep could not be proposed: it is tried again");
                        return in_doubt;
                    }
                }
            }
            in_doubt
        }))
    }

    fn finished(&mut self, service: &ServiceName, outcome: Result<Reply, ProposeError>) {
        self.plans.end(service);
        match outcome {
            Ok(Ok(_)) => self.plans.mark(service),
            Ok(Err(refusal)) => {
                tracing::info!(%service, code = refusal.code(), %refusal, "a plan was refused");
                match refusal {
                    // The state that refused it is the state that is looked at next.
                    Refusal::MovedOn { .. } | Refusal::TransitionInProgress { .. } | Refusal::NoSuchService { .. } => {
                        self.plans.mark(service);
                    }
                    Refusal::NoSuchInstance { .. }
                    | Refusal::GenerationMismatch { .. }
                    | Refusal::AlreadyActive { .. }
                    | Refusal::NotEligible { .. }
                    | Refusal::NoCandidate { .. }
                    | Refusal::ProofRefused { .. }
                    | Refusal::NoActive { .. }
                    | Refusal::ActiveNotWell { .. }
                    | Refusal::NotActivePassive { .. }
                    | Refusal::NoTrial { .. }
                    | Refusal::IsActive { .. }
                    | Refusal::UnknownSession { .. }
                    | Refusal::NotHolder { .. }
                    | Refusal::AutomationHeld { .. }
                    | Refusal::NothingToDo { .. }
                    | Refusal::LimitReached { .. } => self.plans.wake_at(service, Instant::now() + RETRY),
                }
            }
            Err(error) => {
                tracing::warn!(%service, %error, "a plan could not be proposed");
                self.plans.wake_at(service, Instant::now() + RETRY);
            }
        }
    }

    /// Housekeeping was proposed. What it changed has marked the service; where it changed nothing, the next look may wait.
    fn kept(&mut self, service: &ServiceName, outcome: Result<Reply, ProposeError>) {
        self.dues.end(service);
        match outcome {
            Ok(Ok(_)) => {}
            Ok(Err(refusal)) => tracing::debug!(%service, %refusal, "housekeeping was refused"),
            Err(error) => tracing::warn!(%service, %error, "housekeeping could not be proposed: it is tried again"),
        }
        self.dues.wake_at(service, Instant::now() + RETRY);
    }
}

/// Lifts the seal of a proposal that was answered, or that surely never entered the log; gives it back where neither is known.
fn lift(leases: &LeaderBook, seal: Seal, outcome: &Result<Reply, ProposeError>) -> Option<Seal> {
    match outcome {
        Ok(_) | Err(ProposeError::NoLeader | ProposeError::Overloaded | ProposeError::Unencodable) => {
            leases.unseal(seal);
            None
        }
        Err(ProposeError::Unknown | ProposeError::Stopped) => {
            tracing::warn!(
                "a promotion by lease was proposed and has no answer: its token stays sealed until it is settled"
            );
            Some(seal)
        }
    }
}

/// Finishes what is under way; waits for ever where nothing is.
async fn finish<T>(work: &mut Option<BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Waits until this node does not lead in `term` any more, or is ending.
async fn leads_no_longer(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    // The guard that is handed out must not live across another await, so it ends here.
    let _ = leadership.wait_for(|now| !now.is_leader || now.term != term).await;
}

/// Sleeps until `at`; for ever where there is nothing to wake for.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
