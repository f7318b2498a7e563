//! A refusal names the rule, what was measured, and what would override it.

use baton_core::command::Refusal;
use baton_core::planner::{Facts, ManualMove};
use baton_core::policy::{Mode, ProofKind, ProofPolicy};
use baton_core::state::AdminState;
use baton_core::time::Millis;

use super::play::free;
use crate::support::World;

fn refused(world: &World, wanted: ManualMove, to: Option<&str>) -> String {
    world.ask(wanted, to).expect_err("it is refused").to_string()
}

#[test]
fn one_that_is_taken_out() {
    let mut world = free(|_| {});
    world.admin("b", AdminState::Draining, None).expect("it drains");
    assert_eq!(
        refused(&world, ManualMove::Switchover, Some("b")),
        "\"b\" may not be promoted: alice set it draining: new disks (rule enabled: enabling it overrides that)"
    );
}

#[test]
fn one_with_an_open_breaker() {
    let mut world = free(|_| {});
    world.trip("b", 1, 5).expect("it opens");
    assert_eq!(
        refused(&world, ManualMove::Failover, Some("b")),
        "\"b\" may not be promoted: its breaker is open: 5 of 8 calls failed; half open in 30s (rule breaker_not_open: \
         resetting it closes the breaker)"
    );
}

#[test]
fn one_that_is_ill_in_two_ways() {
    let mut world = free(|spec| spec.failover.max_lag = Some(5));
    world.down("b");
    let told = refused(&world, ManualMove::Failover, Some("b"));
    assert!(told.contains("it is unhealthy: node 1 says down"), "{told}");
    assert!(
        told.contains("(rule healthy: nobody can override that: it must get well); its lag is not known"),
        "{told}"
    );
    assert!(told.contains("(rule max_lag: catching up does, or a larger failover.max_lag)"), "{told}");
}

#[test]
fn one_that_is_healthy_for_too_short_a_time() {
    let mut world = free(|spec| spec.failover.min_healthy = Millis::secs(60));
    world.wait(Millis::secs(12));
    assert_eq!(
        refused(&world, ManualMove::Switchover, Some("b")),
        "\"b\" may not be promoted: it has been healthy for 12s, min_healthy is 1m (rule min_healthy: waiting does, or a \
         smaller failover.min_healthy)"
    );
}

#[test]
fn a_move_while_another_is_open() {
    let mut world = free(|spec| spec.failover.require_ack = true);
    world.asked(ManualMove::Switchover, Some("b"));
    let told = refused(&world, ManualMove::Switchover, Some("c"));
    assert!(
        told.contains("is running, and there is one at a time: it is a switchover to \"b\" that alice began at "),
        "{told}"
    );
    assert!(told.ends_with("and ends when \"b\" acknowledges, or its time for that is over"), "{told}");

    let mut world = free(|_| {});
    for id in ["b", "c", "a"] {
        world.down(id);
    }
    world.play(Millis::ZERO);
    let told = refused(&world, ManualMove::Switchover, None);
    assert!(told.contains("it is a failover that Baton began at "), "{told}");
    assert!(told.ends_with("a failover completes it, naming another instance if need be"), "{told}");
}

#[test]
fn a_proof_that_nothing_can_bring() {
    let world = free(|spec| spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Lease]));
    let told = refused(&world, ManualMove::Failover, None);
    assert!(
        told.starts_with("proof \"lease\" does not hold: fencing.proof accepts lease, and nothing of that"),
        "{told}"
    );
    assert!(
        told.ends_with("an operator may say that it has stopped: a failover with proof \"operator\" and a reason"),
        "{told}"
    );
}

#[test]
fn a_switchover_of_nothing_or_from_one_that_is_ill() {
    let mut world = free(|_| {});
    world.down("a");
    assert_eq!(
        refused(&world, ManualMove::Switchover, None),
        "\"a\", the active of \"orders\", is unhealthy, and a switchover or failback wants both sides well: a failover does \
         not ask for that (`baton failover orders`)"
    );
    let mut world = World::new();
    world.put_service("orders", |_| {});
    let told = refused(&world, ManualMove::Switchover, None);
    assert!(
        told.contains("has no active: a switchover and a failback move a well active; a failover promotes"),
        "{told}"
    );
    let told = refused(&world, ManualMove::Failover, None);
    assert_eq!(told, "no instance of \"orders\" may be promoted: no instance is registered");
    world.put_service("orders", |spec| spec.mode = Mode::ActiveActive);
    assert!(refused(&world, ManualMove::Failover, None).contains("active_active"));
}

#[test]
fn the_one_that_is_active_already() {
    let world = free(|_| {});
    for wanted in [ManualMove::Failover, ManualMove::Switchover, ManualMove::Failback] {
        let refused = world.ask_of("orders", wanted, Some("a"), &Facts::default()).expect_err("it is there");
        assert!(matches!(refused, Refusal::AlreadyActive { .. }), "{wanted}: {refused}");
    }
}

#[test]
fn a_dry_run_shows_where_it_goes_by_which_proof_and_which_rails_it_passes_by() {
    let mut world = World::orders();
    world.down("a");
    world.play(Millis::ZERO);
    world.up("a");
    world.pause(Some("orders"), Millis::secs(600));
    world.wait(Millis::secs(10));
    let before = world.state.clone();
    for (wanted, to) in [(ManualMove::Failover, "c"), (ManualMove::Switchover, "c"), (ManualMove::Failback, "a")] {
        let plan = world.ask(wanted, Some(to)).expect("an operator may");
        assert_eq!((plan.from.map(|from| from.to_string()).as_deref(), plan.to.as_str()), (Some("b"), to));
        assert_eq!(plan.proof.map(|proof| proof.proof), Some(ProofKind::Token));
        assert_eq!(plan.waits_for, None);
        let told: Vec<_> = plan.bypasses.iter().map(|gate| (gate.gate.as_str(), gate.at_most)).collect();
        assert_eq!(told, [("paused", Some(Millis::secs(590))), ("min_interval", Some(Millis::secs(50)))], "{wanted}");
        let gates = plan.report.gates.iter().map(|gate| gate.gate.as_str()).collect::<Vec<_>>();
        assert_eq!(
            gates,
            [
                "active_down",
                "automatic",
                "failback",
                "candidate",
                "proof",
                "paused",
                "brake",
                "max_in_window",
                "min_interval"
            ]
        );
        assert_eq!(plan.report.candidates.len(), 3);
    }
    assert_eq!(world.state, before, "and nothing is done");
}
