//! A resource behind HTTP, as the test speaks to it: `PUT` (or `POST`) with the header `Baton-Token` and the value as a
//! decimal number in the body writes; `GET` of the same address reads that number back. What the answers mean is said
//! here and nowhere else.

use std::time::Duration;

use reqwest::{RequestBuilder, StatusCode, Url};
use tokio::process::Command;

use super::super::http::TOKEN_HEADER;
use super::{Outcome, Resource, Standing, Unanswered};
use crate::error::{cut, root};

/// How long one request may take. It is shorter than the limit of the test for an answer, so that the reason is told.
const REQUEST_WITHIN: Duration = Duration::from_secs(5);
/// How often a resource that was started again is asked whether it is up.
const UP_AGAIN_EVERY: Duration = Duration::from_millis(20);
/// The longest value that is read. A number of 64 bits has 20 digits; the rest is room for white space.
const VALUE_MAX: usize = 64;

/// How a write is spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `PUT`, the default: the value is replaced.
    #[default]
    Put,
    /// `POST`.
    Post,
}

/// Why there is no resource to speak to.
#[derive(Debug, thiserror::Error)]
pub enum NotAResource {
    /// The text is no address.
    #[error("\"{url}\" is not the address of a resource: {why}; write it like http://127.0.0.1:8080/value")]
    Url {
        /// The offending text.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// No client could be made.
    #[error("a client cannot be made: {0}")]
    Client(String),
}

/// A resource behind HTTP.
///
/// A write is accepted by any 2xx and refused by 409 or 412; without a token it is refused by any 4xx. Every other
/// answer to a write is none. A `GET` that is answered 404 means that no
/// value was written yet, and one that is answered 405 or 501 that it cannot be read.
#[derive(Clone, Debug)]
pub struct HttpResource {
    http: reqwest::Client,
    url: Url,
    method: Method,
    restart: Option<String>,
}

impl HttpResource {
    /// The resource at `url`, like `http://127.0.0.1:8080/value`. Plain HTTP only.
    pub fn new(url: &str, method: Method) -> Result<Self, NotAResource> {
        let wrong = |why: &str| NotAResource::Url { url: cut(url), why: why.to_owned() };
        let parsed: Url = url.trim().parse().map_err(|error| wrong(&format!("{error}")))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            return Err(wrong("only http:// with a host can be spoken to"));
        }
        let http = reqwest::Client::builder()
            // A redirect may lead past the guard, and a repeated write would be counted as one.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(REQUEST_WITHIN)
            .user_agent(concat!("baton/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| NotAResource::Client(root(&error)))?;
        Ok(Self { http, url: parsed, method, restart: None })
    }

    /// The same resource, which the shell command `command` ends and starts again; it returns when that has been done
    /// or begun.
    #[must_use]
    pub fn restarted_by(mut self, command: &str) -> Self {
        self.restart = Some(command.to_owned());
        self
    }

    async fn write_with(&self, token: Option<u64>, value: u64) -> Result<StatusCode, Unanswered> {
        let mut request = match self.method {
            Method::Put => self.http.put(self.url.clone()),
            Method::Post => self.http.post(self.url.clone()),
        };
        if let Some(token) = token {
            request = request.header(TOKEN_HEADER, token.to_string());
        }
        let request = request.header("content-type", "text/plain").body(value.to_string());
        self.send(request).await.map(|answer| answer.status())
    }

    async fn send(&self, request: RequestBuilder) -> Result<reqwest::Response, Unanswered> {
        request
            .send()
            .await
            .map_err(|error| Unanswered::silent(format!("{}: {}", self.url, root(&error.without_url()))))
    }
}

impl Resource for HttpResource {
    async fn write(&self, token: u64, value: u64) -> Result<Outcome, Unanswered> {
        match self.write_with(Some(token), value).await? {
            status if status.is_success() => Ok(Outcome::Accepted),
            StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Ok(Outcome::Refused),
            status => Err(Unanswered::wrong(format!("status {status} is neither 2xx nor 409 or 412"))),
        }
    }

    async fn write_bare(&self, value: u64) -> Result<Option<Outcome>, Unanswered> {
        match self.write_with(None, value).await? {
            status if status.is_success() => Ok(Some(Outcome::Accepted)),
            status if status.is_client_error() => Ok(Some(Outcome::Refused)),
            status => Err(Unanswered::wrong(format!("status {status} is neither 2xx nor 4xx"))),
        }
    }

    async fn read(&self) -> Result<Standing, Unanswered> {
        let mut answer = self.send(self.http.get(self.url.clone())).await?;
        match answer.status() {
            status if status.is_success() => {}
            StatusCode::NOT_FOUND => return Ok(Standing::Nothing),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => return Ok(Standing::NotOffered),
            status => return Err(Unanswered::wrong(format!("GET is answered with status {status}"))),
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| Unanswered::silent(root(&error.without_url())))? {
            body.extend_from_slice(&chunk);
            if body.len() > VALUE_MAX {
                return Err(Unanswered::wrong("GET is answered with more than a number"));
            }
        }
        let text = String::from_utf8_lossy(&body);
        let value = text.trim().parse();
        value
            .map(Standing::Value)
            .map_err(|_| Unanswered::wrong(format!("GET is answered with \"{}\", which is no number", cut(&text))))
    }

    async fn restart(&self) -> Result<bool, Unanswered> {
        let Some(command) = &self.restart else { return Ok(false) };
        let ended = Command::new("/bin/sh").args(["-c", command]).kill_on_drop(true).status().await;
        match ended {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(Unanswered::wrong(format!("`{}` ended with {status}", cut(command)))),
            Err(error) => return Err(Unanswered::wrong(format!("`{}` cannot be run: {error}", cut(command)))),
        }
        // The test limits how long this may go on.
        while self.http.get(self.url.clone()).send().await.is_err() {
            tokio::time::sleep(UP_AGAIN_EVERY).await;
        }
        Ok(true)
    }
}
