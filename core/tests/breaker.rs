//! Breakers through the log: opened, tried, closed, with late results refused and every change told with its numbers.
//!
//! The table is that of resilience4j's `CircuitBreaker` (closed, open, half-open; the last permitted calls decide), with
//! the stricter half-open of Hystrix and gobreaker: any failure reopens, all trial calls good closes.

mod support;

use baton_core::breaker::BreakerState::{self, Closed, HalfOpen, Open};
use baton_core::command::{Command, Done, InstancesDue, Refusal};
use baton_core::event::EventKind;
use baton_core::probe::Verdict;
use baton_core::time::Millis;
use support::{World, instance, service};

#[test]
fn it_opens_waits_lets_trial_calls_through_and_closes_again() {
    let mut world = World::orders();
    let from = world.events.len();
    world.trip("b", 1, 5).expect("it opens");
    assert_eq!((world.breaker("b").state, world.breaker("b").generation), (Open, 2));
    world.pass(Millis(29_999));
    assert_eq!(world.breaker("b").state, Open);
    world.pass(Millis(1));
    assert_eq!((world.breaker("b").state, world.breaker("b").generation), (HalfOpen, 3));
    for _ in 0..3 {
        assert_eq!(world.grant("b", 3), Ok(Done::Granted { generation: 3 }));
    }
    world.tried("b", 3, 2, 0).expect("counted");
    assert_eq!((world.breaker("b").state, world.breaker("b").successes), (HalfOpen, 2));
    world.tried("b", 3, 1, 0).expect("counted");
    assert_eq!((world.breaker("b").state, world.breaker("b").generation), (Closed, 4));

    let told: Vec<(String, String)> = world.events[from..]
        .iter()
        .filter(|event| event.kind == EventKind::InstanceBreakerChanged)
        .map(|event| (event.to.clone().flatten().unwrap_or_default(), event.reason.clone()))
        .collect();
    let expected = [
        (
            "open",
            "5 of 8 calls failed, 5 in a row, the last one server_error; 5 in a row are enough: open for 30s (first trip)",
        ),
        ("half_open", "it was open for 30s: trial calls may show how it is"),
        ("closed", "3 trial calls in a row went well"),
    ];
    assert_eq!(told, expected.map(|(to, reason)| (to.to_owned(), reason.to_owned())));
}

#[test]
fn the_state_table() {
    // What happens to a breaker in each state, and where it is then.
    #[derive(Clone, Copy, Debug)]
    enum Input {
        Trips,
        TimeIsUp,
        EveryTrialIsGood,
        SomeTrialsAreGood,
        OneTrialFails,
        Reset,
    }
    use Input::{EveryTrialIsGood, OneTrialFails, Reset, SomeTrialsAreGood, TimeIsUp, Trips};
    let table: [(BreakerState, Input, BreakerState); 18] = [
        (Closed, Trips, Open),
        (Closed, TimeIsUp, Closed),
        (Closed, EveryTrialIsGood, Closed),
        (Closed, SomeTrialsAreGood, Closed),
        (Closed, OneTrialFails, Closed),
        (Closed, Reset, Closed),
        (Open, Trips, Open),
        (Open, TimeIsUp, HalfOpen),
        (Open, EveryTrialIsGood, Open),
        (Open, SomeTrialsAreGood, Open),
        (Open, OneTrialFails, Open),
        (Open, Reset, Closed),
        (HalfOpen, Trips, Open),
        (HalfOpen, TimeIsUp, HalfOpen),
        (HalfOpen, EveryTrialIsGood, Closed),
        (HalfOpen, SomeTrialsAreGood, HalfOpen),
        (HalfOpen, OneTrialFails, Open),
        (HalfOpen, Reset, Closed),
    ];
    for (state, input, then) in table {
        let mut world = World::orders();
        match state {
            Closed => {}
            Open => {
                world.trip("b", 1, 5).expect("it opens");
            }
            HalfOpen => world.half_open("b"),
        }
        let before = world.breaker("b").clone();
        let from = world.events.len();
        match input {
            Trips => world.trip("b", before.generation, 5).map(drop).expect("taken"),
            TimeIsUp => world.pass(Millis::secs(30)),
            EveryTrialIsGood => world.tried("b", before.generation, 3, 0).map(drop).expect("taken"),
            SomeTrialsAreGood => world.tried("b", before.generation, 2, 0).map(drop).expect("taken"),
            OneTrialFails => world.tried("b", before.generation, 2, 1).map(drop).expect("taken"),
            Reset => world.reset("b").map(drop).expect("taken"),
        }
        let after = world.breaker("b");
        assert_eq!(after.state, then, "{state} and {input:?}");
        let told = world.kinds_since(from).get("instance.breaker_changed").copied().unwrap_or(0);
        assert_eq!(told, usize::from(state != then), "{state} and {input:?}: each change is told once");
        let counted = state != then || matches!(input, Reset);
        assert_eq!(after.generation, before.generation + u64::from(counted), "{state} and {input:?}");
    }
}

#[test]
fn late_results_are_refused_and_change_nothing() {
    let mut world = World::orders();
    world.half_open("b");
    let now = world.breaker("b").generation;
    let before = world.at("orders", "b").clone();
    for late in [0, 1, now - 1, now + 1] {
        for reply in [
            world.trip("b", late, 9),
            world.tried("b", late, 3, 0),
            world.tried("b", late, 0, 1),
            world.grant("b", late),
        ] {
            assert!(matches!(reply, Err(Refusal::MovedOn { .. })), "generation {late}: {reply:?}");
        }
    }
    assert_eq!(*world.at("orders", "b"), before);
    // A reset makes late what was in time.
    world.reset("b").expect("taken");
    assert!(matches!(world.tried("b", now, 0, 1), Err(Refusal::MovedOn { .. })));
    assert_eq!(world.breaker("b").state, Closed);
}

#[test]
fn trial_calls_are_bounded_across_the_cluster_and_time_out() {
    let mut world = World::orders();
    assert!(matches!(world.grant("b", 1), Err(Refusal::NoTrial { .. })), "closed: nobody needs one");
    world.trip("b", 1, 5).expect("it opens");
    assert!(matches!(world.grant("b", 2), Err(Refusal::NoTrial { .. })), "open: nobody gets one");
    world.pass(Millis::secs(30));
    // Three of five that ask in one entry get one, whichever node they asked.
    let asked = (0..5).map(|_| support::acts::grant("orders", "b", 3)).collect();
    let granted = world.batch(asked).into_iter().filter(Result::is_ok).count();
    assert_eq!((granted, world.breaker("b").trials.len()), (3, 3));
    world.pass(Millis(9_999));
    let refusal = world.grant("b", 3).expect_err("all are out");
    assert!(refusal.to_string().contains("3 trial calls are out already"), "{refusal}");
    world.pass(Millis(1));
    world.grant("b", 3).expect("nobody heard of the first three");
    // One that ended gives its place to another.
    let one_more = |world: &mut World| (0..3).filter(|_| world.grant("b", 3).is_ok()).count();
    assert_eq!(one_more(&mut world), 2);
    world.tried("b", 3, 1, 0).expect("counted");
    assert_eq!(one_more(&mut world), 1);
    // Whoever called without asking took no place, and has none to give. That it went well counts all the same.
    world.tried_unasked("b", 3, 1).expect("counted");
    assert_eq!((one_more(&mut world), world.breaker("b").successes), (0, 2));
}

#[test]
fn each_trip_in_a_row_stays_open_longer_and_a_good_while_ends_the_row() {
    let mut world = World::orders();
    let mut lengths = Vec::new();
    for _ in 0..5 {
        world.half_open("b");
        lengths.push(world.breaker("b").open_for.0 / 1_000);
    }
    assert_eq!(lengths, [30, 60, 120, 240, 300], "doubled, and at most open_for_max");
    let generation = world.breaker("b").generation;
    world.tried("b", generation, 3, 0).expect("it closes");
    world.pass(Millis::secs(300));
    world.trip("b", generation + 1, 5).expect("it opens");
    assert_eq!((world.breaker("b").trips, world.breaker("b").open_for), (1, Millis::secs(30)));
}

#[test]
fn an_open_breaker_takes_it_from_candidacy_and_an_active_keeps_its_token() {
    let mut world = World::orders();
    let before = world.active("orders");
    world.trip("a", 1, 5).expect("it opens");
    world.settle("orders");
    assert_eq!(
        world.active("orders"),
        before,
        "calls that fail are no proof that it is down: that is judged by itself"
    );
    world.trip("b", 1, 5).expect("it opens");
    world.everyone_says("orders", "a", Verdict::Down);
    world.settle("orders");
    assert_eq!(world.active("orders").map(|(id, _)| id).as_deref(), Some("c"));
}

#[test]
fn nothing_is_due_before_its_time_whoever_says_so() {
    let mut world = World::orders();
    world.trip("b", 1, 5).expect("it opens");
    let due = || {
        Command::InstancesDue(InstancesDue {
            service: service("orders"),
            instances: vec![instance("b")],
            missing: Vec::new(),
        })
    };
    world.wait(Millis(29_999));
    world.must(due());
    assert_eq!(world.breaker("b").state, Open, "the clock of the entry decides, not the proposer");
    world.wait(Millis(1));
    world.must(due());
    assert_eq!(world.breaker("b").state, HalfOpen);
}

#[test]
fn the_event_names_the_rule_that_was_met() {
    let told = |world: &World| world.last_of(EventKind::InstanceBreakerChanged).reason.clone();
    let mut world = World::orders();
    world.trip("b", 1, 4).expect("it opens");
    assert_eq!(
        told(&world),
        "4 of 7 calls failed, 4 in a row, the last one server_error: open for 30s (first trip)",
        "neither rule of the policy is met, and none is named"
    );
    world.trip("c", 1, 7).expect("it opens");
    assert_eq!(
        told(&world),
        "7 of 10 calls failed, 7 in a row, the last one server_error; 5 in a row are enough, and 50 % of at least 10 calls \
         are enough: open for 30s (first trip)"
    );
    world.pass(Millis::secs(30));
    world.tried("c", 3, 1, 1).expect("counted");
    assert_eq!(
        told(&world),
        "1 of 2 calls failed, 1 in a row, the last one server_error; one failed trial call is enough: open for 1m (trip 2 \
         in a row)"
    );
    world.put_service("orders", |spec| {
        spec.breaker.consecutive_failures = 50;
        spec.breaker.error_rate = 0.125;
    });
    world.trip("a", 1, 7).expect("it opens");
    assert!(told(&world).contains("; 12.5 % of at least 10 calls are enough: open"), "{}", told(&world));
}
