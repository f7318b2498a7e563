//! The OpenAPI document: what utoipa gathers from the handlers, and what holds for every operation alike. Its text is
//! committed as `openapi/openapi.json`, and a test fails when the two differ.

use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::error::ApiError;

const DESCRIPTION: &str = "Baton decides which instance of a service is active, proves that the old one has stopped, \
    and tells everyone. Any node serves any request. Default reads are linearizable; `?consistency=stale` answers from \
    the node's own copy. Errors are `application/problem+json` with a stable `code`. Durations are texts such as \
    `500ms`, times are RFC 3339 in UTC.";

/// Tags in the order in which they are read.
const TAGS: [(&str, &str); 10] = [
    ("services", "What is managed, and what is wanted of it"),
    ("instances", "The running copies of a service"),
    ("active", "Who is active, and why"),
    ("discovery", "Whom to call"),
    ("calls", "What clients and instances say themselves"),
    ("moves", "An operator moves the active"),
    ("transitions", "The records of moves"),
    ("events", "What happened, and what happens"),
    ("cluster", "The nodes"),
    ("node", "The node that answers"),
];

/// Bodies that are read leniently and written in full: every field may be left out, and has a default.
const INPUTS: [&str; 2] = ["Spec", "Registration"];

/// Fields of such bodies that must be there all the same.
const NEEDED: [(&str, &str); 1] = [("Check", "type")];

/// The document as text, made once: pretty-printed, with a newline at its end.
pub(crate) fn text() -> Result<&'static str, ApiError> {
    static TEXT: OnceLock<String> = OnceLock::new();
    if let Some(text) = TEXT.get() {
        return Ok(text);
    }
    let text = openapi().map_err(|error| ApiError::internal("writing the OpenAPI document", error))?;
    Ok(TEXT.get_or_init(|| text))
}

/// The OpenAPI document as it is committed: pretty-printed, with a newline at its end.
pub(crate) fn openapi() -> Result<String, serde_json::Error> {
    let mut document = serde_json::to_value(super::routes().into_openapi())?;
    document["info"] = json!({
        "title": "Baton",
        "description": DESCRIPTION,
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        "version": env!("CARGO_PKG_VERSION"),
    });
    document["tags"] = TAGS.iter().map(|(name, told)| json!({"name": name, "description": told})).collect();
    complete_responses(&mut document);
    split_inputs(&mut document);
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    Ok(text)
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flat_map(Map::iter_mut)
}

/// Every answer has our headers, and every operation may fail with a problem.
fn complete_responses(document: &mut Value) {
    let headers = json!({
        "Baton-Revision": { "$ref": "#/components/headers/Baton-Revision" },
        "Baton-Staleness-Ms": { "$ref": "#/components/headers/Baton-Staleness-Ms" },
    });
    document["components"]["headers"] = json!({
        "Baton-Revision": {
            "description": "The last event that is in the answer",
            "schema": { "type": "integer", "format": "int64", "minimum": 0 },
        },
        "Baton-Staleness-Ms": {
            "description": "Milliseconds since the leader last heard a quorum, or another node its leader; \
                `unknown` where it never has",
            "schema": { "type": "string", "example": "12" },
        },
    });
    for (_, item) in members(&mut document["paths"]) {
        for (_, operation) in members(item) {
            let responses = &mut operation["responses"];
            responses["default"] = json!({
                "description": "Anything else: an error, told by its `code`",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            });
            for (_, response) in members(responses) {
                response["headers"] = headers.clone();
            }
        }
    }
}

/// Gives request bodies schemas of their own, in which nothing is required: `Spec` is what is answered, `SpecInput`
/// what is sent.
fn split_inputs(document: &mut Value) {
    let mut open: Vec<String> = INPUTS.iter().map(|name| (*name).to_owned()).collect();
    let mut split = BTreeSet::new();
    while let Some(name) = open.pop() {
        let schema = &document["components"]["schemas"][&name];
        // Words and texts are the same both ways: only objects, and what holds them, differ.
        if split.contains(&name) || !holds_object(schema) {
            continue;
        }
        open.extend(references(schema));
        split.insert(name);
    }
    for name in &split {
        let mut schema = document["components"]["schemas"][name].clone();
        if let Some(object) = schema.as_object_mut() {
            object.remove("required");
            if let Some((_, field)) = NEEDED.iter().find(|(owner, _)| owner == name) {
                object.insert("required".to_owned(), json!([field]));
            }
        }
        redirect(&mut schema, &split);
        document["components"]["schemas"][format!("{name}Input")] = schema;
    }
    for (_, item) in members(&mut document["paths"]) {
        for (_, operation) in members(item) {
            if let Some(body) = operation.get_mut("requestBody") {
                redirect(body, &split);
            }
        }
    }
}

const PREFIX: &str = "#/components/schemas/";

fn holds_object(schema: &Value) -> bool {
    schema.get("properties").is_some()
}

fn references(schema: &Value) -> Vec<String> {
    match schema {
        Value::Object(object) => object
            .iter()
            .flat_map(|(key, value)| match value.as_str().and_then(|text| text.strip_prefix(PREFIX)) {
                Some(name) if key == "$ref" => vec![name.to_owned()],
                Some(_) | None => references(value),
            })
            .collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

fn redirect(schema: &mut Value, split: &BTreeSet<String>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object.iter_mut() {
                let target = value.as_str().and_then(|text| text.strip_prefix(PREFIX)).filter(|_| key == "$ref");
                match target.filter(|name| split.contains(*name)) {
                    Some(name) => *value = json!(format!("{PREFIX}{name}Input")),
                    None => redirect(value, split),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| redirect(item, split)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use baton_core::breaker::BreakerState;
    use baton_core::calls::CallOutcome;
    use baton_core::detector::HeartbeatState;
    use baton_core::event::EventKind;
    use baton_core::json::Word;
    use baton_core::pick::PickStrategy;
    use baton_core::planner::{Decision, GateVerdict, OperatorMay};
    use baton_core::policy::{
        AutoWord, CheckKind, Combine, FailbackMode, FailoverStrategy, Liveness, LoadBalancing, MajorityWord, Mode,
        OnQuorumLoss, ProofKind, RecoveryStrategy, RetryOn, RetryStrategy,
    };
    use baton_core::probe::{FailureClass, Health, Verdict};
    use baton_core::rules::PauseScope;
    use baton_core::state::{AdminState, Phase, Source};
    use baton_core::transition::{Fencing, TransitionKind, TransitionStatus};
    use utoipa::ToSchema;

    use super::*;

    fn document() -> Value {
        serde_json::from_str(&openapi().expect("it can be written")).expect("and read")
    }

    /// A schema of this document, and the words that the type behind it has.
    fn words_of<T: Word + ToSchema>() -> (String, Vec<&'static str>) {
        (T::name().into_owned(), T::words().iter().map(|(word, _)| *word).collect())
    }

    #[test]
    fn words_are_published_as_they_are_spoken() {
        let document = document();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let spoken: BTreeMap<String, Vec<&str>> = [
            words_of::<AdminState>(),
            words_of::<AutoWord>(),
            words_of::<BreakerState>(),
            words_of::<CallOutcome>(),
            words_of::<CheckKind>(),
            words_of::<Combine>(),
            words_of::<Decision>(),
            words_of::<EventKind>(),
            words_of::<FailbackMode>(),
            words_of::<FailoverStrategy>(),
            words_of::<FailureClass>(),
            words_of::<Fencing>(),
            words_of::<GateVerdict>(),
            words_of::<Health>(),
            words_of::<HeartbeatState>(),
            words_of::<Liveness>(),
            words_of::<LoadBalancing>(),
            words_of::<MajorityWord>(),
            words_of::<Mode>(),
            words_of::<OnQuorumLoss>(),
            words_of::<OperatorMay>(),
            words_of::<PauseScope>(),
            words_of::<Phase>(),
            words_of::<PickStrategy>(),
            words_of::<ProofKind>(),
            words_of::<RecoveryStrategy>(),
            words_of::<RetryOn>(),
            words_of::<RetryStrategy>(),
            words_of::<Source>(),
            words_of::<TransitionKind>(),
            words_of::<TransitionStatus>(),
            words_of::<Verdict>(),
        ]
        .into();
        for (name, words) in &spoken {
            assert_eq!(schemas[name]["enum"], json!(words), "{name}");
        }
        // No other enum is in the document than these, and those of the client's own views.
        let published: Vec<&String> =
            schemas.iter().filter(|(_, schema)| schema.get("enum").is_some()).map(|(name, _)| name).collect();
        let own = ["NodeRole", "Role"];
        for name in published {
            assert!(spoken.contains_key(name) || own.contains(&name.as_str()), "{name} is not looked at here");
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own() {
        let document = document();
        for name in references(&document) {
            assert!(document["components"]["schemas"].get(&name).is_some(), "{name} is missing");
        }
        let mut names = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("operations") {
                let name = operation["operationId"].as_str().expect("a name").to_owned();
                assert!(names.insert((name, method == "head")), "{method} {path}");
                assert_eq!(operation["responses"]["default"]["headers"].as_object().map(Map::len), Some(2));
            }
        }
    }

    #[test]
    fn what_is_sent_may_leave_out_what_is_answered_in_full() {
        let schemas = &document()["components"]["schemas"];
        assert!(schemas["Spec"]["required"].as_array().is_some_and(|fields| !fields.is_empty()));
        assert!(schemas["SpecInput"].get("required").is_none());
        assert_eq!(schemas["CheckInput"]["required"], json!(["type"]));
        assert!(references(&schemas["SpecInput"]).contains(&"CheckInput".to_owned()));
    }
}
