//! What is measured: each request as it passes, and the state of the node when somebody asks for `/metrics`.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use baton_core::breaker::BreakerState;
use baton_core::probe::{Health, Verdict};
use baton_core::state::{AdminState, Phase, Source};
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::ApiState;
use super::error::ApiError;
use super::query::Query;
use crate::store::View;

const REQUESTS: &str = "baton_http_requests_total";
pub(super) const PICKS: &str = "baton_picks_total";
const SECONDS: &str = "baton_http_request_seconds";

/// Bounds of the latency histogram in seconds: from what a stale read takes to the time by which a default one gives
/// up.
const BUCKETS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];

/// Installs the process-wide recorder of `metrics`, once, and returns the handle by which `/metrics` reads it.
pub(crate) fn recorder() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_counter!(REQUESTS, "Requests to the API, by method, route and status");
    describe_histogram!(SECONDS, "Time from a request to the head of its answer, streams and long polls left out");
    describe_counter!(PICKS, "Instances chosen for callers, by strategy and outcome");
    describe_gauge!(
        "baton_monitor_checks_without_means",
        "Checks of services that this node cannot carry out: no such agent, no descriptors, no ports"
    );
    describe_counter!("baton_fencing_hooks_total", "Runs of fencing hooks on this node, by kind and outcome");
    describe_gauge!("baton_raft_term", "The Raft term");
    describe_gauge!("baton_raft_is_leader", "1 on the leader, else 0");
    describe_gauge!("baton_raft_applied_index", "The last log entry in this node's state");
    describe_gauge!("baton_raft_last_log_index", "The last log entry that this node has");
    describe_gauge!("baton_staleness_seconds", "Time since the leader heard a quorum, or this node its leader");
    describe_gauge!("baton_revision", "The last event in this node's state");
    describe_gauge!("baton_compacted_through", "The last event that is forgotten");
    describe_gauge!("baton_services", "Services by phase");
    describe_gauge!("baton_instances", "Instances by health");
    describe_gauge!("baton_breakers", "Instances by the state of their breaker");
    describe_gauge!("baton_instances_admin", "Instances by what an operator allows them");
    describe_gauge!(
        "baton_instances_held_back",
        "Instances that were unhealthy, are well again and are not taken back yet"
    );
    describe_gauge!("baton_instances_cooling", "Instances that are no candidates until their cool-down ends");
    describe_gauge!("baton_nodes", "Nodes by whether the leader hears them");
    describe_gauge!("baton_transitions", "Transition records kept");
    describe_counter!("baton_reports_total", "Reported calls that were taken, by outcome");
    describe_counter!("baton_reports_dropped_total", "Reported calls that are not judged, by reason");
    describe_counter!("baton_heartbeats_total", "Heartbeats taken, by the state that they tell, or refused");
    describe_counter!("baton_judgements_proposed_total", "Verdicts on calls and heartbeats that this leader proposed");
    describe_gauge!("baton_judged", "Verdicts on instances by calls and heartbeats, by source and verdict");
    describe_gauge!("baton_info", "Always 1; the version is a label");
}

/// Whether an answer may wait for something to happen: its time would say nothing about us. `after` alone is a long
/// poll everywhere but in the history, which answers at once.
fn waits(route: &str, query: Option<&str>) -> bool {
    let asked =
        |name: &str| query.is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some(name)));
    match route {
        "/v1/watch" => true,
        "/v1/events" => false,
        _ => asked("after"),
    }
}

/// Counts a request, and how long its answer took to begin.
pub(crate) async fn measure(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = match *request.method() {
        // Methods are free text: only those that we serve become labels.
        axum::http::Method::GET => "GET",
        axum::http::Method::HEAD => "HEAD",
        axum::http::Method::PUT => "PUT",
        axum::http::Method::POST => "POST",
        axum::http::Method::DELETE => "DELETE",
        _ => "other",
    };
    let route =
        request.extensions().get::<MatchedPath>().map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let waits = waits(&route, request.uri().query());
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    counter!(REQUESTS, "method" => method, "route" => route.clone(), "status" => status).increment(1);
    if !waits {
        histogram!(SECONDS, "method" => method, "route" => route).record(started.elapsed());
    }
    response
}

#[expect(clippy::cast_precision_loss, reason = "gauges are floating point; 2^53 is far away")]
fn set(state: &ApiState, view: &View) {
    let status = state.consensus.status();
    gauge!("baton_raft_term").set(status.term as f64);
    gauge!("baton_raft_is_leader").set(if status.leader == Some(status.node_id) { 1.0 } else { 0.0 });
    gauge!("baton_raft_applied_index").set(view.applied_index as f64);
    gauge!("baton_raft_last_log_index").set(status.last_log_index.unwrap_or(0) as f64);
    gauge!("baton_raft_snapshot_index").set(status.snapshot_index.unwrap_or(0) as f64);
    gauge!("baton_raft_purged_index").set(status.purged_index.unwrap_or(0) as f64);
    gauge!("baton_staleness_seconds").set(state.consensus.staleness().map_or(f64::INFINITY, |age| age.as_secs_f64()));
    gauge!("baton_revision").set(view.state.meta.revision as f64);
    gauge!("baton_compacted_through").set(view.state.meta.compacted_through as f64);
    gauge!("baton_transitions").set(view.state.transitions.len() as f64);
    gauge!("baton_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);

    let now = state.consensus.now().time;
    let (mut held_back, mut cooling) = (0_u64, 0_u64);
    let mut breakers: BTreeMap<&str, u64> = BreakerState::ALL.iter().map(|(word, _)| (*word, 0)).collect();
    let mut admins: BTreeMap<&str, u64> = AdminState::ALL.iter().map(|(word, _)| (*word, 0)).collect();
    let mut phases: BTreeMap<&str, u64> = Phase::ALL.iter().map(|(word, _)| (*word, 0)).collect();
    let mut healths: BTreeMap<&str, u64> = Health::ALL.iter().map(|(word, _)| (*word, 0)).collect();
    let words = |source: &'static str| Verdict::ALL.iter().map(move |(word, _)| ((source, *word), 0));
    let mut judged: BTreeMap<(&str, &str), u64> = Source::ALL.iter().flat_map(|(source, _)| words(source)).collect();
    for service in view.state.services.values() {
        *phases.entry(service.assignment.phase.as_str()).or_default() += 1;
        for instance in service.instances.values() {
            for (source, record) in &instance.judged {
                *judged.entry((source.as_str(), record.verdict.as_str())).or_default() += 1;
            }
            *healths.entry(instance.health.as_str()).or_default() += 1;
            *breakers.entry(instance.breaker.state.as_str()).or_default() += 1;
            *admins.entry(instance.admin.state.as_str()).or_default() += 1;
            if let Some(recovery) = &instance.recovery {
                held_back += u64::from(recovery.good_since.is_some());
                cooling += u64::from(recovery.cooling(now).is_some());
            }
        }
    }
    for ((source, verdict), count) in judged.into_iter().filter(|((_, verdict), _)| *verdict != "unknown") {
        gauge!("baton_judged", "source" => source, "verdict" => verdict).set(count as f64);
    }
    for (phase, count) in phases {
        gauge!("baton_services", "phase" => phase).set(count as f64);
    }
    for (health, count) in healths {
        gauge!("baton_instances", "health" => health).set(count as f64);
    }
    for (breaker, count) in breakers {
        gauge!("baton_breakers", "state" => breaker).set(count as f64);
    }
    for (admin, count) in admins {
        gauge!("baton_instances_admin", "state" => admin).set(count as f64);
    }
    gauge!("baton_instances_held_back").set(held_back as f64);
    gauge!("baton_instances_cooling").set(cooling as f64);
    let live = view.state.nodes.values().filter(|node| node.live).count();
    gauge!("baton_nodes", "live" => "true").set(live as f64);
    gauge!("baton_nodes", "live" => "false").set((view.state.nodes.len() - live) as f64);
}

/// Measurements for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "node",
    responses((status = 200, description = "Prometheus text format", content_type = "text/plain", body = String)))]
pub(crate) async fn metrics(State(state): State<ApiState>, Query(()): Query<()>) -> Result<Response, ApiError> {
    let view = state.consensus.reader().view();
    set(&state, &view);
    state.metrics.run_upkeep();
    let mut response = state.metrics.render().into_response();
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::waits;

    #[test]
    fn only_what_may_wait_is_left_out_of_the_times() {
        for (route, query) in [
            ("/v1/watch", None),
            ("/v1/services", Some("after=7")),
            ("/v1/services/{service}", Some("consistency=stale&after=7&wait=1s")),
        ] {
            assert!(waits(route, query), "{route} {query:?}");
        }
        for (route, query) in [
            ("/v1/events", Some("after=7&limit=10")),
            ("/v1/services", None),
            ("/v1/services", Some("cursor=hereafter=1")),
        ] {
            assert!(!waits(route, query), "{route} {query:?}");
        }
    }
}
