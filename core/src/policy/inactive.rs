//! What this version keeps of a spec but does not act on, so that `explain` can say so. Whoever makes a part work takes
//! it out of here; a test counts every field of the contract as active or inactive, so that none is forgotten.

use serde::{Deserialize, Serialize};

use super::{AutoWord, Mode, ProofKind, ProofPolicy, Spec};

/// A part of a spec that is stored and shown, and changes nothing yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inactive {
    /// The field, or the object that it is.
    #[cfg_attr(feature = "openapi", schema(example = "failover.min_interval"))]
    pub path: String,
    /// Whether this service's spec differs there from the default: then somebody expects something of it.
    pub configured: bool,
    /// What happens instead.
    pub why: String,
}

/// Lists fields by name; whether one is configured is the comparison of that very field with its default.
macro_rules! fields {
    ($spec:ident, $default:ident: $($head:ident $(. $tail:ident)* => $why:expr,)+) => {
        vec![$(Inactive {
            path: concat!(stringify!($head) $(, ".", stringify!($tail))*).to_owned(),
            configured: $spec.$head $(.$tail)* != $default.$head $(.$tail)*,
            why: $why.to_owned(),
        }),+]
    };
}

/// The parts of `spec` that this version does not act on, with `configured` saying whether it matters.
pub fn inactive_parts(spec: &Spec) -> Vec<Inactive> {
    let default = Spec::default();
    let mut parts = fields!(spec, default:
        retry => "it is kept for clients that read the spec",
    );
    parts.extend(of_mode(spec));
    parts.extend(unused_hook(spec));
    parts
}

/// A hook that nobody runs: listed where somebody wrote one down and did not name its proof.
fn unused_hook(spec: &Spec) -> Option<Inactive> {
    let named = match &spec.fencing.proof {
        ProofPolicy::Auto(AutoWord::Auto) => false,
        ProofPolicy::List(kinds) => kinds.contains(&ProofKind::Hook),
    };
    let in_vain = spec.fencing.hook.is_some() && !named;
    in_vain.then(|| Inactive {
        path: "fencing.hook".to_owned(),
        configured: true,
        why: "it is run only where fencing.proof is a list that names \"hook\"".to_owned(),
    })
}

/// What is acted on in one mode and means nothing in the other: listed where somebody wrote it down there.
fn of_mode(spec: &Spec) -> Option<Inactive> {
    let in_vain = spec.fail_open && spec.mode == Mode::ActivePassive;
    in_vain.then(|| Inactive {
        path: "fail_open".to_owned(),
        configured: true,
        why: "in active_passive only the active is ever called, and nobody where it is unhealthy".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::json::Json;
    use crate::policy::parse_spec;

    /// The fields of a spec, or the objects that they are, that this version acts on.
    const ACTIVE: [&str; 19] = [
        "mode",
        "checks",
        "detection.observers",
        "detection.quorum",
        "detection.veto",
        "detection.error_rate",
        "detection.slow",
        "detection.accrual",
        "detection.timeout",
        "detection.combine",
        "breaker",
        "recovery",
        "lease",
        "failover",
        "failback",
        "fencing",
        "on_quorum_loss",
        "fail_open",
        "load_balancing",
    ];

    fn spec(text: &str) -> Spec {
        parse_spec(&Json::parse(text.as_bytes()).expect(text)).expect(text)
    }

    fn leaves(json: &Json, path: &str, found: &mut BTreeSet<String>) {
        match json {
            Json::Object(members) => {
                for (name, value) in members {
                    leaves(value, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, found);
                }
            }
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Array(_) => {
                found.insert(path.to_owned());
            }
        }
    }

    fn configured(text: &str) -> Vec<String> {
        inactive_parts(&spec(text)).into_iter().filter(|part| part.configured).map(|part| part.path).collect()
    }

    #[test]
    fn every_field_is_either_active_or_listed() {
        let mut fields = BTreeSet::new();
        let json = Json::parse(&serde_json::to_vec(&Spec::default()).expect("JSON")).expect("JSON");
        leaves(&json, "", &mut fields);
        let listed = inactive_parts(&Spec::default());
        let covers =
            |part: &Inactive, field: &String| *field == part.path || field.starts_with(&format!("{}.", part.path));
        let active = |field: &String| ACTIVE.iter().any(|part| field == part || field.starts_with(&format!("{part}.")));
        for field in &fields {
            let inactive = listed.iter().any(|part| covers(part, field));
            assert!(inactive || active(field), "{field} is neither active nor said to be inactive");
        }
        for part in &listed {
            assert!(fields.iter().any(|field| covers(part, field)), "there is no field {}", part.path);
        }
    }

    #[test]
    fn a_default_spec_expects_nothing_of_what_is_missing() {
        assert_eq!(configured("{}"), Vec::<String>::new());
        // Writing a default down is not a wish for something else.
        assert_eq!(configured(r#"{"failback":{"mode":"manual"},"detection":{"veto":false}}"#), Vec::<String>::new());
        let active = r#"{"mode":"active_active","fail_open":true,"load_balancing":"best",
            "detection":{"observers":5,"quorum":2,"veto":true,"error_rate":{"threshold":0.2},"combine":"all","timeout":"1s"},
            "breaker":{"consecutive_failures":3},"recovery":{"strategy":"probing"},
            "failover":{"automatic":false,"strategy":"next","min_healthy":"5s"},
            "fencing":{"proof":["none_needed","token","operator"]},
            "checks":[{"type":"tcp","port":1},{"type":"http","path":"/x","fall":2,"tls":{},"watch":true},
            {"type":"grpc","service":"x"},{"type":"tls"},{"type":"heartbeat"},{"type":"agent","name":"disk"}]}"#;
        assert_eq!(configured(active), Vec::<String>::new());
    }

    #[test]
    fn what_somebody_configured_in_vain_is_named() {
        for (text, paths) in [
            (r#"{"retry":{"max_attempts":7}}"#, &["retry"][..]),
            (r#"{"mode":"active_passive","fail_open":true}"#, &["fail_open"]),
            (r#"{"mode":"active_active","fail_open":true}"#, &[]),
            (r#"{"fencing":{"hook":{"agent":"off"}}}"#, &["fencing.hook"]),
            (r#"{"fencing":{"proof":["release","lease"],"hook":{"agent":"off"}}}"#, &["fencing.hook"]),
            (r#"{"fencing":{"proof":["hook"],"hook":{"agent":"off"}}}"#, &[]),
            (r#"{"failover":{"max_lag":0,"min_interval":"0s"},"fencing":{"proof":["token","lease"]}}"#, &[]),
        ] {
            assert_eq!(configured(text), paths, "{text}");
        }
    }
}
