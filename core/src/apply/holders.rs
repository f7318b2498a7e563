//! What holders say of their tenures, and how a tenure ends other than by a promotion: releases, acknowledgements,
//! activations in vain, other sessions. What a tenure owes outlives it, in `Assignment::last_holder` or in `State::debts`.

use super::transitions::out;
use super::verdicts::moved_on;
use super::{Draft, Entry};
use crate::command::{
    Ack, ActivationExpire, Done, InstanceLeft, InstanceReturned, Refusal, Release, Reply, TransitionStart,
};
use crate::event::EventKind;
use crate::id::{InstanceId, Revision, ServiceName};
use crate::mutant::{Mutant, planted};
use crate::policy::ProofKind;
use crate::state::{Holder, Phase, ReleaseHow, Released, Service};
use crate::transition::{Transition, TransitionKind, Trigger};

impl Entry<'_> {
    pub(super) fn release(&mut self, release: &Release) -> Reply {
        let Release { service: name, instance, session, token, leaving, how, reason } = release;
        let released = Released { how: *how, reason: reason.clone(), time: self.wall, at: self.now };
        if self.release_of_debt(release) {
            return Ok(Done::Ok);
        }
        let service = self.service(name)?;
        let holder = service.assignment.last_holder.as_ref();
        let holder = self.holder_named(&service, holder, release)?;
        check_how(holder, *how)?;
        match (&holder.released, how) {
            (None, _) => {}
            // It says itself what was only guessed of it: that is worth more, and nothing else follows from it.
            (Some(Released { how: ReleaseHow::Disconnected, .. }), ReleaseHow::Said) => {}
            // Said twice is said once; but one that has stopped before may leave now.
            (Some(_), _) => {
                if *leaving {
                    self.leave(&service, instance, session.as_deref(), reason);
                }
                return Ok(Done::Ok);
            }
        }
        let told = match how {
            ReleaseHow::Said => format!("\"{instance}\" released token {token}: {reason}"),
            ReleaseHow::Disconnected => {
                format!("the role stream of \"{instance}\" was closed, which releases token {token}: {reason}")
            }
        };
        if let Ok(service) = self.service_mut(name)
            && let Some(holder) = &mut service.assignment.last_holder
        {
            holder.released = Some(released);
        }
        let in_session = session.is_some() && service.instances.get(instance).is_some_and(|it| it.session == *session);
        if *leaving
            && in_session
            && let Some(instance) = self.instance_mut(name, instance)
        {
            instance.left = true;
        }
        let held = service.assignment.active.as_ref().is_some_and(|active| active.token == *token);
        match service.assignment.transition {
            // Promoted, and gone before or after it acknowledged: the service has nobody from here on.
            None | Some(_) if held => {
                let cause = self.emit(
                    Draft::new(EventKind::InstanceUpdated, told.clone())
                        .service(name)
                        .instance(instance)
                        .token(Some(*token)),
                );
                self.lose_holder(&service, &told, cause)?;
            }
            Some(id) => {
                self.add_step(id, "released", told.clone());
                self.emit(
                    Draft::new(EventKind::TransitionStep, told)
                        .service(name)
                        .instance(instance)
                        .token(Some(*token))
                        .transition(id)
                        .cause(Some(id.0)),
                );
            }
            // A vacant service whose debt is paid: the planner sees that.
            None => {
                self.emit(
                    Draft::new(EventKind::InstanceUpdated, told).service(name).instance(instance).token(Some(*token)),
                );
            }
        }
        Ok(Done::Ok)
    }

    /// The holder that the release speaks of. Session *and* token must be its own.
    fn holder_named<'a>(
        &self,
        service: &Service,
        holder: Option<&'a Holder>,
        release: &Release,
    ) -> Result<&'a Holder, Refusal> {
        let Release { service: name, instance, session, token, .. } = release;
        let not_holder =
            |why: String| Refusal::NotHolder { service: name.clone(), instance: instance.clone(), token: *token, why };
        let Some(holder) = holder else { return Err(not_holder("nobody has held it".to_owned())) };
        let known = service.instances.get(instance);
        // A session that is the instance's present one need not register anew: it holds nothing, and that is all.
        if holder.session != *session && known.is_none_or(|it| it.session != *session) {
            let what = "held the token".to_owned();
            return Err(match known {
                Some(_) => Refusal::UnknownSession { instance: instance.clone(), what },
                None => Refusal::NoSuchInstance { service: name.clone(), instance: instance.clone() },
            });
        }
        let tokens = holder.token == Some(*token) || planted(Mutant::ReleaseWithoutToken);
        if holder.session != *session || holder.instance != *instance || !tokens {
            let token = holder.token.map_or_else(|| "no token".to_owned(), |token| format!("token {token}"));
            return Err(not_holder(format!("the last holder is \"{}\" with {token}", holder.instance)));
        }
        Ok(holder)
    }

    /// The holder has lost its service without a move of anybody: the service has no active from here on, and a failover
    /// is open. `cause`: the event that led to it.
    pub(super) fn lose_holder(&mut self, service: &Service, why: &str, cause: Revision) -> Result<(), Refusal> {
        if let Some(id) = service.assignment.transition {
            self.give_up_activation(service, why);
            self.add_step(id, "waiting", why.to_owned());
            return Ok(());
        }
        let leaving = service.assignment.active.as_ref().and_then(|active| service.instances.get(&active.instance));
        let start = TransitionStart {
            service: service.name.clone(),
            kind: TransitionKind::Failover,
            seen_token: service.active_token(),
            seen_holder: None,
            to: None,
            asserted: None,
            lease: None,
            trigger: Trigger { reason: why.to_owned(), cause: Some(cause) },
            actor: None,
        };
        let service = self.service(&service.name)?;
        let id = self.open(&start, &service, leaving);
        self.withdraw(&service, id, Some("who is next is decided now".to_owned()));
        Ok(())
    }

    /// Whoever was promoted within the open transition is the active no longer; the transition goes on.
    fn give_up_activation(&mut self, service: &Service, why: &str) {
        let (Some(id), Some(active)) = (service.assignment.transition, &service.assignment.active) else { return };
        if let Ok(service) = self.service_mut(&service.name) {
            service.assignment.active = None;
            service.assignment.phase = Phase::FailingOver;
        }
        if let Some(open) = self.state.transitions.get(&id).cloned() {
            let mut tried = Transition::clone(&open);
            tried.tried.retain(|other| *other != active.instance);
            tried.tried.push(active.instance.clone());
            tried.promoted = None;
            // What an operator has asserted is about whoever held it then. Of this one nobody has said anything.
            (tried.asserted, tried.asserted_because) = (None, None);
            tried.steps.push(self.step("activation_failed", why.to_owned()));
            self.store_transition(tried);
        }
        self.emit(
            Draft::new(EventKind::ActiveChanged, why)
                .service(&service.name)
                .instance(&active.instance)
                .change(Some(&active.instance), None::<&str>)
                .transition(id)
                .cause(Some(id.0)),
        );
    }

    pub(super) fn ack(&mut self, ack: &Ack) -> Reply {
        let service = self.service(&ack.service)?;
        let Some(instance) = service.instances.get(&ack.instance) else {
            return Err(Refusal::NoSuchInstance { service: ack.service.clone(), instance: ack.instance.clone() });
        };
        if instance.session != ack.session {
            let what = "is registered".to_owned();
            return Err(Refusal::UnknownSession { instance: ack.instance.clone(), what });
        }
        let active = service.assignment.active.as_ref();
        let Some(active) = active.filter(|it| it.instance == ack.instance && it.token == ack.token) else {
            let why = match active {
                Some(active) => format!("the active is \"{}\" with token {}", active.instance, active.token),
                None => format!("nobody is active, the phase is {}", service.assignment.phase),
            };
            let (service, instance) = (ack.service.clone(), ack.instance.clone());
            return Err(Refusal::NotHolder { service, instance, token: ack.token, why });
        };
        let id = active.transition;
        if service.assignment.phase != Phase::Promoting {
            // Nobody asked for it, or it was said before: it does no harm.
            return Ok(Done::Started { transition: id });
        }
        let now = self.now;
        if let Ok(service) = self.service_mut(&ack.service) {
            service.assignment.phase = Phase::Active;
            service.assignment.transition = None;
        }
        if let Some(open) = self.state.transitions.get(&id).cloned() {
            let mut done = Transition::clone(&open);
            let took = open.promoted.map(|at| now.since(at).0);
            done.durations.promoted_to_acknowledged_ms = took;
            let told = format!("\"{}\" serves under token {}", ack.instance, ack.token);
            done.steps.push(self.step("acknowledged", told));
            self.store_transition(done);
        }
        self.finish(&ack.service, id);
        Ok(Done::Started { transition: id })
    }

    pub(super) fn activation_expire(&mut self, expire: &ActivationExpire) -> Reply {
        let service = self.service(&expire.service)?;
        let open = self.state.transitions.get(&expire.transition).cloned();
        let (Some(active), Some(open)) = (&service.assignment.active, open) else {
            return Err(moved_on(format!("{} of \"{}\"", expire.transition, expire.service)));
        };
        let seen = service.assignment.transition == Some(expire.transition) && active.token == expire.token;
        if !seen || service.assignment.phase != Phase::Promoting {
            return Err(moved_on(format!("{} of \"{}\"", expire.transition, expire.service)));
        }
        let patience = service.spec.failover.activation_timeout;
        let waited = open.promoted.map_or(patience, |at| self.now.since(at));
        let ill = service.instances.get(&active.instance).map(|it| it.health).filter(|health| out(*health));
        let why = match ill {
            Some(health) => format!("\"{}\" is {health} before it acknowledged", active.instance),
            None if waited >= patience => format!("\"{}\" did not acknowledge within {patience}", active.instance),
            None => return Err(moved_on(format!("the patience with \"{}\"", active.instance))),
        };
        if open.actor.is_none() {
            // Where Baton may move nothing, it takes nothing away either.
            self.check_rails(&service, open.kind, true)?;
        }
        self.give_up_activation(&service, &why);
        if planted(Mutant::ActivationTimeoutAsProof)
            && let Ok(service) = self.service_mut(&expire.service)
        {
            service.assignment.last_holder = None;
        }
        self.emit(
            Draft::new(EventKind::TransitionStep, why)
                .service(&expire.service)
                .transition(expire.transition)
                .cause(Some(expire.transition.0)),
        );
        Ok(Done::Ok)
    }

    pub(super) fn instance_left(&mut self, left: &InstanceLeft) -> Reply {
        let InstanceLeft { service: name, instance, session, reason } = left;
        let service = self.service(name)?;
        let Some(known) = service.instances.get(instance) else {
            return Err(Refusal::NoSuchInstance { service: name.clone(), instance: instance.clone() });
        };
        if known.session.as_ref() != Some(session) {
            return Err(Refusal::UnknownSession { instance: instance.clone(), what: "is registered".to_owned() });
        }
        if service.is_active(instance) {
            let why = "name its token to give that back, and to leave".to_owned();
            return Err(Refusal::IsActive { service: name.clone(), instance: instance.clone(), why });
        }
        self.leave(&service, instance, Some(session), reason);
        Ok(Done::Ok)
    }

    /// An instance is no candidate from here on, until its next heartbeat. Another session's word says nothing of it.
    fn leave(&mut self, service: &Service, id: &InstanceId, session: Option<&str>, reason: &str) {
        let here = |session| service.instances.get(id).is_some_and(|it| it.session.as_deref() == session && !it.left);
        if session.is_none() || !here(session) {
            return;
        }
        self.emit(
            Draft::new(EventKind::InstanceUpdated, format!("\"{id}\" leaves: {reason}"))
                .service(&service.name)
                .instance(id),
        );
        if let Some(instance) = self.instance_mut(&service.name, id) {
            instance.left = true;
        }
    }

    pub(super) fn instance_returned(&mut self, returned: &InstanceReturned) -> Reply {
        let InstanceReturned { service, instance, session } = returned;
        let known = self.service(service)?;
        let present = known.instances.get(instance).is_some_and(|it| it.session.as_ref() == Some(session) && it.left);
        if !present {
            return Err(moved_on(format!("whether \"{instance}\" has left")));
        }
        self.emit(
            Draft::new(EventKind::InstanceUpdated, format!("\"{instance}\" had left and heartbeats again"))
                .service(service)
                .instance(instance),
        );
        if let Some(instance) = self.instance_mut(service, instance) {
            instance.left = false;
        }
        Ok(Done::Ok)
    }

    /// Another session has begun, or none is there any more: the one that held the service holds it no longer, and what it
    /// owes stays owed.
    pub(super) fn end_session(&mut self, service: &ServiceName, id: &InstanceId, why: &str, cause: Revision) {
        let Ok(known) = self.service(service) else { return };
        if planted(Mutant::RegistrationInherits) {
            let session = known.instances.get(id).and_then(|instance| instance.session.clone());
            if let Ok(service) = self.service_mut(service)
                && let Some(holder) = &mut service.assignment.last_holder
                && holder.instance == *id
            {
                holder.session = session;
            }
            return;
        }
        if known.is_active(id) {
            // It is registered, and it is the active: there is nothing that could be refused.
            let _ = self.lose_holder(&known, why, cause);
        }
    }

    pub(super) fn add_step(&mut self, id: crate::id::TransitionId, step: &str, detail: String) {
        if let Some(open) = self.state.transitions.get(&id).cloned() {
            let mut more = Transition::clone(&open);
            more.steps.push(self.step(step, detail));
            self.store_transition(more);
        }
    }
}

/// Whether this tenure takes the end of a role stream for a release. Its own terms count, not what the spec says by now.
fn check_how(holder: &Holder, how: ReleaseHow) -> Result<(), Refusal> {
    match how {
        ReleaseHow::Said => Ok(()),
        ReleaseHow::Disconnected if holder.lease.is_some_and(|terms| terms.release_on_disconnect) => Ok(()),
        ReleaseHow::Disconnected => {
            let why = "lease.release_on_disconnect was off when this tenure began: a closed connection is no release";
            Err(Refusal::ProofRefused { proof: ProofKind::Release, why: why.to_owned() })
        }
    }
}
