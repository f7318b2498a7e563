//! I10: every automatic promotion has a committed cause, a proof that held, an eligible candidate and one record. The
//! proofs and the candidate are judged here once more, from the state before, in words of this file's own.

use baton_core::apply::{Position, apply_batch};
use baton_core::breaker::BreakerState;
use baton_core::command::{Batch, Command, Done, Reply};
use baton_core::event::{Event, EventKind};
use baton_core::lease::LeaseClaim;
use baton_core::policy::ProofKind;
use baton_core::probe::Health;
use baton_core::state::{AdminState, Holder, Instance, State};
use baton_core::time::ClusterTime;
use baton_core::transition::Transition;

use crate::sim::world::World;

pub(crate) const NAME: &str = "I10";

pub(crate) fn check(world: &World, index: u64) -> Result<(), String> {
    let Some(past) = world.history.at(index) else { return Ok(()) };
    let (Some(batch), Some(applied)) = (&past.batch, &past.applied) else { return Ok(()) };
    let promotions = applied
        .events
        .iter()
        .map(|it| &it.event)
        .filter(|it| it.kind == EventKind::ActiveChanged && it.token.is_some());
    for event in promotions {
        let Some((place, claim, operator)) = promoting(batch, &applied.replies, event) else {
            return Err(format!("entry {index} promotes by no command that promotes: {event:?}"));
        };
        // The state in which that very command was judged.
        let mut before = world.history.before(index).clone();
        let earlier = Batch { commands: batch.commands[..place].to_vec(), ..Batch::clone(batch) };
        apply_batch(&mut before, Position { term: past.term, index }, &earlier);
        let record = event.transition.and_then(|id| past.after.transitions.get(&id));
        let Some(record) = record else { return Err(format!("entry {index} promotes without a record")) };
        let told = |what: String| format!("entry {index}: {}: {what}", record.id);
        proved(&before, event, record, claim, past.term).map_err(told)?;
        if record.actor.is_none() && !operator {
            caused(record).map_err(told)?;
            let now = past.after.meta.cluster_time;
            eligible(&before, event, now).map_err(told)?;
        }
    }
    Ok(())
}

/// The command that promotes, what it claims of a lease, and whether an operator asks.
fn promoting<'a>(batch: &'a Batch, replies: &[Reply], event: &Event) -> Option<(usize, Option<&'a LeaseClaim>, bool)> {
    let commands = || batch.commands.iter().zip(replies).enumerate();
    let within = commands().find_map(|(place, (command, reply))| match (command, reply) {
        (Command::Promote(promote), Ok(Done::Promoted { token })) if event.token == Some(*token) => {
            Some((place, promote.lease.as_ref(), false))
        }
        (Command::TransitionTake(_), Ok(Done::Promoted { token })) if event.token == Some(*token) => {
            Some((place, None, true))
        }
        // Others promote nobody.
        _ => None,
    });
    within.or_else(|| {
        commands().find_map(|(place, (command, reply))| match (command, reply) {
            (Command::TransitionStart(start), Ok(Done::Started { transition }))
                if event.transition == Some(*transition) =>
            {
                Some((place, start.lease.as_ref(), start.actor.is_some()))
            }
            _ => None,
        })
    })
}

fn caused(record: &Transition) -> Result<(), String> {
    match record.trigger.cause {
        Some(cause) if cause >= 1 && cause < record.id.0 => Ok(()),
        cause => Err(format!("it began by itself, and its cause is {cause:?}")),
    }
}

/// Whether the proof in the record held.
fn proved(
    before: &State,
    event: &Event,
    record: &Transition,
    claim: Option<&LeaseClaim>,
    term: u64,
) -> Result<(), String> {
    let holder: Option<&Holder> =
        event.service.as_ref().and_then(|name| before.service(name)).and_then(|it| it.assignment.last_holder.as_ref());
    let Some(proof) = &record.proof else { return Err("it has no proof".to_owned()) };
    let held = match proof.proof {
        ProofKind::NoneNeeded => holder.is_none() && !before.debts.contains_key(event.service.as_ref().expect("named")),
        ProofKind::Release => holder.is_some_and(|holder| holder.released.is_some()),
        ProofKind::Lease => claim.is_some_and(|claim| {
            claim.term == term
                && holder.is_some_and(|holder| holder.token == Some(claim.token) && holder.lease.is_some())
        }),
        ProofKind::Hook => holder.is_some_and(|holder| holder.fenced.is_some()),
        // A declaration, and a person's word.
        ProofKind::Token | ProofKind::Operator => true,
    };
    if held { Ok(()) } else { Err(format!("proof {} did not hold of {holder:?} by {claim:?}", proof.proof)) }
}

/// Whether the one that was chosen may be.
fn eligible(before: &State, event: &Event, now: ClusterTime) -> Result<(), String> {
    let found = event.service.as_ref().zip(event.instance.as_ref()).and_then(|(name, id)| before.instance(name, id));
    let Some(instance) = found else { return Err("it promotes somebody who is not there".to_owned()) };
    let Instance { health, admin, breaker, recovery, left, .. } = instance.as_ref();
    let cooling = recovery.as_ref().and_then(|recovery| recovery.cooldown_until).is_some_and(|until| now < until);
    let open = breaker.state == BreakerState::Open;
    if *health == Health::Healthy && admin.state == AdminState::Enabled && !open && !left && !cooling {
        return Ok(());
    }
    Err(format!(
        "it promotes \"{}\": {health}, {}, open: {open}, left: {left}, cooling: {cooling}",
        instance.id, admin.state
    ))
}
