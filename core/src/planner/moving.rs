//! A move is open and the service has no active: can it be completed, and by whom? Where a proof is missing and the policy
//! accepts the fencing hook, it is run.

use super::{Decision, HeldBack, Planned, Planner, Rails, rank};
use crate::command::{Command, HookStart, Promote, TransitionAbort};
use crate::id::InstanceId;
use crate::lease::LeaseStanding;
use crate::rules::{
    Asker, NoProof, OPERATOR_MAY_SAY, Seek, failed_against, hook_over, not_eligible, runs_against, times,
    under_way_until,
};
use crate::state::{Instance, Phase};
use crate::time::Millis;
use crate::transition::{ProofRecord, Transition, TransitionKind};

/// How long to rest before a hook that failed is run again; grows from try to try.
const HOOK_AGAIN: Millis = Millis(500);
/// The longest such rest.
const HOOK_AGAIN_MAX: Millis = Millis::secs(30);

impl Planner<'_> {
    pub(super) fn moving(&mut self) -> Planned {
        let service = self.service;
        let Some(open) = self.state.open_transition(service).cloned() else {
            return (Decision::Hold, "A move is open whose record is missing.".to_owned(), None);
        };
        if service.instances.is_empty() {
            let reason = "no instance is registered any more".to_owned();
            self.gate("candidate", false, reason.clone());
            let summary = format!("{} of \"{}\" is given up: {reason}.", open.id, service.name);
            let abort = TransitionAbort { service: service.name.clone(), transition: open.id, reason };
            return (Decision::GiveUp, summary, Some(Command::TransitionAbort(abort)));
        }
        let proof = self.gate_proof(Some(&open));
        let (best, held) = self.whom(&open);
        match (best, proof) {
            (Some(to), Ok(proof)) => match held {
                None => {
                    let summary = format!("{} of \"{}\": promoting \"{}\".", open.id, service.name, to.id);
                    (Decision::Promote, summary, Some(self.promote(&open, &to, &proof)))
                }
                Some((why, set)) => {
                    let summary = format!("{} waits: \"{}\" may be promoted, but {why}.", open.id, to.id);
                    (if set.is_some() { Decision::Brake } else { Decision::Hold }, summary, set.map(|set| *set))
                }
            },
            (best, Err(no)) => {
                // Nobody is cut off for the sake of a move that may not be made, or has nobody to go to.
                if let (Some(to), None) = (&best, &held)
                    && let Some(planned) = self.fence(&open, &no, &to.id)
                {
                    return planned;
                }
                let who = match (&best, &held) {
                    (Some(to), None) => format!("\"{}\" will be promoted once that is safe", to.id),
                    (Some(to), Some((why, _))) => format!("\"{}\" is not promoted by itself: {why}", to.id),
                    (None, _) => "no instance may be promoted".to_owned(),
                };
                (Decision::Hold, format!("{} waits: {who}: {}.", open.id, no.told()), None)
            }
            (None, Ok(_)) => {
                let why = held.map_or_else(String::new, |(why, _)| format!(" ({why})"));
                (Decision::Hold, format!("{} waits: no instance may be promoted{why}.", open.id), None)
            }
        }
    }

    /// Who is to be promoted, and what keeps Baton from it.
    ///
    /// Whoever was named comes first, then the others by strategy, rather the one that is left than nobody at all. Where
    /// Baton may not move the service, it may still go on with the one that had it: that is no move.
    fn whom(&mut self, open: &Transition) -> (Option<Instance>, Option<HeldBack>) {
        let held = if open.actor.is_some() { None } else { self.held_back(open) };
        let leaving = self.left_out();
        if held.is_some() {
            let same = self.service.assignment.last_holder.as_ref().map(|holder| holder.instance.clone());
            let able =
                same.and_then(|id| rank(&self.seek(None), self.facts, self.seed).into_iter().find(|it| it.id == id));
            if let Some(same) = able.map(|it| it.as_ref().clone())
                && self.rails_pass(TransitionKind::Placement, true)
            {
                let why = format!("\"{}\" had the service and may have it back: that is no move", same.id);
                self.gate("candidate", true, why);
                return (Some(same), None);
            }
        }
        if let Some(named) = self.named(open) {
            return (Some(named), held);
        }
        let best = self.untried(open, leaving.as_ref());
        (best.or_else(|| self.gate_candidate(leaving.as_ref())), held)
    }

    /// What keeps Baton from completing a move of its own.
    fn held_back(&mut self, open: &Transition) -> Option<HeldBack> {
        if !self.gate_automatic(self.service.moves_by_itself()) {
            let why = "failover.automatic is off: a failover that an operator asks for completes it";
            return Some((why.to_owned(), None));
        }
        match self.gate_rails(open.kind, open.has_moved()) {
            Rails::Pass => None,
            Rails::Hold { why, set } => Some((why, set)),
        }
    }

    /// Where somebody was promoted in vain: the best of those that were not tried, and where all were, the one that was
    /// tried the longest ago.
    pub(super) fn untried(&mut self, open: &Transition, leaving: Option<&InstanceId>) -> Option<Instance> {
        if open.tried.is_empty() {
            return None;
        }
        let ranked = rank(&self.seek(leaving), self.facts, self.seed);
        let tried = |it: &Instance| open.tried.iter().position(|tried| *tried == it.id);
        let best = ranked.iter().min_by_key(|it| tried(it).map_or(0, |at| at + 1))?;
        let best = Instance::clone(best);
        let why = match tried(&best) {
            None => format!("\"{}\" is the best of those that were not tried in {}", best.id, open.id),
            Some(_) => format!("all were tried in {}, \"{}\" the longest ago", open.id, best.id),
        };
        self.gate("candidate", true, why);
        Some(best)
    }

    /// The instance that was named for an open transition, while it may be promoted and was not tried in vain.
    fn named(&mut self, open: &Transition) -> Option<Instance> {
        let instance = self.service.instances.get(open.to.as_ref()?)?;
        if open.tried.contains(&instance.id) {
            return None;
        }
        let asker = if open.actor.is_some() { Asker::Operator } else { Asker::Baton };
        let seek = Seek { service: self.service, leaving: None, now: self.now, asker };
        if let Some(why) = not_eligible(&seek, instance, self.facts.lag_of(&instance.id)) {
            self.gate("named_candidate", false, format!("\"{}\" was asked for: {why}", instance.id));
            return None;
        }
        self.gate("candidate", true, format!("\"{}\" was chosen when the move began and may be promoted", instance.id));
        Some(instance.as_ref().clone())
    }

    fn promote(&self, open: &Transition, to: &Instance, proof: &ProofRecord) -> Command {
        Command::Promote(Promote {
            service: self.service.name.clone(),
            transition: open.id,
            to: self.seen(to),
            proof: proof.proof,
            seen_token: self.service.assignment.last_holder.as_ref().and_then(|holder| holder.token),
            lease: self.claim(Some(proof)),
        })
    }

    /// Runs the fencing hook where it could bring the proof that is missing, for promoting `to`.
    fn fence(&mut self, open: &Transition, no: &NoProof, to: &InstanceId) -> Option<Planned> {
        let over = hook_over(self.service, open);
        if let Some(why) = &over {
            self.gate("hook", false, why.clone());
        }
        let NoProof::Pending { hook: true, only_hook, .. } = no else { return None };
        let hook = self.service.spec.fencing.hook.as_ref()?;
        let holder = self.service.assignment.last_holder.as_ref()?;
        // The hook knows an instance and no session: it would cut off the fresh process with the old one.
        if holder.instance == *to {
            let mut why = format!("the fencing hook would cut off \"{to}\", which is the one that is to be promoted");
            if *only_hook {
                why = format!("{why}, and there is no lease of its earlier time that ends by itself");
            }
            self.gate("hook", false, why.clone());
            let why = format!("{why}; {OPERATOR_MAY_SAY}");
            // Where something else can bring the proof, that is what is waited for.
            return only_hook.then(|| (Decision::Hold, format!("{} waits: {why}.", open.id), None));
        }
        // A planned move is polite: whoever is well and was told to step down is given the time to do so.
        if self.service.assignment.phase == Phase::Switching
            && holder.released.is_none()
            && let LeaseStanding::Runs { left, .. } = &self.facts.lease
        {
            self.wake(self.now.plus(*left).plus(Millis(1)));
            let why = format!(
                "\"{}\" is stepping down as planned, and is not cut off while its lease runs (at most {} from now)",
                holder.instance,
                left.at_most()
            );
            self.gate("hook", false, why.clone());
            return Some((Decision::Hold, format!("{} waits: {why}.", open.id), None));
        }
        let failed = failed_against(open, holder);
        let last = runs_against(open, holder).next_back();
        let lost_at = last.and_then(|run| under_way_until(run, hook.timeout, self.facts.term, self.now));
        if let (Some(run), Some(lost_at)) = (last, lost_at) {
            self.wake(lost_at);
            let why = format!("attempt {} of the fencing hook is under way on node {}", run.number, run.node);
            self.gate_until("hook", false, why.clone(), Some(lost_at));
            return Some((Decision::Hold, format!("{} waits: {why}.", open.id), None));
        }
        let rest = last.and_then(|run| run.outcome.as_ref().map(|outcome| (run, outcome))).map(|(run, outcome)| {
            let again =
                HOOK_AGAIN.grown(2.0, u32::try_from(failed).unwrap_or(u32::MAX).saturating_sub(1), HOOK_AGAIN_MAX);
            run.at.plus(Millis(outcome.took_ms)).plus(again)
        });
        if let Some(at) = rest.filter(|at| self.now < *at) {
            self.wake(at);
            let why = format!("the fencing hook has failed {} and is run again soon", times(failed));
            self.gate_until("hook", false, why.clone(), Some(at));
            return Some((Decision::Hold, format!("{} waits: {why}.", open.id), None));
        }
        let attempt = u32::try_from(open.hook.len()).unwrap_or(u32::MAX).saturating_add(1);
        let summary = format!("{} of \"{}\": running the fencing hook, attempt {attempt}.", open.id, self.service.name);
        let command = Command::HookStart(HookStart {
            service: self.service.name.clone(),
            transition: open.id,
            attempt,
            node: self.facts.node,
            term: self.facts.term,
        });
        Some((Decision::Fence, summary, Some(command)))
    }
}
