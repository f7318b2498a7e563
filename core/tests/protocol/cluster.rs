//! A leader and its log in a test's hands: the commands of holders, operators and the planner, on one clock. What claims that a
//! lease has run out is proposed as a leader does it, under a seal.

use baton_core::apply::{Position, apply_batch};
use baton_core::command::{
    Ack, Batch, Command, Done, InstanceLeft, InstancePut, InstanceReturned, Refusal, Release, Reply, ServiceDelete,
};
use baton_core::id::{InstanceId, Token};
use baton_core::lease::{Granted, LeaseClaim, LeaseTerms, Leases, ReadPoint, Renewal, Unsealable, Withheld};
use baton_core::planner::{Facts, ManualMove, ManualPlan, ManualRequest, ServicePlan, plan_manual, plan_service};
use baton_core::policy::{Liveness, ProofKind, Registration, Spec};
use baton_core::probe::{LocalTime, Verdict};
use baton_core::state::{Phase, ReleaseHow, Service, Source};
use baton_core::time::{Millis, WallTime};
use baton_core::transition::{Fencing, Transition};

pub(crate) use crate::support::acts::judgement;
pub(crate) use crate::support::{World, instance, service};

/// The length of a lease in these stories, and W, for which it is waited.
pub(crate) const TTL: Millis = Millis(10_000);
pub(crate) const W: Millis = Millis(10_300);

pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) leases: Leases,
    pub(crate) term: u64,
}

impl Cluster {
    /// `orders` with a, b and c, which heartbeat in the sessions a1, b1 and c1: a is active and was never granted anything.
    /// The leader was elected long ago.
    pub(crate) fn new(change: impl FnOnce(&mut Spec)) -> Self {
        let mut cluster = Self::empty();
        cluster.put_service(change);
        for (id, priority) in [("a", 300), ("b", 200), ("c", 100)] {
            cluster.register(id, &format!("{id}1"), priority);
            cluster.beats(id);
        }
        cluster.settle();
        assert_eq!(cluster.active().as_deref(), Some("a"));
        cluster
    }

    pub(crate) fn empty() -> Self {
        let mut cluster = Self { world: World::new(), leases: Leases::new(), term: 1 };
        cluster.leases.begin(1, cluster.local());
        cluster.world.wait(Millis::secs(3_600));
        cluster
    }

    /// Stories about the time between two moves are told elsewhere: here there need be none.
    pub(crate) fn put_service(&mut self, change: impl FnOnce(&mut Spec)) {
        self.world.put_service("orders", |spec| {
            spec.lease.ttl = TTL;
            (spec.failover.min_interval, spec.failover.max_in_window) = (Millis::ZERO, 1_000);
            change(spec);
        });
    }

    pub(crate) fn local(&self) -> LocalTime {
        LocalTime(Millis(self.world.now.0).as_duration())
    }

    pub(crate) fn send(&mut self, command: Command) -> Reply {
        self.world.index += 1;
        let at = Position { term: self.term, index: self.world.index };
        let batch = Batch { time: self.world.now, wall: WallTime(1_763_635_320_000), commands: vec![command] };
        let mut applied = apply_batch(&mut self.world.state, at, &batch);
        self.world.events.extend(applied.events.into_iter().map(|recorded| recorded.event));
        applied.replies.pop().expect("one reply a command")
    }

    pub(crate) fn must(&mut self, command: Command) -> Done {
        self.send(command).expect("the command is carried out")
    }

    pub(crate) fn refused(&mut self, command: Command) -> Refusal {
        let mut before = self.world.state.clone();
        let refusal = self.send(command).expect_err("the command is refused");
        before.meta.cluster_time = self.world.state.meta.cluster_time;
        assert!(before == self.world.state, "what is refused changes nothing: {refusal}");
        refusal
    }

    // -- What instances do ------------------------------------------------------------------------------------------

    pub(crate) fn register(&mut self, id: &str, session: &str, priority: u32) {
        let registration = Registration { liveness: Liveness::Heartbeat, priority, ..Registration::at(None) };
        self.must(Command::InstancePut(InstancePut {
            service: service("orders"),
            instance: instance(id),
            registration: Box::new(registration),
            session: session.to_owned(),
            if_generation: None,
            actor: "test".to_owned(),
        }));
    }

    fn judged(&mut self, id: &str, verdict: Verdict) {
        let epoch = self.world.at("orders", id).epoch;
        self.must(judgement("orders", id, epoch, Source::Heartbeats, verdict));
    }

    /// Its heartbeats come.
    pub(crate) fn beats(&mut self, id: &str) {
        self.judged(id, Verdict::Up);
    }

    /// Its heartbeats are missed.
    pub(crate) fn falls_silent(&mut self, id: &str) {
        self.judged(id, Verdict::Down);
    }

    /// It asks for time.
    pub(crate) fn renew(&mut self, id: &str, session: &str) -> Result<Granted, Withheld> {
        let (service, instance, now) = (service("orders"), instance(id), self.local());
        let asked = Renewal { service: &service, instance: &instance, session };
        let point = ReadPoint { term: self.term, index: self.world.index };
        self.leases.grant(point, self.world.index, &self.world.state, &asked, now)
    }

    pub(crate) fn release(&mut self, id: &str, session: &str, token: Token) -> Reply {
        self.send(release(id, Some(session), token, false, ReleaseHow::Said))
    }

    pub(crate) fn leave(&mut self, id: &str, session: &str, token: Token) -> Reply {
        self.send(release(id, Some(session), token, true, ReleaseHow::Said))
    }

    pub(crate) fn disconnected(&mut self, id: &str, session: &str, token: Token) -> Reply {
        self.send(release(id, Some(session), token, false, ReleaseHow::Disconnected))
    }

    pub(crate) fn ack(&mut self, id: &str, session: &str, token: Token) -> Reply {
        self.send(ack(id, session, token))
    }

    /// It goes away and names no token.
    pub(crate) fn goes(&mut self, id: &str, session: &str) -> Reply {
        let (service, instance) = (service("orders"), instance(id));
        let (session, reason) = (session.to_owned(), "shutting down".to_owned());
        self.send(Command::InstanceLeft(InstanceLeft { service, instance, session, reason }))
    }

    pub(crate) fn returns(&mut self, id: &str, session: &str) -> Reply {
        let (service, instance) = (service("orders"), instance(id));
        self.send(Command::InstanceReturned(InstanceReturned { service, instance, session: session.to_owned() }))
    }

    // -- What the leader does ---------------------------------------------------------------------------------------

    pub(crate) fn facts(&self) -> Facts {
        Facts::of(self.service(), 1, self.term, &self.leases, std::collections::BTreeMap::new(), self.local())
    }

    pub(crate) fn plan(&self) -> ServicePlan {
        plan_service(&self.world.state, self.service(), &self.facts(), self.world.now, 7)
    }

    pub(crate) fn summary(&self) -> String {
        self.plan().report.summary
    }

    /// The claim that a seal gives for what is owed, if it gives one. The seal stays.
    pub(crate) fn claim(&mut self) -> Result<LeaseClaim, Unsealable> {
        let (token, terms) = self.owed().expect("a lease is owed");
        let (term, now) = (self.term, self.local());
        self.leases.seal(term, token, &terms, now).map(|(_seal, claim)| claim)
    }

    /// Plans and proposes, as a leader does, until there is nothing to do now.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            let Some(mut command) = self.plan().command else { return };
            let lease = if let Command::TransitionStart(start) = &mut command {
                start.lease.as_mut()
            } else if let Command::Promote(promote) = &mut command {
                promote.lease.as_mut()
            } else {
                None
            };
            let mut seal = None;
            if let Some(claim) = lease {
                let (_, terms) = self.owed().expect("a claim is about what is owed");
                let now = LocalTime(Millis(self.world.now.0).as_duration());
                let (sealed, said) =
                    self.leases.seal(self.term, claim.token, &terms, now).expect("the plan saw that it has run out");
                (seal, *claim) = (Some(sealed), said);
            }
            self.must(command);
            if let Some(seal) = seal {
                self.leases.unseal(seal);
            }
        }
        panic!("the planner does not come to rest: {:?}", self.plan().report);
    }

    /// Lets `length` pass; the planner looks when it wants to, and not in between.
    pub(crate) fn pass(&mut self, length: Millis) {
        let end = self.world.now.plus(length);
        for _ in 0..1_000 {
            self.settle();
            match self.plan().wake_at {
                Some(at) if at <= end => self.world.now = at,
                Some(_) | None => {
                    self.world.now = end;
                    return self.settle();
                }
            }
        }
        panic!("the planner wakes without end: {:?}", self.plan().report);
    }

    // -- What operators do ------------------------------------------------------------------------------------------

    pub(crate) fn ask(
        &self,
        wanted: ManualMove,
        to: Option<&str>,
        asserts_stopped: bool,
    ) -> Result<ManualPlan, Refusal> {
        let request = ManualRequest {
            wanted,
            to: to.map(instance),
            reason: "kernel update".to_owned(),
            actor: "alice".to_owned(),
            asserts_stopped,
        };
        plan_manual(&self.world.state, &service("orders"), &request, &self.facts(), self.world.now, 7)
    }

    /// Asks, and what is planned is proposed, as any node would: without a claim.
    pub(crate) fn order(&mut self, wanted: ManualMove, to: Option<&str>) -> ManualPlan {
        let mut plan = self.ask(wanted, to, false).expect("it is planned");
        self.must(plan.command.take().expect("there is something to do"));
        plan
    }

    pub(crate) fn delete(&mut self) {
        let (service, actor) = (service("orders"), "test".to_owned());
        self.must(Command::ServiceDelete(ServiceDelete { service, if_generation: None, actor }));
    }

    // -- What can be seen -------------------------------------------------------------------------------------------

    pub(crate) fn service(&self) -> &Service {
        self.world.service("orders")
    }

    pub(crate) fn active(&self) -> Option<String> {
        self.world.active("orders").map(|(id, _)| id)
    }

    pub(crate) fn phase(&self) -> Phase {
        self.service().assignment.phase
    }

    /// The token of whoever held it last.
    pub(crate) fn token(&self) -> Token {
        self.service().assignment.last_holder.as_ref().and_then(|holder| holder.token).expect("somebody held it")
    }

    fn owed(&self) -> Option<(Token, LeaseTerms)> {
        let holder = self.service().assignment.last_holder.as_ref()?;
        holder.token.zip(holder.lease)
    }

    pub(crate) fn record(&self) -> &Transition {
        self.world.state.transitions.values().next_back().expect("a record")
    }

    pub(crate) fn proof(&self) -> (ProofKind, Fencing) {
        let proof = self.record().proof.as_ref().expect("a proof");
        (proof.proof, proof.fencing)
    }

    pub(crate) fn tried(&self) -> Vec<&str> {
        self.record().tried.iter().map(InstanceId::as_str).collect()
    }

    pub(crate) fn steps(&self) -> Vec<&str> {
        self.record().steps.iter().map(|step| step.step.as_str()).collect()
    }
}

pub(crate) fn release(id: &str, session: Option<&str>, token: Token, leaving: bool, how: ReleaseHow) -> Command {
    Command::Release(Release {
        service: service("orders"),
        instance: instance(id),
        session: session.map(str::to_owned),
        token,
        leaving,
        how,
        reason: "its child exited with 0".to_owned(),
    })
}

pub(crate) fn ack(id: &str, session: &str, token: Token) -> Command {
    let (service, instance) = (service("orders"), instance(id));
    Command::Ack(Ack { service, instance, session: Some(session.to_owned()), token })
}
