//! A leader that looks at its services as time goes by, and what its reports say.

use std::collections::BTreeMap;

use baton_core::command::{Ack, AutomationPause, AutomationResume, Command, Refusal, Reply};
use baton_core::id::Token;
use baton_core::planner::{
    Decision, Facts, Gate, GateVerdict, ManualMove, ManualPlan, ManualRequest, ServicePlan, ServiceReport,
    instances_due, pauses_due, plan_manual, plan_service,
};
use baton_core::probe::Verdict;
use baton_core::time::{ClusterTime, Millis};

use crate::support::{World, instance, service};

/// Commands after which a leader that never comes to rest is taken for mad.
const STEPS_MAX: usize = 500;

impl World {
    /// What a leader plans that knows these lags beside the log.
    pub(crate) fn plan_knowing(&self, name: &str, lags: &[(&str, u64)]) -> ServicePlan {
        let lags: BTreeMap<_, _> = lags.iter().map(|(id, lag)| (instance(id), *lag)).collect();
        let facts = Facts { lags, ..Facts::default() };
        plan_service(&self.state, self.service(name), &facts, self.now, 7)
    }

    pub(crate) fn report(&self, name: &str) -> ServiceReport {
        self.plan(name).report
    }

    pub(crate) fn decision(&self, name: &str) -> Decision {
        self.report(name).decision
    }

    /// The gate of that word; there must be one, and only one.
    pub(crate) fn the_gate(&self, name: &str, gate: &str) -> Gate {
        let mut found = self.report(name).gates.into_iter().filter(|it| it.gate == gate);
        let one = found.next().unwrap_or_else(|| panic!("{name} has no gate {gate}: {:?}", self.report(name).gates));
        assert_eq!(found.next(), None, "asked once, told once");
        one
    }

    /// The words of the gates that hold.
    pub(crate) fn holds(&self, name: &str) -> Vec<String> {
        let gates = self.report(name).gates;
        gates.into_iter().filter(|it| it.verdict == GateVerdict::Hold).map(|it| it.gate).collect()
    }

    /// Lets `length` pass while a leader looks after every service: at each moment at which something may have changed, and
    /// at no other.
    pub(crate) fn play(&mut self, length: Millis) {
        let end = self.now.plus(length);
        for _ in 0..STEPS_MAX {
            let mut commands = pauses_due(&self.state, self.now);
            let mut wakes: Vec<ClusterTime> = Vec::new();
            for held in self.state.services.values() {
                let plan = plan_service(&self.state, held, &Facts::default(), self.now, 7);
                let due = instances_due(held, self.now, Millis::secs(3_600));
                wakes.extend([plan.wake_at, due.wake_at].into_iter().flatten());
                wakes.extend(held.rails.pause.as_ref().map(|pause| pause.ends));
                commands.extend(plan.command.into_iter().chain(due.command));
            }
            wakes.extend(self.state.meta.pause.as_ref().map(|pause| pause.ends));
            match (commands.into_iter().next(), wakes.into_iter().min()) {
                (Some(command), _) => {
                    self.must(command);
                }
                (None, Some(at)) if at <= end => {
                    assert!(at > self.now, "a leader that is woken for the past looks for ever");
                    self.now = at;
                }
                (None, _) => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the leader does not come to rest");
    }

    /// Who is active in `orders`.
    pub(crate) fn who(&self) -> Option<String> {
        self.active("orders").map(|(id, _)| id)
    }

    pub(crate) fn down(&mut self, id: &str) {
        self.everyone_says("orders", id, Verdict::Down);
    }

    pub(crate) fn up(&mut self, id: &str) {
        self.everyone_says("orders", id, Verdict::Up);
    }

    pub(crate) fn moves(&self) -> usize {
        self.service("orders").rails.moves.len()
    }

    pub(crate) fn ask(&self, wanted: ManualMove, to: Option<&str>) -> Result<ManualPlan, Refusal> {
        self.ask_of("orders", wanted, to, &Facts::default())
    }

    pub(crate) fn ask_of(
        &self,
        name: &str,
        wanted: ManualMove,
        to: Option<&str>,
        facts: &Facts,
    ) -> Result<ManualPlan, Refusal> {
        let request = ManualRequest {
            wanted,
            to: to.map(instance),
            reason: "it is wanted elsewhere".to_owned(),
            actor: "alice".to_owned(),
            asserts_stopped: false,
        };
        plan_manual(&self.state, &service(name), &request, facts, self.now, 7)
    }

    /// An operator asks, and it is done.
    pub(crate) fn asked(&mut self, wanted: ManualMove, to: Option<&str>) {
        let plan = self.ask(wanted, to).expect("an operator may");
        self.must(plan.command.expect("there is something to do"));
    }

    pub(crate) fn pause(&mut self, of: Option<&str>, lasts: Millis) {
        self.must(Command::AutomationPause(AutomationPause {
            service: of.map(service),
            reason: "new switches".to_owned(),
            owner: "net-team".to_owned(),
            lasts,
            until: None,
            actor: "alice".to_owned(),
        }));
    }

    pub(crate) fn resume(&mut self, of: Option<&str>) -> Reply {
        self.send(Command::AutomationResume(AutomationResume {
            service: of.map(service),
            reason: "it was looked at".to_owned(),
            actor: "bob".to_owned(),
        }))
    }

    pub(crate) fn ack(&mut self, id: &str, token: u64) -> Reply {
        self.send(Command::Ack(Ack {
            service: service("orders"),
            instance: instance(id),
            session: None,
            token: Token(token),
        }))
    }
}

/// `orders` as ever, where Baton may move it as often as it likes, unless `change` says otherwise.
pub(crate) fn free(change: impl FnOnce(&mut baton_core::policy::Spec)) -> World {
    let mut world = World::orders();
    world.put_service("orders", |spec| {
        spec.failover.min_interval = Millis::ZERO;
        change(spec);
    });
    world
}
