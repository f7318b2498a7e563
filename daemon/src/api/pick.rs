//! Whom to call. The choice is `core`'s; here it is asked for, a trial call is granted through the log, and the pickers of
//! the services are kept. They know whose turn it is on this node, and nothing else: losing one loses a turn.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use baton_client::view::{EndpointView, EndpointsView, PickRequest, PickView, Problem};
use baton_core::command::{Command, Done, Refusal, TrialGrant};
use baton_core::id::{InstanceId, NAME_MAX, ServiceName};
use baton_core::json::{FieldError, Json, read as read_fields};
use baton_core::pick::{Asked, Callable, NoInstance, PickStrategy, Picked, Picker, callable, why_nobody};
use baton_core::policy::Mode;
use baton_core::state::{AdminState, Service};
use metrics::counter;

use super::answer::Answer;
use super::error::ApiError;
use super::extract::{MaybeJson, OfService, Unrepeated};
use super::longpoll::{read, read_changed, service_in};
use super::measures::PICKS;
use super::query::{Consistency, Fresh, Query};
use super::{ApiState, views};
use crate::store::View;

/// The most instances that a request excludes: more tries than anybody makes for one call.
const EXCLUDE_MAX: usize = 1_000;

/// How often a pick asks for a trial call before it does without: each time costs a log entry, and whoever is refused so
/// often is one of many who ask.
const TRIAL_TRIES: usize = 3;

/// How often the pickers of services that are gone are looked for. In between they only take memory.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// The pickers of all services that somebody has asked about, and the dice for the random strategy.
pub(super) struct Pickers {
    kept: Mutex<Kept>,
    dice: RandomState,
    thrown: AtomicU64,
}

struct Kept {
    pickers: BTreeMap<ServiceName, Arc<Mutex<Picker>>>,
    swept: Instant,
}

impl Default for Pickers {
    fn default() -> Self {
        let kept = Mutex::new(Kept { pickers: BTreeMap::new(), swept: Instant::now() });
        Self { kept, dice: RandomState::new(), thrown: AtomicU64::new(0) }
    }
}

/// What a panic leaves behind is still a table or a turn: it is made anew, or missed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pickers {
    /// The picker of a service of `view`. There are never more of them than services, but for those of a minute ago.
    fn of(&self, view: &View, name: &ServiceName) -> Arc<Mutex<Picker>> {
        let mut kept = lock(&self.kept);
        if kept.pickers.len() > view.state.services.len() || kept.swept.elapsed() > SWEEP_EVERY {
            kept.pickers.retain(|name, _| view.state.services.contains_key(name));
            kept.swept = Instant::now();
        }
        if let Some(picker) = kept.pickers.get(name) {
            return picker.clone();
        }
        kept.pickers.entry(name.clone()).or_default().clone()
    }

    fn forget(&self, name: &ServiceName) {
        lock(&self.kept).pickers.remove(name);
    }

    /// A number that nobody can foretell.
    fn throw(&self) -> u64 {
        self.dice.hash_one(self.thrown.fetch_add(1, Ordering::Relaxed))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.kept).pickers.len()
    }
}

/// A trial call between offer and grant. However the asking ends, by a client that hangs up as well, the picker is told.
struct Asking {
    picker: Arc<Mutex<Picker>>,
    instance: InstanceId,
    generation: u64,
}

impl Drop for Asking {
    fn drop(&mut self) {
        lock(&self.picker).settled(&self.instance, self.generation);
    }
}

/// One instance that may be called now
///
/// Lower tiers go before higher ones, and healthy instances before doubted ones. Never one whose breaker is open, or that
/// an operator drains, maintains or isolates. A half-open instance with a free trial place goes before the others of its
/// tier: `trial` is true then, the place is taken across the cluster, and the call should be made and reported. Of an
/// `active_passive` service it is the active or nobody.
///
/// Each node takes turns by itself.
#[utoipa::path(post, path = "/v1/services/{service}/pick", tag = "discovery",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`: faster, and answers \
            without a quorum"),
        ("Idempotency-Key" = Option<String>, Header, description = "Not known yet: a request that carries one is \
            refused with `idempotency_key_unsupported`, since repeating it chooses anew"),
    ),
    request_body(content = PickRequest, description = "May be empty",
        example = json!({"strategy": "next", "exclude": ["a"], "zone": "eu-west-1a"})),
    responses(
        (status = 200, description = "Call this one", body = PickView),
        (status = 400, description = "`idempotency_key_unsupported`, `invalid_input`, `invalid_json`", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "`no_instance`: nobody may be called, and `detail` says why; or `no_quorum`",
            body = Problem, content_type = "application/problem+json"),
    ))]
pub(crate) async fn pick(
    State(state): State<ApiState>,
    OfService(name): OfService,
    _: Unrepeated,
    Query(consistency): Query<Consistency>,
    MaybeJson(body): MaybeJson,
) -> Result<Answer, ApiError> {
    let wish = body.as_ref().map_or_else(|| Ok(PickRequest::default()), parse).map_err(ApiError::Invalid)?;
    read(&state, consistency).await?;
    let mut refused = Vec::new();
    let mut failed = None;
    loop {
        let trials = failed.is_none() && refused.len() < TRIAL_TRIES;
        let (view, offered) = match offer(&state, &name, &wish, &refused, trials) {
            // Where a trial call was all that could be had, the reason why it could not be asked for is the better one.
            Err(ApiError::NoInstance(none)) => return Err(failed.unwrap_or(ApiError::NoInstance(none))),
            offered => offered?,
        };
        let Offered { picked, asking } = offered;
        let Some(asking) = asking else { return told(&view, &name, &picked) };
        let (service, instance, generation) = (name.clone(), picked.instance.clone(), asking.generation);
        let done = state.consensus.propose(Command::TrialGrant(TrialGrant { service, instance, generation })).await;
        drop(asking);
        match done {
            Ok(Ok(Done::Granted { .. })) => return told(&view, &name, &picked),
            Ok(Ok(done)) => return Err(ApiError::Reply(done)),
            Ok(Err(Refusal::NoTrial { .. } | Refusal::MovedOn { .. } | Refusal::NoSuchInstance { .. })) => {
                refused.push(picked.instance);
            }
            Ok(Err(refusal)) => return Err(refusal.into()),
            // A trial needs the log. A well instance beside it does not.
            Err(error) => failed = Some(error.into()),
        }
    }
}

/// A choice. Where it is a trial call, it is still to be asked for.
struct Offered {
    picked: Picked,
    asking: Option<Asking>,
}

/// Lets the service's picker choose, from the newest view that this node has: a picker never sees an older one again.
fn offer(
    state: &ApiState,
    name: &ServiceName,
    wish: &PickRequest,
    refused: &[InstanceId],
    trials: bool,
) -> Result<(Arc<View>, Offered), ApiError> {
    let known = state.consensus.reader().view();
    if let Err(error) = service_in(&known, name) {
        state.pickers.forget(name);
        return Err(error);
    }
    let picker = state.pickers.of(&known, name);
    let mut choosing = lock(&picker);
    let view = state.consensus.reader().view();
    let service = service_in(&view, name)?;
    let strategy = wish.strategy.unwrap_or_else(|| service.spec.load_balancing.into());
    let asked = Asked {
        strategy,
        exclude: &wish.exclude,
        zone: wish.zone.as_deref(),
        trials,
        refused,
        seed: state.pickers.throw(),
    };
    let chosen = choosing.pick(service, state.consensus.now().time, &asked);
    drop(choosing);
    count(strategy, chosen.as_ref().ok());
    let picked = chosen.map_err(|none| with_remedy(none, service))?;
    let asking = picked.trial.map(|generation| Asking { picker, instance: picked.instance.clone(), generation });
    Ok((view, Offered { picked, asking }))
}

/// What an operator can do about it, where it is an operator's own word that nobody may be called.
fn with_remedy(mut none: NoInstance, service: &Service) -> NoInstance {
    let active = service.assignment.active.as_ref().and_then(|active| service.instances.get(&active.instance));
    let drains = active.is_some_and(|active| active.admin.state == AdminState::Draining);
    if service.spec.mode == Mode::ActivePassive && drains {
        none.why.push_str(&format!("; POST /v1/services/{}/switchover moves the service to another", none.service));
    }
    none
}

fn count(strategy: PickStrategy, picked: Option<&Picked>) {
    let outcome = match picked {
        None => "none",
        Some(picked) if picked.degraded => "degraded",
        Some(picked) if picked.trial.is_some() => "trial_offered",
        Some(_) => "picked",
    };
    counter!(PICKS, "strategy" => strategy.as_str(), "outcome" => outcome).increment(1);
}

fn told(view: &View, name: &ServiceName, picked: &Picked) -> Result<Answer, ApiError> {
    let service = service_in(view, name)?;
    let instance = service.instances.get(&picked.instance);
    let told = PickView {
        service: name.clone(),
        instance: picked.instance.clone(),
        address: instance.and_then(|instance| instance.registration.address.clone()),
        token: service.active_token().filter(|_| service.is_active(&picked.instance)),
        generation: picked.generation,
        weight: views::weight(picked.weight),
        trial: picked.trial.is_some(),
        degraded: picked.degraded,
        revision: service.changed,
    };
    Ok(Answer::json(&told)?.at(view.state.meta.revision))
}

fn parse(body: &Json) -> Result<PickRequest, Vec<FieldError>> {
    read_fields(body, |fields| {
        let strategy = fields.field("strategy").and_then(|slot| slot.word());
        let exclude = fields.field("exclude").and_then(|slot| slot.list(0..=EXCLUDE_MAX, |one| one.parsed()));
        let zone = fields.text("zone", 1..=NAME_MAX).map(str::to_owned);
        Some(PickRequest { strategy, exclude: exclude.unwrap_or_default(), zone })
    })
}

/// All that may be called now
///
/// By the same rules as `pick`, of every tier and zone: for clients that balance by themselves. Where nobody may be called
/// the list is empty and `why` says why. Weights of a ramp change without an event.
///
/// With `after`, a long poll: the answer comes when the service has changed after that revision, or when `wait` is over.
#[utoipa::path(get, path = "/v1/services/{service}/endpoints", tag = "discovery", operation_id = "get_endpoints",
    params(
        ("service" = ServiceName, Path, description = "The service's name"),
        ("consistency" = Option<String>, Query, description = "`linearizable` (default) or `stale`"),
        ("after" = Option<u64>, Query, description = "Answer when the service has changed after this revision"),
        ("wait" = Option<String>, Query, description = "How long to wait for that, at most `5m` (default `30s`)"),
    ),
    responses((status = 200, description = "Those that may be called", body = EndpointsView)))]
pub(crate) async fn endpoints(
    State(state): State<ApiState>,
    OfService(name): OfService,
    Query(fresh): Query<Fresh>,
) -> Result<Answer, ApiError> {
    let view = read_changed(&state, &fresh, |view| view.state.service(&name).map(|service| service.changed)).await?;
    let service = service_in(&view, &name)?;
    let now = state.consensus.now().time;
    let callable = callable(service, now);
    let told = EndpointsView {
        service: name,
        mode: service.spec.mode,
        degraded: callable.iter().any(|one| one.degraded),
        why: callable.is_empty().then(|| with_remedy(why_nobody(service, now, &[]), service).why),
        endpoints: callable.iter().map(|one| endpoint(service, one)).collect(),
        revision: service.changed,
    };
    Ok(Answer::json(&told)?.at(view.state.meta.revision))
}

fn endpoint(service: &Service, callable: &Callable<'_>) -> EndpointView {
    let (instance, registration) = (callable.instance, &callable.instance.registration);
    EndpointView {
        instance: instance.id.clone(),
        address: registration.address.clone(),
        token: service.active_token().filter(|_| service.is_active(&instance.id)),
        zone: registration.zone.clone(),
        tier: registration.tier,
        priority: registration.priority,
        effective_weight: views::weight(callable.weight),
        health: instance.health,
        breaker: instance.breaker.state,
        generation: instance.breaker.generation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<PickRequest, Vec<String>> {
        let body = Json::parse(text.as_bytes()).expect("JSON");
        parse(&body).map_err(|errors| errors.into_iter().map(|error| error.path).collect())
    }

    #[test]
    fn a_wish_is_read_strictly_and_nothing_of_it_is_needed() {
        assert_eq!(asked("{}"), Ok(PickRequest::default()));
        let full = asked(r#"{"strategy":"weighted_round_robin","exclude":["a","b"],"zone":"eu-west-1.a"}"#);
        let full = full.expect("valid");
        assert_eq!((full.strategy, full.exclude.len()), (Some(PickStrategy::WeightedRoundRobin), 2));
        assert_eq!(full.zone.as_deref(), Some("eu-west-1.a"));
        let many = format!(r#"{{"exclude":[{}]}}"#, vec![r#""a""#; EXCLUDE_MAX + 1].join(","));
        for (bad, path) in [
            (r#"{"strategy":"least_busy"}"#, "strategy"),
            (r#"{"strategy":null}"#, "strategy"),
            (r#"{"exclude":"a"}"#, "exclude"),
            (r#"{"exclude":["A!"]}"#, "exclude[0]"),
            (r#"{"zone":""}"#, "zone"),
            (r#"{"zones":["a"]}"#, "zones"),
            (many.as_str(), "exclude"),
            ("[]", "$"),
        ] {
            assert_eq!(asked(bad), Err(vec![path.to_owned()]), "{bad}");
        }
    }
}
