//! The sixth act: the Raft leader is killed. What was acknowledged must be there, calls must go on, and the dead node must
//! catch up when it returns.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use baton_core::id::InstanceId;
use serde_json::json;

use super::DemoError;
use super::script::{INSISTED, PATIENCE, START_MAX, ms};
use super::stage::{Stage, asking};
use super::summary::promotions_heard;

/// Entries of the ledger before the leader's end, and after it.
const ENTRIES: usize = 5;

/// Act six.
pub(super) async fn the_leader_is_killed(stage: &mut Stage) -> Result<(), DemoError> {
    stage.narrator.act(6, "The leader of the nodes is killed");
    let (service, ledger, before) = (stage.service()?, stage.ledger()?, stage.feed()?.last());
    let active = stage.baton.active(&service).await.map_err(asking("asking who is active"))?;
    // A service that nobody checks or places: a book whose entries are registrations.
    stage
        .baton
        .put_service(&ledger, &json!({ "mode": "active_active" }))
        .await
        .map_err(asking("creating the ledger"))?;
    let mut written = Vec::new();
    for number in 0..ENTRIES {
        write(stage, number, &mut written).await?;
    }
    let views = stage.views().await.unwrap_or_default();
    let leader = views.iter().find_map(|view| view.leader.map(|leader| (leader, view.term)));
    let Some((leader, term)) = leader else {
        return Err(DemoError::Wrong { what: "no node knows a leader".to_owned() });
    };
    let Some(node) = stage.nodes.iter_mut().find(|node| node.id == leader) else {
        return Err(DemoError::Wrong { what: format!("the leader is node {leader}, which nobody started") });
    };
    let (killed, pid) = node.kill().await?;
    stage.narrator.say(&format!("kill -9 {pid}: node {leader}, the leader of term {term}, is gone"));
    write(stage, ENTRIES, &mut written).await?;
    let again = killed.elapsed();
    let (next, next_term) = stage
        .until("a new leader", PATIENCE, async |stage| {
            let views = stage.views().await?;
            let next = views.first()?.leader.filter(|next| *next != leader)?;
            views.iter().all(|view| view.leader == Some(next)).then_some((next, views.first()?.term))
        })
        .await?;
    stage
        .narrator
        .say(&format!("node {next} is the leader of term {next_term}; what was written is acknowledged by it"));
    stage.expect(
        "writes are acknowledged again",
        again <= INSISTED,
        &format!("{} after kill -9 of the leader", ms(again)),
    );
    for number in ENTRIES + 1..2 * ENTRIES {
        write(stage, number, &mut written).await?;
    }
    nothing_is_lost(stage, &written).await?;
    let after = stage.baton.active(&service).await.map_err(asking("asking who is active"))?;
    let (good, longest) = stage.calls()?.since(killed);
    stage.expect(
        "calls go on, nobody moves",
        after.instance == active.instance
            && after.token == active.token
            && good > 0
            && longest < Duration::from_secs(1),
        &format!("{good} good calls since, none waited for longer than {}; token still {}", ms(longest), after.token),
    );
    let moved = promotions_heard(&stage.feed()?.after(before)).count();
    if moved > 0 {
        stage.expect("no promotion without need", false, &format!("{moved} of them"));
    }
    it_catches_up(stage, leader, written.len()).await?;
    stage.baton.delete_service(&ledger).await.map_err(asking("removing the ledger"))
}

/// Writes an entry of the ledger, again and again until it is acknowledged.
async fn write(stage: &mut Stage, number: usize, written: &mut Vec<InstanceId>) -> Result<(), DemoError> {
    let (ledger, entry) = (stage.ledger()?, stage.entry(number)?);
    let registration = json!({ "address": "127.0.0.1:9", "metadata": { "number": number.to_string() } });
    let wanted = entry.clone();
    stage
        .until("a write to be acknowledged", PATIENCE, async |stage| {
            stage.baton.put_instance(&ledger, &wanted, &registration).await.ok()
        })
        .await?;
    written.push(entry);
    Ok(())
}

/// Every acknowledged entry is on every running node, and they hold the same state.
async fn nothing_is_lost(stage: &mut Stage, written: &[InstanceId]) -> Result<(), DemoError> {
    let ledger = stage.ledger()?;
    let wanted: BTreeSet<&InstanceId> = written.iter().collect();
    let mut missing = 0;
    let mut asked = Vec::new();
    for node in stage.nodes.iter().filter(|node| node.runs()) {
        let view = node.client.service(&ledger).await.map_err(asking("reading the ledger"))?;
        let there: BTreeSet<&InstanceId> = view.instances.iter().map(|instance| &instance.id).collect();
        missing += wanted.difference(&there).count();
        asked.push(node.id.to_string());
    }
    stage.expect(
        "every acknowledged write is there",
        missing == 0,
        &format!(
            "{} of {} on the nodes {}",
            written.len() - missing.min(written.len()),
            written.len(),
            asked.join(", ")
        ),
    );
    Ok(())
}

async fn it_catches_up(stage: &mut Stage, id: u64, entries: usize) -> Result<(), DemoError> {
    let began = Instant::now();
    let Some(node) = stage.nodes.iter_mut().find(|node| node.id == id) else {
        return Err(DemoError::Wrong { what: format!("there is no node {id}") });
    };
    let pid = node.start()?;
    stage.narrator.say(&format!("node {id} is started again (pid {pid}), with what it had on its disk"));
    stage
        .until("the returned node to be ready", START_MAX, async |stage| {
            let node = stage.nodes.iter().find(|node| node.id == id)?;
            node.client.ready().await.ok()
        })
        .await?;
    let views = stage.same_state(PATIENCE).await?;
    let took = began.elapsed();
    let local = &views[0].local;
    let hash: String = local.state_hash.chars().take(12).collect();
    stage.expect(
        "it catches up to the same state",
        views.len() == 3,
        &format!("{} after its start: index {}, hash {hash}…, on all three", ms(took), local.applied_index),
    );
    let ledger = stage.ledger()?;
    let Some(node) = stage.nodes.iter().find(|node| node.id == id) else { return Ok(()) };
    let there = node.client.service(&ledger).await.map_err(asking("reading the ledger"))?.instances.len();
    stage.expect(
        "it holds what was written while it was dead",
        there == entries,
        &format!("{there} of {entries} entries"),
    );
    Ok(())
}
