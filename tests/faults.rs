//! Every way to fall ill, over real sockets: each is seen as what it is, in the time that the settings promise, and the
//! well ones beside are never accused.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::patient::{ILLNESSES, Illness, Papers, Patient};
use crate::support::target::Target;
use crate::support::{Load, SOON, scenario, until};

/// On a machine that does nothing else the promise must hold; on a busy one it is printed, and a deadline holds.
fn idle_machine() -> bool {
    std::env::var_os("BATON_IDLE_MACHINE").is_some()
}

/// The instance as node 1 has it.
async fn instance(cluster: &Cluster, service: &str, id: &str) -> Value {
    cluster.api(1).get(&format!("/v1/services/{service}/instances/{id}?consistency=stale")).await.json
}

/// Waits until the instance has this health; the instance.
async fn until_health(cluster: &Cluster, service: &str, id: &str, health: &str) -> Value {
    until(SOON, &format!("{service}/{id} to be {health}"), async || {
        let seen = instance(cluster, service, id).await;
        if seen["health"] == health { Ok(seen) } else { Err(seen.to_string()) }
    })
    .await
}

/// The classes of failure that anybody names: observers, or the leader from what clients say.
fn classes(instance: &Value) -> Vec<String> {
    let said = |list: &str| instance[list].as_array().cloned().unwrap_or_default();
    said("verdicts")
        .into_iter()
        .chain(said("judged"))
        .filter_map(|record| record["evidence"]["class"].as_str().map(str::to_owned))
        .collect()
}

/// One line of the table, checked.
fn judge(name: &str, class: &str, promised: Duration, took: Duration, sick: &Value) {
    println!("{name:>20}: {:>5} ms of {:>5} ms promised, {:?}", took.as_millis(), promised.as_millis(), classes(sick));
    assert!(!classes(sick).is_empty() && classes(sick).iter().all(|seen| seen == class), "{name}: {sick}");
    assert!(!idle_machine() || took <= promised, "{name} took {took:?}, {promised:?} are promised: {sick}");
}

/// No well instance was ever doubted by anybody.
async fn nobody_well_was_accused(cluster: &Cluster) {
    let events = cluster.api(1).all("/v1/events?after=0").await;
    let accusations: Vec<&Value> = events
        .iter()
        .filter(|event| event["instance"] == "well")
        .filter(|event| matches!(event["to"].as_str(), Some("suspect" | "down" | "unhealthy" | "open")))
        .collect();
    assert!(accusations.is_empty(), "{accusations:#?}");
}

#[test]
fn every_illness_is_seen_as_its_class_in_its_time_and_nobody_else_is_accused() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        let papers = Papers::new();
        let mut patients = BTreeMap::new();
        for illness in ILLNESSES {
            let service = illness.name();
            api.put(&format!("/v1/services/{service}"), &illness.spec(&papers.ca)).await.done();
            for id in ["sick", "well"] {
                let patient = Patient::start(illness, &papers).await;
                let registration = json!({"address": patient.address.to_string()});
                api.put(&format!("/v1/services/{service}/instances/{id}"), &registration).await.done();
                patients.insert((service, id), patient);
            }
        }
        for illness in ILLNESSES {
            for id in ["sick", "well"] {
                until_health(&cluster, illness.name(), id, "healthy").await;
            }
        }
        for illness in ILLNESSES {
            let service = illness.name();
            let begun = Instant::now();
            patients[&(service, "sick")].set_ill(true);
            let sick = until_health(&cluster, service, "sick", "unhealthy").await;
            judge(service, illness.class(), illness.promised(), begun.elapsed(), &sick);
        }
        for illness in ILLNESSES {
            patients[&(illness.name(), "sick")].set_ill(false);
        }
        for illness in ILLNESSES {
            until_health(&cluster, illness.name(), "sick", "healthy").await;
        }
        nobody_well_was_accused(&cluster).await;
    });
}

#[test]
fn a_process_that_is_stopped_is_seen_although_its_port_still_accepts() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        // The same settings as a patient's that hangs.
        api.put("/v1/services/frozen", &Illness::Hangs.spec("")).await.done();
        let mut sick = Target::start("sick", cluster.dir()).await;
        let well = Target::start("well", cluster.dir()).await;
        for target in [&sick, &well] {
            api.put(&format!("/v1/services/frozen/instances/{}", target.name), &target.registration(1)).await.done();
            until_health(&cluster, "frozen", &target.name, "healthy").await;
        }
        let begun = Instant::now();
        sick.freeze();
        let seen = until_health(&cluster, "frozen", "sick", "unhealthy").await;
        judge("SIGSTOP", "timeout", Illness::Hangs.promised(), begun.elapsed(), &seen);
        sick.thaw();
        until_health(&cluster, "frozen", "sick", "healthy").await;
        nobody_well_was_accused(&cluster).await;
    });
}

/// A batch of calls as a client reports them, to both instances.
async fn report(cluster: &Cluster, node: u64, service: &str, sick: &Value) {
    let mut about_sick = sick.clone();
    about_sick["instance"] = json!("sick");
    let well = json!({"instance": "well", "outcome": "success", "latency_ms": 20, "count": 5});
    let body = json!({"reports": [about_sick, well]});
    cluster.api(node).post(&format!("/v1/services/{service}/reports"), &body).await.is(202);
}

/// The window of calls in these tests; in one or two of them the leader learns how fast calls usually are.
const LEARNING: Duration = Duration::from_secs(3);

/// Healthy probes and sick calls: what clients say is all that shows it.
async fn calls_go_bad(service: &str, detection: Value, good: Value, bad: Value, class: &str, promised: Duration) {
    let cluster = Cluster::start(3).await;
    let api = cluster.api(1);
    let mut spec = Illness::Busy.spec("");
    spec["detection"] = detection;
    api.put(&format!("/v1/services/{service}"), &spec).await.done();
    let papers = Papers::new();
    let mut patients = Vec::new();
    for id in ["sick", "well"] {
        let patient = Patient::start(Illness::Busy, &papers).await;
        let registration = json!({"address": patient.address.to_string()});
        api.put(&format!("/v1/services/{service}/instances/{id}"), &registration).await.done();
        until_health(&cluster, service, id, "healthy").await;
        patients.push(patient);
    }
    // A good time first, told to each node in turn, until the leader has judged it and knows what is usual.
    let began = Instant::now();
    until(SOON, "the leader to have judged good calls", async || {
        for node in 1..=3 {
            report(&cluster, node, service, &good).await;
        }
        let seen = instance(&cluster, service, "sick").await;
        let learnt = seen["judged"][0]["verdict"] == "up" && began.elapsed() > 2 * LEARNING;
        if learnt { Ok(()) } else { Err(seen["judged"].clone()) }
    })
    .await;
    let begun = Instant::now();
    let sick = until(SOON, &format!("{service} to be unhealthy by its calls"), async || {
        for node in 1..=3 {
            report(&cluster, node, service, &bad).await;
        }
        let seen = instance(&cluster, service, "sick").await;
        if seen["health"] == "unhealthy" { Ok(seen) } else { Err(seen.to_string()) }
    })
    .await;
    judge(service, class, promised, begun.elapsed(), &sick);
    assert!(sick["verdicts"].as_array().is_some_and(|all| all.iter().all(|one| one["verdict"] == "up")), "{sick}");
    nobody_well_was_accused(&cluster).await;
}

#[test]
fn slow_calls_are_seen_although_every_probe_is_fast() {
    scenario(Load::Heavy, async {
        let slow = json!({"window": "3s", "min_requests": 20, "percentile": 0.95, "multiplier": 2.0, "floor": "50ms"});
        calls_go_bad(
            "slow-calls",
            json!({"slow": slow}),
            json!({"outcome": "success", "latency_ms": 20, "count": 5}),
            json!({"outcome": "success", "latency_ms": 400, "count": 5}),
            "slow",
            Duration::from_secs(3),
        )
        .await;
    });
}

#[test]
fn failing_calls_are_seen_although_every_probe_says_200() {
    scenario(Load::Heavy, async {
        calls_go_bad(
            "grey",
            json!({"error_rate": {"window": "3s", "min_requests": 10, "threshold": 0.5}}),
            json!({"outcome": "success", "latency_ms": 20, "count": 5}),
            json!({"status": 503, "latency_ms": 20, "count": 5}),
            "server_error",
            Duration::from_secs(1),
        )
        .await;
    });
}

#[test]
fn the_end_of_a_held_connection_shows_a_crash_long_before_the_next_interval() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let api = cluster.api(1);
        let check = json!({
            "type": "http", "path": "/health", "watch": true,
            "interval": "20s", "timeout": "300ms", "fast_interval": "100ms", "rise": 2, "fall": 3
        });
        api.put("/v1/services/held", &json!({"mode": "active_active", "checks": [check]})).await.done();
        let mut sick = Target::start("sick", cluster.dir()).await;
        let well = Target::start("well", cluster.dir()).await;
        for target in [&sick, &well] {
            api.put(&format!("/v1/services/held/instances/{}", target.name), &target.registration(1)).await.done();
            until_health(&cluster, "held", &target.name, "healthy").await;
        }
        until(SOON, "every node to hold a connection to both", async || {
            let mut held = Vec::new();
            for node in 1..=3 {
                let metrics = cluster.api(node).get("/metrics").await.text;
                let line = metrics.lines().find(|line| line.starts_with("baton_probe_held_connections "));
                held.push(line.unwrap_or_default().to_owned());
            }
            if held.iter().all(|line| line.ends_with(" 2")) { Ok(()) } else { Err(held) }
        })
        .await;
        let begun = Instant::now();
        sick.kill9();
        let seen = until_health(&cluster, "held", "sick", "unhealthy").await;
        // DESIGN section 9: fall x fast_interval + 150 ms.
        judge("kill -9, watched", "connection", Duration::from_millis(3 * 100 + 150), begun.elapsed(), &seen);
        nobody_well_was_accused(&cluster).await;
    });
}
