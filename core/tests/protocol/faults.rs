//! The faults that can be planted in `apply`, and those in the table that `apply` must not hide: each does what the stories say
//! must not happen.

use baton_core::command::{Command, Promote};
use baton_core::id::Token;
use baton_core::lease::LeaseClaim;
use baton_core::mutant::{Mutant, plant};
use baton_core::planner::ManualMove;
use baton_core::time::Millis;

use super::cluster::{Cluster, W};
use super::tenures::promotion;

/// Whether the clause is seen broken; none where the fault lives elsewhere.
fn broken(mutant: Mutant) -> Option<bool> {
    let mut cluster = Cluster::new(|_| {});
    let token = cluster.token();
    cluster.renew("a", "a1").expect("granted");
    Some(match mutant {
        Mutant::RegistrationInherits => {
            cluster.register("a", "a2", 300);
            cluster.renew("a", "a2").is_ok()
        }
        Mutant::DeletionForgetsDebt => {
            cluster.delete();
            cluster.put_service(|_| {});
            cluster.register("b", "b2", 1);
            cluster.beats("b");
            cluster.settle();
            cluster.active().is_some()
        }
        Mutant::ReleaseWithoutToken => cluster.release("a", "a1", Token(token.0 - 1)).is_ok(),
        Mutant::ActivationTimeoutAsProof => {
            cluster.put_service(|spec| {
                (spec.failover.require_ack, spec.failover.activation_timeout) = (true, Millis(5_000));
            });
            cluster.order(ManualMove::Failover, Some("b"));
            cluster.release("a", "a1", token).expect("taken");
            cluster.settle();
            cluster.world.wait(Millis(4_999));
            cluster.renew("b", "b1").expect("granted");
            cluster.pass(Millis(1));
            cluster.active().is_some_and(|id| id != "b")
        }
        Mutant::PromotionWithoutCompare => {
            // A promotion that was planned when another token was owed, by a claim about that one.
            cluster.order(ManualMove::Failover, Some("b"));
            let claim = LeaseClaim { token: Token(1), term: 1, renewed_ago: None, led_for: W };
            let Command::Promote(promote) = promotion(&cluster, claim) else { unreachable!() };
            cluster.send(Command::Promote(Promote { seen_token: Some(Token(1)), ..promote })).is_ok()
        }
        Mutant::NoWaitOfNewLeader => {
            cluster.term = 2;
            cluster.leases.begin(2, cluster.local());
            cluster.falls_silent("a");
            cluster.pass(Millis(W.0 - 1));
            cluster.active().is_some()
        }
        Mutant::MarginOfOneClock => {
            cluster.falls_silent("a");
            cluster.pass(Millis(W.0 - 1));
            cluster.active().is_some()
        }
        Mutant::NoSeal => {
            cluster.world.wait(W);
            let claim = cluster.claim().expect("it has run out");
            let late = cluster.renew("a", "a1").is_ok();
            cluster.order(ManualMove::Failover, Some("b"));
            let promotion = promotion(&cluster, claim);
            late && cluster.send(promotion).is_ok()
        }
        // Kept by the table, by the holder, or by whoever makes rounds, leaders and clocks.
        Mutant::NoReadIndex
        | Mutant::RoundBeforeReceipt
        | Mutant::WaitFromCandidacy
        | Mutant::TableKeptOnReelection
        | Mutant::ClockStopsInSleep
        | Mutant::AnswerMatchedToNewest
        | Mutant::RecordedAfterSending
        | Mutant::SealAtAppend
        | Mutant::SealTimesOut
        | Mutant::GrantBeforeOwnEntry
        | Mutant::LengthChangesInTenure
        | Mutant::AnswerHeardAfterRelease => return None,
    })
}

#[test]
fn each_fault_that_is_planted_there_shows() {
    for mutant in Mutant::ALL {
        plant(None);
        let Some(without) = broken(mutant) else { continue };
        assert!(!without, "{mutant:?} shows although it is not planted");
        plant(Some(mutant));
        let found = broken(mutant);
        plant(None);
        assert_eq!(found, Some(true), "{mutant:?} is planted and does not show");
    }
}
