//! What a check makes of servers that misbehave, each in its own way.

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::misbehave::{Manner, Misfit};
use crate::support::target::Target;
use crate::support::{Load, SOON, ports, scenario, until, when};

/// All instances serve, so that health is all that is looked at here.
fn spec() -> Value {
    json!({
        "mode": "active_active",
        "checks": [{"type": "http", "path": "/health", "interval": "500ms", "timeout": "300ms", "fast_interval": "100ms"}],
        "recovery": {"strategy": "immediate"}
    })
}

#[test]
fn every_way_to_fail_is_seen_and_named() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/zoo", &spec()).await.done();
        let well = Target::start("well", cluster.dir()).await;
        api.put("/v1/services/zoo/instances/well", &well.registration(100)).await.done();

        let manners = [
            ("hangs", Manner::Hangs, "timeout"),
            ("stops-halfway", Manner::StopsHalfway, "timeout"),
            ("is-broken", Manner::Status(500), "server_error"),
            ("is-busy", Manner::Status(429), "rate_limit"),
            ("babbles", Manner::Babbles, "malformed"),
            ("never-ends", Manner::NeverEnds, "malformed"),
            ("hangs-up", Manner::HangsUp, "connection"),
            ("redirects", Manner::Redirects(well.address), "malformed"),
        ];
        let mut misfits = Vec::new();
        for (name, manner, _) in manners {
            let misfit = Misfit::start(manner).await;
            let registration = json!({"address": misfit.address.to_string()});
            api.put(&format!("/v1/services/zoo/instances/{name}"), &registration).await.done();
            misfits.push(misfit);
        }
        let nobody = json!({"address": ports::free().to_string()});
        api.put("/v1/services/zoo/instances/is-gone", &nobody).await.done();

        for (name, class) in manners.iter().map(|(name, _, class)| (*name, *class)).chain([("is-gone", "connection")]) {
            let sick = cluster.health(1, "zoo", name, "unhealthy").await;
            println!("{name}: {}", sick["verdicts"]);
            assert_eq!(sick["verdicts"].as_array().map(Vec::len), Some(1), "one node, one verdict: {sick}");
            assert_eq!(sick["verdicts"][0]["evidence"]["class"], class, "{name}: {sick}");
        }
        // And all that harmed nobody else: a slow target delays only itself.
        cluster.health(1, "zoo", "well", "healthy").await;
    });
}

#[test]
fn a_tcp_check_asks_for_a_connection_and_an_override_for_something_else() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let check = json!({"type": "tcp", "interval": "300ms", "timeout": "300ms", "fast_interval": "100ms"});
        api.put("/v1/services/ports", &json!({"mode": "active_active", "checks": [check]})).await.done();
        // A connection is all that is asked for, and a server that says 500 to everything gives it.
        let broken = Misfit::start(Manner::Status(500)).await;
        let address = broken.address.to_string();
        api.put("/v1/services/ports/instances/open", &json!({"address": address})).await.done();
        let stricter =
            json!({"checks": [{"type": "http", "path": "/health", "interval": "300ms", "timeout": "300ms"}]});
        let registration = json!({"address": address, "overrides": stricter});
        api.put("/v1/services/ports/instances/asked", &registration).await.done();
        api.put("/v1/services/ports/instances/closed", &json!({"address": ports::free().to_string()})).await.done();

        cluster.health(1, "ports", "open", "healthy").await;
        cluster.health(1, "ports", "asked", "unhealthy").await;
        cluster.health(1, "ports", "closed", "unhealthy").await;
    });
}

#[test]
fn a_body_and_a_status_can_be_asked_for() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        let server = Target::start("server", cluster.dir()).await;
        let teapot = Misfit::start(Manner::Status(418)).await;
        let asks = |name: &str, what: Value| {
            let mut check = json!({"type": "http", "path": "/health", "interval": "300ms", "timeout": "300ms", "rise": 1, "fall": 2});
            check.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
            (format!("/v1/services/{name}"), json!({"mode": "active_active", "checks": [check]}))
        };
        let cases = [
            ("any-body", server.address, json!({"expect_body": "."}), "healthy"),
            ("other-body", server.address, json!({"expect_body": "^no such words$"}), "unhealthy"),
            ("teapot-wanted", teapot.address, json!({"expect_status": ["200-299", "418"]}), "healthy"),
            ("only-201", server.address, json!({"expect_status": ["201"]}), "unhealthy"),
            ("elsewhere", teapot.address, json!({"port": server.address.port()}), "healthy"),
        ];
        for (name, address, what, health) in cases {
            let (path, spec) = asks(name, what);
            api.put(&path, &spec).await.done();
            api.put(&format!("{path}/instances/i"), &json!({"address": address.to_string()})).await.done();
            cluster.health(1, name, "i", health).await;
        }
    });
}

#[test]
fn an_instance_that_fails_for_a_while_comes_back() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let api = cluster.api(1);
        api.put("/v1/services/moody", &spec()).await.done();
        let switches = ["--fail-after", "10", "--fail-duration", "3s"];
        let server = Target::with("moody", cluster.dir(), &switches).await;
        api.put("/v1/services/moody/instances/i", &server.registration(100)).await.done();
        cluster.health(1, "moody", "i", "healthy").await;
        // Its tenth call starts the bad time; probes of /health are not calls.
        for _ in 0..10 {
            reqwest::get(format!("http://{}/", server.address)).await.expect("it answers");
        }
        cluster.health(1, "moody", "i", "unhealthy").await;
        cluster.health(1, "moody", "i", "healthy").await;
        // The history tells it in order.
        let told = until(SOON, "the history of its health", async || {
            let events = api.all("/v1/events?after=0").await;
            let changes: Vec<Value> = events.into_iter().filter(|e| e["type"] == "instance.health_changed").collect();
            let to: Vec<String> = changes.iter().map(|e| e["to"].as_str().unwrap_or_default().to_owned()).collect();
            let sick = to.iter().position(|to| to == "unhealthy");
            match sick {
                Some(at) if to[..at].iter().any(|to| to == "healthy") && to[at..].iter().any(|to| to == "healthy") => {
                    Ok(to)
                }
                Some(_) | None => Err(to),
            }
        })
        .await;
        println!("{told:?}");
    });
}

#[test]
fn a_check_that_a_node_does_not_know_is_told_once_and_accuses_nobody() {
    scenario(Load::Light, async {
        let mut cluster = Cluster::start(1).await;
        let spec = json!({"mode": "active_active", "checks": [{"name": "raid", "type": "agent", "interval": "100ms"}]});
        cluster.api(1).put("/v1/services/disks", &spec).await.done();
        for name in ["a", "b"] {
            let nobody = json!({"address": ports::free().to_string()});
            cluster.api(1).put(&format!("/v1/services/disks/instances/{name}"), &nobody).await.done();
        }
        let discarded = "baton_probes_discarded_total{reason=\"node_short\"} ";
        let metrics = until(SOON, "many probes to be discarded", async || {
            let metrics = cluster.api(1).get("/metrics").await.text;
            let count = metrics.lines().find_map(|line| line.strip_prefix(discarded)?.parse::<u64>().ok());
            when(count >= Some(10), metrics)
        })
        .await;
        assert!(metrics.lines().any(|line| line == "baton_monitor_checks_without_means 1"), "{metrics}");
        let a = cluster.api(1).get("/v1/services/disks/instances/a").await.is(200).json;
        assert_eq!((&a["health"], &a["verdicts"]), (&json!("unknown"), &json!([])), "{a:#}");
        let log = cluster.process(1).output();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("cannot carry out this check")).collect();
        assert_eq!(told.len(), 1, "{told:?}");
        for word in ["WARN", "disks", "raid", "no agent"] {
            assert!(told[0].contains(word), "{}", told[0]);
        }
    });
}
