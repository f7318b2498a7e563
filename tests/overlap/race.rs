//! Operators at all nodes and failures, raced against each other: whoever wins, each promotion has one token, one record and one
//! change of the active, and no answer names a promotion that is not there. The services are probed and their resource refuses
//! old tokens, so that nothing is waited for and moves come as fast as the log takes them.
//!
//! `BATON_RACE_PROMOTIONS=5000 cargo test -p baton --test it overlap::race -- --nocapture` plays for longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::nemesis::Dice;
use super::record;
use super::{SEED, number};
use crate::support::cluster::Cluster;
use crate::support::http::Api;
use crate::support::patient::{Illness, Papers, Patient};
use crate::support::{Load, SOON, scenario_within, until, when};

/// Services, each with as many instances.
const SERVICES: [&str; 3] = ["s0", "s1", "s2"];
const INSTANCES: [&str; 3] = ["a", "b", "c"];
/// Operators.
const CLIENTS: u64 = 4;
/// Promotions of the short race.
const PROMOTIONS: u64 = 200;
/// Records that a cluster keeps (DESIGN section 7, "Retention"): one that is forgotten would be missed here.
const PROMOTIONS_MAX: u64 = 9_000;
/// Time for each promotion of a long race: they take some milliseconds where nothing else runs.
const EACH: Duration = Duration::from_millis(500);

/// What an operator was answered.
struct Answered {
    reason: String,
    record: Value,
}

#[test]
fn moves_raced_against_each_other_have_one_token_and_one_record_each() {
    let wanted = number("BATON_RACE_PROMOTIONS").unwrap_or(PROMOTIONS);
    let seed = number("BATON_OVERLAP_SEED").unwrap_or(SEED);
    assert!(wanted <= PROMOTIONS_MAX, "at most {PROMOTIONS_MAX}: older records are forgotten");
    let limit = Duration::from_secs(120) + EACH * u32::try_from(wanted).expect("a number");
    scenario_within(limit, Load::Heavy, race(seed, wanted));
}

async fn race(seed: u64, wanted: u64) {
    println!(
        "BATON_OVERLAP_SEED={seed} BATON_RACE_PROMOTIONS={wanted} cargo test -p baton --test it overlap::race -- --nocapture"
    );
    let cluster = Cluster::start(3).await;
    let api = cluster.api(1);
    let papers = Papers::new();
    let mut patients = BTreeMap::new();
    let spec = json!({
        "checks": [{"name": "tcp", "type": "tcp", "interval": "200ms", "fast_interval": "50ms", "timeout": "200ms",
            "rise": 1, "fall": 2}],
        "fencing": {"proof": ["token"]},
        "recovery": {"strategy": "immediate", "cooldown": "0s"},
        "failover": {"min_interval": "0s", "max_in_window": 1000, "window": "1s"}
    });
    for service in SERVICES {
        api.put(&format!("/v1/services/{service}"), &spec).await.done();
        for instance in INSTANCES {
            let patient = Patient::start(Illness::Refused, &papers).await;
            let address = json!({"address": patient.address.to_string()});
            api.put(&format!("/v1/services/{service}/instances/{instance}"), &address).await.done();
            patients.insert((service, instance), patient);
        }
    }
    for service in SERVICES {
        for instance in INSTANCES {
            cluster.health(1, service, instance, "healthy").await;
        }
    }

    let begun = Instant::now();
    let over = Arc::new(AtomicBool::new(false));
    let apis: Vec<Api> = cluster.ids().into_iter().map(|id| cluster.api(id).clone()).collect();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(operator(client, apis.clone(), Dice(seed ^ (client + 1)), Arc::clone(&over)));
    }
    // Meanwhile one active after the other dies, until there were enough promotions.
    let mut deaths = 0;
    let mut promotions = 0;
    while promotions < wanted {
        for service in SERVICES {
            let path = format!("/v1/services/{service}/active");
            let active = api.get(&path).await;
            let Some(dies) = INSTANCES.into_iter().find(|id| active.json["instance"] == *id) else { continue };
            patients[&(service, dies)].set_ill(true);
            deaths += 1;
            // By the failure, or because an operator was faster: it is not the active any more, and is known to be ill.
            cluster.health(1, service, dies, "unhealthy").await;
            until(SOON, "another active", async || {
                let now = api.get(&path).await;
                when(now.status == 200 && now.json["instance"] != dies, now.text)
            })
            .await;
            patients[&(service, dies)].set_ill(false);
            cluster.health(1, service, dies, "healthy").await;
        }
        promotions = u64::try_from(api.all("/v1/transitions").await.len()).expect("a number");
    }
    over.store(true, Ordering::Relaxed);
    let mut answered = Vec::new();
    let mut statuses: BTreeMap<String, usize> = BTreeMap::new();
    while let Some(client) = clients.join_next().await {
        let (given, counted) = client.expect("a client");
        answered.extend(given);
        counted.into_iter().for_each(|(status, count)| *statuses.entry(status).or_default() += count);
    }
    let took = begun.elapsed();

    cluster.same_state_everywhere().await;
    let mut all = Vec::new();
    for service in SERVICES {
        let transitions = api.all(&format!("/v1/transitions?service={service}")).await;
        let events = api.all(&format!("/v1/events?after=0&service={service}&type=active.changed")).await;
        let counts = record::check(&transitions, &events, std::iter::empty(), record::OF_TOKENS)
            .unwrap_or_else(|breaches| panic!("{service}: {breaches:#?}"));
        println!("{service}: {counts}");
        all.extend(transitions);
    }
    accounted(&answered, &all);
    println!(
        "{} promotions in {took:?}, {} of them answered to {CLIENTS} operators, {deaths} actives died; answers: {statuses:?}",
        all.len(),
        answered.len()
    );
}

/// Asks for one move after the other, at any node.
async fn operator(
    client: u64,
    apis: Vec<Api>,
    mut dice: Dice,
    over: Arc<AtomicBool>,
) -> (Vec<Answered>, BTreeMap<String, usize>) {
    let mut answered = Vec::new();
    let mut statuses = BTreeMap::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        let reason = format!("operator {client}, move {number}");
        let to = dice.one_of(&[None, None, Some("a"), Some("b"), Some("c")]);
        let (service, kind) = (dice.one_of(&SERVICES), dice.one_of(&["failover", "failover", "switchover"]));
        let call = dice.one_of(&[0, 1, 2]);
        let mut body = json!({"reason": reason});
        if let Some(to) = to {
            body["to"] = json!(to);
        }
        let call: &Api = &apis[call];
        let answer = call.call(Method::POST, &format!("/v1/services/{service}/{kind}")).json(&body).answer().await;
        let what = answer.json["code"].as_str().or(answer.json["status"].as_str()).unwrap_or_default();
        *statuses.entry(format!("{} {what}", answer.status)).or_default() += 1;
        assert!(matches!(answer.status, 200 | 202 | 409), "{} {}", answer.status, answer.text);
        if answer.status == 200 {
            answered.push(Answered { reason, record: answer.json });
        }
    }
    (answered, statuses)
}

/// Every answer names a promotion that is there, once, and as it was answered.
fn accounted(answered: &[Answered], records: &[Value]) {
    let mut by_token: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for record in records {
        if let Some(token) = record["token"].as_u64() {
            let other = by_token.insert(token, record);
            assert!(other.is_none(), "token {token} was minted for two services: {other:?} and {record}");
        }
        if let Some(reason) = record["trigger"]["reason"].as_str().filter(|_| record["actor"].is_string()) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    for Answered { reason, record } in answered {
        let token = record["token"].as_u64().unwrap_or_else(|| panic!("a finished move without a token: {record}"));
        let kept = by_token.get(&token).unwrap_or_else(|| panic!("answered and lost: {record}"));
        assert_eq!((&kept["id"], &kept["to"]), (&record["id"], &record["to"]), "answered {record}, kept {kept}");
        let told =
            reasons.iter().filter(|(kept, _)| kept.contains(reason.as_str())).map(|(_, count)| count).sum::<usize>();
        assert!(told >= 1, "no record has the words of {reason:?}: {record}");
    }
    let twice: Vec<_> = reasons.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "one order, several records: {twice:?}");
}
