//! The mass-failure brake: three or more services, and more than half of them, want to fail over at once.

use baton_core::command::{Command, Refusal, Release};
use baton_core::event::EventKind;
use baton_core::id::Token;
use baton_core::planner::{Decision, Facts, ManualMove};
use baton_core::policy::FailbackMode;
use baton_core::probe::Verdict;
use baton_core::state::{AdminState, ReleaseHow};
use baton_core::time::Millis;

use crate::support::acts::admin;
use crate::support::{World, instance, service};

/// So many services, each with an active `a` and a well `b`.
fn services(count: usize) -> World {
    let mut world = World::new();
    for name in names(count) {
        world.put_service(&name, |_| {});
        for (id, priority) in [("a", 2), ("b", 1)] {
            world.put_instance(&name, id, |registration| registration.priority = priority);
            world.everyone_says(&name, id, Verdict::Up);
        }
    }
    world.play(Millis::secs(60));
    assert!(names(count).iter().all(|name| active(&world, name) == "a"));
    world
}

fn names(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("s{number}")).collect()
}

fn active(world: &World, name: &str) -> String {
    world.active(name).map_or_else(String::new, |(id, _)| id)
}

fn moved(world: &World, count: usize) -> usize {
    names(count).iter().filter(|name| active(world, name) == "b").count()
}

/// The actives of the first `ill` of `count` services fall ill at once; how many are moved, and whether the brake is set.
fn at_once(count: usize, ill: usize) -> (usize, bool) {
    let mut world = services(count);
    for name in names(ill) {
        world.everyone_says(&name, "a", Verdict::Down);
    }
    world.play(Millis::secs(30));
    (moved(&world, count), world.state.meta.brake.is_some())
}

/// The same, but each is moved before the next one falls ill, a second later.
fn one_by_one(count: usize, ill: usize) -> (usize, bool) {
    let mut world = services(count);
    for name in names(ill) {
        world.everyone_says(&name, "a", Verdict::Down);
        world.play(Millis::secs(1));
    }
    (moved(&world, count), world.state.meta.brake.is_some())
}

#[test]
fn three_and_more_than_half_set_it_and_nothing_less() {
    for (count, ill, braked) in [
        (5, 3, true),
        (3, 3, true),
        (4, 3, true),
        (4, 4, true),
        (2, 2, false),
        (1, 1, false),
        (3, 2, false),
        (5, 2, false),
        (6, 3, false),
        (6, 4, true),
        (7, 3, false),
    ] {
        let expected = if braked { (0, true) } else { (ill, false) };
        assert_eq!(at_once(count, ill), expected, "{ill} of {count}, all seen before anything is done");
    }
}

#[test]
fn it_is_counted_as_it_would_be_after_the_move() {
    // Two have moved; the one that is about to is the third.
    assert_eq!(one_by_one(5, 3), (2, true));
    assert_eq!(one_by_one(3, 3), (2, true));
    assert_eq!(one_by_one(2, 2), (2, false));
    assert_eq!(one_by_one(6, 3), (3, false));
    assert_eq!(one_by_one(6, 4), (3, true));
}

#[test]
fn what_failed_over_more_than_ten_seconds_ago_does_not_count() {
    for (pause, braked) in [(Millis(9_999), true), (Millis(10_000), false)] {
        let mut world = services(5);
        for name in ["s1", "s2"] {
            world.everyone_says(name, "a", Verdict::Down);
        }
        world.play(pause);
        assert_eq!(moved(&world, 5), 2);
        world.everyone_says("s3", "a", Verdict::Down);
        world.play(Millis::ZERO);
        assert_eq!(world.state.meta.brake.is_some(), braked, "{pause} later");
    }
}

#[test]
fn the_alarm_names_the_numbers_and_every_service_is_held() {
    let mut world = services(5);
    for name in ["s1", "s2", "s3"] {
        world.everyone_says(name, "a", Verdict::Down);
    }
    assert_eq!(world.decision("s2"), Decision::Brake);
    assert_eq!(world.plan("s2").command, Some(Command::BrakeSet));
    world.play(Millis::ZERO);
    let told = world.last_of(EventKind::AutomationBraked);
    assert!(told.service.is_none() && told.reason.starts_with("3 of 5 services want to fail over"), "{}", told.reason);

    // The fourth falls ill an hour later: the brake holds until somebody releases it.
    world.play(Millis::secs(3_600));
    world.everyone_says("s4", "a", Verdict::Down);
    world.play(Millis::secs(3_600));
    assert_eq!((moved(&world, 5), world.holds("s4")), (0, vec!["brake".to_owned()]));
    assert_eq!(world.decision("s5"), Decision::Nothing, "and those that are well stay as they are");
}

#[test]
fn it_is_not_set_on_hearsay() {
    let mut world = services(3);
    world.everyone_says("s1", "a", Verdict::Down);
    assert!(matches!(world.refused(Command::BrakeSet), Refusal::MovedOn { .. }));
}

#[test]
fn a_plan_of_before_is_refused_when_it_would_be_one_too_many() {
    let mut world = services(3);
    world.everyone_says("s1", "a", Verdict::Down);
    let planned = world.plan("s1").command.expect("one alone is moved");
    for name in ["s2", "s3"] {
        world.everyone_says(name, "a", Verdict::Down);
    }
    let refused = world.refused(planned);
    assert!(matches!(&refused, Refusal::AutomationHeld { why, .. } if why.starts_with("3 of 3 services")), "{refused}");
}

#[test]
fn an_operators_failover_passes_and_says_nothing_about_the_others() {
    let mut world = services(3);
    for name in ["s1", "s2", "s3"] {
        world.everyone_says(name, "a", Verdict::Down);
    }
    world.play(Millis::ZERO);
    let plan = world.ask_of("s1", ManualMove::Failover, None, &Facts::default()).expect("an operator may");
    assert_eq!(plan.bypasses.iter().map(|gate| gate.gate.as_str()).collect::<Vec<_>>(), ["brake"]);
    world.must(plan.command.expect("something to do"));
    world.play(Millis::secs(60));
    assert_eq!((active(&world, "s1").as_str(), moved(&world, 3)), ("b", 1));
    assert!(world.state.meta.brake.is_some());
}

#[test]
fn once_released_it_is_not_set_again_by_what_was_wanted_before() {
    let mut world = services(5);
    for name in names(5) {
        world.everyone_says(&name, "a", Verdict::Down);
    }
    world.play(Millis::secs(60));
    assert_eq!(moved(&world, 5), 0);
    world.resume(None).expect("bob has looked");
    assert!(world.last_of(EventKind::AutomationResumed).reason.contains("bob ended the brake"));
    world.play(Millis::ZERO);
    assert_eq!((moved(&world, 5), world.state.meta.brake.is_some()), (5, false), "all five, one after the other");

    // What fails after that is another matter.
    world.play(Millis::secs(60));
    for name in names(5) {
        world.everyone_says(&name, "a", Verdict::Up);
    }
    for name in names(3) {
        world.everyone_says(&name, "b", Verdict::Down);
    }
    world.play(Millis::ZERO);
    assert!(world.state.meta.brake.is_some(), "three new ones of five");
}

#[test]
fn an_open_move_counts_and_is_held() {
    let mut world = services(3);
    for name in ["s1", "s2"] {
        world.everyone_says(name, "b", Verdict::Down);
        world.everyone_says(name, "a", Verdict::Down);
    }
    world.play(Millis::secs(60));
    assert!(world.active("s1").is_none() && world.active("s2").is_none(), "they wait for somebody to promote");
    world.everyone_says("s3", "a", Verdict::Down);
    world.play(Millis::ZERO);
    assert!(world.state.meta.brake.is_some(), "two that wait and one that is about to");
    world.everyone_says("s1", "b", Verdict::Up);
    world.play(Millis::secs(60));
    assert_eq!(world.active("s1"), None, "another one is not promoted");
    world.everyone_says("s1", "a", Verdict::Up);
    world.play(Millis::secs(60));
    assert_eq!(active(&world, "s1"), "a", "but whoever had it gets it back: that is no move");
}

#[test]
fn what_operators_and_failbacks_move_is_no_failure() {
    let mut world = services(3);
    // alice isolates two, and moves none by hand.
    for name in ["s1", "s2"] {
        world.must(admin(name, "a", AdminState::Isolated, None));
    }
    world.play(Millis::secs(1));
    assert_eq!(moved(&world, 3), 2);
    world.everyone_says("s3", "a", Verdict::Down);
    world.play(Millis::secs(1));
    assert_eq!((moved(&world, 3), world.state.meta.brake.is_some()), (3, false), "one failed");

    let mut world = services(3);
    for name in names(3) {
        world.put_service(&name, |spec| {
            spec.failback.mode = FailbackMode::Automatic;
            spec.failback.stable_for = Millis::secs(120);
            spec.failover.min_interval = Millis::ZERO;
        });
        world.everyone_says(&name, "a", Verdict::Down);
        world.play(Millis::secs(20));
    }
    assert_eq!(moved(&world, 3), 3, "one after the other, no two at once");
    for name in names(3) {
        world.everyone_says(&name, "a", Verdict::Up);
    }
    world.play(Millis::secs(120));
    assert_eq!(moved(&world, 3), 0, "all three went back in the same moment");
    world.everyone_says("s1", "a", Verdict::Down);
    world.play(Millis::ZERO);
    assert_eq!((moved(&world, 3), world.state.meta.brake.is_some()), (1, false), "and one failure is one");
}

#[test]
fn nothing_is_given_back_while_it_is_set() {
    let mut world = services(4);
    world.put_service("s4", |spec| {
        spec.failback.mode = FailbackMode::Automatic;
        spec.failback.stable_for = Millis::secs(30);
        spec.failover.min_interval = Millis::ZERO;
    });
    world.everyone_says("s4", "a", Verdict::Down);
    world.play(Millis::secs(20));
    world.everyone_says("s4", "a", Verdict::Up);
    for name in ["s1", "s2", "s3"] {
        world.everyone_says(name, "a", Verdict::Down);
    }
    world.play(Millis::secs(300));
    assert_eq!((active(&world, "s4").as_str(), world.holds("s4").contains(&"brake".to_owned())), ("b", true));
    world.resume(None).expect("bob has looked");
    world.play(Millis::ZERO);
    assert_eq!(active(&world, "s4"), "a");
}

#[test]
fn holders_that_say_themselves_that_they_stop_are_no_failure() {
    // A host is shut down, with all the services that it holds.
    let release = |world: &World, name: &str| {
        let (service, instance) = (service(name), instance("a"));
        let token = Token(world.active(name).expect("an active").1);
        let (how, reason) = (ReleaseHow::Said, "its host is shut down".to_owned());
        Command::Release(Release { service, instance, session: None, token, leaving: false, how, reason })
    };
    let mut world = services(4);
    for name in names(3) {
        let released = release(&world, &name);
        world.must(released);
        // Nobody there takes it for well any more either.
        world.everyone_says(&name, "a", Verdict::Down);
    }
    world.play(Millis::ZERO);
    assert_eq!((moved(&world, 3), world.state.meta.brake.is_some()), (3, false), "all three of four, at once");
    world.everyone_says("s4", "a", Verdict::Down);
    world.play(Millis::secs(1));
    assert_eq!((moved(&world, 4), world.state.meta.brake.is_some()), (4, false), "and one that failed is one");

    // One of three that are taken for dead has said so, and does not count.
    let mut world = services(4);
    for name in names(3) {
        world.everyone_says(&name, "a", Verdict::Down);
    }
    let released = release(&world, "s1");
    world.must(released);
    world.play(Millis::ZERO);
    assert!(world.state.meta.brake.is_none(), "two of four");
    assert_eq!(moved(&world, 4), 3);
}
