//! What the log wants of a node: its own runs of its own term, while they have no outcome, and each of them once.

use baton_core::apply::{Position, apply_batch};
use baton_core::command::{
    Batch, Command, HookEnd, InstancePut, NodeAnnounce, ServicePut, VerdictReport, VerdictsRecord,
};
use baton_core::planner::{Facts, plan_service};
use baton_core::policy::{Check, CheckKind, ProofKind, ProofPolicy, Registration, Spec};
use baton_core::probe::{Evidence, Verdict};
use baton_core::state::State;
use baton_core::time::{ClusterTime, WallTime};
use baton_core::transition::HookOutcome;

use super::super::Begun;
use super::super::wanted::wanted;
use super::*;

/// A log in a test's hands.
#[derive(Default)]
struct World {
    state: State,
    index: u64,
}

impl World {
    fn send(&mut self, term: u64, command: Command) {
        self.index += 1;
        let batch = Batch { time: ClusterTime(1_000), wall: WallTime(0), commands: vec![command] };
        let applied = apply_batch(&mut self.state, Position { term, index: self.index }, &batch);
        assert!(applied.replies.iter().all(Result::is_ok), "{:?}", applied.replies);
    }

    fn verdict(&mut self, instance: &str, verdict: Verdict) {
        let service = ask().service;
        let instance = instance.parse().expect("a name");
        let epoch = self.state.instance(&service, &instance).expect("it is registered").epoch;
        let detail = "looked".to_owned();
        let evidence = Evidence { check: "tcp".to_owned(), class: None, detail, streak: 3, first_failure_age: None };
        let verdicts = vec![VerdictReport { service, instance, epoch, verdict, evidence }];
        self.send(1, Command::VerdictsRecord(VerdictsRecord { observer: 1, verdicts }));
    }

    fn spec(&mut self, hook: Option<FencingHook>) {
        let mut spec = Spec { checks: vec![Check::of(CheckKind::Tcp)], ..Spec::default() };
        let proof = if hook.is_some() { ProofKind::Hook } else { ProofKind::Lease };
        (spec.fencing.proof, spec.fencing.hook) = (ProofPolicy::List(vec![proof]), hook);
        let (service, actor) = (ask().service, "test".to_owned());
        self.send(1, Command::ServicePut(ServicePut { service, spec: Box::new(spec), if_generation: None, actor }));
    }

    /// Plans and carries out, as a leader does, until there is nothing more to do.
    fn settle(&mut self, node: u64, term: u64) {
        let facts = Facts { node, term, ..Facts::default() };
        loop {
            let service = self.state.service(&ask().service).expect("it is there");
            let plan = plan_service(&self.state, service, &facts, ClusterTime(1_000), 1);
            let Some(command) = plan.command else { return };
            self.send(term, command);
        }
    }

    /// The holder `a` of `orders` is down, and node 3, the leader of term 1, is to have it cut off.
    fn down() -> Self {
        let mut world = Self::default();
        let (api, peer) = ("127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned());
        world.send(1, Command::NodeAnnounce(NodeAnnounce { node: 1, api, peer, version: "0".to_owned() }));
        world.spec(Some(off()));
        for (instance, priority) in [("a", 200), ("b", 100)] {
            let address = Some("10.0.0.1:5432".parse().expect("an address"));
            let registration = Box::new(Registration { priority, ..Registration::at(address) });
            let (service, instance) = (ask().service, instance.parse().expect("a name"));
            let (session, actor) = ("s".to_owned(), "test".to_owned());
            let put = InstancePut { service, instance, registration, session, if_generation: None, actor };
            world.send(1, Command::InstancePut(put));
        }
        world.verdict("b", Verdict::Up);
        world.verdict("a", Verdict::Up);
        world.settle(3, 1);
        world.verdict("a", Verdict::Down);
        world.settle(3, 1);
        world
    }

    fn open(&self) -> TransitionId {
        self.state.transitions.values().next_back().expect("a record").id
    }
}

fn off() -> FencingHook {
    FencingHook { url: None, agent: Some("off".to_owned()), timeout: Millis(1_000), attempts: 3 }
}

#[test]
fn a_run_is_wanted_of_its_node_in_its_term_until_it_has_an_outcome() {
    let mut world = World::down();
    let id = world.open();
    let mine = wanted(&world.state, id, 3, 1);
    assert_eq!(mine.len(), 1, "{mine:?}");
    let token = mine[0].ask.token;
    assert!(token.is_some(), "the holder's, of whom a token is known");
    let reason = world.state.transitions[&id].trigger.reason.clone();
    assert_eq!(mine[0].hook, Some(off()));
    assert_eq!(mine[0].ask, HookAsk { transition: id, attempt: 1, token, reason, ..ask() });
    for (node, term) in [(2, 1), (3, 2)] {
        assert_eq!(wanted(&world.state, id, node, term), [], "node {node} in term {term}");
    }
    assert_eq!(wanted(&world.state, TransitionId(id.0 + 1), 3, 1), [], "there is no such record");

    // The next leader's run is the next leader's, and the lost one stays nobody's.
    world.settle(2, 2);
    assert_eq!(wanted(&world.state, id, 2, 2).iter().map(|it| it.ask.attempt).collect::<Vec<_>>(), [2]);
    let outcome = HookOutcome { ok: false, code: Some(3), status: None, detail: "3".to_owned(), took_ms: 1 };
    let end = HookEnd { service: ask().service, transition: id, attempt: 2, outcome };
    world.send(2, Command::HookEnd(end));
    assert_eq!(wanted(&world.state, id, 2, 2), [], "it has an outcome");
}

#[test]
fn a_hook_that_is_no_longer_in_the_spec_is_known_to_be_missing() {
    let mut world = World::down();
    world.spec(None);
    let mine = wanted(&world.state, world.open(), 3, 1);
    assert_eq!(
        mine.iter().map(|it| &it.hook).collect::<Vec<_>>(),
        [&None],
        "it is answered all the same: as a failure"
    );
}

#[test]
fn nothing_is_begun_twice_in_a_term_however_often_this_node_doubts_that_it_leads() {
    let (mut begun, id) = (Begun::default(), TransitionId(57));
    begun.enter(4);
    assert!(begun.begin(id, 1) && !begun.begin(id, 1) && begun.begin(id, 2) && begun.begin(TransitionId(58), 1));
    begun.enter(4);
    assert!(!begun.begin(id, 1), "the same term again");
    begun.enter(5);
    assert!(begun.runs.is_empty(), "what is wanted in another term has numbers of its own");
}
