//! One node's way to the instances is cut, and its way to the cluster is not: it sees everything die, and is wrong.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::netns::{Lan, may_make_namespaces};
use crate::support::target::{Target, promised, watched};
use crate::support::{Load, SOON, scenario, until, when};

/// Who goes blind.
const BLIND: u64 = 1;
/// The host of all instances.
const FARM: u64 = 4;
/// How many there are.
const COUNT: u16 = 5;
/// What a machine that does other things too may add to what is promised for an idle one.
const SLACK: Duration = Duration::from_millis(1_500);

/// What a node holds of each instance, as another answers it; `null` where it holds nothing.
async fn held_by(cluster: &Cluster, asked: u64, node: u64) -> Vec<Value> {
    let instances = cluster.api(asked).all("/v1/services/db/instances").await;
    let held = |instance: &Value| {
        let mut verdicts = instance["verdicts"].as_array().expect("verdicts").iter();
        verdicts.find(|verdict| verdict["observer"] == node).map_or(Value::Null, |verdict| verdict["verdict"].clone())
    };
    instances.iter().map(held).collect()
}

async fn trusts_itself(cluster: &Cluster, node: u64) -> bool {
    let metrics = cluster.api(node).get("/metrics").await.is(200).text;
    let line = metrics.lines().find(|line| line.starts_with("baton_monitor_trusts_itself") && line.contains("sight"));
    line.unwrap_or_else(|| panic!("no such gauge in {metrics}")).ends_with(" 1")
}

#[test]
fn a_node_to_which_everything_dies_at_once_doubts_itself() {
    if !may_make_namespaces("selfdoubt::a_node_to_which_everything_dies_at_once_doubts_itself") {
        return;
    }
    scenario(Load::Heavy, async {
        let lan = Lan::new(4);
        let cluster = Cluster::in_hosts(&lan, 3).await;
        let well = 2;
        cluster.api(well).put("/v1/services/db", &watched()).await.done();
        let mut farm = Vec::new();
        for number in 0..COUNT {
            let name = format!("t{number}");
            let target = Target::in_host_at(&name, lan.host_of(FARM), 8_080 + number, cluster.dir());
            let registration = target.registration(u32::from(200 - number));
            cluster.api(well).put(&format!("/v1/services/db/instances/{name}"), &registration).await.done();
            farm.push(target);
        }
        let all = |what: Value| vec![what; usize::from(COUNT)];
        until(SOON, "all nodes to see all instances well", async || {
            let mut seen = Vec::new();
            for node in cluster.ids() {
                seen.extend(held_by(&cluster, well, node).await);
            }
            when(seen.iter().all(|verdict| verdict == "up"), seen)
        })
        .await;
        let before = cluster.active(well, "db", "t0").await;
        let revision = cluster.local(well).await.expect("a revision").revision;

        // Every packet from node 1 to the instances is lost; to the other nodes nothing changes.
        let cut = Instant::now();
        lan.lose(BLIND, FARM);
        until(SOON, "the blind node to say that it knows nothing", async || {
            let held = held_by(&cluster, well, BLIND).await;
            when(held == all(Value::Null), held)
        })
        .await;
        println!("node {BLIND} holds everything for unknown {:?} after its way was cut", cut.elapsed());
        assert!(!trusts_itself(&cluster, BLIND).await && trusts_itself(&cluster, well).await);
        let what_was_said = async |after: u64| {
            let events = cluster.api(well).all(&format!("/v1/events?after={after}")).await;
            for event in &events {
                println!(
                    "{} {} {} {} {}",
                    event["revision"], event["type"], event["node"], event["to"], event["reason"]
                );
            }
            events
        };
        let events = what_was_said(revision).await;
        for event in &events {
            let (kind, to) = (event["type"].as_str().unwrap_or_default(), event["to"].as_str().unwrap_or_default());
            assert!(kind != "active.changed" && to != "down" && to != "unhealthy", "{event:#}");
            assert!(kind != "verdict.changed" || event["node"] == BLIND, "the others see well: {event:#}");
        }
        for target in &farm {
            cluster.health(BLIND, "db", &target.name, "healthy").await;
        }
        assert_eq!(cluster.active(BLIND, "db", "t0").await["token"], before["token"]);

        // The way is mended: it earns each `up` again, and accuses nobody of what it saw meanwhile.
        let revision = cluster.local(well).await.expect("a revision").revision;
        let mended = Instant::now();
        lan.find(BLIND, FARM);
        until(SOON, "the node to see again", async || {
            let held = held_by(&cluster, well, BLIND).await;
            when(held == all(json!("up")), held)
        })
        .await;
        println!("it sees everything well {:?} after its way was mended", mended.elapsed());
        assert!(trusts_itself(&cluster, BLIND).await);
        let events = what_was_said(revision).await;
        assert!(events.iter().all(|event| event["type"] != "verdict.changed" || event["to"] == "up"), "{events:#?}");

        // And now they really die, all at once, and all nodes say so, in the time that is promised for one.
        let revision = cluster.local(well).await.expect("a revision").revision;
        let died = Instant::now();
        farm.iter_mut().for_each(Target::kill9);
        until(SOON, "all to be unhealthy", async || {
            let instances = cluster.api(well).all("/v1/services/db/instances").await;
            let health: Vec<Value> = instances.iter().map(|instance| instance["health"].clone()).collect();
            when(health == all(json!("unhealthy")), health)
        })
        .await;
        let took = died.elapsed();
        println!("all are agreed to be dead after {took:?}; promised are {:?} on an idle machine", promised(false));
        assert!(took <= promised(false) + SLACK, "{took:?}");
        let events = what_was_said(revision).await;
        let unsure = events.iter().find(|event| event["type"] == "verdict.changed" && event["to"] == "unknown");
        assert!(unsure.is_none(), "nobody took itself for ill: {unsure:?}");
    });
}
