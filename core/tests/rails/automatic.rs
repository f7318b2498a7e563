//! `failover.automatic: false`: Baton moves nothing; whoever had a service may have it back, and an operator decides the rest.

use baton_core::command::{Command, Done};
use baton_core::lease::{LeaseClaim, LeaseStanding};
use baton_core::planner::{Decision, Facts, ManualMove};
use baton_core::policy::Liveness;
use baton_core::state::Phase;
use baton_core::time::Millis;
use baton_core::transition::TransitionStatus;

use super::play::free;
use crate::support::{World, instance};

/// All were down and the move is open; then the service was told to move no more by itself.
fn open_and_off() -> World {
    let mut world = free(|_| {});
    for id in ["b", "c", "a"] {
        world.down(id);
    }
    world.play(Millis::ZERO);
    world.put_service("orders", |spec| spec.failover.automatic = false);
    assert_eq!(world.service("orders").assignment.phase, Phase::FailingOver);
    world
}

#[test]
fn a_down_active_is_reported_and_left_to_the_operator() {
    let mut world = free(|spec| spec.failover.automatic = false);
    world.down("a");
    world.play(Millis::secs(600));
    assert_eq!((world.who().as_deref(), world.decision("orders")), (Some("a"), Decision::Hold));
    assert_eq!(world.holds("orders"), ["automatic"]);
    world.asked(ManualMove::Failover, None);
    assert_eq!(world.who().as_deref(), Some("b"));
}

#[test]
fn an_open_move_goes_to_nobody_else_but_back_to_whoever_had_it() {
    let mut world = open_and_off();
    world.up("b");
    world.play(Millis::secs(600));
    assert_eq!((world.who(), world.decision("orders")), (None, Decision::Hold));
    assert!(world.report("orders").summary.contains("automatic is off"), "{}", world.report("orders").summary);
    world.up("a");
    world.play(Millis::ZERO);
    assert_eq!((world.who().as_deref(), world.moves()), (Some("a"), 0), "that is no move");
}

#[test]
fn an_operator_completes_an_open_move() {
    let mut world = open_and_off();
    world.up("c");
    let plan = world.ask(ManualMove::Failover, Some("c")).expect("an operator may");
    assert_eq!(plan.from, Some(instance("a")), "what it leaves is told, although nobody is active");
    assert_eq!(plan.bypasses.iter().map(|gate| gate.gate.as_str()).collect::<Vec<_>>(), ["automatic"]);
    world.must(plan.command.expect("something to do"));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("c"), 0));
    let record = world.state.transitions.values().next_back().expect("a record");
    assert_eq!((record.actor.as_deref(), record.status), (Some("alice"), TransitionStatus::Finished));
}

#[test]
fn nothing_is_given_back_either() {
    let mut world = free(|spec| {
        spec.failover.automatic = false;
        spec.failback.mode = baton_core::policy::FailbackMode::Automatic;
    });
    world.asked(ManualMove::Switchover, Some("b"));
    world.play(Millis::secs(3_600));
    assert_eq!((world.who().as_deref(), world.decision("orders")), (Some("b"), Decision::Hold));
    world.asked(ManualMove::Failback, None);
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn an_operator_takes_over_a_move_that_waits_for_a_lease() {
    // a heartbeats and holds a lease; it dies while the automation is paused for an open move.
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "a", |registration| {
        (registration.liveness, registration.priority) = (Liveness::Heartbeat, 300);
    });
    for id in ["b", "c"] {
        world.put_instance("orders", id, |_| {});
    }
    for id in ["a", "b", "c"] {
        world.up(id);
    }
    world.play(Millis::secs(5));
    assert_eq!(world.who().as_deref(), Some("a"));
    let token = world.service("orders").active_token().expect("a holds it");
    world.down("a");
    world.play(Millis::ZERO);
    assert_eq!(world.who(), None, "its lease may run");
    world.put_service("orders", |spec| spec.failover.automatic = false);

    let lease = LeaseStanding::Runs { left: Millis::secs(8), renewed_ago: None };
    let facts = Facts { node: 1, term: 1, lease, ..Facts::default() };
    let plan = world.ask_of("orders", ManualMove::Failover, Some("c"), &facts).expect("an operator may");
    assert_eq!((plan.proof, plan.waits_at_most), (None, Some(Millis::secs(8))));
    assert!(plan.waits_for.as_ref().is_some_and(|why| why.contains("the end of its lease (at most 8s from now)")));
    let done = world.must(plan.command.expect("it is taken over"));
    let open = world.service("orders").assignment.transition.expect("still open");
    assert_eq!((world.who(), done), (None, Done::Started { transition: open }), "nobody is promoted without a proof");
    let record = &world.state.transitions[&open];
    assert_eq!((record.actor.as_deref(), record.to.clone()), (Some("alice"), Some(instance("c"))));
    // Asked twice, it does not go faster; and an assertion would.
    world.ask_of("orders", ManualMove::Failover, Some("c"), &facts).expect_err("it waits for that already");

    // The lease has run out: the leader that seals it completes the operator's move, although automatic is off.
    let claim = LeaseClaim { token, term: 1, renewed_ago: None, led_for: Millis::secs(11) };
    let facts = Facts { node: 1, term: 1, lease: LeaseStanding::RanOut { claim }, ..Facts::default() };
    let held = world.service("orders");
    let plan = baton_core::planner::plan_service(&world.state, held, &facts, world.now, 7);
    let Some(Command::Promote(promote)) = plan.command else { panic!("{:?}", plan.report) };
    assert!(promote.lease.is_some() && promote.to.instance == instance("c"));
    world.must(Command::Promote(promote));
    assert_eq!((world.who().as_deref(), world.moves()), (Some("c"), 0));
    assert_eq!(world.state.transitions[&open].status, TransitionStatus::Finished);
}

#[test]
fn an_operator_who_finds_the_lease_over_need_not_seal_it() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "a", |registration| registration.liveness = Liveness::Heartbeat);
    world.put_instance("orders", "b", |_| {});
    world.up("a");
    world.up("b");
    world.play(Millis::secs(5));
    let token = world.service("orders").active_token().expect("a holds it");
    world.down("a");
    world.play(Millis::ZERO);
    world.put_service("orders", |spec| spec.failover.automatic = false);
    let claim = LeaseClaim { token, term: 1, renewed_ago: None, led_for: Millis::secs(11) };
    let facts = Facts { node: 2, term: 1, lease: LeaseStanding::RanOut { claim }, ..Facts::default() };
    let plan = world.ask_of("orders", ManualMove::Failover, None, &facts).expect("an operator may");
    let command = plan.command.expect("something to do");
    let Command::TransitionTake(take) = &command else { panic!("{command:?}: only whoever sealed it may claim it") };
    assert_eq!((take.to.instance.as_str(), take.asserted), ("b", None));
    assert!(matches!(world.must(command), Done::Started { .. }), "it is theirs, and the leader completes it");
    assert_eq!(world.who(), None);
}
