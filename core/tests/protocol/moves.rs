//! Moves that wait for a holder with a lease: an operator's, Baton's own, and one that changes hands.

use baton_core::command::{AutomationPause, Command, Refusal};
use baton_core::event::EventKind;
use baton_core::lease::Withheld;
use baton_core::planner::{Decision, ManualMove};
use baton_core::policy::{FencingHook, ProofKind, ProofPolicy};
use baton_core::state::Phase;
use baton_core::time::Millis;
use baton_core::transition::{Fencing, TransitionKind, TransitionStatus};

use super::cluster::{Cluster, W};
use crate::support::{instance, service};

fn pause(cluster: &mut Cluster, lasts: Millis) {
    cluster.must(Command::AutomationPause(AutomationPause {
        service: Some(service("orders")),
        reason: "the switch is being replaced".to_owned(),
        owner: "network".to_owned(),
        lasts,
        until: None,
        actor: "bob".to_owned(),
    }));
}

#[test]
fn a_switchover_takes_the_service_away_and_waits_for_the_release() {
    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    let plan = cluster.order(ManualMove::Switchover, Some("c"));
    assert_eq!((plan.kind, plan.proof), (TransitionKind::Switchover, None));
    let waits = plan.waits_for.expect("it says so before");
    assert!(waits.contains("its release or the end of its lease (at most 11s from now)"), "{waits}");

    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::Switching));
    let changed = cluster.world.last_of(EventKind::ActiveChanged);
    assert_eq!((&changed.from, &changed.to), (&Some(Some("a".to_owned())), &Some(None)), "whoever watches is told");
    assert_eq!(cluster.renew("a", "a1"), Err(Withheld::NotHolder), "a step-down that is due ends renewals");
    cluster.settle();
    assert_eq!(cluster.active(), None);
    cluster.world.wait(Millis(40));
    cluster.release("a", "a1", first).expect("it has stepped down");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("c"), "the one that was named, and no better one");
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Enforced));
    assert_eq!(cluster.record().actor.as_deref(), Some("alice"));
    assert_eq!(cluster.record().durations.agreed_to_proof_ms, Some(40));
}

#[test]
fn a_switchover_whose_old_side_says_nothing_waits_for_its_lease() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Switchover, None);
    cluster.pass(Millis(W.0 - 1));
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::Switching));
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Enforced));
}

#[test]
fn whoever_is_to_get_it_falls_ill_meanwhile_and_another_gets_it_or_the_old_one_again() {
    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.order(ManualMove::Switchover, Some("c"));
    cluster.falls_silent("c");
    cluster.release("a", "a1", first).expect("taken");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("b"));

    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.order(ManualMove::Switchover, Some("c"));
    cluster.falls_silent("c");
    cluster.falls_silent("b");
    cluster.release("a", "a1", first).expect("taken");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"), "rather the one that is left than nobody");
    assert!(cluster.token() > first);
}

#[test]
fn an_operator_s_failover_waits_for_a_holder_s_lease_like_any_other() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    let plan = cluster.order(ManualMove::Failover, Some("c"));
    assert!(plan.proof.is_none() && plan.waits_for.is_some());
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None);
    // Only a word for which somebody answers is quicker.
    assert!(matches!(cluster.ask(ManualMove::Failover, Some("c"), false), Err(Refusal::ProofRefused { .. })));
    let plan = cluster.ask(ManualMove::Failover, Some("b"), true).expect("it is planned");
    assert_eq!(plan.proof.as_ref().map(|proof| proof.proof), Some(ProofKind::Operator));
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("b"), ProofKind::Operator));
    let evidence = &cluster.record().proof.as_ref().expect("a proof").evidence;
    assert!(evidence.contains("a named operator asserts") && evidence.contains("alice: kernel update"), "{evidence}");
}

#[test]
fn whoever_asks_again_is_not_taken_back_to_the_instance_that_is_left() {
    // a is preferred: by strategy alone it would be the first again.
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Failover, Some("c"));
    let plan = cluster.ask(ManualMove::Failover, None, true).expect("it is planned");
    assert_eq!((plan.from, plan.to), (Some(instance("a")), instance("c")), "nobody was named: the one that was");
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("c"), ProofKind::Operator));

    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Failover, Some("c"));
    cluster.falls_silent("c");
    let plan = cluster.order(ManualMove::Failover, None);
    assert_eq!(plan.to, instance("b"), "c may not have it any more, and a is left");
    cluster.falls_silent("b");
    let nobody = cluster.ask(ManualMove::Failover, None, false).expect_err("only a is left");
    assert_eq!(nobody.code(), "no_candidate");
    assert!(
        nobody.to_string().contains("\"a\": it is the instance that this move leaves, and has to be named"),
        "{nobody}"
    );
}

#[test]
fn a_move_of_baton_s_own_that_an_operator_hurries_does_not_go_back_either() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.falls_silent("a");
    cluster.settle();
    cluster.beats("a");
    let plan = cluster.ask(ManualMove::Failover, None, true).expect("it is planned");
    assert_eq!(plan.to, instance("b"), "Baton had chosen it");
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

#[test]
fn nobody_is_promoted_by_the_word_that_it_has_stopped() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Failover, Some("c"));
    let refused = cluster.ask(ManualMove::Failover, Some("a"), true).expect_err("a is said to be dead");
    assert_eq!(refused.code(), "not_eligible");
    assert!(refused.to_string().contains("it is the one that is said to have stopped"), "{refused}");

    // As an explicit wish it may go back, and waits for its own proof like everybody.
    let plan = cluster.ask(ManualMove::Failover, Some("a"), false).expect("an explicit wish");
    assert_eq!((plan.to, plan.proof), (instance("a"), None));
    let Some(Command::TransitionTake(mut take)) = plan.command else { panic!("a move is open") };
    take.asserted = Some(ProofKind::Operator);
    assert_eq!(cluster.refused(Command::TransitionTake(take.clone())).code(), "not_eligible", "apply asks the same");
    take.asserted = None;
    cluster.must(Command::TransitionTake(take));
    assert_eq!(cluster.active(), None);
    cluster.pass(Millis(W.0 + 1));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("a"), ProofKind::Lease));

    // Whoever has registered anew since is not the one that is said to have stopped.
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Failover, Some("c"));
    cluster.register("a", "a2", 300);
    cluster.beats("a");
    let plan = cluster.ask(ManualMove::Failover, Some("a"), true).expect("a2 is another incarnation");
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("a"), ProofKind::Operator));
}

#[test]
fn a_word_that_somebody_has_stopped_is_taken_back_by_asking_for_it() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    let plan = cluster.ask(ManualMove::Failover, Some("b"), true).expect("it is planned");
    let Some(Command::TransitionStart(mut start)) = plan.command else { panic!("no move is open") };
    start.to = None;
    cluster.must(Command::TransitionStart(start));
    cluster.order(ManualMove::Failover, Some("a"));
    assert_eq!((cluster.active(), cluster.record().asserted), (None, None), "a has not stopped, so its lease is owed");
    cluster.pass(Millis(W.0 + 1));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("a"), ProofKind::Lease));
}

#[test]
fn a_switchover_of_an_active_that_is_sick_says_so_and_names_the_failover() {
    let mut cluster = Cluster::new(|_| {});
    cluster.falls_silent("a");
    for wanted in [ManualMove::Switchover, ManualMove::Failback] {
        let refused = cluster.ask(wanted, Some("b"), false).expect_err("a is not well");
        assert_eq!(refused.code(), "active_not_well");
        assert!(refused.to_string().contains("`baton failover orders`"), "{refused}");
    }
}

#[test]
fn nothing_is_told_of_observers_where_nothing_is_probed() {
    let mut cluster = Cluster::new(|spec| spec.failover.automatic = false);
    let rules = |cluster: &Cluster| cluster.plan().report.candidates.into_iter().flat_map(|it| it.rules);
    let healthy = rules(&cluster).find(|rule| rule.rule == "healthy" && rule.pass).expect("b is well");
    assert_eq!(healthy.why, "it is healthy: its heartbeats say up");
    cluster.falls_silent("a");
    let report = cluster.plan().report;
    let told = report.paragraph();
    assert!(told.contains("\"a\" is unhealthy: its heartbeats say down."), "{told}");
    assert!(!serde_json::to_string(&report).expect("JSON").contains("observers"), "{report:?}");
}

#[test]
fn a_lease_is_told_once_and_in_whole_seconds() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Switchover, Some("c"));
    let told = cluster.plan().report.paragraph();
    assert!(told.contains("the end of its lease. That takes 11s at most"), "{told}");
    assert!(!told.contains("10300ms") && told.matches("at most").count() == 1, "{told}");
}

#[test]
fn nobody_is_advised_to_say_that_the_one_that_is_to_be_promoted_has_stopped() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Failover, Some("c"));
    assert!(
        cluster.plan().report.paragraph().contains("--to c --proof operator")
            || cluster.plan().report.paragraph().contains("--to b --proof operator")
    );
    cluster.falls_silent("b");
    cluster.falls_silent("c");
    let told = cluster.plan().report.paragraph();
    assert!(told.contains("\"a\" could take over.") && !told.contains("--proof"), "{told}");
}

#[test]
fn only_an_operator_s_own_word_replaces_a_proof() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    let plan = cluster.ask(ManualMove::Failover, Some("b"), true).expect("it is planned");
    let Some(Command::TransitionStart(start)) = plan.command else { panic!("{plan:?}") };
    let mut nobody_s = start.clone();
    nobody_s.actor = None;
    assert_eq!(cluster.refused(Command::TransitionStart(nobody_s)).code(), "proof_refused");
    for kind in [ProofKind::Release, ProofKind::Lease, ProofKind::Hook, ProofKind::NoneNeeded, ProofKind::Token] {
        let mut other = start.clone();
        other.asserted = Some(kind);
        assert_eq!(cluster.refused(Command::TransitionStart(other)).code(), "proof_refused", "{kind}");
    }
    cluster.must(Command::TransitionStart(start));
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

#[test]
fn a_move_that_is_open_is_no_other_one() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Switchover, Some("c"));
    for wanted in [ManualMove::Switchover, ManualMove::Failback] {
        let refusal = cluster.ask(wanted, None, false).expect_err("one at a time");
        assert_eq!(refusal.code(), "transition_in_progress");
    }
}

#[test]
fn an_operator_takes_over_a_move_that_baton_may_not_complete() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.falls_silent("a");
    cluster.settle();
    let id = cluster.record().id;
    pause(&mut cluster, Millis::secs(3_600));
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active(), None);
    assert!(cluster.summary().contains("may be promoted, but the automation of this service is paused"));

    // Any node may plan this. The claim is the leader's to make, under its seal.
    let plan = cluster.order(ManualMove::Failover, Some("c"));
    assert_eq!(plan.proof.map(|proof| proof.proof), Some(ProofKind::Lease));
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("c"));
    assert_eq!((cluster.record().id, cluster.record().actor.as_deref()), (id, Some("alice")));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Enforced));
    assert!(cluster.steps().contains(&"taken_over"), "{:?}", cluster.steps());
}

#[test]
fn a_move_that_was_taken_over_early_waits_for_the_proof_and_not_for_the_pause() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.falls_silent("a");
    cluster.settle();
    pause(&mut cluster, Millis::secs(3_600));
    assert!(cluster.summary().contains("\"b\" is not promoted by itself: the automation"), "{}", cluster.summary());
    let plan = cluster.order(ManualMove::Failover, Some("c"));
    assert!(plan.proof.is_none() && plan.waits_for.is_some());
    assert_eq!(cluster.active(), None, "never without a proof");
    let again = cluster.ask(ManualMove::Failover, Some("c"), false).expect_err("that is under way");
    assert_eq!(again.code(), "proof_refused");
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active().as_deref(), Some("c"));
}

#[test]
fn nothing_is_promoted_while_automation_is_paused() {
    let mut cluster = Cluster::new(|_| {});
    pause(&mut cluster, Millis(5_000));
    cluster.falls_silent("a");
    cluster.pass(Millis(4_999));
    assert_eq!(cluster.active().as_deref(), Some("a"), "it keeps what it has");
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"), "the pause has its end");

    let mut cluster = Cluster::new(|_| {});
    pause(&mut cluster, Millis(5_000));
    let token = cluster.token();
    cluster.release("a", "a1", token).expect("taken");
    cluster.pass(Millis(4_999));
    assert_eq!(cluster.active(), None, "not even a released service is moved");
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

#[test]
fn without_automatic_failover_who_had_it_may_have_it_back_and_nobody_else() {
    let mut cluster = Cluster::new(|spec| spec.failover.automatic = false);
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.register("a", "a2", 300);
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active(), None, "b and c are well, and are not asked");
    assert!(cluster.summary().contains("failover.automatic is off"), "{}", cluster.summary());
    cluster.beats("a");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"), "a2 goes on where a1 was");
    assert!(cluster.token() > token, "under its own token");
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Enforced), "and a proof about a1");
    assert!(cluster.service().rails.moves.is_empty(), "that was no move");
}

#[test]
fn automatic_failover_that_is_switched_off_in_mid_move_still_lets_the_old_one_have_it_back() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.falls_silent("a");
    cluster.settle();
    assert_eq!(cluster.record().to, Some(instance("b")));
    cluster.put_service(|spec| spec.failover.automatic = false);
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active(), None, "b was chosen, and Baton may not promote it any more");
    cluster.beats("a");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"));
}

#[test]
fn nobody_is_cut_off_for_a_move_that_may_not_be_made_or_has_nobody_to_go_to() {
    let with_hook = |spec: &mut baton_core::policy::Spec| {
        spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Hook]);
        let agent = Some("off".to_owned());
        spec.fencing.hook = Some(FencingHook { url: None, agent, timeout: Millis(1_000), attempts: 3 });
    };
    let mut cluster = Cluster::new(with_hook);
    cluster.order(ManualMove::Failover, None);
    assert_eq!(cluster.plan().report.decision, Decision::Fence, "otherwise it is run at once");

    let mut cluster = Cluster::new(with_hook);
    let token = cluster.token();
    pause(&mut cluster, Millis(5_000));
    cluster.release("a", "a1", token).expect("taken; it is no proof here");
    assert_eq!(cluster.plan().report.decision, Decision::Hold, "{}", cluster.summary());
    cluster.world.wait(Millis(5_000));
    assert_eq!(cluster.plan().report.decision, Decision::Fence);

    let mut cluster = Cluster::new(with_hook);
    for id in ["a", "b", "c"] {
        cluster.falls_silent(id);
    }
    cluster.settle();
    assert_eq!(cluster.plan().report.decision, Decision::Hold, "{}", cluster.summary());
    cluster.beats("c");
    assert_eq!(cluster.plan().report.decision, Decision::Fence);
    assert_eq!(cluster.record().status, TransitionStatus::Running);
}
