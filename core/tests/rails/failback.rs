//! Back to the preferred instance: by itself after it was well for `stable_for`, by an operator, or never.

use baton_core::command::{Command, Refusal, Target, TransitionStart};
use baton_core::planner::{Decision, ManualMove};
use baton_core::policy::FailbackMode;
use baton_core::probe::Verdict;
use baton_core::time::Millis;
use baton_core::transition::{TransitionKind, TransitionStatus, Trigger};

use super::play::free;
use crate::support::{World, instance, service};

const STABLE: Millis = Millis::secs(300);

/// `a` has failed and is well again; `b` is the active.
fn moved_away(mode: FailbackMode) -> World {
    let mut world = free(|spec| spec.failback.mode = mode);
    world.down("a");
    world.play(Millis::secs(10));
    assert_eq!(world.who().as_deref(), Some("b"));
    world.up("a");
    world
}

#[test]
fn the_preferred_instance_gets_its_place_back_after_stable_for_and_not_before() {
    let mut world = moved_away(FailbackMode::Automatic);
    let well = world.now;
    assert_eq!((world.decision("orders"), world.plan("orders").wake_at), (Decision::Nothing, Some(well.plus(STABLE))));
    world.wait(Millis::secs(60));
    let gate = world.the_gate("orders", "failback");
    assert_eq!(gate.at_most, Some(Millis::secs(240)));
    assert_eq!(gate.why, "\"a\" is preferred and has been healthy for 1m, failback.stable_for is 5m");
    world.play(Millis(239_999));
    assert_eq!(world.who().as_deref(), Some("b"));
    world.play(Millis(1));
    assert_eq!(world.who().as_deref(), Some("a"));
    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!((record.kind, record.status), (TransitionKind::Failback, TransitionStatus::Finished));
    assert_eq!(record.actor, None);
    let cause = record.trigger.cause.expect("what it was caused by");
    assert_eq!(world.events[cause as usize - 1].to, Some(Some("healthy".to_owned())), "the preferred one got well");
    assert_eq!(record.durations.total_ms, Some(0), "and its time counts from the decision");
}

#[test]
fn a_break_in_its_health_begins_the_time_anew() {
    let mut world = moved_away(FailbackMode::Automatic);
    world.play(Millis::secs(299));
    // One observer doubts it, for a moment.
    world.verdict(2, "orders", "a", Verdict::Suspect).expect("taken");
    world.verdict(2, "orders", "a", Verdict::Up).expect("taken");
    let again = world.now;
    world.play(Millis(STABLE.0 - 1));
    assert_eq!((world.who().as_deref(), world.now), (Some("b"), again.plus(Millis(STABLE.0 - 1))));
    world.play(Millis(1));
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn it_is_looked_at_a_second_time_when_it_is_done() {
    let mut world = moved_away(FailbackMode::Automatic);
    world.wait(STABLE);
    let planned = world.plan("orders").command.expect("it is time");
    let break_of_a = |world: &mut World| {
        world.verdict(2, "orders", "a", Verdict::Suspect).expect("taken");
        world.verdict(2, "orders", "a", Verdict::Up).expect("taken");
    };
    let refused = |mut world: World, change: &dyn Fn(&mut World)| {
        change(&mut world);
        world.refused(planned.clone())
    };
    let copy = || World { state: world.state.clone(), index: world.index, now: world.now, events: Vec::new() };
    assert!(matches!(refused(copy(), &break_of_a), Refusal::MovedOn { .. }), "it was doubted in between");
    let ill = refused(copy(), &|world| world.down("a"));
    assert!(matches!(ill, Refusal::NotEligible { .. } | Refusal::MovedOn { .. }), "{ill}");
    let doubted = |world: &mut World| drop(world.verdict(2, "orders", "b", Verdict::Suspect));
    assert!(
        matches!(refused(copy(), &doubted), Refusal::MovedOn { .. }),
        "the active is not well: that is no switchover"
    );
    let manual = |world: &mut World| world.put_service("orders", |spec| spec.failover.min_interval = Millis::ZERO);
    assert!(matches!(refused(copy(), &manual), Refusal::MovedOn { .. }), "failback.mode is manual by now");
    let no_longer = |world: &mut World| world.put_instance("orders", "a", |registration| registration.priority = 1);
    assert!(matches!(refused(copy(), &no_longer), Refusal::MovedOn { .. }), "it is not preferred any more");
    let paused = |world: &mut World| world.pause(None, Millis::secs(60));
    assert!(matches!(refused(copy(), &paused), Refusal::AutomationHeld { .. }));
    let mut world = copy();
    world.must(planned.clone());
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn nobody_goes_back_to_one_that_is_not_preferred_or_too_early() {
    let mut world = moved_away(FailbackMode::Automatic);
    let start = |world: &World, to: &str| {
        let known = world.at("orders", to);
        Command::TransitionStart(TransitionStart {
            service: service("orders"),
            kind: TransitionKind::Failback,
            seen_token: world.service("orders").active_token(),
            seen_holder: None,
            to: Some(Target { instance: instance(to), epoch: known.epoch, lag: None }),
            asserted: None,
            lease: None,
            trigger: Trigger { reason: "because".to_owned(), cause: Some(known.health_revision) },
            actor: None,
        })
    };
    let early = start(&world, "a");
    assert!(matches!(world.refused(early), Refusal::MovedOn { .. }));
    world.wait(STABLE);
    let other = start(&world, "c");
    assert!(matches!(world.refused(other), Refusal::MovedOn { .. }), "c is stable, and nobody prefers it");
    let now = start(&world, "a");
    world.must(now);
}

#[test]
fn a_doubted_active_is_waited_for() {
    let mut world = moved_away(FailbackMode::Automatic);
    world.verdict(1, "orders", "b", Verdict::Suspect).expect("taken");
    world.play(Millis::secs(600));
    assert_eq!(world.who().as_deref(), Some("b"));
    let why = world.the_gate("orders", "failback").why;
    assert_eq!(why, "\"a\" is preferred, and \"b\" is suspect: a failback wants both sides well");
    world.verdict(1, "orders", "b", Verdict::Up).expect("taken");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn rails_hold_it_and_it_counts_as_a_move() {
    let mut world = moved_away(FailbackMode::Automatic);
    world.put_service("orders", |spec| {
        spec.failback.mode = FailbackMode::Automatic;
        spec.failover.min_interval = Millis::secs(400);
    });
    world.play(STABLE);
    assert_eq!((world.who().as_deref(), world.decision("orders")), (Some("b"), Decision::Hold));
    let min_interval = world.the_gate("orders", "min_interval");
    assert_eq!(min_interval.at_most, Some(Millis::secs(400 - 310)));
    world.play(Millis::secs(90));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("a"), 2));
    // And what fails right after it waits, as after any move.
    world.down("a");
    assert_eq!(world.holds("orders"), ["min_interval"]);

    let mut world = moved_away(FailbackMode::Automatic);
    world.pause(Some("orders"), Millis::secs(1_000));
    world.play(Millis::secs(999));
    assert_eq!(world.who().as_deref(), Some("b"));
    world.play(Millis::secs(1));
    assert_eq!(world.who().as_deref(), Some("a"));

    let mut world = moved_away(FailbackMode::Automatic);
    world.put_service("orders", |spec| {
        spec.failback.mode = FailbackMode::Automatic;
        (spec.failover.min_interval, spec.failover.max_in_window) = (Millis::ZERO, 1);
    });
    world.play(Millis::secs(301));
    assert_eq!(world.who().as_deref(), Some("b"));
    assert!(world.service("orders").rails.latch.is_some(), "it was moved once, and that is all it may");
}

#[test]
fn tier_comes_before_priority_and_the_next_best_is_taken_where_the_best_is_ill() {
    let mut world = free(|spec| spec.failback.mode = FailbackMode::Automatic);
    world.put_instance("orders", "c", |registration| (registration.tier, registration.priority) = (1, 900));
    world.down("a");
    world.down("b");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("c"), "the remote one is what is left");
    world.up("b");
    world.play(STABLE);
    assert_eq!(world.who().as_deref(), Some("b"), "its tier is lower, whatever the priority");
    world.up("a");
    world.play(STABLE);
    assert_eq!(world.who().as_deref(), Some("a"));
    world.play(Millis::secs(36_000));
    assert_eq!(world.who().as_deref(), Some("a"), "nobody is preferred to it");
}

#[test]
fn equals_are_not_preferred_to_each_other() {
    let mut world = moved_away(FailbackMode::Automatic);
    world.put_instance("orders", "a", |registration| registration.priority = 200);
    world.play(Millis::secs(3_600));
    assert_eq!(world.who().as_deref(), Some("b"));
    assert!(world.report("orders").gates.iter().all(|gate| gate.gate != "failback"), "and nothing is told of it");
    let refused = world.ask(ManualMove::Failback, None).expect_err("there is nothing to go back to");
    assert!(matches!(refused, Refusal::AlreadyActive { .. }), "{refused}");
}

#[test]
fn where_it_is_manual_an_operator_asks_and_may_do_so_at_once() {
    let mut world = moved_away(FailbackMode::Manual);
    world.play(Millis::secs(3_600));
    assert_eq!((world.who().as_deref(), world.decision("orders")), (Some("b"), Decision::Nothing));
    let why = world.the_gate("orders", "failback").why;
    assert_eq!(why, "\"a\" is preferred, and failback.mode is \"manual\": an operator may fail it back");
    let plan = world.ask(ManualMove::Failback, None).expect("an operator may");
    assert_eq!((plan.kind, plan.to.as_str()), (TransitionKind::Failback, "a"));
    world.asked(ManualMove::Failback, None);
    assert_eq!((world.who().as_deref(), world.moves()), (Some("a"), 1), "it does not count");

    let mut world = moved_away(FailbackMode::Automatic);
    world.asked(ManualMove::Failback, None);
    assert_eq!(world.who().as_deref(), Some("a"), "an operator does not wait for stable_for");
}

#[test]
fn where_it_is_never_nobody_goes_back_and_a_switchover_does_it_all_the_same() {
    let mut world = moved_away(FailbackMode::Never);
    world.play(Millis::secs(3_600));
    assert_eq!(world.who().as_deref(), Some("b"));
    let refused = world.ask(ManualMove::Failback, None).expect_err("never is never");
    assert!(refused.to_string().contains("failback.mode is \"never\"; a switchover"), "{refused}");
    world.asked(ManualMove::Switchover, Some("a"));
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn an_operators_failback_is_refused_with_the_reason() {
    let mut world = moved_away(FailbackMode::Manual);
    let told = |world: &World, to: Option<&str>| world.ask(ManualMove::Failback, to).expect_err("refused").to_string();
    assert!(told(&world, Some("c")).contains("it is not preferred to \"b\" by tier and priority; a switchover"));
    assert!(told(&world, Some("nobody")).contains("has no instance \"nobody\""));
    assert!(told(&world, Some("b")).contains("is the active of \"orders\" already"));
    world.down("a");
    assert!(told(&world, None).contains("\"a\": it is unhealthy"), "{}", told(&world, None));
    world.up("a");
    world.verdict(1, "orders", "b", Verdict::Suspect).expect("taken");
    assert!(
        told(&world, None)
            .contains("\"b\", the active of \"orders\", is suspect, and a switchover or failback wants both")
    );
}
