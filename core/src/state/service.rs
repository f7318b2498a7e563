//! A service and who holds it.

use std::sync::Arc;

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Instance, Rails};
use crate::id::{InstanceId, Revision, ServiceName, Token, TransitionId};
use crate::lease::LeaseTerms;
use crate::policy::{Check, CheckKind, Liveness, Spec, words};
use crate::time::{ClusterTime, Millis, WallTime};
use crate::transition::Fencing;

words! {
    /// Where an active_passive service stands.
    Phase {
        /// Nobody is active and no move is open.
        Vacant = "vacant",
        /// One instance is active.
        Active = "active",
        /// A planned move is open: the old one is stepping down.
        Switching = "switching",
        /// An unplanned move or a placement is open: waiting for a proof or a candidate.
        FailingOver = "failing_over",
        /// A token is minted, the new active has not acknowledged yet.
        Promoting = "promoting",
    }
}

/// Who is active, by which token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Active {
    /// The instance.
    pub instance: InstanceId,
    /// Its token.
    pub token: Token,
    /// Since when, for people.
    pub since: WallTime,
    /// Since when, on the decision clock.
    pub at: ClusterTime,
    /// What the promotion's proof is worth.
    pub fencing: Fencing,
    /// The transition that made it active.
    pub transition: TransitionId,
}

/// Who held the service last; stays when the holder is gone, for a proof about it may still be owed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The instance.
    pub instance: InstanceId,
    /// Its token. None where it served beside others in an `active_active` service: it may still work, and has none.
    pub token: Option<Token>,
    /// How its life showed: decides what `"auto"` wants as proof.
    pub liveness: Liveness,
    /// The session that holds the token: another one of the same instance has nothing of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The lease of its tenure; none where it only is probed. It is owed until a proof was accepted for this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseTerms>,
    /// It has said that it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub released: Option<Released>,
    /// A fencing hook has cut it off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Fenced>,
    /// Others served beside it or after it, in an `active_active` service, and it stands for all of them: what stops this
    /// one does not stop those.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub others: bool,
}

impl Holder {
    /// It has said itself that it stopped. A closed connection is no such word, and to be cut off is a proof only where the
    /// policy accepts it.
    pub fn has_stopped(&self) -> bool {
        self.released.as_ref().is_some_and(|released| released.how == ReleaseHow::Said)
    }

    /// Whether it stands for others too, that may act whatever becomes of this one.
    pub const fn stands_for_others(&self) -> bool {
        self.others || self.token.is_none()
    }
}

words! {
    /// How we know of a release.
    ReleaseHow {
        /// The holder, or its supervisor, said so.
        Said = "said",
        /// Its role stream was closed, and the tenure takes that for a release. Weaker: a closed connection is not a stop.
        Disconnected = "disconnected",
    }
}

/// A holder's word that it has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// How we know.
    pub how: ReleaseHow,
    /// What it said.
    pub reason: String,
    /// When, for people.
    pub time: WallTime,
    /// When, on the decision clock.
    pub at: ClusterTime,
}

/// A fencing hook's confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// Within which transition.
    pub transition: TransitionId,
    /// Which of its runs.
    pub attempt: u32,
    /// What was confirmed, in a sentence.
    pub evidence: String,
}

/// What is owed by a service that was deleted, or beside the last holder of one that is there: somebody may still act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Debt {
    /// Its name.
    pub service: ServiceName,
    /// Whoever may still act: the one with a lease, if there is one.
    pub holder: Holder,
    /// Who served after that one without a lease that could end, and may act when the lease has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Holder>,
    /// Since when, on the decision clock.
    pub since: ClusterTime,
}

/// Who holds an active_passive service, and what is going on about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Where it stands.
    pub phase: Phase,
    /// The active. Only in the phases `active` and `promoting`.
    pub active: Option<Active>,
    /// The open transition. Only in the phases `switching`, `failing_over` and `promoting`.
    pub transition: Option<TransitionId>,
    /// Who held it last, the present active included. None only where nobody was ever told to work.
    pub last_holder: Option<Holder>,
}

/// A managed service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// What is wanted of it.
    pub spec: Arc<Spec>,
    /// The version of its spec, from 1, for `If-Match`.
    pub generation: u64,
    /// When it was made, for people.
    pub created_at: WallTime,
    /// When its spec changed last, for people.
    pub updated_at: WallTime,
    /// The last event that concerned it: what a long poll waits for.
    pub changed: Revision,
    /// Who holds it.
    pub assignment: Assignment,
    /// When the first instance came while there was none, on the decision clock: the placement's patience counts from it.
    pub populated_at: ClusterTime,
    /// What keeps Baton from moving it too often.
    #[serde(default)]
    pub rails: Rails,
    /// Its instances by id. Kept in rows of their own.
    #[serde(skip)]
    pub instances: OrdMap<InstanceId, Arc<Instance>>,
}

impl Service {
    /// The checks by which `instance` is probed.
    pub fn checks_of<'a>(&'a self, instance: &'a Instance) -> &'a [Check] {
        instance.registration.overrides.checks.as_deref().unwrap_or(&self.spec.checks)
    }

    /// Whether there is anything to probe `instance` by: an address, and a check that asks something of it.
    pub fn probes(&self, instance: &Instance) -> bool {
        let asks = |check: &Check| check.kind != CheckKind::Heartbeat;
        instance.registration.address.is_some() && self.checks_of(instance).iter().any(asks)
    }

    /// Whether Baton may move it without being asked. The first active of a service is always placed.
    pub fn moves_by_itself(&self) -> bool {
        self.spec.failover.automatic || self.assignment.last_holder.is_none()
    }

    /// The active instance's token, if there is an active.
    pub fn active_token(&self) -> Option<Token> {
        self.assignment.active.as_ref().map(|active| active.token)
    }

    /// Whether `instance` is the active.
    pub fn is_active(&self, instance: &InstanceId) -> bool {
        self.assignment.active.as_ref().is_some_and(|active| active.instance == *instance)
    }

    /// The longest interval among all checks that its instances are probed by.
    pub fn longest_interval(&self) -> Millis {
        let own =
            self.instances.values().filter_map(|instance| instance.registration.overrides.checks.as_deref()).flatten();
        self.spec.checks.iter().chain(own).map(|check| check.interval).max().unwrap_or(Millis::ZERO)
    }
}
