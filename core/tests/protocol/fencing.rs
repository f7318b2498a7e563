//! The fencing hook where the one that it would cut off is well again, and what an operator asserts of whom.

use baton_core::command::{Command, HookEnd};
use baton_core::planner::{Decision, ManualMove};
use baton_core::policy::{FencingHook, ProofKind, ProofPolicy, Spec};
use baton_core::state::Phase;
use baton_core::time::Millis;
use baton_core::transition::{Fencing, HookOutcome};

use super::cluster::{Cluster, W};
use crate::support::{delete_instance, service};

fn hooked(spec: &mut Spec, proofs: &[ProofKind]) {
    spec.fencing.proof = ProofPolicy::List(proofs.to_vec());
    let agent = Some("off".to_owned());
    spec.fencing.hook = Some(FencingHook { url: None, agent, timeout: Millis(1_000), attempts: 3 });
}

/// `orders` with nobody but a, which has been granted time, and whose process was started again.
fn restarted(proofs: &[ProofKind]) -> Cluster {
    let mut cluster = Cluster::empty();
    cluster.put_service(|spec| hooked(spec, proofs));
    cluster.register("a", "a1", 300);
    cluster.beats("a");
    cluster.settle();
    cluster.renew("a", "a1").expect("granted");
    cluster.register("a", "a2", 300);
    cluster.beats("a");
    assert_eq!(cluster.phase(), Phase::FailingOver);
    cluster
}

#[test]
fn the_fresh_process_of_the_only_candidate_is_not_cut_off() {
    let mut cluster = restarted(&[ProofKind::Release, ProofKind::Lease, ProofKind::Hook]);
    cluster.pass(Millis(W.0 + 1));
    assert!(cluster.record().hook.is_empty(), "{:?}", cluster.record().hook);
    assert_eq!((cluster.active().as_deref(), cluster.proof()), (Some("a"), (ProofKind::Lease, Fencing::Enforced)));
}

#[test]
fn where_only_the_hook_could_prove_it_an_operator_is_waited_for_or_another_is_promoted() {
    for proofs in [vec![ProofKind::Hook], vec![ProofKind::Release, ProofKind::Hook]] {
        let mut cluster = restarted(&proofs);
        cluster.pass(Millis(10 * W.0));
        assert!(cluster.record().hook.is_empty());
        let report = cluster.plan().report;
        let says = ["would cut off \"a\", which is the one that is to be promoted", "an operator may say"];
        assert!(says.iter().all(|words| report.summary.contains(words)), "{}", report.summary);
        assert_eq!(report.decision, Decision::Hold);

        // There is another: now a may be cut off, and is not promoted when it was.
        cluster.register("b", "b1", 200);
        cluster.beats("b");
        cluster.settle();
        let run = cluster.record().hook.last().expect("a run").clone();
        assert_eq!((run.number, run.instance.as_str()), (1, "a"));
        let transition = cluster.record().id;
        let detail = "fence agent \"off\" exited with 0".to_owned();
        let outcome = HookOutcome { ok: true, code: Some(0), status: None, detail, took_ms: 40 };
        cluster.must(Command::HookEnd(HookEnd { service: service("orders"), transition, attempt: 1, outcome }));
        cluster.settle();
        assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("b"), ProofKind::Hook));
    }
}

#[test]
fn what_an_operator_asserts_of_one_holder_does_not_count_for_the_next() {
    let mut cluster = Cluster::new(|spec| {
        (spec.failover.require_ack, spec.failover.activation_timeout) = (true, Millis(5_000));
    });
    // Whoever is active in the beginning has not acknowledged either.
    let token = cluster.token();
    cluster.ack("a", "a1", token).expect("it serves");
    cluster.renew("a", "a1").expect("granted");
    cluster.falls_silent("a");
    cluster.settle();
    let asserted = cluster.ask(ManualMove::Failover, Some("c"), true).expect("alice is sure of a");
    let asserted = asserted.command.expect("there is something to do");
    assert!(matches!(&asserted, Command::TransitionTake(_)), "{asserted:?}");
    // Before it is applied, b is promoted within the same move, works, and does not say so in time.
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    cluster.world.wait(Millis(4_000));
    cluster.renew("b", "b1").expect("granted");
    cluster.pass(Millis(1_000));
    assert_eq!((cluster.active(), cluster.phase()), (None, Phase::FailingOver));
    assert_eq!(cluster.refused(asserted).code(), "moved_on", "alice said nothing of b");
    let again = cluster.ask(ManualMove::Failover, Some("c"), true).expect("she looks again");
    cluster.must(again.command.expect("there is something to do"));
    assert_eq!((cluster.active().as_deref(), cluster.proof().0), (Some("c"), ProofKind::Operator));
}

#[test]
fn nor_where_nobody_is_active_before_and_after() {
    let mut cluster = Cluster::new(|_| {});
    cluster.renew("a", "a1").expect("granted");
    cluster.must(delete_instance("orders", "a"));
    let asserted = cluster.ask(ManualMove::Failover, Some("c"), true).expect("alice is sure of a");
    let asserted = asserted.command.expect("there is something to do");
    assert!(matches!(&asserted, Command::TransitionStart(_)), "{asserted:?}");
    cluster.pass(Millis(W.0 + 1));
    assert_eq!(cluster.active().as_deref(), Some("b"));
    cluster.renew("b", "b1").expect("granted");
    cluster.must(delete_instance("orders", "b"));
    assert_eq!(cluster.refused(asserted).code(), "moved_on", "alice said nothing of b");
}
