//! What a leader proposes, from the thought to what becomes of it: what claims that a lease has run out is sealed first,
//! commands go into the log in batches, and who waits is told when the entry is applied here.

use std::rc::Rc;
use std::time::Duration;

use baton_core::apply::BatchApplied;
use baton_core::command::{Batch, Command, Refusal, Reply};
use baton_core::id::ServiceName;
use baton_core::lease::{LeaseClaim, LeaseTerms, Seal, Unsealable};
use baton_core::state::{Change, State};
use baton_core::time::WallTime;

use super::message::{Answer, Ask, Message, NodeTimer, Waiter};
use super::net::Addr;
use super::seen::Sight;
use super::world::{World, tell};

/// The wall clock when the decision clock began: a label.
const WALL: i64 = 1_763_635_320_000;

impl World {
    /// Puts a command with those that wait to be appended together.
    pub(crate) fn propose(&mut self, at: usize, term: u64, command: Command, waiter: Waiter) {
        let Some(lead) = self.lead(at, term) else {
            // It leads no longer: what it wanted goes to whoever does, as any node's proposal would.
            if let Some(leader) = self.nodes[at].raft.leader.filter(|leader| *leader != at) {
                let forward = Message::Forward { client: Addr::Node(at), request: 0, ask: Ask::Write(command) };
                self.seen.note(Sight::ProposalsForwarded);
                self.send(Addr::Node(at), Addr::Node(leader), forward);
            }
            return;
        };
        lead.waiting.push((command, waiter));
        if !std::mem::replace(&mut lead.flushing, true) {
            let after = self.about(self.shape.batching);
            self.node_will(at, after, NodeTimer::Flush { term });
        }
    }

    /// Proposes what was planned a moment ago. What claims that a lease has run out is proposed under a seal only: the
    /// table looks once more, and closes the token, in one step.
    pub(crate) fn seal_and_propose(&mut self, at: usize, term: u64, mut command: Command, waiter: Waiter) {
        let (service, claim) = match (&mut command, &waiter) {
            (Command::TransitionStart(start), Waiter::Plan { .. }) => (start.service.clone(), start.lease.as_mut()),
            (Command::Promote(promote), Waiter::Plan { .. }) => (promote.service.clone(), promote.lease.as_mut()),
            (Command::DebtForget { service, claim }, Waiter::Debt { .. }) => (service.clone(), Some(claim)),
            _ => {
                self.propose(at, term, command, waiter);
                return;
            }
        };
        let mut sealed = None;
        if let Some(claim) = claim {
            match self.seal(at, term, &service, claim) {
                Some(seal) => sealed = Some(seal),
                None => {
                    self.settled(at, term, waiter);
                    return;
                }
            }
        }
        let waiter = match waiter {
            Waiter::Plan { service, .. } => Waiter::Plan { service, seal: sealed },
            Waiter::Debt { service, .. } => Waiter::Debt { service, seal: sealed },
            other @ (Waiter::Client { .. }
            | Waiter::Returned(..)
            | Waiter::Upkeep
            | Waiter::Due(_)
            | Waiter::Judge
            | Waiter::Nobody) => other,
        };
        self.propose(at, term, command, waiter);
    }

    /// Seals the token that a claim is about, and puts the claim right.
    fn seal(&mut self, at: usize, term: u64, service: &ServiceName, claim: &mut LeaseClaim) -> Option<Seal> {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        let holder = node.state.service(service).and_then(|it| it.assignment.last_holder.clone());
        let holder = holder.or_else(|| node.state.debts.get(service).map(|debt| debt.holder.clone()))?;
        let terms: LeaseTerms = holder.lease.filter(|_| holder.token == Some(claim.token))?;
        match node.leases.seal(term, claim.token, &terms, now) {
            Ok((seal, found)) => {
                *claim = found;
                tell!(self, "n{} seals token {}", at + 1, claim.token);
                Some(seal)
            }
            Err(refused @ (Unsealable::Runs { .. } | Unsealable::OtherTerm)) => {
                tell!(self, "n{} cannot seal token {}: {refused}", at + 1, claim.token);
                self.seen.note(Sight::SealsRefused);
                None
            }
        }
    }

    pub(crate) fn flush(&mut self, at: usize, term: u64) {
        let now = self.local(at);
        if self.nodes[at].stuck_until > self.now {
            let after = Duration::from_micros(self.nodes[at].stuck_until - self.now);
            self.node_will(at, after, NodeTimer::Flush { term });
            return;
        }
        let time = self.nodes[at].cluster_time(now);
        let Some(lead) = self.lead(at, term) else { return };
        lead.flushing = false;
        let (commands, waiters): (Vec<_>, Vec<_>) = std::mem::take(&mut lead.waiting).into_iter().unzip();
        let wall = WallTime(WALL + i64::try_from(time.0).expect("a short time"));
        let batch = Rc::new(Batch { time, wall, commands });
        if let Some(index) = self.nodes[at].raft.append(Some(batch)) {
            #[cfg(feature = "mutants")]
            for waiter in &waiters {
                if let Waiter::Plan { seal: Some(seal), .. } | Waiter::Debt { seal: Some(seal), .. } = waiter {
                    self.nodes[at].leases.appended(seal, now);
                }
            }
            if let Some(lead) = self.lead(at, term) {
                lead.proposed.insert(index, waiters);
            }
        }
        self.after_raft(at);
    }

    /// An entry is applied on this node.
    pub(crate) fn lead_applied(&mut self, at: usize, index: u64, entry_term: u64, applied: Option<&BatchApplied>) {
        let Some(lead) = &mut self.nodes[at].lead else { return };
        let term = lead.term;
        let waiters = lead.proposed.remove(&index).unwrap_or_default();
        for change in applied.into_iter().flat_map(|applied| &applied.changes) {
            match change {
                Change::Service(name) | Change::Instance(name, _) => {
                    lead.dirty.insert(name.clone());
                }
                Change::Meta | Change::Node(_) | Change::Transition(_) | Change::Debt(_) => {}
            }
        }
        // What is said of all services at once is no change of any of them.
        let meta = |state: &State| (state.meta.brake.is_some(), state.meta.pause.clone());
        let for_all = meta(self.history.before(index)) != meta(&self.nodes[at].state);
        let first = entry_term == term && applied.is_none();
        if first || for_all {
            let all: Vec<ServiceName> = self.nodes[at].state.services.keys().cloned().collect();
            if let Some(lead) = self.lead(at, term) {
                lead.dirty.extend(all);
            }
        }
        if first {
            // From here on it knows all that was decided before, and acts.
            for node in 0..self.nodes.len() {
                if !self.nodes[at].state.nodes.contains_key(&(node as u64 + 1)) {
                    self.propose(at, term, Self::announcement(node), Waiter::Nobody);
                }
            }
        }
        for (waiter, reply) in waiters.into_iter().zip(applied.into_iter().flat_map(|applied| &applied.replies)) {
            self.became(at, term, waiter, reply.clone());
        }
        self.plan_soon(at, term);
    }

    /// What became of a proposal.
    fn became(&mut self, at: usize, term: u64, waiter: Waiter, reply: Reply) {
        match waiter {
            Waiter::Client { via, client, request } => self.relay(at, via, client, request, Answer::Reply(reply)),
            Waiter::Plan { service, seal } => {
                if let Err(refusal) = &reply {
                    tell!(self, "n{}: a plan was refused: {refusal}", at + 1);
                    self.seen.note(Sight::PlansRefused);
                }
                let again = !matches!(reply, Err(Refusal::NoSuchService { .. }));
                self.settled(at, term, Waiter::Plan { service: service.clone(), seal });
                if let (true, Some(lead)) = (again, self.lead(at, term)) {
                    lead.dirty.insert(service);
                }
            }
            waiter @ (Waiter::Debt { .. } | Waiter::Returned(..) | Waiter::Upkeep) => self.settled(at, term, waiter),
            Waiter::Due(service) => {
                if let Some(lead) = self.lead(at, term) {
                    lead.due_busy.remove(&service);
                    lead.dirty.insert(service);
                }
            }
            Waiter::Judge => {
                if let Some(lead) = self.lead(at, term) {
                    lead.judging = false;
                }
            }
            Waiter::Nobody => {}
        }
    }

    /// A proposal is decided, or was not made: what was closed for it is opened, and another may be made.
    fn settled(&mut self, at: usize, term: u64, waiter: Waiter) {
        let seal = match waiter {
            Waiter::Plan { service, seal } => {
                if let Some(lead) = self.lead(at, term) {
                    lead.busy.remove(&service);
                    if seal.is_none() {
                        lead.wake.entry(service).or_default();
                    }
                }
                seal
            }
            Waiter::Debt { service, seal } => {
                if let Some(lead) = self.lead(at, term) {
                    lead.debts_busy.remove(&service);
                }
                seal
            }
            Waiter::Returned(service, instance) => {
                if let Some(lead) = self.lead(at, term) {
                    lead.returns_busy.remove(&(service, instance));
                }
                None
            }
            Waiter::Upkeep => {
                if let Some(lead) = self.lead(at, term) {
                    lead.upkeep_busy -= 1;
                }
                None
            }
            Waiter::Client { .. } | Waiter::Due(_) | Waiter::Judge | Waiter::Nobody => None,
        };
        if let Some(seal) = seal {
            self.nodes[at].leases.unseal(seal);
        }
    }
}
