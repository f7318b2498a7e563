//! The holder's rule, sentence by sentence, on a clock in the test's hands.

use super::*;

const TTL: u64 = 10_000;

const fn at(ms: u64) -> LocalTime {
    LocalTime(Duration::from_millis(ms))
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn passive() -> RoleAnswer {
    RoleAnswer { lease: None, interval: ms(2_000) }
}

const fn leased_by(token: u64, on_quorum_loss: OnQuorumLoss) -> RoleAnswer {
    let lease = LeaseAnswer { token: Token(token), ttl: ms(TTL), on_quorum_loss };
    RoleAnswer { lease: Some(lease), interval: ms(2_000) }
}

const fn leased(token: u64) -> RoleAnswer {
    leased_by(token, OnQuorumLoss::SelfFence)
}

/// A holder that was granted token 7 for ten seconds from 0 ms on.
fn active() -> Holder {
    let mut holder = Holder::new(at(0));
    let beat = holder.send(at(0));
    let changes = holder.answered(beat.number, &leased(7), at(5));
    assert_eq!(changes, [Change::Active { token: Token(7), until: at(TTL) }]);
    holder
}

/// The holder sends at `sent`, and hears the answer at `heard`.
fn hears(holder: &mut Holder, sent: u64, answer: &RoleAnswer, heard: u64) -> Vec<Change> {
    let beat = holder.send(at(sent));
    holder.answered(beat.number, answer, at(heard))
}

#[test]
fn nobody_acts_before_an_answer_names_a_token_and_a_lease() {
    let mut holder = Holder::new(at(0));
    assert_eq!((holder.may_act(at(0)), holder.lapses_at(), holder.beat_at()), (None, None, Some(at(0))));
    assert_eq!(hears(&mut holder, 0, &passive(), 10), []);
    holder.prompted(at(20));
    assert_eq!((holder.may_act(at(20)), holder.beat_at()), (None, Some(at(20))), "a push only prompts a heartbeat");
    assert_eq!(hears(&mut holder, 20, &leased(7), 30), [Change::Active { token: Token(7), until: at(20 + TTL) }]);
    assert_eq!(holder.may_act(at(30)), Some(Token(7)));
}

#[test]
fn a_lease_counts_from_just_before_the_very_request_was_sent_that_was_answered() {
    let mut holder = active();
    let (first, second) = (holder.send(at(1_000)), holder.send(at(4_000)));
    assert_eq!(
        holder.answered(first.number, &leased(7), at(5_000)),
        [Change::Extended { until: at(1_000 + TTL) }],
        "the newer request has no answer yet"
    );
    assert_eq!(holder.lapses_at(), Some(at(1_000 + TTL)));
    assert_eq!(holder.answered(second.number, &leased(7), at(6_000)), [Change::Extended { until: at(4_000 + TTL) }]);
}

#[test]
fn answers_out_of_order_never_shorten_a_lease() {
    let mut holder = active();
    let (first, second) = (holder.send(at(1_000)), holder.send(at(4_000)));
    assert_eq!(holder.answered(second.number, &leased(7), at(4_100)), [Change::Extended { until: at(14_000) }]);
    assert_eq!(holder.answered(first.number, &leased(7), at(4_200)), []);
    assert_eq!(holder.lapses_at(), Some(at(14_000)));
}

#[test]
fn an_answer_counts_once_and_only_for_a_request_that_was_made() {
    let mut holder = active();
    let beat = holder.send(at(1_000));
    assert_eq!(holder.answered(beat.number + 1, &leased(9), at(1_010)), [], "nobody asked that");
    assert_eq!(holder.answered(beat.number, &leased(7), at(1_010)).len(), 1);
    assert_eq!(holder.answered(beat.number, &leased(9), at(1_020)), [], "a second answer to the same request");
    let beat = holder.send(at(2_000));
    holder.unanswered(beat.number, at(2_500));
    assert_eq!(holder.answered(beat.number, &leased(7), at(2_600)), [], "it was given up");
}

#[test]
fn a_late_answer_grants_nothing() {
    let mut holder = Holder::new(at(0));
    assert_eq!(hears(&mut holder, 0, &leased(7), TTL), [], "the very end is too late");
    assert_eq!(hears(&mut holder, TTL, &leased(7), 2 * TTL - 1).len(), 1, "a millisecond before it is not");
    assert_eq!(holder.may_act(at(2 * TTL - 1)), Some(Token(7)));
    assert_eq!(holder.may_act(at(2 * TTL)), None);
}

#[test]
fn it_stops_when_the_lease_runs_out_whatever_it_hears() {
    let mut holder = active();
    let old = holder.send(at(0));
    assert_eq!(holder.elapsed(at(TTL - 1)), []);
    assert_eq!(holder.may_act(at(TTL)), None, "whether or not anybody looks");
    assert_eq!(holder.elapsed(at(TTL)), [Change::Stopped { token: Token(7), why: Stop::Lapsed }]);
    assert_eq!(holder.elapsed(at(TTL + 1)), [], "said once");
    assert_eq!(holder.answered(old.number, &leased(7), at(TTL + 1)), [], "what was sent before it is over with it");
    // The cluster may still give it more time under the same token: then it begins again.
    assert_eq!(hears(&mut holder, TTL + 2, &leased(7), TTL + 3).len(), 1);
}

#[test]
fn one_that_is_told_that_it_is_passive_steps_down() {
    let mut holder = active();
    assert_eq!(
        hears(&mut holder, 1_000, &passive(), 1_010),
        [Change::Stopped { token: Token(7), why: Stop::SteppedDown }]
    );
    assert_eq!(holder.may_act(at(1_011)), None);
    assert_eq!(hears(&mut holder, 2_000, &passive(), 2_010), [], "said once");
}

#[test]
fn an_older_passive_than_the_grant_says_nothing() {
    let mut holder = Holder::new(at(0));
    let (first, second) = (holder.send(at(0)), holder.send(at(100)));
    assert_eq!(holder.answered(second.number, &leased(7), at(200)).len(), 1);
    assert_eq!(holder.answered(first.number, &passive(), at(300)), [], "it was passive when that one was answered");
    assert_eq!(holder.may_act(at(300)), Some(Token(7)));
    // A grant that says nothing new is the newest word all the same.
    let (third, fourth) = (holder.send(at(400)), holder.send(at(400)));
    assert_eq!(holder.answered(fourth.number, &leased(7), at(500)).len(), 1);
    assert_eq!(holder.answered(third.number, &passive(), at(600)), []);
}

#[test]
fn an_older_grant_than_the_passive_starts_nothing_again() {
    let mut holder = active();
    let (first, second) = (holder.send(at(1_000)), holder.send(at(1_100)));
    assert_eq!(holder.answered(second.number, &passive(), at(1_200)).len(), 1, "it steps down");
    assert_eq!(holder.answered(first.number, &leased(7), at(1_300)), [], "what was granted before must not start it");
    assert_eq!(holder.may_act(at(1_300)), None);
    assert_eq!(hears(&mut holder, 1_400, &leased(9), 1_410).len(), 1, "a newer one does");
}

#[test]
fn after_a_release_nothing_that_names_that_token_or_a_lower_one_is_heeded() {
    for (named, heeded) in [(7, false), (6, false), (8, true)] {
        let mut holder = active();
        let late = holder.send(at(1_000));
        holder.release(Token(7));
        assert_eq!(holder.may_act(at(1_001)), None);
        let changes = holder.answered(late.number, &leased(named), at(1_010));
        assert_eq!(!changes.is_empty(), heeded, "token {named} after the release of 7: {changes:?}");
        assert_eq!(holder.may_act(at(1_010)).is_some(), heeded);
        let later = hears(&mut holder, 2_000, &leased(named), 2_010);
        let acts = later.iter().any(|change| matches!(change, Change::Active { .. } | Change::Extended { .. }));
        assert_eq!(acts, heeded, "nor if it is asked later: {later:?}");
        assert_eq!(holder.may_act(at(2_010)).is_some(), heeded);
    }
}

#[test]
fn a_grant_that_was_asked_for_after_the_release_shows_that_nobody_heard_it() {
    let mut holder = active();
    let before = holder.send(at(1_000));
    holder.release(Token(7));
    assert_eq!(holder.answered(before.number, &leased(7), at(1_010)), [], "it was asked before: that shows nothing");
    let unheard = [Change::Unreleased { token: Token(7) }];
    assert_eq!(hears(&mut holder, 2_000, &leased(7), 2_010), unheard);
    assert_eq!(hears(&mut holder, 60_000, &leased(7), 60_010), unheard, "as long as it is so");
    assert_eq!((holder.may_act(at(60_010)), holder.lapses_at()), (None, None));
    holder.release(Token(6));
    assert_eq!(hears(&mut holder, 61_000, &leased(7), 61_010), unheard, "a lower release changes nothing");
    assert_eq!(hears(&mut holder, 62_000, &leased(6), 62_010), [], "the lower one is nobody's any more");
    assert_eq!(hears(&mut holder, 63_000, &passive(), 63_010), []);

    // One that was only replaced may still be worked under: nobody has released it.
    let mut holder = active();
    hears(&mut holder, 1_000, &leased(9), 1_010);
    assert_eq!(hears(&mut holder, 2_000, &leased(7), 2_010), []);
}

#[test]
fn an_answer_without_a_word_of_the_role_takes_nothing_away_and_gives_nothing() {
    let mut holder = active();
    let beat = holder.send(at(1_000));
    holder.undecided(beat.number);
    assert_eq!((holder.may_act(at(1_010)), holder.lapses_at()), (Some(Token(7)), Some(at(TTL))));
    assert_eq!(holder.answered(beat.number, &leased(7), at(1_020)), [], "it was answered");
    assert_eq!(holder.elapsed(at(TTL)), [Change::Stopped { token: Token(7), why: Stop::Lapsed }]);
}

#[test]
fn the_release_of_an_old_token_leaves_a_newer_one_alone() {
    let mut holder = active();
    hears(&mut holder, 1_000, &leased(9), 1_010);
    holder.release(Token(7));
    assert_eq!(holder.may_act(at(1_020)), Some(Token(9)));
    holder.release(Token(9));
    holder.release(Token(7));
    let heard = hears(&mut holder, 2_000, &leased(9), 2_010);
    assert_eq!(heard, [Change::Unreleased { token: Token(9) }], "a lower release takes nothing back");
    assert_eq!(holder.may_act(at(2_010)), None);
}

#[test]
fn a_higher_token_replaces_what_is_held_and_a_lower_one_does_not() {
    let mut holder = active();
    assert_eq!(
        hears(&mut holder, 1_000, &leased(9), 1_010),
        [
            Change::Stopped { token: Token(7), why: Stop::Replaced },
            Change::Active { token: Token(9), until: at(1_000 + TTL) }
        ]
    );
    assert_eq!(hears(&mut holder, 2_000, &leased(7), 2_010), []);
    assert_eq!((holder.may_act(at(2_010)), holder.lapses_at()), (Some(Token(9)), Some(at(1_000 + TTL))));
    holder.elapsed(at(1_000 + TTL));
    assert_eq!(hears(&mut holder, 12_000, &leased(7), 12_010), [], "the replaced one is done with for good");
}

#[test]
fn another_registration_ends_the_session_for_good() {
    let mut holder = active();
    let (first, late) = (holder.send(at(1_000)), holder.send(at(1_100)));
    assert_eq!(holder.superseded(first.number), [Change::Stopped { token: Token(7), why: Stop::Superseded }]);
    assert!(holder.is_over() && holder.beat_at().is_none() && holder.may_act(at(1_200)).is_none());
    assert_eq!(holder.answered(late.number, &leased(9), at(1_200)), [], "late answers are nobody's");
    assert_eq!(holder.superseded(late.number), [], "said once");
    assert_eq!(holder.elapsed(at(60_000)), []);

    let mut holder = Holder::new(at(0));
    let beat = holder.send(at(0));
    assert_eq!(holder.superseded(beat.number), [Change::Superseded]);
}

#[test]
fn with_freeze_it_goes_on_beyond_the_end_and_stops_when_it_is_told() {
    let frozen = leased_by(7, OnQuorumLoss::Freeze);
    let mut holder = Holder::new(at(0));
    assert_eq!(hears(&mut holder, 0, &frozen, 3 * TTL).len(), 1, "however late");
    assert_eq!(holder.elapsed(at(100 * TTL)), []);
    assert_eq!((holder.may_act(at(100 * TTL)), holder.lapses_at()), (Some(Token(7)), None));
    assert_eq!(holder.send(at(100 * TTL)).timeout, TIMEOUT_MAX, "there is no end to be in time for");
    assert_eq!(hears(&mut holder, 101 * TTL, &passive(), 101 * TTL).len(), 1, "it heard a quorum that says so");
    assert_eq!(holder.may_act(at(101 * TTL)), None);
}

#[test]
fn a_request_s_time_out_is_always_shorter_than_what_is_left_of_the_lease() {
    for left in [1, 2, 3, 49, 50, 51, 99, 100, 101, 500, 3_999, 4_000, 4_001, 9_999] {
        let mut holder = active();
        let beat = holder.send(at(TTL - left));
        assert!(beat.timeout < ms(left), "{:?} for {left} ms", beat.timeout);
        assert!(beat.timeout <= TIMEOUT_MAX);
        // There is time for another one after it.
        holder.unanswered(beat.number, at(TTL - left).plus(beat.timeout));
        let again = holder.beat_at().expect("not over");
        assert!(left < 50 || again < at(TTL), "the next one is due at {again:?} of {TTL} ms");
    }
    let mut holder = active();
    holder.elapsed(at(TTL));
    assert_eq!(holder.send(at(TTL)).timeout, TIMEOUT_MAX, "it holds nothing that could run out");
}

#[test]
fn heartbeats_are_sent_as_often_as_the_cluster_wants_and_sooner_where_one_is_lost() {
    let mut holder = Holder::new(at(0));
    assert_eq!(holder.beat_at(), Some(at(0)), "at once");
    let beat = holder.send(at(0));
    assert_eq!(holder.beat_at(), Some(at(1_000)), "before the cluster has said anything");
    holder.unanswered(beat.number, at(100));
    assert_eq!(holder.beat_at(), Some(at(600)), "it holds nothing: nobody waits for it");
    hears(&mut holder, 600, &leased(7), 610);
    assert_eq!(holder.beat_at(), Some(at(1_600)), "the rhythm was the old one when it was sent");
    let beat = holder.send(at(1_600));
    assert_eq!(holder.beat_at(), Some(at(3_600)));
    holder.unanswered(beat.number, at(2_000));
    assert_eq!(holder.beat_at(), Some(at(2_020)), "a lease runs");
    holder.prompted(at(5_000));
    assert_eq!(holder.beat_at(), Some(at(2_020)), "a push puts nothing off");

    let mut holder = active();
    let eager = RoleAnswer { interval: Duration::ZERO, ..leased(7) };
    hears(&mut holder, 1_000, &eager, 1_001);
    holder.send(at(1_021));
    assert_eq!(holder.beat_at(), Some(at(1_041)), "no answer makes it send without rest");
}

#[test]
fn no_more_than_a_few_requests_are_remembered() {
    let mut holder = active();
    let first = holder.send(at(0));
    let kept = holder.send(at(1));
    for _ in 0..UNDER_WAY_MAX - 1 {
        holder.send(at(2));
    }
    assert_eq!(holder.sent.len(), UNDER_WAY_MAX);
    assert_eq!(holder.answered(first.number, &leased(9), at(3)), [], "the oldest one is forgotten");
    assert_eq!(holder.answered(kept.number, &leased(9), at(3)).len(), 2);
}

#[cfg(feature = "mutants")]
#[test]
fn each_fault_that_is_planted_here_shows() {
    use crate::mutant::plant;

    let matched_to_newest = || {
        let mut holder = active();
        let first = holder.send(at(1_000));
        holder.send(at(4_000));
        holder.answered(first.number, &leased(7), at(5_000));
        holder.may_act(at(1_000 + TTL)).is_some()
    };
    let heard_after_release = || {
        let mut holder = active();
        holder.release(Token(7));
        hears(&mut holder, 1_000, &leased(7), 1_010);
        holder.may_act(at(1_010)).is_some()
    };
    for (mutant, broken) in [
        (Mutant::AnswerMatchedToNewest, &matched_to_newest as &dyn Fn() -> bool),
        (Mutant::AnswerHeardAfterRelease, &heard_after_release),
    ] {
        assert!(!broken(), "{mutant:?} shows although it is not planted");
        plant(Some(mutant));
        assert!(broken(), "{mutant:?} is planted and does not show");
        plant(None);
    }
}
