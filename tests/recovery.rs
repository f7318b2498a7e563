//! How an instance comes back after it was unhealthy, and what one good sighting is worth: from outside, where only what
//! is told can be known.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::cluster::Cluster;
use crate::support::sse::Stream;
use crate::support::target::Target;
use crate::support::{Load, SOON, scenario, until, when};

const A: &str = "/v1/services/fleet/instances/a";
const FAST: Duration = Duration::from_millis(100);

/// All instances serve, failures are noticed quickly, and who was unhealthy comes back as `recovery` says.
fn fleet(recovery: Value) -> Value {
    json!({
        "mode": "active_active",
        "checks": [{"type": "tcp", "interval": "300ms", "timeout": "300ms", "fast_interval": "100ms", "rise": 2, "fall": 2}],
        "recovery": recovery
    })
}

/// `a` of weight 10, well.
async fn one(cluster: &Cluster, recovery: Value) -> Target {
    let a = Target::start("a", cluster.dir()).await;
    let api = cluster.api(1);
    api.put("/v1/services/fleet", &fleet(recovery)).await.done();
    let mut registration = a.registration(100);
    registration["weight"] = json!(10);
    api.put(A, &registration).await.done();
    let well = cluster.health(1, "fleet", "a", "healthy").await;
    assert_eq!((&well["recovery"], &well["effective_weight"]), (&Value::Null, &json!(10.0)), "{well:#}");
    a
}

/// The next change of its health to this word.
async fn turns(stream: &mut Stream, to: &str) -> Value {
    stream.change_where(SOON, "instance.health_changed", |event| event["to"] == to).await.data
}

#[test]
fn by_gradual_it_is_held_back_and_then_gets_a_growing_share() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let recovery = json!({"strategy": "gradual", "initial_delay": "700ms", "max_delay": "700ms", "ramp": "2s"});
        let mut a = one(&cluster, recovery).await;
        let api = cluster.api(1);
        let mut told = Stream::open(api, "/v1/watch?service=fleet", None).await;
        a.kill9();
        turns(&mut told, "unhealthy").await;
        a.revive().await;

        // Seen well, and not taken back: nobody is sent there.
        let held = until(SOON, "a to be well again and held back", async || {
            let a = api.get(A).await.is(200).json;
            when(a["recovery"]["back_in_ms"].is_u64(), a)
        })
        .await;
        assert_eq!(
            (&held["health"], &held["recovery"]["held_back"], &held["recovery"]["failures"], &held["counts"]["up"]),
            (&json!("unhealthy"), &json!(true), &json!(1), &json!(1)),
            "{held:#}"
        );
        assert!(held["recovery"]["back_in_ms"].as_u64() <= Some(700), "{held:#}");
        assert_eq!((&held["effective_weight"], &held["recovery"]["share"]), (&json!(0.0), &json!(0.0)), "{held:#}");
        let nobody = api.post("/v1/services/fleet/pick", &json!({})).await.problem(503).code("no_instance");
        assert!(nobody.text.contains("held back after a failure (over in 1s)"), "{}", nobody.text);

        // Taken back with a share, which grows to the whole by time alone.
        turns(&mut told, "healthy").await;
        let share = async || api.get(A).await.is(200).json["effective_weight"].as_f64().expect("a weight");
        let first = share().await;
        assert!((1.0..10.0).contains(&first), "not all of its 10 at once: {first}");
        let picked = api.post("/v1/services/fleet/pick", &json!({})).await.is(200).json;
        assert!(picked["weight"].as_f64().is_some_and(|weight| weight >= first), "{picked}");
        let mut last = first;
        until(SOON, "a to have its whole weight", async || {
            let now = share().await;
            assert!(now >= last, "it only grows: {last}, then {now}");
            last = now;
            when((now - 10.0).abs() < f64::EPSILON, now)
        })
        .await;
    });
}

#[test]
fn by_probing_it_is_asked_more_often_before_it_counts() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let mut a = one(&cluster, json!({"strategy": "probing", "probes": 10})).await;
        let mut told = Stream::open(cluster.api(1), "/v1/watch?service=fleet", None).await;
        a.kill9();
        turns(&mut told, "unhealthy").await;
        let began = Instant::now();
        a.revive().await;
        turns(&mut told, "healthy").await;
        let took = began.elapsed();
        // `rise` and `probes` good ones in a row, the fast interval between: 11 intervals. Timers have a grain.
        assert!(took >= FAST * 10, "{took:?} are not enough for 12 good probes");
        let a = cluster.api(1).get(A).await.is(200).json;
        assert_eq!(a["effective_weight"], json!(10.0), "and then it has all of its weight: {a:#}");
    });
}

#[test]
fn one_good_sighting_vetoes_what_calls_say_where_the_policy_has_it_so() {
    scenario(Load::Light, async {
        let cluster = Cluster::start(1).await;
        let _a = one(&cluster, json!({"strategy": "immediate"})).await;
        let api = cluster.api(1);
        let spec = |veto: bool| {
            let mut spec = fleet(json!({"strategy": "immediate"}));
            spec["detection"] = json!({"veto": veto, "error_rate": {"window": "1h", "min_requests": 10}});
            spec["breaker"] = json!({"consecutive_failures": 1_000, "min_requests": 1_000});
            spec
        };
        api.put("/v1/services/fleet", &spec(true)).await.done();
        let mut told = Stream::open(api, "/v1/watch?service=fleet", None).await;
        let failed = json!({"reports": [{"instance": "a", "outcome": "server_error", "count": 20}]});
        api.post("/v1/services/fleet/reports", &failed).await.is(202);
        let doubted = turns(&mut told, "suspect").await;
        assert!(doubted["reason"].as_str().is_some_and(|why| why.contains("veto")), "{doubted}");
        let a = api.get(A).await.is(200).json;
        let counts = &a["counts"];
        assert_eq!(
            (&counts["vetoed"], &counts["calls"], &counts["probes"], &counts["verdict"]),
            (&json!(true), &json!("down"), &json!("up"), &json!("suspect")),
            "{a:#}"
        );

        // The very same calls, and no veto.
        api.put("/v1/services/fleet", &spec(false)).await.done();
        let sick = turns(&mut told, "unhealthy").await;
        assert!(sick["reason"].as_str().is_some_and(|why| why.contains("calls say down")), "{sick}");
    });
}
