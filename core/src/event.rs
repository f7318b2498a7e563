//! What happened, as everybody is told. An event gets its revision inside `apply`, so every node holds the same stream.

use serde::{Deserialize, Deserializer, Serialize};

use crate::id::{InstanceId, NodeId, Revision, ServiceName, Token, TransitionId};
use crate::policy::words;
use crate::probe::Source;
use crate::time::WallTime;

words! {
    /// What kind of thing happened.
    EventKind {
        /// A service is new.
        ServiceCreated = "service.created",
        /// A service's spec changed.
        ServiceUpdated = "service.updated",
        /// A service is gone.
        ServiceDeleted = "service.deleted",
        /// An instance is new.
        InstanceRegistered = "instance.registered",
        /// An instance's registration changed.
        InstanceUpdated = "instance.updated",
        /// An instance is gone.
        InstanceDeregistered = "instance.deregistered",
        /// What the cluster agrees on about an instance changed.
        InstanceHealthChanged = "instance.health_changed",
        /// Whether calls may go to an instance changed.
        InstanceBreakerChanged = "instance.breaker_changed",
        /// An operator enabled, drained, maintains or isolated an instance, or the time that was given for it is over.
        InstanceAdminChanged = "instance.admin_changed",
        /// An operator made everything forgotten that speaks against an instance.
        InstanceReset = "instance.reset",
        /// What one observer holds of an instance changed.
        VerdictChanged = "verdict.changed",
        /// Another instance is active, or none.
        ActiveChanged = "active.changed",
        /// A transition began.
        TransitionStarted = "transition.started",
        /// A transition went a step further.
        TransitionStep = "transition.step",
        /// A transition reached its end.
        TransitionFinished = "transition.finished",
        /// A transition was given up.
        TransitionAborted = "transition.aborted",
        /// Baton moves a service, or all of them, no longer by itself, for a while.
        AutomationPaused = "automation.paused",
        /// It does so again.
        AutomationResumed = "automation.resumed",
        /// It stopped moving a service, or all of them, of its own accord: an operator must look.
        AutomationBraked = "automation.braked",
        /// A node announced itself for the first time, or a known one under another address or version.
        NodeJoined = "node.joined",
        /// A node no longer answers the leader: it observes nothing.
        NodeLost = "node.lost",
        /// A lost node answers again.
        NodeBack = "node.back",
    }
}

/// One entry of the cluster's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its number: 1, 2, 3, ... without gaps.
    pub revision: Revision,
    /// When the leader proposed what led to it. A label, not an order: the order is the revision's.
    pub time: WallTime,
    /// What kind of thing happened.
    #[serde(rename = "type")]
    pub kind: EventKind,
    /// The service concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The instance concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// The node concerned: the observer of a verdict, the node that joined or was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// What the leader judged by, where the verdict is its own and not an observer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What it was before. `active.changed` always has it, null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub from: Option<Option<String>>,
    /// What it is now. `active.changed` always has it, null for none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub to: Option<Option<String>>,
    /// The fencing token concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The transition it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transition: Option<TransitionId>,
    /// Why, in a sentence.
    pub reason: String,
    /// Who asked for it, where a person or a program did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// The revision that led to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Revision>,
}

/// Tells a null that was sent from a field that was not.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<String>>, D::Error> {
    Option::<String>::deserialize(from).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_that_was_sent_is_kept() {
        let event = Event {
            revision: 7,
            time: WallTime(0),
            kind: EventKind::ActiveChanged,
            service: None,
            instance: None,
            node: None,
            source: None,
            from: Some(None),
            to: Some(Some("a".to_owned())),
            token: None,
            transition: None,
            reason: String::new(),
            actor: None,
            cause: None,
        };
        let text = serde_json::to_string(&event).expect("events serialize");
        assert!(text.contains(r#""from":null,"to":"a""#), "{text}");
        assert_eq!(serde_json::from_str::<Event>(&text).expect("and come back"), event);
    }
}
