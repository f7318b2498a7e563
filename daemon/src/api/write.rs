//! Changing something: a command is proposed under the client's precondition, and the answer waits until this node has
//! applied the change itself, so that whoever reads here next finds it.

use std::time::Duration;

use axum::http::StatusCode;
use baton_client::view::{Removed, Stored};
use baton_core::command::{Command, Done, Refusal};
use baton_core::id::Revision;
use tokio::time::timeout;

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::Precondition;
use crate::store::View;

/// How long an answer waits for this node to apply what the cluster has accepted. A follower is one message behind; one
/// that is further behind answers without a revision.
const LOCAL_APPLY_WAIT: Duration = Duration::from_secs(1);

/// How often `If-Match: *` looks again when the object changes under it.
const EXISTS_TRIES: usize = 8;

/// Proposes the command that `command` makes of a generation to insist on. `now` tells the object's generation in a
/// view.
pub(crate) async fn propose_if(
    state: &ApiState,
    precondition: Precondition,
    now: impl Fn(&View) -> Option<u64>,
    command: impl Fn(Option<u64>) -> Command,
) -> Result<Done, ApiError> {
    let insist = match precondition {
        Precondition::Any => None,
        // The generation of what does not exist is 0.
        Precondition::Absent => Some(0),
        Precondition::Generation(generation) => Some(generation),
        Precondition::Exists => return propose_if_exists(state, now, command).await,
    };
    Ok(state.consensus.propose(command(insist)).await??)
}

/// "It exists" is not something a command can insist on, but "it is the one that I saw" is: look, insist, look again.
async fn propose_if_exists(
    state: &ApiState,
    now: impl Fn(&View) -> Option<u64>,
    command: impl Fn(Option<u64>) -> Command,
) -> Result<Done, ApiError> {
    let mut last = Refusal::MovedOn { what: "the object".to_owned() };
    for _ in 0..EXISTS_TRIES {
        state.consensus.barrier().await?;
        let Some(generation) = now(&state.consensus.reader().view()) else {
            return Err(ApiError::PreconditionFailed("If-Match asks for an object that is not there".to_owned()));
        };
        match state.consensus.propose(command(Some(generation))).await? {
            Ok(done) => return Ok(done),
            Err(refusal @ Refusal::GenerationMismatch { .. }) => last = refusal,
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(last.into())
}

/// Waits until this node's own view holds a change, and returns a revision that has it in it.
pub(crate) async fn applied_here(state: &ApiState, holds: impl Fn(&View) -> bool) -> Option<Revision> {
    let reader = state.consensus.reader();
    let mut applied = reader.watch();
    let wait = async {
        loop {
            applied.borrow_and_update();
            let view = reader.view();
            if holds(&view) {
                return Some(view.state.meta.revision);
            }
            applied.changed().await.ok()?;
        }
    };
    timeout(LOCAL_APPLY_WAIT, wait).await.ok().flatten()
}

/// The answer to a PUT: 201 for what is new, else 200.
pub(crate) fn stored(stored: &Stored) -> Result<Answer, ApiError> {
    let status = if stored.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(seen(Answer::json(stored)?, stored.revision).generation(stored.generation).status(status))
}

/// The answer to a DELETE.
pub(crate) fn removed(removed: &Removed) -> Result<Answer, ApiError> {
    Ok(seen(Answer::json(removed)?, removed.revision))
}

fn seen(answer: Answer, revision: Option<Revision>) -> Answer {
    match revision {
        Some(revision) => answer.at(revision),
        None => answer,
    }
}
