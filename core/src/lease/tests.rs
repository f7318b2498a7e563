//! The table and its rounds, clause by clause.

use std::time::Duration;

use super::*;
use crate::apply::apply;
use crate::command::{Command, InstancePut, Promote, Release, ServiceDelete, ServicePut, Target, TransitionStart};
use crate::id::{InstanceId, ServiceName, Token};
use crate::policy::{Liveness, ProofKind, Registration};
use crate::probe::LocalTime;
use crate::state::{ReleaseHow, State};
use crate::time::{ClusterTime, WallTime};
use crate::transition::{TransitionKind, Trigger};

/// What a leader remembers, the state that it has applied, and its clock.
struct Leader {
    table: Leases,
    state: State,
    index: u64,
    term: u64,
    now: LocalTime,
}

const TTL: u64 = 10_000;
/// W of a lease of 10 s without a delay.
const W: u64 = 10_300;

impl Leader {
    /// A leader of term 1 since 0 ms, and a service whose instance `a` is active in session `s1`; nothing is granted yet.
    fn new() -> Self {
        let mut leader =
            Self { table: Leases::new(), state: State::default(), index: 0, term: 1, now: LocalTime::default() };
        leader.table.begin(1, leader.now);
        leader.spec(|_| {});
        for id in ["a", "b"] {
            leader.register(id, &format!("s-{id}"));
        }
        leader.start("a");
        leader
    }

    fn spec(&mut self, change: impl FnOnce(&mut Spec)) {
        let mut spec = Spec::default();
        change(&mut spec);
        self.apply(Command::ServicePut(ServicePut {
            service: name(),
            spec: Box::new(spec),
            if_generation: None,
            actor: "test".to_owned(),
        }));
    }

    fn register(&mut self, id: &str, session: &str) {
        let registration = Registration { liveness: Liveness::Heartbeat, ..Registration::at(None) };
        self.apply(Command::InstancePut(InstancePut {
            service: name(),
            instance: instance(id),
            registration: Box::new(registration),
            session: session.to_owned(),
            if_generation: None,
            actor: "test".to_owned(),
        }));
        self.judge(id);
    }

    /// Its heartbeats arrive.
    fn judge(&mut self, id: &str) {
        let epoch = self.state.instance(&name(), &instance(id)).map_or(0, |it| it.epoch);
        self.apply(Command::JudgementsRecord(crate::command::JudgementsRecord {
            judgements: vec![crate::command::Judgement {
                service: name(),
                instance: instance(id),
                epoch,
                source: crate::probe::Source::Heartbeats,
                verdict: crate::probe::Verdict::Up,
                evidence: crate::probe::Evidence {
                    check: "heartbeats".to_owned(),
                    class: None,
                    detail: "the last one came just now".to_owned(),
                    streak: 0,
                    first_failure_age: None,
                },
            }],
        }));
    }

    fn apply(&mut self, command: Command) {
        self.index += 1;
        let at = crate::apply::Position { term: self.term, index: self.index };
        let time = ClusterTime(u64::try_from(self.now.0.as_millis()).expect("a short time"));
        let applied = apply(&mut self.state, at, time, WallTime(0), command);
        applied.reply.expect("the command is carried out");
    }

    /// An operator opens a move to that instance, by their own word.
    fn start(&mut self, id: &str) {
        let service = self.state.service(&name()).expect("the service");
        let target = service.instances.get(&instance(id)).expect("registered");
        let first = service.assignment.last_holder.is_none();
        let command = Command::TransitionStart(TransitionStart {
            service: name(),
            kind: if first { TransitionKind::Placement } else { TransitionKind::Failover },
            seen_token: service.active_token(),
            seen_holder: None,
            to: Some(Target { instance: target.id.clone(), epoch: target.epoch, lag: None }),
            asserted: None,
            lease: None,
            trigger: Trigger { reason: "because".to_owned(), cause: None },
            actor: Some("alice".to_owned()),
        });
        self.apply(command);
    }

    /// Completes the open move by a claim.
    fn promote(&mut self, id: &str, claim: LeaseClaim) {
        let service = self.state.service(&name()).expect("the service");
        let target = service.instances.get(&instance(id)).expect("registered");
        let command = Command::Promote(Promote {
            service: name(),
            transition: service.assignment.transition.expect("a move is open"),
            to: Target { instance: target.id.clone(), epoch: target.epoch, lag: None },
            proof: ProofKind::Lease,
            seen_token: Some(claim.token),
            lease: Some(claim),
        });
        self.apply(command);
    }

    fn token(&self) -> Token {
        self.state.service(&name()).and_then(|it| it.active_token()).expect("an active")
    }

    fn terms(&self) -> LeaseTerms {
        let service = self.state.service(&name()).expect("the service");
        service.assignment.last_holder.as_ref().and_then(|holder| holder.lease).expect("a lease")
    }

    fn at(&mut self, ms: u64) -> &mut Self {
        self.now = ms_local(ms);
        self
    }

    /// A renewal whose round found what is applied now.
    fn grant(&mut self, id: &str, session: &str) -> Result<Granted, Withheld> {
        let point = ReadPoint { term: self.term, index: self.index };
        self.grant_at(point, id, session)
    }

    fn grant_at(&mut self, point: ReadPoint, id: &str, session: &str) -> Result<Granted, Withheld> {
        let (service, instance) = (name(), instance(id));
        let asked = Renewal { service: &service, instance: &instance, session };
        self.table.grant(point, self.index, &self.state, &asked, self.now)
    }

    fn seal(&mut self) -> Result<(Seal, LeaseClaim), Unsealable> {
        let (token, terms) = (self.token(), self.terms());
        self.table.seal(self.term, token, &terms, self.now)
    }

    fn standing(&self) -> LeaseStanding {
        self.table.standing(self.term, self.token(), &self.terms(), self.now)
    }

    /// This node is elected again.
    fn elected(&mut self, term: u64) {
        self.term = term;
        self.table.begin(term, self.now);
    }
}

fn name() -> ServiceName {
    "orders".parse().expect("a name")
}

fn instance(id: &str) -> InstanceId {
    id.parse().expect("an id")
}

const fn ms_local(ms: u64) -> LocalTime {
    LocalTime(Duration::from_millis(ms))
}

fn runs(left: u64, renewed_ago: Option<u64>) -> LeaseStanding {
    LeaseStanding::Runs { left: Millis(left), renewed_ago: renewed_ago.map(Millis) }
}

#[test]
fn w_is_the_length_and_three_percent_rounded_up_and_the_delay() {
    let terms = |ttl, delay| LeaseTerms {
        ttl: Millis(ttl),
        delay: Millis(delay),
        on_quorum_loss: OnQuorumLoss::SelfFence,
        release_on_disconnect: false,
    };
    for (ttl, delay, wait) in
        [(10_000, 0, 10_300), (10_000, 500, 10_800), (1, 0, 2), (33, 0, 34), (34, 0, 36), (100, 0, 103), (101, 0, 105)]
    {
        assert_eq!(terms(ttl, delay).wait(), Duration::from_millis(wait), "ttl {ttl} ms, delay {delay} ms");
        // What it is for: the leader's clock may be 1 % fast, and the holder's 1 % slow.
        assert!((wait - delay) * 99 >= ttl * 101, "both clocks may err: {wait} ms for {ttl} ms");
    }
    assert!(terms(u64::MAX, u64::MAX).wait() >= Duration::from_millis(u64::MAX), "no overflow");
}

#[test]
fn the_terms_are_those_of_the_spec_when_the_token_was_minted() {
    let mut leader = Leader::new();
    leader.spec(|spec| {
        (spec.lease.ttl, spec.lease.delay) = (Millis(1_000), Millis(7));
        spec.on_quorum_loss = OnQuorumLoss::Freeze;
        spec.lease.release_on_disconnect = true;
    });
    assert_eq!(leader.terms().ttl, Millis(TTL), "a changed spec counts from the next promotion on");
    let granted = leader.grant("a", "s-a").expect("granted");
    assert_eq!((granted.ttl, granted.on_quorum_loss), (Millis(TTL), OnQuorumLoss::SelfFence));
    leader.at(1_100);
    assert!(matches!(leader.seal(), Err(Unsealable::Runs { .. })), "nor does a shorter one end it sooner");

    leader.at(W).start("b");
    let token = leader.state.service(&name()).and_then(|it| it.assignment.last_holder.as_ref()?.token).expect("owed");
    let terms = leader.terms();
    let (_seal, claim) = leader.table.seal(1, token, &terms, leader.now).expect("it has run out");
    leader.promote("b", claim);
    let terms = leader.terms();
    assert_eq!((terms.ttl, terms.delay), (Millis(1_000), Millis(7)));
    assert_eq!((terms.on_quorum_loss, terms.release_on_disconnect), (OnQuorumLoss::Freeze, true));
}

#[test]
fn a_grant_names_the_token_and_the_length_and_only_the_holder_s_session_gets_one() {
    let mut leader = Leader::new();
    let granted = leader.grant("a", "s-a").expect("granted");
    assert_eq!(granted, Granted { token: leader.token(), ttl: Millis(TTL), on_quorum_loss: OnQuorumLoss::SelfFence });
    assert_eq!(leader.grant("a", "another"), Err(Withheld::NotHolder));
    assert_eq!(leader.grant("b", "s-b"), Err(Withheld::NotHolder));
    assert_eq!(leader.grant("b", "s-a"), Err(Withheld::NotHolder));
    assert_eq!(leader.grant("nobody", "s-a"), Err(Withheld::NotHolder));
    let (other, a) = ("bills".parse().expect("a name"), instance("a"));
    let asked = Renewal { service: &other, instance: &a, session: "s-a" };
    let point = ReadPoint { term: 1, index: 0 };
    assert_eq!(leader.table.grant(point, 99, &leader.state, &asked, leader.now), Err(Withheld::NotHolder));
}

#[test]
fn a_round_of_another_term_or_a_state_behind_it_grants_nothing() {
    let mut leader = Leader::new();
    let index = leader.index;
    for (term, index, expected) in [
        (1, index, None),
        (1, index - 1, None),
        (1, index + 1, Some(Withheld::Behind)),
        (0, index, Some(Withheld::OtherTerm)),
        (2, index, Some(Withheld::OtherTerm)),
    ] {
        let found = leader.grant_at(ReadPoint { term, index }, "a", "s-a");
        assert_eq!(found.err(), expected, "round of term {term} at {index}");
    }
    // Nothing that was withheld is recorded as granted.
    let mut leader = Leader::new();
    leader.at(9_000);
    assert!(leader.grant_at(ReadPoint { term: 2, index }, "a", "s-a").is_err());
    assert!(leader.grant_at(ReadPoint { term: 1, index: index + 1 }, "a", "s-a").is_err());
    assert!(leader.grant("a", "wrong").is_err());
    assert_eq!(leader.at(W - 1).standing(), runs(1, None));
    assert!(matches!(leader.at(W).standing(), LeaseStanding::RanOut { .. }));
}

#[test]
fn whoever_registers_again_inherits_nothing() {
    let mut leader = Leader::new();
    assert!(leader.grant("a", "s-a").is_ok());
    leader.register("a", "s-a2");
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::NotHolder), "the old session is superseded");
    assert_eq!(leader.grant("a", "s-a2"), Err(Withheld::NotHolder), "the new one holds nothing");
}

#[test]
fn whoever_is_to_step_down_or_has_released_is_granted_nothing() {
    let mut leader = Leader::new();
    leader.start("b");
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::NotHolder), "a switch is open: renewals end");

    let mut leader = Leader::new();
    let token = leader.token();
    leader.apply(Command::Release(Release {
        service: name(),
        instance: instance("a"),
        session: Some("s-a".to_owned()),
        token,
        leaving: false,
        how: ReleaseHow::Said,
        reason: "done".to_owned(),
    }));
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::NotHolder));
}

#[test]
fn one_that_is_only_probed_has_no_lease() {
    let mut leader = Leader::new();
    let mut state = leader.state.clone();
    let service = state.services.get_mut(&name()).map(std::sync::Arc::make_mut).expect("the service");
    service.assignment.last_holder.as_mut().expect("a holder").lease = None;
    leader.state = state;
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::NoLease));
}

#[test]
fn w_counts_from_the_last_recorded_renewal_and_from_the_election_whichever_is_later() {
    let mut leader = Leader::new();
    assert_eq!(leader.at(300).standing(), runs(W - 300, None), "an earlier leader may have granted up to its end");
    leader.at(4_000).grant("a", "s-a").expect("granted");
    leader.at(5_000).grant("a", "s-a").expect("granted");
    assert_eq!(leader.at(6_000).standing(), runs(5_000 + W - 6_000, Some(1_000)));
    assert_eq!(leader.at(5_000 + W - 1).seal(), Err(Unsealable::Runs { left: Duration::from_millis(1) }));
    let (_seal, claim) = leader.at(5_000 + W).seal().expect("it has run out");
    let token = leader.token();
    let expected = LeaseClaim { token, term: 1, renewed_ago: Some(Millis(W)), led_for: Millis(5_000 + W) };
    assert_eq!(claim, expected);
}

#[test]
fn what_was_never_granted_may_be_replaced_once_the_leader_s_own_wait_is_over() {
    let mut leader = Leader::new();
    leader.at(3_600_000);
    leader.start("b");
    let first = leader.state.service(&name()).and_then(|it| it.assignment.last_holder.as_ref()?.token).expect("owed");
    let terms = leader.terms();
    let (_seal, claim) = leader.table.seal(1, first, &terms, leader.now).expect("at once");
    assert_eq!(claim.renewed_ago, None);
    leader.promote("b", claim);
    // And again: b was promoted this very moment, and nobody has told it.
    assert!(matches!(leader.standing(), LeaseStanding::RanOut { .. }));
    leader.grant("b", "s-b").expect("granted");
    assert_eq!(leader.standing(), runs(W, Some(0)));
}

#[test]
fn a_remainder_of_a_millisecond_is_told_as_one() {
    let mut leader = Leader::new();
    leader.now = LocalTime(Duration::from_micros(W * 1_000 - 1));
    assert_eq!(leader.standing(), runs(1, None), "never told as over while it may run");
    assert!(leader.seal().is_err());
}

#[test]
fn a_sealed_token_is_granted_nothing_until_every_seal_is_lifted() {
    let mut leader = Leader::new();
    let token = leader.token();
    let (first, _) = leader.at(W).seal().expect("sealed");
    let (second, _) = leader.at(W + 5).seal().expect("sealed once more");
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::Sealed));
    leader.table.unseal(first);
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::Sealed), "the other one still holds");
    // No time lifts it.
    assert_eq!(leader.at(1_000 * W).grant("a", "s-a"), Err(Withheld::Sealed));
    assert!(matches!(leader.standing(), LeaseStanding::RanOut { .. }), "what was refused is not recorded");
    leader.table.unseal(second);
    assert_eq!(leader.grant("a", "s-a").map(|granted| granted.token), Ok(token));
    assert!(matches!(leader.seal(), Err(Unsealable::Runs { .. })));
}

#[test]
fn a_seal_closes_its_own_token_only() {
    let mut leader = Leader::new();
    let terms = leader.terms();
    let (_seal, _) = leader.at(W).table.seal(1, Token(999), &terms, ms_local(W)).expect("another service's token");
    assert!(leader.grant("a", "s-a").is_ok());
}

#[test]
fn a_seal_ends_with_its_term_and_opens_nothing_in_another() {
    let mut leader = Leader::new();
    let (stale, _) = leader.at(W).seal().expect("sealed in term 1");
    leader.elected(3);
    assert!(leader.grant("a", "s-a").is_ok(), "the table of term 3 is empty");
    let (fresh, _) = leader.at(3 * W).seal().expect("sealed in term 3");
    leader.table.unseal(stale);
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::Sealed), "what was sealed in term 1 lifts nothing of term 3");
    leader.table.unseal(fresh);
    assert!(leader.grant("a", "s-a").is_ok());
}

#[test]
fn nobody_but_the_leader_of_the_term_seals() {
    let mut leader = Leader::new();
    let (token, terms) = (leader.token(), leader.terms());
    for term in [0, 2] {
        assert_eq!(leader.table.seal(term, token, &terms, ms_local(10 * W)).map(|_| ()), Err(Unsealable::OtherTerm));
        assert_eq!(leader.table.standing(term, token, &terms, ms_local(10 * W)), LeaseStanding::Unknown);
    }
}

#[test]
fn every_election_begins_with_an_empty_table_and_a_full_wait() {
    let mut leader = Leader::new();
    leader.at(1_000).grant("a", "s-a").expect("granted");
    leader.at(20_000).elected(4);
    assert_eq!(leader.standing(), runs(W, None), "another leader may have granted meanwhile");
    assert_eq!(leader.at(20_000 + W - 1).standing(), runs(1, None));
    assert!(leader.at(20_000 + W).seal().is_ok());
}

#[test]
fn the_same_or_an_older_term_said_again_changes_nothing() {
    let mut leader = Leader::new();
    leader.at(10_000).elected(5);
    leader.at(12_000).grant("a", "s-a").expect("granted");
    let (before, at) = (leader.standing(), leader.now);
    for term in [5, 4, 1, 0] {
        leader.table.begin(term, ms_local(60_000));
        assert_eq!(leader.table.term(), 5);
        assert_eq!(leader.standing(), before, "begin({term}) at {at:?}");
    }
    let (_seal, _) = leader.at(12_000 + W).seal().expect("sealed");
    leader.table.begin(5, ms_local(60_000));
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::Sealed), "no seal is lifted by it");
}

#[test]
fn a_table_of_no_term_grants_and_seals_nothing_for_a_leader() {
    let mut leader = Leader::new();
    leader.table = Leases::new();
    assert_eq!(leader.grant("a", "s-a"), Err(Withheld::OtherTerm));
    assert!(matches!(leader.at(10 * W).seal(), Err(Unsealable::OtherTerm)));
}

#[test]
fn what_is_held_or_owed_is_remembered_and_what_is_younger_than_the_state_too() {
    let mut leader = Leader::new();
    let (token, terms) = (leader.token(), leader.terms());
    let behind = State::default();
    leader.at(W).grant("a", "s-a").expect("granted");
    leader.table.retain(&behind);
    assert_eq!(leader.standing(), runs(W, Some(0)), "a state from before it was minted says nothing of it");
    leader.table.retain(&leader.state);
    assert_eq!(leader.standing(), runs(W, Some(0)));

    leader.apply(Command::ServiceDelete(ServiceDelete {
        service: name(),
        if_generation: None,
        actor: "test".to_owned(),
    }));
    leader.table.retain(&leader.state);
    let standing = |leader: &Leader| leader.table.standing(1, token, &terms, leader.now);
    assert_eq!(standing(&leader), runs(W, Some(0)), "a deleted service owes it");
    leader.state.debts.clear();
    leader.table.retain(&leader.state);
    assert!(matches!(standing(&leader), LeaseStanding::RanOut { claim } if claim.renewed_ago.is_none()), "forgotten");
}

#[test]
fn a_round_speaks_for_those_who_were_there_when_it_began() {
    let mut rounds = Rounds::default();
    assert!(!rounds.wanted() && rounds.is_empty());
    rounds.receive("first");
    rounds.receive("second");
    assert!(rounds.wanted());
    rounds.begin();
    assert!(!rounds.wanted(), "one at a time");
    rounds.receive("late");
    assert_eq!(rounds.len(), 3);
    rounds.begin();
    assert_eq!(rounds.end(), ["first", "second"], "a second begin takes nobody along");
    assert!(rounds.wanted());
    rounds.begin();
    assert_eq!(rounds.end(), ["late"]);
    assert_eq!(rounds.end(), [""; 0], "said once");
    rounds.begin();
    assert!(!rounds.wanted() && rounds.is_empty());
}

#[cfg(feature = "mutants")]
mod planted_faults {
    //! Each fault that lives here, planted, does what it must not: `true` means that the clause was seen broken.

    use super::*;
    use crate::mutant::plant;

    fn broken(mutant: Mutant) -> Option<bool> {
        Some(match mutant {
            Mutant::RoundBeforeReceipt => {
                let mut rounds = Rounds::default();
                rounds.receive(1);
                rounds.begin();
                rounds.receive(2);
                rounds.end().contains(&2)
            }
            Mutant::NoWaitOfNewLeader => Leader::new().at(1).seal().is_ok(),
            Mutant::TableKeptOnReelection => {
                let mut leader = Leader::new();
                leader.at(20_000).elected(4);
                leader.seal().is_ok()
            }
            Mutant::MarginOfOneClock => {
                let mut leader = Leader::new();
                leader.grant("a", "s-a").expect("granted");
                leader.at(TTL * 102 / 100).seal().is_ok()
            }
            Mutant::RecordedAfterSending => {
                let mut leader = Leader::new();
                leader.at(W).grant("a", "s-a").expect("granted");
                leader.seal().is_ok()
            }
            Mutant::NoSeal | Mutant::SealAtAppend => {
                let mut leader = Leader::new();
                let (_seal, _) = leader.at(W).seal().expect("sealed");
                leader.grant("a", "s-a").is_ok()
            }
            Mutant::SealTimesOut => {
                let mut leader = Leader::new();
                let (_seal, _) = leader.at(W).seal().expect("sealed");
                leader.at(3 * W).grant("a", "s-a").is_ok()
            }
            Mutant::GrantBeforeOwnEntry => {
                let mut leader = Leader::new();
                let point = ReadPoint { term: 1, index: leader.index + 1 };
                leader.grant_at(point, "a", "s-a").is_ok()
            }
            Mutant::LengthChangesInTenure => {
                let mut leader = Leader::new();
                leader.spec(|spec| spec.lease.ttl = Millis(60_000));
                leader.grant("a", "s-a").expect("granted").ttl == Millis(60_000)
            }
            Mutant::RegistrationInherits => {
                let mut leader = Leader::new();
                leader.register("a", "s-a2");
                leader.grant("a", "s-a2").is_ok()
            }
            // Kept elsewhere: by the holder, by apply, or by whoever makes rounds, leaders and clocks.
            Mutant::NoReadIndex
            | Mutant::WaitFromCandidacy
            | Mutant::ClockStopsInSleep
            | Mutant::AnswerMatchedToNewest
            | Mutant::DeletionForgetsDebt
            | Mutant::ReleaseWithoutToken
            | Mutant::AnswerHeardAfterRelease
            | Mutant::ActivationTimeoutAsProof
            | Mutant::PromotionWithoutCompare => return None,
        })
    }

    #[test]
    fn each_fault_that_is_planted_here_shows() {
        for mutant in Mutant::ALL {
            plant(None);
            let Some(without) = broken(mutant) else { continue };
            assert!(!without, "{mutant:?} shows although it is not planted");
            plant(Some(mutant));
            assert_eq!(broken(mutant), Some(true), "{mutant:?} is planted and does not show");
        }
        plant(None);
    }

    #[test]
    fn the_fault_that_closes_at_the_append_does_close_then() {
        plant(Some(Mutant::SealAtAppend));
        let mut leader = Leader::new();
        let (seal, _) = leader.at(W).seal().expect("sealed");
        leader.table.appended(&seal, leader.now);
        assert_eq!(leader.grant("a", "s-a"), Err(Withheld::Sealed));
        plant(None);
    }
}
