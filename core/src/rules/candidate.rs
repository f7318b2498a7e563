//! Who may be promoted. Every rule is asked of the state and of the moment; the lag alone is the leader's word, since no log
//! entry tells of it.

use serde::{Deserialize, Serialize};

use crate::breaker::BreakerState;
use crate::id::InstanceId;
use crate::policy::Liveness;
use crate::probe::{Health, Verdict};
use crate::recovery::Recovery;
use crate::state::{AdminState, Instance, Service};
use crate::time::{ClusterTime, Millis};

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

/// A move for which a candidate is sought.
#[derive(Clone, Copy, Debug)]
pub struct Seek<'a> {
    /// The service.
    pub service: &'a Service,
    /// The instance that the move leaves: it is no candidate while it is what the move is about.
    pub leaving: Option<&'a InstanceId>,
    /// When.
    pub now: ClusterTime,
    /// Who wants it.
    pub asker: Asker,
}

/// What is asked of a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Enabled,
    Present,
    Healthy,
    BreakerNotOpen,
    OutOfCooldown,
    MinHealthy,
    MaxLag,
    NotLeaving,
}

/// Since when it is well: one that is held back has been so for longer than it is healthy.
fn well_since(instance: &Instance) -> ClusterTime {
    let held_back = instance.recovery.as_ref().and_then(|recovery| recovery.good_since);
    held_back.unwrap_or(instance.health_since)
}

/// Each rule and whether it is met: no text is made, for a planner asks this of thousands. `None`: it is not asked for.
fn verdicts(seek: &Seek<'_>, instance: &Instance, lag: Option<u64>) -> [Option<(Asked, bool)>; 8] {
    let Seek { service, leaving, now, asker } = *seek;
    let policy = &service.spec.failover;
    let wanted = policy.min_healthy;
    let held_back = instance.health == Health::Unhealthy
        && instance.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some());
    let healthy = instance.health == Health::Healthy || (held_back && asker == Asker::Operator);
    let min_healthy =
        (wanted > Millis::ZERO && healthy).then(|| (Asked::MinHealthy, now.since(well_since(instance)) >= wanted));
    let leaves = (leaving == Some(&instance.id)).then_some((Asked::NotLeaving, false));
    let cooling = instance.recovery.as_ref().and_then(|recovery| recovery.cooling(now)).is_some();
    let cooldown = (cooling && asker == Asker::Baton).then_some((Asked::OutOfCooldown, false));
    let max_lag = policy.max_lag.map(|max| (Asked::MaxLag, lag.is_some_and(|lag| lag <= max)));
    [
        Some((Asked::Enabled, instance.admin.may_be_chosen())),
        instance.left.then_some((Asked::Present, false)),
        Some((Asked::Healthy, healthy)),
        Some((Asked::BreakerNotOpen, instance.breaker.state != BreakerState::Open)),
        cooldown,
        min_healthy,
        max_lag,
        leaves,
    ]
}

/// Whether `instance` may be promoted. `lag`: how far it is behind, by its last heartbeat.
pub fn may_be_promoted(seek: &Seek<'_>, instance: &Instance, lag: Option<u64>) -> bool {
    verdicts(seek, instance, lag).iter().flatten().all(|(_, pass)| *pass)
}

/// Whether the lag alone, of which no log entry tells, speaks against it.
pub fn only_lag_is_missing(seek: &Seek<'_>, instance: &Instance, lag: Option<u64>) -> bool {
    let failed = |(asked, pass): &(Asked, bool)| (!pass).then_some(*asked);
    let mut failed = verdicts(seek, instance, lag).into_iter().flatten().filter_map(|verdict| failed(&verdict));
    failed.next() == Some(Asked::MaxLag) && failed.next().is_none()
}

/// Every rule for promoting `instance`, met or not, in the order in which they are told.
pub fn candidate_rules(seek: &Seek<'_>, instance: &Instance, lag: Option<u64>) -> Vec<Rule> {
    let Seek { service, now, .. } = *seek;
    let tell = |(asked, pass)| {
        let (rule, why) = match asked {
            Asked::Enabled => ("enabled", admin_told(instance)),
            Asked::Present => {
                ("present", "it has released the service and left: its next heartbeat makes it a candidate".to_owned())
            }
            Asked::Healthy => ("healthy", health_told(service, instance, now)),
            Asked::BreakerNotOpen => ("breaker_not_open", breaker_told(instance, now)),
            Asked::OutOfCooldown => {
                let recovery = instance.recovery.as_ref();
                let left = recovery.and_then(|recovery| recovery.cooling(now)).unwrap_or_default();
                let left = Millis::secs(left.0.div_ceil(1_000));
                let failures = recovery.map_or_else(String::new, Recovery::failures_told);
                let why = format!("after {failures} it cools down for another {left}: a reset ends that");
                ("out_of_cooldown", why)
            }
            Asked::MinHealthy => {
                let held = now.since(well_since(instance));
                let wanted = service.spec.failover.min_healthy;
                ("min_healthy", format!("it has been healthy for {}, min_healthy is {wanted}", held.passed()))
            }
            Asked::MaxLag => ("max_lag", lag_told(service, instance, lag)),
            Asked::NotLeaving => ("not_leaving", "it is the instance that this move leaves".to_owned()),
        };
        Rule { rule: rule.to_owned(), pass, why }
    };
    verdicts(seek, instance, lag).into_iter().flatten().map(tell).collect()
}

fn lag_told(service: &Service, instance: &Instance, lag: Option<u64>) -> String {
    let max = service.spec.failover.max_lag.unwrap_or_default();
    match (lag, instance.registration.liveness) {
        (Some(lag), _) => format!("its lag is {lag}, max_lag is {max}"),
        (None, Liveness::Heartbeat) => {
            format!("its lag is not known, max_lag is {max}: its heartbeats have not told it")
        }
        (None, Liveness::Probe) => {
            format!("its lag is not known, max_lag is {max}: only heartbeats tell a lag, and it is probed")
        }
    }
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
        Health::Healthy if service.probes(instance) => "the observers agree that it is healthy".to_owned(),
        Health::Healthy => {
            let good = instance.judged.iter().filter(|(_, record)| record.verdict == Verdict::Up);
            let told: Vec<String> = good.map(|(source, _)| format!(": its {source} say up")).take(1).collect();
            format!("it is healthy{}", told.concat())
        }
        Health::Unknown => "nobody who looks has anything to say of it: its health is unknown".to_owned(),
        Health::Suspect => format!("somebody doubts it: {}", instance.doubts()),
        Health::Unhealthy => match instance.recovery.as_ref().filter(|recovery| recovery.good_since.is_some()) {
            Some(recovery) => {
                let policy = &service.spec.recovery;
                let left = recovery.due(policy).unwrap_or(now).since(now);
                format!(
                    "it was unhealthy, is well again and held back for another {} (recovery \"{}\", {})",
                    left.at_most(),
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
pub fn not_eligible(seek: &Seek<'_>, instance: &Instance, lag: Option<u64>) -> Option<String> {
    if may_be_promoted(seek, instance, lag) {
        return None;
    }
    candidate_rules(seek, instance, lag).into_iter().find(|rule| !rule.pass).map(|rule| rule.why)
}

/// What an operator can do about a rule that speaks against an instance, in a half-sentence; some cannot be helped.
pub fn remedy(rule: &str) -> &'static str {
    match rule {
        "enabled" => "enabling it overrides that",
        "present" => "starting it again overrides that",
        "breaker_not_open" => "resetting it closes the breaker",
        "out_of_cooldown" => "resetting it, or an operator's own move, overrides that",
        "min_healthy" => "waiting does, or a smaller failover.min_healthy",
        "max_lag" => "catching up does, or a larger failover.max_lag",
        "not_leaving" => "another one has to be named",
        _ => "nobody can override that: it must get well",
    }
}

/// Every rule that `instance` fails, with what was measured and what would override it; `None` where it may be promoted.
/// For whoever is refused: a planner asks [`not_eligible`].
pub fn why_not(seek: &Seek<'_>, instance: &Instance, lag: Option<u64>) -> Option<String> {
    if may_be_promoted(seek, instance, lag) {
        return None;
    }
    let failed = candidate_rules(seek, instance, lag).into_iter().filter(|rule| !rule.pass);
    let told = failed.map(|Rule { rule, why, .. }| format!("{why} (rule {rule}: {})", remedy(&rule)));
    Some(told.collect::<Vec<_>>().join("; "))
}
