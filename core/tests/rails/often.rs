//! Not so soon again, and not too often: `min_interval`, `max_in_window` and its latch.

use baton_core::command::{Command, Refusal, Release};
use baton_core::event::EventKind;
use baton_core::planner::{Decision, GateVerdict, ManualMove};
use baton_core::state::ReleaseHow;
use baton_core::time::Millis;

use super::play::free;
use crate::support::{World, delete_instance, instance, service};

const MINUTE: Millis = Millis::secs(60);

#[test]
fn a_second_failover_waits_for_min_interval_and_comes_by_itself() {
    let mut world = World::orders();
    world.down("a");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("b"), "the first move waits for nothing");
    let moved = world.now;

    world.wait(Millis::secs(20));
    world.up("a");
    world.down("b");
    assert_eq!(world.decision("orders"), Decision::Hold);
    assert_eq!(world.holds("orders"), ["min_interval"]);
    let gate = world.the_gate("orders", "min_interval");
    assert_eq!(gate.at_most, Some(Millis::secs(40)));
    assert!(gate.why.contains("20s ago, min_interval is 1m"), "{}", gate.why);
    assert_eq!(world.plan("orders").wake_at, Some(moved.plus(MINUTE)));

    world.play(Millis(39_999));
    assert_eq!(world.who().as_deref(), Some("b"));
    world.play(Millis(1));
    assert_eq!(world.who().as_deref(), Some("a"), "its time has come");
    assert_eq!(world.moves(), 2);
}

#[test]
fn an_operator_does_not_wait_for_min_interval_and_does_not_start_it() {
    let mut world = World::orders();
    world.down("a");
    world.play(Millis::ZERO);
    world.down("b");
    assert_eq!(world.holds("orders"), ["min_interval"]);
    world.asked(ManualMove::Failover, Some("c"));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("c"), 1));
    world.wait(MINUTE);
    world.up("a");
    world.asked(ManualMove::Switchover, Some("a"));
    world.up("b");
    world.down("a");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("b"), "a switchover that alice asked for just now holds nothing");
}

#[test]
fn a_placement_neither_starts_min_interval_nor_counts() {
    let mut world = World::orders();
    assert_eq!(world.moves(), 0, "the first placement");
    world.must(delete_instance("orders", "a"));
    world.play(Millis::ZERO);
    assert_eq!((world.who().as_deref(), world.moves()), (Some("b"), 0), "and one after a deregistration");
    world.down("b");
    world.play(Millis::ZERO);
    assert_eq!((world.who().as_deref(), world.moves()), (Some("c"), 1), "the first failover comes at once");
}

#[test]
fn a_plan_that_was_made_before_the_last_move_is_held_at_apply_too() {
    let mut world = free(|_| {});
    world.down("a");
    world.play(Millis::ZERO);
    world.down("b");
    let planned = world.plan("orders").command.expect("a second failover is planned");
    world.put_service("orders", |spec| spec.failover.min_interval = MINUTE);
    let refused = world.refused(planned);
    assert!(matches!(&refused, Refusal::AutomationHeld { why, .. } if why.contains("min_interval is 1m")), "{refused}");
    assert_eq!(world.who().as_deref(), Some("b"));
}

/// Three failovers: a to b, to c, to a again, ten seconds each.
fn three_moves() -> World {
    let mut world = free(|_| {});
    for (down, up, to) in [("a", "a", "b"), ("b", "b", "a"), ("a", "a", "b")] {
        world.down(down);
        world.play(Millis::secs(5));
        assert_eq!(world.who().as_deref(), Some(to));
        world.up(up);
        world.play(Millis::secs(5));
    }
    assert_eq!((world.moves(), &world.service("orders").rails.latch), (3, &None), "three are allowed");
    world
}

#[test]
fn a_fourth_move_within_the_window_sets_a_latch_that_time_does_not_open() {
    let mut world = three_moves();
    world.down("b");
    assert_eq!(world.decision("orders"), Decision::Brake);
    assert_eq!(world.plan("orders").command, Some(Command::LatchSet { service: service("orders") }));
    world.play(Millis::ZERO);
    let told = world.last_of(EventKind::AutomationBraked);
    assert_eq!(told.service, Some(service("orders")));
    assert!(told.reason.contains("3 times within 1h, and max_in_window is 3"), "{}", told.reason);
    assert_eq!((world.decision("orders"), world.holds("orders")), (Decision::Hold, vec!["latch".to_owned()]));

    world.play(Millis::secs(3 * 3_600));
    assert_eq!(world.who().as_deref(), Some("b"), "nobody has looked");
    world.asked(ManualMove::Failover, None);
    assert_eq!(world.who().as_deref(), Some("a"), "an operator's failover passes");
    assert!(world.service("orders").rails.latch.is_some(), "and does not say that somebody looked");

    world.up("b");
    world.down("a");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("a"));
    world.resume(Some("orders")).expect("bob has looked");
    world.play(Millis::ZERO);
    assert_eq!((world.who().as_deref(), world.moves()), (Some("b"), 1), "and the count begins anew");
}

#[test]
fn resetting_an_instance_acknowledges_the_latch_as_well() {
    let mut world = three_moves();
    world.down("b");
    world.play(Millis::secs(10));
    assert!(world.service("orders").rails.latch.is_some());
    world.reset("a").expect("an operator looked");
    assert_eq!((&world.service("orders").rails.latch, world.moves()), (&None, 0));
    world.up("a");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn moves_that_are_older_than_the_window_do_not_count() {
    let mut world = three_moves();
    // The first of the three was 30 s ago: an hour after it, and no earlier, it is forgotten.
    world.play(Millis::secs(3_600 - 30 - 1));
    let mut earlier = World { state: world.state.clone(), index: world.index, now: world.now, events: Vec::new() };
    earlier.down("b");
    earlier.play(Millis::ZERO);
    assert!(earlier.service("orders").rails.latch.is_some(), "a second too early");
    world.play(Millis::secs(1));
    world.down("b");
    world.play(Millis::ZERO);
    assert_eq!((world.who().as_deref(), &world.service("orders").rails.latch), (Some("a"), &None));
}

#[test]
fn a_latch_is_not_set_on_hearsay_and_what_is_not_held_cannot_be_resumed() {
    let mut world = World::orders();
    let hearsay = world.refused(Command::LatchSet { service: service("orders") });
    assert!(matches!(hearsay, Refusal::MovedOn { .. }), "{hearsay}");
    let refused = world.resume(Some("orders")).expect_err("there is nothing to resume");
    assert!(
        matches!(&refused, Refusal::NothingToDo { why } if why.contains("neither paused nor latched")),
        "{refused}"
    );
    assert!(matches!(world.resume(None), Err(Refusal::NothingToDo { .. })));
}

#[test]
fn a_move_counts_once_even_if_it_took_two_promotions() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.failover.require_ack = true);
    world.down("a");
    world.play(Millis::ZERO);
    assert_eq!((world.who().as_deref(), world.moves()), (Some("b"), 1));
    let (_, first) = world.active("orders").expect("b is promoted");
    // It never says that it serves, and the next is tried although min_interval is a minute: it is the same move.
    world.play(Millis::secs(30));
    let (id, second) = world.active("orders").expect("c is promoted");
    assert_eq!((id.as_str(), world.moves()), ("c", 1));
    assert!(second > first);
    world.ack("c", second).expect("it serves");
    assert_eq!((world.moves(), world.decision("orders")), (1, Decision::Nothing));
    // And min_interval counts from its first promotion.
    world.wait(Millis::secs(29));
    world.down("c");
    assert_eq!(world.the_gate("orders", "min_interval").at_most, Some(Millis::secs(1)));
}

#[test]
fn whoever_gets_its_own_service_back_was_not_moved() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "alone", |_| {});
    world.up("alone");
    world.play(Millis::secs(5));
    for _ in 0..5 {
        world.down("alone");
        world.play(Millis::secs(1));
        assert_eq!(world.who(), None);
        world.up("alone");
        world.play(Millis::secs(1));
        assert_eq!(world.who().as_deref(), Some("alone"), "there is nobody else, and nothing to wait for");
    }
    assert_eq!((world.moves(), &world.service("orders").rails.latch), (0, &None));
}

#[test]
fn two_instances_take_turns_and_both_may_come_back() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    for id in ["a", "b"] {
        world.put_instance("orders", id, |_| {});
        world.up(id);
    }
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("a"));
    world.down("a");
    world.play(Millis::secs(1));
    assert_eq!(world.who().as_deref(), Some("b"));
    world.down("b");
    world.play(Millis::secs(1));
    assert_eq!(world.who().as_deref(), Some("b"), "held by min_interval, and nobody could take over anyway");
    // b is well again before anything happened: it is still the active.
    world.up("b");
    world.play(Millis::secs(1));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("b"), 1));

    world.play(Millis::secs(60));
    world.down("b");
    world.play(Millis::secs(1));
    assert_eq!(world.who(), None, "both are down");
    world.up("a");
    world.play(Millis::secs(1));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("a"), 2), "the first that is well gets it");
}

#[test]
fn the_rails_are_told_while_all_is_well_too() {
    let mut world = World::orders();
    world.down("a");
    world.play(Millis::ZERO);
    world.up("a");
    world.wait(Millis::secs(10));
    assert_eq!(world.decision("orders"), Decision::Nothing);
    let words = ["paused", "brake", "max_in_window"];
    assert!(words.iter().all(|word| world.the_gate("orders", word).verdict == GateVerdict::Pass));
    assert_eq!(
        world.the_gate("orders", "min_interval").at_most,
        Some(Millis::secs(50)),
        "a failover would wait so long"
    );
    assert_eq!(world.plan("orders").wake_at, None, "and nobody is woken for what nobody wants");
}

#[test]
fn a_failover_by_release_is_as_old_as_the_release_and_not_as_the_health_of_whoever_released() {
    let mut world = World::orders();
    world.play(Millis::secs(600));
    let token = world.service("orders").active_token().expect("a holds it");
    world.must(Command::Release(Release {
        service: service("orders"),
        instance: instance("a"),
        session: None,
        token,
        leaving: false,
        how: ReleaseHow::Said,
        reason: "its host restarts".to_owned(),
    }));
    world.play(Millis::secs(1));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("b"), 1));
    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!((record.durations.agreed_to_proof_ms, record.durations.total_ms), (Some(0), Some(0)));
}
