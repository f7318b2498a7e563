//! What operators, clients and time do to a `World`, beside what observers say.

use baton_core::breaker::{Breaker, BreakerState};
use baton_core::calls::BreakerNumbers;
use baton_core::command::{
    BreakerTried, BreakerTrip, Command, InstanceAdmin, InstanceReset, Judgement, JudgementsRecord, Reply, TrialGrant,
};
use baton_core::planner::instances_due;
use baton_core::probe::{Evidence, FailureClass, Health, Verdict};
use baton_core::state::{AdminState, Instance, Source};
use baton_core::time::Millis;

use super::{World, instance, service};

impl World {
    pub fn at(&self, name: &str, id: &str) -> &Instance {
        self.state.instance(&service(name), &instance(id)).expect("the instance is registered")
    }

    pub fn health(&self, id: &str) -> Health {
        self.at("orders", id).health
    }

    pub fn breaker(&self, id: &str) -> &Breaker {
        &self.at("orders", id).breaker
    }

    /// Lets `length` pass, and does what has come due by then, as a leader does: at the very time, and again until nothing
    /// is.
    pub fn pass(&mut self, length: Millis) {
        let end = self.now.plus(length);
        for _ in 0..1_000 {
            let due = instances_due(self.service("orders"), self.now, Millis::secs(3_600));
            match (due.command, due.wake_at) {
                (Some(command), _) => {
                    self.must(command);
                }
                (None, Some(at)) if at <= end => self.now = at,
                (None, _) => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("what is due never ends");
    }

    /// The instance fails and is well again, by the word of all observers.
    pub fn fall_and_rise(&mut self, id: &str) {
        self.everyone_says("orders", id, Verdict::Down);
        self.everyone_says("orders", id, Verdict::Up);
    }

    pub fn admin(&mut self, id: &str, state: AdminState, lasts: Option<Millis>) -> Reply {
        self.send(admin("orders", id, state, lasts))
    }

    pub fn reset(&mut self, id: &str) -> Reply {
        self.send(reset("orders", id))
    }

    pub fn judge(&mut self, id: &str, source: Source, verdict: Verdict) -> Reply {
        let epoch = self.at("orders", id).epoch;
        self.send(judgement("orders", id, epoch, source, verdict))
    }

    /// As many calls failed in a row, says one who saw this generation.
    pub fn trip(&mut self, id: &str, generation: u64, failures: u64) -> Reply {
        self.send(trip("orders", id, generation, failures))
    }

    pub fn tried(&mut self, id: &str, generation: u64, good: u64, bad: u64) -> Reply {
        self.send(tried("orders", id, generation, good, bad))
    }

    /// Calls whose callers had not asked went well.
    pub fn tried_unasked(&mut self, id: &str, generation: u64, good: u64) -> Reply {
        let (service, instance) = (service("orders"), instance(id));
        let tried = BreakerTried { service, instance, generation, numbers: numbers(good, 0), granted: 0 };
        self.send(Command::BreakerTried(tried))
    }

    pub fn grant(&mut self, id: &str, generation: u64) -> Reply {
        self.send(grant("orders", id, generation))
    }

    /// The instance's breaker opens, its time passes, and it is half open.
    pub fn half_open(&mut self, id: &str) {
        let generation = self.breaker(id).generation;
        self.trip(id, generation, 5).expect("it opens");
        let length = self.breaker(id).open_for;
        self.pass(length);
        assert_eq!(self.breaker(id).state, BreakerState::HalfOpen);
    }
}

pub fn admin(name: &str, id: &str, state: AdminState, lasts: Option<Millis>) -> Command {
    Command::InstanceAdmin(InstanceAdmin {
        service: service(name),
        instance: instance(id),
        state,
        reason: "new disks".to_owned(),
        lasts,
        until: None,
        actor: "alice".to_owned(),
    })
}

pub fn reset(name: &str, id: &str) -> Command {
    Command::InstanceReset(InstanceReset {
        service: service(name),
        instance: instance(id),
        reason: "the switch was repaired".to_owned(),
        actor: "alice".to_owned(),
    })
}

pub fn judgement(name: &str, id: &str, epoch: u64, source: Source, verdict: Verdict) -> Command {
    let evidence = Evidence {
        check: source.to_string(),
        class: None,
        detail: "30 % of 100 calls failed".to_owned(),
        streak: 0,
        first_failure_age: None,
    };
    Command::JudgementsRecord(JudgementsRecord {
        judgements: vec![Judgement {
            service: service(name),
            instance: instance(id),
            epoch,
            source,
            verdict,
            evidence,
        }],
    })
}

fn numbers(good: u64, bad: u64) -> BreakerNumbers {
    let class = (bad > 0).then_some(FailureClass::ServerError);
    BreakerNumbers { consecutive_failures: bad, calls: good + bad, failures: bad, class }
}

pub fn trip(name: &str, id: &str, generation: u64, failures: u64) -> Command {
    let (service, instance) = (service(name), instance(id));
    Command::BreakerTrip(BreakerTrip { service, instance, generation, numbers: numbers(3, failures) })
}

pub fn tried(name: &str, id: &str, generation: u64, good: u64, bad: u64) -> Command {
    let (service, instance) = (service(name), instance(id));
    Command::BreakerTried(BreakerTried { service, instance, generation, numbers: numbers(good, bad), granted: good })
}

pub fn grant(name: &str, id: &str, generation: u64) -> Command {
    Command::TrialGrant(TrialGrant { service: service(name), instance: instance(id), generation })
}
