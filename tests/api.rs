//! The manners of the API: what repeats, what is conditional, what is paged, what is on every answer.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::target::{Target, watched};
use crate::support::{Load, scenario};

#[test]
fn putting_the_same_twice_is_one_event() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let spec = json!({"mode": "active_active", "lease": {"ttl": "15s"}});
        let instance = json!({"address": "127.0.0.1:9", "zone": "east", "metadata": {"rack": "7"}});
        api.put("/v1/services/same", &spec).await.is(201);
        api.put("/v1/services/same/instances/i", &instance).await.is(201);
        let before = api.get("/v1/services/same").await.is(200);
        api.put("/v1/services/same", &spec).await.is(200);
        // Other spellings of the same: a default said aloud, a duration in another unit, another order.
        api.put("/v1/services/same", &json!({"lease": {"delay": "0s", "ttl": "15000ms"}, "mode": "active_active"}))
            .await
            .is(200);
        api.put("/v1/services/same/instances/i", &instance).await.is(200);
        let after = api.get("/v1/services/same").await.is(200);
        assert_eq!(after.revision(), before.revision(), "nothing happened, so there is no event");
        assert_eq!(after.json["generation"], before.json["generation"]);

        api.put("/v1/services/same", &json!({"mode": "active_active"})).await.is(200);
        let changed = api.get("/v1/services/same").await.is(200);
        assert_eq!(changed.revision(), before.revision() + 1, "one change, one event");
        assert_ne!(changed.json["generation"], before.json["generation"]);
        assert_eq!(
            changed.json["spec"]["lease"]["ttl"], "10s",
            "what a spec leaves out has its default: {}",
            changed.text
        );
        let kinds: Vec<Value> =
            api.all("/v1/events?after=0").await.into_iter().filter(|event| event["service"] == "same").collect();
        let kinds: Vec<&str> = kinds.iter().filter_map(|event| event["type"].as_str()).collect();
        assert_eq!(kinds, ["service.created", "instance.registered", "service.updated"]);
    });
}

#[test]
fn an_old_etag_overwrites_nothing() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let path = "/v1/services/tagged";
        api.put(path, &json!({})).await.is(201);
        let old = api.get(path).await.is(200).header("etag").to_owned();
        assert!(old.starts_with('"'), "an ETag is quoted: {old:?}");
        let put = |tag: String, ttl: &str| {
            api.call(Method::PUT, path).header("if-match", &tag).json(&json!({"lease": {"ttl": ttl}})).answer()
        };
        let done = put(old.clone(), "20s").await.is(200);
        assert_ne!(done.header("etag"), old, "the answer to a write carries the new tag");
        let refused = put(old.clone(), "30s").await.problem(412);
        assert!(!refused.json["detail"].as_str().unwrap_or_default().is_empty());
        let now = api.get(path).await.is(200);
        assert_eq!(now.json["spec"]["lease"]["ttl"], "20s");
        assert_eq!(now.header("etag"), done.header("etag"));
        api.call(Method::DELETE, path).header("if-match", &old).answer().await.problem(412);
        let gone = api.call(Method::DELETE, path).header("if-match", now.header("etag")).answer().await;
        assert!(matches!(gone.status, 200 | 204), "{}", gone.text);
    });
}

#[test]
fn what_was_deleted_is_gone_and_its_token_never_comes_back() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let a = Target::start("a", cluster.dir()).await;
        let mut last = 0;
        for _ in 0..2 {
            api.put("/v1/services/db", &watched()).await.is(201);
            api.put("/v1/services/db/instances/a", &a.registration(100)).await.is(201);
            let token = cluster.active(1, "db", "a").await["token"].as_u64().expect("a token");
            assert!(token > last, "{token} after {last}: tokens rise across deletes too");
            last = token;
            let gone = api.delete("/v1/services/db/instances/a").await;
            assert!(matches!(gone.status, 200 | 204), "{}", gone.text);
            api.get("/v1/services/db/instances/a").await.problem(404).code("no_such_instance");
            api.get("/v1/services/db/active").await.problem(503).code("no_active");
            let gone = api.delete("/v1/services/db").await;
            assert!(matches!(gone.status, 200 | 204), "{}", gone.text);
            for path in ["", "/active", "/instances", "/instances/a", "/explain", "/instances/a/is-active"] {
                api.get(&format!("/v1/services/db{path}")).await.problem(404).code("no_such_service");
            }
            api.delete("/v1/services/db").await.problem(404).code("no_such_service");
        }
        let orphan = api.put("/v1/services/db/instances/a", &a.registration(100)).await;
        orphan.problem(404).code("no_such_service");
    });
}

#[test]
fn lists_come_in_pages() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let names: BTreeSet<String> = (0..25).map(|number| format!("service-{number:02}")).collect();
        for name in &names {
            api.put(&format!("/v1/services/{name}"), &json!({"mode": "active_active"})).await.is(201);
            api.put(&format!("/v1/services/service-00/instances/{name}"), &json!({"address": "127.0.0.1:9"}))
                .await
                .is(201);
        }
        for (path, key) in
            [("/v1/services", "name"), ("/v1/services/service-00/instances", "id"), ("/v1/events?after=0", "revision")]
        {
            let whole = api.all(path).await;
            let glue = if path.contains('?') { '&' } else { '?' };
            let (mut next, mut sizes, mut paged) = (format!("{path}{glue}limit=10"), Vec::new(), Vec::new());
            loop {
                let page = api.get(&next).await.is(200);
                sizes.push(page.items().len());
                paged.extend(page.items().iter().map(|item| item[key].to_string()));
                match page.next_cursor() {
                    Some(cursor) => next = format!("{path}{glue}limit=10&cursor={cursor}"),
                    None => break,
                }
            }
            let whole: Vec<String> = whole.iter().map(|item| item[key].to_string()).collect();
            assert_eq!(paged, whole, "{path}");
            assert!(
                sizes.iter().all(|size| *size <= 10) && sizes.iter().rev().skip(1).all(|size| *size == 10),
                "{path}: {sizes:?}"
            );
            if path != "/v1/events?after=0" {
                assert_eq!(paged.len(), names.len(), "{path}");
            }
        }
    });
}

#[test]
fn load_balancers_ask_by_the_status_alone() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let (a, b) = (Target::start("a", cluster.dir()).await, Target::start("b", cluster.dir()).await);
        let mut c = Target::start("c", cluster.dir()).await;
        api.put("/v1/services/db", &watched()).await.done();
        for (target, priority) in [(&a, 300), (&b, 200), (&c, 100)] {
            api.put(&format!("/v1/services/db/instances/{}", target.name), &target.registration(priority)).await.done();
        }
        for name in ["a", "b", "c"] {
            cluster.health(1, "db", name, "healthy").await;
        }
        cluster.active(1, "db", "a").await;
        c.kill9();
        cluster.health(1, "db", "c", "unhealthy").await;

        for (instance, question, status) in [
            ("a", "is-active", 200),
            ("a", "is-passive", 503),
            ("a", "is-healthy", 200),
            ("b", "is-active", 503),
            ("b", "is-passive", 200),
            ("b", "is-healthy", 200),
            ("c", "is-active", 503),
            ("c", "is-healthy", 503),
        ] {
            let path = format!("/v1/services/db/instances/{instance}/{question}");
            api.get(&path).await.is(status);
            let head = api.call(Method::HEAD, &path).answer().await.is(status);
            assert!(head.text.is_empty(), "HEAD has no body: {}", head.text);
            // The own copy answers the same, for those who ask every second.
            api.get(&format!("{path}?consistency=stale")).await.is(status);
        }
        api.get("/v1/services/db/instances/nobody/is-active").await.problem(404).code("no_such_instance");

        // A service's status shows them all.
        let status = api.get("/v1/services/db").await.is(200).json;
        assert_eq!(status["phase"], "active");
        assert!(status["active"].to_string().contains("\"a\""), "{status}");
        let listed = api.all("/v1/services/db/instances").await;
        let roles: Vec<(&str, &str)> = listed
            .iter()
            .map(|i| (i["id"].as_str().unwrap_or_default(), i["role"].as_str().unwrap_or_default()))
            .collect();
        assert_eq!(roles, [("a", "active"), ("b", "passive"), ("c", "passive")]);
    });
}

#[test]
fn every_answer_says_how_new_it_is() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        for id in cluster.ids() {
            let api = cluster.api(id);
            api.put(&format!("/v1/services/of-{id}"), &json!({"mode": "active_active"})).await.done();
            for path in [
                "/v1/services",
                "/v1/services?consistency=stale",
                "/v1/services/nothing",
                "/v1/services/nothing/active",
                "/v1/services?limit=nonsense",
                "/v1/events",
                "/v1/transitions",
                "/v1/cluster",
                "/v1/nonsense",
                "/nonsense",
                "/livez",
                "/readyz",
                "/metrics",
                "/openapi.json",
                "/docs",
            ] {
                let answer = api.get(path).await;
                assert!(answer.status < 500, "{path}: {}", answer.text);
                answer.revision();
                assert!(answer.staleness() < 5_000, "node {id} {path}: {} ms", answer.staleness());
            }
            let refused = api.call(Method::PUT, "/v1/services/bad").raw("{").answer().await;
            refused.revision();
            refused.staleness();
        }
    });
}

#[test]
fn what_is_written_on_one_node_is_read_at_once_on_any() {
    scenario(Load::Heavy, async {
        let cluster = Cluster::start(3).await;
        let ids = cluster.ids();
        for round in 0..10 {
            let written_at = ids[round % ids.len()];
            let path = format!("/v1/services/round-{round}");
            let written = cluster.api(written_at).put(&path, &json!({"mode": "active_active"})).await.is(201);
            for id in &ids {
                let read = cluster.api(*id).get(&path).await.is(200);
                assert!(read.revision() >= written.revision(), "node {id} answered from before the write");
            }
            cluster.api(written_at).delete(&path).await;
            for id in &ids {
                cluster.api(*id).get(&path).await.problem(404);
            }
        }
        let view = cluster.api(2).get("/v1/cluster").await.is(200).json;
        assert!(view["cluster_id"].as_str().is_some_and(|id| !id.is_empty()), "{view}");
        let nodes = view["nodes"].as_array().expect("nodes");
        assert_eq!(nodes.len(), 3, "{view}");
        assert_eq!(nodes.iter().filter(|node| node["role"] == "leader").count(), 1, "{view}");
        assert!(nodes.iter().all(|node| node["live"] == true), "{view}");
        assert_eq!(view["local"]["id"], 2);
        cluster.same_state_everywhere().await;
    });
}

#[test]
fn a_node_describes_itself() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.get("/livez").await.is(200);
        api.get("/readyz").await.is(200);
        let metrics = api.get("/metrics").await.is(200);
        assert!(metrics.header("content-type").starts_with("text/plain"), "{}", metrics.header("content-type"));
        let samples = metrics.text.lines().filter(|line| line.starts_with("baton_"));
        let names: BTreeSet<&str> = samples.filter_map(|line| line.split(['{', ' ']).next()).collect();
        println!("{names:?}");
        assert!(names.len() >= 5, "a first set of metrics: {names:?}");
        for line in metrics.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value = line.rsplit(' ').next().unwrap_or_default();
            assert!(value.parse::<f64>().is_ok(), "no sample: {line}");
        }
        let spec = api.get("/openapi.json").await.is(200);
        assert!(
            spec.json["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
            "{}",
            spec.json["openapi"]
        );
        let docs = api.get("/docs").await.is(200);
        assert!(docs.header("content-type").starts_with("text/html"), "{}", docs.header("content-type"));
        let elsewhere = docs.text.split("src=\"").chain(docs.text.split("<link href=\"")).skip(1);
        for link in elsewhere.filter_map(|rest| rest.split('"').next()) {
            assert!(!link.starts_with("http") && !link.starts_with("//"), "the page loads {link} from elsewhere");
        }
    });
}

#[test]
fn five_nodes_are_a_cluster_and_bear_the_loss_of_two() {
    scenario(Load::Heavy, async {
        let mut cluster = Cluster::start(5).await;
        cluster.api(5).put("/v1/services/five", &json!({"mode": "active_active"})).await.done();
        let (leader, _) = cluster.leader().await;
        let lost = [leader, cluster.others(leader)[0]];
        for id in lost {
            cluster.kill9(id);
        }
        let left: Vec<u64> = cluster.ids().into_iter().filter(|id| !lost.contains(id)).collect();
        cluster.leader_among(&left).await;
        cluster.api(left[0]).put("/v1/services/three", &json!({"mode": "active_active"})).await.done();
        for id in &left {
            cluster.api(*id).get("/v1/services/three").await.is(200);
        }
        // A third loss is one too many: no fresh answers, and an honest 503 in time.
        cluster.kill9(left[0]);
        let answer = cluster.api(left[1]).get("/v1/services/three").await.problem(503);
        assert!(answer.took < Duration::from_secs(3), "{:?}", answer.took);
        cluster.api(left[1]).get("/v1/services/three?consistency=stale").await.is(200);
        for id in [lost[0], lost[1], left[0]] {
            cluster.restart(id).await;
        }
        cluster.same_state_everywhere().await;
    });
}
