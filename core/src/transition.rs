//! Transitions: the record of one move of a service's active, and the rules that both the planner and `apply` ask:
//! who may be promoted, and which proof holds. One place, so that a proposal and its check can never disagree.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use crate::policy::{AutoWord, Liveness, ProofKind, ProofPolicy, words};
use crate::probe::{Evidence, Health, Verdict};
use crate::state::{Instance, Service};
use crate::time::{ClusterTime, Millis, WallTime};

words! {
    /// What kind of move.
    TransitionKind {
        /// The first active of a vacant service.
        Placement = "placement",
        /// Unplanned: the active is down, or an operator says so.
        Failover = "failover",
        /// Planned, both sides well.
        Switchover = "switchover",
        /// A switchover to the preferred instance.
        Failback = "failback",
    }
}

words! {
    /// Where a transition stands.
    TransitionStatus {
        /// Open: waiting for a proof or a candidate.
        Running = "running",
        /// The promotion was made.
        Finished = "finished",
        /// Given up without a promotion.
        Aborted = "aborted",
    }
}

words! {
    /// Whether the promotion is safe whatever the old active does.
    Fencing {
        /// The old active has stopped, or its work is refused.
        Enforced = "enforced",
        /// Nobody proved that: the only proof was a token that no resource is declared to check.
        Advisory = "advisory",
    }
}

/// What one observer held when a transition began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ObserverEvidence {
    /// The observer.
    pub observer: NodeId,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why.
    pub evidence: Evidence,
}

/// Why a transition began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trigger {
    /// In a sentence: the measured values, or the operator's own words.
    pub reason: String,
    /// The committed event that led to it. Every automatic promotion has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Revision>,
}

/// A proof that was accepted, kept with its evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProofRecord {
    /// Which proof.
    pub proof: ProofKind,
    /// What it is worth.
    pub fencing: Fencing,
    /// What was believed, in a sentence.
    pub evidence: String,
}

/// One step of a transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// The step's word: `started`, `proof`, `promoted`, `aborted`.
    pub step: String,
    /// When, for people.
    pub time: WallTime,
    /// When, on the decision clock.
    pub at: ClusterTime,
    /// What was seen or done, in a sentence.
    pub detail: String,
}

/// How long each part took. A part that did not happen is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Durations {
    /// From the first failed probe to the first observer's doubt being committed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure_to_suspect_ms: Option<u64>,
    /// From the first doubt to the verdict quorum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspect_to_agreed_ms: Option<u64>,
    /// From the verdict quorum (or the operator's request) to an accepted proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed_to_proof_ms: Option<u64>,
    /// From the proof to the promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof_to_promoted_ms: Option<u64>,
    /// From the first failed probe, or the request, to the promotion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
}

/// The record of one transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Transition {
    /// Its id.
    pub id: TransitionId,
    /// The service.
    pub service: ServiceName,
    /// What kind of move.
    pub kind: TransitionKind,
    /// Where it stands.
    pub status: TransitionStatus,
    /// The active before, if there was one.
    pub from: Option<InstanceId>,
    /// Its token.
    pub from_token: Option<Token>,
    /// The instance promoted, or the one an operator named.
    pub to: Option<InstanceId>,
    /// The token minted.
    pub token: Option<Token>,
    /// Why it began.
    pub trigger: Trigger,
    /// What the observers of the old active held when it began.
    pub evidence: Vec<ObserverEvidence>,
    /// The proof that an operator asserts, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted: Option<ProofKind>,
    /// The accepted proof.
    pub proof: Option<ProofRecord>,
    /// Each step with its time.
    pub steps: Vec<Step>,
    /// Who asked; null for Baton itself.
    pub actor: Option<String>,
    /// How long each part took.
    pub durations: Durations,
    /// When it began, for people.
    pub started_at: WallTime,
    /// When it ended, for people.
    pub finished_at: Option<WallTime>,
    /// When the first probe of the row failed, on the decision clock; the origin of the durations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_failure: Option<ClusterTime>,
    /// When the cluster agreed, or the request came, on the decision clock.
    pub agreed: ClusterTime,
}

/// One rule that a candidate passes or fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// The rule's word.
    pub rule: String,
    /// Whether it is met.
    pub pass: bool,
    /// The measured value, and what is wanted, in a sentence.
    pub why: String,
}

/// Every rule for promoting `instance`, met or not, in the order in which they are told.
///
/// `leaving` is the active that a failover moves away from: it is no candidate while it is what the move is about.
pub fn candidate_rules(
    service: &Service,
    instance: &Instance,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
) -> Vec<Rule> {
    let rule = |rule: &str, pass: bool, why: String| Rule { rule: rule.to_owned(), pass, why };
    let mut rules = vec![rule(
        "healthy",
        instance.health == Health::Healthy,
        match instance.health {
            Health::Healthy => "the observers agree that it is healthy".to_owned(),
            Health::Unknown => "nobody has seen it yet: health is unknown".to_owned(),
            Health::Suspect => format!("somebody doubts it: {}", instance.doubts()),
            Health::Unhealthy => format!("it is unhealthy: {}", instance.doubts()),
            Health::Isolated => "it is isolated by an operator".to_owned(),
        },
    )];
    let wanted = service.spec.failover.min_healthy;
    if wanted > Millis::ZERO && instance.health == Health::Healthy {
        let held = now.since(instance.health_since);
        rules.push(rule("min_healthy", held >= wanted, format!("healthy for {held}, min_healthy is {wanted}")));
    }
    if leaving == Some(&instance.id) {
        rules.push(rule("not_leaving", false, "it is the instance that this move leaves".to_owned()));
    }
    rules
}

/// The first rule that `instance` fails, if any.
pub fn not_eligible(
    service: &Service,
    instance: &Instance,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
) -> Option<String> {
    candidate_rules(service, instance, leaving, now).into_iter().find(|rule| !rule.pass).map(|rule| rule.why)
}

/// The proof that holds for promoting within `transition`, or why none does.
///
/// This version knows `none_needed`, `token` and `operator`. `release`, `lease` and `hook` are parsed and stored, and
/// never hold: a policy that accepts nothing else waits for an operator.
pub fn proof_that_holds(service: &Service, asserted: Option<ProofKind>) -> Result<ProofRecord, String> {
    if asserted == Some(ProofKind::Operator) {
        return Ok(ProofRecord {
            proof: ProofKind::Operator,
            fencing: Fencing::Enforced,
            evidence: "a named operator asserts that the old active has stopped".to_owned(),
        });
    }
    let Some(holder) = &service.assignment.last_holder else {
        return Ok(ProofRecord {
            proof: ProofKind::NoneNeeded,
            fencing: Fencing::Enforced,
            evidence: "nobody has held this service".to_owned(),
        });
    };
    let token =
        |fencing, evidence: &str| Ok(ProofRecord { proof: ProofKind::Token, fencing, evidence: evidence.to_owned() });
    let operator = "an operator may assert it: POST …/failover with \"proof\": \"operator\" and a reason";
    match (&service.spec.fencing.proof, holder.liveness) {
        (ProofPolicy::Auto(AutoWord::Auto), Liveness::Probe) => token(
            Fencing::Advisory,
            "fencing.proof is \"auto\" and the old active is only probed: whoever checks tokens refuses it, nothing else stops it",
        ),
        (ProofPolicy::Auto(AutoWord::Auto), Liveness::Heartbeat) => Err(format!(
            "fencing.proof is \"auto\" and the old active \"{}\" heartbeats, so its lease must end, and leases do not end in this version; {operator}",
            holder.instance
        )),
        (ProofPolicy::List(accepted), _) if accepted.contains(&ProofKind::Token) => {
            token(Fencing::Enforced, "the service declares that its resource refuses old tokens")
        }
        (ProofPolicy::List(accepted), _) => {
            let names: Vec<&str> = accepted.iter().map(|proof| proof.as_str()).collect();
            Err(format!(
                "fencing.proof accepts only {}, none of which can hold in this version; {operator}",
                names.join(", ")
            ))
        }
    }
}
