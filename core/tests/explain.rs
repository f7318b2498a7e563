//! What `explain` says in a sentence: who serves, who would be called, and why nobody is.

mod support;

use baton_core::planner::Decision;
use baton_core::policy::Mode;
use baton_core::probe::Verdict;
use baton_core::state::AdminState;
use baton_core::time::Millis;
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

#[test]
fn an_active_that_nobody_may_call_is_told_with_the_reason() {
    let mut world = World::orders();
    let token = world.active("orders").expect("a is active").1;
    let well = format!("\"a\" is active with token {token} and healthy; there is nothing to do.");
    assert_eq!(summary(&world), well);
    world.trip("a", 1, 5).expect("it opens");
    world.pass(Millis::secs(2));
    let open = format!(
        "{well} But callers get nobody: its active \"a\" is not to be called: breaker open (half open in 28s)."
    );
    assert_eq!(summary(&world), open);
    world.reset("a").expect("it closes");
    world.everyone_says("orders", "a", Verdict::Up);
    assert_eq!(summary(&world), well);
    world.admin("a", AdminState::Draining, None).expect("it drains");
    assert!(summary(&world).ends_with("is not to be called: draining."), "{}", summary(&world));
}

#[test]
fn a_rule_about_a_breaker_tells_its_numbers_and_its_end() {
    let told = |world: &World| {
        let candidates = world.plan("orders").report.candidates;
        let b = candidates.into_iter().find(|one| one.instance.as_str() == "b").expect("a candidate");
        let rule = b.rules.into_iter().find(|rule| rule.rule == "breaker_not_open").expect("it is asked");
        (rule.pass, rule.why)
    };
    let mut world = World::orders();
    assert_eq!(told(&world), (true, "its breaker is closed".to_owned()));
    world.trip("b", 1, 5).expect("it opens");
    world.pass(Millis(1_500));
    assert_eq!(told(&world), (false, "its breaker is open: 5 of 8 calls failed; half open in 29s".to_owned()));
    world.pass(Millis(28_500));
    assert_eq!(told(&world), (true, "its breaker is half open: trial calls show how it is".to_owned()));
}

#[test]
fn a_gate_is_listed_once_where_one_question_was_asked() {
    let asked = |world: &World| {
        let gates = world.plan("orders").report.gates;
        gates.iter().filter(|gate| gate.gate == "candidate").count()
    };
    let mut world = World::orders();
    for id in ["b", "c", "a"] {
        world.everyone_says("orders", id, Verdict::Down);
    }
    world.settle("orders");
    assert_eq!((world.active("orders"), asked(&world)), (None, 1), "a failover leaves nobody that it could go back to");
}
