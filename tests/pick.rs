//! Whom a caller is sent to: by each strategy, by tier and zone, without those it has tried, and to nobody where nobody
//! may be called. Breakers that open under reports, and operators that take instances out, are tried beside those.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::http::{Answer, Api};
use crate::support::sse::Stream;
use crate::support::target::{Target, watched};
use crate::support::{Load, SOON, ports, scenario, until, when};

const PICK: &str = "/v1/services/fleet/pick";

/// All instances serve, failures are noticed quickly, and who is back is back at once.
fn fleet(more: Value) -> Value {
    let mut spec = json!({
        "mode": "active_active",
        "checks": [{"type": "tcp", "interval": "300ms", "timeout": "300ms", "fast_interval": "100ms"}],
        "recovery": {"strategy": "immediate"}
    });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

/// The instance that an answer names.
#[track_caller]
fn who(answer: Answer) -> String {
    let answer = answer.is(200);
    answer.json["instance"].as_str().unwrap_or_else(|| panic!("no instance in {}", answer.text)).to_owned()
}

/// Who is picked by so many calls in a row.
async fn row(api: &Api, body: Value, calls: usize) -> String {
    let mut names = Vec::new();
    for _ in 0..calls {
        names.push(who(api.post(PICK, &body).await));
    }
    names.join(" ")
}

/// Registers servers under names, with more to say of each, and waits until all are well.
async fn register(cluster: &Cluster, servers: &[(&Target, Value)]) {
    for (target, more) in servers {
        let mut registration = target.registration(100);
        registration.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let path = format!("/v1/services/fleet/instances/{}", target.name);
        cluster.api(1).put(&path, &registration).await.done();
    }
    for (target, _) in servers {
        cluster.health(1, "fleet", &target.name, "healthy").await;
    }
}

#[test]
fn each_strategy_chooses_in_its_way() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let dir = cluster.dir();
        let (a, b, c) = (Target::start("a", dir).await, Target::start("b", dir).await, Target::start("c", dir).await);
        api.put("/v1/services/fleet", &fleet(json!({}))).await.done();
        let heavy = json!({"weight": 5});
        register(&cluster, &[(&a, heavy), (&b, json!({})), (&c, json!({"priority": 300}))]).await;

        // Nothing said: the service's own, which by default is by weight and smooth. A body may be left out altogether.
        let empty = api.call(reqwest::Method::POST, PICK).answer().await.is(200);
        assert_eq!(empty.json["weight"], json!(5.0), "{}", empty.text);
        assert_eq!((&empty.json["trial"], &empty.json["degraded"]), (&json!(false), &json!(false)), "{}", empty.text);
        assert_eq!(empty.json["address"], json!(a.address.to_string()), "{}", empty.text);
        assert!(empty.json.get("token").is_none(), "all are active, and none holds anything: {}", empty.text);
        assert_eq!(who(empty), "a");
        assert_eq!(row(api, json!({}), 6).await, "a b a c a a", "nginx's row for 5, 1 and 1, begun above");
        assert_eq!(row(api, json!({"strategy": "round_robin"}), 6).await, "a b c a b c");
        assert_eq!(row(api, json!({"strategy": "best"}), 3).await, "c c c", "by priority");
        assert_eq!(row(api, json!({"strategy": "next"}), 2).await, "a a");
        assert_eq!(row(api, json!({"strategy": "next", "exclude": ["a"]}), 2).await, "b b");
        assert_eq!(row(api, json!({"strategy": "next", "exclude": ["a", "c"]}), 1).await, "b", "and around");
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..200 {
            *counts.entry(who(api.post(PICK, &json!({"strategy": "random"})).await)).or_default() += 1;
        }
        println!("random: {counts:?}");
        // 143 of 200; six standard deviations of a binomial are 38.
        assert!((105..=181).contains(&counts["a"]) && counts.len() == 3, "{counts:?}");

        // The service's own word, and a caller's before it.
        api.put("/v1/services/fleet", &fleet(json!({"load_balancing": "best"}))).await.done();
        assert_eq!(row(api, json!({}), 3).await, "c c c");
        assert_eq!(row(api, json!({"strategy": "next"}), 1).await, "a");
        let explained = api.get("/v1/services/fleet/explain").await.is(200);
        assert!(!explained.text.contains("load_balancing"), "it is in force: {}", explained.text);
        let metrics = api.get("/metrics").await.text;
        assert!(metrics.contains("baton_picks_total{strategy=\"round_robin\",outcome=\"picked\"} 6"), "{metrics}");
    });
}

#[test]
fn tiers_and_zones_go_from_near_to_far() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let dir = cluster.dir();
        let mut here = Target::start("here", dir).await;
        let (there, standby) = (Target::start("there", dir).await, Target::start("standby", dir).await);
        api.put("/v1/services/fleet", &fleet(json!({}))).await.done();
        let servers = [
            (&here, json!({"zone": "x"})),
            (&there, json!({"zone": "y"})),
            (&standby, json!({"zone": "x", "tier": 1, "priority": 900})),
        ];
        register(&cluster, &servers).await;

        assert_eq!(row(api, json!({"zone": "y"}), 3).await, "there there there");
        assert_eq!(row(api, json!({"zone": "x"}), 3).await, "here here here", "the tier goes before the zone");
        assert_eq!(row(api, json!({"zone": "x", "exclude": ["here"]}), 2).await, "there there");
        assert_eq!(row(api, json!({"zone": "nowhere", "strategy": "round_robin"}), 2).await, "here there");
        assert_eq!(row(api, json!({"exclude": ["here", "there"]}), 2).await, "standby standby");
        let listed = api.get("/v1/services/fleet/endpoints").await.is(200);
        let told = |field: &str| {
            let list = listed.json["endpoints"].as_array().expect("a list").iter();
            list.map(|one| one[field].to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!((told("tier"), told("zone")), ("0 1 0".to_owned(), "\"x\" \"x\" \"y\"".to_owned()));

        let none = api.post(PICK, &json!({"exclude": ["here", "there", "standby"]})).await.problem(503);
        let none = none.code("no_instance");
        assert!(none.text.contains("3 registered: 3 excluded by this request"), "{}", none.text);

        // Whoever dies is left out as soon as it is agreed, and comes back when it is well.
        here.kill9();
        cluster.health(1, "fleet", "here", "unhealthy").await;
        assert_eq!(row(api, json!({"zone": "x", "strategy": "round_robin"}), 3).await, "there there there");
        here.revive().await;
        cluster.health(1, "fleet", "here", "healthy").await;
        assert_eq!(row(api, json!({"zone": "x"}), 2).await, "here here");
    });
}

#[test]
fn when_all_are_sick_it_says_so_or_by_policy_offers_them_all_the_same() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/fleet", &fleet(json!({}))).await.done();
        let empty = api.post(PICK, &json!({})).await.problem(503).code("no_instance");
        assert!(empty.text.contains("none is registered"), "{}", empty.text);
        for name in ["a", "b"] {
            let nobody = json!({"address": ports::free().to_string()});
            api.put(&format!("/v1/services/fleet/instances/{name}"), &nobody).await.done();
        }
        for name in ["a", "b"] {
            cluster.health(1, "fleet", name, "unhealthy").await;
        }
        let none = api.post(PICK, &json!({})).await.problem(503).code("no_instance");
        assert!(none.text.contains("2 registered: 2 unhealthy"), "{}", none.text);
        let listed = api.get("/v1/services/fleet/endpoints").await.is(200);
        assert_eq!((&listed.json["endpoints"], &listed.json["degraded"]), (&json!([]), &json!(false)));
        assert_eq!(listed.json["why"], "2 registered: 2 unhealthy");

        api.put("/v1/services/fleet", &fleet(json!({"fail_open": true}))).await.done();
        let offered = api.post(PICK, &json!({"strategy": "best"})).await.is(200);
        assert_eq!((&offered.json["instance"], &offered.json["degraded"]), (&json!("a"), &json!(true)));
        assert_eq!(row(api, json!({"strategy": "round_robin"}), 4).await, "a b a b");
        let listed = api.get("/v1/services/fleet/endpoints").await.is(200);
        assert_eq!(
            (listed.json["endpoints"].as_array().map(Vec::len), &listed.json["degraded"]),
            (Some(2), &json!(true))
        );
        let none = api.post(PICK, &json!({"exclude": ["a", "b"]})).await.problem(503).code("no_instance");
        assert!(none.text.contains("2 excluded by this request"), "{}", none.text);
    });
}

#[test]
fn trial_calls_are_counted_across_the_cluster_and_good_ones_close_the_breaker() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let a = Target::start("a", cluster.dir()).await;
        let breaker = json!({"breaker": {"consecutive_failures": 5, "open_for": "300ms", "half_open_max_calls": 3,
            "half_open_timeout": "1m", "success_threshold": 3}});
        cluster.api(1).put("/v1/services/fleet", &fleet(breaker)).await.done();
        register(&cluster, &[(&a, json!({}))]).await;
        let mut told = Stream::open(cluster.api(2), "/v1/watch?service=fleet", None).await;
        let failed = json!({"reports": [{"instance": "a", "outcome": "timeout", "count": 5}]});
        cluster.api(3).post("/v1/services/fleet/reports", &failed).await.is(202);
        let mut breaker = async |to: &str| {
            let of = |event: &Value| event["to"] == to;
            told.change_where(SOON, "instance.breaker_changed", of).await.data
        };
        let opened = breaker("open").await;
        assert!(opened["reason"].as_str().is_some_and(|why| why.contains("5 in a row are enough")), "{opened}");
        breaker("half_open").await;

        // Whoever asks, and wherever: three trial calls are out, and no more.
        let asked = cluster.ids().into_iter().cycle().take(24).map(|id| {
            let api = cluster.api(id);
            async move { api.post(PICK, &json!({})).await }
        });
        let answers = join_all(asked).await;
        let (trials, refused): (Vec<Answer>, Vec<Answer>) = answers.into_iter().partition(|one| one.status == 200);
        assert_eq!(
            (trials.len(), refused.len()),
            (3, 21),
            "{:?}",
            trials.iter().map(|one| &one.text).collect::<Vec<_>>()
        );
        for nobody in refused {
            let nobody = nobody.problem(503).code("no_instance");
            assert!(nobody.text.contains("all trial calls out"), "{}", nobody.text);
        }
        for (trial, node) in trials.iter().zip(cluster.ids()) {
            assert_eq!((&trial.json["instance"], &trial.json["trial"]), (&json!("a"), &json!(true)), "{}", trial.text);
            let generation = &trial.json["generation"];
            let good = json!({"reports": [{"instance": "a", "outcome": "success", "generation": generation}]});
            let taken = cluster.api(node).post("/v1/services/fleet/reports", &good).await.is(202);
            assert_eq!(taken.json["accepted"], 1, "{}", taken.text);
        }
        let closed = breaker("closed").await;
        assert_eq!(closed["from"], "half_open", "{closed}");
        for id in cluster.ids() {
            assert_eq!(cluster.api(id).post(PICK, &json!({})).await.is(200).json["trial"], json!(false));
        }
    });
}

#[test]
fn of_an_active_passive_service_every_node_names_the_active_and_its_token() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let (leader, _) = cluster.leader().await;
        let api = cluster.api(leader);
        let mut a = Target::start("a", cluster.dir()).await;
        let b = Target::start("b", cluster.dir()).await;
        api.put("/v1/services/fleet", &watched()).await.done();
        let none = api.post(PICK, &json!({})).await.problem(503).code("no_instance");
        assert!(none.text.contains("none is active, its phase is vacant"), "{}", none.text);
        for (target, priority) in [(&a, 200), (&b, 100)] {
            let path = format!("/v1/services/fleet/instances/{}", target.name);
            api.put(&path, &target.registration(priority)).await.done();
        }
        let active = cluster.active(leader, "fleet", "a").await;
        for id in cluster.ids() {
            for body in [json!({}), json!({"strategy": "round_robin", "zone": "x"})] {
                let picked = cluster.api(id).post(PICK, &body).await.is(200);
                assert_eq!((&picked.json["instance"], &picked.json["token"]), (&active["instance"], &active["token"]));
            }
        }
        let none = api.post(PICK, &json!({"exclude": ["a"]})).await.problem(503).code("no_instance");
        assert!(none.text.contains("its active \\\"a\\\" is not to be called"), "{}", none.text);

        // After a failover it is the next one with a higher token, on every node, and never the dead one.
        a.kill9();
        for id in cluster.ids() {
            let moved = until(SOON, "the pick to follow the failover", async || {
                let picked = cluster.api(id).post(PICK, &json!({})).await;
                when(picked.status == 200 && picked.json["instance"] == "b", picked).map_err(|seen| seen.text)
            })
            .await;
            assert!(moved.json["token"].as_u64() > active["token"].as_u64(), "{}", moved.text);
        }
        let listed = api.get("/v1/services/fleet/endpoints").await.is(200);
        assert_eq!(listed.json["endpoints"].as_array().map(Vec::len), Some(1), "{}", listed.text);
    });
}

#[test]
fn a_node_without_a_quorum_picks_only_for_those_who_take_stale_answers() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(3).await;
        let a = Target::start("a", cluster.dir()).await;
        cluster.api(1).put("/v1/services/fleet", &fleet(json!({}))).await.done();
        register(&cluster, &[(&a, json!({}))]).await;
        cluster.api(3).get("/v1/services/fleet").await.is(200);
        cluster.kill9(1);
        cluster.kill9(2);
        let api = cluster.api(3);
        let refused = api.post(PICK, &json!({})).await.problem(503);
        assert!(
            ["no_quorum", "not_ready"].contains(&refused.json["code"].as_str().unwrap_or_default()),
            "{}",
            refused.text
        );
        // A node that hears no quorum says nothing against anybody: what was agreed stands.
        let picked = api.post(&format!("{PICK}?consistency=stale"), &json!({})).await;
        assert!(picked.staleness() > 0, "{}", picked.text);
        assert_eq!(who(picked), "a");
    });
}

#[test]
fn a_wish_that_makes_no_sense_is_refused_by_name() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.post(PICK, &json!({})).await.problem(404).code("no_such_service");
        api.get("/v1/services/fleet/endpoints").await.problem(404).code("no_such_service");
        api.put("/v1/services/fleet", &fleet(json!({}))).await.done();
        for (body, path) in [
            (json!({"strategy": "least_busy"}), "strategy"),
            (json!({"exclude": ["a", "B!"]}), "exclude[1]"),
            (json!({"exclude": vec!["a"; 1_001]}), "exclude"),
            (json!({"zone": 7}), "zone"),
            (json!({"zon": "x"}), "zon"),
            (json!([]), "$"),
        ] {
            let refused = api.post(PICK, &body).await.problem(400).code("invalid_input");
            assert_eq!(refused.json["errors"][0]["path"], path, "{}", refused.text);
        }
        api.post(&format!("{PICK}?zone=x"), &json!({})).await.problem(400).code("invalid_input");
        let keyed = api.call(reqwest::Method::POST, PICK).header("Idempotency-Key", "\"1\"").json(&json!({}));
        keyed.answer().await.problem(400).code("idempotency_key_unsupported");
    });
}
