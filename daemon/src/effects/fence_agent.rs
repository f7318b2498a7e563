//! The fence agent: a local command, by the name that this node's own configuration gives it. It is told whom to cut off
//! in its environment and, in the way of the ClusterLabs fence agents (FenceAgentAPI: `key=value` lines), on its standard
//! input, so that a stock agent can be used as it is. Exit code 0 means that the holder is cut off, and nothing else does.

use std::os::unix::process::ExitStatusExt;

use baton_core::time::Millis;

use super::hook::{HookAsk, HookMeans, Told};
use crate::program::{self, Ended};

/// Runs the command called `name`, and kills it with all that it started when its time is up.
pub(super) async fn run(name: &str, timeout: Millis, ask: &HookAsk, means: &HookMeans) -> Told {
    let known = means.config.agents.iter().find(|(agent, _)| agent.as_str() == name);
    let Some((_, command)) = known else {
        let node = means.node;
        return Told::failure(format!(
            "node {node} has no fence agent \"{name}\": give it [fence_agents.{name}] in its configuration"
        ));
    };
    let facts = facts(ask);
    let input = input(ask);
    match tokio::time::timeout(timeout.as_duration(), program::run(command, &facts, Some(input.as_bytes()))).await {
        Err(_) => Told::failure(format!(
            "fence agent \"{name}\" did not end within {timeout} and was killed: whether it cut the holder off is not known"
        )),
        Ok(Err(error)) => Told::failure(format!("fence agent \"{name}\": {error}")),
        Ok(Ok(ended)) => judge(name, ended, ask),
    }
}

fn judge(name: &str, ended: Ended, ask: &HookAsk) -> Told {
    let Ended { status, out, err } = ended;
    // What it says may hold what only this node's people should read, so it goes to this node's log and no further.
    let HookAsk { transition, attempt, .. } = ask;
    tracing::info!(agent = name, %transition, attempt, %status, out, err, "a fence agent ended");
    let detail = match (status.code(), status.signal()) {
        (Some(code), _) => format!("fence agent \"{name}\" exited with {code}"),
        (None, Some(signal)) => format!("fence agent \"{name}\" was ended by signal {signal}"),
        (None, None) => format!("fence agent \"{name}\" ended in an unknown way"),
    };
    Told { ok: status.code() == Some(0), code: status.code(), status: None, detail }
}

/// What is in its environment. What is not known is not there.
fn facts(ask: &HookAsk) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("BATON_SERVICE", ask.service.to_string()),
        ("BATON_INSTANCE", ask.instance.to_string()),
        ("BATON_TRANSITION", ask.transition.to_string()),
        ("BATON_ATTEMPT", ask.attempt.to_string()),
    ];
    facts.extend(ask.address.as_ref().map(|address| ("BATON_ADDRESS", address.to_string())));
    facts.extend(ask.token.map(|token| ("BATON_TOKEN", token.to_string())));
    facts
}

/// What it can read: names of instances have no character that means something there.
fn input(ask: &HookAsk) -> String {
    let instance = &ask.instance;
    format!("action=off\nnodename={instance}\nplug={instance}\n")
}
