//! The two rules that both the planner and `apply` ask: who may be promoted, and which proof holds. One place, so that a
//! proposal and its check can never disagree. They read the state and change nothing.

use serde::{Deserialize, Serialize};

use crate::breaker::BreakerState;
use crate::id::InstanceId;
use crate::policy::{AutoWord, Liveness, ProofKind, ProofPolicy};
use crate::probe::Health;
use crate::recovery::Recovery;
use crate::state::{AdminState, Instance, Service};
use crate::time::{ClusterTime, Millis};
use crate::transition::{Fencing, ProofRecord};

/// One rule that a candidate passes or fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rule {
    /// The rule's word.
    pub rule: String,
    /// Whether it is met.
    pub pass: bool,
    /// The measured value, and what is wanted, in a sentence.
    pub why: String,
}

/// Who wants an instance promoted. An operator need not wait for the end of a cool-down, nor of the delay with which an
/// instance that is well again is held back; every other rule binds both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Baton itself.
    Baton,
    /// A person.
    Operator,
}

/// What is asked of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Enabled,
    Healthy,
    BreakerNotOpen,
    OutOfCooldown,
    MinHealthy,
    NotLeaving,
}

/// Each rule and whether it is met: no text is made, for a planner asks this of thousands. `None`: it is not asked for.
fn verdicts(
    service: &Service,
    instance: &Instance,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
    asker: Asker,
) -> [Option<(Asked, bool)>; 6] {
    let wanted = service.spec.failover.min_healthy;
    let held_back = instance.health == Health::Unhealthy
        && instance.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some());
    let healthy = instance.health == Health::Healthy || (held_back && asker == Asker::Operator);
    let min_healthy =
        (wanted > Millis::ZERO && healthy).then(|| (Asked::MinHealthy, now.since(instance.health_since) >= wanted));
    let leaves = (leaving == Some(&instance.id)).then_some((Asked::NotLeaving, false));
    let cooling = instance.recovery.as_ref().and_then(|recovery| recovery.cooling(now)).is_some();
    let cooldown = (cooling && asker == Asker::Baton).then_some((Asked::OutOfCooldown, false));
    [
        Some((Asked::Enabled, instance.admin.may_be_chosen())),
        Some((Asked::Healthy, healthy)),
        Some((Asked::BreakerNotOpen, instance.breaker.state != BreakerState::Open)),
        cooldown,
        min_healthy,
        leaves,
    ]
}

/// Whether `instance` may be promoted.
///
/// `leaving` is the active that a failover moves away from: it is no candidate while it is what the move is about.
pub fn may_be_promoted(
    service: &Service,
    instance: &Instance,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
    asker: Asker,
) -> bool {
    verdicts(service, instance, leaving, now, asker).iter().flatten().all(|(_, pass)| *pass)
}

/// Every rule for promoting `instance`, met or not, in the order in which they are told.
pub fn candidate_rules(
    service: &Service,
    instance: &Instance,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
    asker: Asker,
) -> Vec<Rule> {
    let tell = |(asked, pass)| {
        let (rule, why) = match asked {
            Asked::Enabled => ("enabled", admin_told(instance)),
            Asked::Healthy => ("healthy", health_told(service, instance, now)),
            Asked::BreakerNotOpen => ("breaker_not_open", breaker_told(instance, now)),
            Asked::OutOfCooldown => {
                let recovery = instance.recovery.as_ref();
                let left = recovery.and_then(|recovery| recovery.cooling(now)).unwrap_or_default();
                let left = Millis::secs(left.0.div_ceil(1_000));
                let failures = recovery.map_or_else(String::new, Recovery::failures_told);
                let why = format!("after {failures} it cools down for another {left}: POST …/reset ends that");
                ("out_of_cooldown", why)
            }
            Asked::MinHealthy => {
                let held = now.since(instance.health_since);
                let wanted = service.spec.failover.min_healthy;
                ("min_healthy", format!("healthy for {}, min_healthy is {wanted}", held.told()))
            }
            Asked::NotLeaving => ("not_leaving", "it is the instance that this move leaves".to_owned()),
        };
        Rule { rule: rule.to_owned(), pass, why }
    };
    verdicts(service, instance, leaving, now, asker).into_iter().flatten().map(tell).collect()
}

fn admin_told(instance: &Instance) -> String {
    let admin = &instance.admin;
    match admin.state {
        AdminState::Enabled => "no operator has taken it out".to_owned(),
        AdminState::Draining | AdminState::Maintenance | AdminState::Isolated => {
            let actor = admin.actor.as_deref().unwrap_or("an operator");
            let until = admin.until.map_or_else(String::new, |until| format!(" until {until}"));
            format!("{actor} set it {}{until}: {}", admin.state, admin.reason)
        }
    }
}

fn breaker_told(instance: &Instance, now: ClusterTime) -> String {
    let breaker = &instance.breaker;
    match breaker.state {
        BreakerState::Closed => "its breaker is closed".to_owned(),
        BreakerState::HalfOpen => "its breaker is half open: trial calls show how it is".to_owned(),
        BreakerState::Open => {
            let numbers = breaker.numbers.as_ref();
            let failed = numbers.map_or_else(String::new, |numbers| {
                format!("{} of {} calls failed; ", numbers.failures, numbers.calls)
            });
            let left = breaker.open_until().unwrap_or(now).since(now);
            format!("its breaker is open: {failed}half open in {}", Millis::secs(left.0.div_ceil(1_000)))
        }
    }
}

fn health_told(service: &Service, instance: &Instance, now: ClusterTime) -> String {
    match instance.health {
        Health::Healthy => "the observers agree that it is healthy".to_owned(),
        Health::Unknown => "nobody who looks has anything to say of it: its health is unknown".to_owned(),
        Health::Suspect => format!("somebody doubts it: {}", instance.doubts()),
        Health::Unhealthy => match instance.recovery.as_ref().filter(|recovery| recovery.good_since.is_some()) {
            Some(recovery) => {
                let policy = &service.spec.recovery;
                let left = recovery.due(policy).unwrap_or(now).since(now);
                format!(
                    "it was unhealthy, is well again and held back for another {} (recovery \"{}\", {})",
                    left.told(),
                    policy.strategy,
                    recovery.failures_told()
                )
            }
            None => format!("it is unhealthy: {}", instance.doubts()),
        },
        Health::Isolated => "it is isolated by an operator".to_owned(),
    }
}

/// The first rule that `instance` fails, if any.
pub fn not_eligible(
    service: &Service,
    instance: &Instance,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
    asker: Asker,
) -> Option<String> {
    if may_be_promoted(service, instance, leaving, now, asker) {
        return None;
    }
    candidate_rules(service, instance, leaving, now, asker).into_iter().find(|rule| !rule.pass).map(|rule| rule.why)
}

/// The proof that holds for promoting within `transition`, or why none does.
///
/// This version knows `none_needed`, `token` and `operator`. `release`, `lease` and `hook` are parsed and stored, and
/// never hold: a policy that accepts nothing else waits for an operator.
pub fn proof_that_holds(service: &Service, asserted: Option<ProofKind>) -> Result<ProofRecord, String> {
    if asserted == Some(ProofKind::Operator) {
        return Ok(ProofRecord {
            proof: ProofKind::Operator,
            fencing: Fencing::Enforced,
            evidence: "a named operator asserts that the old active has stopped".to_owned(),
        });
    }
    let Some(holder) = &service.assignment.last_holder else {
        return Ok(ProofRecord {
            proof: ProofKind::NoneNeeded,
            fencing: Fencing::Enforced,
            evidence: "nobody has held this service".to_owned(),
        });
    };
    let token =
        |fencing, evidence: &str| Ok(ProofRecord { proof: ProofKind::Token, fencing, evidence: evidence.to_owned() });
    let operator = "an operator may assert it: POST …/failover with \"proof\": \"operator\" and a reason";
    match (&service.spec.fencing.proof, holder.liveness) {
        (ProofPolicy::Auto(AutoWord::Auto), Liveness::Probe) => token(
            Fencing::Advisory,
            "fencing.proof is \"auto\" and the old active is only probed: whoever checks tokens refuses it, nothing else stops it",
        ),
        (ProofPolicy::Auto(AutoWord::Auto), Liveness::Heartbeat) => Err(format!(
            "fencing.proof is \"auto\" and the old active \"{}\" heartbeats, so its lease must end, and leases do not end in this version; {operator}",
            holder.instance
        )),
        (ProofPolicy::List(accepted), _) if accepted.contains(&ProofKind::Token) => {
            token(Fencing::Enforced, "the service declares that its resource refuses old tokens")
        }
        (ProofPolicy::List(accepted), _) => {
            let names: Vec<&str> = accepted.iter().map(|proof| proof.as_str()).collect();
            Err(format!(
                "fencing.proof accepts only {}, none of which can hold in this version; {operator}",
                names.join(", ")
            ))
        }
    }
}
