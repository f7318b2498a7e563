//! What an open move is, and what completes it, in a sentence: for whoever asks for another one meanwhile. And whom an
//! operator's word that the old active has stopped is about, so that nobody is promoted by the word that it is dead.

use super::proof::token_is_enough;
use crate::id::InstanceId;
use crate::state::{Phase, Service};
use crate::transition::Transition;

/// Tells `open`, in that phase of its service.
pub fn open_told(open: &Transition, phase: Phase) -> String {
    let who = open.actor.as_deref().unwrap_or("Baton");
    let to = open.to.as_ref().map_or_else(String::new, |to| format!(" to \"{to}\""));
    let what = format!("it is a {}{to} that {who} began at {}", open.kind, open.started_at);
    match phase {
        Phase::Promoting => {
            format!("{what}, and ends when \"{}\" acknowledges, or its time for that is over", told_to(open))
        }
        Phase::Switching | Phase::FailingOver => {
            format!(
                "{what}, and has nobody active until it ends: a failover completes it, naming another instance if need be"
            )
        }
        Phase::Vacant | Phase::Active => what,
    }
}

fn told_to(open: &Transition) -> &str {
    open.to.as_ref().map_or("nobody", |to| to.as_str())
}

/// Whether this instance held the service last, in the incarnation that is registered now, as far as can be told. Whoever has
/// registered in a new session since is somebody else; one that is probed has none, and may or may not have been restarted.
pub fn held_last(service: &Service, instance: &InstanceId) -> bool {
    let holder = service.assignment.last_holder.as_ref().filter(|holder| holder.instance == *instance);
    let session = service.instances.get(instance).map(|it| &it.session);
    holder.zip(session).is_some_and(|(holder, session)| holder.session == *session)
}

/// Whether this instance is not to be promoted by an operator's word that the old active has stopped, because that word would
/// be about itself. One that is probed may have been restarted: whoever names it may say of its earlier process that it
/// has stopped, where nothing but that word could bring it back.
pub fn word_is_about(service: &Service, instance: &InstanceId) -> bool {
    let holder = service.assignment.last_holder.as_ref();
    held_last(service, instance)
        && holder.is_some_and(|holder| holder.session.is_some() || token_is_enough(service, holder))
}

/// Why the instance that is said to have stopped is not the one to be promoted by that word.
pub const SAID_TO_HAVE_STOPPED: &str = "it is the one that is said to have stopped: name another one, or leave that word out \
     where it lives and is to have the service back";
