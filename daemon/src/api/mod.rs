//! The HTTP API: requests become valid types, go to consensus or to the local copy of the state, and come back as the
//! views of `baton-client`. Status codes live here and nowhere else; decisions live elsewhere and never here.

mod active;
mod answer;
mod automation;
mod cluster;
mod docs;
mod document;
mod ending;
mod error;
mod events;
mod explain;
mod extract;
mod guard;
mod headers;
mod heartbeat;
mod holder;
mod instances;
mod longpoll;
mod measures;
mod meta;
mod moves;
mod operator;
mod pick;
mod query;
mod reason;
mod reports;
mod role;
mod services;
mod sse;
#[cfg(test)]
mod tests;
mod tokens;
mod transitions;
mod views;
mod watch;
mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::consensus::Consensus;
use crate::reports::Reports;
use error::ApiError;

pub(crate) use document::openapi;
pub(crate) use measures::recorder;

/// What the API needs of the node.
#[derive(Clone)]
pub(crate) struct ApiState {
    /// The way to the cluster, and the local copy of its state.
    consensus: Consensus,
    /// What clients and instances say.
    reports: Reports,
    /// What was measured, for `/metrics`.
    metrics: PrometheusHandle,
    /// Host names that requests may use beside IP addresses and `localhost`.
    allowed_hosts: Arc<[String]>,
    /// Told when the node stops: streams and long polls end.
    shutdown: CancellationToken,
    /// The last state hash, since it costs a walk over the whole state.
    hash: Arc<cluster::HashCache>,
    /// Whose turn it is, service by service.
    pickers: Arc<pick::Pickers>,
    /// Which role streams are open here.
    roles: Arc<role::Streams>,
}

impl ApiState {
    /// The API's part of a node. `allowed_hosts` are names beside IP addresses and `localhost`, in any case.
    pub(crate) fn new(
        consensus: Consensus,
        reports: Reports,
        metrics: PrometheusHandle,
        allowed_hosts: impl IntoIterator<Item = String>,
        shutdown: CancellationToken,
    ) -> Self {
        let allowed_hosts = allowed_hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect();
        Self {
            consensus,
            reports,
            metrics,
            allowed_hosts,
            shutdown,
            hash: Arc::default(),
            pickers: Arc::default(),
            roles: Arc::default(),
        }
    }
}

/// Every route with its documentation, before the state and the layers.
fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new()
        .routes(routes!(meta::livez))
        .routes(routes!(meta::readyz))
        .routes(routes!(measures::metrics))
        .routes(routes!(docs::openapi_json))
        .routes(routes!(docs::docs))
        .routes(routes!(docs::index))
        .routes(routes!(services::list))
        .routes(routes!(services::put, services::get, services::delete))
        .routes(routes!(instances::list))
        .routes(routes!(instances::put, instances::get, instances::patch, instances::delete))
        .routes(routes!(operator::admin))
        .routes(routes!(operator::reset))
        .routes(routes!(active::active))
        .routes(routes!(active::is_active))
        .routes(routes!(active::is_passive))
        .routes(routes!(active::is_healthy))
        .routes(routes!(pick::pick))
        .routes(routes!(pick::endpoints))
        .routes(routes!(reports::post))
        .routes(routes!(heartbeat::post))
        .routes(routes!(holder::ack))
        .routes(routes!(holder::release))
        .routes(routes!(role::role))
        .routes(routes!(tokens::verify))
        .routes(routes!(explain::explain))
        .routes(routes!(moves::failover))
        .routes(routes!(moves::switchover))
        .routes(routes!(moves::failback))
        .routes(routes!(automation::pause))
        .routes(routes!(automation::resume))
        .routes(routes!(automation::pause_all))
        .routes(routes!(automation::resume_all))
        .routes(routes!(transitions::list))
        .routes(routes!(transitions::get))
        .routes(routes!(events::list))
        .routes(routes!(watch::watch))
        .routes(routes!(cluster::cluster))
}

async fn no_such_path() -> ApiError {
    ApiError::NoSuchPath
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError::MethodNotAllowed { method: request.method().to_string() }
}

/// A panic is a defect of ours; the client gets a problem document like for any other.
#[expect(clippy::needless_pass_by_value, reason = "the layer hands the payload over")]
fn panicked(payload: Box<dyn std::any::Any + Send>) -> Response {
    let told = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned());
    axum::response::IntoResponse::into_response(ApiError::Panicked(told))
}

/// The whole API as one service.
pub(crate) fn router(state: ApiState) -> Router {
    layered(routes().split_for_parts().0, state)
}

/// Adds what holds for every request, matched or not. The last layer is the outermost.
fn layered(router: Router<ApiState>, state: ApiState) -> Router {
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(state.clone(), guard::guard))
        .layer(from_fn_with_state(state.clone(), headers::headers))
        .layer(from_fn(measures::measure))
        .with_state(state)
}
