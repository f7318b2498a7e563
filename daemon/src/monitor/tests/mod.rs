//! The book, played like transcripts: a state that `apply` keeps, a prober that only remembers what it was asked, and time
//! that the test hands out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use baton_core::apply::apply_batch;
use baton_core::command::{
    Batch, Command, InstanceDelete, InstancePut, NodeAnnounce, ServiceDelete, ServicePut, VerdictReport, VerdictsRecord,
};
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::policy::{Check, CheckKind, Registration, Spec};
use baton_core::probe::{Distrust, Evidence, FailureClass, Health, LocalTime, Outcome, Timing, Verdict};
use baton_core::state::{Change, State};
use baton_core::time::{ClusterTime, Millis, WallTime};

mod assignment;
mod sight;

use super::Probing;
use super::book::Book;
use super::say::REPORTS_MAX;
use crate::prober::{Pace, ProbeResult, Target, TargetId};

/// Remembers what it was asked.
#[derive(Default)]
struct Notes {
    targets: BTreeMap<TargetId, (Target, Pace)>,
    hurried: BTreeSet<TargetId>,
    last: u64,
}

impl Probing for Notes {
    fn insert(&mut self, target: Target) -> TargetId {
        self.last += 1;
        self.targets.insert(TargetId(self.last), (target, Pace::Fast));
        TargetId(self.last)
    }
    fn remove(&mut self, id: TargetId) {
        assert!(self.targets.remove(&id).is_some(), "{id:?} is not there");
    }
    fn pace(&mut self, id: TargetId, pace: Pace) {
        self.targets.get_mut(&id).expect("a target").1 = pace;
    }
    fn hurry(&mut self, id: TargetId) {
        assert!(self.targets.contains_key(&id), "{id:?} is not there");
        self.hurried.insert(id);
    }
}

const ME: NodeId = 1;

struct World {
    state: State,
    index: u64,
    now: u64,
    book: Book,
    prober: Notes,
}

fn name(text: &str) -> ServiceName {
    text.parse().expect("a name")
}

fn id(text: &str) -> InstanceId {
    text.parse().expect("a name")
}

fn good() -> Outcome {
    Outcome::Success
}

fn bad() -> Outcome {
    Outcome::failure(FailureClass::Connection, "connection refused")
}

impl World {
    /// Three nodes of which this is the first, one service with one HTTP check, and these instances.
    fn new(instances: &[&str]) -> Self {
        let mut world = Self::of_nodes(3);
        world.service(vec![Check::of(CheckKind::Http)]);
        for instance in instances {
            world.instance(instance, "127.0.0.1:80");
        }
        world
    }

    /// So many nodes of which this is the first.
    fn of_nodes(nodes: u64) -> Self {
        let now = LocalTime(Duration::ZERO);
        let mut world =
            Self { state: State::default(), index: 0, now: 0, book: Book::new(ME, now), prober: Notes::default() };
        for node in 1..=nodes {
            let address = |port: u64| format!("127.0.0.1:{}", port + node);
            world.commit(Command::NodeAnnounce(NodeAnnounce {
                node,
                api: address(7_400),
                peer: address(7_500),
                version: "1".to_owned(),
            }));
        }
        world.book.look_again(now, &mut world.prober);
        world
    }

    fn local(&self) -> LocalTime {
        LocalTime(Duration::from_millis(self.now))
    }

    fn commit(&mut self, command: Command) {
        self.index += 1;
        let batch = Batch { time: ClusterTime(self.now), wall: WallTime(0), commands: vec![command] };
        let applied = apply_batch(&mut self.state, self.index, &batch);
        assert!(applied.replies.iter().all(Result::is_ok), "{:?}", applied.replies);
        self.book.changed(&self.state, &applied.changes, &mut self.prober);
    }

    fn service(&mut self, checks: Vec<Check>) {
        self.spec(Spec { checks, ..Spec::default() });
    }

    fn spec(&mut self, spec: Spec) {
        let spec = Box::new(spec);
        let put = ServicePut { service: name("web"), spec, if_generation: None, actor: "test".to_owned() };
        self.commit(Command::ServicePut(put));
    }

    fn instance(&mut self, instance: &str, address: &str) {
        self.commit(Command::InstancePut(InstancePut {
            service: name("web"),
            instance: id(instance),
            registration: Box::new(Registration::at(Some(address.parse().expect("an address")))),
            session: String::new(),
            if_generation: None,
            actor: "test".to_owned(),
        }));
    }

    fn only_target(&self) -> TargetId {
        assert_eq!(self.prober.targets.len(), 1, "one target");
        self.prober.targets.keys().copied().next().expect("one target")
    }

    fn pace(&self) -> Pace {
        self.prober.targets[&self.only_target()].1
    }

    /// A probe that began and ended just now.
    fn see(&mut self, target: TargetId, seen: Result<Outcome, Distrust>) {
        let now = self.local();
        let timing = Timing { due: now, started: now, ended: now, timeout: Duration::from_millis(500) };
        self.book.seen(&ProbeResult { target, timing, seen }, &mut self.prober);
    }

    /// Sees outcomes of the only target, 200 ms apart.
    fn see_all(&mut self, outcomes: impl IntoIterator<Item = Outcome>) {
        for outcome in outcomes {
            self.now += 200;
            let target = self.only_target();
            self.see(target, Ok(outcome));
        }
    }

    fn proposal(&mut self) -> Option<VerdictsRecord> {
        let now = self.local();
        self.book.wants_to_speak().filter(|at| *at <= now)?;
        self.book.proposal(&self.state, now, &mut self.prober)
    }

    /// Proposes what there is, commits it, and answers the verdicts.
    fn say(&mut self) -> Vec<(String, Verdict)> {
        let Some(record) = self.proposal() else { return Vec::new() };
        let said = said(&record);
        self.book.accepted();
        self.commit(Command::VerdictsRecord(record));
        said
    }

    /// Another observer says this.
    fn other(&mut self, observer: NodeId, instance: &str, verdict: Verdict) {
        let epoch = self.state.instance(&name("web"), &id(instance)).expect("an instance").epoch;
        let evidence = Evidence {
            check: "http".to_owned(),
            class: None,
            detail: "seen".to_owned(),
            streak: 1,
            first_failure_age: None,
        };
        let report = VerdictReport { service: name("web"), instance: id(instance), epoch, verdict, evidence };
        self.commit(Command::VerdictsRecord(VerdictsRecord { observer, verdicts: vec![report] }));
    }

    fn health(&self, instance: &str) -> Health {
        self.state.instance(&name("web"), &id(instance)).expect("an instance").health
    }
}

fn said(record: &VerdictsRecord) -> Vec<(String, Verdict)> {
    assert_eq!(record.observer, ME);
    record.verdicts.iter().map(|report| (report.instance.to_string(), report.verdict)).collect()
}

fn of_a(verdict: Verdict) -> Vec<(String, Verdict)> {
    vec![("a".to_owned(), verdict)]
}

#[test]
fn an_instance_comes_up_is_doubted_dies_and_comes_back() {
    let mut world = World::new(&["a"]);
    assert_eq!(world.say(), [], "nobody has looked");
    world.see_all([good()]);
    assert_eq!(world.say(), [], "rise is 2");
    assert_eq!(world.pace(), Pace::Fast);
    world.see_all([good()]);
    assert_eq!(world.say(), of_a(Verdict::Up));
    assert_eq!((world.health("a"), world.pace()), (Health::Healthy, Pace::Normal));
    world.see_all([good(), good()]);
    assert_eq!(world.say(), [], "nothing new");

    world.see_all([bad()]);
    assert_eq!(world.say(), of_a(Verdict::Suspect));
    assert_eq!((world.health("a"), world.pace()), (Health::Suspect, Pace::Fast));
    assert!(world.prober.hurried.is_empty(), "its own doubt does not make it look out of turn");
    world.see_all([bad()]);
    assert_eq!(world.say(), []);
    world.see_all([bad()]);
    world.now += 7;
    let record = world.proposal().expect("a record");
    assert_eq!(said(&record), of_a(Verdict::Down));
    let evidence = &record.verdicts[0].evidence;
    assert_eq!((evidence.streak, evidence.first_failure_age), (3, Some(Millis(407))), "told as of the proposal");
    world.commit(Command::VerdictsRecord(record));
    assert_eq!(world.pace(), Pace::Fast, "one node's word is a doubt for the cluster");
    world.other(2, "a", Verdict::Down);
    assert_eq!((world.health("a"), world.pace()), (Health::Unhealthy, Pace::Normal));

    world.see_all([good(), good()]);
    assert_eq!(world.say(), of_a(Verdict::Up));
}

#[test]
fn the_end_of_a_held_connection_makes_it_fast_and_accuses_nobody() {
    let mut world = World::new(&["a"]);
    world.service(vec![
        Check { watch: true, ..Check::of(CheckKind::Tcp) },
        Check { watch: true, ..Check::of(CheckKind::Http) },
        Check::of(CheckKind::Tls),
    ]);
    let watching: Vec<bool> = world.prober.targets.values().map(|(target, _)| target.watch).collect();
    assert_eq!(watching, [true, false, false], "one connection for an instance");
    world.service(vec![Check { watch: true, ..Check::of(CheckKind::Tcp) }]);
    world.see_all([good(), good()]);
    world.say();
    assert_eq!(world.pace(), Pace::Normal);
    let target = world.only_target();
    assert_eq!(world.prober.targets[&target].0.of, (name("web"), id("a")));
    world.book.hinted(target, &mut world.prober);
    assert_eq!(world.pace(), Pace::Fast);
    let now = world.local();
    assert_eq!(world.book.proposal(&world.state, now, &mut world.prober), None);
    world.see_all([good()]);
    assert_eq!(world.pace(), Pace::Normal, "it is well");
    world.book.hinted(TargetId(99), &mut world.prober);
}

#[test]
fn anothers_doubt_is_looked_into_at_once() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.other(2, "a", Verdict::Suspect);
    let target = world.only_target();
    assert_eq!((world.pace(), world.prober.hurried.remove(&target)), (Pace::Fast, true));
    world.other(3, "a", Verdict::Suspect);
    assert!(world.prober.hurried.is_empty(), "once");
    world.see_all([good()]);
    assert_eq!(world.pace(), Pace::Fast, "as long as somebody doubts it");
    world.other(2, "a", Verdict::Up);
    world.other(3, "a", Verdict::Up);
    assert_eq!(world.pace(), Pace::Normal);
}

#[test]
fn without_a_quorum_failures_do_not_count_and_nothing_is_said() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    let now = world.local();
    world.book.sight_lost(now, &mut world.prober);
    world.see_all((0..10).map(|_| bad()));
    assert_eq!(world.say(), []);
    let now = world.local();
    world.book.look_again(now, &mut world.prober);
    assert_eq!(world.say(), [], "it sees again, and has not looked yet");
    world.see_all([good()]);
    assert_eq!(world.say(), [], "up it is, as it was committed");
}

#[test]
fn what_was_seen_before_a_short_blindness_is_confirmed_before_it_is_said() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.see_all([bad(), bad()]);
    let now = world.local();
    world.book.sight_lost(now, &mut world.prober);
    world.see_all([bad()]);
    let now = world.local();
    world.book.look_again(now, &mut world.prober);
    let target = world.only_target();
    assert!(world.prober.hurried.remove(&target), "what waits to be said is looked at right away");
    assert_eq!(world.say(), []);
    world.see_all([bad()]);
    assert_eq!(world.say(), of_a(Verdict::Down), "two before, one after: the leader's election cost one look, not all");
}

#[test]
fn after_a_long_blindness_everything_is_unknown_until_it_has_looked() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.see_all([bad(), bad()]);
    world.say();
    for _ in 0..20 {
        let now = world.local();
        world.book.sight_lost(now, &mut world.prober);
        world.now += 250;
    }
    assert_eq!(world.pace(), Pace::Fast);
    let now = world.local();
    world.book.look_again(now, &mut world.prober);
    world.see_all([bad(), bad()]);
    assert_eq!(world.say(), [], "the row began anew");
    world.see_all([bad()]);
    assert_eq!(world.say(), of_a(Verdict::Down));
}

#[test]
fn a_node_that_stood_still_begins_anew() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.see_all([bad(), bad()]);
    world.now += 10_000;
    let now = world.local();
    world.book.stood_still(now, Duration::from_secs(10), &mut world.prober);
    world.see_all([bad(), bad()]);
    assert_eq!(world.say(), []);
    world.see_all([good(), good()]);
    assert_eq!(world.say(), [], "up, as committed");
}

#[test]
fn a_starved_node_accuses_nobody() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    let target = world.only_target();
    for _ in 0..50 {
        world.now += 200;
        world.see(target, Err(Distrust::NodeLate { late: Duration::from_millis(300) }));
        assert_eq!(world.say(), []);
    }
    assert_eq!(world.pace(), Pace::Fast, "it would like to know");
    world.see_all([good()]);
    assert_eq!(world.pace(), Pace::Normal);
}

#[test]
fn a_failed_proposal_is_made_again_with_what_is_held_then() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.see_all([bad()]);
    assert_eq!(world.proposal().map(|record| said(&record)), Some(of_a(Verdict::Suspect)));
    let now = world.local();
    world.book.failed(now);
    assert_eq!(world.say(), [], "not at once");
    world.see_all([bad(), bad()]);
    assert_eq!(world.proposal().map(|record| said(&record)), Some(of_a(Verdict::Down)), "only the newest");
    // Accepted, but never seen committed: it was dropped on the way, or this node's copy is old.
    world.book.accepted();
    world.now += 500;
    let now = world.local();
    world.book.compare_overdue(now);
    assert_eq!(world.say(), [], "patience");
    world.now += 500;
    let now = world.local();
    world.book.compare_overdue(now);
    assert_eq!(world.say(), of_a(Verdict::Down));
}

#[test]
fn waits_between_failed_proposals_grow_and_are_bounded() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    let mut waits = Vec::new();
    for _ in 0..7 {
        assert!(world.proposal().is_some());
        let now = world.local();
        world.book.failed(now);
        let again = world.book.wants_to_speak().expect("it still wants to");
        waits.push(again.since(now).as_millis());
        world.now = u64::try_from(again.0.as_millis()).expect("a short test");
    }
    assert_eq!(waits, [50, 100, 200, 400, 800, 1_000, 1_000]);
}

#[test]
fn a_node_that_was_counted_out_says_everything_again_when_it_counts_again() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.commit(Command::ObserverLost { node: ME, silent_for: Millis(3_000) });
    world.see_all([bad()]);
    assert_eq!(world.proposal(), None, "one who is counted out is not asked");
    world.see_all([good()]);
    world.commit(Command::ObserverBack { node: ME });
    assert_eq!(world.say(), of_a(Verdict::Up));
}

#[test]
fn another_address_is_another_thing() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    let old = world.only_target();
    world.instance("a", "127.0.0.1:81");
    let new = world.only_target();
    assert_ne!(old, new);
    assert_eq!(world.prober.targets[&new].0.address.port, 81);
    world.see(old, Ok(bad()));
    world.see_all([good()]);
    assert_eq!(world.say(), [], "it has to rise again");
    world.see_all([good()]);
    assert_eq!(world.say(), of_a(Verdict::Up));
    // What is no matter of probing changes nothing.
    let target = world.only_target();
    world.commit(Command::InstancePut(InstancePut {
        service: name("web"),
        instance: id("a"),
        registration: Box::new(Registration {
            priority: 7,
            ..Registration::at(Some("127.0.0.1:81".parse().expect("an address")))
        }),
        session: String::new(),
        if_generation: None,
        actor: "test".to_owned(),
    }));
    assert_eq!(world.only_target(), target);
}

#[test]
fn checks_come_and_go_with_the_spec() {
    let mut world = World::new(&["a", "b"]);
    assert_eq!(world.prober.targets.len(), 2);
    let tcp = Check::of(CheckKind::Tcp);
    world.service(vec![tcp.clone(), Check::of(CheckKind::Http)]);
    assert_eq!(world.prober.targets.len(), 4);
    world.service(vec![tcp.clone(), Check::of(CheckKind::Heartbeat)]);
    assert_eq!(world.prober.targets.len(), 2, "a check that is not run has no target");
    let before: Vec<TargetId> = world.prober.targets.keys().copied().collect();
    let mut spec = Spec { checks: vec![tcp, Check::of(CheckKind::Heartbeat)], ..Spec::default() };
    spec.failover.automatic = false;
    world.commit(Command::ServicePut(ServicePut {
        service: name("web"),
        spec: Box::new(spec),
        if_generation: None,
        actor: "test".to_owned(),
    }));
    assert_eq!(world.prober.targets.keys().copied().collect::<Vec<_>>(), before, "the checks are the same");
    world.service(vec![Check::of(CheckKind::Heartbeat)]);
    assert!(world.prober.targets.is_empty());
    world.service(vec![Check::of(CheckKind::Tcp)]);
    world.commit(Command::InstanceDelete(InstanceDelete {
        service: name("web"),
        instance: id("a"),
        if_generation: None,
        actor: "test".to_owned(),
    }));
    assert_eq!(world.prober.targets.len(), 1);
    world.commit(Command::ServiceDelete(ServiceDelete {
        service: name("web"),
        if_generation: None,
        actor: "test".to_owned(),
    }));
    assert!(world.prober.targets.is_empty());
}

#[test]
fn missed_changes_are_made_up_for_by_a_scan() {
    let mut world = World::new(&["a", "b"]);
    world.see(TargetId(1), Ok(good()));
    let mut other = World::new(&["b", "c"]);
    other.service(vec![Check::of(CheckKind::Http), Check::of(CheckKind::Tcp)]);
    world.book.rescan(&other.state, &mut world.prober);
    assert_eq!(world.prober.targets.len(), 4);
    world.book.rescan(&State::default(), &mut world.prober);
    assert!(world.prober.targets.is_empty());
    world.book.changed(&State::default(), &BTreeSet::from([Change::Service(name("web"))]), &mut world.prober);
}

#[test]
fn many_verdicts_go_in_bounded_commands() {
    let names: Vec<String> = (0..REPORTS_MAX + 20).map(|number| format!("i{number}")).collect();
    let mut world = World::new(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let targets: Vec<TargetId> = world.prober.targets.keys().copied().collect();
    for target in targets {
        world.see(target, Ok(good()));
        world.see(target, Ok(good()));
    }
    assert_eq!(world.say().len(), REPORTS_MAX);
    assert_eq!(world.say().len(), 20);
    assert_eq!(world.say(), []);
}

#[test]
fn a_node_that_can_believe_none_of_its_probes_says_that_it_does_not_know() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    assert_eq!(world.say(), of_a(Verdict::Up));
    // Every failure comes late: it is not counted, and for a while what was seen still stands.
    let late = || Err(Distrust::NodeLate { late: Duration::from_millis(300) });
    for _ in 0..4 {
        world.now += 1_000;
        let target = world.only_target();
        world.see(target, late());
        world.book.compare_all();
        assert_eq!(world.say(), [], "at {}", world.now);
    }
    // Three rounds of a second and a half, and three seconds of grace, are enough.
    world.now += 4_000;
    world.book.compare_all();
    assert_eq!(world.say(), of_a(Verdict::Unknown));
    assert_eq!(world.health("a"), Health::Unknown, "nobody else has looked either");
    // It is to be earned again.
    world.see_all([good()]);
    assert_eq!(world.say(), []);
    world.see_all([good()]);
    assert_eq!(world.say(), of_a(Verdict::Up));
}

#[test]
fn an_unheard_accuser_looks_again_and_keeps_its_distance() {
    let mut world = World::new(&["a"]);
    world.see_all([good(), good()]);
    world.say();
    world.see_all([bad(), bad(), bad()]);
    let record = world.proposal().expect("a record");
    assert_eq!(said(&record), of_a(Verdict::Down));
    world.now += 300;
    let now = world.local();
    world.book.failed(now);
    world.book.doubt_itself(now, &mut world.prober);
    assert!(world.book.wants_to_speak().is_none_or(|at| at > now), "not at once again");
    world.now += 100;
    assert_eq!(world.say(), [], "what was seen before does not count");
    world.see_all([good()]);
    assert_eq!(world.say(), [], "one good look, and rise is 2");
    world.see_all([good()]);
    assert_eq!(world.say(), [], "it was up, and is: nothing was ever wrong with it");
}

#[test]
fn a_check_that_this_node_cannot_carry_out_is_noted_and_accuses_nobody() {
    let mut world = World::new(&["a"]);
    let target = world.only_target();
    let short = || Err(Distrust::NodeShort { detail: "this node's configuration has no agent \"raid\"".to_owned() });
    for _ in 0..5 {
        world.see(target, short());
    }
    assert_eq!((world.say(), world.book.short_of()), (vec![], 1));
    world.see(target, Ok(good()));
    world.see(target, Ok(good()));
    assert_eq!((world.say(), world.book.short_of()), (vec![("a".to_owned(), Verdict::Up)], 0), "it is over");
}
