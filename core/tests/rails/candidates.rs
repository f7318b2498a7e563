//! Who may take over: `max_lag`, `min_healthy`, and who comes first.

use baton_core::command::{Command, Refusal};
use baton_core::planner::{Decision, Facts, ManualMove};
use baton_core::policy::RecoveryStrategy;
use baton_core::time::Millis;

use super::play::free;
use crate::support::{World, instance};

fn promoted(world: &World, lags: &[(&str, u64)]) -> Option<String> {
    let planned = world.plan_knowing("orders", lags).command?;
    let Command::TransitionStart(start) = planned else { panic!("a failover was expected, not {planned:?}") };
    start.to.map(|to| to.instance.to_string())
}

/// Why `id` may not be promoted, by the rule of that word.
fn why(world: &World, lags: &[(&str, u64)], id: &str, rule: &str) -> (bool, String) {
    let candidates = world.plan_knowing("orders", lags).report.candidates;
    let one = candidates.into_iter().find(|it| it.instance == instance(id)).expect("it is registered");
    let rule = one.rules.into_iter().find(|it| it.rule == rule).expect("it is asked");
    (rule.pass, rule.why)
}

#[test]
fn whoever_lags_too_far_behind_is_no_candidate_nor_is_one_whose_lag_nobody_knows() {
    let mut world = free(|spec| spec.failover.max_lag = Some(10));
    world.down("a");
    assert_eq!(promoted(&world, &[("b", 11), ("c", 10)]).as_deref(), Some("c"));
    assert_eq!(why(&world, &[("b", 11)], "b", "max_lag"), (false, "its lag is 11, max_lag is 10".to_owned()));
    assert_eq!(promoted(&world, &[("c", 10)]).as_deref(), Some("c"), "b says nothing");
    let (pass, told) = why(&world, &[], "b", "max_lag");
    assert!(!pass && told.starts_with("its lag is not known, max_lag is 10"), "{told}");

    // Nobody may: the move is opened, waits, and looks again soon, for no log entry tells a lag.
    let plan = world.plan_knowing("orders", &[("b", 11)]);
    assert_eq!(plan.wake_at, Some(world.now.plus(Millis(100))));
    world.must(plan.command.expect("the active is taken away: it is down"));
    assert_eq!(world.who(), None);
    assert_eq!(world.plan_knowing("orders", &[]).wake_at, Some(world.now.plus(Millis(100))));
    let Some(Command::Promote(promote)) = world.plan_knowing("orders", &[("b", 3)]).command else {
        panic!("b has caught up");
    };
    assert_eq!((promote.to.instance.as_str(), promote.to.lag), ("b", Some(3)));
    // What it was promoted by is checked again, as the leader had it.
    let mut worse = promote.clone();
    worse.to.lag = Some(30);
    let refused = world.refused(Command::Promote(worse));
    assert!(
        matches!(&refused, Refusal::NotEligible { why, .. } if why.contains("its lag is 30, max_lag is 10")),
        "{refused}"
    );
    world.must(Command::Promote(promote));
    assert_eq!(world.who().as_deref(), Some("b"));
}

#[test]
fn without_max_lag_the_least_lag_counts_after_tier_and_priority() {
    let mut world = free(|_| {});
    world.down("a");
    assert_eq!(promoted(&world, &[("b", 900), ("c", 1)]).as_deref(), Some("b"), "b has the higher priority");
    world.put_instance("orders", "c", |registration| registration.priority = 200);
    assert_eq!(
        promoted(&world, &[("b", 900), ("c", 1)]).as_deref(),
        Some("c"),
        "of equals the one that is less behind"
    );
    assert_eq!(
        promoted(&world, &[("b", 900)]).as_deref(),
        Some("b"),
        "and one that says nothing comes after those who do"
    );
    assert_eq!(promoted(&world, &[]).as_deref(), Some("b"), "by id, where nobody says anything");
    world.put_instance("orders", "b", |registration| (registration.priority, registration.tier) = (200, 1));
    assert_eq!(promoted(&world, &[("b", 0), ("c", 5)]).as_deref(), Some("c"), "a lower tier wins before that");
}

#[test]
fn min_healthy_is_waited_for_and_a_break_begins_it_anew() {
    let mut world = free(|spec| spec.failover.min_healthy = Millis::secs(30));
    world.wait(Millis::secs(20));
    world.down("c");
    world.down("b");
    world.up("b");
    let well = world.now;
    world.wait(Millis::secs(10));
    world.down("a");
    world.play(Millis::ZERO);
    assert_eq!((world.who(), world.plan("orders").wake_at), (None, Some(well.plus(Millis::secs(30)))));
    let (pass, told) = why(&world, &[], "b", "min_healthy");
    assert_eq!((pass, told.as_str()), (false, "it has been healthy for 10s, min_healthy is 30s"));
    world.play(Millis(19_999));
    assert_eq!(world.who(), None);
    world.play(Millis(1));
    assert_eq!(world.who().as_deref(), Some("b"));
}

#[test]
fn one_that_is_held_back_is_well_since_it_was_well_and_not_since_it_fell_ill() {
    let mut world = free(|spec| {
        spec.failover.min_healthy = Millis::secs(30);
        spec.recovery.strategy = RecoveryStrategy::Gradual;
        spec.recovery.initial_delay = Millis::secs(120);
    });
    world.down("b");
    world.wait(Millis::secs(60));
    world.up("b");
    world.wait(Millis::secs(5));
    let refused = world.ask(ManualMove::Failover, Some("b")).expect_err("it is well for five seconds, not for 65");
    assert!(matches!(&refused, Refusal::NotEligible { why, .. } if why.contains("healthy for 5s")), "{refused}");
    world.wait(Millis::secs(25));
    world.asked(ManualMove::Failover, Some("b"));
    assert_eq!(world.who().as_deref(), Some("b"));
}

#[test]
fn with_nobody_well_nobody_is_promoted_whoever_asks() {
    let mut world = free(|_| {});
    for id in ["b", "c", "a"] {
        world.down(id);
    }
    world.play(Millis::ZERO);
    assert_eq!((world.who(), world.decision("orders")), (None, Decision::Hold));
    let refused = world.ask_of("orders", ManualMove::Failover, None, &Facts::default()).expect_err("all are ill");
    let Refusal::NoCandidate { why, .. } = refused else { panic!("{refused}") };
    for id in ["a", "b", "c"] {
        assert!(why.contains(&format!("\"{id}\": it is unhealthy")), "each is told: {why}");
    }
}
