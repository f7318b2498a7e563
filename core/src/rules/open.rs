//! What an open move is, and what completes it, in a sentence: for whoever asks for another one meanwhile.

use crate::state::Phase;
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
