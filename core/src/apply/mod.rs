//! The only room that changes the state. A function of the state and a log entry: it reads no clock and no entropy, so
//! every node that applies the same entries holds the same state.
//!
//! A command that is refused changes nothing: each handler looks first and touches afterwards.

mod automation;
mod breakers;
mod debts;
mod holders;
mod hooks;
mod instances;
mod nodes;
mod operator;
mod services;
mod transitions;
mod verdicts;

use std::collections::BTreeSet;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::command::{Batch, Command, Done, Refusal, Reply};
use crate::event::{Event, EventKind};
use crate::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use crate::probe::Source;
use crate::state::{Change, Instance, Service, State};
use crate::time::{ClusterTime, WallTime};

/// What one log entry came to.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchApplied {
    /// One reply a command, in order.
    pub replies: Vec<Reply>,
    /// What happened, in order of revision.
    pub events: Vec<Recorded>,
    /// The objects touched: their rows are to be written, or removed where they are gone.
    pub changes: BTreeSet<Change>,
}

/// An event with its JSON, made once and shared by the table and every stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The event.
    pub event: Event,
    /// Its JSON.
    pub json: String,
}

/// Where an entry stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The term of the leader that appended it.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

impl From<u64> for Position {
    /// An entry of the first term, where terms do not matter.
    fn from(index: u64) -> Self {
        Self { term: 1, index }
    }
}

/// Applies the log entry at that position.
pub fn apply_batch(state: &mut State, at: impl Into<Position>, batch: &Batch) -> BatchApplied {
    let Position { term, index } = at.into();
    let now = state.meta.cluster_time.max(batch.time);
    state.meta.cluster_time = now;
    let mut entry = Entry {
        state,
        term,
        index,
        now,
        wall: batch.wall,
        events: Vec::new(),
        changes: BTreeSet::from([Change::Meta]),
    };
    let replies = batch.commands.iter().map(|command| entry.apply(command)).collect();
    BatchApplied { replies, events: entry.events, changes: entry.changes }
}

/// What one command alone came to; the same as a batch of one.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer.
    pub reply: Reply,
    /// What happened.
    pub events: Vec<Event>,
    /// The objects touched.
    pub changes: BTreeSet<Change>,
}

/// Applies one command as the log entry at that position.
pub fn apply(
    state: &mut State,
    at: impl Into<Position>,
    time: ClusterTime,
    wall: WallTime,
    command: Command,
) -> Applied {
    let BatchApplied { mut replies, events, changes } =
        apply_batch(state, at, &Batch { time, wall, commands: vec![command] });
    let reply = replies.pop().unwrap_or(Ok(Done::Ok));
    Applied { reply, events: events.into_iter().map(|recorded| recorded.event).collect(), changes }
}

/// One log entry while it is being applied.
struct Entry<'a> {
    state: &'a mut State,
    term: u64,
    index: u64,
    now: ClusterTime,
    wall: WallTime,
    events: Vec<Recorded>,
    changes: BTreeSet<Change>,
}

/// An event before it has its revision and time.
struct Draft {
    kind: EventKind,
    service: Option<ServiceName>,
    instance: Option<InstanceId>,
    node: Option<NodeId>,
    source: Option<Source>,
    from: Option<Option<String>>,
    to: Option<Option<String>>,
    token: Option<Token>,
    transition: Option<TransitionId>,
    reason: String,
    actor: Option<String>,
    cause: Option<Revision>,
}

impl Draft {
    fn new(kind: EventKind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            service: None,
            instance: None,
            node: None,
            source: None,
            from: None,
            to: None,
            token: None,
            transition: None,
            reason: reason.into(),
            actor: None,
            cause: None,
        }
    }

    fn service(mut self, service: &ServiceName) -> Self {
        self.service = Some(service.clone());
        self
    }

    fn instance(mut self, instance: &InstanceId) -> Self {
        self.instance = Some(instance.clone());
        self
    }

    fn node(mut self, node: NodeId) -> Self {
        self.node = Some(node);
        self
    }

    fn source(mut self, source: Source) -> Self {
        self.source = Some(source);
        self
    }

    fn change(mut self, from: Option<impl ToString>, to: Option<impl ToString>) -> Self {
        self.from = Some(from.map(|value| value.to_string()));
        self.to = Some(to.map(|value| value.to_string()));
        self
    }

    fn token(mut self, token: Option<Token>) -> Self {
        self.token = token;
        self
    }

    fn transition(mut self, transition: TransitionId) -> Self {
        self.transition = Some(transition);
        self
    }

    fn actor(mut self, actor: Option<&str>) -> Self {
        self.actor = actor.map(str::to_owned);
        self
    }

    fn cause(mut self, cause: Option<Revision>) -> Self {
        self.cause = cause;
        self
    }
}

impl Entry<'_> {
    fn apply(&mut self, command: &Command) -> Reply {
        match command {
            Command::ClusterCreate { cluster_id } => self.cluster_create(cluster_id),
            Command::NodeAnnounce(announce) => self.node_announce(announce),
            Command::ObserverLost { node, silent_for } => self.observer_lost(*node, *silent_for),
            Command::ObserverBack { node } => self.observer_back(*node),
            Command::ServicePut(put) => self.service_put(put),
            Command::ServiceDelete(delete) => self.service_delete(delete),
            Command::InstancePut(put) => self.instance_put(put),
            Command::InstanceChange(change) => self.instance_change(change),
            Command::InstanceDelete(delete) => self.instance_delete(delete),
            Command::VerdictsRecord(record) => self.verdicts_record(record),
            Command::JudgementsRecord(record) => self.judgements_record(record),
            Command::BreakerTrip(trip) => self.breaker_trip(trip),
            Command::BreakerTried(tried) => self.breaker_tried(tried),
            Command::TrialGrant(grant) => self.trial_grant(grant),
            Command::InstancesDue(due) => self.instances_due(due),
            Command::InstanceAdmin(admin) => self.instance_admin(admin),
            Command::InstanceReset(reset) => self.instance_reset(reset),
            Command::TransitionStart(start) => self.transition_start(start),
            Command::Promote(promote) => self.promote(promote),
            Command::TransitionTake(take) => self.transition_take(take),
            Command::TransitionAbort(abort) => self.transition_abort(abort),
            Command::Release(release) => self.release(release),
            Command::Ack(ack) => self.ack(ack),
            Command::ActivationExpire(expire) => self.activation_expire(expire),
            Command::HookStart(start) => self.hook_start(start),
            Command::HookEnd(end) => self.hook_end(end),
            Command::InstanceLeft(left) => self.instance_left(left),
            Command::InstanceReturned(returned) => self.instance_returned(returned),
            Command::AutomationPause(pause) => self.automation_pause(pause),
            Command::AutomationResume(resume) => self.automation_resume(resume),
            Command::AutomationDue { service } => self.automation_due(service.as_ref()),
            Command::LatchSet { service } => self.latch_set(service),
            Command::BrakeSet => self.brake_set(),
            Command::DebtForget { service, claim } => self.debt_forget(service, claim),
            Command::EventsCompact { through } => self.events_compact(*through),
        }
    }

    /// The revision that the next event will get.
    fn next_revision(&self) -> Revision {
        self.state.meta.revision + 1
    }

    /// Gives an event its revision, adds it to the history and marks what it concerns as changed.
    fn emit(&mut self, draft: Draft) -> Revision {
        let revision = self.next_revision();
        let event = Event {
            revision,
            time: self.wall,
            kind: draft.kind,
            service: draft.service,
            instance: draft.instance,
            node: draft.node,
            source: draft.source,
            from: draft.from,
            to: draft.to,
            token: draft.token,
            transition: draft.transition,
            reason: draft.reason,
            actor: draft.actor,
            cause: draft.cause,
        };
        // An event is made of numbers, names and text: it can always be written as JSON.
        let json = serde_json::to_string(&event).unwrap_or_default();
        let meta = &mut self.state.meta;
        meta.revision = revision;
        meta.events_digest =
            crate::state::hex(&Sha256::new().chain_update(&meta.events_digest).chain_update(&json).finalize());
        if let Some(name) = &event.service {
            meta.services_changed = revision;
            if let Some(service) = self.state.services.get_mut(name) {
                Arc::make_mut(service).changed = revision;
                self.changes.insert(Change::Service(name.clone()));
            }
        }
        self.events.push(Recorded { event, json });
        revision
    }

    /// A service to change; its row is marked.
    fn service_mut(&mut self, name: &ServiceName) -> Result<&mut Service, Refusal> {
        match self.state.services.get_mut(name) {
            Some(service) => {
                self.changes.insert(Change::Service(name.clone()));
                Ok(Arc::make_mut(service))
            }
            None => Err(Refusal::NoSuchService { service: name.clone() }),
        }
    }

    /// An instance to change; its row is marked. `None` where it is gone.
    fn instance_mut(&mut self, service: &ServiceName, id: &InstanceId) -> Option<&mut Instance> {
        let instance = Arc::make_mut(self.state.services.get_mut(service)?).instances.get_mut(id)?;
        self.changes.insert(Change::Instance(service.clone(), id.clone()));
        Some(Arc::make_mut(instance))
    }

    fn service(&self, name: &ServiceName) -> Result<Arc<Service>, Refusal> {
        self.state.services.get(name).cloned().ok_or_else(|| Refusal::NoSuchService { service: name.clone() })
    }

    fn events_compact(&mut self, through: Revision) -> Reply {
        let meta = &mut self.state.meta;
        meta.compacted_through = meta.compacted_through.max(through.min(meta.revision));
        Ok(Done::Ok)
    }
}

/// Compares an `If-Match` generation with what is there; 0 stands for an object that does not exist.
fn check_generation(expected: Option<u64>, actual: u64) -> Result<(), Refusal> {
    match expected {
        Some(expected) if expected != actual => Err(Refusal::GenerationMismatch { expected, actual }),
        Some(_) | None => Ok(()),
    }
}
