//! Transitions: the record of one move of a service's active. Words and fields only: the state keeps such records, so
//! nothing here knows the state. The rules by which a move is judged are in `rules`.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use crate::policy::{ProofKind, words};
use crate::probe::{Evidence, Source, Verdict};
use crate::time::{ClusterTime, WallTime};

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

/// What the leader judged by one source when a transition began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JudgedEvidence {
    /// What it judged by.
    pub source: Source,
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

/// How an attempt of a fencing hook ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookOutcome {
    /// Whether it confirmed that the holder is cut off.
    pub ok: bool,
    /// The exit code of a fence agent that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The HTTP status of a webhook's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What happened, in a sentence.
    pub detail: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// One attempt of a fencing hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HookAttempt {
    /// Which attempt it is within the transition, from 1.
    pub number: u32,
    /// Whom it cuts off: the holder when it began.
    pub instance: InstanceId,
    /// Under which token that one held the service; null where it served beside others, without one.
    pub token: Option<Token>,
    /// The node that makes it: the leader.
    pub node: NodeId,
    /// Its term. A leader of another term does not know how the attempt ended, and begins another.
    pub term: u64,
    /// When it began, for people.
    pub started_at: WallTime,
    /// The same on the decision clock.
    pub at: ClusterTime,
    /// Whether the attempt before it, of the same holder, has no outcome: that one may have been carried out too.
    pub resumes: bool,
    /// How it ended; null while it is under way, or where its node was lost.
    pub outcome: Option<HookOutcome>,
}

/// One step of a transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// The step's word: `started`, `waiting`, `released`, `hook_started`, `hook_ended`, `proof`, `promoted`, `acknowledged`,
    /// `activation_failed`, `taken_over`, `aborted`.
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
    /// From the promotion to the new active's acknowledgement, where one is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted_to_acknowledged_ms: Option<u64>,
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
    /// What the leader judged of the old active by calls and heartbeats when it began.
    #[serde(default)]
    pub judged: Vec<JudgedEvidence>,
    /// The proof that an operator asserts, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted: Option<ProofKind>,
    /// Who asserts it and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted_because: Option<String>,
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
    /// When the token was minted, on the decision clock: an acknowledgement is waited for from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promoted: Option<ClusterTime>,
    /// Instances that were promoted within it and did not acknowledge, the longest ago first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tried: Vec<InstanceId>,
    /// The attempts of the fencing hook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook: Vec<HookAttempt>,
    /// How many of those runs count no more among the attempts: an operator has taken the move over since.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub hook_forgiven: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Transition {
    /// Whether another than the one that it leaves was promoted within it already. It counts as one move then, however
    /// often somebody else has to be tried.
    pub fn has_moved(&self) -> bool {
        self.tried.iter().any(|tried| self.from.as_ref() != Some(tried))
    }
}
