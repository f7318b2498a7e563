//! Pages for people: the API's reader and the front page. Both are one file each, with nothing fetched from elsewhere.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse, Response};

use super::error::ApiError;
use super::query::Query;

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "node",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object)))]
pub(crate) async fn openapi_json(Query(()): Query<()>) -> Result<Response, ApiError> {
    let mut response = super::document::text()?.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// This document, to read
#[utoipa::path(get, path = "/docs", tag = "node",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(crate) async fn docs() -> Html<&'static str> {
    Html(include_str!("docs.html"))
}

/// Services and nodes, live
#[utoipa::path(get, path = "/", tag = "node",
    responses((status = 200, description = "A page", content_type = "text/html", body = String)))]
pub(crate) async fn index() -> Html<&'static str> {
    Html(include_str!("index.html"))
}
