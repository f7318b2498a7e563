//! The book in injected time, over a state that `apply` makes: what is heard, what is proposed, and that nothing is said
//! too soon, twice, or for ever.

use std::time::Duration;

use baton_core::apply::apply_batch;
use baton_core::breaker::BreakerState;
use baton_core::calls::{Call, CallCounts, CallOutcome, CallSlice};
use baton_core::command::{
    Batch, Command, InstanceAdmin, InstancePut, InstanceReset, InstancesDue, JudgementsRecord, NodeAnnounce, Refusal,
    Reply, ServicePut, TrialGrant,
};
use baton_core::detector::HeartbeatState;
use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::{Check, CheckKind, Liveness, RecoveryStrategy, Registration, Spec};
use baton_core::probe::{FailureClass, Health, LocalTime, Verdict};
use baton_core::state::{AdminState, Instance, Source, State};
use baton_core::time::{ClusterTime, Millis, WallTime};

use super::book::Book;
use super::fate_of;
use super::watched::{Fate, Place, Rhythm};
use crate::consensus::ProposeError;
use crate::reports::wire::{Beat, BeatAnswer, CallsAsk, CountsAsk, SliceOf, TotalOf, TotalsAsk};

/// A leader with its book, and the log in the test's hands.
struct World {
    state: State,
    index: u64,
    /// Milliseconds, on every clock.
    now: u64,
    book: Book,
    number: u64,
}

fn orders() -> ServiceName {
    "orders".parse().expect("a name")
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("a name")
}

/// `x` a failure, `.` a success.
fn calls(row: &str) -> CallSlice {
    let mut slice = CallSlice::default();
    for letter in row.chars() {
        let outcome = if letter == 'x' { CallOutcome::ServerError } else { CallOutcome::Success };
        slice.record(&Call { outcome, latency: None, count: 1 });
    }
    slice
}

impl World {
    fn new(change: impl FnOnce(&mut Spec)) -> Self {
        let now = 10_000;
        let mut world = Self {
            state: State::default(),
            index: 0,
            now,
            book: Book::new(LocalTime(Duration::from_millis(now))),
            number: 0,
        };
        let (api, peer, version) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned(), "1".to_owned());
        world.commit(Command::NodeAnnounce(NodeAnnounce { node: 1, api, peer, version }));
        world.spec(change);
        world
    }

    fn spec(&mut self, change: impl FnOnce(&mut Spec)) {
        let mut spec = Spec::default();
        (spec.recovery.strategy, spec.recovery.cooldown) = (RecoveryStrategy::Immediate, Millis::ZERO);
        change(&mut spec);
        let put = ServicePut { service: orders(), spec: Box::new(spec), if_generation: None, actor: "test".to_owned() };
        self.commit(Command::ServicePut(put));
    }

    /// Registers an instance; a heartbeating one in that session.
    fn register(&mut self, instance: &str, session: Option<&str>) {
        let mut registration = Registration::at(Some("127.0.0.1:80".parse().expect("an address")));
        registration.liveness = if session.is_some() { Liveness::Heartbeat } else { Liveness::Probe };
        self.commit(Command::InstancePut(InstancePut {
            service: orders(),
            instance: id(instance),
            registration: Box::new(registration),
            session: session.unwrap_or_default().to_owned(),
            if_generation: None,
            actor: "test".to_owned(),
        }));
    }

    fn local(&self) -> LocalTime {
        LocalTime(Duration::from_millis(self.now))
    }

    fn commit(&mut self, command: Command) {
        self.index += 1;
        let batch = Batch { time: ClusterTime(self.now), wall: WallTime(0), commands: vec![command] };
        let applied = apply_batch(&mut self.state, self.index, &batch);
        assert!(applied.replies.iter().all(Result::is_ok), "{:?}", applied.replies);
        let now = self.local();
        self.book.changed(&self.state, &applied.changes, now);
    }

    fn instance(&self, instance: &str) -> &Instance {
        self.state.instance(&orders(), &id(instance)).expect("it is there")
    }

    /// Lets time pass as the loop does.
    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.now += 50.min(ms);
            let now = self.local();
            self.book.ring(now);
            self.book.sweep(now);
            self.book.compare_overdue(now);
        }
    }

    /// Another leader: what was held is gone, what was committed is there.
    fn succeed(&mut self) {
        let now = self.local();
        self.book = Book::new(now);
        self.book.rescan(&self.state, now);
    }

    /// A node tells of calls; how many were late.
    fn tell(&mut self, instance: &str, generation: Option<u64>, slice: CallSlice) -> u64 {
        let epoch = self.instance(instance).epoch;
        self.number += 1;
        self.tell_as(self.number, SliceOf { service: orders(), instance: id(instance), epoch, generation, slice })
    }

    fn tell_as(&mut self, number: u64, of: SliceOf) -> u64 {
        let ask = CallsAsk { boot: 1, number, slices: vec![of] };
        let now = self.local();
        self.book.calls(&self.state, 1, &ask, now).late
    }

    fn beat(&mut self, instance: &str, session: &str, state: HeartbeatState) -> BeatAnswer {
        let beat = Beat {
            number: 0,
            service: orders(),
            instance: id(instance),
            session: session.to_owned(),
            state,
            lag: None,
        };
        let now = self.local();
        self.book.beat(&self.state, &beat, None, now, ClusterTime(self.now))
    }

    /// A heartbeat of `a` that a node numbered, in one of its starts.
    fn beat_numbered(&mut self, (node, boot, number): (u64, u64, u64), state: HeartbeatState) {
        let beat = Beat { number: 0, service: orders(), instance: id("a"), session: "s".to_owned(), state, lag: None };
        let now = self.local();
        let place = Place { node, boot, number };
        let answer = self.book.beat(&self.state, &beat, Some(place), now, ClusterTime(self.now));
        assert!(matches!(answer, BeatAnswer::Taken(_)), "{answer:?}: whoever asks twice is answered twice");
    }

    fn judgements(&mut self) -> Option<JudgementsRecord> {
        let now = self.local();
        if self.book.wants_to_judge().is_some_and(|from| from <= now) {
            self.book.judgements(&self.state, now)
        } else {
            None
        }
    }

    /// Commits what the book wants said; the verdicts, source by source.
    fn judge(&mut self) -> Vec<(Source, Verdict)> {
        let Some(record) = self.judgements() else { return Vec::new() };
        let said = record.judgements.iter().map(|judgement| (judgement.source, judgement.verdict)).collect();
        self.commit(Command::JudgementsRecord(record));
        self.book.judged();
        said
    }

    /// Commits what the book wants of breakers; the words of the commands.
    fn breakers(&mut self) -> Vec<&'static str> {
        let now = self.local();
        let commands = self.book.breaker_commands(&self.state, now, 9);
        let mut words = Vec::new();
        for (key, generation, command) in commands {
            let trip = matches!(command, Command::BreakerTrip(_));
            assert!(trip || matches!(command, Command::BreakerTried(_)), "{command:?}");
            words.push(if trip { "trip" } else { "tried" });
            self.commit(command);
            self.book.breaker_answered(key, generation, Fate::Done, now);
        }
        words
    }

    fn breaker(&self, instance: &str) -> (BreakerState, u64) {
        let breaker = &self.instance(instance).breaker;
        (breaker.state, breaker.generation)
    }
}

const fn down(source: Source) -> (Source, Verdict) {
    (source, Verdict::Down)
}

// -- Calls --------------------------------------------------------------------------------------------------------------

#[test]
fn calls_that_fail_make_it_unhealthy_and_their_absence_takes_that_back() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("xxx"));
    assert_eq!(world.judge(), [], "a short row accuses nobody");
    world.pass(100);
    world.tell("a", None, calls("xx"));
    assert_eq!(world.judge(), [(Source::Calls, Verdict::Suspect)], "a row that is long enough, among few calls");
    world.pass(100);
    world.tell("a", None, calls("xxxxx"));
    assert_eq!(world.judge(), [down(Source::Calls)]);
    assert_eq!(world.instance("a").health, Health::Unhealthy);
    let evidence = &world.instance("a").judged[&Source::Calls].evidence;
    assert_eq!((evidence.class, evidence.streak), (Some(FailureClass::ServerError), 10), "{evidence:?}");

    // Nobody calls a sick instance: after the longest window there is nothing left to judge by.
    world.pass(29_000);
    assert_eq!(world.judge(), []);
    world.pass(3_000);
    assert_eq!(world.judge(), [(Source::Calls, Verdict::Unknown)]);
    assert!(world.instance("a").judged.is_empty());
    assert_eq!(world.judge(), [], "once is enough");
}

#[test]
fn a_new_leader_takes_nothing_back_before_it_has_listened_for_a_whole_window() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("xxxxxxxxxx"));
    assert_eq!(world.judge(), [down(Source::Calls)]);
    world.succeed();
    assert_eq!(world.judge(), [], "it knows nothing, and says nothing");
    world.pass(29_900);
    world.book.compare_all();
    assert_eq!(world.judge(), []);
    world.pass(100);
    world.book.compare_all();
    assert_eq!(world.judge(), [(Source::Calls, Verdict::Unknown)]);
}

#[test]
fn late_calls_count_for_nothing() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    let epoch = world.instance("a").epoch;
    let of =
        |epoch, generation| SliceOf { service: orders(), instance: id("a"), epoch, generation, slice: calls("xxxxx") };
    assert_eq!(world.tell_as(1, of(epoch - 1, None)), 5, "of an older epoch");
    assert_eq!(world.tell_as(2, of(epoch, Some(0))), 5, "of an older generation of the breaker");
    assert_eq!(world.tell_as(3, of(epoch, Some(9))), 5, "of one that never was");
    let gone = SliceOf { instance: id("gone"), ..of(epoch, None) };
    assert_eq!(world.tell_as(4, gone), 5);
    assert_eq!((world.judge(), world.breakers()), (vec![], vec![]));
    assert_eq!(world.tell_as(5, of(epoch, Some(1))), 0, "of the present one");
    assert_eq!(world.breakers(), ["trip"]);
}

#[test]
fn what_is_told_twice_counts_once() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    let epoch = world.instance("a").epoch;
    let of = || SliceOf { service: orders(), instance: id("a"), epoch, generation: None, slice: calls("xxx") };
    for _ in 0..3 {
        world.tell_as(7, of());
    }
    assert_eq!(world.breakers(), Vec::<&str>::new(), "three failures, not nine");
    world.tell_as(8, of());
    assert_eq!(world.breakers(), ["trip"]);
}

#[test]
fn an_operators_reset_begins_anew() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("xxxx"));
    world.judge();
    let (service, instance) = (orders(), id("a"));
    let (reason, actor) = ("looked at it".to_owned(), "ann".to_owned());
    world.commit(Command::InstanceReset(InstanceReset { service, instance, reason, actor }));
    world.tell("a", None, calls("x"));
    assert_eq!((world.judge(), world.breakers()), (vec![], vec![]), "one in a row, not five");
}

#[test]
fn a_lost_proposal_is_made_again_and_an_unseen_one_too() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    let first = world.judgements().expect("it has something to say");
    let now = world.local();
    world.book.not_judged(now);
    assert!(world.judgements().is_none(), "a little later");
    world.pass(50);
    let again = world.judgements().expect("it says it again");
    assert_eq!(again.judgements[0].verdict, first.judgements[0].verdict);
    // Accepted, so it is told, but the state does not show it.
    world.book.judged();
    world.pass(900);
    assert!(world.judgements().is_none());
    world.pass(150);
    assert!(world.judgements().is_some(), "after a second it is doubted");
}

// -- Breakers -----------------------------------------------------------------------------------------------------------

#[test]
fn the_breaker_opens_waits_and_closes_by_trial_calls() {
    let mut world = World::new(|spec| spec.breaker.open_for = Millis(300));
    world.register("a", None);
    // Four, from two nodes' slices; the fifth comes later and makes the row.
    world.tell("a", None, calls("xx"));
    world.tell("a", None, calls("xx"));
    assert_eq!(world.breakers(), Vec::<&str>::new());
    world.tell("a", Some(1), calls("x"));
    assert_eq!(world.breakers(), ["trip"]);
    assert_eq!(world.breaker("a"), (BreakerState::Open, 2));
    assert_eq!(world.instance("a").breaker.numbers.map(|numbers| numbers.consecutive_failures), Some(5));

    // Open: whatever is still under way says nothing about the breaker.
    world.tell("a", None, calls("xxxxxx"));
    assert_eq!(world.breakers(), Vec::<&str>::new());
    world.pass(300);
    let due = InstancesDue { service: orders(), instances: vec![id("a")], missing: Vec::new() };
    world.commit(Command::InstancesDue(due));
    assert_eq!(world.breaker("a"), (BreakerState::HalfOpen, 3));
    assert_eq!(world.tell("a", Some(2), calls("xxx")), 3, "late: they began while it was open");
    assert_eq!(world.breakers(), Vec::<&str>::new());

    world.tell("a", Some(3), calls("."));
    assert_eq!(world.breakers(), ["tried"]);
    world.tell("a", None, calls("."));
    assert_eq!(world.breakers(), Vec::<&str>::new(), "a moment is left for others");
    world.tell("a", None, calls("."));
    world.pass(100);
    assert_eq!(world.breakers(), ["tried"], "both at once");
    assert_eq!(world.breaker("a"), (BreakerState::Closed, 4));

    // What failed before says nothing any more.
    world.tell("a", None, calls("xxxx"));
    assert_eq!(world.breakers(), Vec::<&str>::new());
    world.tell("a", None, calls("x"));
    world.pass(100);
    assert_eq!(world.breakers(), ["trip"]);
}

#[test]
fn one_bad_trial_call_opens_it_again() {
    let mut world = World::new(|spec| spec.breaker.open_for = Millis(300));
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    world.breakers();
    world.pass(300);
    world.commit(Command::InstancesDue(InstancesDue {
        service: orders(),
        instances: vec![id("a")],
        missing: Vec::new(),
    }));
    world.tell("a", Some(3), calls("..x."));
    assert_eq!(world.breakers(), ["tried"]);
    assert_eq!(world.breaker("a"), (BreakerState::Open, 4));
    assert_eq!(world.instance("a").breaker.open_for, Millis(600), "longer than before");
}

#[test]
fn results_of_trials_survive_a_lost_proposal_but_successes_are_not_counted_twice() {
    let mut world = World::new(|spec| spec.breaker.open_for = Millis(300));
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    world.breakers();
    world.pass(300);
    world.commit(Command::InstancesDue(InstancesDue {
        service: orders(),
        instances: vec![id("a")],
        missing: Vec::new(),
    }));
    let propose = |world: &mut World, fate| {
        world.pass(200);
        let now = world.local();
        let mut commands = world.book.breaker_commands(&world.state, now, 9);
        let (key, generation, command) = commands.pop()?;
        world.book.breaker_answered(key, generation, fate, now);
        let Command::BreakerTried(tried) = command else { panic!("{command:?}") };
        Some((tried.numbers.calls, tried.numbers.failures))
    };
    world.tell("a", Some(3), calls(".."));
    assert_eq!(propose(&mut world, Fate::Undone), Some((2, 0)));
    world.tell("a", Some(3), calls("."));
    assert_eq!(propose(&mut world, Fate::Unknown), Some((3, 0)), "what was surely not proposed is proposed again");
    assert_eq!(propose(&mut world, Fate::Done), None, "what may have been counted is not counted again");
    world.tell("a", Some(3), calls("x"));
    assert_eq!(propose(&mut world, Fate::Unknown), Some((1, 1)));
    assert_eq!(propose(&mut world, Fate::Done), Some((1, 1)), "but a failure is: it opens it once");
}

#[test]
fn only_calls_that_named_the_generation_give_trial_places_back() {
    let mut world = World::new(|spec| (spec.breaker.open_for, spec.breaker.success_threshold) = (Millis(300), 9));
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    world.breakers();
    world.pass(300);
    let (service, instances) = (orders(), vec![id("a")]);
    world.commit(Command::InstancesDue(InstancesDue { service, instances, missing: Vec::new() }));
    let grant = || Command::TrialGrant(TrialGrant { service: orders(), instance: id("a"), generation: 3 });
    for _ in 0..3 {
        world.commit(grant());
    }
    let out = |world: &World| world.instance("a").breaker.trials.len();
    world.tell("a", None, calls(".."));
    assert_eq!((world.breakers(), out(&world)), (vec!["tried"], 3), "they had not asked");
    world.pass(100);
    world.tell("a", Some(3), calls("."));
    world.tell("a", None, calls("."));
    assert_eq!((world.breakers(), out(&world)), (vec!["tried"], 2), "one of the two had");
    assert_eq!(world.instance("a").breaker.successes, 4, "all went well");
}

#[test]
fn a_breaker_that_may_not_be_spoken_of_yet_is_looked_at_when_it_may() {
    let mut world = World::new(|spec| (spec.breaker.open_for, spec.breaker.success_threshold) = (Millis(300), 9));
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    world.breakers();
    world.pass(300);
    let (service, instances) = (orders(), vec![id("a")]);
    world.commit(Command::InstancesDue(InstancesDue { service, instances, missing: Vec::new() }));
    world.tell("a", None, calls("."));
    assert_eq!(world.breakers(), ["tried"]);
    world.tell("a", None, calls("."));
    let told_at = world.local();
    assert_eq!(world.breakers(), Vec::<&str>::new(), "a moment is left for others");
    assert_eq!(world.book.alarm(), Some(told_at.plus(Duration::from_millis(100))));
    // Until then nothing looks at it; then the alarm does.
    world.now += 100;
    assert_eq!(world.breakers(), Vec::<&str>::new());
    let now = world.local();
    world.book.ring(now);
    assert_eq!((world.breakers(), world.book.alarm()), (vec!["tried"], None));
}

#[test]
fn nobody_in_maintenance_is_judged_by_calls() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    let (service, instance) = (orders(), id("a"));
    world.commit(Command::InstanceAdmin(InstanceAdmin {
        service,
        instance,
        state: AdminState::Maintenance,
        reason: "new disks".to_owned(),
        lasts: None,
        until: None,
        actor: "ann".to_owned(),
    }));
    assert_eq!(world.breakers(), Vec::<&str>::new(), "what was seen before is not said any more");
    assert_eq!(world.tell("a", None, calls("xxxxx")), 5, "late: nobody judges it");
    for _ in 0..20 {
        world.pass(100);
        assert_eq!((world.judge(), world.breakers()), (vec![], vec![]));
    }
}

#[test]
fn a_refused_trip_is_not_proposed_at_full_speed() {
    let refused: Result<Reply, ProposeError> = Ok(Err(Refusal::NoSuchService { service: orders() }));
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("xxxxx"));
    let begin = world.now;
    let mut proposed = Vec::new();
    while world.now < begin + 6_000 {
        let now = world.local();
        for (key, generation, command) in world.book.breaker_commands(&world.state, now, 9) {
            assert!(matches!(command, Command::BreakerTrip(_)), "{command:?}");
            proposed.push(world.now - begin);
            world.book.breaker_answered(key, generation, fate_of(&refused), now);
        }
        world.pass(50);
    }
    assert_eq!(proposed, [0, 100, 200, 400, 800, 1_600, 2_600, 3_600, 4_600, 5_600], "ever more seldom");
    // Another generation begins anew, at once.
    let (service, instance) = (orders(), id("a"));
    let (reason, actor) = ("looked at it".to_owned(), "ann".to_owned());
    world.commit(Command::InstanceReset(InstanceReset { service, instance, reason, actor }));
    world.tell("a", None, calls("xxxxx"));
    assert_eq!(world.breakers(), ["trip"]);
}

#[test]
fn the_error_rate_opens_it_too() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    world.tell("a", None, calls("x.x.x.x.x"));
    assert_eq!(world.breakers(), Vec::<&str>::new(), "nine calls are too few");
    world.tell("a", None, calls("x"));
    assert_eq!(world.breakers(), ["trip"]);
}

// -- Heartbeats ---------------------------------------------------------------------------------------------------------

fn heartbeating(spec: &mut Spec) {
    let mut check = Check::of(CheckKind::Heartbeat);
    (check.interval, check.fall, check.timeout) = (Millis(500), 3, Millis(250));
    spec.checks = vec![check];
}

#[test]
fn how_often_it_beats_is_agreed_by_a_check_or_by_the_lease() {
    let mut spec = Spec::default();
    let ms = Duration::from_millis;
    let Rhythm { expected, pause, deadline, .. } = Rhythm::of(&spec, &spec.checks);
    assert_eq!((expected, pause, deadline), (ms(3_333), ms(500), ms(10_000)));
    heartbeating(&mut spec);
    let Rhythm { expected, pause, deadline, phi } = Rhythm::of(&spec, &spec.checks);
    assert_eq!((expected, pause, deadline, phi), (ms(500), ms(500), ms(1_750), 8.0));
}

#[test]
fn who_falls_silent_is_missing_by_the_deadline_and_back_at_once() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s1"));
    for _ in 0..10 {
        assert!(matches!(world.beat("a", "s1", HeartbeatState::Ok), BeatAnswer::Taken(_)));
        world.judge();
        world.pass(500);
    }
    assert_eq!(world.instance("a").health, Health::Healthy);
    let silent_since = world.now - 500;
    let mut said = Vec::new();
    while world.instance("a").health != Health::Unhealthy {
        world.pass(50);
        said.extend(world.judge());
        assert!(world.now - silent_since <= 1_750 + 50, "it is missing by now");
    }
    assert!(world.now - silent_since > 1_000, "one lost heartbeat accuses nobody");
    assert_eq!(said, [(Source::Heartbeats, Verdict::Suspect), down(Source::Heartbeats)]);
    world.beat("a", "s1", HeartbeatState::Ok);
    assert_eq!(world.judge(), [(Source::Heartbeats, Verdict::Up)]);
}

#[test]
fn what_it_says_of_itself_counts_at_once() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s1"));
    for (state, verdict) in [
        (HeartbeatState::Ok, Verdict::Up),
        (HeartbeatState::Degraded, Verdict::Suspect),
        (HeartbeatState::Failing, Verdict::Down),
        (HeartbeatState::Ok, Verdict::Up),
    ] {
        world.beat("a", "s1", state);
        assert_eq!(world.judge(), [(Source::Heartbeats, verdict)]);
    }
}

#[test]
fn a_heartbeat_that_was_overtaken_says_nothing_any_more() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s"));
    let verdict = |world: &mut World| {
        world.judge();
        world.instance("a").judged.get(&Source::Heartbeats).map(|record| record.verdict)
    };
    world.beat_numbered((1, 7, 1), HeartbeatState::Ok);
    world.beat_numbered((1, 7, 3), HeartbeatState::Failing);
    assert_eq!(verdict(&mut world), Some(Verdict::Down));
    // Its batch was repeated for a second, and comes in now. So does a repetition of what was heard.
    world.beat_numbered((1, 7, 2), HeartbeatState::Ok);
    world.beat_numbered((1, 7, 1), HeartbeatState::Ok);
    assert_eq!(verdict(&mut world), Some(Verdict::Down));
    // Numbers are each node's own, and begin anew with each of its starts.
    world.beat_numbered((2, 5, 1), HeartbeatState::Degraded);
    assert_eq!(verdict(&mut world), Some(Verdict::Suspect));
    world.beat_numbered((1, 7, 3), HeartbeatState::Failing);
    assert_eq!(verdict(&mut world), Some(Verdict::Suspect), "node 1 told that before");
    world.beat_numbered((1, 8, 1), HeartbeatState::Ok);
    assert_eq!(verdict(&mut world), Some(Verdict::Up));
    // An operator's reset forgets what was heard, not what is old.
    world.beat_numbered((2, 5, 3), HeartbeatState::Failing);
    let (service, instance) = (orders(), id("a"));
    let (reason, actor) = ("looked at it".to_owned(), "ann".to_owned());
    world.commit(Command::InstanceReset(InstanceReset { service, instance, reason, actor }));
    world.beat_numbered((2, 5, 2), HeartbeatState::Ok);
    assert_eq!(verdict(&mut world), None);
}

#[test]
fn a_repeated_heartbeat_is_no_new_sign_of_life() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s"));
    world.beat_numbered((1, 7, 1), HeartbeatState::Ok);
    world.judge();
    let mut said = Vec::new();
    for _ in 0..7 {
        world.pass(250);
        world.beat_numbered((1, 7, 1), HeartbeatState::Ok);
        said.extend(world.judge());
    }
    assert_eq!(said.last(), Some(&down(Source::Heartbeats)), "{said:?}");
}

#[test]
fn only_the_present_session_of_one_who_heartbeats_is_heard() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s1"));
    world.register("b", None);
    assert_eq!(world.beat("a", "s0", HeartbeatState::Ok), BeatAnswer::UnknownSession);
    assert_eq!(world.beat("b", "s1", HeartbeatState::Ok), BeatAnswer::NotHeartbeat);
    assert_eq!(world.beat("c", "s1", HeartbeatState::Ok), BeatAnswer::NoSuchInstance);
    world.beat("a", "s1", HeartbeatState::Ok);
    world.judge();
    world.register("a", Some("s2"));
    assert_eq!(world.beat("a", "s1", HeartbeatState::Failing), BeatAnswer::UnknownSession);
    assert_eq!(world.judge(), [], "the old incarnation says nothing about the new one");
    // The new one has to be heard within the deadline.
    world.pass(1_700);
    assert_eq!(world.judge(), []);
    world.pass(100);
    assert_eq!(world.judge(), [down(Source::Heartbeats)]);
}

#[test]
fn a_new_leader_misses_nobody_before_a_full_deadline() {
    let mut world = World::new(heartbeating);
    for instance in ["a", "b", "c"] {
        world.register(instance, Some("s"));
        world.beat(instance, "s", if instance == "c" { HeartbeatState::Failing } else { HeartbeatState::Ok });
    }
    world.judge();
    // Long silence, for there was no leader; then another one.
    world.now += 5_000;
    world.succeed();
    assert_eq!(world.judge(), []);
    world.pass(1_000);
    world.beat("a", "s", HeartbeatState::Ok);
    world.pass(700);
    world.beat("a", "s", HeartbeatState::Ok);
    assert_eq!(world.judge(), [], "b may just not have found the new leader, and c stays down");
    world.pass(100);
    world.beat("a", "s", HeartbeatState::Ok);
    assert_eq!(world.judge(), [down(Source::Heartbeats)]);
    let healths = ["a", "b", "c"].map(|instance| world.instance(instance).health);
    assert_eq!(healths, [Health::Healthy, Health::Unhealthy, Health::Unhealthy]);
}

#[test]
fn a_judge_that_stood_still_forgives() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s"));
    world.beat("a", "s", HeartbeatState::Ok);
    world.judge();
    world.now += 8_000;
    let now = world.local();
    world.book.forgive(now);
    world.book.ring(now);
    assert_eq!(world.judge(), []);
    world.pass(500);
    world.beat("a", "s", HeartbeatState::Ok);
    assert_eq!((world.judge(), world.instance("a").health), (vec![], Health::Healthy));
}

#[test]
fn timers_that_ran_late_forgive_whoever_is_given_little_more_time() {
    // What is late, and by how much timers must be late for it.
    for (interval, forgiven, missed) in [(500, 101, 100), (40, 61, 60)] {
        for (late, is_missing) in [(forgiven, false), (missed, true)] {
            let mut world = World::new(|spec| {
                heartbeating(spec);
                (spec.checks[0].interval, spec.checks[0].fall, spec.checks[0].timeout) =
                    (Millis(interval), 2, Millis(interval));
            });
            world.register("a", Some("s"));
            for _ in 0..5 {
                world.beat("a", "s", HeartbeatState::Ok);
                world.judge();
                world.now += interval;
            }
            world.now += 3 * interval;
            let now = world.local();
            world.book.ran_late(Duration::from_millis(late), now);
            world.book.ring(now);
            let said = world.judge();
            assert_eq!(said.contains(&down(Source::Heartbeats)), is_missing, "{interval} ms, {late} ms late: {said:?}");
        }
    }
}

#[test]
fn whoever_is_heard_while_the_quorum_is_asked_is_not_accused() {
    let mut world = World::new(heartbeating);
    for instance in ["a", "b"] {
        world.register(instance, Some("s"));
        world.beat(instance, "s", HeartbeatState::Ok);
    }
    world.judge();
    world.pass(2_000);
    let record = world.judgements().expect("both are missing");
    assert_eq!(record.judgements.len(), 2);
    // Their heartbeats were only late. One of them comes in before the quorum has answered.
    world.beat("a", "s", HeartbeatState::Ok);
    let rest = world.book.still_held(&world.state, record).expect("one is still missing");
    let accused: Vec<_> = rest.judgements.iter().map(|judgement| judgement.instance.as_str()).collect();
    assert_eq!(accused, ["b"]);
    world.commit(Command::JudgementsRecord(rest));
    world.book.judged();
    assert_eq!(world.judge(), [], "a is up, as committed");
    assert_eq!(["a", "b"].map(|it| world.instance(it).health), [Health::Healthy, Health::Unhealthy]);
    // It is still accused when it really falls silent, at once.
    world.pass(2_000);
    assert_eq!(world.judge(), [down(Source::Heartbeats)]);
    // Of another epoch nothing holds.
    world.beat("b", "s", HeartbeatState::Failing);
    world.beat("a", "s", HeartbeatState::Degraded);
    let record = world.judgements().expect("a is only degraded");
    world.register("a", Some("s2"));
    assert!(world.book.still_held(&world.state, record).is_none());
}

#[test]
fn another_rhythm_or_another_breaker_begins_anew_and_other_changes_do_not() {
    let mut world = World::new(heartbeating);
    world.register("a", Some("s"));
    world.beat("a", "s", HeartbeatState::Ok);
    world.tell("a", None, calls("xxxx"));
    world.judge();
    // A word of the spec that concerns neither: what was seen stands.
    world.spec(|spec| {
        heartbeating(spec);
        spec.failover.automatic = false;
    });
    world.tell("a", None, calls("x"));
    assert_eq!(world.breakers(), ["trip"]);
    // Quicker heartbeats are wanted from now on.
    world.spec(|spec| {
        heartbeating(spec);
        spec.checks[0].interval = Millis(100);
    });
    world.pass(500);
    assert!(!world.judge().contains(&down(Source::Heartbeats)), "from now on, not from the last heartbeat on");
    world.pass(100);
    assert_eq!(world.judge(), [down(Source::Heartbeats)]);
    // Another row of failures: what was counted by another rule is not carried over.
    world.register("b", None);
    world.tell("b", None, calls("xxxx"));
    world.spec(|spec| {
        heartbeating(spec);
        spec.breaker.consecutive_failures = 6;
    });
    world.tell("b", None, calls("xx"));
    assert_eq!(world.breakers(), Vec::<&str>::new());
}

// -- Counts -------------------------------------------------------------------------------------------------------------

#[test]
fn counts_of_all_nodes_add_up_and_go_with_their_epoch() {
    let mut world = World::new(|_| {});
    world.register("a", None);
    let timeouts = |timeout| CallCounts { timeout, ..CallCounts::default() };
    let told = |world: &mut World, node, boot, probes, calls, epoch| {
        let total =
            TotalOf { service: orders(), instance: id("a"), epoch, probes: timeouts(probes), calls: timeouts(calls) };
        world.book.totals(&world.state, node, TotalsAsk { boot, totals: vec![total] });
        let counts = world.book.counts(&world.state, &CountsAsk { service: orders(), instances: None }).instances
            [&id("a")]
            .counts;
        (counts.probes.timeout, counts.calls.timeout)
    };
    let epoch = world.instance("a").epoch;
    assert_eq!(told(&mut world, 1, 1, 3, 0, epoch), (3, 0));
    assert_eq!(told(&mut world, 2, 1, 4, 1, epoch), (7, 1));
    assert_eq!(told(&mut world, 1, 1, 5, 2, epoch), (9, 3), "levels replace levels");
    assert_eq!(told(&mut world, 1, 2, 1, 0, epoch), (10, 3), "a node that was started again goes on counting");
    assert_eq!(told(&mut world, 1, 2, 9, 9, epoch - 1), (10, 3), "late");
    let (service, instance) = (orders(), id("a"));
    let (reason, actor) = ("looked at it".to_owned(), "ann".to_owned());
    world.commit(Command::InstanceReset(InstanceReset { service, instance, reason, actor }));
    let counts = world.book.counts(&world.state, &CountsAsk { service: orders(), instances: None });
    assert_eq!(counts.instances[&id("a")].counts.probes, CallCounts::default());
    let epoch = world.instance("a").epoch;
    assert_eq!(told(&mut world, 2, 1, 1, 0, epoch), (1, 0));
}
