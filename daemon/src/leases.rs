//! What this node knows beside the log while it leads: the table of leases, and how far instances say that they are behind.
//! One lock around `core::lease::Leases`, so that granting and sealing exclude each other; nothing is waited for while it is
//! held, and nothing is decided here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use baton_core::command::Command;
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::lease::{Granted, LeaseTerms, Leases, ReadPoint, Renewal, Seal, Unsealable, Withheld};
use baton_core::planner::{Facts, debts_due};
use baton_core::state::{Service, State};

use crate::prober::Clock;
use crate::store::StateReader;

/// Debts of deleted services that are looked after at a time: the rest follows a moment later.
const DEBTS_AT_ONCE: usize = 16;

/// The leader's knowledge. Clones are cheap, and share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LeaderBook {
    inner: Arc<Mutex<Inner>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Inner {
    leases: Leases,
    lags: BTreeMap<ServiceName, BTreeMap<InstanceId, u64>>,
}

impl LeaderBook {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Each change is one step of `core`: a panic leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This node was elected in `term`, and knows it: every wait counts from here. Said again it changes nothing.
    pub(crate) fn begin(&self, term: u64) {
        let mut inner = self.lock();
        if term > inner.leases.term() {
            inner.lags.clear();
        }
        let now = self.clock.now();
        inner.leases.begin(term, now);
    }

    /// Grants a renewal from the state as it is now, or says why not. See [`Leases::grant`].
    pub(crate) fn grant(
        &self,
        point: ReadPoint,
        reader: &StateReader,
        asked: &Renewal<'_>,
    ) -> Result<Granted, Withheld> {
        let mut inner = self.lock();
        // Both are read with the lock held. A state from before it could be from before a promotion whose seal has been
        // lifted since; and what is recorded is never older than what was checked before it.
        let view = reader.view();
        let now = self.clock.now();
        inner.leases.grant(point, view.applied_index, &view.state, asked, now)
    }

    /// Takes note of what an instance says of its lag.
    pub(crate) fn note_lag(&self, service: &ServiceName, instance: &InstanceId, lag: Option<u64>) {
        let mut inner = self.lock();
        match lag {
            Some(lag) => {
                let of_service = match inner.lags.get_mut(service) {
                    Some(of_service) => of_service,
                    None => inner.lags.entry(service.clone()).or_default(),
                };
                match of_service.get_mut(instance) {
                    Some(known) => *known = lag,
                    None => {
                        of_service.insert(instance.clone(), lag);
                    }
                }
            }
            None => {
                if let Some(of_service) = inner.lags.get_mut(service) {
                    of_service.remove(instance);
                }
            }
        }
    }

    /// What the leader of `term` knows of a service.
    pub(crate) fn facts(&self, service: &Service, node: NodeId, term: u64) -> Facts {
        let inner = self.lock();
        let lags = inner.lags.get(&service.name).cloned().unwrap_or_default();
        Facts::of(service, node, term, &inner.leases, lags, self.clock.now())
    }

    /// Makes a command ready that claims that a lease has run out: seals the token, and writes down what the seal says.
    /// `None` as the seal where it claims nothing.
    pub(crate) fn seal(&self, term: u64, state: &State, command: &mut Command) -> Result<Option<Seal>, Unsealable> {
        let (name, claim) = match command {
            Command::TransitionStart(start) => match &mut start.lease {
                Some(claim) => (&start.service, claim),
                None => return Ok(None),
            },
            Command::Promote(promote) => match &mut promote.lease {
                Some(claim) => (&promote.service, claim),
                None => return Ok(None),
            },
            Command::DebtForget { service, claim } => (&*service, claim),
            Command::ClusterCreate { .. }
            | Command::NodeAnnounce(_)
            | Command::ObserverLost { .. }
            | Command::ObserverBack { .. }
            | Command::ServicePut(_)
            | Command::ServiceDelete(_)
            | Command::InstancePut(_)
            | Command::InstanceChange(_)
            | Command::InstanceDelete(_)
            | Command::VerdictsRecord(_)
            | Command::JudgementsRecord(_)
            | Command::BreakerTrip(_)
            | Command::BreakerTried(_)
            | Command::TrialGrant(_)
            | Command::InstancesDue(_)
            | Command::InstanceAdmin(_)
            | Command::InstanceReset(_)
            | Command::TransitionTake(_)
            | Command::TransitionAbort(_)
            | Command::EventsCompact { .. }
            | Command::Release(_)
            | Command::Ack(_)
            | Command::ActivationExpire(_)
            | Command::HookStart(_)
            | Command::HookEnd(_)
            | Command::InstanceLeft(_)
            | Command::InstanceReturned(_)
            | Command::AutomationPause(_)
            | Command::AutomationResume(_)
            | Command::AutomationDue { .. }
            | Command::LatchSet { .. }
            | Command::BrakeSet => return Ok(None),
        };
        // The terms are the tenure's own. Where nobody owes a lease under that token, apply refuses the claim.
        let Some(terms) = terms_of(state, name, claim.token) else { return Ok(None) };
        let mut inner = self.lock();
        let now = self.clock.now();
        let (seal, said) = inner.leases.seal(term, claim.token, &terms, now)?;
        *claim = said;
        Ok(Some(seal))
    }

    /// Lifts a seal: its proposal was answered, or surely never entered the log. A seal whose proposal's fate is not known
    /// is simply not lifted.
    pub(crate) fn unseal(&self, seal: Seal) {
        self.lock().leases.unseal(seal);
    }

    /// What deleted services owe no more, as claims that are still to be sealed.
    pub(crate) fn debts_due(&self, state: &State, term: u64) -> Vec<Command> {
        if state.debts.is_empty() {
            return Vec::new();
        }
        debts_due(state, &self.lock().leases, term, self.clock.now(), DEBTS_AT_ONCE)
    }

    /// Forgets what belongs to nobody any more.
    pub(crate) fn retain(&self, state: &State) {
        let mut inner = self.lock();
        inner.leases.retain(state);
        inner.lags.retain(|service, of_service| {
            let known = state.service(service);
            of_service.retain(|id, _| known.is_some_and(|known| known.instances.contains_key(id)));
            !of_service.is_empty()
        });
    }
}

fn terms_of(state: &State, name: &ServiceName, token: baton_core::id::Token) -> Option<LeaseTerms> {
    let held = state.service(name).and_then(|service| service.assignment.last_holder.as_ref());
    let owed = state.debts.get(name).map(|debt| &debt.holder);
    held.into_iter().chain(owed).find(|holder| holder.token == Some(token)).and_then(|holder| holder.lease)
}
