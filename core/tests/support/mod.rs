//! A cluster's log in a test's hands: commands go in, the state and the history come out. Shared by the tests of `core`.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test uses its part of it")]

pub mod acts;

use std::collections::BTreeMap;

use baton_core::apply::apply_batch;
use baton_core::command::{
    Batch, Command, Done, InstanceDelete, InstancePut, NodeAnnounce, Refusal, Reply, ServicePut, VerdictReport,
    VerdictsRecord,
};
use baton_core::event::{Event, EventKind};
use baton_core::id::{InstanceId, NodeId, ServiceName};
use baton_core::planner::{Facts, ServicePlan, plan_service};
use baton_core::policy::{Check, CheckKind, RecoveryStrategy, Registration, Spec};
use baton_core::probe::{Evidence, FailureClass, Verdict};
use baton_core::state::{Service, State};
use baton_core::time::{ClusterTime, Millis, WallTime};

pub fn service(name: &str) -> ServiceName {
    name.parse().expect("a service name")
}

pub fn instance(id: &str) -> InstanceId {
    id.parse().expect("an instance id")
}

/// The log, the state it makes, and every event it made.
pub struct World {
    pub state: State,
    pub index: u64,
    pub now: ClusterTime,
    pub events: Vec<Event>,
}

impl World {
    /// Three nodes that have announced themselves.
    pub fn new() -> Self {
        let mut world = Self { state: State::default(), index: 0, now: ClusterTime(1_000), events: Vec::new() };
        for node in 1..=3 {
            world.must(announce(node));
        }
        world
    }

    pub fn wait(&mut self, length: Millis) {
        self.now = self.now.plus(length);
    }

    pub fn batch(&mut self, commands: Vec<Command>) -> Vec<Reply> {
        self.index += 1;
        let batch = Batch { time: self.now, wall: WallTime(1_763_635_320_000 + self.now.0 as i64), commands };
        let applied = apply_batch(&mut self.state, self.index, &batch);
        self.events.extend(applied.events.into_iter().map(|recorded| recorded.event));
        applied.replies
    }

    pub fn send(&mut self, command: Command) -> Reply {
        self.batch(vec![command]).pop().expect("one reply a command")
    }

    pub fn must(&mut self, command: Command) -> Done {
        self.send(command).expect("the command is carried out")
    }

    pub fn refused(&mut self, command: Command) -> Refusal {
        self.send(command).expect_err("the command is refused")
    }

    pub fn service(&self, name: &str) -> &Service {
        self.state.service(&service(name)).expect("the service is there")
    }

    /// A service whose instances are taken back at once after a failure, however often they fail, unless `change` says so.
    pub fn put_service(&mut self, name: &str, change: impl FnOnce(&mut Spec)) {
        let mut spec = Spec { checks: vec![Check::of(CheckKind::Tcp)], ..Spec::default() };
        (spec.recovery.strategy, spec.recovery.cooldown) = (RecoveryStrategy::Immediate, Millis::ZERO);
        change(&mut spec);
        self.must(put_service(name, spec));
    }

    pub fn put_instance(&mut self, name: &str, id: &str, change: impl FnOnce(&mut Registration)) {
        let mut registration = Registration::at(Some("127.0.0.1:80".parse().expect("an address")));
        change(&mut registration);
        self.must(put_instance(name, id, registration));
    }

    /// One observer's verdict on the instance as it is registered now.
    pub fn verdict(&mut self, node: NodeId, name: &str, id: &str, verdict: Verdict) -> Reply {
        let epoch = self.service(name).instances.get(&instance(id)).map_or(0, |instance| instance.epoch);
        self.send(verdicts(node, name, id, epoch, verdict))
    }

    /// All three nodes say the same.
    pub fn everyone_says(&mut self, name: &str, id: &str, verdict: Verdict) {
        for node in 1..=3 {
            self.verdict(node, name, id, verdict).expect("the verdict is taken");
        }
    }

    pub fn plan(&self, name: &str) -> ServicePlan {
        plan_service(&self.state, self.service(name), &Facts::default(), self.now, 7)
    }

    /// Plans and carries out until there is nothing more to do.
    pub fn settle(&mut self, name: &str) {
        for _ in 0..10 {
            match self.plan(name).command {
                Some(command) => {
                    self.must(command);
                }
                None => return,
            }
        }
        panic!("the planner does not come to rest: {:?}", self.plan(name).report);
    }

    pub fn active(&self, name: &str) -> Option<(String, u64)> {
        let active = self.service(name).assignment.active.as_ref()?;
        Some((active.instance.to_string(), active.token.0))
    }

    pub fn last_of(&self, kind: EventKind) -> &Event {
        self.events.iter().rev().find(|event| event.kind == kind).expect("such an event happened")
    }

    /// How often each kind of event happened since the `from`th event.
    pub fn kinds_since(&self, from: usize) -> BTreeMap<&'static str, usize> {
        let mut counts = BTreeMap::new();
        for event in &self.events[from..] {
            *counts.entry(event.kind.as_str()).or_default() += 1;
        }
        counts
    }

    /// Service `orders` with instances a, b and c, all healthy, a first by priority and active.
    pub fn orders() -> Self {
        let mut world = Self::new();
        world.put_service("orders", |_| {});
        for (id, priority) in [("a", 300), ("b", 200), ("c", 100)] {
            world.put_instance("orders", id, |registration| registration.priority = priority);
            world.everyone_says("orders", id, Verdict::Up);
        }
        world.settle("orders");
        assert_eq!(world.active("orders").map(|(id, _)| id), Some("a".to_owned()));
        world
    }
}

pub fn announce(node: NodeId) -> Command {
    Command::NodeAnnounce(NodeAnnounce {
        node,
        api: format!("127.0.0.1:74{node}0"),
        peer: format!("127.0.0.1:74{node}1"),
        version: "0.1.0".to_owned(),
    })
}

pub fn put_service(name: &str, spec: Spec) -> Command {
    Command::ServicePut(ServicePut {
        service: service(name),
        spec: Box::new(spec),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

pub fn put_instance(name: &str, id: &str, registration: Registration) -> Command {
    Command::InstancePut(InstancePut {
        service: service(name),
        instance: instance(id),
        registration: Box::new(registration),
        session: "session".to_owned(),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

pub fn delete_instance(name: &str, id: &str) -> Command {
    Command::InstanceDelete(InstanceDelete {
        service: service(name),
        instance: instance(id),
        if_generation: None,
        actor: "test".to_owned(),
    })
}

pub fn verdicts(node: NodeId, name: &str, id: &str, epoch: u64, verdict: Verdict) -> Command {
    let failed = matches!(verdict, Verdict::Down | Verdict::Suspect);
    Command::VerdictsRecord(VerdictsRecord {
        observer: node,
        verdicts: vec![VerdictReport {
            service: service(name),
            instance: instance(id),
            epoch,
            verdict,
            evidence: Evidence {
                check: "tcp".to_owned(),
                class: failed.then_some(FailureClass::Connection),
                detail: if failed { "connection refused".to_owned() } else { "connected".to_owned() },
                streak: 3,
                first_failure_age: failed.then_some(Millis(400)),
            },
        }],
    })
}
