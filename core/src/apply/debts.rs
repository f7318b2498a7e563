//! What a service owes beyond its last holder's own time: the lease of one that was deleted, and whoever served in
//! `active_active`, where nobody has a token and nobody is told to stop. It ends with a lease, a release, or a promotion.

use std::sync::Arc;

use super::Entry;
use super::verdicts::moved_on;
use crate::command::{Done, Refusal, Release, Reply};
use crate::id::ServiceName;
use crate::lease::LeaseClaim;
use crate::mutant::{Mutant, planted};
use crate::policy::{Liveness, Mode};
use crate::rules::needs_proof;
use crate::state::{Change, DEBTS_MAX, Debt, Holder, Instance, ReleaseHow, Service};

/// How hard it is to show that this one has stopped. Where only one can be asked for, it is the hardest.
fn owes(service: &Service, held: &Holder) -> u8 {
    match (held.lease, held.liveness) {
        // Whoever has stopped says nothing of those who served after it.
        _ if held.has_stopped() => 0,
        (None, Liveness::Probe) if !needs_proof(service, held) => 1,
        (Some(_), _) => 2,
        (None, Liveness::Probe) => 3,
        (None, Liveness::Heartbeat) => 4,
    }
}

/// Whoever is to be asked about when these have served too; and who is owed a lease beside that, if somebody new is.
///
/// All of an `active_active` service are told that they are active, and none of them is told to stop when it becomes
/// `active_passive`, loses one or is deleted: the first active after that is not the first that ever worked. One stands for
/// all.
fn after_serving<'a>(
    service: &Service,
    served: impl Iterator<Item = &'a Arc<Instance>>,
) -> (Option<Holder>, Option<Holder>) {
    let (mut last, mut beside) = (service.assignment.last_holder.clone(), None);
    for instance in served {
        let one = Holder {
            instance: instance.id.clone(),
            token: None,
            liveness: instance.registration.liveness,
            session: None,
            lease: None,
            released: None,
            fenced: None,
            others: true,
        };
        match &mut last {
            Some(held) if owes(service, held) >= owes(service, &one) => {
                // That its connection was closed, or that it was cut off, says nothing of those it stands for now.
                (held.others, held.released, held.fenced) = (true, None, None);
            }
            Some(_) | None => {
                let before = last.replace(one);
                beside = before.filter(|held| held.lease.is_some() && !held.has_stopped()).or(beside);
            }
        }
    }
    (last, beside)
}

impl Entry<'_> {
    /// These have served in `active_active`, and may go on with it.
    pub(super) fn remember_who_served<'a>(
        &mut self,
        name: &ServiceName,
        served: impl Iterator<Item = &'a Arc<Instance>>,
    ) -> Result<(), Refusal> {
        let (last, beside) = after_serving(&*self.service(name)?, served);
        self.service_mut(name)?.assignment.last_holder = last;
        // There is at most one a service, so this needs no other bound than that of services.
        if let Some(holder) = beside {
            self.store_debt(Debt { service: name.clone(), holder, served: None, since: self.now });
        }
        Ok(())
    }

    /// Keeps what a service owes that is about to be deleted: whoever may still act and needs a proof.
    pub(super) fn keep_debt(&mut self, service: &Service) -> Result<(), Refusal> {
        if planted(Mutant::DeletionForgetsDebt) {
            return Ok(());
        }
        let name = &service.name;
        let (last, beside) = match service.spec.mode {
            Mode::ActiveActive => after_serving(service, service.instances.values()),
            Mode::ActivePassive => (service.assignment.last_holder.clone(), None),
        };
        let since = self.now;
        let known = self.state.debts.get(name).cloned();
        let beside = beside
            .map(|holder| Debt { service: name.clone(), holder, served: None, since })
            .or_else(|| known.clone())
            .filter(|debt| debt.holder.lease.is_some());
        let unstopped = last.filter(|held| !held.has_stopped());
        let owed = match (unstopped, beside) {
            (Some(held), _) if held.lease.is_some() => {
                Some(Debt { service: name.clone(), holder: held, served: None, since })
            }
            (Some(held), beside) if needs_proof(service, &held) => Some(match beside {
                Some(debt) => Debt { served: Some(held), ..debt },
                None => Debt { service: name.clone(), holder: held, served: None, since },
            }),
            (Some(_) | None, beside) => beside,
        };
        let Some(debt) = owed else { return Ok(()) };
        if known.is_none() && self.state.debts.len() >= DEBTS_MAX {
            let what =
                "debts of deleted services: leases, or instances of which nobody said that they stopped".to_owned();
            return Err(Refusal::LimitReached { what, limit: DEBTS_MAX as u64 });
        }
        self.store_debt(debt);
        Ok(())
    }

    fn store_debt(&mut self, debt: Debt) {
        self.changes.insert(Change::Debt(debt.service.clone()));
        self.state.debts.insert(debt.service.clone(), debt);
    }

    /// What was owed under that name, for the service that is made under it now. A lease that is owed beside that stays.
    pub(super) fn take_debt(&mut self, name: &ServiceName) -> Option<Holder> {
        let debt = self.state.debts.remove(name)?;
        self.changes.insert(Change::Debt(name.clone()));
        match debt.served {
            None => Some(debt.holder),
            Some(served) => {
                self.store_debt(Debt { served: None, ..debt });
                Some(served)
            }
        }
    }

    /// By the spec that counts now, who served may be asked for less than the lease that is owed beside: then that one is the
    /// one to wait for, and stands for them.
    pub(super) fn ask_the_lease_first(&mut self, name: &ServiceName) {
        let (Some(service), Some(debt)) = (self.state.services.get(name), self.state.debts.get(name)) else { return };
        let Some(held) = &service.assignment.last_holder else { return };
        if debt.served.is_some() || owes(service, held) >= owes(service, &debt.holder) {
            return;
        }
        let first = Holder { others: true, released: None, fenced: None, ..debt.holder.clone() };
        self.state.debts.remove(name);
        self.changes.insert(Change::Debt(name.clone()));
        if let Ok(service) = self.service_mut(name) {
            service.assignment.last_holder = Some(first);
        }
    }

    /// The lease of that debt is paid. Who served after it is owed still.
    fn pay_debt(&mut self, name: &ServiceName) {
        self.changes.insert(Change::Debt(name.clone()));
        if let Some(debt) = self.state.debts.remove(name)
            && let Some(holder) = debt.served
        {
            self.state.debts.insert(name.clone(), Debt { holder, served: None, ..debt });
        }
    }

    /// Whether a release speaks of what is owed, and pays it.
    pub(super) fn release_of_debt(&mut self, release: &Release) -> bool {
        let named = self.state.debts.get(&release.service).is_some_and(|debt| {
            release.how == ReleaseHow::Said
                && debt.holder.session == release.session
                && debt.holder.instance == release.instance
                && debt.holder.token == Some(release.token)
        });
        if named {
            self.pay_debt(&release.service);
        }
        named
    }

    pub(super) fn debt_forget(&mut self, name: &ServiceName, claim: &LeaseClaim) -> Reply {
        let owed = self.state.debts.get(name).filter(|debt| debt.holder.token == Some(claim.token));
        let owed = owed.and_then(|debt| debt.holder.lease).is_some_and(|terms| claim.waited(&terms));
        if !owed || claim.term != self.term {
            return Err(moved_on(format!("what \"{name}\" owes")));
        }
        self.pay_debt(name);
        Ok(Done::Ok)
    }
}
