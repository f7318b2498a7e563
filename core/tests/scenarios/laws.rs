//! What must hold after every log entry, whatever the story (DESIGN section 9): checked here, cheaply, so that a transcript
//! that breaks a promise fails even where its text looks right.

use std::collections::BTreeMap;

use baton_core::event::{Event, EventKind};
use baton_core::id::{InstanceId, Revision, ServiceName, Token};
use baton_core::probe::{Health, Verdict};
use baton_core::state::{Phase, State};
use baton_core::transition::TransitionStatus;

/// What was seen of the history so far.
#[derive(Debug, Default)]
pub(crate) struct Laws {
    revision: Revision,
    token: Token,
    actives: BTreeMap<ServiceName, InstanceId>,
}

impl Laws {
    /// Checks the state and the events of one more log entry.
    pub(crate) fn after_entry(&mut self, state: &State, events: &[Event]) -> Result<(), String> {
        for event in events {
            if event.revision != self.revision + 1 {
                return Err(format!("revision {} follows {}", event.revision, self.revision));
            }
            self.revision = event.revision;
            self.event(event)?;
        }
        for service in state.services.values() {
            let held = &service.assignment;
            let active = held.active.as_ref();
            // I2: one active, the same that the stream of events tells.
            if active.map(|active| &active.instance) != self.actives.get(&service.name) {
                return Err(format!("I2: the state has {active:?}, the events told {:?}", self.actives));
            }
            let consistent = match held.phase {
                Phase::Vacant => active.is_none() && held.transition.is_none(),
                Phase::Active => active.is_some() && held.transition.is_none(),
                Phase::Switching | Phase::FailingOver => active.is_none() && held.transition.is_some(),
                Phase::Promoting => active.is_some() && held.transition.is_some(),
            };
            if !consistent {
                return Err(format!("the phase does not fit: {held:?}"));
            }
            // Whoever counts healthy has somebody who says so.
            for instance in service.instances.values().filter(|instance| instance.health == Health::Healthy) {
                let counts = state.count(service, instance);
                if counts.verdict != Verdict::Up {
                    return Err(format!("{} is healthy by {counts:?}", instance.id));
                }
            }
        }
        // I10: a move that Baton made has a committed cause and a proof.
        for transition in state.transitions.values() {
            let finished = transition.status == TransitionStatus::Finished;
            let caused = transition.trigger.cause.is_some_and(|cause| cause < transition.id.0);
            if finished && transition.proof.is_none() || transition.actor.is_none() && !caused {
                return Err(format!("I10: {transition:?}"));
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), String> {
        if event.cause.is_some_and(|cause| cause >= event.revision) {
            return Err(format!("an event that is its own cause: {event:?}"));
        }
        if event.from.is_some() && event.from == event.to && event.kind != EventKind::InstanceAdminChanged {
            return Err(format!("a change that changes nothing: {event:?}"));
        }
        if event.kind != EventKind::ActiveChanged {
            return Ok(());
        }
        let Some(service) = &event.service else { return Err(format!("no service: {event:?}")) };
        let before = self.actives.get(service).map(ToString::to_string);
        if event.from != Some(before.clone()) {
            return Err(format!("I2: {before:?} was active, and this leaves another: {event:?}"));
        }
        match (&event.to, event.token) {
            (Some(Some(to)), Some(token)) if token > self.token => {
                self.token = token;
                self.actives.insert(service.clone(), to.parse().map_err(|_| format!("{event:?}"))?);
                Ok(())
            }
            (Some(None), None) => {
                self.actives.remove(service);
                Ok(())
            }
            _ => Err(format!("I1: the last token was {}: {event:?}", self.token)),
        }
    }

    /// Checks the end of a story: the state survives the way to disk and back.
    pub(crate) fn at_the_end(&self, state: &State) -> Result<String, String> {
        let rows = state.rows().collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let back = State::from_rows(rows).map_err(|error| error.to_string())?;
        if back != *state {
            return Err("the state that was written is not the one that is read".to_owned());
        }
        state.hash().map_err(|error| error.to_string())
    }
}
