//! The fencing hook's attempts, as the log tells them. Each is in the log before it begins, so that nothing is run twice
//! without being said: a leader that finds an attempt without an outcome begins another, and the record says that it resumes.

use super::verdicts::moved_on;
use super::{Draft, Entry};
use crate::command::{Done, HookEnd, HookStart, Refusal, Reply};
use crate::event::EventKind;
use crate::id::{InstanceId, Token};
use crate::policy::ProofKind;
use crate::rules::{Grounds, NoProof, hook_over, is_against, proof_that_holds, runs_against, under_way_until};
use crate::state::Fenced;
use crate::transition::{HookAttempt, Transition, TransitionStatus};

impl Entry<'_> {
    pub(super) fn hook_start(&mut self, start: &HookStart) -> Reply {
        let service = self.service(&start.service)?;
        let open = self.state.transitions.get(&start.transition).cloned();
        let open = open.filter(|open| {
            let next = open.hook.len() as u64 + 1 == u64::from(start.attempt);
            service.assignment.transition == Some(open.id) && service.assignment.active.is_none() && next
        });
        let Some(open) = open.filter(|_| start.term == self.term) else {
            return Err(moved_on(format!("{} of \"{}\"", start.transition, start.service)));
        };
        let (Some(holder), Some(hook)) = (&service.assignment.last_holder, &service.spec.fencing.hook) else {
            return Err(moved_on(format!("whom to cut off for {}", start.transition)));
        };
        if open.actor.is_none() {
            // Nobody is cut off for a move that Baton may not make by itself, as things are now.
            if !service.moves_by_itself() {
                return Err(moved_on(format!("whether \"{}\" moves by itself", start.service)));
            }
            self.check_rails(&service, open.kind, open.has_moved())?;
        }
        // Nor where a proof has come meanwhile, or the policy does not accept the hook's any more.
        let over = hook_over(&service, &open);
        let grounds = Grounds { asserted: open.asserted, hook_over: over.as_deref(), ..Grounds::default() };
        match proof_that_holds(&service, &grounds) {
            Err(NoProof::Pending { hook: true, .. }) => {}
            Ok(proof) => {
                let why = format!("what holds now is \"{}\": {}", proof.proof, proof.evidence);
                return Err(Refusal::ProofRefused { proof: ProofKind::Hook, why });
            }
            Err(no) => return Err(Refusal::ProofRefused { proof: ProofKind::Hook, why: no.told() }),
        }
        let before = runs_against(&open, holder).next_back();
        if before.is_some_and(|run| under_way_until(run, hook.timeout, self.term, self.now).is_some()) {
            return Err(moved_on(format!("the fencing hook of {}", start.transition)));
        }
        let lost = before.filter(|before| before.outcome.is_none()).map(|before| (before.number, before.node));
        let whom = whom(&holder.instance, holder.token);
        let told = match lost {
            None => {
                format!(
                    "attempt {} of the fencing hook begins on node {}, to cut off {whom}",
                    start.attempt, start.node
                )
            }
            Some((number, node)) => format!(
                "attempt {} of the fencing hook begins on node {}, to cut off {whom}: attempt {number} on node {node} has \
                 no outcome and may have been carried out",
                start.attempt, start.node
            ),
        };
        let mut more = Transition::clone(&open);
        more.hook.push(HookAttempt {
            number: start.attempt,
            instance: holder.instance.clone(),
            token: holder.token,
            node: start.node,
            term: start.term,
            started_at: self.wall,
            at: self.now,
            resumes: lost.is_some(),
            outcome: None,
        });
        more.steps.push(self.step("hook_started", told.clone()));
        self.store_transition(more);
        self.emit(
            Draft::new(EventKind::TransitionStep, told)
                .service(&start.service)
                .node(start.node)
                .transition(open.id)
                .cause(Some(open.id.0)),
        );
        Ok(Done::Ok)
    }

    pub(super) fn hook_end(&mut self, end: &HookEnd) -> Reply {
        // Asked first: nothing may have changed where the answer is a refusal.
        let service = self.service(&end.service)?;
        let Some(open) = self.state.transitions.get(&end.transition).cloned() else {
            return Err(moved_on(end.transition.to_string()));
        };
        let runs = |it: &&HookAttempt| it.number == end.attempt && it.outcome.is_none();
        let Some(run) = open.hook.iter().find(runs).filter(|_| open.service == end.service).cloned() else {
            return Err(moved_on(format!("attempt {} of the fencing hook of {}", end.attempt, end.transition)));
        };
        let whom = whom(&run.instance, run.token);
        let word = if end.outcome.ok { format!("confirmed that {whom} is cut off") } else { "failed".to_owned() };
        let told = format!("attempt {} of the fencing hook {word}: {}", end.attempt, end.outcome.detail);
        let mut more = Transition::clone(&open);
        if let Some(run) = more.hook.iter_mut().find(|it| it.number == end.attempt) {
            run.outcome = Some(end.outcome.clone());
        }
        more.steps.push(self.step("hook_ended", told.clone()));
        self.store_transition(more);
        let waits = service.assignment.transition == Some(open.id)
            && service.assignment.active.is_none()
            && open.status == TransitionStatus::Running;
        if end.outcome.ok
            && waits
            && let Some(holder) = &mut self.service_mut(&end.service)?.assignment.last_holder
            // Whom it cut off is in the record. Somebody else may have been promoted since, who did not acknowledge.
            && is_against(&run, holder)
        {
            holder.fenced = Some(Fenced { transition: open.id, attempt: end.attempt, evidence: told.clone() });
        }
        self.emit(
            Draft::new(EventKind::TransitionStep, told)
                .service(&end.service)
                .node(run.node)
                .transition(open.id)
                .cause(Some(open.id.0)),
        );
        Ok(Done::Ok)
    }
}

fn whom(instance: &InstanceId, token: Option<Token>) -> String {
    match token {
        Some(token) => format!("\"{instance}\" with token {token}"),
        None => format!("\"{instance}\""),
    }
}
