//! Promoted is not yet serving: acknowledgements, and what becomes of those that never come.

use baton_core::command::{ActivationExpire, Command, Refusal};
use baton_core::planner::{Decision, ManualMove};
use baton_core::policy::ProofKind;
use baton_core::state::{Phase, STEPS_MAX};
use baton_core::time::Millis;
use baton_core::transition::TransitionStatus;

use super::cluster::{Cluster, W, ack};
use crate::support::service;

const PATIENCE: Millis = Millis(30_000);

/// a is active and has acknowledged; b was promoted after it was down, and has not.
fn promoting() -> Cluster {
    let mut cluster = Cluster::new(|_| {});
    cluster.put_service(|spec| (spec.failover.require_ack, spec.failover.activation_timeout) = (true, PATIENCE));
    cluster.falls_silent("a");
    cluster.settle();
    assert_eq!((cluster.active().as_deref(), cluster.phase()), (Some("b"), Phase::Promoting));
    cluster
}

fn expire(cluster: &Cluster) -> Command {
    Command::ActivationExpire(ActivationExpire {
        service: service("orders"),
        transition: cluster.service().assignment.transition.expect("it is open"),
        token: cluster.token(),
    })
}

#[test]
fn the_move_is_open_until_the_new_active_says_that_it_serves() {
    let mut cluster = promoting();
    assert_eq!(cluster.record().status, TransitionStatus::Running);
    assert!(cluster.renew("b", "b1").is_ok(), "it may act: how else would it come to serve");
    cluster.world.wait(Millis(1_500));
    let token = cluster.token();
    cluster.ack("b", "b1", token).expect("it serves");
    assert_eq!((cluster.active().as_deref(), cluster.phase()), (Some("b"), Phase::Active));
    let record = cluster.record();
    assert_eq!(record.status, TransitionStatus::Finished);
    assert_eq!(record.durations.promoted_to_acknowledged_ms, Some(1_500));
    assert_eq!(cluster.steps(), ["started", "proof", "promoted", "acknowledged"]);
    let (state, events) = (cluster.world.state.clone(), cluster.world.events.len());
    cluster.ack("b", "b1", token).expect("said twice is said once");
    assert_eq!((&cluster.world.state, cluster.world.events.len()), (&state, events));
    cluster.pass(PATIENCE);
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

#[test]
fn nobody_else_acknowledges_and_no_other_token() {
    let mut cluster = promoting();
    let token = cluster.token();
    let other = baton_core::id::Token(token.0 - 1);
    for (id, session, token, code) in [
        ("b", "b0", token, "unknown_session"),
        ("b", "b1", other, "not_holder"),
        ("a", "a1", token, "not_holder"),
        ("a", "b1", token, "unknown_session"),
        ("nobody", "b1", token, "no_such_instance"),
    ] {
        assert_eq!(cluster.refused(ack(id, session, token)).code(), code, "{id} in {session} with {token}");
    }
    assert_eq!(cluster.phase(), Phase::Promoting);
}

#[test]
fn where_none_is_asked_for_an_acknowledgement_does_no_harm() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    let state = cluster.world.state.clone();
    cluster.ack("a", "a1", token).expect("taken");
    assert_eq!(cluster.world.state.services, state.services);
}

#[test]
fn after_the_patience_the_next_one_is_tried_with_its_own_token_and_its_own_proof() {
    let mut cluster = promoting();
    let second = cluster.token();
    cluster.pass(Millis(PATIENCE.0 - 5_000));
    cluster.renew("b", "b1").expect("it heartbeats, and does not serve");
    assert_eq!(cluster.refused(expire(&cluster)).code(), "moved_on", "its time is not over");
    cluster.pass(Millis(5_000));
    // An activation that timed out proves nothing: b may act for as long as it was granted.
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    assert!(cluster.renew("b", "b1").is_err());
    assert_eq!(cluster.tried(), ["b"]);
    cluster.pass(Millis(W.0 - 5_000 - 1));
    assert_eq!(cluster.active(), None);
    cluster.pass(Millis(2));
    assert_eq!((cluster.active().as_deref(), cluster.phase()), (Some("c"), Phase::Promoting));
    assert!(cluster.token() > second);
    let evidence = &cluster.record().proof.as_ref().expect("a proof").evidence;
    assert!(evidence.contains("\"b\" under token"), "{evidence}");
    assert!(cluster.world.state.transitions.len() == 2, "one record");
}

#[test]
fn one_that_falls_ill_before_it_serves_is_not_waited_for() {
    let mut cluster = promoting();
    cluster.falls_silent("b");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("c"));
    let failed = cluster.record().steps.iter().find(|step| step.step == "activation_failed").expect("a step");
    assert!(failed.detail.contains("\"b\" is unhealthy before it acknowledged"), "{}", failed.detail);
}

#[test]
fn one_that_releases_before_it_serves_is_followed_by_the_next() {
    let mut cluster = promoting();
    cluster.renew("b", "b1").expect("granted");
    let token = cluster.token();
    cluster.release("b", "b1", token).expect("it gives up");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("c"));
    assert_eq!((cluster.proof().0, cluster.tried()), (ProofKind::Release, vec!["b"]));
}

#[test]
fn one_that_registers_anew_before_it_serves_is_followed_by_the_next() {
    let mut cluster = promoting();
    cluster.renew("b", "b1").expect("granted");
    cluster.register("b", "b2", 200);
    cluster.beats("b");
    cluster.settle();
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    cluster.pass(Millis(W.0 + 1));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("c"), ProofKind::Lease));
}

#[test]
fn when_all_were_tried_it_goes_round() {
    let mut cluster = promoting();
    cluster.beats("a");
    let mut seen = vec!["b".to_owned()];
    for _ in 0..5 {
        cluster.pass(PATIENCE);
        seen.extend(cluster.active());
    }
    assert_eq!(seen, ["b", "a", "c", "b", "a", "c"], "those that were not tried first, then the longest ago");
    assert_eq!(cluster.service().rails.moves.len(), 1, "that is one move");
    let token = cluster.token();
    cluster.ack("c", "c1", token).expect("at last");
    assert_eq!(cluster.record().status, TransitionStatus::Finished);
}

#[test]
fn what_an_operator_asserts_of_one_holder_says_nothing_of_the_next() {
    let mut cluster = Cluster::new(|_| {});
    cluster.put_service(|spec| (spec.failover.require_ack, spec.failover.activation_timeout) = (true, PATIENCE));
    cluster.renew("a", "a1").expect("granted");
    let plan = cluster.ask(ManualMove::Failover, Some("b"), true).expect("it is planned");
    cluster.must(plan.command.expect("there is something to do"));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("b"), ProofKind::Operator));
    cluster.pass(Millis(PATIENCE.0 - 1));
    cluster.renew("b", "b1").expect("granted");
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None, "alice has said that a stopped, and b may act");
    cluster.pass(Millis(2));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("c"), ProofKind::Lease));
}

#[test]
fn a_move_that_goes_round_for_ever_keeps_its_first_and_its_last_steps() {
    let mut cluster = promoting();
    for _ in 0..STEPS_MAX {
        cluster.pass(PATIENCE);
    }
    let steps = &cluster.record().steps;
    assert_eq!(steps.len(), STEPS_MAX);
    assert_eq!(steps[0].step, "started");
    assert!(steps.windows(2).all(|pair| pair[0].at <= pair[1].at), "in order");
    assert!(cluster.world.now.since(steps[STEPS_MAX - 1].at) < PATIENCE, "how it stands now");
}

#[test]
fn who_waits_for_an_acknowledgement_is_not_moved_by_anybody() {
    let cluster = promoting();
    for wanted in [ManualMove::Failover, ManualMove::Switchover, ManualMove::Failback] {
        let refusal = cluster.ask(wanted, Some("c"), false).expect_err("a move is open");
        assert!(matches!(refusal, Refusal::TransitionInProgress { .. }), "{refusal}");
    }
    assert_eq!(cluster.plan().report.decision, Decision::Hold);
    assert!(cluster.summary().contains("activation_timeout is 30s"), "{}", cluster.summary());
}

#[test]
fn a_late_expiry_of_one_token_does_not_touch_the_next() {
    let mut cluster = promoting();
    let late = expire(&cluster);
    cluster.pass(PATIENCE);
    assert_eq!(cluster.active().as_deref(), Some("c"));
    cluster.world.wait(PATIENCE);
    assert_eq!(cluster.refused(late).code(), "moved_on");
    assert_eq!(cluster.active().as_deref(), Some("c"));
}
