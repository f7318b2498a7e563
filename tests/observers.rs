//! Who looks at what: as many nodes as asked for watch each instance, others take over when one of them dies, and it gets
//! its place back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::target::Target;
use crate::support::{Load, SOON, scenario, until, when};

/// Within this a silent node is counted out.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// What the leader's own rhythm, a first look or two and a busy machine add to that.
const SLACK: Duration = Duration::from_secs(3);

/// A spec in which so many nodes look at each instance; all instances serve, so that health is all that is looked at.
fn seen_by(observers: u32) -> Value {
    json!({
        "mode": "active_active",
        "checks": [{"type": "http", "path": "/health", "interval": "500ms", "timeout": "300ms", "fast_interval": "100ms"}],
        "detection": {"observers": observers},
        "recovery": {"strategy": "immediate"}
    })
}

/// Who holds a verdict of each instance of a service, as node `node` answers it.
async fn observers(cluster: &Cluster, node: u64, service: &str) -> BTreeMap<String, BTreeSet<u64>> {
    let instances = cluster.api(node).all(&format!("/v1/services/{service}/instances")).await;
    let observers = |instance: &Value| {
        let verdicts = instance["verdicts"].as_array().expect("verdicts").iter();
        verdicts.map(|verdict| verdict["observer"].as_u64().expect("a node")).collect()
    };
    instances.iter().map(|it| (it["id"].as_str().expect("an id").to_owned(), observers(it))).collect()
}

/// Waits until each instance of a service is observed by exactly so many nodes, none of which is `without`.
async fn observed_by(
    cluster: &Cluster,
    node: u64,
    service: &str,
    count: usize,
    without: Option<u64>,
) -> BTreeMap<String, BTreeSet<u64>> {
    until(SOON, &format!("{service} to be observed by {count} without {without:?}"), async || {
        let seen = observers(cluster, node, service).await;
        let right = |of: &BTreeSet<u64>| of.len() == count && without.is_none_or(|without| !of.contains(&without));
        when(seen.values().all(right), seen)
    })
    .await
}

#[test]
fn others_look_when_an_observer_dies_and_it_gets_its_place_back() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let mut targets = Vec::new();
        for (service, count) in [("ones", 1), ("twos", 2)] {
            cluster.api(1).put(&format!("/v1/services/{service}"), &seen_by(count)).await.done();
        }
        for number in 0..6 {
            let target = Target::start(&format!("t{number}"), cluster.dir()).await;
            for service in ["ones", "twos"] {
                let path = format!("/v1/services/{service}/instances/{}", target.name);
                cluster.api(1).put(&path, &target.registration(100)).await.done();
            }
            targets.push(target);
        }
        let ones = observed_by(&cluster, 1, "ones", 1, None).await;
        let twos = observed_by(&cluster, 1, "twos", 2, None).await;
        println!("ones: {ones:?}\ntwos: {twos:?}");

        // A follower dies that looks at something alone.
        let (leader, _) = cluster.leader().await;
        let looks_alone = |node: &u64| ones.values().any(|of| of.contains(node));
        let victim =
            cluster.others(leader).into_iter().find(looks_alone).expect("six instances keep more than one busy");
        let revision = cluster.local(leader).await.expect("a revision").revision;
        let died = Instant::now();
        cluster.kill9(victim);
        let now_ones = observed_by(&cluster, leader, "ones", 1, Some(victim)).await;
        let now_twos = observed_by(&cluster, leader, "twos", 2, Some(victim)).await;
        let took = died.elapsed();
        println!("node {victim} died; others look after {took:?}: ones {now_ones:?}, twos {now_twos:?}");
        assert!(took < LOST_AFTER + SLACK, "{took:?}");
        for (before, after) in [(&ones, &now_ones), (&twos, &now_twos)] {
            for (instance, of) in before {
                assert!(
                    after[instance].is_superset(&(of - &BTreeSet::from([victim]))),
                    "{instance}: nobody else moves"
                );
            }
        }
        // Where somebody else was looking too, health was known all the time.
        let events = cluster.api(leader).all(&format!("/v1/events?after={revision}")).await;
        let blinks: Vec<&Value> = events
            .iter()
            .filter(|e| e["type"] == "instance.health_changed" && e["service"] == "twos" && e["to"] != "healthy")
            .collect();
        assert!(blinks.is_empty(), "{blinks:#?}");

        // Who took over does look: a death that only they could see is seen.
        let orphan = ones.iter().find(|(_, of)| of.contains(&victim)).map(|(id, _)| id.clone()).expect("it looked");
        let target = targets.iter_mut().find(|target| target.name == orphan).expect("a target");
        target.kill9();
        let sick = cluster.health(leader, "ones", &orphan, "unhealthy").await;
        assert_eq!(sick["verdicts"].as_array().map(Vec::len), Some(1), "{sick}");
        cluster.health(leader, "twos", &orphan, "unhealthy").await;
        target.revive().await;
        cluster.health(leader, "ones", &orphan, "healthy").await;

        // It comes back, and has to look before those who stand in may go.
        let back = Instant::now();
        cluster.restart(victim).await;
        until(SOON, "everything to be as it was", async || {
            let seen = (observers(&cluster, leader, "ones").await, observers(&cluster, leader, "twos").await);
            when(seen == (ones.clone(), twos.clone()), seen)
        })
        .await;
        println!("as it was {:?} after its restart", back.elapsed());
        for service in ["ones", "twos"] {
            for target in &targets {
                cluster.health(leader, service, &target.name, "healthy").await;
            }
        }
        cluster.same_state_everywhere().await;
    });
}
