//! The report of a plan: what `explain` shows, to the letter.

use serde::{Deserialize, Serialize};

use crate::id::{InstanceId, Revision, ServiceName, Token, TransitionId};
use crate::policy::{Inactive, Mode, words};
use crate::probe::Health;
use crate::rules::{PauseScope, Rail, Rule};
use crate::state::Phase;
use crate::time::{ClusterTime, Millis, WallTime};
use crate::transition::TransitionKind;

words! {
    /// What a plan comes to.
    Decision {
        /// All is as it should be.
        Nothing = "nothing",
        /// Something should be done, and a gate holds it.
        Hold = "hold",
        /// The first active is placed.
        Place = "place",
        /// The active is down and is replaced.
        FailOver = "fail_over",
        /// An open move is completed.
        Promote = "promote",
        /// An open move is given up.
        GiveUp = "give_up",
        /// The preferred instance gets its place back.
        FailBack = "fail_back",
        /// The fencing hook is run.
        Fence = "fence",
        /// Whoever was promoted did not acknowledge: the next one is tried.
        TryNext = "try_next",
        /// A rail is set: an operator must look.
        Brake = "brake",
    }
}

words! {
    /// Whether a gate lets the move through.
    GateVerdict {
        /// It does.
        Pass = "pass",
        /// It does not.
        Hold = "hold",
    }
}

/// One condition of a move, with what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gate {
    /// The gate's word.
    pub gate: String,
    /// Whether it lets the move through.
    pub verdict: GateVerdict,
    /// The measured values, in a sentence.
    pub why: String,
    /// Within how long time alone lets it through, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_most: Option<Millis>,
    /// Whose automation is paused, where the gate is a pause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<PauseScope>,
    /// What an operator may do about a gate that holds, where they may do something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<OperatorMay>,
}

words! {
    /// What an operator may do about a gate that holds.
    OperatorMay {
        /// Move the service all the same: the gate binds Baton alone.
        Pass = "pass",
        /// Say that the old active has stopped: a failover with proof `operator`.
        SayStopped = "say_stopped",
        /// Give the service back to the preferred instance.
        FailBack = "fail_back",
    }
}

impl Gate {
    pub(super) fn new(gate: &str, pass: bool, why: impl Into<String>) -> Self {
        let verdict = if pass { GateVerdict::Pass } else { GateVerdict::Hold };
        Self { gate: gate.to_owned(), verdict, why: why.into(), at_most: None, scope: None, operator: None }
    }

    pub(super) fn of_rail(rail: &Rail, now: ClusterTime) -> Self {
        Self {
            at_most: rail.until.filter(|_| !rail.pass).map(|until| until.since(now)),
            scope: rail.scope,
            operator: (!rail.pass).then_some(OperatorMay::Pass),
            ..Self::new(rail.rail.as_str(), rail.pass, rail.why.clone())
        }
    }
}

/// A move that is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenMove {
    /// What kind it is.
    pub kind: TransitionKind,
    /// When it began, for people.
    pub started_at: WallTime,
    /// Who asked; null for Baton itself.
    pub actor: Option<String>,
    /// The active before, if there was one.
    pub from: Option<InstanceId>,
    /// The instance that was named or chosen for it, if one was.
    pub to: Option<InstanceId>,
    /// Why it began.
    pub reason: String,
}

/// One instance as a candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CandidateReport {
    /// The instance.
    pub instance: InstanceId,
    /// Whether it may be promoted.
    pub eligible: bool,
    /// Its place among those that may, from 1.
    pub rank: Option<u32>,
    /// Its health.
    pub health: Health,
    /// Its tier: lower first.
    pub tier: u32,
    /// Its priority: higher first.
    pub priority: u32,
    /// How far it is behind by its last heartbeat, in its own unit; null where it did not say.
    #[serde(default)]
    pub lag: Option<u64>,
    /// Every rule, met or not.
    pub rules: Vec<Rule>,
}

/// Everything about one service's plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceReport {
    /// The service.
    pub service: ServiceName,
    /// Its mode.
    pub mode: Mode,
    /// Where it stands.
    pub phase: Phase,
    /// The active, if there is one.
    pub active: Option<InstanceId>,
    /// The active's token.
    pub token: Option<Token>,
    /// Since when it is active, for people.
    #[serde(default)]
    pub since: Option<WallTime>,
    /// The active's health, if there is one.
    #[serde(default)]
    pub health: Option<Health>,
    /// Who held the service last, the present active included; null where nobody ever did.
    #[serde(default)]
    pub last_holder: Option<InstanceId>,
    /// The open transition, if there is one.
    pub transition: Option<TransitionId>,
    /// What that transition is.
    #[serde(default)]
    pub open: Option<OpenMove>,
    /// What the plan comes to.
    pub decision: Decision,
    /// The same in a sentence or two.
    pub summary: String,
    /// Why callers get nobody although there is an active; null where they get it.
    #[serde(default)]
    pub callers: Option<String>,
    /// Every gate on the way, in order.
    pub gates: Vec<Gate>,
    /// Every instance as a candidate: those that may be promoted first, in order.
    pub candidates: Vec<CandidateReport>,
    /// Parts of the spec that this version stores but does not act on.
    pub inactive: Vec<Inactive>,
    /// The revision of the state that was looked at.
    pub revision: Revision,
}
