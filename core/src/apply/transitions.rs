//! Transitions: opened, promoted, given up. Who is active changes here and nowhere else, by compare-and-set: each
//! command names what its proposer saw, and is refused when that has moved on.

use std::sync::Arc;

use super::verdicts::moved_on;
use super::{Draft, Entry};
use crate::command::{Done, Promote, Refusal, Reply, Target, TransitionAbort, TransitionStart, TransitionTake};
use crate::event::EventKind;
use crate::id::{Revision, ServiceName, Token, TransitionId};
use crate::lease::LeaseTerms;
use crate::mutant::{Mutant, planted};
use crate::policy::{FailbackMode, Liveness, Mode, ProofKind};
use crate::probe::Health;
use crate::rules::{
    Asker, Grounds, NoProof, SAID_TO_HAVE_STOPPED, Seek, held_last, open_told, preferred_over, proof_that_holds,
    rails_of, why_not, word_is_about,
};
use crate::state::{Active, Change, Holder, Instance, Phase, STEPS_MAX, Service, TRANSITIONS_MAX};
use crate::time::Millis;
use crate::transition::{
    Durations, JudgedEvidence, ObserverEvidence, ProofRecord, Step, Transition, TransitionKind, TransitionStatus,
};

impl Entry<'_> {
    pub(super) fn transition_start(&mut self, start: &TransitionStart) -> Reply {
        let service = self.service(&start.service)?;
        if service.spec.mode == Mode::ActiveActive {
            return Err(Refusal::NotActivePassive { service: start.service.clone() });
        }
        if let Some(transition) = service.assignment.transition {
            let open = self.state.transitions.get(&transition);
            let why = open.map_or_else(String::new, |open| open_told(open, service.assignment.phase));
            return Err(Refusal::TransitionInProgress { service: start.service.clone(), transition, why });
        }
        if service.active_token() != start.seen_token && !planted(Mutant::PromotionWithoutCompare) {
            return Err(moved_on(format!("the active of \"{}\"", start.service)));
        }
        if start.asserted.is_some() {
            check_holder_seen(&service, start.seen_holder)?;
        }
        let active = service.assignment.active.clone();
        let leaving = active.as_ref().and_then(|active| service.instances.get(&active.instance));
        self.check_cause(&service, leaving, start)?;
        if let Some(to) = &start.to {
            let target = target(&service, to)?;
            if service.is_active(&to.instance) {
                return Err(Refusal::AlreadyActive { service: service.name.clone(), instance: to.instance.clone() });
            }
            let asker = if start.actor.is_some() { Asker::Operator } else { Asker::Baton };
            self.check_eligible(&service, target, to, asker)?;
        }
        if start.actor.is_none() {
            self.check_rails(&service, start.kind, false)?;
        }
        let grounds =
            Grounds { asserted: start.asserted, claim: start.lease.as_ref(), term: self.term, ..Grounds::default() };
        let proof = proof_that_holds(&service, &grounds);
        let planned = match start.kind {
            TransitionKind::Switchover | TransitionKind::Failback => true,
            TransitionKind::Placement | TransitionKind::Failover => start.actor.is_some(),
        };
        if planned && let Err(no @ NoProof::Never { .. }) = &proof {
            // No wish takes a service's active away unless the move can be completed.
            let proof = start.asserted.unwrap_or_else(|| service.spec.fencing.proof.first());
            return Err(Refusal::ProofRefused { proof, why: no.told() });
        }

        let id = self.open(start, &service, leaving);
        match (&start.to, proof) {
            (Some(to), Ok(proof)) if self.token_is_free() => {
                self.complete(&service, id, to, proof)?;
            }
            (_, proof) => self.withdraw(&service, id, proof.err().map(|no| no.told())),
        }
        Ok(Done::Started { transition: id })
    }

    fn check_eligible(&self, service: &Service, instance: &Instance, to: &Target, asker: Asker) -> Result<(), Refusal> {
        let seek = Seek { service, leaving: None, now: self.now, asker };
        match why_not(&seek, instance, to.lag) {
            Some(why) => Err(Refusal::NotEligible { instance: to.instance.clone(), why }),
            None => Ok(()),
        }
    }

    /// What Baton does by itself must pass the rails as they are now.
    pub(super) fn check_rails(&self, service: &Service, kind: TransitionKind, counted: bool) -> Result<(), Refusal> {
        let rails = rails_of(self.state, service, kind, counted, self.now);
        match rails.into_iter().find(|rail| !rail.pass) {
            Some(rail) => Err(Refusal::AutomationHeld { service: service.name.clone(), why: rail.told() }),
            None => Ok(()),
        }
    }

    /// An automatic move must be caused by something committed that still holds. An operator's move needs the operator.
    fn check_cause(
        &self,
        service: &Service,
        leaving: Option<&Arc<Instance>>,
        start: &TransitionStart,
    ) -> Result<(), Refusal> {
        if let Some(proof) = start.asserted
            && (proof != ProofKind::Operator || start.actor.is_none())
        {
            let why = "only \"operator\" can be asserted, and only by a named operator".to_owned();
            return Err(Refusal::ProofRefused { proof, why });
        }
        let cause = start.trigger.cause;
        if cause.is_some_and(|cause| !(1..=self.state.meta.revision).contains(&cause)) {
            return Err(moved_on(format!("the cause for a {} of \"{}\"", start.kind, service.name)));
        }
        if start.actor.is_some() {
            return Ok(());
        }
        let target = start.to.as_ref().and_then(|to| service.instances.get(&to.instance));
        let holds = match start.kind {
            TransitionKind::Placement => {
                start.seen_token.is_none() && target.is_some_and(|target| cause == Some(target.health_revision))
            }
            TransitionKind::Failover => {
                leaving.is_some_and(|active| out(active.health) && cause == Some(active.health_revision))
            }
            TransitionKind::Failback => {
                // The second look: whoever is gone back to must have been well all the time, and be so now.
                let preferred = |target: &Arc<Instance>| {
                    leaving
                        .is_some_and(|active| preferred_over(service, &active.id).iter().any(|it| it.id == target.id))
                };
                let stable =
                    |target: &Arc<Instance>| self.now.since(target.health_since) >= service.spec.failback.stable_for;
                service.spec.failback.mode == FailbackMode::Automatic
                    && leaving.is_some_and(|active| active.health == Health::Healthy)
                    && target.is_some_and(|target| {
                        cause == Some(target.health_revision) && preferred(target) && stable(target)
                    })
            }
            TransitionKind::Switchover => false,
        };
        let holds = holds && service.moves_by_itself();
        if holds { Ok(()) } else { Err(moved_on(format!("the cause for a {} of \"{}\"", start.kind, service.name))) }
    }

    /// Writes the record of a new transition and tells of it.
    pub(super) fn open(
        &mut self,
        start: &TransitionStart,
        service: &Service,
        leaving: Option<&Arc<Instance>>,
    ) -> TransitionId {
        let id = TransitionId(self.next_revision());
        let evidence = leaving.map_or_else(Vec::new, |active| {
            active
                .verdicts
                .iter()
                .map(|(observer, record)| ObserverEvidence {
                    observer: *observer,
                    verdict: record.verdict,
                    evidence: record.evidence.clone(),
                })
                .collect()
        });
        let judged = leaving.map_or_else(Vec::new, |active| {
            active
                .judged
                .iter()
                .map(|(source, record)| JudgedEvidence {
                    source: *source,
                    verdict: record.verdict,
                    evidence: record.evidence.clone(),
                })
                .collect()
        });
        let (first_failure, suspect, agreed) = match (start.kind, &start.actor, leaving) {
            (TransitionKind::Failover, None, Some(active)) if out(active.health) => {
                (active.first_failure, active.suspect_since, active.health_since)
            }
            (
                TransitionKind::Placement
                | TransitionKind::Failover
                | TransitionKind::Switchover
                | TransitionKind::Failback,
                ..,
            ) => (None, None, self.now),
        };
        let durations = Durations {
            first_failure_to_suspect_ms: first_failure.zip(suspect).map(|(first, suspect)| suspect.since(first).0),
            suspect_to_agreed_ms: suspect.map(|suspect| agreed.since(suspect).0),
            ..Durations::default()
        };
        let transition = Transition {
            id,
            service: service.name.clone(),
            kind: start.kind,
            status: TransitionStatus::Running,
            from: service.assignment.active.as_ref().map(|active| active.instance.clone()),
            from_token: service.active_token(),
            to: start.to.as_ref().map(|to| to.instance.clone()),
            token: None,
            trigger: start.trigger.clone(),
            evidence,
            judged,
            asserted: start.asserted,
            asserted_because: start
                .asserted
                .and(start.actor.as_ref().map(|actor| format!("{actor}: {}", start.trigger.reason))),
            proof: None,
            steps: vec![self.step("started", start.trigger.reason.clone())],
            actor: start.actor.clone(),
            durations,
            started_at: self.wall,
            finished_at: None,
            first_failure,
            agreed,
            promoted: None,
            tried: Vec::new(),
            hook: Vec::new(),
            hook_forgiven: 0,
        };
        let (from, to) = (transition.from.clone(), transition.to.clone());
        self.store_transition(transition);
        self.forget_old_transitions();
        self.emit(
            Draft::new(EventKind::TransitionStarted, format!("{}: {}", start.kind, start.trigger.reason))
                .service(&service.name)
                .change(from, to)
                .transition(id)
                .actor(start.actor.as_deref())
                .cause(start.trigger.cause),
        );
        id
    }

    /// The transition cannot be completed at once: the service has no active until it can.
    pub(super) fn withdraw(&mut self, service: &Service, id: TransitionId, no_proof: Option<String>) {
        let Some(transition) = self.state.transitions.get(&id).cloned() else { return };
        let phase = match transition.kind {
            TransitionKind::Placement | TransitionKind::Failover => Phase::FailingOver,
            TransitionKind::Switchover | TransitionKind::Failback => Phase::Switching,
        };
        if let Ok(service) = self.service_mut(&service.name) {
            service.assignment.active = None;
            service.assignment.transition = Some(id);
            service.assignment.phase = phase;
        }
        let why = no_proof.unwrap_or_else(|| "no instance may be promoted yet".to_owned());
        let mut waiting = Transition::clone(&transition);
        waiting.steps.push(self.step("waiting", why.clone()));
        self.store_transition(waiting);
        if let Some(active) = &service.assignment.active {
            self.emit(
                Draft::new(EventKind::ActiveChanged, format!("{}: {why}", transition.trigger.reason))
                    .service(&service.name)
                    .instance(&active.instance)
                    .change(Some(&active.instance), None::<&str>)
                    .transition(id)
                    .actor(transition.actor.as_deref())
                    .cause(Some(id.0)),
            );
        }
        self.emit(
            Draft::new(EventKind::TransitionStep, format!("waiting: {why}"))
                .service(&service.name)
                .transition(id)
                .cause(Some(id.0)),
        );
    }

    pub(super) fn promote(&mut self, promote: &Promote) -> Reply {
        let service = self.service(&promote.service)?;
        let open = match service.assignment.transition {
            Some(id) if id == promote.transition => self.state.transitions.get(&id).cloned(),
            Some(_) | None => None,
        };
        let open = open.filter(|_| service.assignment.active.is_none());
        let Some(open) = open else {
            return Err(moved_on(format!("{} of \"{}\"", promote.transition, promote.service)));
        };
        let holder = service.assignment.last_holder.as_ref();
        let seen = promote.seen_token == holder.and_then(|holder| holder.token);
        if !seen && !planted(Mutant::PromotionWithoutCompare) {
            return Err(moved_on(format!("the last holder of \"{}\"", promote.service)));
        }
        let asked = open.actor.is_some();
        // To go on with whoever had it is no move: neither a wish nor the rails are asked about it, but for a pause.
        let same = holder.is_some_and(|holder| holder.instance == promote.to.instance);
        if !asked && !same && !service.moves_by_itself() {
            return Err(moved_on(format!("whether \"{}\" moves by itself", promote.service)));
        }
        let target = target(&service, &promote.to)?;
        // Who asked for the move named this instance, or left the choice to Baton and its rules.
        let named = open.actor.is_some() && open.to.as_ref() == Some(&promote.to.instance);
        let asker = if named { Asker::Operator } else { Asker::Baton };
        self.check_eligible(&service, target, &promote.to, asker)?;
        if !asked {
            let kind = if same { TransitionKind::Placement } else { open.kind };
            self.check_rails(&service, kind, open.has_moved())?;
        }
        let grounds =
            Grounds { asserted: open.asserted, claim: promote.lease.as_ref(), term: self.term, ..Grounds::default() };
        let proof = match proof_that_holds(&service, &grounds) {
            Ok(proof) if proof.proof == promote.proof => proof,
            Ok(other) => {
                let why = format!("what holds now is \"{}\": {}", other.proof, other.evidence);
                return Err(Refusal::ProofRefused { proof: promote.proof, why });
            }
            Err(no) => return Err(Refusal::ProofRefused { proof: promote.proof, why: no.told() }),
        };
        if !self.token_is_free() {
            return Err(moved_on("the token of this log entry: one promotion an entry"));
        }
        let token = self.complete(&service, promote.transition, &promote.to, proof)?;
        Ok(Done::Promoted { token })
    }

    pub(super) fn transition_take(&mut self, take: &TransitionTake) -> Reply {
        let TransitionTake { service: name, transition: id, seen_holder: _, to, asserted, reason, actor } = take;
        let service = self.service(name)?;
        let open = self.state.transitions.get(id).cloned();
        let waits = service.assignment.transition == Some(*id) && service.assignment.active.is_none();
        let Some(open) = open.filter(|_| waits) else { return Err(moved_on(format!("{id} of \"{name}\""))) };
        if let Some(proof) = asserted.filter(|proof| *proof != ProofKind::Operator) {
            let why = "only \"operator\" can be asserted".to_owned();
            return Err(Refusal::ProofRefused { proof, why });
        }
        if asserted.is_some() {
            check_holder_seen(&service, take.seen_holder)?;
        }
        self.check_eligible(&service, target(&service, to)?, to, Asker::Operator)?;
        if asserted.is_some() && word_is_about(&service, &to.instance) {
            return Err(Refusal::NotEligible { instance: to.instance.clone(), why: SAID_TO_HAVE_STOPPED.to_owned() });
        }
        // What was said before counts on, unless the one whom it was said of is asked for: then it is taken back.
        let asserted = asserted.or(open.asserted.filter(|_| !held_last(&service, &to.instance)));
        let grounds = Grounds { asserted, claim: None, term: self.term, ..Grounds::default() };
        let proof = proof_that_holds(&service, &grounds);
        if let Err(no @ NoProof::Never { .. }) = &proof {
            return Err(Refusal::ProofRefused { proof: ProofKind::Operator, why: no.told() });
        }
        let mut taken = Transition::clone(&open);
        taken.actor = Some(actor.clone());
        taken.to = Some(to.instance.clone());
        taken.tried.retain(|tried| *tried != to.instance);
        taken.asserted = asserted;
        // Whoever asks has perhaps mended what the hook failed by: its attempts are counted anew.
        taken.hook_forgiven = u32::try_from(open.hook.len()).unwrap_or(u32::MAX);
        if take.asserted.is_some() {
            taken.asserted_because = Some(format!("{actor}: {reason}"));
        } else if asserted.is_none() {
            taken.asserted_because = None;
        }
        let told = format!("{actor} wants \"{}\": {reason}", to.instance);
        taken.steps.push(self.step("taken_over", told.clone()));
        self.store_transition(taken);
        self.emit(
            Draft::new(EventKind::TransitionStep, told)
                .service(name)
                .instance(&to.instance)
                .transition(*id)
                .actor(Some(actor))
                .cause(Some(id.0)),
        );
        match proof {
            Ok(proof) if self.token_is_free() => {
                let token = self.complete(&service, *id, to, proof)?;
                Ok(Done::Promoted { token })
            }
            Ok(_) | Err(_) => Ok(Done::Started { transition: *id }),
        }
    }

    /// Whether this entry has minted no token yet. The token is made of the entry's index, so it has one to give.
    fn token_is_free(&self) -> bool {
        self.state.meta.token_floor + self.index > self.state.meta.last_token.0
    }

    /// The promotion itself: mints the token, makes the instance active, and ends the transition unless an acknowledgement
    /// is waited for.
    fn complete(
        &mut self,
        before: &Service,
        id: TransitionId,
        to: &Target,
        mut proof: ProofRecord,
    ) -> Result<Token, Refusal> {
        let Some(open) = self.state.transitions.get(&id).cloned() else { return Err(moved_on(id.to_string())) };
        let chosen = target(before, to)?;
        let liveness = chosen.registration.liveness;
        let session = chosen.session.clone();
        if chosen.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some()) {
            // Whoever is trusted with the service is not held back any longer, or it would be replaced at once.
            self.take_back(&before.name, &to.instance, id.0);
        }
        let token = Token(self.state.meta.token_floor + self.index);
        self.state.meta.last_token = token;
        let (now, wall) = (self.now, self.wall);
        if open.asserted == Some(ProofKind::Operator) && proof.proof == ProofKind::Operator {
            let because = open.asserted_because.as_deref().unwrap_or(&open.trigger.reason);
            proof.evidence = format!("a named operator asserts that the old active has stopped: {because}");
        }
        let require_ack = before.spec.failover.require_ack;
        let same = before.assignment.last_holder.as_ref().is_some_and(|held| held.instance == to.instance);
        let counts = match open.kind {
            TransitionKind::Placement => false,
            TransitionKind::Failover | TransitionKind::Switchover | TransitionKind::Failback => {
                open.actor.is_none() && !open.has_moved() && !same
            }
        };

        let service = self.service_mut(&before.name)?;
        service.assignment.phase = if require_ack { Phase::Promoting } else { Phase::Active };
        service.assignment.transition = require_ack.then_some(id);
        service.assignment.active = Some(Active {
            instance: to.instance.clone(),
            token,
            since: wall,
            at: now,
            fencing: proof.fencing,
            transition: id,
        });
        service.assignment.last_holder = Some(Holder {
            instance: to.instance.clone(),
            token: Some(token),
            liveness,
            session,
            lease: match liveness {
                Liveness::Heartbeat => Some(LeaseTerms::of(&before.spec)),
                Liveness::Probe => None,
            },
            released: None,
            fenced: None,
            others: false,
        });
        if counts {
            service.rails.moved(now);
        }
        // What was owed beside the last holder, by whoever had a lease before all of them served: the proof is about all.
        if self.state.debts.remove(&before.name).is_some() {
            self.changes.insert(Change::Debt(before.name.clone()));
        }

        let agreed_to_proof = now.since(open.agreed).0;
        let mut done = Transition::clone(&open);
        done.steps.push(self.step("proof", format!("{} ({}): {}", proof.proof, proof.fencing, proof.evidence)));
        done.steps.push(self.step("promoted", format!("\"{}\" with token {token}", to.instance)));
        done.to = Some(to.instance.clone());
        done.token = Some(token);
        done.promoted = Some(now);
        done.durations.agreed_to_proof_ms = Some(agreed_to_proof);
        done.durations.proof_to_promoted_ms = Some(0);
        done.proof = Some(proof.clone());
        self.store_transition(done);

        // Readers saw the old active until now, or none since the transition was withdrawn.
        let from = before.assignment.active.as_ref().map(|active| active.instance.clone());
        let actor = open.actor.as_deref();
        self.emit(
            Draft::new(
                EventKind::TransitionStep,
                format!("proof {} ({}): {}", proof.proof, proof.fencing, proof.evidence),
            )
            .service(&before.name)
            .transition(id)
            .actor(actor)
            .cause(Some(id.0)),
        );
        self.emit(
            Draft::new(EventKind::ActiveChanged, format!("{}: {}", open.kind, open.trigger.reason))
                .service(&before.name)
                .instance(&to.instance)
                .change(from, Some(&to.instance))
                .token(Some(token))
                .transition(id)
                .actor(actor)
                .cause(Some(id.0)),
        );
        if require_ack {
            let patience = before.spec.failover.activation_timeout;
            let why = format!("\"{}\" is promoted and has {patience} to acknowledge that it serves", to.instance);
            self.emit(
                Draft::new(EventKind::TransitionStep, why)
                    .service(&before.name)
                    .instance(&to.instance)
                    .token(Some(token))
                    .transition(id)
                    .cause(Some(id.0)),
            );
        } else {
            self.finish(&before.name, id);
        }
        Ok(token)
    }

    /// The record's end.
    pub(super) fn finish(&mut self, name: &ServiceName, id: TransitionId) {
        let Some(open) = self.state.transitions.get(&id).cloned() else { return };
        let (now, wall) = (self.now, self.wall);
        let mut done = Transition::clone(&open);
        let total = now.since(open.first_failure.unwrap_or(open.agreed)).0;
        done.status = TransitionStatus::Finished;
        done.finished_at = Some(wall);
        done.durations.total_ms = Some(total);
        let (to, token, actor) = (done.to.clone(), done.token, done.actor.clone());
        self.store_transition(done);
        let told = to.as_ref().map_or("nobody", |to| to.as_str());
        let draft = Draft::new(
            EventKind::TransitionFinished,
            format!("{} to \"{told}\" done in {}", open.kind, Millis(total).told()),
        );
        let draft = draft.service(name).token(token).transition(id).actor(actor.as_deref()).cause(Some(id.0));
        self.emit(match &to {
            Some(to) => draft.instance(to),
            None => draft,
        });
    }

    pub(super) fn transition_abort(&mut self, abort: &TransitionAbort) -> Reply {
        let service = self.service(&abort.service)?;
        if service.assignment.transition != Some(abort.transition) {
            return Err(moved_on(format!("{} of \"{}\"", abort.transition, abort.service)));
        }
        self.vacate(&abort.service, &abort.reason, None, None)?;
        Ok(Done::Ok)
    }

    /// Ends whatever is going on about a service: its open transition is given up, its active is none. Who held it
    /// last is remembered, because a proof about that one may still be owed.
    pub(super) fn vacate(
        &mut self,
        name: &ServiceName,
        reason: &str,
        actor: Option<&str>,
        cause: Option<Revision>,
    ) -> Result<(), Refusal> {
        let before = self.service(name)?;
        if before.assignment.transition.is_none() && before.assignment.active.is_none() {
            return Ok(());
        }
        let service = self.service_mut(name)?;
        service.assignment.phase = Phase::Vacant;
        service.assignment.active = None;
        service.assignment.transition = None;
        if let Some(open) = self.state.open_transition(&before).cloned() {
            let mut aborted = Transition::clone(&open);
            aborted.status = TransitionStatus::Aborted;
            aborted.finished_at = Some(self.wall);
            aborted.steps.push(self.step("aborted", reason.to_owned()));
            self.store_transition(aborted);
            self.emit(
                Draft::new(EventKind::TransitionAborted, format!("{} given up: {reason}", open.kind))
                    .service(name)
                    .transition(open.id)
                    .actor(actor)
                    .cause(cause.or(Some(open.id.0))),
            );
        }
        if let Some(active) = &before.assignment.active {
            self.emit(
                Draft::new(EventKind::ActiveChanged, reason.to_owned())
                    .service(name)
                    .instance(&active.instance)
                    .change(Some(&active.instance), None::<&str>)
                    .actor(actor)
                    .cause(cause),
            );
        }
        Ok(())
    }

    pub(super) fn step(&self, step: &str, detail: String) -> Step {
        Step { step: step.to_owned(), time: self.wall, at: self.now, detail }
    }

    pub(super) fn store_transition(&mut self, mut transition: Transition) {
        // A move that goes round and round keeps how it began and how it stands.
        let surplus = transition.steps.len().saturating_sub(STEPS_MAX);
        if surplus > 0 {
            transition.steps.drain(STEPS_MAX / 2..STEPS_MAX / 2 + surplus);
        }
        self.changes.insert(Change::Transition(transition.id));
        self.state.transitions.insert(transition.id, Arc::new(transition));
    }

    /// Keeps the newest records. A running one is never forgotten: there is at most one a service.
    fn forget_old_transitions(&mut self) {
        while self.state.transitions.len() > TRANSITIONS_MAX {
            let oldest = self
                .state
                .transitions
                .values()
                .find(|transition| transition.status != TransitionStatus::Running)
                .map(|transition| transition.id);
            let Some(id) = oldest else { return };
            self.state.transitions.remove(&id);
            self.changes.insert(Change::Transition(id));
        }
    }
}

/// What an operator asserts is about whoever held it when they looked. Somebody else may have been promoted since, within the
/// same move, and be gone again.
fn check_holder_seen(service: &Service, seen: Option<Token>) -> Result<(), Refusal> {
    let held = service.assignment.last_holder.as_ref().and_then(|holder| holder.token);
    if held == seen { Ok(()) } else { Err(moved_on(format!("the last holder of \"{}\"", service.name))) }
}

/// Whether an active of this health must be replaced.
pub(super) fn out(health: Health) -> bool {
    match health {
        Health::Unhealthy | Health::Isolated => true,
        Health::Unknown | Health::Healthy | Health::Suspect => false,
    }
}

/// The instance that the proposer saw, if it is still that one.
fn target<'a>(service: &'a Service, to: &Target) -> Result<&'a Arc<Instance>, Refusal> {
    let Some(instance) = service.instances.get(&to.instance) else {
        return Err(Refusal::NoSuchInstance { service: service.name.clone(), instance: to.instance.clone() });
    };
    if instance.epoch == to.epoch {
        Ok(instance)
    } else {
        Err(moved_on(format!("the registration of \"{}\"", to.instance)))
    }
}
