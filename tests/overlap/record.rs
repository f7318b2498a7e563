//! The cluster's own record of its promotions, checked against itself and against the history: one record a token, one change of
//! the active a token, tokens in the order of revisions, each promotion from what the one before it had left, each with a proof
//! that is worth something.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

use super::book::Tenure;

/// Promotions, by kind and proof.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) promotions: usize,
    by: BTreeMap<String, usize>,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} promotions", self.promotions)?;
        self.by.iter().try_for_each(|(what, count)| write!(f, ", {count} {what}"))
    }
}

/// The proofs by which a holder of a lease is succeeded.
pub(super) const OF_LEASES: &[&str] = &["lease", "release"];
/// The one where the resource is declared to refuse old tokens, and nothing is waited for.
pub(super) const OF_TOKENS: &[&str] = &["token"];

/// Checks all transitions of a service and all its changes of the active, in the order of their revisions. Whoever succeeds
/// another does so by one of these proofs.
pub(super) fn check<'a>(
    transitions: &[Value],
    events: &[Value],
    tenures: impl Iterator<Item = &'a Tenure>,
    proofs: &[&str],
) -> Result<Counts, Vec<String>> {
    let mut found = Vec::new();
    let mut counts = Counts::default();
    let mut records: BTreeMap<u64, &Value> = BTreeMap::new();
    for record in transitions.iter().filter(|record| record["status"] == "finished") {
        let Some(token) = record["token"].as_u64() else {
            found.push(format!("a finished transition without a token: {record}"));
            continue;
        };
        if let Some(other) = records.insert(token, record) {
            found.push(format!("token {token} has two records: {other} and {record}"));
        }
    }
    let mut before = Value::Null;
    for (token, record) in &records {
        counts.promotions += 1;
        let (kind, proof) = (record["kind"].as_str().unwrap_or("?"), record["proof"]["proof"].as_str().unwrap_or("?"));
        *counts.by.entry(format!("{kind} by {proof}")).or_default() += 1;
        let sensible = match kind {
            "placement" => proof == "none_needed" || proofs.contains(&proof),
            "failover" | "switchover" | "failback" => proofs.contains(&proof),
            _ => false,
        };
        if !sensible || record["proof"]["fencing"] != "enforced" {
            found.push(format!("token {token}: no sensible proof of a {kind}: {record}"));
        }
        if kind != "placement" && record["from_token"] != before {
            found.push(format!("token {token} does not follow the one before it, {before}: {record}"));
        }
        before = record["token"].clone();
    }
    found.extend(changes(events, &records));
    for tenure in tenures {
        match records.get(&tenure.token) {
            None => found.push(format!("nobody was promoted by the token of {tenure:?}")),
            Some(record) if record["to"] != tenure.instance => {
                found.push(format!("{tenure:?} worked by the token of another: {record}"));
            }
            Some(_) => {}
        }
    }
    if found.is_empty() { Ok(counts) } else { Err(found) }
}

/// Every promotion changed the active once, in the order of tokens, and named its own transition.
fn changes(events: &[Value], records: &BTreeMap<u64, &Value>) -> Vec<String> {
    let mut found = Vec::new();
    let mut named = BTreeSet::new();
    let mut highest = 0;
    let mut last = 0;
    for event in events {
        let revision = event["revision"].as_u64().unwrap_or(0);
        if revision <= last {
            found.push(format!("revision {revision} after {last}"));
        }
        last = revision;
        let Some(token) = event["token"].as_u64().filter(|_| event["to"].is_string()) else { continue };
        if token <= highest || !named.insert(token) {
            found.push(format!("token {token} after {highest}: {event}"));
        }
        highest = highest.max(token);
        match records.get(&token) {
            Some(record) if record["id"] == event["transition"] && record["to"] == event["to"] => {}
            other => found.push(format!("{event} has not the record that it names: {other:?}")),
        }
    }
    found.extend(
        records
            .keys()
            .filter(|token| !named.contains(token))
            .map(|token| format!("token {token} was minted, and the active never changed by it: {}", records[token])),
    );
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn record(token: u64, from: Option<u64>, to: &str, kind: &str, proof: &str) -> Value {
        let proof = json!({"proof": proof, "fencing": "enforced"});
        json!({"id": format!("t{token}"), "status": "finished", "kind": kind, "token": token, "from_token": from,
            "to": to, "proof": proof})
    }

    fn change(revision: u64, token: u64, to: &str) -> Value {
        json!({"revision": revision, "token": token, "to": to, "transition": format!("t{token}")})
    }

    fn tenure(token: u64, instance: &str) -> Tenure {
        Tenure { token, instance: instance.to_owned(), pid: 1, first: 1, last: 2, lines: 2 }
    }

    fn good() -> (Vec<Value>, Vec<Value>, Vec<Tenure>) {
        let records = vec![
            record(5, None, "a", "placement", "none_needed"),
            record(8, Some(5), "b", "failover", "lease"),
            record(9, Some(8), "a", "switchover", "release"),
        ];
        let gone = json!({"revision": 2, "token": 5, "to": null});
        (
            records,
            vec![change(1, 5, "a"), gone, change(3, 8, "b"), change(4, 9, "a")],
            vec![tenure(5, "a"), tenure(9, "a")],
        )
    }

    #[test]
    fn a_good_record_is_counted() {
        let (records, events, tenures) = good();
        let counts = check(&records, &events, tenures.iter(), OF_LEASES).expect("good");
        assert_eq!(
            counts.to_string(),
            "3 promotions, 1 failover by lease, 1 placement by none_needed, 1 switchover by release"
        );
    }

    #[test]
    fn each_fault_of_a_record_is_found() {
        type Fault = fn(&mut Vec<Value>, &mut Vec<Value>, &mut Vec<Tenure>);
        let faults: [(&str, Fault); 10] = [
            ("two records", |records, _, _| records.push(record(8, Some(5), "b", "failover", "lease"))),
            ("without a token", |records, _, _| records[0]["token"] = Value::Null),
            ("no sensible proof", |records, _, _| records[1]["proof"]["proof"] = json!("token")),
            ("no sensible proof", |records, _, _| records[1]["proof"]["fencing"] = json!("advisory")),
            ("does not follow", |records, _, _| records[2]["from_token"] = json!(5)),
            ("nobody was promoted", |_, _, tenures| tenures.push(tenure(7, "a"))),
            ("token of another", |_, _, tenures| tenures[0].instance = "b".to_owned()),
            ("never changed by it", |_, events, _| drop(events.pop())),
            ("after 9", |_, events, _| events.push(change(5, 9, "a"))),
            ("revision 3 after 3", |_, events, _| events[1]["revision"] = json!(3)),
        ];
        for (what, fault) in faults {
            let (mut records, mut events, mut tenures) = good();
            fault(&mut records, &mut events, &mut tenures);
            let found = check(&records, &events, tenures.iter(), OF_LEASES).expect_err(what);
            assert!(found.iter().any(|breach| breach.contains(what)), "{what}: {found:?}");
        }
    }
}
