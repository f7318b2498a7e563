//! What may happen in a run: the acts of operators, instances, observers and leaders, sane ones and confused ones, and the
//! commands that they come to.

use std::collections::BTreeMap;

use crate::support::acts::{admin, grant, judgement, reset, tried, trip};
use crate::support::{announce, delete_instance, instance, put_instance, put_service, service, verdicts};
use baton_core::command::{
    Ack, ActivationExpire, AutomationPause, AutomationResume, Command, HookEnd, HookStart, InstanceReturned,
    InstancesDue, Promote, Release, ServiceDelete, Target, TransitionAbort, TransitionStart, VerdictsRecord,
};
use baton_core::id::{ServiceName, Token, TransitionId};
use baton_core::lease::{LeaseClaim, LeaseStanding};
use baton_core::planner::{Facts, ManualMove, ManualRequest, instances_due, plan_manual, plan_service};
use baton_core::policy::{
    Check, CheckKind, FailoverStrategy, FencingHook, Liveness, Mode, OnQuorumLoss, ProofKind, ProofPolicy,
    Registration, Spec,
};
use baton_core::probe::Verdict;
use baton_core::state::{AdminState, Holder, ReleaseHow, Source, State};
use baton_core::time::{ClusterTime, Millis};
use baton_core::transition::{HookOutcome, Transition, TransitionKind, Trigger};
use proptest::prelude::*;

/// The leader of these runs has led for long.
pub(crate) const LED: Millis = Millis::secs(3_600);
pub(crate) const SERVICES: [&str; 2] = ["orders", "bills"];
pub(crate) const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// Trial calls that may be out, in every spec here.
pub(crate) const TRIALS_MAX: usize = 2;

/// One thing that somebody does to the cluster.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    PutService {
        service: usize,
        variant: u8,
    },
    DeleteService {
        service: usize,
    },
    PutInstance {
        service: usize,
        instance: usize,
        priority: u8,
        port: u8,
    },
    DeleteInstance {
        service: usize,
        instance: usize,
    },
    Verdict {
        node: u64,
        service: usize,
        instance: usize,
        verdict: u8,
        stale: bool,
    },
    /// All that a node looks at is well again, or down.
    All {
        node: u64,
        service: usize,
        up: bool,
    },
    Judge {
        service: usize,
        instance: usize,
        calls: bool,
        verdict: u8,
        stale: bool,
    },
    /// Something about a breaker, seen now or some generations ago.
    Breaker {
        service: usize,
        instance: usize,
        what: u8,
        ago: u64,
    },
    Admin {
        service: usize,
        instance: usize,
        state: usize,
        ms: Option<u16>,
    },
    Reset {
        service: usize,
        instance: usize,
    },
    /// What the leader proposes when the time has come, or what a confused one would.
    Due {
        service: usize,
        blind: bool,
    },
    Announce {
        node: u64,
    },
    Lost {
        node: u64,
    },
    Back {
        node: u64,
    },
    Plan {
        service: usize,
        seed: u64,
        lease: u8,
    },
    Manual {
        service: usize,
        to: Option<usize>,
        switchover: bool,
        asserts: bool,
    },
    /// Another leader: what was claimed in an earlier term is worth nothing from here on.
    Elect,
    /// What a holder says, or somebody who takes itself for one.
    Release {
        service: usize,
        instance: usize,
        whose: u8,
        off: u8,
        leaving: bool,
        disconnected: bool,
    },
    Ack {
        service: usize,
        instance: usize,
        off: u8,
    },
    Expire {
        service: usize,
        off: u8,
    },
    Returned {
        service: usize,
        instance: usize,
    },
    HookStart {
        service: usize,
        off: u8,
    },
    HookEnd {
        service: usize,
        ok: bool,
    },
    Pause {
        service: Option<usize>,
        ms: u16,
    },
    Resume {
        service: Option<usize>,
    },
    PauseOver {
        service: Option<usize>,
    },
    Forget {
        service: usize,
        lease: u8,
    },
    /// What a confused or late leader might propose.
    BlindStart {
        service: usize,
        to: usize,
        token: u64,
        cause: u64,
        actor: bool,
    },
    BlindPromote {
        service: usize,
        to: usize,
        off: u64,
        proof: u8,
        lease: u8,
    },
    Abort {
        service: usize,
    },
    Compact {
        back: u64,
    },
    /// A plan made now and proposed only some steps later.
    PlanForLater {
        service: usize,
        lease: u8,
    },
    ProposeOld,
    Wait {
        ms: u16,
    },
}

pub(crate) fn act() -> impl Strategy<Value = Act> {
    let service = 0..SERVICES.len();
    let instance = 0..INSTANCES.len();
    // How a lease stands, and whether what is named is what is there: see `facts` and `wrongly`.
    let lease = prop_oneof![1 => Just(0), 1 => Just(1), 4 => Just(2), 1 => Just(3), 1 => Just(4)];
    let off = prop_oneof![4 => Just(0), 1 => 1..3u8];
    prop_oneof![
        3 => (service.clone(), 0..13u8).prop_map(|(service, variant)| Act::PutService { service, variant }),
        1 => service.clone().prop_map(|service| Act::DeleteService { service }),
        4 => (service.clone(), instance.clone(), 0..3u8, 1..5u8)
            .prop_map(|(service, instance, priority, port)| Act::PutInstance { service, instance, priority, port }),
        1 => (service.clone(), instance.clone()).prop_map(|(service, instance)| Act::DeleteInstance { service, instance }),
        12 => (1..4u64, service.clone(), instance.clone(), 0..4u8, prop::bool::weighted(0.1))
            .prop_map(|(node, service, instance, verdict, stale)| Act::Verdict { node, service, instance, verdict, stale }),
        10 => (1..4u64, service.clone(), prop::bool::weighted(0.85))
            .prop_map(|(node, service, up)| Act::All { node, service, up }),
        3 => (service.clone(), instance.clone(), any::<bool>(), 0..4u8, prop::bool::weighted(0.1)).prop_map(
            |(service, instance, calls, verdict, stale)| Act::Judge { service, instance, calls, verdict, stale }
        ),
        6 => (service.clone(), instance.clone(), 0..4u8, prop_oneof![9 => Just(0), 1 => 0..3u64])
            .prop_map(|(service, instance, what, ago)| Act::Breaker { service, instance, what, ago }),
        2 => (service.clone(), instance.clone(), 0..4usize, prop::option::of(0..5_000u16))
            .prop_map(|(service, instance, state, ms)| Act::Admin { service, instance, state, ms }),
        1 => (service.clone(), instance.clone()).prop_map(|(service, instance)| Act::Reset { service, instance }),
        4 => (service.clone(), prop::bool::weighted(0.2)).prop_map(|(service, blind)| Act::Due { service, blind }),
        1 => (1..4u64).prop_map(|node| Act::Announce { node }),
        1 => (1..4u64).prop_map(|node| Act::Lost { node }),
        1 => (1..4u64).prop_map(|node| Act::Back { node }),
        10 => (service.clone(), any::<u64>(), lease.clone())
            .prop_map(|(service, seed, lease)| Act::Plan { service, seed, lease }),
        2 => (service.clone(), prop::option::of(instance.clone()), any::<bool>(), any::<bool>())
            .prop_map(|(service, to, switchover, asserts)| Act::Manual { service, to, switchover, asserts }),
        1 => (service.clone(), instance.clone(), 0..60u64, 0..60u64, any::<bool>())
            .prop_map(|(service, to, token, cause, actor)| Act::BlindStart { service, to, token, cause, actor }),
        4 => (service.clone(), instance.clone(), prop_oneof![3 => Just(0), 1 => 1..10u64], 0..7u8, lease.clone()).prop_map(
            |(service, to, off, proof, lease)| Act::BlindPromote { service, to, off, proof, lease }
        ),
        1 => Just(Act::Elect),
        4 => (service.clone(), instance.clone(), off.clone(), off.clone(), any::<bool>(), prop::bool::weighted(0.2)).prop_map(
            |(service, instance, whose, off, leaving, disconnected)| {
                Act::Release { service, instance, whose, off, leaving, disconnected }
            }
        ),
        2 => (service.clone(), instance.clone(), off.clone())
            .prop_map(|(service, instance, off)| Act::Ack { service, instance, off }),
        1 => (service.clone(), off.clone()).prop_map(|(service, off)| Act::Expire { service, off }),
        1 => (service.clone(), instance).prop_map(|(service, instance)| Act::Returned { service, instance }),
        1 => (service.clone(), off).prop_map(|(service, off)| Act::HookStart { service, off }),
        1 => (service.clone(), any::<bool>()).prop_map(|(service, ok)| Act::HookEnd { service, ok }),
        1 => (prop::option::of(service.clone()), 0..5_000u16).prop_map(|(service, ms)| Act::Pause { service, ms }),
        1 => prop::option::of(service.clone()).prop_map(|service| Act::Resume { service }),
        1 => prop::option::of(service.clone()).prop_map(|service| Act::PauseOver { service }),
        1 => (service.clone(), lease.clone()).prop_map(|(service, lease)| Act::Forget { service, lease }),
        1 => service.clone().prop_map(|service| Act::Abort { service }),
        1 => (0..20u64).prop_map(|back| Act::Compact { back }),
        2 => (service, lease).prop_map(|(service, lease)| Act::PlanForLater { service, lease }),
        2 => Just(Act::ProposeOld),
        2 => (0..3_000u16).prop_map(|ms| Act::Wait { ms }),
    ]
}

pub(crate) fn spec(variant: u8) -> Spec {
    let mut spec = Spec { checks: vec![Check::of(CheckKind::Tcp)], ..Spec::default() };
    // Short, so that their ends come within a run.
    (spec.breaker.open_for, spec.breaker.open_for_max) = (Millis(1_000), Millis(4_000));
    (spec.breaker.half_open_max_calls, spec.breaker.half_open_timeout) = (TRIALS_MAX as u32, Millis(2_000));
    spec.breaker.success_threshold = 2;
    (spec.failover.min_interval, spec.failover.max_in_window) = (Millis::ZERO, 1_000);
    match variant {
        1 => spec.failover.strategy = FailoverStrategy::Random,
        2 => spec.failover.automatic = false,
        3 => spec.mode = Mode::ActiveActive,
        4 => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Lease]),
        5 => spec.checks[0].interval = Millis(2_000),
        6 => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Token]),
        7 => (spec.failover.require_ack, spec.failover.activation_timeout) = (true, Millis(1_000)),
        8 => spec.lease.release_on_disconnect = true,
        9 => spec.on_quorum_loss = OnQuorumLoss::Freeze,
        10 => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Release]),
        11 => {
            spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Hook, ProofKind::Lease]);
            let agent = Some("off".to_owned());
            spec.fencing.hook = Some(FencingHook { url: None, agent, timeout: Millis(500), attempts: 2 });
            spec.failover.require_ack = true;
        }
        12 => (spec.failover.min_interval, spec.failover.max_in_window) = (Millis(2_000), 2),
        _ => {}
    }
    spec
}

/// Whoever held a service last, or the service that was deleted under its name.
pub(crate) fn holder(state: &State, name: &ServiceName) -> Option<Holder> {
    let held = state.service(name).and_then(|service| service.assignment.last_holder.clone());
    // Beside one that served without a token, somebody may be owed a lease.
    held.filter(|held| held.token.is_some()).or_else(|| state.debts.get(name).map(|debt| debt.holder.clone()))
}

/// A claim about the last holder: the right one, or one of another term or token.
pub(crate) fn claim(state: &State, name: &ServiceName, term: u64, lease: u8) -> Option<LeaseClaim> {
    let token = holder(state, name)?.token?;
    let right = LeaseClaim { token, term, renewed_ago: None, led_for: Millis(20_000) };
    match lease {
        2 => Some(right),
        3 => Some(LeaseClaim { term: term + 1, ..right }),
        4 => Some(LeaseClaim { token: Token(token.0.saturating_sub(1)), ..right }),
        _ => None,
    }
}

/// What a leader may know of the last holder's lease, or take itself to know.
pub(crate) fn facts(state: &State, name: &ServiceName, term: u64, lease: u8) -> Facts {
    let standing = match claim(state, name, term, lease) {
        Some(claim) => LeaseStanding::RanOut { claim },
        None if lease == 1 => LeaseStanding::Runs { left: Millis(5_000), renewed_ago: None },
        None => LeaseStanding::Unknown,
    };
    Facts { node: 1, term, lease: standing, lags: BTreeMap::new() }
}

/// Turns an act into a command, given what can be seen now by a leader of this term.
pub(crate) fn command(
    act: &Act,
    state: &State,
    now: ClusterTime,
    term: u64,
    old: &mut Vec<Command>,
) -> Option<Command> {
    let name = |index: usize| service(SERVICES[index]);
    let open = |index: usize| Some(state.open_transition(state.service(&name(index))?)?.clone());
    match act {
        Act::PutService { service, variant } => Some(put_service(SERVICES[*service], spec(*variant))),
        Act::DeleteService { service } => Some(Command::ServiceDelete(ServiceDelete {
            service: name(*service),
            if_generation: None,
            actor: "test".to_owned(),
        })),
        Act::PutInstance { service, instance, priority, port } => {
            let mut registration = Registration::at(format!("127.0.0.1:{port}").parse().ok());
            registration.priority = u32::from(*priority);
            if *port >= 3 {
                registration.liveness = Liveness::Heartbeat;
            }
            registration.deregister_after = (*port % 2 == 0).then_some(Millis(2_000));
            let mut put = put_instance(SERVICES[*service], INSTANCES[*instance], registration);
            if let Command::InstancePut(put) = &mut put {
                // One incarnation, one session.
                put.session = format!("s{}", state.meta.revision);
            }
            Some(put)
        }
        Act::DeleteInstance { service, instance } => Some(delete_instance(SERVICES[*service], INSTANCES[*instance])),
        Act::Verdict { node, service, instance: at, verdict, stale } => {
            let verdict = [Verdict::Unknown, Verdict::Up, Verdict::Suspect, Verdict::Down][usize::from(*verdict)];
            let epoch = state.instance(&name(*service), &instance(INSTANCES[*at])).map_or(0, |known| known.epoch);
            let epoch = if *stale { epoch.saturating_sub(1) } else { epoch };
            Some(verdicts(*node, SERVICES[*service], INSTANCES[*at], epoch, verdict))
        }
        Act::All { node, service, up } => {
            let verdict = if *up { Verdict::Up } else { Verdict::Down };
            let known = state.service(&name(*service))?;
            let mut all: Option<VerdictsRecord> = None;
            for it in known.instances.values() {
                let said = verdicts(*node, SERVICES[*service], it.id.as_str(), it.epoch, verdict);
                if let Command::VerdictsRecord(said) = said {
                    match &mut all {
                        Some(all) => all.verdicts.extend(said.verdicts),
                        None => all = Some(said),
                    }
                }
            }
            all.map(Command::VerdictsRecord)
        }
        Act::Judge { service, instance: at, calls, verdict, stale } => {
            let verdict = [Verdict::Unknown, Verdict::Up, Verdict::Suspect, Verdict::Down][usize::from(*verdict)];
            let epoch = state.instance(&name(*service), &instance(INSTANCES[*at])).map_or(0, |known| known.epoch);
            let source = if *calls { Source::Calls } else { Source::Heartbeats };
            Some(judgement(SERVICES[*service], INSTANCES[*at], epoch - u64::from(*stale && epoch > 0), source, verdict))
        }
        Act::Breaker { service, instance: at, what, ago } => {
            let seen = state.instance(&name(*service), &instance(INSTANCES[*at])).map_or(1, |it| it.breaker.generation);
            let (service, at, seen) = (SERVICES[*service], INSTANCES[*at], seen.saturating_sub(*ago));
            Some(match what {
                0 => trip(service, at, seen, 5),
                1 => tried(service, at, seen, 1, 0),
                2 => tried(service, at, seen, 1, 1),
                _ => grant(service, at, seen),
            })
        }
        Act::Admin { service, instance: at, state: to, ms } => {
            let (to, lasts) = (AdminState::ALL[*to].1, ms.map(|ms| Millis(u64::from(ms))));
            Some(admin(SERVICES[*service], INSTANCES[*at], to, lasts))
        }
        Act::Reset { service, instance: at } => Some(reset(SERVICES[*service], INSTANCES[*at])),
        Act::Due { service, blind: false } => instances_due(state.service(&name(*service))?, now, LED).command,
        Act::Due { service, blind: true } => Some(Command::InstancesDue(InstancesDue {
            service: name(*service),
            instances: INSTANCES.map(instance).to_vec(),
            missing: INSTANCES.map(instance).to_vec(),
        })),
        Act::Announce { node } => Some(announce(*node)),
        Act::Lost { node } => Some(Command::ObserverLost { node: *node, silent_for: Millis(3_000) }),
        Act::Back { node } => Some(Command::ObserverBack { node: *node }),
        Act::Plan { service, seed, lease } => {
            let facts = facts(state, &name(*service), term, *lease);
            plan_service(state, state.service(&name(*service))?, &facts, now, *seed).command
        }
        Act::Manual { service, to, switchover, asserts } => {
            let request = ManualRequest {
                wanted: if *switchover { ManualMove::Switchover } else { ManualMove::Failover },
                to: to.map(|to| instance(INSTANCES[to])),
                reason: "because".to_owned(),
                actor: "alice".to_owned(),
                asserts_stopped: *asserts,
            };
            plan_manual(state, &name(*service), &request, &facts(state, &name(*service), term, 2), now, 3).ok()?.command
        }
        Act::BlindStart { service, to, token, cause, actor } => {
            let epoch = state.instance(&name(*service), &instance(INSTANCES[*to])).map_or(0, |known| known.epoch);
            Some(Command::TransitionStart(TransitionStart {
                service: name(*service),
                kind: TransitionKind::Failover,
                seen_token: (*token > 0).then_some(Token(*token)),
                seen_holder: None,
                to: Some(Target { instance: instance(INSTANCES[*to]), epoch, lag: None }),
                asserted: None,
                lease: None,
                trigger: Trigger { reason: "blind".to_owned(), cause: Some(*cause) },
                actor: actor.then(|| "mallory".to_owned()),
            }))
        }
        Act::BlindPromote { service, to, off, proof, lease } => {
            // The open transition, or any that ever was, and any proof.
            let known = state.service(&name(*service))?;
            let known_ids: Vec<TransitionId> = state.transitions.keys().copied().collect();
            let any = known_ids.get(*off as usize % known_ids.len().max(1)).copied();
            let transition = if *off == 0 { known.assignment.transition } else { any }?;
            Some(Command::Promote(Promote {
                service: name(*service),
                transition,
                to: Target {
                    instance: instance(INSTANCES[*to]),
                    epoch: known.instances.get(&instance(INSTANCES[*to]))?.epoch,
                    lag: None,
                },
                proof: [
                    ProofKind::Lease,
                    ProofKind::Release,
                    ProofKind::Token,
                    ProofKind::Hook,
                    ProofKind::NoneNeeded,
                    ProofKind::Operator,
                    ProofKind::Lease,
                ][usize::from(*proof)],
                seen_token: known.assignment.last_holder.as_ref().and_then(|holder| holder.token),
                lease: claim(state, &name(*service), term, *lease),
            }))
        }
        Act::Release { service, instance: at, whose, off, leaving, disconnected } => {
            let held = holder(state, &name(*service));
            let current = state.instance(&name(*service), &instance(INSTANCES[*at])).and_then(|it| it.session.clone());
            let (id, session) = match (whose, &held) {
                (0, Some(held)) => (held.instance.clone(), held.session.clone()),
                (1, _) => (instance(INSTANCES[*at]), current),
                _ => (instance(INSTANCES[*at]), held.as_ref().and_then(|held| held.session.clone())),
            };
            Some(Command::Release(Release {
                service: name(*service),
                instance: id,
                session,
                token: Token(held?.token?.0.saturating_sub(u64::from(*off))),
                leaving: *leaving,
                how: if *disconnected { ReleaseHow::Disconnected } else { ReleaseHow::Said },
                reason: "done".to_owned(),
            }))
        }
        Act::Ack { service, instance: at, off } => {
            let active = state.service(&name(*service))?.assignment.active.clone()?;
            let id = if *off == 0 { active.instance } else { instance(INSTANCES[*at]) };
            let session = state.instance(&name(*service), &id)?.session.clone();
            let token = Token(active.token.0.saturating_sub(u64::from(*off) / 2));
            Some(Command::Ack(Ack { service: name(*service), instance: id, session, token }))
        }
        Act::Expire { service, off } => Some(Command::ActivationExpire(ActivationExpire {
            service: name(*service),
            transition: open(*service)?.id,
            token: Token(state.service(&name(*service))?.active_token()?.0.saturating_sub(u64::from(*off))),
        })),
        Act::Returned { service, instance: at } => Some(Command::InstanceReturned(InstanceReturned {
            service: name(*service),
            instance: instance(INSTANCES[*at]),
            session: state.instance(&name(*service), &instance(INSTANCES[*at]))?.session.clone()?,
        })),
        Act::HookStart { service, off } => Some(Command::HookStart(HookStart {
            service: name(*service),
            transition: open(*service)?.id,
            attempt: open(*service)?.hook.len() as u32 + 1,
            node: 1,
            term: term + u64::from(*off),
        })),
        Act::HookEnd { service, ok } => {
            // Of any move, the newest run that has no outcome.
            let runs = |it: &&std::sync::Arc<Transition>| it.hook.iter().any(|run| run.outcome.is_none());
            let of = state.transitions.values().rev().filter(|it| it.service == name(*service)).find(runs)?;
            Some(Command::HookEnd(HookEnd {
                service: name(*service),
                transition: of.id,
                attempt: of.hook.iter().find(|run| run.outcome.is_none())?.number,
                outcome: HookOutcome { ok: *ok, code: Some(0), status: None, detail: "ended".to_owned(), took_ms: 1 },
            }))
        }
        Act::Pause { service, ms } => Some(Command::AutomationPause(AutomationPause {
            service: service.map(name),
            reason: "because".to_owned(),
            owner: "ops".to_owned(),
            lasts: Millis(u64::from(*ms)),
            until: None,
            actor: "bob".to_owned(),
        })),
        Act::Resume { service } => Some(Command::AutomationResume(AutomationResume {
            service: service.map(name),
            reason: "done".to_owned(),
            actor: "bob".to_owned(),
        })),
        Act::PauseOver { service } => Some(Command::AutomationDue { service: service.map(name) }),
        Act::Forget { service, lease } => {
            Some(Command::DebtForget { service: name(*service), claim: claim(state, &name(*service), term, *lease)? })
        }
        Act::Abort { service } => Some(Command::TransitionAbort(TransitionAbort {
            service: name(*service),
            transition: state.service(&name(*service))?.assignment.transition?,
            reason: "enough".to_owned(),
        })),
        Act::Compact { back } => Some(Command::EventsCompact { through: state.meta.revision.saturating_sub(*back) }),
        Act::PlanForLater { service, lease } => {
            let facts = facts(state, &name(*service), term, *lease);
            old.extend(plan_service(state, state.service(&name(*service))?, &facts, now, 1).command);
            None
        }
        Act::ProposeOld => old.pop(),
        Act::Elect | Act::Wait { .. } => None,
    }
}
