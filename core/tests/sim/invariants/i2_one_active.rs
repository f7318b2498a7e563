//! I2: in every applied state a service has at most one active, and a promotion is a compare-and-set: whoever proposed
//! it saw the token that was there.

use baton_core::apply::{Position, apply_batch};
use baton_core::command::{Batch, Command, Done};
use baton_core::id::{ServiceName, Token};
use baton_core::policy::Mode;
use baton_core::state::{Phase, Service, State};

use crate::sim::world::World;

pub(crate) const NAME: &str = "I2";

pub(crate) fn check(world: &World, index: u64) -> Result<(), String> {
    let (before, Some(past)) = (world.history.before(index), world.history.at(index)) else { return Ok(()) };
    for service in past.after.services.values() {
        consistent(&past.after, service).map_err(|what| format!("entry {index}: {}: {what}", service.name))?;
    }
    let (Some(batch), Some(applied)) = (&past.batch, &past.applied) else { return Ok(()) };
    for (place, (command, reply)) in batch.commands.iter().zip(&applied.replies).enumerate() {
        let (
            Command::TransitionStart(_) | Command::Promote(_) | Command::TransitionTake(_),
            Ok(Done::Started { .. } | Done::Promoted { .. }),
        ) = (command, reply)
        else {
            continue;
        };
        // The state in which this very command was judged.
        let mut state = before.clone();
        let earlier = Batch { commands: batch.commands[..place].to_vec(), ..Batch::clone(batch) };
        apply_batch(&mut state, Position { term: past.term, index }, &earlier);
        compared(&state, command).map_err(|what| format!("entry {index}: {what}"))?;
    }
    Ok(())
}

/// Whether what the proposer of a command that promotes saw was there.
fn compared(state: &State, command: &Command) -> Result<(), String> {
    let there = |name: &ServiceName| state.service(name).ok_or_else(|| format!("{name} is not there"));
    if let Command::TransitionStart(start) = command {
        let service = there(&start.service)?;
        let is: Option<Token> = service.active_token();
        if is != start.seen_token || service.assignment.transition.is_some() {
            return Err(format!(
                "a {} that saw {:?} was let pass where there was {is:?}",
                start.kind, start.seen_token
            ));
        }
    }
    if let Command::Promote(promote) = command {
        let assignment = &there(&promote.service)?.assignment;
        let is = assignment.last_holder.as_ref().and_then(|holder| holder.token);
        let open = assignment.transition == Some(promote.transition) && assignment.active.is_none();
        if !open || is != promote.seen_token {
            return Err(format!(
                "a promotion within {} that saw {:?} was let pass where there was {assignment:?}",
                promote.transition, promote.seen_token
            ));
        }
    }
    if let Command::TransitionTake(take) = command {
        let assignment = &there(&take.service)?.assignment;
        if assignment.transition != Some(take.transition) || assignment.active.is_some() {
            return Err(format!("{} was taken over where there was {assignment:?}", take.transition));
        }
    }
    Ok(())
}

/// Whether the parts of an assignment fit each other.
fn consistent(state: &State, service: &Service) -> Result<(), String> {
    let assignment = &service.assignment;
    let open = state.open_transition(service);
    if assignment.transition.is_some() != open.is_some() {
        return Err(format!("{:?} is open and has no record", assignment.transition));
    }
    let fits = match assignment.phase {
        Phase::Vacant => assignment.active.is_none() && open.is_none(),
        Phase::Active => assignment.active.is_some() && open.is_none(),
        Phase::Switching | Phase::FailingOver => assignment.active.is_none() && open.is_some(),
        Phase::Promoting => assignment.active.is_some() && open.is_some(),
    };
    if !fits {
        return Err(format!("phase {} does not fit {assignment:?}", assignment.phase));
    }
    if let Some(active) = &assignment.active {
        if service.spec.mode != Mode::ActivePassive || !service.instances.contains_key(&active.instance) {
            return Err(format!("\"{}\" is active and cannot be", active.instance));
        }
        let held = assignment.last_holder.as_ref();
        if held.is_none_or(|held| held.instance != active.instance || held.token != Some(active.token)) {
            return Err(format!("{active:?} is active, and the last holder is {held:?}"));
        }
    }
    Ok(())
}
