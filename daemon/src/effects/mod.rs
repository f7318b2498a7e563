//! Effects: carries out what the log says, and decides nothing. What is to be done, by which node, in which attempt and
//! for how long is committed before anything is done here; how it came out is proposed, and what follows from that is
//! the planner's. So nothing here counts attempts, waits between them, or gives up.

#![cfg_attr(
    not(test),
    expect(dead_code, reason = "the loop that runs hooks needs the commands that are about to come")
)]

mod fence_agent;
mod hook;
mod signature;
mod webhook;

#[cfg(test)]
mod tests;

pub(crate) use hook::HookConfig;
pub(crate) use signature::Secret;
