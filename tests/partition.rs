//! A node whose cable is pulled knows that it knows nothing; the others go on; afterwards all are of one mind.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::netns::{Lan, may_make_namespaces};
use crate::support::sse::Stream;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, scenario, until, when};

/// Within this a node without a quorum must say so.
const SAYS_SO_WITHIN: Duration = Duration::from_secs(2);
/// What a busy machine may add to that.
const SLACK: Duration = Duration::from_secs(1);
/// The client's own patience, well above.
const PATIENCE: Duration = Duration::from_secs(8);

/// Whose cable is pulled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Follower,
    Leader,
}

#[test]
fn a_follower_that_is_cut_off_serves_no_fresh_answer_and_deposes_nobody_on_its_return() {
    if may_make_namespaces(
        "partition::a_follower_that_is_cut_off_serves_no_fresh_answer_and_deposes_nobody_on_its_return",
    ) {
        scenario(Load::Heavy, cut_off(Cut::Follower));
    }
}

#[test]
fn a_leader_that_is_cut_off_serves_no_fresh_answer_and_promotes_nothing() {
    if may_make_namespaces("partition::a_leader_that_is_cut_off_serves_no_fresh_answer_and_promotes_nothing") {
        scenario(Load::Heavy, cut_off(Cut::Leader));
    }
}

/// No fresh answer: 503, a problem, in time.
async fn says_503(cluster: &Cluster, node: u64, method: Method, path: &str, body: Option<Value>) {
    let mut call = cluster.api(node).call(method.clone(), path);
    if let Some(body) = &body {
        call = call.json(body);
    }
    let answer = call.send(PATIENCE).await.unwrap_or_else(|error| panic!("{error}")).problem(503);
    println!("{method} {path}: {} after {:?}", answer.json["code"], answer.took);
    assert!(answer.took < SAYS_SO_WITHIN + SLACK, "{method} {path}: 503 after {:?}", answer.took);
    answer.staleness();
}

async fn cut_off(cut: Cut) {
    let lan = Lan::new(3);
    let cluster = Cluster::in_hosts(&lan, 3).await;
    let (leader, term) = cluster.leader().await;
    let victim = match cut {
        Cut::Leader => leader,
        Cut::Follower => cluster.others(leader)[0],
    };
    let others = cluster.others(victim);
    let well = others[0];

    // The active lives in the host that will be cut off, so that its node goes on seeing it well.
    let a = Target::in_host("a", lan.host_of(victim), cluster.dir());
    let b = Target::in_host("b", lan.host_of(others[1]), cluster.dir());
    cluster.api(well).put("/v1/services/db", &watched()).await.done();
    cluster.api(well).put("/v1/services/db/instances/a", &a.registration(200)).await.done();
    cluster.api(well).put("/v1/services/db/instances/b", &b.registration(100)).await.done();
    cluster.health(well, "db", "b", "healthy").await;
    let before = cluster.active(well, "db", "a").await;
    let mut stream = Stream::open(cluster.api(well), "/v1/watch?service=db", None).await;
    stream.next(SOON).await.expect("a snapshot");
    cluster.same_state_everywhere().await;

    let pulled = Instant::now();
    lan.cut(victim);

    // Right after, a leader may still believe in itself: a linearizable read must not.
    says_503(&cluster, victim, Method::GET, "/v1/services/db/active", None).await;
    says_503(&cluster, victim, Method::GET, "/v1/services", None).await;
    let spec = Some(json!({"mode": "active_active"}));
    says_503(&cluster, victim, Method::PUT, "/v1/services/written-in-vain", spec).await;

    // The others go on: they find the active gone with its host, and promote another.
    let changed = stream.change_where(SOON, "active.changed", |event| event["to"] == "b").await;
    println!("the majority promoted b {:?} after the cut", pulled.elapsed());
    let after = cluster.active(well, "db", "b").await;
    assert!(after["token"].as_u64() > before["token"].as_u64(), "{after} after {before}");
    assert_eq!(after["token"], changed.data["token"]);
    let (_, term_meanwhile) = cluster.leader_among(&others).await;

    // The one cut off says what it last knew, how old that is, and has promoted nothing.
    let stale = "/v1/services/db/active?consistency=stale";
    let early = cluster.api(victim).get(stale).await.is(200);
    let later = until(SOON, "its staleness to grow", async || {
        let later = cluster.api(victim).get(stale).await.is(200);
        when(later.staleness() > early.staleness() + 300, later)
    })
    .await;
    for answer in [&early, &later] {
        assert_eq!(
            (&answer.json["instance"], &answer.json["token"]),
            (&json!("a"), &before["token"]),
            "{}",
            answer.text
        );
    }
    println!("stale for {} ms, then {} ms", early.staleness(), later.staleness());
    let aged = u128::from(later.staleness());
    assert!(aged <= pulled.elapsed().as_millis() + 1_000, "older than the cut itself: {aged} ms");
    assert!(
        aged + 2_000 >= pulled.elapsed().as_millis(),
        "younger than the cut: {aged} ms after {:?}",
        pulled.elapsed()
    );
    let kinds = cluster.api(victim).all("/v1/transitions?consistency=stale").await;
    assert!(kinds.iter().all(|transition| transition["kind"] == "placement"), "{kinds:#?}");
    let ready = cluster.api(victim).get("/readyz").await;
    assert_eq!(ready.status, 503, "a node without a leader is not ready: {}", ready.text);
    cluster.api(victim).get("/livez").await.is(200);
    says_503(&cluster, victim, Method::GET, "/v1/services/db", None).await;

    // The cable is back.
    lan.heal(victim);
    cluster.ready(victim).await;
    cluster.health(victim, "db", "a", "healthy").await;
    for node in cluster.ids() {
        let now = cluster.active(node, "db", "b").await;
        assert_eq!(now["token"], after["token"], "node {node}: nothing was promoted since");
    }
    cluster.same_state_everywhere().await;
    let (led_by, term_now) = cluster.leader().await;
    assert_eq!(term_now, term_meanwhile, "the return of one node unseats nobody");
    match cut {
        Cut::Follower => assert_eq!((led_by, term_now), (leader, term), "the leader was well all the time"),
        Cut::Leader => assert!(led_by != victim && term_now > term, "{led_by} in term {term_now} after {term}"),
    }
}
