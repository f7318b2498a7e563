//! An instance, what its observers hold of it, and the health that follows.

use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, NodeId, Revision};
use crate::policy::{Quorum, Registration};
use crate::probe::{Evidence, Health, Verdict};
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
}

/// How the health of an instance was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthInputs {
    /// Live observers assigned: the denominator.
    pub observers: u32,
    /// How many of them must say `down`.
    pub quorum: u32,
    /// How many say `up`.
    pub up: u32,
    /// How many say `suspect`.
    pub suspect: u32,
    /// How many say `down`.
    pub down: u32,
}

impl HealthInputs {
    /// The health that these counts mean.
    pub fn health(&self) -> Health {
        if self.down >= self.quorum && self.down > 0 {
            Health::Unhealthy
        } else if self.down + self.suspect > 0 {
            Health::Suspect
        } else if self.up > 0 {
            Health::Healthy
        } else {
            Health::Unknown
        }
    }
}

impl Instance {
    /// Counts the verdicts of `observers`, the live ones. The verdict quorum is over them, never over the lost.
    pub fn count(&self, observers: impl Iterator<Item = NodeId>, quorum: Quorum) -> HealthInputs {
        let mut counts = HealthInputs { observers: 0, quorum: 0, up: 0, suspect: 0, down: 0 };
        for observer in observers {
            counts.observers += 1;
            match self.verdicts.get(&observer).map_or(Verdict::Unknown, |record| record.verdict) {
                Verdict::Unknown => {}
                Verdict::Up => counts.up += 1,
                Verdict::Suspect => counts.suspect += 1,
                Verdict::Down => counts.down += 1,
            }
        }
        counts.quorum = match quorum {
            Quorum::Count(number) => number,
            Quorum::Majority(_) => counts.observers / 2 + 1,
        };
        counts
    }

    /// Who doubts it and why, in a sentence.
    pub fn doubts(&self) -> String {
        let mut told: Vec<String> = Vec::new();
        for (observer, record) in &self.verdicts {
            match record.verdict {
                Verdict::Suspect | Verdict::Down => {
                    let evidence = &record.evidence;
                    told.push(format!(
                        "node {observer} says {} ({} failed {} in a row: {})",
                        record.verdict, evidence.check, evidence.streak, evidence.detail
                    ));
                }
                Verdict::Unknown | Verdict::Up => {}
            }
        }
        if told.is_empty() { "no observer says why".to_owned() } else { told.join("; ") }
    }
}
