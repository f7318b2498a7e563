//! What a release is worth, and whose it is.

use baton_core::command::Refusal;
use baton_core::event::EventKind;
use baton_core::id::Token;
use baton_core::lease::Withheld;
use baton_core::planner::Decision;
use baton_core::policy::ProofKind;
use baton_core::state::{Phase, ReleaseHow};
use baton_core::transition::{Fencing, TransitionKind, TransitionStatus};

use super::cluster::{Cluster, W, release};
use crate::support::{delete_instance, instance};

#[test]
fn a_release_opens_the_failover_and_proves_it() {
    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.release("a", "a1", first).expect("it holds that token");
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    assert_eq!(cluster.renew("a", "a1"), Err(Withheld::NotHolder), "renewals end with it");
    assert_eq!(cluster.plan().report.decision, Decision::Promote, "though its lease would have run for long");

    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Enforced));
    let record = cluster.record();
    assert_eq!((record.kind, record.status), (TransitionKind::Failover, TransitionStatus::Finished));
    assert_eq!((record.from.as_ref(), record.from_token), (Some(&instance("a")), Some(first)));
    assert!(record.trigger.reason.contains("released") && record.trigger.reason.contains("exited with 0"));
    let cause = record.trigger.cause.expect("a cause");
    assert_eq!(cluster.world.events[cause as usize - 1].kind, EventKind::InstanceUpdated);
    assert!(cluster.token() > first);
}

#[test]
fn session_and_token_must_both_be_the_holder_s() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    let mut said = |id: &str, session: &str, token: Token| {
        cluster.refused(release(id, Some(session), token, false, ReleaseHow::Said)).code()
    };
    assert_eq!(said("a", "a1", Token(token.0 - 1)), "not_holder");
    assert_eq!(said("a", "a1", Token(token.0 + 1)), "not_holder");
    assert_eq!(said("a", "a0", token), "unknown_session");
    assert_eq!(said("b", "b1", token), "not_holder", "b's session is well, it holds nothing");
    assert_eq!(said("b", "a1", token), "not_holder");
    assert_eq!(said("nobody", "x", token), "no_such_instance");
    assert_eq!(cluster.active().as_deref(), Some("a"));
    assert_eq!(cluster.refused(release("a", None, token, false, ReleaseHow::Said)).code(), "unknown_session");
}

#[test]
fn whoever_held_it_before_is_told_that_it_holds_nothing_and_need_not_register_anew() {
    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.release("a", "a1", first).expect("taken");
    cluster.settle();
    let refusal = cluster.release("a", "a1", first).expect_err("b holds it now");
    let Refusal::NotHolder { why, .. } = &refusal else { panic!("{refusal}") };
    assert!(why.contains("\"b\" with token"), "{why}");
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

#[test]
fn said_twice_is_said_once() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.release("a", "a1", token).expect("taken");
    let (state, events) = (cluster.world.state.clone(), cluster.world.events.len());
    cluster.release("a", "a1", token).expect("taken once more");
    assert_eq!((cluster.world.state, cluster.world.events.len()), (state, events));
}

#[test]
fn one_that_stays_is_the_last_choice_and_a_choice() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.release("a", "a1", token).expect("taken");
    for id in ["b", "c"] {
        cluster.falls_silent(id);
    }
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"), "better than nobody");
    assert!(cluster.token() > token, "under another token");
}

#[test]
fn one_that_leaves_is_no_candidate_until_it_heartbeats_in_its_session() {
    let mut cluster = Cluster::new(|_| {});
    for id in ["b", "c"] {
        cluster.falls_silent(id);
    }
    let token = cluster.token();
    cluster.leave("a", "a1", token).expect("taken");
    cluster.settle();
    assert_eq!(cluster.active(), None);
    let report = cluster.plan().report;
    let a = report.candidates.iter().find(|it| it.instance == instance("a")).expect("a is told of");
    let rule = a.rules.iter().find(|rule| !rule.pass).expect("a rule fails");
    assert_eq!(rule.rule, "present");

    assert_eq!(cluster.returns("a", "a0").map_err(|it| it.code()), Err("moved_on"), "another session says nothing");
    cluster.returns("a", "a1").expect("it is there");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"));
    assert_eq!(cluster.returns("a", "a1").map_err(|it| it.code()), Err("moved_on"), "said once");
}

#[test]
fn one_that_has_released_before_may_leave_afterwards() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.release("a", "a1", token).expect("taken");
    assert!(!cluster.world.at("orders", "a").left, "it only stepped down");
    cluster.leave("a", "a1", token).expect("said twice, with another word");
    assert!(cluster.world.at("orders", "a").left);
}

#[test]
fn one_that_holds_nothing_says_so_when_it_goes_and_the_holder_names_its_token() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    assert_eq!(cluster.goes("a", "a1").map_err(|it| it.code()), Err("is_active"));
    assert_eq!(cluster.goes("b", "b0").map_err(|it| it.code()), Err("unknown_session"));
    assert_eq!(cluster.goes("d", "d1").map_err(|it| it.code()), Err("no_such_instance"));
    cluster.goes("b", "b1").expect("it holds nothing");
    cluster.goes("b", "b1").expect("said twice is said once");
    assert!(cluster.world.at("orders", "b").left);
    cluster.release("a", "a1", token).expect("taken");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("c"), "b is no candidate");
    cluster.returns("b", "b1").expect("it is there again");
    assert!(!cluster.world.at("orders", "b").left);
}

#[test]
fn a_new_session_of_one_that_left_is_a_candidate() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.leave("a", "a1", token).expect("taken");
    assert!(cluster.world.at("orders", "a").left);
    cluster.register("a", "a2", 300);
    assert!(!cluster.world.at("orders", "a").left);
}

#[test]
fn the_old_session_s_word_counts_for_its_own_tenure_after_another_registered() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.register("a", "a2", 300);
    cluster.settle();
    assert_eq!(cluster.active(), None, "what the old session was granted is owed");
    assert_eq!(cluster.release("a", "a2", token).map_err(|it| it.code()), Err("not_holder"), "that is not a2's to say");
    // `leaving` is about the session that says it: a2 is there.
    cluster.leave("a", "a1", token).expect("a1 held it");
    assert!(!cluster.world.at("orders", "a").left);
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Enforced));
}

#[test]
fn the_word_of_one_that_was_deregistered_counts() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.must(delete_instance("orders", "a"));
    cluster.settle();
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::Vacant));
    cluster.release("a", "a1", token).expect("it held it");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Enforced));
}

#[test]
fn a_closed_connection_is_a_release_only_where_the_tenure_says_so() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    // Switched on too late: this tenure began without.
    cluster.put_service(|spec| spec.lease.release_on_disconnect = true);
    let refusal = cluster.refused(release("a", Some("a1"), token, false, ReleaseHow::Disconnected));
    assert_eq!(refusal.code(), "proof_refused");
    assert_eq!(cluster.active().as_deref(), Some("a"));

    cluster.release("a", "a1", token).expect("taken");
    cluster.settle();
    let token = cluster.token();
    cluster.renew("b", "b1").expect("granted");
    // Switched off too late: this one began with it.
    cluster.put_service(|_| {});
    cluster.disconnected("b", "b1", token).expect("this tenure takes it for one");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"));
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Advisory), "a closed connection is not a stop");
}

#[test]
fn what_it_says_itself_is_worth_more_than_its_closed_connection() {
    let mut cluster = Cluster::new(|spec| spec.lease.release_on_disconnect = true);
    let token = cluster.token();
    cluster.disconnected("a", "a1", token).expect("taken");
    cluster.release("a", "a1", token).expect("taken as well");
    cluster.disconnected("a", "a1", token).expect("which takes nothing back");
    cluster.settle();
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Enforced));
}

#[test]
fn a_release_during_a_switch_completes_it_and_is_a_step_of_it() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.order(baton_core::planner::ManualMove::Switchover, Some("c"));
    let records = cluster.world.state.transitions.len();
    cluster.release("a", "a1", token).expect("taken");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("c"));
    assert_eq!(cluster.world.state.transitions.len(), records, "no second move");
    assert_eq!(cluster.steps(), ["started", "waiting", "released", "proof", "promoted"]);
}

#[test]
fn where_only_the_lease_is_accepted_a_release_proves_nothing() {
    let mut cluster =
        Cluster::new(|spec| spec.fencing.proof = baton_core::policy::ProofPolicy::List(vec![ProofKind::Lease]));
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.release("a", "a1", token).expect("taken");
    cluster.settle();
    assert_eq!(cluster.active(), None);
    cluster.pass(W);
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof().0, ProofKind::Lease);
}

#[test]
fn the_release_of_a_deleted_service_pays_its_debt() {
    let mut cluster = Cluster::new(|spec| spec.lease.release_on_disconnect = true);
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.delete();
    let mut said = |session: &str, token: Token, how: ReleaseHow| {
        cluster.send(release("a", Some(session), token, false, how)).map_err(|refusal| refusal.code())
    };
    assert_eq!(said("a0", token, ReleaseHow::Said), Err("no_such_service"));
    assert_eq!(said("a1", Token(token.0 + 1), ReleaseHow::Said), Err("no_such_service"));
    assert_eq!(said("a1", token, ReleaseHow::Disconnected), Err("no_such_service"), "it may act on");
    assert_eq!(cluster.world.state.debts.len(), 1);
    cluster.release("a", "a1", token).expect("it held it");
    assert!(cluster.world.state.debts.is_empty());
    let again = cluster.send(release("a", Some("a1"), token, false, ReleaseHow::Said));
    assert!(matches!(again, Err(Refusal::NoSuchService { .. })), "{again:?}");
}

#[test]
fn a_release_of_what_is_vacant_is_told_and_lets_the_next_one_in() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.delete();
    cluster.put_service(|_| {});
    cluster.register("b", "b2", 1);
    cluster.beats("b");
    cluster.settle();
    assert_eq!(cluster.active(), None);
    cluster.release("a", "a1", token).expect("the debt is this service's now");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Release, Fencing::Enforced));
}
