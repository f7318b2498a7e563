//! A good answer: JSON, made from one view of the state, saying which.

use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use baton_core::id::Revision;
use bytes::Bytes;
use serde::Serialize;

use super::error::ApiError;
use super::extract::etag;
use super::headers::set_revision;

/// An answer on its way out.
pub(crate) struct Answer {
    status: StatusCode,
    body: Bytes,
    revision: Option<Revision>,
    generation: Option<u64>,
}

impl Answer {
    /// 200 with `body` as JSON.
    pub(crate) fn json<T: Serialize>(body: &T) -> Result<Self, ApiError> {
        let body = serde_json::to_vec(body).map_err(|error| ApiError::internal("writing an answer", error))?;
        Ok(Self::raw(body.into()))
    }

    /// 200 with `body`, which is JSON already.
    pub(crate) fn raw(body: Bytes) -> Self {
        Self { status: StatusCode::OK, body, revision: None, generation: None }
    }

    /// Made from the state at `revision`.
    pub(crate) fn at(mut self, revision: Revision) -> Self {
        self.revision = Some(revision);
        self
    }

    /// About an object of this generation.
    pub(crate) fn generation(mut self, generation: u64) -> Self {
        self.generation = Some(generation);
        self
    }

    /// With another status than 200.
    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(revision) = self.revision {
            set_revision(headers, revision);
        }
        if let Some(tag) = self.generation.and_then(|generation| HeaderValue::try_from(etag(generation)).ok()) {
            headers.insert(ETAG, tag);
        }
        response
    }
}
