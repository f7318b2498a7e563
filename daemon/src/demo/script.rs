//! The play: what is done in which act, what is expected, and why it came as it came, read from the events and the
//! transitions' records. Every wait has a deadline.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_client::view::Role;
use baton_core::event::EventKind;
use baton_core::id::{InstanceId, Revision, Token};
use baton_core::probe::Health;
use baton_core::transition::Transition;
use serde_json::json;

use super::DemoError;
use super::calls::Calls;
use super::feed::{Feed, Heard};
use super::stage::{Stage, asking};
use super::summary::{Promotion, calls_table, promotions_heard, promotions_table};
use crate::cli::output::{DIM, STRONG, length, paint};

/// The checks of the play: usual settings, only quicker.
const INTERVAL_MS: u64 = 500;
const FAST_INTERVAL_MS: u64 = 100;
const FALL: u64 = 3;
/// What Baton promises of an active that dies, on an idle machine: `interval + (fall − 1) × fast_interval` + 150 ms.
const PROMISED: Duration = Duration::from_millis(INTERVAL_MS + (FALL - 1) * FAST_INTERVAL_MS + 150);
/// What the play insists on: a machine that compiles something meanwhile is not idle.
const INSISTED: Duration = Duration::from_secs(5);
/// How long a new process may take until it is ready: a debug build on a busy machine takes a second or two.
const START_MAX: Duration = Duration::from_secs(20);
/// How long anything else may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a new active is watched at work before the next blow.
const SCENE: Duration = Duration::from_millis(1_500);
/// Entries of the ledger before the leader's end, and after it.
const ENTRIES: usize = 5;
/// How long a process that somebody else killed stays down in the encore.
const REVIVE_AFTER: Duration = Duration::from_secs(5);

/// Plays the acts one to six.
pub(super) async fn acts(stage: &mut Stage) -> Result<(), DemoError> {
    the_cluster_forms(stage).await?;
    somebody_is_active(stage).await?;
    the_active_breaks(stage).await?;
    the_active_is_killed(stage).await?;
    the_dead_return(stage).await?;
    the_leader_is_killed(stage).await
}

fn ms(time: Duration) -> String {
    length(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

async fn the_cluster_forms(stage: &mut Stage) -> Result<(), DemoError> {
    stage.narrator.act(1, "The cluster forms");
    let began = Instant::now();
    for node in &mut stage.nodes {
        let pid = node.start()?;
        stage.narrator.say(&format!("node {} starts: {} (pid {pid})", node.id, node.api));
    }
    let (leader, term) = stage
        .until("three nodes to agree on a leader", START_MAX, async |stage| {
            let views = stage.views().await?;
            let first = views.first()?;
            let (leader, term) = (first.leader?, first.term);
            let agreed = views.iter().all(|view| view.leader == Some(leader) && view.term == term);
            for node in &stage.nodes {
                node.client.ready().await.ok()?;
            }
            agreed.then_some((leader, term))
        })
        .await?;
    let took = began.elapsed();
    stage.narrator.say(&format!(
        "node {} is the leader of term {term}: it orders the decisions, all three look after the servers",
        paint(STRONG, &leader.to_string())
    ));
    stage.expect("three nodes agree on a leader", true, &format!("{} after they were started", ms(took)));
    let follower = stage.nodes.iter().position(|node| node.id != leader).unwrap_or(0);
    stage.narrator.fact(&format!(
        "{} the events, from a follower: {}/v1/watch",
        paint(DIM, "│"),
        stage.nodes[follower].api
    ));
    stage.feed = Some(Feed::follow(stage.baton.clone(), follower, Arc::clone(&stage.narrator)));
    Ok(())
}

async fn somebody_is_active(stage: &mut Stage) -> Result<(), DemoError> {
    stage.narrator.act(2, "Three servers, one of them active");
    let service = stage.service()?;
    for server in &mut stage.servers {
        let pid = server.start()?;
        let (id, address, nature) = (&server.id, &server.address, server.nature);
        stage
            .narrator
            .say(&format!("{} starts: http://{address} (pid {pid}), it {nature}", paint(STRONG, id.as_str())));
    }
    let spec = json!({
        "checks": [{
            "name": "web", "type": "http", "path": "/health", "timeout": "400ms", "rise": 2, "fall": FALL,
            "interval": format!("{INTERVAL_MS}ms"), "fast_interval": format!("{FAST_INTERVAL_MS}ms"),
        }],
        "recovery": {"strategy": "immediate"},
        "failover": {"min_interval": "0s"},
    });
    let began = Instant::now();
    stage.baton.put_service(&service, &spec).await.map_err(asking("creating the service"))?;
    // The least preferred first: what decides is the priority, not who came first.
    for server in stage.servers.iter().rev() {
        let registration = json!({ "address": server.address, "priority": server.priority });
        stage.baton.put_instance(&service, &server.id, &registration).await.map_err(asking("registering a server"))?;
    }
    stage.narrator.say("the service \"greet\" is registered; every node checks every server each 500 ms");
    let heard = promotion(stage, 0, "a first active").await?;
    let record = tell(stage, &heard).await?;
    let first = stage.servers[0].id.clone();
    stage.expect(
        "the preferred server is active first",
        record.to.as_ref() == Some(&first),
        &format!(
            "{} with token {}, {} after it was registered",
            told(&record.to),
            told(&record.token),
            ms(heard.at - began)
        ),
    );
    Ok(())
}

async fn the_active_breaks(stage: &mut Stage) -> Result<(), DemoError> {
    stage.narrator.act(3, "Calls flow, and the active breaks");
    let (service, before) = (stage.service()?, stage.feed()?.last());
    let calls = Calls::start(stage.baton.clone(), service, Arc::clone(&stage.narrator))
        .map_err(|error| DemoError::Wrong { what: format!("a client for the calls: {error}") })?;
    stage.calls = Some(calls);
    stage
        .narrator
        .say("a client asks who is active and calls that server forty times a second; alpha has 100 calls to live");
    let heard = promotion(stage, before, "the failover").await?;
    let record = tell(stage, &heard).await?;
    let total = record.durations.total_ms.map(Duration::from_millis);
    let (alpha, beta) = (stage.servers[0].id.clone(), stage.servers[1].id.clone());
    stage.expect(
        "alpha breaks, beta takes over",
        record.from.as_ref() == Some(&alpha)
            && record.to.as_ref() == Some(&beta)
            && total.is_some_and(|total| total <= INSISTED),
        &format!(
            "{} from the first failed check to the promotion (promised, idle: {})",
            told(&total.map(ms)),
            ms(PROMISED)
        ),
    );
    hand_over(stage, &alpha, &beta).await?;
    tokio::time::sleep(SCENE).await;
    let totals = stage.calls()?.totals();
    if let Some(count) = totals.per_server.get(&beta) {
        stage.narrator.say(&format!(
            "beta has failed {} of {} calls, its checks are well: health is what the checks see, so nobody moves",
            count.calls - count.ok,
            count.calls
        ));
    }
    Ok(())
}

async fn the_active_is_killed(stage: &mut Stage) -> Result<(), DemoError> {
    stage.narrator.act(4, "The active is killed");
    let (service, before) = (stage.service()?, stage.feed()?.last());
    let active = stage.baton.active(&service).await.map_err(asking("asking who is active"))?;
    let server = stage.servers.iter_mut().find(|server| server.id == active.instance);
    let Some(server) = server else {
        return Err(DemoError::Wrong { what: format!("{} is active, which nobody registered", active.instance) });
    };
    let (killed, pid) = server.kill().await?;
    stage.narrator.say(&format!("kill -9 {pid}: {} is gone", paint(STRONG, active.instance.as_str())));
    let heard = promotion(stage, before, "the failover").await?;
    let record = tell(stage, &heard).await?;
    let noticed = heard.at - killed;
    stage.expect(
        "the next server takes over from a killed one",
        record.from.as_ref() == Some(&active.instance) && record.to.is_some() && noticed <= INSISTED,
        &format!("{} from kill -9 to the event (promised, idle: {})", ms(noticed), ms(PROMISED)),
    );
    stage.expect(
        "the token rises",
        record.token > Some(active.token),
        &format!("{} → {}: what checks tokens refuses the old one for good", active.token, told(&record.token)),
    );
    if let Some(to) = &record.to {
        hand_over(stage, &active.instance, to).await?;
    }
    tokio::time::sleep(SCENE).await;
    Ok(())
}

async fn the_dead_return(stage: &mut Stage) -> Result<(), DemoError> {
    stage.narrator.act(5, "The dead return, and wait their turn");
    let (service, before) = (stage.service()?, stage.feed()?.last());
    let began = Instant::now();
    let dead = stage.servers.iter_mut().filter(|server| server.pid().is_none());
    for server in dead {
        let pid = server.start()?;
        stage.narrator.say(&format!("{} is started again (pid {pid})", paint(STRONG, server.id.as_str())));
    }
    stage.narrator.say("alpha, which broke, is well again ten seconds after its hundredth call");
    let wanted = service.clone();
    let view = stage
        .until("all three servers to be healthy", PATIENCE, async |stage| {
            let view = stage.baton.service(&wanted).await.ok()?;
            let well = view.instances.iter().all(|instance| instance.health == Health::Healthy);
            (well && view.instances.len() == stage.servers.len()).then_some(view)
        })
        .await?;
    let took = began.elapsed();
    let passive: Vec<&str> = view
        .instances
        .iter()
        .filter(|instance| instance.role == Role::Passive)
        .map(|instance| instance.id.as_str())
        .collect();
    let moved = promotions_heard(&stage.feed()?.after(before)).count();
    stage
        .narrator
        .why("failback is manual here: a preferred server that came back is not worth an interruption by itself");
    stage.expect(
        "who returns is healthy and passive",
        passive.len() == 2 && moved == 0,
        &format!("{} wait, all healthy {} later, the active stays", passive.join(" and "), ms(took)),
    );
    Ok(())
}

async fn the_leader_is_killed(stage: &mut Stage) -> Result<(), DemoError> {
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

/// Waits for the next event that makes somebody active.
async fn promotion(stage: &mut Stage, after: Revision, what: &str) -> Result<Heard, DemoError> {
    let heard = stage
        .feed()?
        .wait(what, after, PATIENCE, |event| {
            event.kind == EventKind::ActiveChanged && event.to.as_ref().is_some_and(Option::is_some)
        })
        .await;
    // A node that has died explains more than a wait that was in vain.
    if heard.is_err() {
        stage.all_run()?;
    }
    heard
}

/// Reads the record of a promotion and tells it: why, who held what, which proof, and the times.
async fn tell(stage: &Stage, heard: &Heard) -> Result<Transition, DemoError> {
    let Some(id) = heard.event.transition else {
        return Err(DemoError::Wrong { what: format!("revision {} names no transition", heard.event.revision) });
    };
    let record = stage.baton.transition(id).await.map_err(asking("reading the record of a transition"))?;
    let narrator = &stage.narrator;
    narrator.say(&format!(
        "{} is active with token {} ({} {id})",
        paint(STRONG, &told(&record.to)),
        paint(STRONG, &told(&record.token)),
        record.kind
    ));
    narrator.why(&record.trigger.reason);
    for held in &record.evidence {
        let evidence = &held.evidence;
        let failure = evidence.class.map_or_else(String::new, |class| format!(" {class}:"));
        narrator.fact(&format!(
            "     node {} says {}: check \"{}\", {} in a row,{failure} {}",
            held.observer,
            held.verdict,
            crate::cli::words::one_line(&evidence.check),
            evidence.streak,
            crate::cli::words::one_line(&evidence.detail)
        ));
    }
    if let Some(proof) = &record.proof {
        narrator.fact(&format!("{} {} ({}): {}", paint(DIM, "proof:"), proof.proof, proof.fencing, proof.evidence));
    }
    let durations = &record.durations;
    let parts: Vec<String> = [
        ("first failure → doubt", durations.first_failure_to_suspect_ms),
        ("doubt → agreed", durations.suspect_to_agreed_ms),
        ("agreed → proof", durations.agreed_to_proof_ms),
        ("proof → promoted", durations.proof_to_promoted_ms),
        ("in all", durations.total_ms),
    ]
    .into_iter()
    .filter_map(|(part, took)| took.map(|took| format!("{part} {}", length(took))))
    .collect();
    if !parts.is_empty() {
        narrator.fact(&format!("{} {}", paint(DIM, "times:"), parts.join(", ")));
    }
    Ok(record)
}

/// Tells for how long no call went well while `to` took over.
async fn hand_over(stage: &mut Stage, from: &InstanceId, to: &InstanceId) -> Result<(), DemoError> {
    let gap = stage
        .until("the first good call to the new active", PATIENCE, async |stage| stage.calls().ok()?.hand_over(from, to))
        .await?;
    stage.expect(
        &format!("callers of {from} are served by {to}"),
        gap <= INSISTED,
        &format!("{} without a good call", ms(gap)),
    );
    Ok(())
}

fn told<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string)
}

/// Act seven: what held. Whether all did.
pub(super) async fn summary(stage: &mut Stage) -> Result<bool, DemoError> {
    stage.narrator.act(7, "What held");
    let views = stage.same_state(PATIENCE).await?;
    let last = views[0].local.revision;
    let wait = stage.feed()?.wait("the stream to be complete", last.saturating_sub(1), PATIENCE, |_| true).await;
    wait?;
    let heard = stage.feed()?.after(0);
    let mut promotions = Vec::new();
    let mut tokens: Vec<Token> = Vec::new();
    for heard in promotions_heard(&heard) {
        let event = &heard.event;
        let record = match event.transition {
            Some(id) => Some(stage.baton.transition(id).await.map_err(asking("reading the record of a transition"))?),
            None => None,
        };
        tokens.extend(event.token);
        promotions.push(Promotion {
            token: event.token.map_or(0, |token| token.0),
            kind: record.as_ref().map_or_else(|| "without a record".to_owned(), |record| record.kind.to_string()),
            from: record.as_ref().and_then(|record| record.from.as_ref().map(ToString::to_string)),
            to: event.to.clone().flatten().unwrap_or_default(),
            took_ms: record.as_ref().and_then(|record| record.durations.total_ms),
            revision: event.revision,
        });
    }
    let rising = tokens.windows(2).all(|pair| pair[0] < pair[1]) && tokens.len() == promotions.len();
    let told: Vec<String> = tokens.iter().map(ToString::to_string).collect();
    stage.expect("tokens only rise", rising && tokens.len() == 3, &told.join(" < "));
    one_history(stage, &heard, last).await?;
    stage.report_mut().complete();
    let totals = stage.calls()?.totals();
    let narrator = &stage.narrator;
    narrator.print(&format!("\n{}", promotions_table(&promotions).render("  ")));
    narrator.print(&format!("\n{}", calls_table(&totals).render("  ")));
    narrator.print(&format!(
        "  {} turns without a call, for nobody was active; Baton answered {} of {} questions for the active",
        totals.held_back,
        totals.asked - totals.unanswered,
        totals.asked
    ));
    narrator.print(&format!("\n{}", stage.report().table().render("  ")));
    narrator.print(&format!("\n  {}", stage.report().verdict()));
    Ok(stage.report().held() == Some(true))
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
