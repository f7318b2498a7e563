//! What holds of tenures in every run: whose promotion rests on what, and that nothing which is owed is ever forgotten. Told
//! from outside, by the state before and after an entry and by the commands in it, without asking the rules.

use baton_core::command::{Batch, Command, Release};
use baton_core::id::ServiceName;
use baton_core::lease::LeaseClaim;
use baton_core::policy::{Liveness, OnQuorumLoss, ProofKind, ProofPolicy};
use baton_core::state::{Holder, ReleaseHow, State};
use baton_core::time::ClusterTime;
use baton_core::transition::{Fencing, ProofRecord, Transition};
use proptest::prelude::*;

/// One entry, as an outsider sees it.
pub(crate) struct Entry<'a> {
    pub(crate) before: &'a State,
    pub(crate) after: &'a State,
    pub(crate) batch: &'a Batch,
    pub(crate) term: u64,
    pub(crate) now: ClusterTime,
}

type Checked = Result<(), TestCaseError>;

/// Everything here.
pub(crate) fn check(entry: &Entry<'_>) -> Checked {
    for service in entry.after.services.values() {
        let assignment = &service.assignment;
        let Some(active) = &assignment.active else { continue };
        let holder = assignment.last_holder.as_ref().expect("an active holds it");
        prop_assert_eq!((&holder.instance, holder.token), (&active.instance, Some(active.token)));
        prop_assert!(holder.released.is_none(), "whoever has released is not active");
        let session = &service.instances[&active.instance].session;
        prop_assert_eq!(session, &holder.session, "a new session inherits nothing");
    }
    for record in entry.after.transitions.values() {
        let old = entry.before.transitions.get(&record.id).and_then(|old| old.token);
        if record.token.is_some() && record.token != old {
            check_promotion(entry, record)?;
        }
    }
    for (name, holder) in owing(entry.before) {
        check_debt(entry, &name, &holder)?;
    }
    for (name, holder) in holders(entry.before) {
        check_served(entry, &name, &holder)?;
    }
    for (name, holder) in holders(entry.after) {
        check_release(entry, &name, &holder)?;
    }
    Ok(())
}

/// Who held each service last, and each that is deleted.
fn holders(state: &State) -> Vec<(ServiceName, Holder)> {
    let services = state.services.values();
    let held = services.filter_map(|it| Some((it.name.clone(), it.assignment.last_holder.clone()?)));
    let owed = state.debts.values().flat_map(|debt| {
        [Some(&debt.holder), debt.served.as_ref()].into_iter().flatten().map(|it| (debt.service.clone(), it.clone()))
    });
    held.chain(owed).collect()
}

/// Those whose lease may still run, as far as the log knows.
fn owing(state: &State) -> Vec<(ServiceName, Holder)> {
    let stopped = |it: &Holder| it.released.as_ref().is_some_and(|released| released.how == ReleaseHow::Said);
    holders(state).into_iter().filter(|(_, it)| it.lease.is_some() && !stopped(it)).collect()
}

impl Entry<'_> {
    fn releases<'a>(&'a self, name: &'a ServiceName, holder: &'a Holder) -> impl Iterator<Item = &'a Release> {
        let released = |command: &'a Command| if let Command::Release(it) = command { Some(it) } else { None };
        self.batch.commands.iter().filter_map(released).filter(move |it| {
            (&it.service, &it.instance, &it.session, Some(it.token))
                == (name, &holder.instance, &holder.session, holder.token)
        })
    }

    /// Whether something in the entry promotes, or forgets a debt, by such a claim.
    fn claims(&self, name: &ServiceName, promotes: bool, what: impl Fn(&LeaseClaim) -> bool) -> bool {
        self.any(|command| {
            let (service, claim, promotion) = if let Command::TransitionStart(it) = command {
                (&it.service, it.lease.as_ref(), true)
            } else if let Command::Promote(it) = command {
                (&it.service, it.lease.as_ref(), true)
            } else if let Command::DebtForget { service, claim } = command {
                (service, Some(claim), false)
            } else {
                return false;
            };
            service == name && promotion == promotes && claim.is_some_and(&what)
        })
    }

    fn any(&self, what: impl Fn(&Command) -> bool) -> bool {
        self.batch.commands.iter().any(what)
    }

    fn made_anew(&self, name: &ServiceName) -> bool {
        self.any(|command| matches!(command, Command::ServiceDelete(it) if it.service == *name))
    }

    fn changed_spec(&self, name: &ServiceName) -> bool {
        self.any(|command| matches!(command, Command::ServicePut(it) if it.service == *name))
    }

    fn changed(&self, name: &ServiceName) -> bool {
        self.changed_spec(name) || self.made_anew(name)
    }
}

/// A promotion rests on what its proof says, and was Baton's to make or somebody's.
fn check_promotion(entry: &Entry<'_>, record: &Transition) -> Checked {
    let name = &record.service;
    let proof = record.proof.as_ref().expect("a promotion has a proof");
    let before = entry.before.service(name);
    let all = holders(entry.before);
    let holder = all.iter().find(|(of, _)| of == name).map(|(_, holder)| holder);
    check_proof(entry, record, proof, holder)?;
    if record.actor.is_some() {
        return Ok(());
    }
    // Nobody has asked for it.
    let lifted = |command: &Command| matches!(command, Command::AutomationResume(_) | Command::AutomationDue { .. });
    let own = before.and_then(|it| it.rails.pause.as_ref());
    let paused = [own, entry.before.meta.pause.as_ref()].into_iter().flatten().any(|pause| pause.holds(entry.now));
    prop_assert!(!paused || entry.any(lifted) || entry.made_anew(name), "it was promoted while automation is paused");
    if let (Some(before), Some(holder)) = (before, holder)
        && !before.spec.failover.automatic
        && !entry.changed(name)
    {
        prop_assert_eq!(record.to.as_ref(), Some(&holder.instance), "only who had it may have it back by itself");
    }
    Ok(())
}

fn check_proof(entry: &Entry<'_>, record: &Transition, proof: &ProofRecord, holder: Option<&Holder>) -> Checked {
    let name = &record.service;
    match (proof.proof, holder) {
        (ProofKind::NoneNeeded, None) => {}
        // It had no lease, or has said that it stopped, and its service was deleted.
        (ProofKind::NoneNeeded, Some(holder)) => {
            prop_assert!(entry.made_anew(name), "{holder:?} held it");
            let stopped = holder.released.is_some() || entry.releases(name, holder).next().is_some();
            prop_assert!(holder.lease.is_none() || stopped, "{holder:?} may act");
        }
        (ProofKind::Operator, _) => {
            let of_before = entry.before.transitions.get(&record.id).and_then(|old| old.asserted);
            let asserted = |command: &Command| {
                let started = matches!(command, Command::TransitionStart(it)
                    if it.service == *name && it.asserted.is_some() && it.actor.is_some());
                started
                    || matches!(command, Command::TransitionTake(it) if it.service == *name && it.asserted.is_some())
            };
            prop_assert!(of_before.is_some() || entry.any(asserted), "nobody has asserted it");
        }
        (_, None) => prop_assert!(false, "{} about nobody", proof.proof),
        (ProofKind::Lease, Some(holder)) => {
            let terms = holder.lease.expect("a lease");
            let right = |claim: &LeaseClaim| claim.term == entry.term && Some(claim.token) == holder.token;
            prop_assert!(entry.claims(name, true, right), "nobody has claimed that in term {}", entry.term);
            let advisory = terms.on_quorum_loss == OnQuorumLoss::Freeze || holder.others;
            prop_assert_eq!(proof.fencing == Fencing::Advisory, advisory, "a frozen holder goes on");
        }
        (ProofKind::Release, Some(holder)) => {
            let of_before = holder.released.iter().map(|released| released.how);
            let hows: Vec<_> = of_before.chain(entry.releases(name, holder).map(|release| release.how)).collect();
            prop_assert!(!hows.is_empty(), "{holder:?} has not released it");
            let said = hows.contains(&ReleaseHow::Said);
            prop_assert!(said || proof.fencing == Fencing::Advisory, "a closed connection is no stop");
        }
        (ProofKind::Hook, Some(holder)) => {
            let confirmed =
                |command: &Command| matches!(command, Command::HookEnd(end) if end.service == *name && end.outcome.ok);
            prop_assert!(holder.fenced.is_some() || entry.any(confirmed), "{holder:?} was not cut off");
        }
        (ProofKind::Token, Some(holder)) => {
            let declared = proof.fencing == Fencing::Enforced;
            prop_assert!(declared || holder.lease.is_none(), "{holder:?} had a lease, and nobody declares anything");
        }
    }
    Ok(())
}

/// What was owed before is owed still, or was paid.
fn check_debt(entry: &Entry<'_>, name: &ServiceName, holder: &Holder) -> Checked {
    let same = |(of, it): &(ServiceName, Holder)| {
        of == name
            && (&it.instance, it.token, &it.session, it.lease)
                == (&holder.instance, holder.token, &holder.session, holder.lease)
    };
    if holders(entry.after).iter().any(same) {
        return Ok(());
    }
    let promoted = entry.after.transitions.values().any(|record| {
        let old = entry.before.transitions.get(&record.id).and_then(|old| old.token);
        record.service == *name && record.token.is_some() && record.token != old
    });
    let right = |claim: &LeaseClaim| claim.term == entry.term && Some(claim.token) == holder.token;
    let said = entry.releases(name, holder).any(|release| release.how == ReleaseHow::Said);
    let paid = promoted || said || entry.claims(name, false, right);
    prop_assert!(paid, "{name} owed the lease of {holder:?}, and it is forgotten");
    Ok(())
}

/// Who served beside others and heartbeats is stood for by one of its kind, until somebody is promoted or the policy declares
/// that nobody need be waited for.
fn check_served(entry: &Entry<'_>, name: &ServiceName, holder: &Holder) -> Checked {
    let served = |it: &Holder| it.token.is_none() && it.liveness == Liveness::Heartbeat;
    let states = [entry.before, entry.after];
    let declared = states.iter().filter_map(|state| state.service(name)).any(|it| match &it.spec.fencing.proof {
        ProofPolicy::List(kinds) => kinds.contains(&ProofKind::Token),
        ProofPolicy::Auto(_) => false,
    });
    let promoted = entry.after.transitions.values().any(|record| {
        let old = entry.before.transitions.get(&record.id).and_then(|old| old.token);
        record.service == *name && record.token.is_some() && record.token != old
    });
    let remembered = holders(entry.after).iter().any(|(of, it)| of == name && served(it));
    // In one entry a service may be declared so, deleted, and made again without.
    let excused = declared || promoted || (entry.made_anew(name) && entry.changed_spec(name));
    prop_assert!(!served(holder) || remembered || excused, "{holder:?} may act, and is forgotten");
    Ok(())
}

/// Whoever has released has said so, in its own session and of its own token.
fn check_release(entry: &Entry<'_>, name: &ServiceName, holder: &Holder) -> Checked {
    let Some(released) = &holder.released else { return Ok(()) };
    let old = holders(entry.before).into_iter().find(|(of, it)| of == name && it.token == holder.token);
    if old.is_some_and(|(_, old)| old.released.as_ref().is_some_and(|old| old.how == released.how)) {
        return Ok(());
    }
    let mut said = entry.releases(name, holder).filter(|release| release.how == released.how);
    prop_assert!(said.next().is_some(), "nobody has released token {:?}", holder.token);
    let allowed = holder.lease.is_some_and(|terms| terms.release_on_disconnect);
    prop_assert!(released.how == ReleaseHow::Said || allowed, "the tenure does not take that for a release");
    Ok(())
}
