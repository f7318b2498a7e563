//! What a tenure is, how it ends without anybody's word, and what it owes then.

use baton_core::command::{Command, Promote, Refusal, Target, TransitionStart};
use baton_core::id::Token;
use baton_core::lease::{LeaseClaim, Withheld};
use baton_core::planner::{ManualMove, debts_due};
use baton_core::policy::{Liveness, OnQuorumLoss, ProofKind, Registration};
use baton_core::state::{Phase, Service};
use baton_core::time::Millis;
use baton_core::transition::{Fencing, TransitionKind, Trigger};

use super::cluster::{Cluster, TTL, W};
use crate::support::{delete_instance, instance, put_instance, service};

#[test]
fn a_silent_holder_is_replaced_when_its_lease_has_surely_run_out_and_not_before() {
    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.world.wait(Millis(3_000));
    cluster.falls_silent("a");
    cluster.settle();
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    assert!(cluster.summary().contains("\"b\" will be promoted once that is safe"), "{}", cluster.summary());
    assert!(cluster.summary().contains("the end of its lease (at most 8s from now)"), "{}", cluster.summary());
    assert_eq!(cluster.renew("a", "a1"), Err(Withheld::NotHolder), "however well it heartbeats by now");

    cluster.pass(Millis(7_299));
    assert_eq!(cluster.active(), None);
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Enforced));
    let evidence = cluster.record().proof.as_ref().expect("a proof").evidence.clone();
    for part in ["\"a\"", &format!("token {first}"), "ttl 10s", "was last renewed", "10300ms were to be waited"] {
        assert!(evidence.contains(part), "{part}: {evidence}");
    }
}

#[test]
fn one_that_was_never_granted_anything_is_replaced_at_once() {
    let mut cluster = Cluster::new(|_| {});
    cluster.falls_silent("a");
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("b"));
    let evidence = &cluster.record().proof.as_ref().expect("a proof").evidence;
    assert!(evidence.contains("was not renewed since the leader was elected"), "{evidence}");
}

#[test]
fn a_new_leader_waits_a_full_w_of_its_own() {
    let mut cluster = Cluster::new(|_| {});
    cluster.term = 2;
    cluster.leases.begin(2, cluster.local());
    cluster.falls_silent("a");
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None);
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

/// An attempt to promote b within the open move by this claim.
pub(super) fn promotion(cluster: &Cluster, claim: LeaseClaim) -> Command {
    Command::Promote(Promote {
        service: service("orders"),
        transition: cluster.service().assignment.transition.expect("a move is open"),
        to: seen(cluster.service(), "b"),
        proof: ProofKind::Lease,
        seen_token: Some(cluster.token()),
        lease: Some(claim),
    })
}

fn seen(service: &Service, id: &str) -> Target {
    let instance = &service.instances[&instance(id)];
    Target { instance: instance.id.clone(), epoch: instance.epoch, lag: None }
}

#[test]
fn a_claim_counts_in_an_entry_of_its_own_term_and_for_its_own_token() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.order(ManualMove::Failover, None);
    cluster.world.wait(W);
    let claim = cluster.claim().expect("it has run out");
    for wrong in [
        LeaseClaim { term: claim.term + 1, ..claim.clone() },
        LeaseClaim { term: claim.term - 1, ..claim.clone() },
        LeaseClaim { token: Token(claim.token.0 + 1), ..claim.clone() },
        LeaseClaim { token: Token(claim.token.0 - 1), ..claim.clone() },
        // Its own numbers say that it did not wait.
        LeaseClaim { led_for: Millis(W.0 - 1), ..claim.clone() },
        LeaseClaim { renewed_ago: Some(Millis(W.0 - 1)), ..claim.clone() },
    ] {
        let refusal = cluster.refused(promotion(&cluster, wrong.clone()));
        assert!(matches!(refusal, Refusal::ProofRefused { .. }), "{wrong:?}: {refusal}");
    }
    // The leader of term 1 proposed it, and it was appended by whoever led term 2.
    cluster.term = 2;
    let refusal = cluster.refused(promotion(&cluster, claim.clone()));
    assert!(matches!(refusal, Refusal::ProofRefused { proof: ProofKind::Lease, .. }), "{refusal}");
    cluster.term = 1;
    cluster.must(promotion(&cluster, claim));
    assert_eq!(cluster.active().as_deref(), Some("b"));
}

#[test]
fn a_promotion_names_the_token_that_its_proof_is_about() {
    let mut cluster = Cluster::new(|_| {});
    cluster.order(ManualMove::Failover, None);
    let claim = cluster.claim().expect("it has run out");
    let Command::Promote(promote) = promotion(&cluster, claim) else { unreachable!() };
    let late = Promote { seen_token: Some(Token(1)), ..promote };
    assert_eq!(cluster.refused(Command::Promote(late)).code(), "moved_on");
}

#[test]
fn a_failover_that_begins_with_a_wrong_claim_takes_the_active_away_and_promotes_nobody() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.falls_silent("a");
    let plan = cluster.plan().command.expect("it is down");
    let Command::TransitionStart(start) = plan else { panic!("{plan:?}") };
    let claim = LeaseClaim { token: cluster.token(), term: 9, renewed_ago: None, led_for: W };
    cluster.must(Command::TransitionStart(TransitionStart { lease: Some(claim), ..start }));
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
}

#[test]
fn the_length_of_a_tenure_is_fixed_when_its_token_is_minted() {
    let mut cluster = Cluster::new(|_| {});
    cluster.put_service(|spec| (spec.lease.ttl, spec.lease.delay) = (Millis(1_000), Millis(500)));
    assert_eq!(cluster.renew("a", "a1").map(|granted| granted.ttl), Ok(TTL));
    cluster.falls_silent("a");
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None, "a still counts its ten seconds");
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.renew("b", "b1").map(|granted| granted.ttl), Ok(Millis(1_000)));
    cluster.falls_silent("b");
    cluster.beats("a");
    cluster.pass(Millis(1_030 + 500 - 1));
    assert_eq!(cluster.active(), None);
    cluster.pass(Millis(2));
    assert!(cluster.active().is_some(), "the delay is waited as well");
}

#[test]
fn whoever_registers_anew_has_ended_its_tenure_and_owes_it() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.register("a", "a2", 300);
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    assert_eq!(cluster.token(), token, "what was granted to a1 is remembered");
    for session in ["a1", "a2"] {
        assert_eq!(cluster.renew("a", session), Err(Withheld::NotHolder));
    }
    let record = cluster.record();
    assert!(record.trigger.cause.is_some() && record.trigger.reason.contains("in a new session"), "{record:?}");

    cluster.beats("a");
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None, "a2 gets nothing sooner for having the same name");
    cluster.pass(Millis(2));
    assert!(cluster.active().is_some());
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Enforced));
}

#[test]
fn a_passive_one_that_registers_anew_changes_nothing_for_the_holder() {
    let mut cluster = Cluster::new(|_| {});
    cluster.register("b", "b2", 200);
    assert_eq!(cluster.active().as_deref(), Some("a"));
    assert!(cluster.renew("a", "a1").is_ok());
}

#[test]
fn one_that_is_probed_from_now_on_has_ended_its_tenure_too() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    let probed = Registration { liveness: Liveness::Probe, ..Registration::at("127.0.0.1:80".parse().ok()) };
    cluster.must(put_instance("orders", "a", probed));
    cluster.settle();
    assert_eq!(cluster.active(), None);
    assert!(cluster.claim().is_err(), "its lease is owed all the same");
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Enforced), "not the undeclared token of a probed one");
}

#[test]
fn a_deregistered_holder_owes_its_lease() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.must(delete_instance("orders", "a"));
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::Vacant));
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None);
    assert!(cluster.summary().contains("once that is safe: \"a\" may still act"), "{}", cluster.summary());
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!((cluster.record().kind, cluster.proof().0), (TransitionKind::Placement, ProofKind::Lease));
}

#[test]
fn a_service_that_is_deleted_and_made_again_owes_what_it_owed() {
    let mut cluster = Cluster::new(|_| {});
    let first = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    cluster.delete();
    assert_eq!(cluster.world.state.debts.len(), 1);
    // Once more: it is not lost on the way.
    cluster.put_service(|spec| spec.lease.ttl = Millis(1_000));
    cluster.delete();
    cluster.put_service(|spec| spec.lease.ttl = Millis(1_000));
    assert!(cluster.world.state.debts.is_empty(), "the service carries it itself");
    cluster.register("x", "x1", 1);
    cluster.beats("x");
    cluster.pass(Millis(W.0 - 1));
    assert_eq!(cluster.active(), None, "by the length that a was granted, not by the new one");
    cluster.pass(Millis(2));
    assert_eq!(cluster.active().as_deref(), Some("x"));
    assert_eq!(cluster.proof().0, ProofKind::Lease, "not none_needed");
    assert!(cluster.token() > first, "tokens rise across deletions");
}

#[test]
fn a_debt_is_forgotten_when_it_has_run_out_and_a_leader_has_sealed_it() {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    let terms = cluster.service().assignment.last_holder.as_ref().and_then(|it| it.lease).expect("a lease");
    cluster.delete();
    let due = |cluster: &Cluster| debts_due(&cluster.world.state, &cluster.leases, 1, cluster.local(), 10).len();
    assert_eq!(due(&cluster), 0);
    cluster.world.wait(W);
    assert_eq!(due(&cluster), 1);
    let (_seal, claim) = cluster.leases.seal(1, token, &terms, cluster.local()).expect("it has run out");
    let forget = |claim: LeaseClaim| Command::DebtForget { service: service("orders"), claim };
    assert_eq!(cluster.refused(forget(LeaseClaim { term: 2, ..claim.clone() })).code(), "moved_on");
    assert_eq!(cluster.refused(forget(LeaseClaim { token: Token(1), ..claim.clone() })).code(), "moved_on");
    for early in [
        LeaseClaim { led_for: Millis(W.0 - 1), ..claim.clone() },
        LeaseClaim { renewed_ago: Some(Millis(W.0 - 1)), ..claim.clone() },
    ] {
        assert_eq!(cluster.refused(forget(early)).code(), "moved_on");
    }
    cluster.must(forget(claim.clone()));
    assert!(cluster.world.state.debts.is_empty());
    assert_eq!(cluster.refused(forget(claim)).code(), "moved_on");
}

#[test]
fn nothing_is_owed_by_one_that_said_that_it_stopped_or_had_no_lease() {
    let mut cluster = Cluster::new(|spec| spec.lease.release_on_disconnect = true);
    let token = cluster.token();
    cluster.disconnected("a", "a1", token).expect("taken");
    cluster.delete();
    assert_eq!(cluster.world.state.debts.len(), 1, "a closed connection is not a stop");

    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.release("a", "a1", token).expect("taken");
    cluster.delete();
    assert!(cluster.world.state.debts.is_empty());
    cluster.put_service(|_| {});
    assert!(cluster.service().assignment.last_holder.is_none());
}

#[test]
fn with_freeze_the_end_of_a_lease_is_worth_less_and_says_so() {
    let mut cluster = Cluster::new(|spec| spec.on_quorum_loss = OnQuorumLoss::Freeze);
    let granted = cluster.renew("a", "a1").expect("granted");
    assert_eq!(granted.on_quorum_loss, OnQuorumLoss::Freeze);
    // Changed in mid-tenure: the holder still does what it was told when it was promoted.
    cluster.put_service(|_| {});
    cluster.falls_silent("a");
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    assert_eq!(cluster.proof(), (ProofKind::Lease, Fencing::Advisory));
    let active = cluster.service().assignment.active.as_ref().expect("an active");
    assert_eq!(active.fencing, Fencing::Advisory, "whoever asks for the active is told");
    let evidence = &cluster.record().proof.as_ref().expect("a proof").evidence;
    assert!(evidence.contains("\"freeze\""), "{evidence}");
}

#[test]
fn a_planned_move_that_no_proof_can_complete_leaves_the_active_where_it_is() {
    use baton_core::policy::{FailbackMode, ProofPolicy};
    let mut cluster = Cluster::new(|spec| {
        spec.fencing.proof = ProofPolicy::List(vec![ProofKind::Operator]);
        (spec.failback.mode, spec.failback.stable_for) = (FailbackMode::Automatic, Millis::ZERO);
    });
    cluster.register("z", "z1", 900);
    cluster.beats("z");
    let target = cluster.world.at("orders", "z").health_revision;
    let start = |kind, actor: Option<&str>, cause| {
        Command::TransitionStart(TransitionStart {
            service: service("orders"),
            kind,
            seen_token: Some(cluster.token()),
            seen_holder: Some(cluster.token()),
            to: Some(seen(cluster.service(), "z")),
            asserted: None,
            lease: None,
            trigger: Trigger { reason: "z is preferred".to_owned(), cause },
            actor: actor.map(str::to_owned),
        })
    };
    let commands = [
        start(TransitionKind::Failback, None, Some(target)),
        start(TransitionKind::Switchover, Some("alice"), None),
        start(TransitionKind::Failover, Some("alice"), None),
    ];
    for command in commands {
        assert_eq!(cluster.refused(command).code(), "proof_refused");
    }
    cluster.settle();
    assert_eq!(cluster.active().as_deref(), Some("a"));
    assert!(cluster.summary().contains("cannot get its place back by itself"), "{}", cluster.summary());
}
