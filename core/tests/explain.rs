//! What `explain` says in a sentence: who serves, who would be called, and why nobody is.

mod support;

use baton_core::planner::Decision;
use baton_core::policy::Mode;
use baton_core::probe::Verdict;
use baton_core::state::AdminState;
use support::World;

/// `web`, whose two instances a and b serve together, and `sick_too`: whether the sick are called where all are.
fn web(sick_too: bool) -> World {
    let mut world = World::orders();
    world.put_service("orders", |spec| {
        spec.mode = Mode::ActiveActive;
        spec.fail_open = sick_too;
    });
    world
}

fn summary(world: &World) -> String {
    let report = world.plan("orders").report;
    assert_eq!(report.decision, Decision::Nothing);
    report.summary
}

#[test]
fn all_that_may_be_called_serve_and_no_others() {
    let mut world = web(false);
    assert_eq!(summary(&world), "All that may be called serve: 3 of 3. Nothing is promoted.");
    world.trip("a", 1, 5).expect("it opens");
    world.admin("b", AdminState::Draining, None).expect("it drains");
    assert_eq!(summary(&world), "All that may be called serve: 1 of 3. Nothing is promoted.", "all are healthy");
    world.verdict(1, "orders", "c", Verdict::Down).expect("taken");
    assert_eq!(
        summary(&world),
        "All that may be called serve: 1 of 3, for want of a healthy one. Nothing is promoted."
    );
    world.everyone_says("orders", "c", Verdict::Down);
    assert_eq!(
        summary(&world),
        "No instance may be called: 3 registered: 1 unhealthy, 1 breaker open (half open in 30s), 1 draining. Nothing is \
         promoted."
    );
}

#[test]
fn a_service_that_fails_open_says_so_when_it_does() {
    let mut world = web(true);
    assert_eq!(summary(&world), "All that may be called serve: 3 of 3. Nothing is promoted.");
    for id in ["a", "b", "c"] {
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.admin("b", AdminState::Isolated, None).expect("it is out");
    assert_eq!(
        summary(&world),
        "None is well, and fail_open is on: the sick are called all the same, 2 of 3. Nothing is promoted."
    );
}
