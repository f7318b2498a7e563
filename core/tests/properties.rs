//! The promises that hold in every run: random commands, stale ones among them, and the planner's own, in any order.
//! A failure prints the shortest list of steps that breaks the promise.

mod support;

mod properties {
    pub(crate) mod acts;
    pub(crate) mod tenures;
}

use std::collections::BTreeMap;

use baton_core::apply::{Position, apply_batch};
use baton_core::breaker::BreakerState;
use baton_core::command::{Batch, Command};
use baton_core::event::EventKind;
use baton_core::planner::instances_due;
use baton_core::policy::{Liveness, Mode, ProofKind, ProofPolicy};
use baton_core::probe::{Health, Verdict};
use baton_core::state::{AdminState, Instance, Phase, State};
use baton_core::time::{ClusterTime, Millis, WallTime};
use baton_core::transition::{Fencing, TransitionStatus};
use properties::acts::{Act, LED, TRIALS_MAX, act, command};
use properties::tenures::{self, Entry};
use proptest::prelude::*;
use support::announce;

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
            let promoted_now =
                record.token.is_some() && before.transitions.get(id).is_none_or(|old| old.token != record.token);
            if !promoted_now {
                continue;
            }
            let proof = record.proof.as_ref().expect("a promotion has a proof");
            let to = record.to.as_ref().expect("a promotion has a target");
            let candidate = before.instance(&record.service, to).expect("the promoted one was registered");
            // An operator may take one that is well again and only held back.
            let held_back = candidate.recovery.as_ref().is_some_and(|recovery| recovery.good_since.is_some());
            if record.actor.is_none() || !held_back {
                let well =
                    |state: &State| state.instance(&record.service, to).is_some_and(|it| it.health == Health::Healthy);
                prop_assert!(well(before) || well(after), "the promoted one was healthy: {:?}", candidate.health);
            }
            if record.actor.is_none() {
                let cause = record.trigger.cause.expect("an automatic promotion has a cause");
                prop_assert!(cause <= before.meta.revision, "which was committed before");
                let service = before.service(&record.service).expect("the service was there");
                // What the policy accepts, told here once more and without asking the rules. An operator may step in.
                // Where the policy itself changed in this entry, it is not known here which of the two was asked.
                let same_policy =
                    after.service(&record.service).is_some_and(|now| now.generation == service.generation);
                match (&service.spec.fencing.proof, proof.proof) {
                    (_, ProofKind::Operator | ProofKind::NoneNeeded) => {}
                    _ if !same_policy => {}
                    (ProofPolicy::Auto(_), ProofKind::Token) => {
                        let holder = service.assignment.last_holder.as_ref().expect("somebody was replaced");
                        prop_assert_eq!(holder.liveness, Liveness::Probe, "auto wants a lease of who heartbeats");
                        prop_assert_eq!(proof.fencing, Fencing::Advisory);
                    }
                    (ProofPolicy::Auto(_), ProofKind::Hook) => prop_assert!(false, "auto asks no hook"),
                    (ProofPolicy::Auto(_), ProofKind::Lease | ProofKind::Release) => {}
                    (ProofPolicy::List(accepted), kind) => {
                        prop_assert!(accepted.contains(&kind), "{kind} is not among {accepted:?}");
                    }
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

/// How a run begins: services that are held, so that what comes then is about something.
fn under_way(variants: [u8; 2], ports: [u8; 3]) -> Vec<Vec<Act>> {
    let mut acts = Vec::new();
    for (service, variant) in variants.into_iter().enumerate() {
        acts.push(vec![Act::PutService { service, variant }]);
        let put = |(instance, port): (usize, u8)| Act::PutInstance { service, instance, priority: 1, port };
        acts.push(ports.into_iter().enumerate().map(put).collect());
        acts.push(vec![Act::All { node: 1, service, up: true }]);
        acts.push(vec![Act::Plan { service, seed: 1, lease: 0 }]);
    }
    acts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn promises_hold_in_every_run(
        variants in [0..13u8, 0..13u8],
        ports in [1..5u8, 1..5u8, 1..5u8],
        acts in prop::collection::vec(prop::collection::vec(act(), 1..4), 1..80),
        snapshot_at in 0..80usize,
    ) {
        let mut state = State::default();
        let mut replica = State::default();
        let mut seen = Seen::default();
        let mut old = Vec::new();
        let mut now = ClusterTime(0);
        let mut term = 1;
        let first = (1..=3).map(announce).collect::<Vec<_>>();
        let acts: Vec<Vec<Act>> = under_way(variants, ports).into_iter().chain(acts).collect();
        let mut entries = vec![first];
        entries.extend(acts.iter().map(|_| Vec::new()));
        for (at, slot) in entries.into_iter().enumerate() {
            let mut commands = slot;
            if let Some(acts) = at.checked_sub(1).map(|at| &acts[at]) {
                for act in acts {
                    if let Act::Wait { ms } = act {
                        now = now.plus(Millis(u64::from(*ms)));
                    }
                    term += u64::from(matches!(act, Act::Elect));
                    commands.extend(command(act, &state, now, term, &mut old));
                }
            }
            let index = at as u64 + 1;
            let batch = Batch { time: now, wall: WallTime(now.0 as i64), commands };
            let before = state.clone();
            let position = Position { term, index };
            let applied = apply_batch(&mut state, position, &batch);
            prop_assert_eq!(applied.replies.len(), batch.commands.len());
            if applied.replies.iter().all(Result::is_err) {
                let mut unchanged = before.clone();
                unchanged.meta.cluster_time = state.meta.cluster_time;
                prop_assert_eq!(&unchanged, &state, "a refused command changes nothing");
                prop_assert!(applied.events.is_empty());
            }
            seen.check(&before, &state, &applied.events)?;
            tenures::check(&Entry { before: &before, after: &state, batch: &batch, term, now })?;
            check_nothing_spins(&state, index + 1, now)?;

            // I9: a second replica is fed the same entries as they travel, and goes through a snapshot on the way.
            let wire = serde_json::to_string(&batch).expect("a batch can be written");
            let batch: Batch = serde_json::from_str(&wire).expect("and read");
            let mirrored = apply_batch(&mut replica, position, &batch);
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
            commands.extend(command(act, &state, now, 1, &mut old));
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
