//! How calls went, as clients say. Many reports come in one body and many bodies in a second, so the body is first read
//! straight into place; only one that has something wrong with it is read again by the house's strict reader, which says
//! what and where.

use std::borrow::Cow;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use baton_client::view::{Problem, ReportsAnswer, ReportsRequest};
use baton_core::calls::CallOutcome;
use baton_core::command::Refusal;
use baton_core::id::{InstanceId, ServiceName};
use baton_core::json::{FieldError, Fields, Json, Slot, read as read_fields};
use serde::{Deserialize, Deserializer};

use super::ApiState;
use super::answer::Answer;
use super::error::ApiError;
use super::extract::{JsonText, OfService, Unrepeated};
use super::query::Query;
use crate::reports::Report;

/// The most reports in one body. At 100,000 calls a second it is every call of 100 ms.
const REPORTS_MAX: usize = 10_000;

/// The longest body: so many reports with every field written out, and room to spare. Larger than other bodies, since
/// these are all alike and nothing of them is kept.
pub(crate) const REPORTS_BODY_MAX: usize = 4 * 1024 * 1024;

/// The most calls that one report may stand for.
const COUNT_MAX: u32 = 1_000_000;

/// Statuses have three digits. What lies outside 100 to 599 is taken, and is a malformed answer.
const STATUS_MAX: u16 = 999;

/// Report how calls went
///
/// In the order in which they ended. Any node takes them, sums them, and tells the leader within some 100 ms; there they
/// are judged by the service's `detection`, and open its instances' breakers. Reports of instances that are not there,
/// and of calls that began in an earlier generation of the instance's breaker, are dropped, counted nowhere, and named in
/// the answer; the others count.
#[utoipa::path(post, path = "/v1/services/{service}/reports", tag = "calls", operation_id = "post_reports",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since the same calls may be counted twice"),
    ),
    request_body(content = ReportsRequest, example = json!({"reports": [
        {"instance": "a", "outcome": "success", "latency_ms": 12.5},
        {"instance": "b", "status": 503, "count": 3}]})),
    responses(
        (status = 202, description = "They are taken, but for those that are named", body = ReportsAnswer),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`; none of them is \
            taken", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "`body_too_large`: send fewer at a time", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(crate) async fn post(
    State(state): State<ApiState>,
    OfService(service): OfService,
    _: Unrepeated,
    Query(()): Query<()>,
    JsonText(body): JsonText<REPORTS_BODY_MAX>,
) -> Result<Answer, ApiError> {
    let parsed = match at_once(&body) {
        Some(reports) => reports,
        None => strictly(&body)?,
    };
    let reports: Vec<Report<'_>> = parsed.iter().map(Parsed::report).collect();
    let taken = state.reports.take(&service, &reports).await;
    let answer = taken.ok_or_else(|| ApiError::from(Refusal::NoSuchService { service }))?;
    Ok(Answer::json(&answer)?.status(StatusCode::ACCEPTED))
}

/// A report as it was read.
#[derive(Debug, PartialEq)]
struct Parsed<'a> {
    instance: Cow<'a, str>,
    outcome: Option<CallOutcome>,
    status: Option<u16>,
    latency: Option<Duration>,
    count: u32,
    generation: Option<u64>,
}

impl Parsed<'_> {
    fn report(&self) -> Report<'_> {
        let Self { instance, outcome, status, latency, count, generation } = self;
        Report {
            instance,
            outcome: *outcome,
            status: *status,
            latency: *latency,
            count: *count,
            generation: *generation,
        }
    }
}

fn milliseconds(number: f64) -> Option<Duration> {
    // Longer than a duration holds is as long as it holds: both are a time-out.
    (number >= 0.0).then(|| Duration::try_from_secs_f64(number / 1_000.0).unwrap_or(Duration::MAX))
}

/// What a body without a fault looks like. Unknown and duplicate fields are refused by serde, nulls by [`given`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    #[serde(borrow)]
    reports: Vec<Item<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    #[serde(borrow)]
    instance: Cow<'a, str>,
    #[serde(default, deserialize_with = "given")]
    outcome: Option<CallOutcome>,
    #[serde(default, deserialize_with = "given")]
    status: Option<u16>,
    #[serde(default, deserialize_with = "given")]
    latency_ms: Option<f64>,
    #[serde(default, deserialize_with = "given")]
    count: Option<u32>,
    #[serde(default, deserialize_with = "given")]
    generation: Option<u64>,
}

/// A field that is there has a value: null is none.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// Reads a body that has no fault; `None` where it may have one.
fn at_once(body: &[u8]) -> Option<Vec<Parsed<'_>>> {
    let body: Body<'_> = serde_json::from_slice(body).ok()?;
    if body.reports.len() > REPORTS_MAX {
        return None;
    }
    // One name follows the other: as a rule it is one that was looked at just before.
    let mut last = "";
    let sound = |item: &Item<'_>| {
        (item.outcome.is_some() || item.status.is_some())
            && item.status.is_none_or(|status| status <= STATUS_MAX)
            && item.count.is_none_or(|count| (1..=COUNT_MAX).contains(&count))
            && item.latency_ms.is_none_or(|latency| latency >= 0.0)
    };
    for item in &body.reports {
        if !sound(item) || (*last != *item.instance && item.instance.parse::<InstanceId>().is_err()) {
            return None;
        }
        last = &item.instance;
    }
    Some(body.reports.into_iter().map(of).collect())
}

fn of(item: Item<'_>) -> Parsed<'_> {
    let Item { instance, outcome, status, latency_ms, count, generation } = item;
    Parsed {
        instance,
        outcome,
        status,
        latency: latency_ms.and_then(milliseconds),
        count: count.unwrap_or(1),
        generation,
    }
}

/// Reads a body that may have a fault, and says which.
fn strictly(body: &[u8]) -> Result<Vec<Parsed<'static>>, ApiError> {
    let json = Json::parse(body).map_err(ApiError::NotJson)?;
    let list = |slot: Slot<'_, '_>| slot.list(0..=REPORTS_MAX, |slot| slot.object(report).flatten());
    let reports: Result<Vec<_>, Vec<FieldError>> = read_fields(&json, |fields| {
        fields.required("reports", "[{\"instance\": \"a\", \"status\": 200}]").and_then(list)
    });
    reports.map_err(ApiError::Invalid)
}

fn report(fields: &mut Fields<'_, '_>) -> Option<Parsed<'static>> {
    let instance = fields.required("instance", "\"a\"").and_then(Slot::parsed::<InstanceId>);
    let outcome = fields.field("outcome").and_then(Slot::word);
    let status = fields.field("status").and_then(|slot| slot.whole(0..=u64::from(STATUS_MAX)));
    let latency = fields.field("latency_ms").and_then(|slot| slot.number(0.0..)).and_then(milliseconds);
    let count = fields.whole("count", 1, 1..=COUNT_MAX);
    let generation = fields.field("generation").and_then(|slot| slot.whole(0..=u64::MAX));
    if !fields.has("outcome") && !fields.has("status") {
        fields.error("outcome", "is missing: say how the call went, by `outcome` or by the HTTP `status`");
    }
    let status = status.and_then(|status| u16::try_from(status).ok());
    let instance = Cow::Owned(instance?.as_str().to_owned());
    Some(Parsed { instance, outcome, status, latency, count, generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_readers_read_the_same() {
        for good in [
            r#"{"reports":[]}"#,
            r#"{"reports":[{"instance":"a","outcome":"success"}]}"#,
            r#"{"reports":[{"instance":"a","status":503,"latency_ms":12,"count":3,"generation":7}]}"#,
            r#"{"reports":[{"latency_ms":0.25,"outcome":"client_error","instance":"a\u002db"},{"instance":"b","status":0}]}"#,
            r#" {"reports" : [ {"instance":"a","outcome":"slow","latency_ms":1e300,"count":1000000} ] } "#,
            r#"{"reports":[{"instance":"a","status":999,"latency_ms":0}]}"#,
        ] {
            let quick = at_once(good.as_bytes()).unwrap_or_else(|| panic!("{good} is read at once"));
            assert_eq!(strictly(good.as_bytes()).unwrap_or_else(|error| panic!("{good}: {error}")), quick, "{good}");
        }
        let quick = at_once(br#"{"reports":[{"instance":"a","status":200,"latency_ms":1.5}]}"#).expect("good");
        assert_eq!((quick[0].latency, quick[0].count), (Some(Duration::from_micros(1_500)), 1));
    }

    #[test]
    fn what_is_wrong_is_refused_by_both_and_told_with_its_path() {
        let many = format!("{{\"reports\":[{}]}}", vec![r#"{"instance":"a","status":1}"#; REPORTS_MAX + 1].join(","));
        for (bad, path) in [
            ("{}", "reports"),
            ("[]", "$"),
            (r#"{"reports":{}}"#, "reports"),
            (r#"{"reports":[7]}"#, "reports[0]"),
            (r#"{"reports":[],"more":1}"#, "more"),
            (r#"{"reports":[],"reports":[]}"#, "reports"),
            (r#"{"reports":[{"status":200}]}"#, "reports[0].instance"),
            (r#"{"reports":[{"instance":"A","status":200}]}"#, "reports[0].instance"),
            (r#"{"reports":[{"instance":7,"status":200}]}"#, "reports[0].instance"),
            (r#"{"reports":[{"instance":"a"}]}"#, "reports[0].outcome"),
            (r#"{"reports":[{"instance":"a","outcome":"good"}]}"#, "reports[0].outcome"),
            (r#"{"reports":[{"instance":"a","outcome":null,"status":200}]}"#, "reports[0].outcome"),
            (r#"{"reports":[{"instance":"a","status":"200"}]}"#, "reports[0].status"),
            (r#"{"reports":[{"instance":"a","status":1000}]}"#, "reports[0].status"),
            (r#"{"reports":[{"instance":"a","status":-1}]}"#, "reports[0].status"),
            (
                r#"{"reports":[{"instance":"a","status":200},{"instance":"a","status":200,"latency_ms":-1}]}"#,
                "reports[1].latency_ms",
            ),
            (r#"{"reports":[{"instance":"a","status":200,"latency_ms":"12"}]}"#, "reports[0].latency_ms"),
            (r#"{"reports":[{"instance":"a","status":200,"count":0}]}"#, "reports[0].count"),
            (r#"{"reports":[{"instance":"a","status":200,"count":1000001}]}"#, "reports[0].count"),
            (r#"{"reports":[{"instance":"a","status":200,"count":1.5}]}"#, "reports[0].count"),
            (r#"{"reports":[{"instance":"a","status":200,"generation":-1}]}"#, "reports[0].generation"),
            (r#"{"reports":[{"instance":"a","status":200,"staus":1}]}"#, "reports[0].staus"),
            (many.as_str(), "reports"),
        ] {
            let shown: String = bad.chars().take(80).collect();
            assert!(at_once(bad.as_bytes()).is_none(), "{shown}");
            let errors = match strictly(bad.as_bytes()) {
                Err(ApiError::Invalid(errors)) => errors,
                Err(ApiError::NotJson(error)) => vec![error],
                other => panic!("{shown}: {other:?}"),
            };
            assert!(errors.iter().any(|error| error.path == path), "{shown}: {errors:?}");
        }
    }
}
