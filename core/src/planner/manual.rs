//! What an operator asks for: the same rules as Baton's own moves, except that nobody waits for the active to be down.
//! Manual moves bypass neither mutual exclusion nor the need for a proof.

use serde::{Deserialize, Serialize};

use super::{ServiceReport, plan_service, rank, seen};
use crate::command::{Assertion, Command, Promote, Refusal, TransitionStart};
use crate::id::{InstanceId, ServiceName};
use crate::policy::{Mode, ProofKind, words};
use crate::probe::Health;
use crate::rules::{Asker, not_eligible, proof_that_holds};
use crate::state::{Service, State};
use crate::time::ClusterTime;
use crate::transition::{ProofRecord, TransitionKind, Trigger};

words! {
    /// What an operator may ask for.
    ManualMove {
        /// Forced: works on a well active too.
        Failover = "failover",
        /// Polite: both sides must be well.
        Switchover = "switchover",
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
    /// The proof that would be recorded.
    pub proof: ProofRecord,
    /// The service's own report, for the gates and the other candidates.
    pub report: ServiceReport,
    /// What would be proposed.
    #[serde(skip)]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    pub command: Option<Command>,
}

/// Plans an operator's request at `now`, or says which rule refuses it.
pub fn plan_manual(
    state: &State,
    name: &ServiceName,
    request: &ManualRequest,
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
    // something else.
    if let Some(open) = open
        && request.wanted == ManualMove::Switchover
    {
        return Err(Refusal::TransitionInProgress { service: name.clone(), transition: open.id });
    }
    if request.wanted == ManualMove::Switchover {
        both_sides_well(service)?;
    }

    let leaving = active.map(|active| &active.instance);
    let to = choose(service, request, leaving, now, seed)?;
    let proof = proof_that_holds(service, asserted)
        .map_err(|why| Refusal::ProofRefused { proof: asserted.unwrap_or(ProofKind::Token), why })?;
    let to = &service.instances[&to];
    let kind = match (request.wanted, service.assignment.last_holder.is_some()) {
        (ManualMove::Switchover, _) => TransitionKind::Switchover,
        (ManualMove::Failover, true) => TransitionKind::Failover,
        (ManualMove::Failover, false) => TransitionKind::Placement,
    };
    let command = match open {
        Some(open) => Command::Promote(Promote {
            service: name.clone(),
            transition: open.id,
            to: seen(to),
            proof: proof.proof,
            assertion: request
                .asserts_stopped
                .then(|| Assertion { actor: request.actor.clone(), reason: request.reason.clone() }),
            actor: Some(request.actor.clone()),
        }),
        None => Command::TransitionStart(TransitionStart {
            service: name.clone(),
            kind,
            seen_token: service.active_token(),
            to: Some(seen(to)),
            asserted,
            trigger: Trigger { reason: request.reason.clone(), cause: None },
            actor: Some(request.actor.clone()),
        }),
    };
    Ok(ManualPlan {
        kind: open.map_or(kind, |open| open.kind),
        from: leaving.cloned(),
        to: to.id.clone(),
        proof,
        report: plan_service(state, service, now, seed).report,
        command: Some(command),
    })
}

fn both_sides_well(service: &Service) -> Result<(), Refusal> {
    let Some(active) = &service.assignment.active else {
        let why = "a switchover moves a well active; use failover to promote an instance".to_owned();
        return Err(Refusal::NoActive { service: service.name.clone(), why });
    };
    match service.instances.get(&active.instance) {
        Some(instance) if instance.health != Health::Healthy => Err(Refusal::NotEligible {
            instance: active.instance.clone(),
            why: format!(
                "a switchover wants both sides well, and the active is {}; failover does not ask for that",
                instance.health
            ),
        }),
        Some(_) | None => Ok(()),
    }
}

fn choose(
    service: &Service,
    request: &ManualRequest,
    leaving: Option<&InstanceId>,
    now: ClusterTime,
    seed: u64,
) -> Result<InstanceId, Refusal> {
    let Some(wanted) = &request.to else {
        return rank(service, leaving, now, seed, Asker::Operator).first().map(|best| best.id.clone()).ok_or_else(
            || {
                let mut whys: Vec<String> = Vec::new();
                for instance in service.instances.values().take(10) {
                    if let Some(why) = not_eligible(service, instance, leaving, now, Asker::Operator) {
                        whys.push(format!("\"{}\": {why}", instance.id));
                    }
                }
                let why = if whys.is_empty() { "no instance is registered".to_owned() } else { whys.join("; ") };
                Refusal::NoCandidate { service: service.name.clone(), why }
            },
        );
    };
    let Some(instance) = service.instances.get(wanted) else {
        return Err(Refusal::NoSuchInstance { service: service.name.clone(), instance: wanted.clone() });
    };
    if leaving == Some(wanted) {
        return Err(Refusal::AlreadyActive { service: service.name.clone(), instance: wanted.clone() });
    }
    match not_eligible(service, instance, None, now, Asker::Operator) {
        Some(why) => Err(Refusal::NotEligible { instance: wanted.clone(), why }),
        None => Ok(wanted.clone()),
    }
}
