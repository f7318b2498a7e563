//! The spec of a service, part by part, in the order of the contract. Each part starts from its defaults.

use std::ops::{Bound, RangeInclusive};

use super::check::checks;
use super::web::Url;
use crate::id::InstanceId;
use crate::json::{FieldError, Fields, Json, Slot, Word, read};
use crate::policy::spec::{AutoWord, MajorityWord};
use crate::policy::{
    Accrual, BreakerPolicy, Detection, ErrorRate, FailbackPolicy, FailoverPolicy, FencingHook, FencingPolicy,
    LeasePolicy, ProofKind, ProofPolicy, Quorum, RecoveryPolicy, RetryOn, RetryPolicy, SlowCalls, Spec,
};
use crate::time::{LONGEST, Millis};

/// The most nodes that may watch one instance: as many as a large cluster has voters.
const OBSERVERS_MAX: u32 = 7;

/// The largest number of calls, failures or failovers that a threshold may wait for. Beyond it, it would never fire.
const COUNT_MAX: u32 = 1_000_000;

/// The most automatic moves that are remembered of a service.
#[expect(clippy::cast_possible_truncation, reason = "a thousand")]
const MOVES_MAX: u32 = crate::state::MOVES_KEPT as u32;

/// The most trial calls of a half-open breaker: each that is out is a stamp in the instance's replicated row.
const TRIALS_MAX: u32 = 100;

/// The largest growth from step to step.
const MULTIPLIER_MAX: f64 = 1_000.0;

/// The highest suspicion: one in 10^100 is never.
const PHI_MAX: f64 = 100.0;

/// The shortest lease. Below it, a renewal's round trip and a scheduler's pause eat what is left.
const LEASE_MIN: Millis = Millis(250);

/// The longest lease: a holder that died is not missed before its end.
const LEASE_MAX: Millis = Millis::secs(86_400);

/// The longest time-out of one call of a hook.
const HOOK_TIMEOUT_MAX: Millis = Millis::secs(600);

/// The time-out of a hook where none is given.
const HOOK_TIMEOUT: Millis = Millis::secs(30);

/// The most tries of a hook or of a client.
const ATTEMPTS_MAX: u32 = 100;

/// The tries of a hook where no number is given.
const HOOK_ATTEMPTS: u32 = 3;

/// The largest lag, allowed or told by a heartbeat: what survives every JSON parser.
pub const LAG_MAX: u64 = 1 << 53;

/// Delays may be nothing at all.
const DELAY: RangeInclusive<Millis> = Millis::ZERO..=LONGEST;

/// Windows and time-outs may not.
const SPAN: RangeInclusive<Millis> = Millis(1)..=LONGEST;

/// A share from which something is too much. None at all would be too much of nothing.
const SHARE: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Included(1.0));

/// A percentile: neither the least nor the most.
const PERCENTILE: (Bound<f64>, Bound<f64>) = (Bound::Excluded(0.0), Bound::Excluded(1.0));

/// Growth, never shrinking.
const GROWTH: RangeInclusive<f64> = 1.0..=MULTIPLIER_MAX;

/// Reads the body of `PUT /v1/services/{service}`.
pub fn parse_spec(body: &Json) -> Result<Spec, Vec<FieldError>> {
    read(body, |f| {
        let d = Spec::default();
        Some(Spec {
            mode: f.word("mode", d.mode),
            checks: f.field("checks").and_then(checks).unwrap_or_default(),
            detection: part(f, "detection", d.detection, detection),
            breaker: part(f, "breaker", d.breaker, breaker),
            recovery: part(f, "recovery", d.recovery, recovery),
            failover: part(f, "failover", d.failover, failover),
            failback: part(f, "failback", d.failback, failback),
            lease: part(f, "lease", d.lease, lease),
            fencing: part(f, "fencing", d.fencing, fencing),
            on_quorum_loss: f.word("on_quorum_loss", d.on_quorum_loss),
            retry: part(f, "retry", d.retry, retry),
            fail_open: f.boolean("fail_open", d.fail_open),
            load_balancing: f.word("load_balancing", d.load_balancing),
        })
    })
}

/// An object within the spec, read over its defaults.
fn part<T>(f: &mut Fields<'_, '_>, name: &'static str, default: T, read: fn(&mut Fields<'_, '_>, &T) -> T) -> T {
    f.object(name, |f| read(f, &default)).unwrap_or(default)
}

fn detection(f: &mut Fields<'_, '_>, d: &Detection) -> Detection {
    let observers = f.whole("observers", d.observers, 1..=OBSERVERS_MAX);
    let quorum = quorum(f).unwrap_or(d.quorum);
    if let Quorum::Count(count) = quorum
        && count > observers
        && f.sound("observers")
        && f.sound("quorum")
    {
        f.error(
            "quorum",
            format_args!("{count} is more than the {observers} `observers`: no instance could ever be down"),
        );
    }
    Detection {
        observers,
        quorum,
        veto: f.boolean("veto", d.veto),
        error_rate: part(f, "error_rate", d.error_rate.clone(), error_rate),
        slow: part(f, "slow", d.slow.clone(), slow),
        accrual: part(f, "accrual", d.accrual.clone(), |f, d| Accrual {
            phi: f.number("phi", d.phi, (Bound::Excluded(0.0), Bound::Included(PHI_MAX))),
        }),
        timeout: f.millis("timeout", d.timeout, SPAN),
        combine: f.word("combine", d.combine),
    }
}

fn quorum(f: &mut Fields<'_, '_>) -> Option<Quorum> {
    let mut slot = f.field("quorum")?;
    match slot.json() {
        Json::Number(_) => {
            let count = slot.whole(1..=u64::from(OBSERVERS_MAX))?;
            u32::try_from(count).ok().map(Quorum::Count)
        }
        Json::String(text) if text == MajorityWord::Majority.as_str() => Some(Quorum::Majority(MajorityWord::Majority)),
        Json::Null | Json::Bool(_) | Json::String(_) | Json::Array(_) | Json::Object(_) => {
            slot.refuse(format_args!(
                "is not a quorum: write \"majority\" or a whole number from 1 to {OBSERVERS_MAX}"
            ));
            None
        }
    }
}

fn error_rate(f: &mut Fields<'_, '_>, d: &ErrorRate) -> ErrorRate {
    ErrorRate {
        window: f.millis("window", d.window, SPAN),
        min_requests: f.whole("min_requests", d.min_requests, 1..=COUNT_MAX),
        threshold: f.number("threshold", d.threshold, SHARE),
    }
}

fn slow(f: &mut Fields<'_, '_>, d: &SlowCalls) -> SlowCalls {
    let mut floor = f.millis("floor", d.floor, DELAY);
    let mut ceiling = f.millis("ceiling", d.ceiling, SPAN);
    f.in_order(("floor", &mut floor), ("ceiling", &mut ceiling));
    SlowCalls {
        window: f.millis("window", d.window, SPAN),
        min_requests: f.whole("min_requests", d.min_requests, 1..=COUNT_MAX),
        percentile: f.number("percentile", d.percentile, PERCENTILE),
        multiplier: f.number("multiplier", d.multiplier, GROWTH),
        floor,
        ceiling,
    }
}

fn breaker(f: &mut Fields<'_, '_>, d: &BreakerPolicy) -> BreakerPolicy {
    let mut open_for = f.millis("open_for", d.open_for, DELAY);
    let mut open_for_max = f.millis("open_for_max", d.open_for_max, DELAY);
    f.in_order(("open_for", &mut open_for), ("open_for_max", &mut open_for_max));
    // As in resilience4j: what closes the breaker must be able to happen.
    let mut half_open_max_calls = f.whole("half_open_max_calls", d.half_open_max_calls, 1..=TRIALS_MAX);
    let mut success_threshold = f.whole("success_threshold", d.success_threshold, 1..=TRIALS_MAX);
    f.in_order(("success_threshold", &mut success_threshold), ("half_open_max_calls", &mut half_open_max_calls));
    BreakerPolicy {
        consecutive_failures: f.whole("consecutive_failures", d.consecutive_failures, 1..=COUNT_MAX),
        error_rate: f.number("error_rate", d.error_rate, SHARE),
        min_requests: f.whole("min_requests", d.min_requests, 1..=COUNT_MAX),
        window: f.millis("window", d.window, SPAN),
        open_for,
        open_for_max,
        open_for_multiplier: f.number("open_for_multiplier", d.open_for_multiplier, GROWTH),
        half_open_max_calls,
        half_open_timeout: f.millis("half_open_timeout", d.half_open_timeout, SPAN),
        success_threshold,
    }
}

fn recovery(f: &mut Fields<'_, '_>, d: &RecoveryPolicy) -> RecoveryPolicy {
    let mut initial_delay = f.millis("initial_delay", d.initial_delay, DELAY);
    let mut max_delay = f.millis("max_delay", d.max_delay, DELAY);
    f.in_order(("initial_delay", &mut initial_delay), ("max_delay", &mut max_delay));
    RecoveryPolicy {
        strategy: f.word("strategy", d.strategy),
        cooldown: f.millis("cooldown", d.cooldown, DELAY),
        cooldown_after: f.whole("cooldown_after", d.cooldown_after, 1..=COUNT_MAX),
        initial_delay,
        max_delay,
        multiplier: f.number("multiplier", d.multiplier, GROWTH),
        ramp: f.millis("ramp", d.ramp, DELAY),
        probes: f.whole("probes", d.probes, 1..=COUNT_MAX),
    }
}

fn failover(f: &mut Fields<'_, '_>, d: &FailoverPolicy) -> FailoverPolicy {
    let max_lag = match f.nullable("max_lag") {
        None => d.max_lag,
        Some(None) => None,
        Some(Some(slot)) => slot.whole(0..=LAG_MAX),
    };
    FailoverPolicy {
        automatic: f.boolean("automatic", d.automatic),
        strategy: f.word("strategy", d.strategy),
        min_interval: f.millis("min_interval", d.min_interval, DELAY),
        max_in_window: f.whole("max_in_window", d.max_in_window, 1..=MOVES_MAX),
        window: f.millis("window", d.window, SPAN),
        activation_timeout: f.millis("activation_timeout", d.activation_timeout, SPAN),
        require_ack: f.boolean("require_ack", d.require_ack),
        max_lag,
        min_healthy: f.millis("min_healthy", d.min_healthy, DELAY),
    }
}

fn failback(f: &mut Fields<'_, '_>, d: &FailbackPolicy) -> FailbackPolicy {
    FailbackPolicy { mode: f.word("mode", d.mode), stable_for: f.millis("stable_for", d.stable_for, DELAY) }
}

fn lease(f: &mut Fields<'_, '_>, d: &LeasePolicy) -> LeasePolicy {
    LeasePolicy {
        ttl: f.millis("ttl", d.ttl, LEASE_MIN..=LEASE_MAX),
        delay: f.millis("delay", d.delay, DELAY),
        release_on_disconnect: f.boolean("release_on_disconnect", d.release_on_disconnect),
    }
}

fn fencing(f: &mut Fields<'_, '_>, d: &FencingPolicy) -> FencingPolicy {
    let hook = f.nullable("hook").flatten().and_then(|slot| slot.object(hook));
    let proof = f.field("proof").and_then(proof).unwrap_or_else(|| d.proof.clone());
    if let ProofPolicy::List(kinds) = &proof
        && kinds.contains(&ProofKind::Hook)
        && hook.is_none()
        && f.sound("hook")
    {
        f.error("hook", "is missing, and `proof` names \"hook\": write {\"url\": ...} or {\"agent\": ...}");
    }
    FencingPolicy { proof, hook }
}

fn proof(mut slot: Slot<'_, '_>) -> Option<ProofPolicy> {
    match slot.json() {
        Json::String(text) if text == AutoWord::Auto.as_str() => Some(ProofPolicy::Auto(AutoWord::Auto)),
        Json::Array(_) => words_once(slot).map(ProofPolicy::List),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) | Json::Object(_) => {
            slot.refuse("is not a list of proofs: write \"auto\", or a list as in [\"release\", \"lease\"]");
            None
        }
    }
}

/// A list of words, at least one, none of them twice.
fn words_once<T: Word + PartialEq>(slot: Slot<'_, '_>) -> Option<Vec<T>> {
    let mut seen: Vec<T> = Vec::new();
    let all = T::words().len();
    // With one more than there are words, the one that stands there twice is named as such.
    let one_more = matches!(slot.json(), Json::Array(list) if list.len() == all + 1);
    slot.list(1..=all + usize::from(one_more), |slot| {
        let (json, mut again) = (slot.json(), slot);
        let word = T::words().iter().find(|(text, _)| matches!(json, Json::String(given) if given == text));
        match word {
            Some((_, word)) if seen.contains(word) => {
                again.refuse("stands there twice: write it once");
                None
            }
            Some((_, word)) => {
                seen.push(*word);
                Some(*word)
            }
            None => again.word(),
        }
    })
}

fn hook(f: &mut Fields<'_, '_>) -> FencingHook {
    match (f.has("url"), f.has("agent")) {
        (true, false) | (false, true) => {}
        (true, true) => f.error("agent", "stands beside `url`: a hook is one of the two, leave the other out"),
        (false, false) => f.error("url", "is missing: write a `url`, or the name of an `agent`"),
    }
    FencingHook {
        url: f.parsed::<Url>("url").map(|url| url.to_string()),
        agent: f.parsed::<InstanceId>("agent").map(|name| name.as_str().to_owned()),
        timeout: f.millis("timeout", HOOK_TIMEOUT, Millis(1)..=HOOK_TIMEOUT_MAX),
        attempts: f.whole("attempts", HOOK_ATTEMPTS, 1..=ATTEMPTS_MAX),
    }
}

fn retry(f: &mut Fields<'_, '_>, d: &RetryPolicy) -> RetryPolicy {
    let mut initial_backoff = f.millis("initial_backoff", d.initial_backoff, DELAY);
    let mut max_backoff = f.millis("max_backoff", d.max_backoff, DELAY);
    f.in_order(("initial_backoff", &mut initial_backoff), ("max_backoff", &mut max_backoff));
    RetryPolicy {
        strategy: f.word("strategy", d.strategy),
        max_attempts: f.whole("max_attempts", d.max_attempts, 1..=ATTEMPTS_MAX),
        initial_backoff,
        max_backoff,
        multiplier: f.number("multiplier", d.multiplier, GROWTH),
        jitter: f.number("jitter", d.jitter, 0.0..=1.0),
        retry_on: f.field("retry_on").and_then(words_once::<RetryOn>).unwrap_or_else(|| d.retry_on.clone()),
    }
}
