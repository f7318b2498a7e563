//! Who is active, told as short stories: what the observers say goes in, what the planner proposes is carried out.

mod support;

use baton_core::command::{Command, Refusal, Target, TransitionStart};
use baton_core::event::EventKind;
use baton_core::planner::{Decision, Facts, GateVerdict, ManualMove, ManualRequest, OperatorMay, plan_manual};
use baton_core::policy::{AutoWord, FailoverStrategy, Mode, ProofKind, ProofPolicy, Quorum, RecoveryStrategy};
use baton_core::probe::{Health, Verdict};
use baton_core::state::Phase;
use baton_core::time::Millis;
use baton_core::transition::{Fencing, TransitionKind, TransitionStatus, Trigger};
use support::{World, announce, delete_instance, instance, put_instance, service, verdicts};

fn ask(wanted: ManualMove, to: Option<&str>) -> ManualRequest {
    ManualRequest {
        wanted,
        to: to.map(instance),
        reason: "maintenance of the old host".to_owned(),
        actor: "alice".to_owned(),
        asserts_stopped: false,
    }
}

#[test]
fn the_first_active_waits_until_everyone_is_seen_so_that_priority_counts() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "low", |r| r.priority = 1);
    world.put_instance("orders", "high", |r| r.priority = 9);
    world.everyone_says("orders", "low", Verdict::Up);

    let plan = world.plan("orders");
    assert_eq!((plan.report.decision, plan.command), (Decision::Hold, None));
    let held = plan.report.gates.iter().find(|gate| gate.verdict == GateVerdict::Hold).expect("a gate holds");
    assert_eq!(held.gate, "everyone_seen");
    assert_eq!(plan.wake_at, Some(world.now.plus(Millis(2_000))), "twice the longest interval");

    world.everyone_says("orders", "high", Verdict::Up);
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("high".to_owned()));
}

#[test]
fn one_that_nobody_ever_sees_does_not_block_the_first_active_for_ever() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "seen", |r| r.priority = 1);
    world.put_instance("orders", "unseen", |r| r.priority = 9);
    world.everyone_says("orders", "seen", Verdict::Up);
    world.settle("orders");
    assert_eq!(world.active("orders"), None);

    world.wait(Millis(2_000));
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("seen".to_owned()));
    assert_eq!(world.state.transitions.values().next_back().expect("a record").kind, TransitionKind::Placement);
}

#[test]
fn two_of_three_observers_move_the_active_in_one_step_with_its_evidence() {
    let mut world = World::orders();
    let (_, first_token) = world.active("orders").expect("an active");
    world.verdict(1, "orders", "a", Verdict::Down).expect("taken");
    assert_eq!(world.plan("orders").report.decision, Decision::Nothing, "one observer is no quorum");
    world.wait(Millis(30));
    world.verdict(3, "orders", "a", Verdict::Down).expect("taken");

    let from = world.events.len();
    world.settle("orders");
    let (active, token) = world.active("orders").expect("an active");
    assert_eq!(active, "b");
    assert!(token > first_token);
    assert_eq!(
        world.kinds_since(from).into_iter().collect::<Vec<_>>(),
        [("active.changed", 1), ("transition.finished", 1), ("transition.started", 1), ("transition.step", 1)]
    );
    let changed = world.last_of(EventKind::ActiveChanged);
    assert_eq!((&changed.from, &changed.to), (&Some(Some("a".to_owned())), &Some(Some("b".to_owned()))));
    assert_eq!(changed.token.map(|token| token.0), Some(token));

    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!((record.kind, record.status), (TransitionKind::Failover, TransitionStatus::Finished));
    assert_eq!(record.evidence.iter().filter(|seen| seen.verdict == Verdict::Down).count(), 2);
    let proof = record.proof.as_ref().expect("a proof");
    assert_eq!((proof.proof, proof.fencing), (ProofKind::Token, Fencing::Advisory));
    assert_eq!(record.durations.first_failure_to_suspect_ms, Some(400));
    assert_eq!(record.durations.suspect_to_agreed_ms, Some(30));
    assert_eq!(record.durations.total_ms, Some(430));
    let cause = world.events[record.trigger.cause.expect("a cause") as usize - 1].clone();
    assert_eq!(cause.kind, EventKind::InstanceHealthChanged);
    assert_eq!(cause.to, Some(Some("unhealthy".to_owned())));
}

#[test]
fn with_nobody_to_promote_the_service_loses_its_active_and_takes_the_first_that_recovers() {
    let mut world = World::orders();
    for id in ["b", "c", "a"] {
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.settle("orders");
    assert_eq!(world.active("orders"), None);
    assert_eq!(world.service("orders").assignment.phase, Phase::FailingOver);
    let changed = world.last_of(EventKind::ActiveChanged);
    assert_eq!((&changed.from, &changed.to), (&Some(Some("a".to_owned())), &Some(None)));
    let report = world.plan("orders").report;
    assert_eq!(report.decision, Decision::Hold);
    assert!(report.candidates.iter().all(|candidate| !candidate.eligible));

    let opened = world.state.transitions.len();
    world.everyone_says("orders", "c", Verdict::Up);
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("c".to_owned()));
    assert_eq!(world.state.transitions.len(), opened, "the open transition was completed, no second one opened");
}

#[test]
fn a_lost_observer_leaves_the_denominator_and_its_word_with_it() {
    let mut world = World::orders();
    world.verdict(3, "orders", "a", Verdict::Down).expect("taken");
    assert_eq!(world.service("orders").instances[&instance("a")].health, Health::Suspect);
    world.must(Command::ObserverLost { node: 3, silent_for: Millis(3_000) });
    let a = &world.service("orders").instances[&instance("a")];
    assert_eq!(a.health, Health::Healthy);
    assert!(!a.verdicts.contains_key(&3));
    // A late word from the lost one is refused; once back, it must have looked again.
    assert!(matches!(world.verdict(3, "orders", "a", Verdict::Down), Err(Refusal::MovedOn { .. })));
    world.must(Command::ObserverBack { node: 3 });
    assert_eq!(world.service("orders").instances[&instance("a")].health, Health::Healthy);
    world.verdict(3, "orders", "a", Verdict::Down).expect("taken again");
}

#[test]
fn a_numeric_quorum_is_taken_at_its_word() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.detection.quorum = Quorum::Count(3));
    world.verdict(1, "orders", "a", Verdict::Down).expect("taken");
    world.verdict(2, "orders", "a", Verdict::Down).expect("taken");
    assert_eq!(world.service("orders").instances[&instance("a")].health, Health::Suspect);
    world.verdict(3, "orders", "a", Verdict::Down).expect("taken");
    assert_eq!(world.service("orders").instances[&instance("a")].health, Health::Unhealthy);
}

#[test]
fn a_verdict_on_a_registration_that_was_replaced_is_dropped() {
    let mut world = World::orders();
    let old = world.service("orders").instances[&instance("a")].epoch;
    world.put_instance("orders", "a", |r| r.address = Some("127.0.0.1:81".parse().expect("an address")));
    let from = world.events.len();
    for node in 1..=3 {
        world.must(verdicts(node, "orders", "a", old, Verdict::Down));
    }
    assert!(world.kinds_since(from).is_empty(), "late verdicts leave no trace");
    assert_eq!(world.service("orders").instances[&instance("a")].health, Health::Unknown);
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()), "unknown is not down");
}

#[test]
fn an_automatic_failover_needs_a_cause_that_still_holds() {
    let mut world = World::orders();
    let token = world.service("orders").active_token();
    let b =
        Target { instance: instance("b"), epoch: world.service("orders").instances[&instance("b")].epoch, lag: None };
    let start = |cause, seen_token| {
        Command::TransitionStart(TransitionStart {
            service: service("orders"),
            kind: TransitionKind::Failover,
            seen_token,
            seen_holder: None,
            to: Some(b.clone()),
            asserted: None,
            lease: None,
            trigger: Trigger { reason: "because".to_owned(), cause },
            actor: None,
        })
    };
    let well = world.service("orders").instances[&instance("a")].health_revision;
    assert!(matches!(world.refused(start(Some(well), token)), Refusal::MovedOn { .. }), "the active is well");
    world.everyone_says("orders", "a", Verdict::Down);
    let cause = world.service("orders").instances[&instance("a")].health_revision;
    assert!(matches!(world.refused(start(None, token)), Refusal::MovedOn { .. }), "no cause");
    assert!(matches!(world.refused(start(Some(cause), None)), Refusal::MovedOn { .. }), "another token was seen");
    let mut future = start(Some(world.state.meta.revision + 1), token);
    if let Command::TransitionStart(future) = &mut future {
        future.actor = Some("alice".to_owned());
    }
    assert!(matches!(world.refused(future), Refusal::MovedOn { .. }), "nothing is caused by what comes later");
    world.must(start(Some(cause), token));
    // The same proposal again, as after a retried answer: the token that it saw is gone.
    assert!(matches!(world.refused(start(Some(cause), token)), Refusal::MovedOn { .. }));
}

#[test]
fn a_sick_instance_is_never_promoted_whoever_asks() {
    let mut world = World::orders();
    world.everyone_says("orders", "b", Verdict::Down);
    let refusal = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, Some("b")),
        &Facts::default(),
        world.now,
        1,
    );
    assert!(matches!(&refusal, Err(Refusal::NotEligible { why, .. }) if why.contains("unhealthy")), "{refusal:?}");
    // Planned while it was well, applied after it fell ill.
    world.everyone_says("orders", "b", Verdict::Up);
    let plan = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, Some("b")),
        &Facts::default(),
        world.now,
        1,
    );
    world.everyone_says("orders", "b", Verdict::Down);
    let refusal = world.refused(plan.expect("a plan").command.expect("a command"));
    assert!(matches!(refusal, Refusal::NotEligible { .. }));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
}

#[test]
fn a_switchover_is_for_two_that_are_well_and_a_failover_for_any() {
    let mut world = World::orders();
    let plan = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Switchover, Some("c")),
        &Facts::default(),
        world.now,
        1,
    );
    let before = world.state.clone();
    let plan = plan.expect("a plan");
    assert_eq!(world.state, before, "planning changes nothing");
    world.must(plan.command.expect("a command"));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("c".to_owned()));
    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!((record.kind, record.actor.as_deref()), (TransitionKind::Switchover, Some("alice")));

    world.verdict(1, "orders", "c", Verdict::Down).expect("taken");
    let refusal = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Switchover, Some("a")),
        &Facts::default(),
        world.now,
        1,
    );
    assert!(
        matches!(&refusal, Err(Refusal::ActiveNotWell { instance, .. }) if instance.as_str() == "c"),
        "{refusal:?}"
    );
    let plan = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, None),
        &Facts::default(),
        world.now,
        1,
    );
    world.must(plan.expect("a plan").command.expect("a command"));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
    let again = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, Some("a")),
        &Facts::default(),
        world.now,
        1,
    );
    assert!(matches!(again, Err(Refusal::AlreadyActive { .. })));
}

#[test]
fn without_an_accepted_proof_the_service_waits_for_an_operator() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Lease]));
    // An operator's failover without an assertion would only take the active away: it is refused.
    let refusal = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, None),
        &Facts::default(),
        world.now,
        1,
    );
    assert!(matches!(refusal, Err(Refusal::ProofRefused { .. })), "{refusal:?}");

    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    assert_eq!(world.active("orders"), None);
    let report = world.plan("orders").report;
    let proof = report.gates.iter().find(|gate| gate.gate == "proof").expect("the proof gate");
    assert_eq!((proof.verdict, proof.operator), (GateVerdict::Hold, Some(OperatorMay::SayStopped)), "{proof:?}");

    let mut request = ask(ManualMove::Failover, Some("b"));
    request.asserts_stopped = true;
    let plan =
        plan_manual(&world.state, &service("orders"), &request, &Facts::default(), world.now, 1).expect("a plan");
    world.must(plan.command.expect("a command"));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("b".to_owned()));
    let record = world.state.transitions.values().next_back().expect("a record");
    let proof = record.proof.as_ref().expect("a proof");
    assert_eq!(proof.proof, ProofKind::Operator);
    assert!(proof.evidence.contains("alice") && proof.evidence.contains("maintenance"), "{}", proof.evidence);
}

#[test]
fn a_lone_instance_that_is_probed_comes_back_by_a_word_about_its_earlier_process_alone() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Lease]));
    for id in ["a", "b", "c"] {
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.settle("orders");
    world.everyone_says("orders", "a", Verdict::Up);
    let plan = |to: Option<&str>| {
        let mut request = ask(ManualMove::Failover, to);
        request.asserts_stopped = true;
        plan_manual(&world.state, &service("orders"), &request, &Facts::default(), world.now, 1)
    };
    assert_eq!(plan(None).expect_err("it has to be named").code(), "no_candidate");
    let named = plan(Some("a")).expect("it may have been restarted, and nothing else could bring it back");
    world.must(named.command.expect("a command"));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
}

#[test]
fn a_declared_token_is_enforced_and_an_undeclared_one_advisory() {
    for (policy, fencing) in [
        (ProofPolicy::Auto(AutoWord::Auto), Fencing::Advisory),
        (ProofPolicy::List(vec![ProofKind::Token]), Fencing::Enforced),
    ] {
        let mut world = World::orders();
        world.put_service("orders", |spec| spec.fencing.proof = policy);
        world.everyone_says("orders", "a", Verdict::Down);
        world.settle("orders");
        assert_eq!(world.service("orders").assignment.active.as_ref().expect("an active").fencing, fencing);
    }
}

#[test]
fn off_means_off_until_an_operator_asks() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.failover.automatic = false);
    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
    assert_eq!(world.plan("orders").report.decision, Decision::Hold);
    let plan = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, None),
        &Facts::default(),
        world.now,
        1,
    );
    world.must(plan.expect("a plan").command.expect("a command"));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("b".to_owned()));
}

#[test]
fn a_removed_active_is_replaced_and_its_token_is_never_seen_again() {
    let mut world = World::orders();
    let (_, first) = world.active("orders").expect("an active");
    world.must(delete_instance("orders", "a"));
    assert_eq!(world.active("orders"), None);
    world.settle("orders");
    let (active, second) = world.active("orders").expect("an active");
    assert_eq!(active, "b");
    assert!(second > first);
    let proof = world.state.transitions.values().next_back().and_then(|record| record.proof.clone()).expect("a proof");
    assert_eq!(proof.proof, ProofKind::Token, "somebody held it, so none_needed does not hold");
}

#[test]
fn strategies_choose_as_they_say() {
    for (strategy, from_a, from_b) in [(FailoverStrategy::Best, "b", "a"), (FailoverStrategy::Next, "b", "c")] {
        let mut world = World::orders();
        world.put_service("orders", |spec| {
            spec.failover.strategy = strategy;
            // Not what this is about: the second move comes at once.
            spec.failover.min_interval = Millis::ZERO;
        });
        world.everyone_says("orders", "a", Verdict::Down);
        world.settle("orders");
        assert_eq!(world.active("orders").map(|(id, _)| id).as_deref(), Some(from_a));
        world.everyone_says("orders", "a", Verdict::Up);
        world.everyone_says("orders", "b", Verdict::Down);
        world.settle("orders");
        assert_eq!(world.active("orders").map(|(id, _)| id).as_deref(), Some(from_b));
    }
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.failover.strategy = FailoverStrategy::Random);
    let name = service("orders");
    let known = world.state.service(&name).expect("the service");
    let first = |seed| {
        let asker = baton_core::rules::Asker::Baton;
        let seek = baton_core::rules::Seek { service: known, leaving: None, now: world.now, asker };
        baton_core::planner::rank(&seek, &Facts::default(), seed)[0].id.to_string()
    };
    let chosen: std::collections::BTreeSet<String> = (0..50).map(first).collect();
    assert_eq!(chosen.len(), 3, "each is chosen by some seed");
    assert_eq!(first(3), first(3), "the same seed, the same choice");
}

#[test]
fn a_lower_tier_wins_before_a_higher_priority() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "near", |r| (r.tier, r.priority) = (0, 1));
    world.put_instance("orders", "far", |r| (r.tier, r.priority) = (1, 1_000));
    world.everyone_says("orders", "near", Verdict::Up);
    world.everyone_says("orders", "far", Verdict::Up);
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("near".to_owned()));
}

#[test]
fn a_candidate_that_is_healthy_for_too_short_a_time_is_waited_for() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.failover.min_healthy = Millis(5_000));
    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    assert_eq!(world.active("orders"), None);
    let plan = world.plan("orders");
    let wake = plan.wake_at.expect("time alone changes this plan");
    world.now = wake;
    world.settle("orders");
    assert!(world.active("orders").is_some());
}

#[test]
fn one_entry_promotes_at_most_once_because_its_index_is_the_token() {
    let mut world = World::orders();
    world.put_service("bills", |_| {});
    world.put_instance("bills", "x", |_| {});
    world.everyone_says("bills", "x", Verdict::Up);
    world.everyone_says("orders", "a", Verdict::Down);
    let both = vec![world.plan("bills").command.expect("placing"), world.plan("orders").command.expect("failing over")];
    let replies = world.batch(both);
    assert!(replies.iter().all(Result::is_ok));
    assert_eq!(world.active("bills").map(|(_, token)| token), Some(world.index));
    assert_eq!(world.active("orders"), None, "opened, but this entry's token is spent");
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(_, token)| token), Some(world.index));
}

#[test]
fn everyone_serves_where_all_are_active() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.mode = Mode::ActiveActive);
    assert_eq!(world.active("orders"), None);
    world.settle("orders");
    assert_eq!(world.active("orders"), None);
    let refusal = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, None),
        &Facts::default(),
        world.now,
        1,
    );
    assert!(matches!(refusal, Err(Refusal::NotActivePassive { .. })));
}

#[test]
fn whoever_served_beside_others_may_still_work_when_only_one_should() {
    let everyone = |mode: Mode| move |spec: &mut baton_core::policy::Spec| spec.mode = mode;
    let proof = |world: &World| {
        let record = world.state.transitions.values().next_back().expect("a record");
        let proof = record.proof.as_ref().expect("a proof");
        (proof.proof, proof.fencing)
    };
    // Nobody ever held a token of this service; all three were told that they are active.
    let mut world = World::new();
    world.put_service("orders", everyone(Mode::ActiveActive));
    for id in ["a", "b", "c"] {
        world.put_instance("orders", id, |_| {});
        world.everyone_says("orders", id, Verdict::Up);
    }
    world.put_service("orders", everyone(Mode::ActivePassive));
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
    assert_eq!(proof(&world), (ProofKind::Token, Fencing::Advisory), "b and c may still work");

    // One that is gone from the registry is not gone from the world.
    let mut world = World::new();
    world.put_service("orders", everyone(Mode::ActiveActive));
    world.put_instance("orders", "gone", |_| {});
    world.must(delete_instance("orders", "gone"));
    world.put_service("orders", everyone(Mode::ActivePassive));
    world.put_instance("orders", "a", |_| {});
    world.everyone_says("orders", "a", Verdict::Up);
    world.settle("orders");
    assert_eq!(proof(&world), (ProofKind::Token, Fencing::Advisory));

    // Where one of them heartbeats, it has no token and no lease that could end: an operator has to say that it stopped.
    let mut world = World::new();
    world.put_service("orders", everyone(Mode::ActiveActive));
    world.put_instance("orders", "a", |_| {});
    world.put_instance("orders", "b", |registration| registration.liveness = baton_core::policy::Liveness::Heartbeat);
    world.everyone_says("orders", "a", Verdict::Up);
    world.everyone_says("orders", "b", Verdict::Up);
    world.put_service("orders", everyone(Mode::ActivePassive));
    world.settle("orders");
    assert_eq!(world.active("orders"), None);
    let report = world.plan("orders").report;
    let gate = report.gates.iter().find(|gate| gate.gate == "proof").expect("the proof gate");
    assert!(gate.verdict == GateVerdict::Hold && gate.why.contains("\"b\" served beside others"), "{gate:?}");

    // And where there was nobody, nothing is owed.
    let mut world = World::new();
    world.put_service("orders", everyone(Mode::ActiveActive));
    world.put_service("orders", everyone(Mode::ActivePassive));
    world.put_instance("orders", "a", |_| {});
    world.everyone_says("orders", "a", Verdict::Up);
    world.settle("orders");
    assert_eq!(proof(&world), (ProofKind::NoneNeeded, Fencing::Enforced));
}

#[test]
fn saying_the_same_again_changes_nothing() {
    let mut world = World::orders();
    let from = world.events.len();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "a", |r| r.priority = 300);
    world.must(announce(1));
    world.everyone_says("orders", "a", Verdict::Up);
    assert!(world.kinds_since(from).is_empty());
}

#[test]
fn a_heartbeat_instance_gets_a_new_session_with_every_put_and_others_none() {
    let mut world = World::orders();
    let mut registration = world.service("orders").instances[&instance("a")].registration.clone();
    registration.liveness = baton_core::policy::Liveness::Heartbeat;
    let done = world.must(put_instance("orders", "h", registration.clone()));
    assert!(format!("{done:?}").contains("session: Some"), "{done:?}");
    let again = world.must(put_instance("orders", "h", registration));
    assert!(format!("{again:?}").contains("generation: 2"), "{again:?}");
}

#[test]
fn only_the_open_transition_can_be_completed() {
    let mut world = World::orders();
    let closed = *world.state.transitions.keys().next().expect("the placement's record");
    for id in ["b", "c", "a"] {
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.settle("orders");
    world.everyone_says("orders", "b", Verdict::Up);
    let Some(Command::Promote(mut promote)) = world.plan("orders").command else { panic!("b is promoted") };
    let open = std::mem::replace(&mut promote.transition, closed);
    let before = world.state.clone();
    assert!(matches!(world.refused(Command::Promote(promote.clone())), Refusal::MovedOn { .. }));
    assert_eq!(world.state.transitions, before.transitions, "a closed record is never written again");
    promote.transition = open;
    world.must(Command::Promote(promote.clone()));
    // The same command once more, as after a retried answer.
    assert!(matches!(world.refused(Command::Promote(promote)), Refusal::MovedOn { .. }));
}

#[test]
fn switching_automatic_off_stops_a_plan_that_was_made_before() {
    let mut world = World::orders();
    world.everyone_says("orders", "a", Verdict::Down);
    let planned = world.plan("orders").command.expect("a failover is planned");
    world.put_service("orders", |spec| spec.failover.automatic = false);
    assert!(matches!(world.refused(planned), Refusal::MovedOn { .. }));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
}

#[test]
fn an_open_move_waits_for_an_operator_once_automatic_is_off() {
    let mut world = World::orders();
    for id in ["b", "c", "a"] {
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.settle("orders");
    world.put_service("orders", |spec| spec.failover.automatic = false);
    world.everyone_says("orders", "c", Verdict::Up);
    world.settle("orders");
    assert_eq!(world.active("orders"), None, "nobody asked for it");
    assert!(world.plan("orders").report.summary.contains("automatic is off"));

    let refused = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Switchover, None),
        &Facts::default(),
        world.now,
        1,
    );
    assert!(matches!(refused, Err(Refusal::TransitionInProgress { .. })), "{refused:?}");
    let plan = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, None),
        &Facts::default(),
        world.now,
        1,
    );
    world.must(plan.expect("a plan").command.expect("a command"));
    assert_eq!(world.active("orders").map(|(id, _)| id), Some("c".to_owned()));
    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!(record.actor.as_deref(), Some("alice"), "who completes it answers for it");
}

#[test]
fn another_registration_under_the_same_name_does_not_stop_the_process_before_it() {
    let mut world = World::new();
    world.put_service("orders", |spec| spec.mode = Mode::ActiveActive);
    world.put_instance("orders", "a", |r| r.liveness = baton_core::policy::Liveness::Heartbeat);
    // The old process heartbeats and was told that it is active; now the name belongs to one that is only probed.
    world.put_instance("orders", "a", |r| r.address = Some("127.0.0.1:81".parse().expect("an address")));
    world.everyone_says("orders", "a", Verdict::Up);
    world.put_service("orders", |spec| spec.mode = Mode::ActivePassive);
    world.settle("orders");
    assert_eq!(world.active("orders"), None, "its lease would have to end, or an operator say that it has stopped");
}

#[test]
fn an_operator_may_take_one_that_is_held_back_and_it_stays() {
    let mut world = World::orders();
    world.put_service("orders", |spec| {
        spec.recovery.strategy = RecoveryStrategy::Gradual;
        spec.recovery.initial_delay = Millis::secs(60);
    });
    world.everyone_says("orders", "b", Verdict::Down);
    world.everyone_says("orders", "b", Verdict::Up);
    let b = &world.service("orders").instances[&instance("b")];
    assert_eq!(b.health, Health::Unhealthy, "it is held back for a minute");
    let plan = plan_manual(
        &world.state,
        &service("orders"),
        &ask(ManualMove::Failover, Some("b")),
        &Facts::default(),
        world.now,
        1,
    );
    world.must(plan.expect("an operator may").command.expect("there is something to do"));
    let b = &world.service("orders").instances[&instance("b")];
    assert_eq!(b.health, Health::Healthy, "whoever holds the service is not held back");
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id).as_deref(), Some("b"), "and nobody takes it away again");
}
