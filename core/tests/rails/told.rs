//! `baton explain SERVICE` in all phases: a report as a few plain sentences for a tired person.

use baton_core::lease::LeaseStanding;
use baton_core::planner::{Facts, ManualMove, ServiceReport, plan_service};
use baton_core::policy::{FailbackMode, Liveness, Mode};
use baton_core::probe::Verdict;
use baton_core::rules::PauseScope;
use baton_core::state::{AdminState, Phase};
use baton_core::time::Millis;

use super::play::free;
use crate::support::World;

/// Asserts what is told, line by line; `@` stands for the day, which is always the same.
#[track_caller]
fn tells(report: &ServiceReport, lines: &[&str]) {
    let told = report.paragraph().replace("2025-11-20T10:4", "@");
    assert_eq!(told.lines().collect::<Vec<_>>(), lines, "\n{told}");
}

#[track_caller]
fn told(world: &World, phase: Phase, lines: &[&str]) {
    assert_eq!(world.service("orders").assignment.phase, phase);
    tells(&world.report("orders"), lines);
    // It is told by whoever asks over the wire as well.
    let report = world.report("orders");
    let json = serde_json::to_string(&report).expect("it serializes");
    assert_eq!(serde_json::from_str::<ServiceReport>(&json).expect("and comes back").paragraph(), report.paragraph());
}

const ILL: &str = "it is unhealthy: nodes 1, 2 and 3 say down (tcp failed 3 in a row, connection: connection refused).";

#[test]
fn a_vacant_service() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    let empty = "\"orders\" has no active instance; there has not been one yet.";
    let waits = "Baton waits: no instance is registered. It goes on by itself as soon as one is registered.";
    told(&world, Phase::Vacant, &[empty, waits]);

    world.put_instance("orders", "a", |registration| registration.priority = 300);
    world.put_instance("orders", "b", |_| {});
    world.up("b");
    told(
        &world,
        Phase::Vacant,
        &[
            empty,
            "Baton waits: 1 not seen yet (a); waiting up to 2s, so that priority counts. That takes 2s at most, unless \
             something else happens.",
            "You can move it now: `baton failover orders --to b --reason …`.",
            "\"b\" could take over.",
            "\"a\" cannot take over: nobody who looks has anything to say of it: its health is unknown.",
        ],
    );
    world.up("a");
    let placing = "Baton is making \"a\" the active instance now.";
    told(&world, Phase::Vacant, &[empty, placing, "\"a\" and \"b\" could take over, in that order."]);
}

#[test]
fn an_active_that_is_well_doubted_or_not_to_be_called() {
    let mut world = World::orders();
    let active = "\"a\" is the active instance of \"orders\" since @2:01.000Z, with token 17. It is healthy.";
    let others = "\"b\" and \"c\" could take over, in that order.";
    let move_it = "You can move it all the same: `baton switchover orders --to b --reason …`.";
    told(&world, Phase::Active, &[active, "There is nothing to do.", move_it, others]);

    world.verdict(1, "orders", "a", Verdict::Suspect).expect("taken");
    told(
        &world,
        Phase::Active,
        &[
            "\"a\" is the active instance of \"orders\" since @2:01.000Z, with token 17. \"a\" is suspect: 0 of 3 observers \
             say down, 2 are needed.",
            "That is not enough to replace it.",
            "You can move it all the same: `baton failover orders --to b --reason …`.",
            others,
        ],
    );
    world.verdict(1, "orders", "a", Verdict::Up).expect("taken");
    world.admin("a", AdminState::Draining, None).expect("it drains");
    let nobody = "There is nothing to do. But callers get nobody: its active \"a\" is not to be called: draining.";
    told(&world, Phase::Active, &[active, nobody, move_it, others]);
}

#[test]
fn an_active_that_is_down() {
    let mut world = World::orders();
    world.down("a");
    let down = "\"a\" is the active instance of \"orders\" since @2:01.000Z, with token 17. \"a\" is unhealthy: 3 of 3 \
                observers say down, 2 are needed.";
    let others = "\"b\" and \"c\" could take over, in that order.";
    told(&world, Phase::Active, &[down, "Baton is moving it to \"b\" now.", others]);

    let by_hand = "  - move it now: `baton failover orders --to b --reason …`.";
    world.pause(Some("orders"), Millis::secs(600));
    told(
        &world,
        Phase::Active,
        &[
            down,
            "Baton waits: the automation of this service is paused until 2025-11-20T10:52:01.000Z by net-team: new switches; \
             a resume of this service ends that. That takes 10m at most, unless something else happens.",
            "You can",
            "  - end the pause: `baton resume orders --reason …`;",
            by_hand,
            others,
        ],
    );
    world.resume(Some("orders")).expect("it ends");
    world.pause(None, Millis::secs(600));
    let lines = world.report("orders").paragraph();
    assert!(lines.contains("end the pause of all: `baton resume --all --reason …`"), "{lines}");
    assert!(!lines.contains("baton resume orders"), "{lines}");
    world.resume(None).expect("it ends");
    world.put_service("orders", |spec| spec.failover.automatic = false);
    told(
        &world,
        Phase::Active,
        &[
            down,
            "Baton waits: failover.automatic is off: only an operator moves this service. That does not end by itself: \
             somebody has to act.",
            "You can move it now: `baton failover orders --to b --reason …`.",
            others,
        ],
    );
}

#[test]
fn both_pauses_are_told_each_with_its_end() {
    let mut world = World::orders();
    world.down("a");
    world.pause(Some("orders"), Millis::secs(600));
    world.pause(None, Millis::secs(1_200));
    let lines = world.report("orders").paragraph();
    let own = lines.find("the automation of this service is paused").expect(&lines);
    assert!(lines[own..].contains("the automation of all services is paused"), "{lines}");
    assert!(lines.contains("That takes 20m at most"), "{lines}");
    let both = "  - end the pause: `baton resume orders --reason …`;\n  - end the pause of all: `baton resume --all --reason …`;";
    assert!(lines.contains(both), "{lines}");
    world.resume(Some("orders")).expect("it ends");
    assert_eq!(world.the_gate("orders", "paused").scope, Some(PauseScope::All));
}

#[test]
fn it_does_not_go_on_by_itself_while_something_else_holds_too() {
    let mut world = World::orders();
    for id in ["b", "c", "a"] {
        world.down(id);
    }
    world.pause(Some("orders"), Millis::secs(600));
    let lines = world.report("orders").paragraph();
    let until = "It goes on by itself as soon as one of them can, and the rest is over too (that takes 10m at most, unless \
                 something else happens); nobody knows when that is.";
    assert!(lines.contains(until), "{lines}");
}

#[test]
fn a_lone_instance_that_is_sick() {
    let mut world = World::new();
    world.put_service("orders", |spec| spec.failover.automatic = false);
    world.put_instance("orders", "a", |_| {});
    world.up("a");
    world.play(Millis::secs(5));
    world.down("a");
    let lines = world.report("orders").paragraph();
    assert!(
        lines.contains("somebody has to act.\nYou can start or repair \"a\", or register another instance."),
        "{lines}"
    );
}

#[test]
fn a_candidate_that_is_too_far_behind() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.failover.max_lag = Some(10));
    world.down("a");
    world.down("c");
    world.play(Millis::ZERO);
    let lines = world.plan_knowing("orders", &[("b", 11)]).report.paragraph();
    let advice = "You can let \"b\" catch up, or raise failover.max_lag if what it lacks may be lost.";
    assert!(lines.contains(advice), "{lines}");
}

#[test]
fn advice_hangs_on_no_wording() {
    let mut world = World::orders();
    world.down("a");
    world.pause(None, Millis::secs(600));
    let mut report = world.report("orders");
    for gate in &mut report.gates {
        gate.why = "reworded".to_owned();
    }
    report.summary = "reworded".to_owned();
    assert!(
        report.paragraph().contains("end the pause of all: `baton resume --all --reason …`"),
        "{}",
        report.paragraph()
    );

    let mut world = World::orders();
    world.admin("a", AdminState::Draining, None).expect("it drains");
    let mut report = world.report("orders");
    report.summary = "reworded".to_owned();
    assert!(report.paragraph().contains("But callers get nobody: its active \"a\" is"), "{}", report.paragraph());

    let mut world = free(|_| {});
    world.down("a");
    world.play(Millis::ZERO);
    world.up("a");
    let mut report = world.report("orders");
    for gate in &mut report.gates {
        gate.why = "reworded".to_owned();
    }
    assert!(report.paragraph().contains("`baton failback orders --reason …`"), "{}", report.paragraph());
}

#[test]
fn rails_that_hold() {
    let mut world = World::orders();
    world.down("a");
    world.play(Millis::ZERO);
    world.up("a");
    world.wait(Millis::secs(20));
    world.down("b");
    let lines = world.report("orders").paragraph();
    let waits = "Baton waits: the last automatic move was 20s ago, min_interval is 1m. That takes 40s at most, unless \
                 something else happens.\nYou can move it now: `baton failover orders --to a --reason …`.";
    assert!(lines.contains(waits), "{lines}");

    world.put_service("orders", |spec| (spec.failover.min_interval, spec.failover.max_in_window) = (Millis::ZERO, 1));
    let lines = world.report("orders").paragraph();
    let sets = "Baton stops moving it by itself now, until somebody has looked.";
    assert!(lines.contains(sets), "{lines}");
    world.play(Millis::ZERO);
    let lines = world.report("orders").paragraph();
    let waits = "Baton waits: it was moved once within 1h, and max_in_window is 1: an operator must look, and then resume \
                 it. That does not end by itself: somebody has to act.\nYou can\n  - say that you have looked: `baton \
                 resume orders --reason …`;\n  - move it now: `baton failover orders --to a --reason …`.";
    assert!(lines.contains(waits), "{lines}");
}

#[test]
fn the_brake() {
    let mut world = World::orders();
    for name in ["bills", "carts"] {
        world.put_service(name, |_| {});
        for id in ["a", "b"] {
            world.put_instance(name, id, |_| {});
            world.everyone_says(name, id, Verdict::Up);
        }
    }
    world.play(Millis::secs(5));
    for name in ["bills", "carts", "orders"] {
        world.everyone_says(name, "a", Verdict::Down);
    }
    world.play(Millis::ZERO);
    let lines = world.report("orders").paragraph();
    let waits = "Baton waits: the brake is set: 3 of 3 services wanted to fail over at once, which looks like one cause and \
                 not many; a resume of all services releases it. That does not end by itself: somebody has to act.\nYou \
                 can\n  - release the brake: `baton resume --all --reason …`;\n  - move it now: `baton failover orders --to \
                 b --reason …`.";
    assert!(lines.contains(waits), "{lines}");
}

#[test]
fn a_failover_that_waits_for_somebody_to_promote() {
    let mut world = World::orders();
    for id in ["b", "c", "a"] {
        world.down(id);
    }
    world.play(Millis::ZERO);
    let open = "\"orders\" has no active instance; \"a\" was the last. At @2:01.000Z Baton began a failover away from \"a\": \
                \"a\" is down: 3 of 3 observers say so, 2 are enough; nodes 1, 2 and 3 say down (tcp failed 3 in a row, \
                connection: connection refused).";
    let (a, b, c) = (
        format!("\"a\" cannot take over: {ILL}"),
        format!("\"b\" cannot take over: {ILL}"),
        format!("\"c\" cannot take over: {ILL}"),
    );
    let waits = "Baton waits: no instance can take over. It goes on by itself as soon as one of them can; nobody knows when \
                 that is.";
    let repair = "You can start or repair \"a\", \"b\" or \"c\", or register another instance.";
    told(&world, Phase::FailingOver, &[open, waits, repair, &a, &b, &c]);

    world.up("c");
    world.admin("c", AdminState::Draining, None).expect("it drains");
    let enable = "You can let \"c\" in again: `baton admin orders c enabled --reason …`.";
    let c = "\"c\" cannot take over: alice set it draining: new disks.";
    told(&world, Phase::FailingOver, &[open, waits, enable, &a, &b, c]);

    world.put_service("orders", |spec| {
        (spec.failover.min_healthy, spec.recovery.cooldown) = (Millis::secs(90), Millis::ZERO);
    });
    world.admin("c", AdminState::Enabled, None).expect("it is let in");
    world.wait(Millis::secs(20));
    let waits = "Baton waits: no instance can take over. That takes 70s at most, unless something else happens.";
    let c = "\"c\" cannot take over: it has been healthy for 20s, min_healthy is 90s.";
    told(&world, Phase::FailingOver, &[open, waits, &a, &b, c]);
}

#[test]
fn a_switchover_that_waits_for_a_lease() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    for (id, priority) in [("a", 3), ("b", 2), ("c", 1)] {
        world.put_instance("orders", id, |it| (it.liveness, it.priority) = (Liveness::Heartbeat, priority));
        world.up(id);
    }
    world.play(Millis::secs(5));
    world.asked(ManualMove::Switchover, Some("b"));
    let lease = LeaseStanding::Runs { left: Millis::secs(8), renewed_ago: None };
    let facts = Facts { node: 1, term: 1, lease, ..Facts::default() };
    let report = |world: &World| plan_service(&world.state, world.service("orders"), &facts, world.now, 7).report;
    assert_eq!(world.service("orders").assignment.phase, Phase::Switching);
    let open = "\"orders\" has no active instance; \"a\" was the last. At @2:06.000Z alice asked for a switchover away from \
                \"a\" to \"b\": it is wanted elsewhere.";
    let leaves = "\"a\" cannot take over: it is the instance that this move leaves.";
    tells(
        &report(&world),
        &[
            open,
            "Baton waits: \"a\" may still act: waiting for its release or the end of its lease. That \
             takes 8s at most, unless something else happens.",
            "You can say that \"a\" has stopped, if you are sure of it: `baton failover orders --to b --proof operator \
             --reason …`.",
            "\"b\" and \"c\" could take over, in that order.",
            leaves,
        ],
    );
    // The one that was asked for dies, and so does the third: rather the old one than nobody.
    world.down("b");
    world.down("c");
    let lines = report(&world).paragraph();
    assert!(lines.contains("\"a\" could take over.") && !lines.contains("this move leaves"), "{lines}");
}

#[test]
fn a_promotion_that_waits_for_its_acknowledgement() {
    let mut world = free(|spec| spec.failover.require_ack = true);
    world.asked(ManualMove::Switchover, Some("b"));
    world.wait(Millis::secs(5));
    let promoted = "\"b\" was made the active instance of \"orders\" at @2:01.000Z, with token 19, and has not said yet \
                    that it serves. At @2:01.000Z alice asked for a switchover away from \"a\" to \"b\": it is wanted \
                    elsewhere.";
    let others = "\"a\" and \"c\" could take over, in that order.";
    told(
        &world,
        Phase::Promoting,
        &[
            promoted,
            "Baton waits: \"b\" was promoted 5s ago and has not acknowledged; activation_timeout is 30s; after that the next \
             one is tried. That takes 25s at most, unless something else happens.",
            others,
        ],
    );
    world.wait(Millis::secs(25));
    told(&world, Phase::Promoting, &[promoted, "Its time for that is over: Baton is trying \"a\" next.", others]);
}

#[test]
fn a_failback_that_is_to_come() {
    let mut world = free(|spec| spec.failback.mode = FailbackMode::Automatic);
    world.down("a");
    world.play(Millis::ZERO);
    world.up("a");
    world.wait(Millis::secs(10));
    let lines = world.report("orders").paragraph();
    let later = "It will go back to the preferred instance in 290s, if nothing happens to either: \"a\" is preferred and has \
                 been healthy for 10s, failback.stable_for is 5m.";
    assert!(lines.contains(later), "{lines}");
    world.wait(Millis::secs(290));
    assert!(world.report("orders").paragraph().contains("Baton is giving it back to the preferred instance now."));

    world.put_service("orders", |_| {});
    let lines = world.report("orders").paragraph();
    assert!(
        lines.contains("You can give it back to the preferred instance: `baton failback orders --reason …`."),
        "{lines}"
    );
}

#[test]
fn a_service_of_many_actives() {
    let mut world = World::orders();
    world.put_service("orders", |spec| spec.mode = Mode::ActiveActive);
    let all =
        "\"orders\" is served by several instances at once. All that may be called serve: 3 of 3. Nothing is promoted.";
    told(&world, Phase::Vacant, &[all]);
}
