//! The promises that hold in every run: random commands, stale ones among them, and the planner's own, in any order.
//! A failure prints the shortest list of steps that breaks the promise.

mod support;

use std::collections::BTreeMap;

use baton_core::apply::apply_batch;
use baton_core::breaker::BreakerState;
use baton_core::command::{
    Batch, Command, InstancesDue, Promote, ServiceDelete, Target, TransitionAbort, TransitionStart,
};
use baton_core::event::EventKind;
use baton_core::id::{Token, TransitionId};
use baton_core::planner::{Facts, ManualMove, ManualRequest, instances_due, plan_manual, plan_service};
use baton_core::policy::{
    Check, CheckKind, FailoverStrategy, Liveness, Mode, ProofKind, ProofPolicy, Registration, Spec,
};
use baton_core::probe::{Health, Verdict};
use baton_core::state::{AdminState, Instance, Phase, Source, State};
use baton_core::time::{ClusterTime, Millis, WallTime};
use baton_core::transition::{Fencing, TransitionKind, TransitionStatus, Trigger};
use proptest::prelude::*;
use support::acts::{admin, grant, judgement, reset, tried, trip};
use support::{announce, delete_instance, instance, put_instance, put_service, service, verdicts};

/// The leader of these runs has led for long.
const LED: Millis = Millis::secs(3_600);
const SERVICES: [&str; 2] = ["orders", "bills"];
const INSTANCES: [&str; 3] = ["a", "b", "c"];

/// Trial calls that may be out, in every spec here.
const TRIALS_MAX: usize = 2;

/// One thing that somebody does to the cluster.
#[derive(Clone, Debug)]
enum Act {
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
    },
    Manual {
        service: usize,
        to: Option<usize>,
        switchover: bool,
        asserts: bool,
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
    },
    ProposeOld,
    Wait {
        ms: u16,
    },
}

fn act() -> impl Strategy<Value = Act> {
    let service = 0..SERVICES.len();
    let instance = 0..INSTANCES.len();
    prop_oneof![
        2 => (service.clone(), 0..7u8).prop_map(|(service, variant)| Act::PutService { service, variant }),
        1 => service.clone().prop_map(|service| Act::DeleteService { service }),
        4 => (service.clone(), instance.clone(), 0..3u8, 1..5u8)
            .prop_map(|(service, instance, priority, port)| Act::PutInstance { service, instance, priority, port }),
        1 => (service.clone(), instance.clone()).prop_map(|(service, instance)| Act::DeleteInstance { service, instance }),
        12 => (1..4u64, service.clone(), instance.clone(), 0..4u8, prop::bool::weighted(0.1))
            .prop_map(|(node, service, instance, verdict, stale)| Act::Verdict { node, service, instance, verdict, stale }),
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
        8 => (service.clone(), any::<u64>()).prop_map(|(service, seed)| Act::Plan { service, seed }),
        2 => (service.clone(), prop::option::of(instance.clone()), any::<bool>(), any::<bool>())
            .prop_map(|(service, to, switchover, asserts)| Act::Manual { service, to, switchover, asserts }),
        1 => (service.clone(), instance.clone(), 0..60u64, 0..60u64, any::<bool>())
            .prop_map(|(service, to, token, cause, actor)| Act::BlindStart { service, to, token, cause, actor }),
        2 => (service.clone(), instance, 0..10u64)
            .prop_map(|(service, to, off)| Act::BlindPromote { service, to, off }),
        1 => service.clone().prop_map(|service| Act::Abort { service }),
        1 => (0..20u64).prop_map(|back| Act::Compact { back }),
        2 => service.prop_map(|service| Act::PlanForLater { service }),
        2 => Just(Act::ProposeOld),
        2 => (0..3_000u16).prop_map(|ms| Act::Wait { ms }),
    ]
}

fn spec(variant: u8) -> Spec {
    let mut spec = Spec { checks: vec![Check::of(CheckKind::Tcp)], ..Spec::default() };
    // Short, so that their ends come within a run.
    (spec.breaker.open_for, spec.breaker.open_for_max) = (Millis(1_000), Millis(4_000));
    (spec.breaker.half_open_max_calls, spec.breaker.half_open_timeout) = (TRIALS_MAX as u32, Millis(2_000));
    spec.breaker.success_threshold = 2;
    match variant {
        1 => spec.failover.strategy = FailoverStrategy::Random,
        2 => spec.failover.automatic = false,
        3 => spec.mode = Mode::ActiveActive,
        4 => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Lease]),
        5 => spec.checks[0].interval = Millis(2_000),
        6 => spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Token]),
        _ => {}
    }
    spec
}

/// Turns an act into a command, given what can be seen now.
fn command(act: &Act, state: &State, now: ClusterTime, old: &mut Vec<Command>) -> Option<Command> {
    let name = |index: usize| service(SERVICES[index]);
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
            Some(put_instance(SERVICES[*service], INSTANCES[*instance], registration))
        }
        Act::DeleteInstance { service, instance } => Some(delete_instance(SERVICES[*service], INSTANCES[*instance])),
        Act::Verdict { node, service, instance: at, verdict, stale } => {
            let verdict = [Verdict::Unknown, Verdict::Up, Verdict::Suspect, Verdict::Down][usize::from(*verdict)];
            let epoch = state.instance(&name(*service), &instance(INSTANCES[*at])).map_or(0, |known| known.epoch);
            let epoch = if *stale { epoch.saturating_sub(1) } else { epoch };
            Some(verdicts(*node, SERVICES[*service], INSTANCES[*at], epoch, verdict))
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
        Act::Plan { service, seed } => {
            plan_service(state, state.service(&name(*service))?, &Facts::default(), now, *seed).command
        }
        Act::Manual { service, to, switchover, asserts } => {
            let request = ManualRequest {
                wanted: if *switchover { ManualMove::Switchover } else { ManualMove::Failover },
                to: to.map(|to| instance(INSTANCES[to])),
                reason: "because".to_owned(),
                actor: "alice".to_owned(),
                asserts_stopped: *asserts,
            };
            plan_manual(state, &name(*service), &request, &Facts::default(), now, 3).ok()?.command
        }
        Act::BlindStart { service, to, token, cause, actor } => {
            let epoch = state.instance(&name(*service), &instance(INSTANCES[*to])).map_or(0, |known| known.epoch);
            Some(Command::TransitionStart(TransitionStart {
                service: name(*service),
                kind: TransitionKind::Failover,
                seen_token: (*token > 0).then_some(Token(*token)),
                to: Some(Target { instance: instance(INSTANCES[*to]), epoch, lag: None }),
                asserted: None,
                lease: None,
                trigger: Trigger { reason: "blind".to_owned(), cause: Some(*cause) },
                actor: actor.then(|| "mallory".to_owned()),
            }))
        }
        Act::BlindPromote { service, to, off } => {
            // Right in everything but the transition, which may be any that ever was.
            let known = state.service(&name(*service))?;
            let known_ids: Vec<TransitionId> = state.transitions.keys().copied().collect();
            let transition = *known_ids.get(*off as usize % known_ids.len().max(1))?;
            Some(Command::Promote(Promote {
                service: name(*service),
                transition,
                to: Target {
                    instance: instance(INSTANCES[*to]),
                    epoch: known.instances.get(&instance(INSTANCES[*to]))?.epoch,
                    lag: None,
                },
                proof: ProofKind::Token,
                seen_token: known.assignment.last_holder.as_ref().and_then(|holder| holder.token),
                lease: None,
            }))
        }
        Act::Abort { service } => Some(Command::TransitionAbort(TransitionAbort {
            service: name(*service),
            transition: state.service(&name(*service))?.assignment.transition?,
            reason: "enough".to_owned(),
        })),
        Act::Compact { back } => Some(Command::EventsCompact { through: state.meta.revision.saturating_sub(*back) }),
        Act::PlanForLater { service } => {
            old.extend(plan_service(state, state.service(&name(*service))?, &Facts::default(), now, 1).command);
            None
        }
        Act::ProposeOld => old.pop(),
        Act::Wait { .. } => None,
    }
}

/// What an outsider has seen, against which each new event is held.
#[derive(Default)]
struct Seen {
    revision: u64,
    last_token: u64,
    active: BTreeMap<String, Option<String>>,
}

impl Seen {
    fn check(
        &mut self,
        before: &State,
        after: &State,
        events: &[baton_core::apply::Recorded],
    ) -> Result<(), TestCaseError> {
        for recorded in events {
            let event = &recorded.event;
            self.revision += 1;
            prop_assert_eq!(event.revision, self.revision, "revisions have no gap");
            if let Some(cause) = event.cause {
                prop_assert!(cause < event.revision, "a cause comes first");
            }
            if event.kind == EventKind::ActiveChanged {
                let name = event.service.as_ref().expect("of a service").to_string();
                let from = event.from.clone().expect("always there");
                let to = event.to.clone().expect("always there");
                // I2 as a stream reader sees it: what an event leaves is what the one before it made.
                prop_assert_eq!(&from, self.active.get(&name).unwrap_or(&None), "{:?}", event);
                if to.is_some() {
                    let token = event.token.expect("a promotion has a token").0;
                    prop_assert!(token > self.last_token, "I1: {} after {}", token, self.last_token);
                    self.last_token = token;
                }
                self.active.insert(name, to);
            }
        }
        prop_assert_eq!(after.meta.revision, self.revision);
        for known in after.services.values() {
            let assignment = &known.assignment;
            let name = known.name.to_string();
            // I2: at most one active, and the phase says the same as the fields.
            prop_assert_eq!(
                assignment.active.as_ref().map(|active| active.instance.to_string()),
                self.active.get(&name).cloned().flatten()
            );
            prop_assert_eq!(assignment.active.is_some(), matches!(assignment.phase, Phase::Active | Phase::Promoting));
            prop_assert_eq!(
                assignment.transition.is_some(),
                matches!(assignment.phase, Phase::Switching | Phase::FailingOver | Phase::Promoting)
            );
            if let Some(active) = &assignment.active {
                prop_assert!(known.instances.contains_key(&active.instance), "an active is registered");
                prop_assert!(active.token.0 <= self.last_token);
            }
            if let Some(open) = assignment.transition {
                let record = &after.transitions[&open];
                prop_assert_eq!(record.status, TransitionStatus::Running);
            }
            for instance in known.instances.values() {
                let held_back = instance.recovery.as_ref().is_some_and(|recovery| recovery.back_since.is_none());
                let expected = match (instance.admin.state, after.count(known, instance).verdict) {
                    (AdminState::Isolated, _) => Health::Isolated,
                    (AdminState::Maintenance, _) | (_, Verdict::Unknown) => Health::Unknown,
                    (_, Verdict::Down) => Health::Unhealthy,
                    (_, Verdict::Up | Verdict::Suspect) if held_back => Health::Unhealthy,
                    (_, Verdict::Up) => Health::Healthy,
                    (_, Verdict::Suspect) => Health::Suspect,
                };
                prop_assert_eq!(instance.health, expected, "health is what the verdicts and the operator say");
            }
        }
        check_instances(before, after, events)?;
        self.check_promotions(before, after)
    }

    /// I10: every automatic promotion has a committed cause, an accepted proof, an eligible candidate and one record.
    fn check_promotions(&self, before: &State, after: &State) -> Result<(), TestCaseError> {
        let mut tokens = std::collections::BTreeSet::new();
        for (id, record) in &after.transitions {
            if let Some(token) = record.token {
                prop_assert!(tokens.insert(token), "one record a promotion");
            }
            if record.status == TransitionStatus::Running {
                let open = after.service(&record.service).and_then(|known| known.assignment.transition);
                prop_assert_eq!(open, Some(*id), "a running record is the open one of its service");
            }
            let finished_now = record.status == TransitionStatus::Finished
                && before.transitions.get(id).is_none_or(|old| old.status != TransitionStatus::Finished);
            if !finished_now {
                continue;
            }
            let proof = record.proof.as_ref().expect("a promotion has a proof");
            let to = record.to.as_ref().expect("a promotion has a target");
            let candidate = before.instance(&record.service, to).expect("the promoted one was registered");
            // An operator may take one that is well again and only held back.
            let held_back = candidate.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some());
            if record.actor.is_none() || !held_back {
                prop_assert_eq!(candidate.health, Health::Healthy, "the promoted one was healthy");
            }
            if record.actor.is_none() {
                let cause = record.trigger.cause.expect("an automatic promotion has a cause");
                prop_assert!(cause <= before.meta.revision, "which was committed before");
                let service = before.service(&record.service).expect("the service was there");
                // What the policy accepts, told here once more and without asking the rules. An operator may step in.
                // Where the policy itself changed in this entry, it is not known here which of the two was asked.
                let same_policy =
                    after.service(&record.service).is_some_and(|now| now.generation == service.generation);
                match (&service.assignment.last_holder, proof.proof) {
                    (_, ProofKind::Operator) => {}
                    _ if !same_policy => {}
                    (None, kind) => prop_assert_eq!(kind, ProofKind::NoneNeeded, "nobody was there to be stopped"),
                    (Some(holder), ProofKind::Token) => match &service.spec.fencing.proof {
                        ProofPolicy::Auto(_) => {
                            prop_assert_eq!(holder.liveness, Liveness::Probe, "auto wants a lease of who heartbeats");
                            prop_assert_eq!(proof.fencing, Fencing::Advisory);
                        }
                        ProofPolicy::List(accepted) => {
                            prop_assert!(accepted.contains(&ProofKind::Token), "{accepted:?}");
                            prop_assert_eq!(proof.fencing, Fencing::Enforced);
                        }
                    },
                    (Some(holder), other) => prop_assert!(false, "{other} is no proof about {holder:?}"),
                }
            }
            if proof.proof == ProofKind::Operator {
                prop_assert!(proof.evidence.contains("alice"), "the operator is named: {}", proof.evidence);
            }
        }
        Ok(())
    }
}

/// What holds of breakers, of an operator's word, and of what time takes away.
fn check_instances(before: &State, after: &State, events: &[baton_core::apply::Recorded]) -> Result<(), TestCaseError> {
    let mut breakers: BTreeMap<(String, String), String> = BTreeMap::new();
    for service in before.services.values() {
        for it in service.instances.values() {
            breakers.insert((service.name.to_string(), it.id.to_string()), it.breaker.state.to_string());
        }
    }
    let mut registered = std::collections::BTreeSet::new();
    for event in events.iter().map(|recorded| &recorded.event) {
        let (Some(service), Some(id)) = (&event.service, &event.instance) else { continue };
        let key = (service.to_string(), id.to_string());
        if event.kind == EventKind::InstanceRegistered {
            breakers.insert(key.clone(), BreakerState::Closed.to_string());
            registered.insert(key);
        } else if event.kind == EventKind::InstanceBreakerChanged {
            prop_assert_ne!(&event.from, &event.to, "a change is one");
            prop_assert_eq!(&event.from, &Some(breakers.get(&key).cloned()), "what it leaves is what it was");
            breakers.insert(key, event.to.clone().flatten().expect("always there"));
        } else if event.kind == EventKind::InstanceDeregistered && event.actor.is_none() {
            // What time removes was not the one that a proof is owed about.
            let (then, now) = (before.service(service), after.service(service));
            let same = then.zip(now).filter(|(then, now)| then.generation == now.generation);
            if let Some((_, now)) = same.filter(|(_, now)| now.spec.mode == Mode::ActivePassive) {
                let holder = now.assignment.last_holder.as_ref().map(|holder| &holder.instance);
                prop_assert!(now.instances.contains_key(id) || holder != Some(id), "{} held it", id);
            }
        }
    }
    for service in after.services.values() {
        for it in service.instances.values() {
            let key = (service.name.to_string(), it.id.to_string());
            let Instance { breaker, .. } = it.as_ref();
            prop_assert_eq!(breakers.get(&key), Some(&breaker.state.to_string()), "each change of a breaker is told");
            prop_assert!(breaker.trials.len() <= TRIALS_MAX, "{} trial calls are out", breaker.trials.len());
            prop_assert!(breaker.trials.is_empty() || breaker.state == BreakerState::HalfOpen);
            if let Some(old) = before.instance(&service.name, &it.id).filter(|_| !registered.contains(&key)) {
                let old = &old.breaker;
                prop_assert!(breaker.generation >= old.generation, "generations only rise");
                if breaker.generation == old.generation {
                    prop_assert_eq!((breaker.state, breaker.since), (old.state, old.since), "a change is a generation");
                }
            }
            if it.admin.state == AdminState::Maintenance {
                prop_assert!(it.verdicts.is_empty() && it.judged.is_empty(), "nobody looks at what is maintained");
            }
            prop_assert!(it.admin.state != AdminState::Enabled || it.admin.ends.is_none(), "enabled does not end");
        }
    }
    Ok(())
}

/// What is due is done by being proposed: a leader that looks again at the same time finds something else, or nothing.
fn check_nothing_spins(state: &State, index: u64, now: ClusterTime) -> Result<(), TestCaseError> {
    let mut after = state.clone();
    for service in state.services.values() {
        let Some(command) = instances_due(service, now, LED).command else { continue };
        let batch = Batch { time: now, wall: WallTime(now.0 as i64), commands: vec![command.clone()] };
        let replies = apply_batch(&mut after, index, &batch).replies;
        prop_assert!(replies[0].is_ok(), "{:?}", replies);
        let again = after.service(&service.name).map(|service| instances_due(service, now, LED).command);
        prop_assert_eq!(again, Some(None), "done, and still due: {:?}", command);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_in_every_run(
        acts in prop::collection::vec(prop::collection::vec(act(), 1..4), 1..80),
        snapshot_at in 0..80usize,
    ) {
        let mut state = State::default();
        let mut replica = State::default();
        let mut seen = Seen::default();
        let mut old = Vec::new();
        let mut now = ClusterTime(0);
        let first = (1..=3).map(announce).collect::<Vec<_>>();
        let mut entries = vec![first];
        entries.extend(acts.iter().map(|_| Vec::new()));
        for (at, slot) in entries.into_iter().enumerate() {
            let mut commands = slot;
            if let Some(acts) = at.checked_sub(1).map(|at| &acts[at]) {
                for act in acts {
                    if let Act::Wait { ms } = act {
                        now = now.plus(Millis(u64::from(*ms)));
                    }
                    commands.extend(command(act, &state, now, &mut old));
                }
            }
            let index = at as u64 + 1;
            let batch = Batch { time: now, wall: WallTime(now.0 as i64), commands };
            let before = state.clone();
            let applied = apply_batch(&mut state, index, &batch);
            prop_assert_eq!(applied.replies.len(), batch.commands.len());
            if applied.replies.iter().all(Result::is_err) {
                let mut unchanged = before.clone();
                unchanged.meta.cluster_time = state.meta.cluster_time;
                prop_assert_eq!(&unchanged, &state, "a refused command changes nothing");
                prop_assert!(applied.events.is_empty());
            }
            seen.check(&before, &state, &applied.events)?;
            check_nothing_spins(&state, index + 1, now)?;

            // I9: a second replica is fed the same entries as they travel, and goes through a snapshot on the way.
            let wire = serde_json::to_string(&batch).expect("a batch can be written");
            let batch: Batch = serde_json::from_str(&wire).expect("and read");
            let mirrored = apply_batch(&mut replica, index, &batch);
            prop_assert_eq!(&mirrored, &applied);
            if at == snapshot_at {
                let rows: Vec<_> = replica.rows().collect::<Result<_, _>>().expect("rows can be written");
                replica = State::from_rows(rows).expect("and read back");
            }
            prop_assert_eq!(replica.hash().expect("hashes"), state.hash().expect("hashes"));
            // The hash sees rows; what a row forgets to carry is seen here.
            prop_assert_eq!(&replica, &state);
        }
    }

    #[test]
    fn the_changed_rows_are_all_that_changed(acts in prop::collection::vec(act(), 1..60)) {
        // What the store writes row by row must be what a start would read back.
        let mut state = State::default();
        let mut table: BTreeMap<(baton_core::state::RowKind, String), String> = BTreeMap::new();
        let mut old = Vec::new();
        for (at, act) in acts.iter().enumerate() {
            let now = ClusterTime(at as u64 * 500);
            let mut commands: Vec<Command> = if at == 0 { (1..=3).map(announce).collect() } else { Vec::new() };
            commands.extend(command(act, &state, now, &mut old));
            let batch = Batch { time: now, wall: WallTime(0), commands };
            let applied = apply_batch(&mut state, at as u64 + 1, &batch);
            for change in &applied.changes {
                let key = (change.kind(), change.key());
                match state.row(change).expect("rows can be written") {
                    Some(row) => table.insert(key, row.body),
                    None => table.remove(&key),
                };
            }
            let whole: BTreeMap<_, _> = state
                .rows()
                .map(|row| row.map(|row| ((row.kind, row.key), row.body)))
                .collect::<Result<_, _>>()
                .expect("rows can be written");
            prop_assert_eq!(&table, &whole);
        }
    }
}
