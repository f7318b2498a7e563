//! The play: what is done in which act, what is expected, and why it came as it came, read from the events and the
//! transitions' records. Every wait has a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_client::view::Role;
use baton_core::event::EventKind;
use baton_core::id::{InstanceId, Revision};
use baton_core::probe::Health;
use baton_core::transition::Transition;
use serde_json::json;

use super::DemoError;
use super::calls::Calls;
use super::feed::{Feed, Heard};
use super::stage::{Stage, asking};
use super::summary::promotions_heard;
use crate::terminal::output::{DIM, STRONG, length, paint};
use crate::terminal::words::one_line;

/// The checks of the play: usual settings, only quicker.
const INTERVAL_MS: u64 = 500;
const FAST_INTERVAL_MS: u64 = 100;
const FALL: u64 = 3;
/// What Baton promises of an active that dies, on an idle machine: `interval + (fall − 1) × fast_interval` + 150 ms.
const PROMISED: Duration = Duration::from_millis(INTERVAL_MS + (FALL - 1) * FAST_INTERVAL_MS + 150);
/// What the play insists on: a machine that compiles something meanwhile is not idle.
pub(super) const INSISTED: Duration = Duration::from_secs(5);
/// How long a new process may take until it is ready: a debug build on a busy machine takes a second or two.
pub(super) const START_MAX: Duration = Duration::from_secs(20);
/// How long anything else may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// How long a new active is watched at work before the next blow.
const SCENE: Duration = Duration::from_millis(1_500);

/// Plays the acts one to five.
pub(super) async fn acts(stage: &mut Stage) -> Result<(), DemoError> {
    the_cluster_forms(stage).await?;
    somebody_is_active(stage).await?;
    the_active_breaks(stage).await?;
    the_active_is_killed(stage).await?;
    the_dead_return(stage).await
}

/// A measured time for a sentence.
pub(super) fn ms(time: Duration) -> String {
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
    // The leader's own stream: it will have to go on elsewhere when that node is killed.
    let first = stage.nodes.iter().position(|node| node.id == leader).unwrap_or(0);
    let api = &stage.nodes[first].api;
    stage.narrator.fact(&format!("from here on {} marks what {api}/v1/watch streams, as it comes", paint(DIM, "│")));
    stage.feed = Some(Feed::follow(stage.baton.clone(), first, Arc::clone(&stage.narrator)));
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
    // What follows the first semicolon is what each observer says, and that is told below.
    narrator.why(record.trigger.reason.split(';').next().unwrap_or_default());
    for held in &record.evidence {
        let told = one_line(&held.evidence.told());
        narrator.fact(&format!("     node {} says {}: {told}", held.observer, held.verdict));
    }
    for judged in &record.judged {
        let told = one_line(&judged.evidence.told());
        narrator.fact(&format!("     its {} say {}: {told}", judged.source, judged.verdict));
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

/// A value for a sentence, or that there is none.
pub(super) fn told<T: ToString>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string)
}
