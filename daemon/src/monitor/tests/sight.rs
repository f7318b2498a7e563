//! Several nodes that watch the same instances, each with a book of its own and one state between them. Some are blind,
//! some instances are really dead; what each node said, and what came of it, is in the events.

use baton_core::event::EventKind;
use baton_core::policy::Liveness;

use super::*;

/// One step of the play.
const STEP: u64 = 50;
/// The settings of the only check.
const INTERVAL: u64 = 1_000;
const FAST: u64 = 200;
const TIMEOUT: u64 = 500;

/// One node: its book, what its prober was asked, and when each target was probed last.
struct Node {
    book: Book,
    prober: Notes,
    probed: BTreeMap<TargetId, u64>,
}

/// A look under way.
struct Flight {
    ends: u64,
    began: u64,
    node: NodeId,
    target: TargetId,
    outcome: Outcome,
}

/// What was said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Said {
    at: u64,
    node: NodeId,
    instance: String,
    verdict: String,
}

struct Play {
    state: State,
    index: u64,
    now: u64,
    nodes: BTreeMap<NodeId, Node>,
    instances: u16,
    interval: u64,
    dead: BTreeSet<u16>,
    /// Ways that are cut: from which node, to which instance.
    cut: BTreeSet<(NodeId, u16)>,
    /// How long a failed look takes: refused at once, or silence until the time-out.
    fails_after: u64,
    said: Vec<Said>,
    health: Vec<(u64, String, String)>,
    flying: Vec<Flight>,
}

impl Play {
    /// So many nodes, all of which observe so many instances, which all of them see well when this returns.
    fn of(nodes: u64, instances: u16) -> Self {
        Self::with(nodes, instances, |_| {})
    }

    fn with(nodes: u64, instances: u16, change: impl Fn(&mut Spec)) -> Self {
        let mut play = Self {
            state: State::default(),
            index: 0,
            now: 0,
            nodes: BTreeMap::new(),
            instances,
            interval: INTERVAL,
            dead: BTreeSet::new(),
            cut: BTreeSet::new(),
            fails_after: 0,
            said: Vec::new(),
            health: Vec::new(),
            flying: Vec::new(),
        };
        for node in 1..=nodes {
            let (book, prober) = (Book::new(node, LocalTime::default()), Notes::default());
            play.nodes.insert(node, Node { book, prober, probed: BTreeMap::new() });
        }
        for node in 1..=nodes {
            play.commit(Command::NodeAnnounce(NodeAnnounce {
                node,
                api: format!("127.0.0.1:{}", 7_400 + node),
                peer: format!("127.0.0.1:{}", 7_500 + node),
                version: "1".to_owned(),
            }));
        }
        let check = Check {
            interval: Millis(INTERVAL),
            fast_interval: Millis(FAST),
            timeout: Millis(TIMEOUT),
            ..Check::of(CheckKind::Http)
        };
        let mut spec = Spec { checks: vec![check], ..Spec::default() };
        spec.detection.observers = 9;
        change(&mut spec);
        play.interval = spec.checks[0].interval.0;
        play.commit(Command::ServicePut(ServicePut {
            service: name("web"),
            spec: Box::new(spec),
            if_generation: None,
            actor: "test".to_owned(),
        }));
        for number in 0..instances {
            let address = format!("127.0.0.1:{}", 1_000 + number);
            let mut registration = Registration::at(Some(address.parse().expect("an address")));
            registration.liveness = Liveness::Probe;
            play.commit(Command::InstancePut(InstancePut {
                service: name("web"),
                instance: id(&format!("i-{number}")),
                registration: Box::new(registration),
                session: String::new(),
                if_generation: None,
                actor: "test".to_owned(),
            }));
        }
        for node in play.nodes.values_mut() {
            node.book.look_again(LocalTime::default(), &mut node.prober);
        }
        play.run(3_000);
        let healthy = play.state.services[&name("web")].instances.values().all(|it| it.health == Health::Healthy);
        assert!(healthy, "all is well at first: {:?}", play.said);
        play.said.clear();
        play.health.clear();
        play
    }

    fn commit(&mut self, command: Command) {
        self.index += 1;
        let batch = Batch { time: ClusterTime(self.now), wall: WallTime(0), commands: vec![command] };
        let applied = apply_batch(&mut self.state, self.index, &batch);
        for event in applied.events.into_iter().map(|recorded| recorded.event) {
            let instance = event.instance.map(|id| id.to_string()).unwrap_or_default();
            let to = event.to.flatten().unwrap_or_default();
            if event.kind == EventKind::InstanceHealthChanged {
                self.health.push((self.now, instance, to));
            } else if event.kind == EventKind::VerdictChanged
                && let Some(node) = event.node
            {
                self.said.push(Said { at: self.now, node, instance, verdict: to });
            }
        }
        for node in self.nodes.values_mut() {
            node.book.changed(&self.state, &applied.changes, &mut node.prober);
        }
    }

    /// Lets so many milliseconds pass.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += STEP;
            self.probe();
            self.speak();
        }
    }

    fn probe(&mut self) {
        let now = self.now;
        let local = |ms: u64| LocalTime(Duration::from_millis(ms));
        for (id, node) in &mut self.nodes {
            for (target, (what, pace)) in &node.prober.targets {
                if self.flying.iter().any(|flight| flight.node == *id && flight.target == *target) {
                    continue;
                }
                let number = what.address.port - 1_000;
                // Each node and target has a place of its own in the interval.
                let place = (id * 350 + u64::from(number) * 150) % self.interval / STEP * STEP;
                let due = match node.probed.get(target) {
                    None => true,
                    Some(last) if *pace == Pace::Fast => now >= last + FAST,
                    Some(last) => now >= last + FAST && now % self.interval == place,
                };
                if !due && !node.prober.hurried.remove(target) {
                    continue;
                }
                node.probed.insert(*target, now);
                let fails = self.dead.contains(&number) || self.cut.contains(&(*id, number));
                let (outcome, takes) = if fails { (bad(), self.fails_after) } else { (good(), 0) };
                let flight = Flight { ends: now + takes, began: now, node: *id, target: *target, outcome };
                self.flying.push(flight);
            }
        }
        for Flight { ends, began, node, target, outcome } in self.flying.extract_if(.., |flight| flight.ends <= now) {
            let node = self.nodes.get_mut(&node).expect("a node");
            let (due, started, ended) = (local(began), local(began), local(ends));
            let timing = Timing { due, started, ended, timeout: Duration::from_millis(TIMEOUT) };
            node.book.seen(&ProbeResult { target, timing, seen: Ok(outcome) }, &mut node.prober);
        }
    }

    fn speak(&mut self) {
        let now = LocalTime(Duration::from_millis(self.now));
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&id).expect("a node");
            node.book.examine_itself(&self.state, now, &mut node.prober);
            node.book.compare_overdue(now);
            while let Some(record) = {
                let node = self.nodes.get_mut(&id).expect("a node");
                node.book
                    .wants_to_speak()
                    .filter(|at| *at <= now)
                    .and_then(|_| node.book.proposal(&self.state, now, &mut node.prober))
            } {
                self.nodes.get_mut(&id).expect("a node").book.accepted();
                self.commit(Command::VerdictsRecord(record));
            }
        }
    }

    /// Cuts a node's ways to so many instances, and mends the others.
    fn cut(&mut self, node: NodeId, instances: u16) {
        self.cut = (0..instances).map(|number| (node, number)).collect();
    }

    /// Cuts all of a node's ways, or mends them all.
    fn blind(&mut self, node: NodeId, blind: bool) {
        self.cut(node, if blind { self.instances } else { 0 });
    }

    /// How often a node said this.
    fn times(&self, node: NodeId, verdict: &str) -> usize {
        self.said.iter().filter(|said| said.node == node && said.verdict == verdict).count()
    }

    fn trusts_itself(&self, node: NodeId) -> bool {
        self.nodes[&node].book.trusts_itself()
    }

    fn verdicts(&self, node: NodeId) -> BTreeSet<Verdict> {
        let instances = self.state.services[&name("web")].instances.values();
        instances.map(|it| it.verdicts.get(&node).map_or(Verdict::Unknown, |record| record.verdict)).collect()
    }

    /// When an instance became this, and never anything else since.
    fn became(&self, instance: &str, health: &str) -> Option<u64> {
        self.health.iter().rfind(|(_, of, _)| of == instance).filter(|(_, _, to)| to == health).map(|(at, ..)| *at)
    }
}

#[test]
fn a_node_to_which_everything_fails_says_unknown_and_never_down() {
    for (fails_after, what) in [(0, "refused at once"), (TIMEOUT, "silence")] {
        let mut play = Play::of(3, 6);
        play.fails_after = fails_after;
        play.blind(1, true);
        play.run(10_000);
        assert_eq!(play.times(1, "down"), 0, "{what}: {:#?}", play.said);
        assert!(play.times(1, "suspect") >= 1, "{what}: it may doubt, so that the others look");
        assert!(!play.trusts_itself(1), "{what}");
        assert_eq!(play.verdicts(1), BTreeSet::from([Verdict::Unknown]), "{what}");
        assert_eq!((play.times(2, "down"), play.times(3, "suspect")), (0, 0), "{what}: the others see well");
        assert!(play.health.iter().all(|(_, _, to)| to != "unhealthy"), "{what}: {:?}", play.health);
        let instances = play.state.services[&name("web")].instances.values();
        assert!(instances.map(|it| it.health).all(|health| health == Health::Healthy), "{what}");

        // Its sight is back: it says nothing against anybody, and earns each `up` again.
        play.said.clear();
        play.blind(1, false);
        play.run(3_000);
        assert!(play.trusts_itself(1), "{what}");
        assert_eq!(play.times(1, "up"), 6, "{what}: {:#?}", play.said);
        assert_eq!(play.said.len(), 6, "{what}: and nothing else was said: {:#?}", play.said);
    }
}

#[test]
fn two_blinded_nodes_of_five_do_not_vouch_for_each_other() {
    for (fails_after, what) in [(0, "refused at once"), (TIMEOUT, "silence")] {
        let mut play = Play::of(5, 6);
        play.fails_after = fails_after;
        play.cut = [1, 2].into_iter().flat_map(|node| (0..6).map(move |number| (node, number))).collect();
        play.run(10_000);
        for node in [1, 2] {
            assert_eq!(play.times(node, "down"), 0, "{what}: {:#?}", play.said);
            assert!(!play.trusts_itself(node), "{what}: node {node}");
            assert_eq!(play.verdicts(node), BTreeSet::from([Verdict::Unknown]), "{what}: node {node}");
        }
        assert!(play.health.iter().all(|(_, _, to)| to != "unhealthy"), "{what}: {:?}", play.health);
        // While they stand back, everything dies: it is agreed, and they believe it.
        play.dead.extend(0..6);
        play.run(6_000);
        for number in 0..6 {
            assert!(play.became(&format!("i-{number}"), "unhealthy").is_some(), "{what}: {:?}", play.health);
        }
        assert!(play.trusts_itself(1) && play.trusts_itself(2), "{what}: the others see what they see");
    }
}

#[test]
fn however_rarely_it_looks_it_looks_around_before_it_accuses() {
    // The first instance that fails would be down long before the others are looked at by their interval.
    let mut play = Play::with(3, 6, |spec| spec.checks[0].interval = Millis::secs(10));
    play.blind(1, true);
    play.run(25_000);
    assert_eq!(play.times(1, "down"), 0, "{:#?}", play.said);
    assert_eq!(play.verdicts(1), BTreeSet::from([Verdict::Unknown]));
}

#[test]
fn a_node_that_begins_blind_never_says_down_either() {
    for fall in [1, 3] {
        let mut play = Play::with(3, 6, |spec| spec.checks[0].fall = fall);
        // It was counted out and forgot everything; when it is back, nothing answers it.
        play.commit(Command::ObserverLost { node: 1, silent_for: Millis(3_000) });
        let now = LocalTime(Duration::from_millis(play.now));
        let node = play.nodes.get_mut(&1).expect("a node");
        node.book.stood_still(now, Duration::from_secs(3), &mut node.prober);
        play.blind(1, true);
        play.commit(Command::ObserverBack { node: 1 });
        play.run(10_000);
        assert_eq!(play.times(1, "down"), 0, "fall {fall}: {:#?}", play.said);
        assert!(!play.trusts_itself(1), "fall {fall}");
        assert_eq!(play.verdicts(1), BTreeSet::from([Verdict::Unknown]), "fall {fall}");
        assert_eq!(play.verdicts(2), BTreeSet::from([Verdict::Up]), "fall {fall}");
    }
}

#[test]
fn a_real_mass_failure_is_agreed_at_once() {
    for (nodes, fall, fails_after) in [2, 3, 5]
        .into_iter()
        .flat_map(|nodes| [1, 3].map(|fall| [0, TIMEOUT].map(|silent| (nodes, fall, silent))))
        .flatten()
    {
        let what = format!("{nodes} nodes, fall {fall}, {fails_after} ms for each look");
        let mut play = Play::with(nodes, 8, |spec| spec.checks[0].fall = fall);
        play.fails_after = fails_after;
        let died = play.now;
        play.dead.extend(0..8);
        play.run(6_000);
        // The steps of this play are coarse; a few of them are no delay. With a fall of one the others are asked first.
        let within = INTERVAL + u64::from(fall - 1) * FAST + u64::from(fall.max(2)) * fails_after + 4 * STEP;
        for number in 0..8 {
            let at = play.became(&format!("i-{number}"), "unhealthy");
            let at = at.unwrap_or_else(|| panic!("{what}: i-{number} is not agreed to be dead: {:#?}", play.said));
            assert!(at - died <= within, "{what}, i-{number}: {} ms, not {within}: {:#?}", at - died, play.said);
        }
        for node in 1..=nodes {
            assert_eq!(play.verdicts(node), BTreeSet::from([Verdict::Down]), "{what}: node {node}");
            assert_eq!(play.times(node, "unknown"), 0, "{what}: nobody ever took itself for ill: {:#?}", play.said);
        }
    }
}

#[test]
fn whoever_was_ill_believes_a_real_mass_failure_too() {
    let mut play = Play::of(3, 6);
    play.blind(1, true);
    play.run(5_000);
    assert!(!play.trusts_itself(1));
    play.dead.extend(0..6);
    play.run(5_000);
    assert_eq!(
        (play.verdicts(2), play.verdicts(3)),
        (BTreeSet::from([Verdict::Down]), BTreeSet::from([Verdict::Down]))
    );
    assert!(play.trusts_itself(1), "the others see what it sees");
    assert!(play.became("i-5", "unhealthy").is_some(), "{:?}", play.health);
}

#[test]
fn one_instance_that_fails_to_one_node_is_said_to() {
    let mut play = Play::of(3, 6);
    play.cut.insert((1, 2));
    play.run(4_000);
    assert_eq!((play.times(1, "suspect"), play.times(1, "down")), (1, 1), "{:#?}", play.said);
    assert!(play.said.iter().all(|said| said.node == 1 && said.instance == "i-2"), "{:#?}", play.said);
    assert!(play.trusts_itself(1));
    assert_eq!(play.became("i-2", "suspect").map(|_| ()), Some(()), "one of three is no quorum: {:?}", play.health);
}

#[test]
fn a_lone_observer_accuses_as_it_always_did() {
    let mut play = Play::of(1, 6);
    let died = play.now;
    play.blind(1, true);
    play.run(2_000);
    assert_eq!(play.times(1, "down"), 6, "nobody contradicts it");
    let at = play.became("i-0", "unhealthy").expect("one of one is a quorum");
    assert!(at - died <= INTERVAL + 2 * FAST + 2 * STEP, "{} ms", at - died);

    // Three nodes, each the only observer of some: nobody contradicts it there either.
    let mut play = Play::with(3, 12, |spec| spec.detection.observers = 1);
    play.blind(1, true);
    play.run(3_000);
    assert!(play.times(1, "down") >= 1 && play.trusts_itself(1), "{:#?}", play.said);
}

#[test]
fn with_a_half_mended_way_a_node_does_not_change_its_mind_with_every_look() {
    let mut play = Play::of(3, 8);
    play.blind(1, true);
    play.run(5_000);
    assert!(!play.trusts_itself(1));
    play.said.clear();
    // Five of eight fail: too few to fall ill over, too many to be well.
    play.cut(1, 5);
    play.run(5_000);
    assert!(!play.trusts_itself(1));
    assert_eq!((play.times(1, "down"), play.times(1, "suspect")), (0, 0), "{:#?}", play.said);
    assert_eq!(play.times(1, "up"), 3, "what it sees well it says: {:#?}", play.said);
    // Three of eight: it is well, and says what it sees.
    play.cut(1, 3);
    play.run(5_000);
    assert!(play.trusts_itself(1));
    assert_eq!(play.times(1, "down"), 3, "{:#?}", play.said);
}
