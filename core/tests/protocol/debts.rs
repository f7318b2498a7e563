//! Who may still act when a service changes its mode, is deleted and is made again: all that served in `active_active`, where
//! nobody has a token and nobody is told to stop, and whoever had a lease before.

use baton_core::command::{Command, ServiceDelete};
use baton_core::lease::Withheld;
use baton_core::planner::{Decision, ManualMove, debts_due};
use baton_core::policy::{FencingHook, Mode, ProofKind, ProofPolicy, Spec};
use baton_core::probe::Verdict;
use baton_core::state::{Holder, Phase};
use baton_core::time::Millis;
use baton_core::transition::Fencing;

use super::cluster::{Cluster, W};
use crate::support::{World, delete_instance, service};

#[test]
fn a_change_of_mode_and_back_forgets_nobody_who_may_still_act() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.put_service(|spec| spec.mode = Mode::ActiveActive);
    assert_eq!((cluster.active(), cluster.renew("a", "a1")), (None, Err(Withheld::NotHolder)));
    cluster.put_service(|_| {});
    // All of them were told to serve, under no token and without a lease that could end.
    cluster.pass(Millis(10 * W.0));
    assert_eq!(cluster.active(), None);
    assert_eq!(cluster.plan().report.decision, Decision::Hold);
    let plan = cluster.ask(ManualMove::Failover, None, true).expect("an operator may say that they have stopped");
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("a"), ProofKind::Operator));
}

fn together(spec: &mut Spec) {
    spec.mode = Mode::ActiveActive;
}

fn last(cluster: &Cluster) -> &Holder {
    cluster.service().assignment.last_holder.as_ref().expect("somebody served")
}

/// Nobody is placed, however long it is waited, until an operator has said that those who served have stopped.
fn waits_for_an_operator(cluster: &mut Cluster) {
    cluster.pass(Millis(10 * W.0));
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::Vacant));
    assert!(cluster.summary().contains("served beside others"), "{}", cluster.summary());
    let plan = cluster.ask(ManualMove::Failover, None, true).expect("an operator may say it");
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!(cluster.proof().0, ProofKind::Operator);
    assert!(cluster.world.state.debts.is_empty(), "that is about all of them");
}

/// `orders` again, with one that never served.
fn made_again(cluster: &mut Cluster) {
    if cluster.world.state.service(&service("orders")).is_some() {
        cluster.delete();
    }
    cluster.put_service(|_| {});
    cluster.register("x", "x1", 1);
    cluster.beats("x");
}

#[test]
fn a_change_of_mode_a_deletion_and_a_new_service_forget_nobody() {
    // There and back again, or with one that is deregistered meanwhile, or deleted while all serve.
    for story in ["back", "deregistered", "at once"] {
        let mut cluster = Cluster::new(|_| {});
        cluster.renew("a", "a1").expect("granted");
        cluster.put_service(together);
        match story {
            "back" => cluster.put_service(|_| {}),
            "deregistered" => drop(cluster.must(delete_instance("orders", "b"))),
            _ => {}
        }
        made_again(&mut cluster);
        assert_eq!(last(&cluster).lease, None, "{story}: one that served with the others stands for them");
        let beside = cluster.world.state.debts.values().map(|debt| debt.holder.instance.as_str());
        assert_eq!(beside.collect::<Vec<_>>(), ["a"], "{story}: and a's lease is owed beside that");
        // Once more: neither is lost on the way.
        made_again(&mut cluster);
        assert_eq!((last(&cluster).lease, cluster.world.state.debts.len()), (None, 1), "{story}");
        waits_for_an_operator(&mut cluster);
    }
}

#[test]
fn a_lease_that_is_owed_beside_others_ends_alone() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    let due = |cluster: &Cluster| debts_due(&cluster.world.state, &cluster.leases, 1, cluster.local(), 10).pop();
    cluster.put_service(together);
    cluster.delete();
    cluster.world.wait(W);
    let forget = due(&cluster).expect("it has run out");
    cluster.must(forget);
    assert_eq!(
        (cluster.world.state.debts.len(), due(&cluster)),
        (1, None),
        "those who served with it are not forgotten"
    );
    made_again(&mut cluster);
    waits_for_an_operator(&mut cluster);

    // The same by its own word.
    for deleted in [true, false] {
        let mut cluster = Cluster::new(|_| {});
        cluster.put_service(together);
        cluster.put_service(|_| {});
        if deleted {
            cluster.delete();
        }
        cluster.release("a", "a1", token).expect("taken");
        assert_eq!(due(&cluster), None);
        if deleted {
            cluster.put_service(|_| {});
        }
        cluster.register("x", "x1", 1);
        cluster.beats("x");
        waits_for_an_operator(&mut cluster);
    }
}

#[test]
fn only_a_word_of_its_own_stops_a_holder_from_being_owed() {
    let mut cluster = Cluster::new(|spec| spec.lease.release_on_disconnect = true);
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    for id in ["b", "c"] {
        cluster.world.put_instance("orders", id, |_| {});
    }
    cluster.disconnected("a", "a1", token).expect("taken");
    cluster.must(delete_instance("orders", "a"));
    cluster.put_service(together);
    cluster.put_service(|_| {});
    let held = last(&cluster);
    assert_eq!((held.token, held.released.is_some()), (Some(token), false), "and it says nothing of b and c");
    for id in ["b", "c"] {
        cluster.world.everyone_says("orders", id, Verdict::Up);
    }
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None, "a may act under its lease");
    cluster.pass(Millis(2));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Advisory));
}

/// `orders` with a, which is only probed, and where nothing but a hook or an operator proves that it has stopped.
fn probed() -> World {
    let mut world = World::orders();
    world.put_service("orders", hooked);
    world
}

fn hooked(spec: &mut Spec) {
    spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Hook]);
    let agent = Some("off".to_owned());
    spec.fencing.hook = Some(FencingHook { url: None, agent, timeout: Millis(1_000), attempts: 3 });
    spec.failover.min_interval = Millis::ZERO;
}

fn delete(world: &mut World) {
    let (service, actor) = (service("orders"), "test".to_owned());
    world.must(Command::ServiceDelete(ServiceDelete { service, if_generation: None, actor }));
}

#[test]
fn one_that_is_only_probed_is_remembered_where_its_token_is_no_proof() {
    let mut world = probed();
    let token = world.active("orders").map(|(_, token)| token);
    delete(&mut world);
    world.put_service("orders", hooked);
    let holder = world.service("orders").assignment.last_holder.as_ref().expect("it is remembered");
    assert_eq!((holder.instance.as_str(), holder.token.map(|token| token.0)), ("a", token));

    // Where the policy accepts its token, nobody would have waited for it.
    let mut world = World::orders();
    delete(&mut world);
    world.put_service("orders", |_| {});
    assert_eq!(world.service("orders").assignment.last_holder, None);
}

#[test]
fn to_cut_off_one_of_many_proves_nothing_of_the_others() {
    let mut world = probed();
    world.put_service("orders", together);
    world.put_service("orders", hooked);
    let plan = world.plan("orders");
    assert_eq!((plan.report.decision, &plan.command), (Decision::Hold, &None), "no hook is run");
    let gate = plan.report.gates.iter().find(|gate| gate.gate == "proof").expect("a gate");
    assert!(gate.why.contains("cutting off one of them would not stop the others"), "{}", gate.why);
}

#[test]
fn a_lease_proves_less_where_others_served_that_are_only_probed() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    for id in ["b", "c"] {
        cluster.world.put_instance("orders", id, |_| {});
    }
    cluster.must(delete_instance("orders", "a"));
    cluster.put_service(together);
    cluster.put_service(|_| {});
    assert_eq!(last(&cluster).instance.as_str(), "a", "whoever had a lease is waited for");
    for id in ["b", "c"] {
        cluster.world.everyone_says("orders", id, Verdict::Up);
    }
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Advisory), "b or c may act all the same");
    let evidence = &cluster.record().proof.as_ref().expect("a proof").evidence;
    assert!(evidence.contains("others served beside \"a\""), "{evidence}");
}

#[test]
fn a_policy_that_asks_less_of_those_who_served_waits_for_the_lease_beside() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.must(delete_instance("orders", "a"));
    for id in ["b", "c"] {
        cluster.world.put_instance("orders", id, |_| {});
    }
    cluster.put_service(|spec| (hooked(spec), together(spec)).1);
    cluster.put_service(hooked);
    assert_eq!((last(&cluster).lease, cluster.world.state.debts.len()), (None, 1), "b stands for both");
    cluster.put_service(|_| {});
    assert_eq!((last(&cluster).instance.as_str(), cluster.world.state.debts.len()), ("a", 0));
    assert!(last(&cluster).lease.is_some() && last(&cluster).others);
}
