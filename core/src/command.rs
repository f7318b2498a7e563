//! Everything that can be asked of the state machine, and how it answers. A command carries all that `apply` needs:
//! the time, the entropy and the choices come with it. One closed enum with its bodies and refusals: longer than a room should
//! be, and of one subject.

use serde::{Deserialize, Serialize};

use crate::calls::BreakerNumbers;
use crate::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use crate::lease::LeaseClaim;
use crate::policy::{ProofKind, Registration, Spec};
use crate::probe::{Evidence, Health, Verdict};
use crate::state::{AdminState, ReleaseHow, Source};
use crate::time::{ClusterTime, Millis, WallTime};
use crate::transition::{HookOutcome, TransitionKind, Trigger};

/// One log entry: commands that were proposed together, in order, under one stamp of the leader's clocks.
///
/// Batching is why many clients do not cost many entries. At most one promotion is accepted in a batch, since its token
/// is made of the entry's log index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// The decision clock when the leader proposed it.
    pub time: ClusterTime,
    /// The leader's wall clock then: a label.
    pub wall: WallTime,
    /// The commands, in order.
    pub commands: Vec<Command>,
}

/// One request to change the state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Gives the cluster its id; only the first one counts.
    ClusterCreate {
        /// A UUID, made by the first leader.
        cluster_id: String,
    },
    /// A node says where it can be reached.
    NodeAnnounce(NodeAnnounce),
    /// The leader no longer hears a node: its verdicts leave the denominator.
    ObserverLost {
        /// The node.
        node: NodeId,
        /// How long the leader has not heard it.
        silent_for: Millis,
    },
    /// The leader hears a lost node again.
    ObserverBack {
        /// The node.
        node: NodeId,
    },
    /// Creates a service or replaces its spec.
    ServicePut(ServicePut),
    /// Removes a service and its instances.
    ServiceDelete(ServiceDelete),
    /// Registers an instance or replaces its registration.
    InstancePut(InstancePut),
    /// Changes what is said of a registered instance, in its present session.
    InstanceChange(InstanceChange),
    /// Removes an instance.
    InstanceDelete(InstanceDelete),
    /// An observer's verdicts changed.
    VerdictsRecord(VerdictsRecord),
    /// What the leader judges from calls and heartbeats changed.
    JudgementsRecord(JudgementsRecord),
    /// Too many calls to an instance failed: its breaker opens.
    BreakerTrip(BreakerTrip),
    /// Calls to an instance whose breaker is half open have ended.
    BreakerTried(BreakerTried),
    /// Somebody wants to make a trial call.
    TrialGrant(TrialGrant),
    /// The time has come for something about these instances; what, `apply` sees.
    InstancesDue(InstancesDue),
    /// An operator enables, drains, maintains or isolates an instance.
    InstanceAdmin(InstanceAdmin),
    /// An operator makes everything forgotten that speaks against an instance.
    InstanceReset(InstanceReset),
    /// Opens a transition: the service has no active from here on, until the promotion.
    TransitionStart(TransitionStart),
    /// Promotes an instance within an open transition, and mints its token.
    Promote(Promote),
    /// An operator takes over an open transition: names who is to be promoted, perhaps that the old one has stopped.
    TransitionTake(TransitionTake),
    /// Gives up an open transition.
    TransitionAbort(TransitionAbort),
    /// The holder has stopped.
    Release(Release),
    /// The promoted instance serves.
    Ack(Ack),
    /// The promoted instance did not acknowledge in time, or fell ill before it did.
    ActivationExpire(ActivationExpire),
    /// The fencing hook is about to be run.
    HookStart(HookStart),
    /// A run of the fencing hook has ended.
    HookEnd(HookEnd),
    /// An instance that holds nothing goes away.
    InstanceLeft(InstanceLeft),
    /// An instance that left heartbeats again.
    InstanceReturned(InstanceReturned),
    /// An operator stops Baton from moving a service, or all, for a while.
    AutomationPause(AutomationPause),
    /// An operator lets it move them again: ends a pause, a latch, the brake.
    AutomationResume(AutomationResume),
    /// The end of a pause has come.
    AutomationDue {
        /// The service; `None`: of the pause of all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<ServiceName>,
    },
    /// A service was moved too often.
    LatchSet {
        /// The service.
        service: ServiceName,
    },
    /// Too many services want to fail over at once.
    BrakeSet,
    /// The lease that a deleted service owes has run out.
    DebtForget {
        /// The service's name.
        service: ServiceName,
        /// Why it is believed.
        claim: LeaseClaim,
    },
    /// Forgets events up to a revision, on every node alike.
    EventsCompact {
        /// The last revision to forget.
        through: Revision,
    },
}

/// Where a node can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAnnounce {
    /// The node.
    pub node: NodeId,
    /// `host:port` of its API listener.
    pub api: String,
    /// `host:port` of its peer listener.
    pub peer: String,
    /// The version of its binary.
    pub version: String,
}

/// Creates a service or replaces its spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicePut {
    /// Its name.
    pub service: ServiceName,
    /// What is wanted of it.
    pub spec: Box<Spec>,
    /// Only if its generation is this one (`If-Match`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<u64>,
    /// Who asks.
    pub actor: String,
}

/// Removes a service and its instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceDelete {
    /// Its name.
    pub service: ServiceName,
    /// Only if its generation is this one (`If-Match`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<u64>,
    /// Who asks.
    pub actor: String,
}

/// Registers an instance or replaces its registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancePut {
    /// Its service.
    pub service: ServiceName,
    /// Its id.
    pub instance: InstanceId,
    /// What is said of it.
    pub registration: Box<Registration>,
    /// The session that a `heartbeat` instance gets: entropy, so it comes from the edge.
    pub session: String,
    /// Only if its generation is this one (`If-Match`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<u64>,
    /// Who asks.
    pub actor: String,
}

/// Changes what is said of a registered instance. It goes on in the session that it has, so its tenure goes on too; whose
/// life shows otherwise than before is somebody else, and registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceChange {
    /// Its service.
    pub service: ServiceName,
    /// Its id.
    pub instance: InstanceId,
    /// All that is said of it from now on.
    pub registration: Box<Registration>,
    /// Only if its generation is this one: what was changed is made from what was seen.
    pub if_generation: u64,
    /// Who asks.
    pub actor: String,
}

/// Removes an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceDelete {
    /// Its service.
    pub service: ServiceName,
    /// Its id.
    pub instance: InstanceId,
    /// Only if its generation is this one (`If-Match`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_generation: Option<u64>,
    /// Who asks.
    pub actor: String,
}

/// An observer's verdicts changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictsRecord {
    /// The observer.
    pub observer: NodeId,
    /// What it holds now, instance by instance.
    pub verdicts: Vec<VerdictReport>,
}

/// What an observer holds of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictReport {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The instance's `epoch` that was looked at; a verdict on an older one is dropped.
    pub epoch: Revision,
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub evidence: Evidence,
}

/// What the leader judges from calls and heartbeats changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JudgementsRecord {
    /// What it holds now, instance by instance.
    pub judgements: Vec<Judgement>,
}

/// What the leader holds of one instance by one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The instance's `epoch` that was judged; a judgement on an older one is dropped.
    pub epoch: Revision,
    /// Judged by what.
    pub source: Source,
    /// The verdict; `unknown`: there is nothing to judge by any more.
    pub verdict: Verdict,
    /// Why.
    pub evidence: Evidence,
}

/// Too many calls failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerTrip {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The breaker's generation that was seen; refused when it is another one.
    pub generation: u64,
    /// What was counted.
    pub numbers: BreakerNumbers,
}

/// Calls to an instance whose breaker is half open have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakerTried {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The breaker's generation that was seen; refused when it is another one.
    pub generation: u64,
    /// What was counted since the last such command; one failure in it opens the breaker again.
    pub numbers: BreakerNumbers,
    /// How many of the good calls had been granted, as their reports showed by naming the generation: so many places are
    /// free again.
    #[serde(default)]
    pub granted: u64,
}

/// Somebody wants to make a trial call. Counted in the log, so that the bound holds across the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialGrant {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The breaker's generation that was seen; refused when it is another one.
    pub generation: u64,
}

/// The time has come for something about these instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstancesDue {
    /// The service.
    pub service: ServiceName,
    /// Those whose breaker, recovery or operator's word has come to an end.
    pub instances: Vec<InstanceId>,
    /// Those that were missing for too long and are to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<InstanceId>,
}

/// An operator's word about an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceAdmin {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// What is allowed from now on.
    pub state: AdminState,
    /// Why.
    pub reason: String,
    /// For how long; `None`: until somebody says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lasts: Option<Millis>,
    /// That end as whoever asked wrote it, where it was written as a time of day. A label: it is told, and decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
    /// Who says so.
    pub actor: String,
}

/// An operator makes everything forgotten that speaks against an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReset {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub actor: String,
}

/// Opens a transition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransitionStart {
    /// The service.
    pub service: ServiceName,
    /// What kind of move.
    pub kind: TransitionKind,
    /// The token of the active that the proposer saw; `None`: it saw no active. Refused when that has moved on.
    pub seen_token: Option<Token>,
    /// The token of the last holder that the proposer saw: what an operator asserts is about that one. Refused when something
    /// is asserted and it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_holder: Option<Token>,
    /// The instance to promote. Where a proof holds already, it is promoted by this very command, so that readers never
    /// see a gap. `None`: there is no candidate yet, and the service waits without an active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Target>,
    /// The proof an operator asserts, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted: Option<ProofKind>,
    /// That the last holder's lease has run out, where the proposer has sealed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseClaim>,
    /// Why.
    pub trigger: Trigger,
    /// Who asks; `None` for Baton itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// An instance as the proposer saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The instance.
    pub instance: InstanceId,
    /// Its epoch: a re-registration in between refuses the promotion.
    pub epoch: Revision,
    /// How far it was behind by its last heartbeat, in its own unit. Only the leader knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<u64>,
}

/// Promotes an instance within an open transition.
///
/// Where an operator asks for it, and the proof that holds is another one or may still come, nobody is promoted yet: the open
/// move is theirs from there on and goes to that instance, and the planner completes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promote {
    /// The service.
    pub service: ServiceName,
    /// The open transition that the proposer saw. Refused when it is no longer the open one.
    pub transition: TransitionId,
    /// The instance to promote; refused unless it may be.
    pub to: Target,
    /// Why the proposer believes that the old active has stopped. Refused unless that very proof holds at apply.
    pub proof: ProofKind,
    /// The token of the last holder that the proposer saw: the proof is about that one. Refused when it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_token: Option<Token>,
    /// That the last holder's lease has run out, where the proposer has sealed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseClaim>,
}

/// An operator takes over an open transition. It is completed at once where a proof holds, else by the leader once one does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionTake {
    /// The service.
    pub service: ServiceName,
    /// The open transition that the operator saw. Refused when it is no longer the open one.
    pub transition: TransitionId,
    /// The token of the last holder that they saw: what they assert is about that one. Refused when something is asserted and
    /// it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_holder: Option<Token>,
    /// The instance to promote; refused unless it may be.
    pub to: Target,
    /// The proof that the operator asserts, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asserted: Option<ProofKind>,
    /// Why.
    pub reason: String,
    /// Who takes it over: they answer for it from here on.
    pub actor: String,
}

/// Gives up an open transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransitionAbort {
    /// The service.
    pub service: ServiceName,
    /// The open transition that the proposer saw.
    pub transition: TransitionId,
    /// Why.
    pub reason: String,
}

/// The holder's word that it has stopped. It counts for the session and the token that it names, and no other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The session that held the token; none for an instance that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The token.
    pub token: Token,
    /// Whether it is no candidate until it heartbeats again.
    #[serde(default)]
    pub leaving: bool,
    /// How we know.
    pub how: ReleaseHow,
    /// Why it stopped.
    pub reason: String,
}

/// A promoted instance's word that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Its session; none for an instance that is probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The token under which it serves.
    pub token: Token,
}

/// The promoted instance did not acknowledge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActivationExpire {
    /// The service.
    pub service: ServiceName,
    /// The open transition that the proposer saw.
    pub transition: TransitionId,
    /// The token that was not acknowledged.
    pub token: Token,
}

/// A run of the fencing hook is about to begin, on the node that proposes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookStart {
    /// The service.
    pub service: ServiceName,
    /// The open transition that the proposer saw.
    pub transition: TransitionId,
    /// The number of the run: one more than there were.
    pub attempt: u32,
    /// The node that will run it.
    pub node: NodeId,
    /// The term in which it leads. Refused in a log entry of another one: nobody would run it.
    pub term: u64,
}

/// A run of the fencing hook has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookEnd {
    /// The service.
    pub service: ServiceName,
    /// The transition within which it was run.
    pub transition: TransitionId,
    /// Which run.
    pub attempt: u32,
    /// How it ended.
    pub outcome: HookOutcome,
}

/// The word of an instance that holds nothing that it goes away: it is no candidate until it heartbeats again. Whoever holds
/// the service names its token instead, in a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLeft {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The session that ends.
    pub session: String,
    /// Why.
    pub reason: String,
}

/// An instance that left heartbeats again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceReturned {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// The session in which it does.
    pub session: String,
}

/// An operator stops Baton from moving a service, or all, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomationPause {
    /// The service; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Why.
    pub reason: String,
    /// Who answers for it.
    pub owner: String,
    /// For how long.
    pub lasts: Millis,
    /// That end as whoever asked wrote it, where it was written as a time of day. A label: it decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<WallTime>,
    /// Who asks.
    pub actor: String,
}

/// An operator lets Baton move a service, or all, by itself again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomationResume {
    /// The service: ends its pause and its latch. `None`: ends the pause of all, and the brake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub actor: String,
}

/// What a command came to.
pub type Reply = Result<Done, Refusal>;

/// A command that was carried out, or had been already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "done", rename_all = "snake_case")]
pub enum Done {
    /// Carried out; nothing more to say.
    Ok,
    /// The object now has this generation.
    Stored {
        /// Whether it is new.
        created: bool,
        /// Its generation.
        generation: u64,
        /// The session of a `heartbeat` instance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session: Option<String>,
    },
    /// The transition is open.
    Started {
        /// Its id.
        transition: TransitionId,
    },
    /// One trial call may be made.
    Granted {
        /// The breaker's generation: to be named when it is reported how the call went.
        generation: u64,
    },
    /// The instance is active.
    Promoted {
        /// Its token.
        token: Token,
    },
}

/// Why a command was not carried out. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Refusal {
    /// There is no such service.
    #[error("there is no service \"{service}\"")]
    NoSuchService {
        /// The name.
        service: ServiceName,
    },
    /// There is no such instance.
    #[error("service \"{service}\" has no instance \"{instance}\"")]
    NoSuchInstance {
        /// The service.
        service: ServiceName,
        /// The id.
        instance: InstanceId,
    },
    /// `If-Match` names another generation.
    #[error("the generation is {actual}, not {expected}: read it again and decide again")]
    GenerationMismatch {
        /// What was asked for.
        expected: u64,
        /// What it is; 0 where the object does not exist.
        actual: u64,
    },
    /// The instance is active already.
    #[error("\"{instance}\" is the active of \"{service}\" already")]
    AlreadyActive {
        /// The service.
        service: ServiceName,
        /// The instance.
        instance: InstanceId,
    },
    /// Another transition of the service is running.
    #[error("{transition} of \"{service}\" is running, and there is one at a time: {why}")]
    TransitionInProgress {
        /// The service.
        service: ServiceName,
        /// The running one.
        transition: TransitionId,
        /// What it is, and what completes it.
        #[serde(default)]
        why: String,
    },
    /// The instance may not be promoted.
    #[error("\"{instance}\" may not be promoted: {why}")]
    NotEligible {
        /// The instance.
        instance: InstanceId,
        /// The rule and the measured value.
        why: String,
    },
    /// No instance may be promoted.
    #[error("no instance of \"{service}\" may be promoted: {why}")]
    NoCandidate {
        /// The service.
        service: ServiceName,
        /// Each instance and why not.
        why: String,
    },
    /// The proof is not accepted, or does not hold.
    #[error("proof \"{proof}\" does not hold: {why}")]
    ProofRefused {
        /// The proof.
        proof: ProofKind,
        /// Why it does not hold and what would.
        why: String,
    },
    /// The service has no active to move.
    #[error("\"{service}\" has no active: {why}")]
    NoActive {
        /// The service.
        service: ServiceName,
        /// What would help.
        why: String,
    },
    /// The active is not well, and what was asked for wants both sides well.
    #[error(
        "\"{instance}\", the active of \"{service}\", is {health}, and a switchover or failback wants both sides well: a \
         failover does not ask for that (`baton failover {service}`)"
    )]
    ActiveNotWell {
        /// The service.
        service: ServiceName,
        /// Its active.
        instance: InstanceId,
        /// How that one is.
        health: Health,
    },
    /// Only services with one active have transitions.
    #[error("\"{service}\" is active_active: all its healthy instances serve, there is nothing to promote")]
    NotActivePassive {
        /// The service.
        service: ServiceName,
    },
    /// No trial call may be made now.
    #[error("no trial call to \"{instance}\" now: {why}")]
    NoTrial {
        /// The instance.
        instance: InstanceId,
        /// Why not.
        why: String,
    },
    /// The instance is active, and what was asked would leave the service without anybody who looks after it.
    #[error("\"{instance}\" is the active of \"{service}\": {why}")]
    IsActive {
        /// The service.
        service: ServiceName,
        /// The instance.
        instance: InstanceId,
        /// What to do first.
        why: String,
    },
    /// The session is not the instance's present one, or not the one that held the token.
    #[error("the session is not the one in which \"{instance}\" {what}: register anew")]
    UnknownSession {
        /// The instance.
        instance: InstanceId,
        /// What the right session has: `is registered`, `held the token`.
        what: String,
    },
    /// The instance does not hold the service under that token.
    #[error("\"{instance}\" does not hold \"{service}\" under token {token}: {why}")]
    NotHolder {
        /// The service.
        service: ServiceName,
        /// The instance.
        instance: InstanceId,
        /// The token that was named.
        token: Token,
        /// Who does.
        why: String,
    },
    /// Automation is held: an operator may do it all the same.
    #[error("\"{service}\" is not moved automatically now: {why}")]
    AutomationHeld {
        /// The service.
        service: ServiceName,
        /// Which rail, and the measured values.
        why: String,
    },
    /// There is nothing of the kind.
    #[error("nothing to do: {why}")]
    NothingToDo {
        /// What there is instead.
        why: String,
    },
    /// What the proposer saw has moved on. The proposer looks again.
    #[error("{what} has moved on since this was decided")]
    MovedOn {
        /// What has moved on.
        what: String,
    },
    /// A bound of the state was reached.
    #[error("{what}: at most {limit}")]
    LimitReached {
        /// What is bounded.
        what: String,
        /// The bound.
        limit: u64,
    },
}

impl Refusal {
    /// The refusal's stable word, as the API's problem documents carry it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSuchService { .. } => "no_such_service",
            Self::NoSuchInstance { .. } => "no_such_instance",
            Self::GenerationMismatch { .. } => "generation_mismatch",
            Self::AlreadyActive { .. } => "already_active",
            Self::TransitionInProgress { .. } => "transition_in_progress",
            Self::NotEligible { .. } => "not_eligible",
            Self::NoCandidate { .. } => "no_candidate",
            Self::ProofRefused { .. } => "proof_refused",
            Self::NoActive { .. } => "no_active",
            Self::ActiveNotWell { .. } => "active_not_well",
            Self::NotActivePassive { .. } => "not_active_passive",
            Self::NoTrial { .. } => "no_trial",
            Self::IsActive { .. } => "is_active",
            Self::UnknownSession { .. } => "unknown_session",
            Self::NotHolder { .. } => "not_holder",
            Self::AutomationHeld { .. } => "automation_held",
            Self::NothingToDo { .. } => "nothing_to_do",
            Self::MovedOn { .. } => "moved_on",
            Self::LimitReached { .. } => "limit_reached",
        }
    }
}
