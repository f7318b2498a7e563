//! An instance, what its observers hold of it, and the health that follows.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use super::{Admin, AdminState, Service, Source};
use crate::breaker::Breaker;
use crate::id::{InstanceId, NodeId, Revision};
use crate::policy::{Liveness, Mode, RecoveryPolicy, Registration};
use crate::probe::{Evidence, Health, Verdict};
use crate::recovery::{Recovery, whole_share};
use crate::time::{ClusterTime, WallTime};

/// What one observer holds of an instance, as committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The verdict.
    pub verdict: Verdict,
    /// Since when, for people.
    pub since: WallTime,
    /// Why.
    pub evidence: Evidence,
}

/// One running copy of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// What was said of it.
    pub registration: Registration,
    /// The version of its registration, from 1, for `If-Match`.
    pub generation: u64,
    /// Which thing is probed: the revision at which its address or checks last changed. Verdicts on an older epoch are late.
    pub epoch: Revision,
    /// When it was registered, for people.
    pub registered_at: WallTime,
    /// The session of a `heartbeat` instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What each observer holds. An observer that is lost or has not looked is absent.
    pub verdicts: OrdMap<NodeId, VerdictRecord>,
    /// What the cluster agrees on.
    pub health: Health,
    /// Since when, on the decision clock.
    pub health_since: ClusterTime,
    /// The event that made it so.
    pub health_revision: Revision,
    /// When the first probe of the present row of failures failed, on the decision clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<ClusterTime>,
    /// When an observer's doubt was first committed in the present row, on the decision clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect_since: Option<ClusterTime>,
    /// What the leader judges from calls and heartbeats. A source that has nothing to say is absent.
    #[serde(default, skip_serializing_if = "OrdMap::is_empty")]
    pub judged: OrdMap<Source, VerdictRecord>,
    /// Whether calls may go there.
    #[serde(default = "Breaker::untouched")]
    pub breaker: Breaker,
    /// What is remembered since it was unhealthy; none where it never was, or an operator reset it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
    /// What an operator has said of it.
    #[serde(default = "Admin::unsaid")]
    pub admin: Admin,
    /// It released its service and leaves: no candidate until it heartbeats again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

impl Instance {
    /// The share of its weight that it gets at `now`, in thousandths: less than all while it ramps up.
    pub fn share(&self, policy: &RecoveryPolicy, now: ClusterTime) -> u64 {
        self.recovery.as_ref().map_or(whole_share(), |recovery| recovery.share(policy, now))
    }

    /// Its weight at `now`, in thousandths of the registered unit.
    pub fn effective_weight(&self, policy: &RecoveryPolicy, now: ClusterTime) -> u64 {
        u64::from(self.registration.weight) * self.share(policy, now)
    }

    /// Since when it is missing: nobody sees it alive, and somebody looks. One that heartbeats is not missing because
    /// nobody can probe it.
    fn missing_since(&self) -> Option<ClusterTime> {
        let recovering = self.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some());
        let beats = self.judged.get(&Source::Heartbeats).map(|record| record.verdict);
        let heartbeats = self.registration.liveness == Liveness::Heartbeat
            && matches!(beats, None | Some(Verdict::Unknown | Verdict::Down));
        match self.health {
            Health::Unhealthy if !recovering => Some(self.health_since),
            Health::Unknown if heartbeats => Some(self.health_since),
            Health::Unhealthy | Health::Unknown | Health::Healthy | Health::Suspect | Health::Isolated => None,
        }
    }

    /// When it is removed because it was missing for so long; never while it holds its `active_passive` service or was the
    /// last that did, nor while an operator has taken it out. Once it is let in again, the patience with it begins anew.
    pub fn deregistered_at(&self, service: &Service) -> Option<ClusterTime> {
        let held = match service.spec.mode {
            Mode::ActivePassive => service.assignment.last_holder.as_ref().is_some_and(|held| held.instance == self.id),
            // Whoever is remembered there stands for all that served, and is remembered without being registered.
            Mode::ActiveActive => false,
        };
        let after = self.registration.deregister_after?;
        let missing = self.missing_since()?;
        (self.admin.state == AdminState::Enabled && !held).then(|| missing.max(self.admin.at).plus(after))
    }

    /// When time alone changes something about it: an open breaker's end, the end of a recovery's delay or of what is
    /// remembered of it, of an operator's word. That it is missing for too long is another matter: see
    /// [`Self::deregistered_at`].
    pub fn due(&self, service: &Service) -> Option<ClusterTime> {
        let policy = &service.spec.recovery;
        let recovery =
            self.recovery.as_ref().and_then(|recovery| recovery.due(policy).or_else(|| recovery.forgotten_at(policy)));
        [self.breaker.open_until(), recovery, self.admin.ends].into_iter().flatten().min()
    }

    /// Who doubts it and why, in a sentence.
    pub fn doubts(&self) -> String {
        let mut told: Vec<String> = Vec::new();
        for (source, record) in &self.judged {
            match record.verdict {
                Verdict::Suspect | Verdict::Down => {
                    told.push(format!("its {source} say {} ({})", record.verdict, record.evidence.told()));
                }
                Verdict::Unknown | Verdict::Up => {}
            }
        }
        for (observer, record) in &self.verdicts {
            match record.verdict {
                Verdict::Suspect | Verdict::Down => {
                    told.push(format!("node {observer} says {} ({})", record.verdict, record.evidence.told()));
                }
                Verdict::Unknown | Verdict::Up => {}
            }
        }
        if told.is_empty() { "nobody says why any more".to_owned() } else { told.join("; ") }
    }
}
