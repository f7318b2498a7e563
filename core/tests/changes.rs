//! What is said of an instance changes while its session goes on: whoever is active stays it, and owes and holds what it did.

mod support;

use baton_core::command::{Command, Done, InstanceChange, Refusal};
use baton_core::event::EventKind;
use baton_core::policy::{Liveness, Registration};
use baton_core::probe::Health;
use support::{World, instance, service};

/// A change of `orders`/a, made from what is there now.
fn change(world: &World, edit: impl FnOnce(&mut Registration)) -> Command {
    let old = &world.service("orders").instances[&instance("a")];
    let mut registration = old.registration.clone();
    edit(&mut registration);
    Command::InstanceChange(InstanceChange {
        service: service("orders"),
        instance: instance("a"),
        registration: Box::new(registration),
        if_generation: old.generation,
        actor: "alice".to_owned(),
    })
}

#[test]
fn a_holder_that_is_changed_goes_on_in_its_session() {
    let mut world = World::new();
    world.put_service("orders", |_| {});
    world.put_instance("orders", "a", |registration| registration.liveness = Liveness::Heartbeat);
    world.everyone_says("orders", "a", baton_core::probe::Verdict::Up);
    world.settle("orders");
    let before = world.service("orders").clone();
    assert_eq!(world.active("orders").map(|(id, _)| id).as_deref(), Some("a"));
    let session = before.instances[&instance("a")].session.clone();
    assert!(session.is_some());

    let command = change(&world, |registration| registration.priority = 7);
    let done = world.must(command);
    assert_eq!(done, Done::Stored { created: false, generation: 2, session: session.clone() });
    let after = world.service("orders").clone();
    let changed = &after.instances[&instance("a")];
    assert_eq!((changed.registration.priority, &changed.session), (7, &session));
    assert_eq!(after.assignment, before.assignment, "token, terms and debt are what they were");
    assert_eq!(changed.health, before.instances[&instance("a")].health, "nothing is looked at anew");
    let told = world.last_of(EventKind::InstanceUpdated);
    assert!(told.reason.contains("alice changed what is said of \"a\""), "{}", told.reason);

    // Nothing new is no event and no generation.
    let events = world.events.len();
    let command = change(&world, |_| {});
    assert_eq!(world.must(command), Done::Stored { created: false, generation: 2, session });
    assert_eq!(world.events.len(), events);

    // Another address is looked at anew, by the same session and under the same token.
    let epoch = world.service("orders").instances[&instance("a")].epoch;
    let command = change(&world, |registration| registration.address = "127.0.0.2:80".parse().ok());
    world.must(command);
    let moved = world.service("orders");
    assert!(moved.instances[&instance("a")].epoch > epoch);
    assert_eq!(moved.instances[&instance("a")].health, Health::Unknown);
    assert_eq!(moved.assignment, before.assignment);
}

#[test]
fn what_was_seen_before_is_refused() {
    let mut world = World::orders();
    let late = change(&world, |registration| registration.priority = 1);
    let first = change(&world, |registration| registration.weight = 3);
    world.must(first);
    assert_eq!(world.refused(late), Refusal::GenerationMismatch { expected: 1, actual: 2 });
    // Whoever lives otherwise is somebody else, and registers.
    let other = change(&world, |registration| registration.liveness = Liveness::Heartbeat);
    assert!(matches!(world.refused(other), Refusal::MovedOn { .. }));
    let Command::InstanceChange(mut ghost) = change(&world, |_| {}) else { unreachable!("it is one") };
    ghost.instance = instance("ghost");
    assert!(matches!(world.refused(Command::InstanceChange(ghost)), Refusal::NoSuchInstance { .. }));
}
