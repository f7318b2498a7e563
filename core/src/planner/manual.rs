//! What an operator asks for: the same rules as Baton's own moves, except that nobody waits for the active to be down.
//! Manual moves bypass neither mutual exclusion nor the need for a proof.

use serde::{Deserialize, Serialize};

use super::{Facts, Gate, OperatorMay, ServiceReport, plan_service, rank};
use crate::command::{Command, Refusal, Target, TransitionStart, TransitionTake};
use crate::id::{InstanceId, ServiceName};
use crate::policy::{FailbackMode, Mode, ProofKind, words};
use crate::probe::Health;
use crate::rules::{
    Asker, Grounds, NoProof, SAID_TO_HAVE_STOPPED, Seek, held_last, hook_over, open_told, preferred_over,
    proof_that_holds, rails_of, why_not, word_is_about,
};
use crate::state::{Instance, Service, State};
use crate::time::{ClusterTime, Millis};
use crate::transition::{ProofRecord, Transition, TransitionKind, Trigger};

words! {
    /// What an operator may ask for.
    ManualMove {
        /// Forced: works on a well active too.
        Failover = "failover",
        /// Polite: both sides must be well.
        Switchover = "switchover",
        /// A switchover to the preferred instance.
        Failback = "failback",
    }
}

/// An operator's request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManualRequest {
    /// What is asked for.
    pub wanted: ManualMove,
    /// The instance to promote; `None`: the best.
    pub to: Option<InstanceId>,
    /// Why.
    pub reason: String,
    /// Who asks.
    pub actor: String,
    /// Whether the operator asserts that the old active has stopped.
    pub asserts_stopped: bool,
}

/// What a request would do, and does unless it is a dry run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManualPlan {
    /// What kind of move it is.
    pub kind: TransitionKind,
    /// The active before.
    pub from: Option<InstanceId>,
    /// The instance that would be promoted.
    pub to: InstanceId,
    /// The proof that would be recorded at once; null where one has to be waited for.
    pub proof: Option<ProofRecord>,
    /// What has to be waited for, in a sentence: the old active's release, the end of its lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// For how long at most, where that is known: a lease that is not renewed ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_at_most: Option<Millis>,
    /// The gates that would hold a move of Baton's own now, and do not hold this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bypasses: Vec<Gate>,
    /// The service's own report, for the gates and the other candidates.
    pub report: ServiceReport,
    /// What would be proposed.
    #[serde(skip)]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub command: Option<Command>,
}

/// Plans an operator's request at `now`, or says which rule refuses it. A command that carries a claim about a lease may be
/// proposed by the leader that sealed it only; others leave it to the planner there.
pub fn plan_manual(
    state: &State,
    name: &ServiceName,
    request: &ManualRequest,
    facts: &Facts,
    now: ClusterTime,
    seed: u64,
) -> Result<ManualPlan, Refusal> {
    let service = state.service(name).ok_or_else(|| Refusal::NoSuchService { service: name.clone() })?;
    if service.spec.mode == Mode::ActiveActive {
        return Err(Refusal::NotActivePassive { service: name.clone() });
    }
    let asserted = request.asserts_stopped.then_some(ProofKind::Operator);
    let active = service.assignment.active.as_ref();
    let open = state.open_transition(service);
    // A move that is open waits for a candidate, a proof or an operator, and a failover completes it. A switchover is
    // something else, and so is a move that waits for an acknowledgement.
    if let Some(open) = open
        && (request.wanted != ManualMove::Failover || active.is_some())
    {
        let why = open_told(open, service.assignment.phase);
        return Err(Refusal::TransitionInProgress { service: name.clone(), transition: open.id, why });
    }
    match request.wanted {
        ManualMove::Failover => {}
        ManualMove::Switchover | ManualMove::Failback => both_sides_well(service)?,
    }

    let leaving = active.map(|active| &active.instance).or_else(|| open.and_then(|open| open.from.as_ref()));
    let seek = Seek { service, leaving, now, asker: Asker::Operator };
    let to = match (request.wanted, open) {
        (ManualMove::Failback, _) => preferred(&seek, request, facts)?,
        (ManualMove::Failover | ManualMove::Switchover, None) => choose(&seek, request, facts, seed)?,
        (ManualMove::Failover | ManualMove::Switchover, Some(open)) => go_on(&seek, open, request, facts, seed)?,
    };
    // What was said when the move began holds on, unless the one whom it was said of is asked for.
    let said = open.and_then(|open| open.asserted).filter(|_| !held_last(service, &to));
    let asserted = asserted.or(said);
    let first = asserted.unwrap_or_else(|| service.spec.fencing.proof.first());
    let refused = |why| Refusal::ProofRefused { proof: first, why };
    let grounds = Grounds { asserted, claim: None, term: facts.term, standing: Some(&facts.lease), hook_over: None };
    let (proof, waits_for, waits_at_most) = match proof_that_holds(service, &grounds) {
        Ok(proof) => (Some(proof), None, None),
        // An operator's open move to that instance waits for that anyway: whoever asks again must bring something, or make the
        // hook be tried again.
        Err(no)
            if open.is_some_and(|open| {
                open.actor.is_some() && open.to.as_ref() == Some(&to) && hook_over(service, open).is_none()
            }) =>
        {
            return Err(refused(no.told()));
        }
        Err(no @ NoProof::Pending { lease_in, .. }) => (None, Some(no.told()), lease_in),
        Err(no @ NoProof::Never { .. }) => return Err(refused(no.told())),
    };
    let to = &service.instances[&to];
    let target = Target { instance: to.id.clone(), epoch: to.epoch, lag: facts.lag_of(&to.id) };
    let kind = match (request.wanted, service.assignment.last_holder.is_some()) {
        (ManualMove::Switchover, _) => TransitionKind::Switchover,
        (ManualMove::Failback, _) => TransitionKind::Failback,
        (ManualMove::Failover, true) => TransitionKind::Failover,
        (ManualMove::Failover, false) => TransitionKind::Placement,
    };
    let seen_holder = service.assignment.last_holder.as_ref().and_then(|holder| holder.token);
    let command = match open {
        Some(open) => Command::TransitionTake(TransitionTake {
            service: name.clone(),
            transition: open.id,
            seen_holder,
            to: target,
            asserted,
            reason: request.reason.clone(),
            actor: request.actor.clone(),
        }),
        None => Command::TransitionStart(TransitionStart {
            service: name.clone(),
            kind,
            seen_token: service.active_token(),
            seen_holder,
            to: Some(target),
            asserted,
            // The leader's planner seals and completes what this opens.
            lease: None,
            trigger: Trigger { reason: request.reason.clone(), cause: None },
            actor: Some(request.actor.clone()),
        }),
    };
    Ok(ManualPlan {
        kind: open.map_or(kind, |open| open.kind),
        from: leaving.cloned(),
        to: to.id.clone(),
        proof,
        waits_for,
        waits_at_most,
        bypasses: bypasses(state, service, open.map(AsRef::as_ref), kind, now),
        report: plan_service(state, service, facts, now, seed).report,
        command: Some(command),
    })
}

/// What would hold Baton back now from the move that an operator asks for.
fn bypasses(
    state: &State,
    service: &Service,
    open: Option<&Transition>,
    kind: TransitionKind,
    now: ClusterTime,
) -> Vec<Gate> {
    let automatic = (!service.moves_by_itself()).then(|| Gate {
        operator: Some(OperatorMay::Pass),
        ..Gate::new("automatic", false, "failover.automatic is off: only an operator moves this service")
    });
    let (kind, counted) = open.map_or((kind, false), |open| (open.kind, open.has_moved()));
    let rails = rails_of(state, service, kind, counted, now).into_iter().filter(|rail| !rail.pass);
    let rails = rails.map(|rail| Gate::of_rail(&rail, now));
    automatic.into_iter().chain(rails).collect()
}

fn both_sides_well(service: &Service) -> Result<(), Refusal> {
    let Some(active) = &service.assignment.active else {
        let why = "a switchover and a failback move a well active; a failover promotes an instance where there is none"
            .to_owned();
        return Err(Refusal::NoActive { service: service.name.clone(), why });
    };
    match service.instances.get(&active.instance) {
        Some(instance) if instance.health != Health::Healthy => Err(Refusal::ActiveNotWell {
            service: service.name.clone(),
            instance: active.instance.clone(),
            health: instance.health,
        }),
        Some(_) | None => Ok(()),
    }
}

/// The instance that a failback goes to: the one that is named, or the best of those that are preferred to the active.
fn preferred(seek: &Seek<'_>, request: &ManualRequest, facts: &Facts) -> Result<InstanceId, Refusal> {
    let service = seek.service;
    if service.spec.failback.mode == FailbackMode::Never {
        let why = "failback.mode is \"never\"; a switchover moves the service all the same".to_owned();
        return Err(Refusal::NoCandidate { service: service.name.clone(), why });
    }
    let Some(active) = seek.leaving else {
        let why = "a failback moves a well active; a failover promotes an instance where there is none".to_owned();
        return Err(Refusal::NoActive { service: service.name.clone(), why });
    };
    let preferred = preferred_over(service, active);
    if let Some(wanted) = &request.to {
        if service.instances.get(wanted).is_none() {
            return Err(Refusal::NoSuchInstance { service: service.name.clone(), instance: wanted.clone() });
        }
        if wanted != active && !preferred.iter().any(|it| it.id == *wanted) {
            let why = format!(
                "it is not preferred to \"{active}\" by tier and priority; a switchover moves the service all the same"
            );
            return Err(Refusal::NotEligible { instance: wanted.clone(), why });
        }
    }
    let wanted = |it: &&&Instance| request.to.as_ref().is_none_or(|wanted| it.id == *wanted);
    let mut whys = Vec::new();
    for instance in preferred.iter().filter(wanted) {
        match why_not(seek, instance, facts.lag_of(&instance.id)) {
            None => return Ok(instance.id.clone()),
            Some(why) => whys.push(format!("\"{}\": {why}", instance.id)),
        }
    }
    if whys.is_empty() {
        return Err(Refusal::AlreadyActive { service: service.name.clone(), instance: active.clone() });
    }
    Err(Refusal::NoCandidate { service: service.name.clone(), why: whys.join("; ") })
}

/// The instance with which an open move is completed: the one that is named, else the one that was before while it may be,
/// else the best that was not tried in vain. The one that the move leaves has to be named, and not by the very word that it
/// has stopped.
fn go_on(
    seek: &Seek<'_>,
    open: &Transition,
    request: &ManualRequest,
    facts: &Facts,
    seed: u64,
) -> Result<InstanceId, Refusal> {
    let service = seek.service;
    let stopped = |id: &InstanceId| request.asserts_stopped && held_last(service, id);
    if let Some(wanted) = &request.to {
        if stopped(wanted) && word_is_about(service, wanted) {
            return Err(Refusal::NotEligible { instance: wanted.clone(), why: SAID_TO_HAVE_STOPPED.to_owned() });
        }
        return choose(&Seek { leaving: None, ..*seek }, request, facts, seed);
    }
    let tried = |id: &InstanceId| open.tried.iter().position(|tried| tried == id).map_or(0, |at| at + 1);
    let ranked: Vec<&InstanceId> =
        rank(seek, facts, seed).into_iter().map(|it| &it.id).filter(|id| !stopped(id)).collect();
    let before = open.to.as_ref().filter(|to| tried(to) == 0 && ranked.contains(to));
    let best = before.or_else(|| ranked.iter().copied().min_by_key(|id| tried(id)));
    best.cloned().ok_or_else(|| {
        let tell = |instance: &Instance| {
            let id = &instance.id;
            let lag = facts.lag_of(id);
            let why = match why_not(&Seek { leaving: None, ..*seek }, instance, lag) {
                Some(why) => why,
                None if stopped(id) => SAID_TO_HAVE_STOPPED.to_owned(),
                None => {
                    "it is the instance that this move leaves, and has to be named to have the service back".to_owned()
                }
            };
            format!("\"{id}\": {why}")
        };
        no_candidate(service, service.instances.values().take(WHYS_MAX).map(|it| tell(it)))
    })
}

/// The most instances of which a refusal says why they may not be promoted; `explain` tells of the others.
const WHYS_MAX: usize = 10;

fn no_candidate(service: &Service, whys: impl Iterator<Item = String>) -> Refusal {
    let whys: Vec<String> = whys.collect();
    let why = if whys.is_empty() { "no instance is registered".to_owned() } else { whys.join("; ") };
    Refusal::NoCandidate { service: service.name.clone(), why }
}

fn choose(seek: &Seek<'_>, request: &ManualRequest, facts: &Facts, seed: u64) -> Result<InstanceId, Refusal> {
    let service = seek.service;
    let Some(wanted) = &request.to else {
        return rank(seek, facts, seed).first().map(|best| best.id.clone()).ok_or_else(|| {
            let tell =
                |it: &Instance| why_not(seek, it, facts.lag_of(&it.id)).map(|why| format!("\"{}\": {why}", it.id));
            no_candidate(service, service.instances.values().take(WHYS_MAX).filter_map(|it| tell(it)))
        });
    };
    let Some(instance) = service.instances.get(wanted) else {
        return Err(Refusal::NoSuchInstance { service: service.name.clone(), instance: wanted.clone() });
    };
    if seek.leaving == Some(wanted) {
        return Err(Refusal::AlreadyActive { service: service.name.clone(), instance: wanted.clone() });
    }
    match why_not(seek, instance, facts.lag_of(wanted)) {
        Some(why) => Err(Refusal::NotEligible { instance: wanted.clone(), why }),
        None => Ok(wanted.clone()),
    }
}
