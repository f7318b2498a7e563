//! The end of the play: what held, in tables; and the encore, in which the cluster stays and the audience may kill.

use std::sync::Arc;
use std::time::Duration;

use baton_core::id::{Revision, Token};

use super::DemoError;
use super::feed::Heard;
use super::script::{PATIENCE, told};
use super::stage::{Stage, asking};
use super::summary::{Promotion, calls_table, promotions_heard, promotions_table};

/// How long a process that somebody else killed stays down in the encore.
const REVIVE_AFTER: Duration = Duration::from_secs(5);

/// Act seven: what held. Whether all did.
pub(super) async fn summary(stage: &mut Stage) -> Result<bool, DemoError> {
    stage.narrator.act(7, "What held");
    let views = stage.same_state(PATIENCE).await?;
    let last = views[0].local.revision;
    let wait = stage.feed()?.wait("the stream to be complete", last.saturating_sub(1), PATIENCE, |_| true).await;
    wait?;
    let heard = stage.feed()?.after(0);
    let mut promotions = Vec::new();
    let mut proven = 0;
    let mut tokens: Vec<Token> = Vec::new();
    for heard in promotions_heard(&heard) {
        let event = &heard.event;
        let record = match event.transition {
            Some(id) => Some(stage.baton.transition(id).await.map_err(asking("reading the record of a transition"))?),
            None => None,
        };
        tokens.extend(event.token);
        proven += usize::from(record.as_ref().is_some_and(|record| record.proof.is_some()));
        promotions.push(Promotion {
            token: event.token.map_or(0, |token| token.0),
            kind: record.as_ref().map_or_else(|| "without a record".to_owned(), |record| record.kind.to_string()),
            from: record.as_ref().and_then(|record| record.from.as_ref().map(ToString::to_string)),
            to: event.to.clone().flatten().unwrap_or_default(),
            took_ms: record.as_ref().and_then(|record| record.durations.total_ms),
            revision: event.revision,
        });
    }
    stage.expect(
        "each promotion has its record and its proof",
        proven == promotions.len() && proven == 3,
        &format!("{proven} of {}, one placement and two failovers", promotions.len()),
    );
    let rising = tokens.windows(2).all(|pair| pair[0] < pair[1]) && tokens.len() == promotions.len();
    let told: Vec<String> = tokens.iter().map(ToString::to_string).collect();
    stage.expect("tokens only rise", rising, &told.join(" < "));
    one_history(stage, &heard, last).await?;
    stage.report_mut().complete();
    let totals = stage.calls()?.totals();
    let narrator = &stage.narrator;
    narrator.print(&format!("\n{}", promotions_table(&promotions).render("  ")));
    narrator.print(&format!("\n{}", calls_table(&totals).render("  ")));
    narrator.print(&format!(
        "  turns without a call, for no active was known: {}; Baton answered {} of {} questions for the active",
        totals.held_back,
        totals.asked - totals.unanswered,
        totals.asked
    ));
    narrator.print(&format!("  {}", counted(stage).await));
    narrator.print(&format!("\n{}", stage.report().table().render("  ")));
    narrator.print(&format!("\n  {}", stage.report().verdict()));
    Ok(stage.report().held() == Some(true))
}

/// What the nodes themselves count, in a line. Their counters begin with their processes.
async fn counted(stage: &Stage) -> String {
    let mut metrics = String::new();
    for node in &stage.nodes {
        // A node that cannot be asked is missing from the sums, and nothing is decided by them.
        metrics.push_str(&node.client.get_text("/metrics").await.unwrap_or_default());
    }
    let checks = sum_of(&metrics, "baton_probes_total", "");
    let good = sum_of(&metrics, "baton_probes_total", "outcome=\"success\"");
    format!(
        "the nodes, since their starts: {checks} checks of the servers, {} of them failed; {} changes of verdict proposed; {} requests",
        checks - good,
        sum_of(&metrics, "baton_verdicts_proposed_total", ""),
        sum_of(&metrics, "baton_http_requests_total", ""),
    )
}

/// The sum of a counter over all lines (in Prometheus' text format) whose labels have `label` among them.
fn sum_of(metrics: &str, name: &str, label: &str) -> u64 {
    metrics
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter_map(|rest| rest.rsplit_once(' '))
        .filter(|(labels, _)| (labels.is_empty() || labels.starts_with('{')) && labels.contains(label))
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// Every node tells the same events, and the stream told each of them once, in order, though its node may have died.
async fn one_history(stage: &mut Stage, heard: &[Heard], last: Revision) -> Result<(), DemoError> {
    let streamed: Vec<_> = heard.iter().map(|heard| &heard.event).filter(|event| event.revision <= last).collect();
    let mut same = 0;
    for node in &stage.nodes {
        let mut events = Vec::new();
        while events.len() < streamed.len() {
            let after = events.last().map_or(0, |event: &baton_core::event::Event| event.revision);
            let page = node.client.events(after, 100).await.map_err(asking("reading the history"))?;
            if page.is_empty() {
                break;
            }
            events.extend(page);
        }
        events.retain(|event| event.revision <= last);
        same += usize::from(events.iter().eq(streamed.iter().copied()));
    }
    let problems = stage.feed()?.problems();
    stage.expect(
        "one history, streamed once and in order",
        same == stage.nodes.len() && problems.is_empty() && streamed.len() as u64 == last,
        &if problems.is_empty() {
            format!("{} events in the stream, the same on {same} of {} nodes", streamed.len(), stage.nodes.len())
        } else {
            problems.join("; ")
        },
    );
    Ok(())
}

/// The cluster stays, for whoever wants to try more. Ends only with an error, or by a signal.
pub(super) async fn encore(stage: &mut Stage) -> Result<(), DemoError> {
    let api = stage.nodes[0].api.clone();
    let pids = |pids: Vec<(String, Option<u32>)>| {
        pids.into_iter().map(|(name, pid)| format!("{name} {}", told(&pid))).collect::<Vec<_>>().join(", ")
    };
    let servers = pids(stage.servers.iter().map(|server| (server.id.to_string(), server.pid())).collect());
    let nodes = pids(stage.nodes.iter().map(|node| (format!("node {}", node.id), node.pid())).collect());
    let narrator = Arc::clone(&stage.narrator);
    narrator.act(8, "Your turn");
    for line in [
        format!("dashboard   {api}/"),
        format!("API         {api}/docs"),
        format!("metrics     {api}/metrics"),
        format!("who         curl -s {api}/v1/services/greet/active"),
        format!("why         curl -s {api}/v1/services/greet/explain"),
        format!(
            "move it     curl -s -X POST {api}/v1/services/greet/switchover -H 'content-type: application/json' \\"
        ),
        "              -d '{\"to\": \"alpha\", \"reason\": \"I want to see it\"}'".to_owned(),
        format!("follow      baton watch --endpoint {api}"),
        format!("kill        kill -9 one of: {servers}; {nodes}"),
        format!("logs        {}", stage.directory().display()),
    ] {
        narrator.print(&format!("  {line}"));
    }
    narrator.print(&format!("\n  Calls go on, events are told as they come; whatever you kill is started again {} s later. Ctrl-C ends it.\n", REVIVE_AFTER.as_secs()));
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let mut fallen_servers = Vec::new();
        for (index, server) in stage.servers.iter_mut().enumerate() {
            if server.forget_if_ended() {
                narrator.say(&format!("{} is gone: it is started again in {} s", server.id, REVIVE_AFTER.as_secs()));
                fallen_servers.push(index);
            }
        }
        let mut fallen_nodes = Vec::new();
        for (index, node) in stage.nodes.iter_mut().enumerate() {
            if node.forget_if_ended() {
                narrator.say(&format!("node {} is gone: it is started again in {} s", node.id, REVIVE_AFTER.as_secs()));
                fallen_nodes.push(index);
            }
        }
        if fallen_servers.is_empty() && fallen_nodes.is_empty() {
            continue;
        }
        tokio::time::sleep(REVIVE_AFTER).await;
        for index in fallen_servers {
            let pid = stage.servers[index].start()?;
            narrator.say(&format!("{} is started again (pid {pid})", stage.servers[index].id));
        }
        for index in fallen_nodes {
            let pid = stage.nodes[index].start()?;
            narrator.say(&format!("node {} is started again (pid {pid})", stage.nodes[index].id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_their_labels() {
        let text = "# HELP a_total x\na_total{k=\"good\"} 3\na_total{k=\"bad\"} 4\na_total_more 9\nb 1\n";
        assert_eq!((sum_of(text, "a_total", ""), sum_of(text, "a_total", "k=\"bad\"")), (7, 4));
        assert_eq!((sum_of(text, "b", ""), sum_of(text, "c", "")), (1, 0));
    }
}
