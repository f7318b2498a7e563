//! Pauses: somebody works on it, and answers for it, until a given end.

use baton_core::command::{Command, Refusal};
use baton_core::event::EventKind;
use baton_core::planner::{Decision, ManualMove, pauses_due};
use baton_core::time::{Millis, WallTime};

use super::play::free;
use crate::support::{World, service};

const HOUR: Millis = Millis::secs(3_600);

#[test]
fn a_paused_service_stays_where_it_is_until_the_end_that_was_given() {
    let mut world = World::orders();
    let paused_at = world.now;
    world.pause(Some("orders"), HOUR);
    let told = world.last_of(EventKind::AutomationPaused);
    assert_eq!((told.service.clone(), told.actor.as_deref()), (Some(service("orders")), Some("alice")));
    world.down("a");
    assert_eq!((world.decision("orders"), world.holds("orders")), (Decision::Hold, vec!["paused".to_owned()]));
    let gate = world.the_gate("orders", "paused");
    assert_eq!(gate.at_most, Some(HOUR));
    let until = WallTime(1_763_635_320_000 + paused_at.plus(HOUR).0 as i64);
    let wanted = format!("paused until {until} by net-team: new switches");
    assert!(gate.why.contains(&wanted), "who answers for it, and why: {}", gate.why);

    world.play(Millis(HOUR.0 - 1));
    assert_eq!(world.who().as_deref(), Some("a"));
    assert_eq!(pauses_due(&world.state, world.now), []);
    world.play(Millis(1));
    assert_eq!(world.who().as_deref(), Some("b"), "the time that was given is over");
    assert_eq!(world.service("orders").rails.pause, None);
    let told = world.last_of(EventKind::AutomationResumed);
    assert_eq!((told.actor.as_deref(), told.reason.as_str()), (None, "the pause of net-team is over: new switches"));
}

#[test]
fn a_pause_ends_earlier_when_somebody_says_so_and_never_on_hearsay() {
    let mut world = World::orders();
    world.pause(Some("orders"), HOUR);
    world.down("a");
    let early = world.refused(Command::AutomationDue { service: Some(service("orders")) });
    assert!(matches!(early, Refusal::MovedOn { .. }), "{early}");
    world.play(Millis::secs(60));
    assert_eq!(world.who().as_deref(), Some("a"));
    world.resume(Some("orders")).expect("bob ends it");
    assert!(world.last_of(EventKind::AutomationResumed).reason.contains("bob ended its pause: it was looked at"));
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("b"));
}

#[test]
fn a_pause_of_all_holds_each_and_the_later_of_two_ends_counts() {
    let mut world = World::orders();
    world.pause(None, HOUR);
    world.pause(Some("orders"), Millis::secs(60));
    world.down("a");
    world.play(Millis::secs(61));
    assert_eq!(world.who().as_deref(), Some("a"), "its own pause is over, that of all is not");
    let why = world.the_gate("orders", "paused").why;
    assert!(why.starts_with("the automation of all services is paused"), "{why}");
    world.resume(Some("orders")).expect_err("that ends no pause of all");
    world.resume(None).expect("bob ends it");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("b"));
}

#[test]
fn a_pause_of_all_ends_by_itself() {
    let mut world = World::orders();
    world.pause(None, HOUR);
    world.down("a");
    world.play(HOUR);
    assert_eq!((world.who().as_deref(), &world.state.meta.pause), (Some("b"), &None));
}

#[test]
fn an_operator_moves_a_paused_service() {
    let mut world = World::orders();
    world.pause(Some("orders"), HOUR);
    world.pause(None, HOUR);
    world.asked(ManualMove::Switchover, Some("c"));
    assert_eq!(world.who().as_deref(), Some("c"));
    world.down("c");
    world.asked(ManualMove::Failover, None);
    assert_eq!(world.who().as_deref(), Some("a"));
    assert!(world.service("orders").rails.pause.is_some(), "and the pause goes on");
}

#[test]
fn placements_are_held_too() {
    let mut world = World::new();
    world.pause(None, HOUR);
    world.put_service("orders", |_| {});
    world.put_instance("orders", "a", |_| {});
    world.up("a");
    world.play(Millis::secs(60));
    assert_eq!(world.who(), None);
    assert_eq!(world.holds("orders"), ["paused"]);
    assert!(world.report("orders").summary.contains("paused until"), "{}", world.report("orders").summary);
    world.resume(None).expect("bob ends it");
    world.play(Millis::ZERO);
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn a_plan_that_was_made_before_the_pause_is_refused_with_its_reason() {
    let mut world = World::orders();
    world.down("a");
    let planned = world.plan("orders").command.expect("a failover is planned");
    world.pause(None, HOUR);
    let refused = world.refused(planned);
    assert!(
        matches!(&refused, Refusal::AutomationHeld { why, .. } if why.contains("net-team: new switches")),
        "{refused}"
    );
    assert_eq!(world.who().as_deref(), Some("a"));
}

#[test]
fn an_open_move_waits_for_the_end_of_a_pause_even_for_whoever_had_it() {
    let mut world = free(|_| {});
    for id in ["b", "c", "a"] {
        world.down(id);
    }
    world.play(Millis::ZERO);
    assert_eq!(world.who(), None);
    world.pause(Some("orders"), HOUR);
    world.up("a");
    world.up("b");
    world.play(Millis::secs(60));
    assert_eq!((world.who(), world.holds("orders")), (None, vec!["paused".to_owned()]));
    world.play(HOUR);
    assert!(world.who().is_some());
}

#[test]
fn a_pause_takes_nothing_away_from_one_that_has_not_acknowledged() {
    let mut world = free(|spec| spec.failover.require_ack = true);
    world.down("a");
    world.play(Millis::secs(29));
    assert_eq!(world.who().as_deref(), Some("b"));
    let late = World { state: world.state.clone(), index: world.index, now: world.now, events: Vec::new() };
    world.pause(Some("orders"), HOUR);
    world.play(Millis::secs(60));
    assert_eq!(world.who().as_deref(), Some("b"), "its time is over, and nobody else is tried");
    assert_eq!(
        (world.decision("orders"), world.holds("orders").contains(&"paused".to_owned())),
        (Decision::Hold, true)
    );
    let (_, token) = world.active("orders").expect("b");
    world.ack("b", token).expect("late, and welcome");
    assert_eq!(world.decision("orders"), Decision::Nothing);

    // Planned a moment before the pause, and carried out after it.
    let mut world = late;
    world.wait(Millis::secs(1));
    let planned = world.plan("orders").command.expect("its time is over");
    world.pause(Some("orders"), HOUR);
    assert!(matches!(world.refused(planned), Refusal::AutomationHeld { .. }));
    assert_eq!(world.who().as_deref(), Some("b"));
}
