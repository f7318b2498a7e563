//! People: they set up the services, move them about, change and delete them, at any time and without a plan. Only their
//! requests; what becomes of them is the cluster's matter.

use baton_core::command::{
    AutomationPause, AutomationResume, Command, Done, InstanceAdmin, InstanceDelete, InstanceReset, ServiceDelete,
    ServicePut,
};
use baton_core::planner::{ManualMove, ManualRequest};
use baton_core::policy::Spec;
use baton_core::state::AdminState;
use baton_core::time::Millis;

use super::clock::{MS, Micros};
use super::message::{Answer, Ask, Event, Message};
use super::net::Addr;
use super::process::service_name;
use super::seen::Sight;
use super::shape::{Act, LETTERS};
use super::world::{World, tell};

/// How long operators wait before they ask again for what must be there.
const ASK_AGAIN: Micros = 700 * MS;

impl World {
    /// The first things that happen: services are made, processes start, and things begin to break.
    pub(crate) fn begin(&mut self) {
        for service in 0..self.shape.specs.len() {
            // Until somebody leads nobody can be asked.
            for attempt in 0..8 {
                let after = attempt * 300 * MS + self.rng.below(300 * MS);
                let put = self.put_service(service, self.shape.specs[service].clone());
                self.operator_asks_at(after, Ask::Write(put));
            }
        }
        for at in 0..self.processes.len() {
            if self.processes[at].slot == 0 {
                let after = 400 * MS + self.rng.below(600 * MS);
                self.start_later(Addr::Process(at), after);
            }
        }
        let (operator, nemesis) = (self.rng.about(self.shape.operator_every), self.rng.about(self.shape.nemesis_every));
        self.plan(1_500 * MS + operator, Event::Operator);
        self.plan(1_500 * MS + nemesis, Event::Nemesis);
    }

    pub(crate) fn put_service(&self, service: usize, spec: Spec) -> Command {
        Command::ServicePut(ServicePut {
            service: service_name(service),
            spec: Box::new(spec),
            if_generation: None,
            actor: "op".to_owned(),
        })
    }

    /// Somebody asks for it after so long.
    pub(crate) fn operator_asks_at(&mut self, after: Micros, ask: Ask) {
        self.requests += 1;
        let (to, request) = (Addr::Node(self.rng.at(self.nodes.len())), self.requests);
        self.plan(after, Event::Deliver { from: Addr::Operator, to, message: Message::Ask { request, ask } });
    }

    pub(crate) fn operator_asks(&mut self, ask: Ask) {
        self.requests += 1;
        let (to, request) = (Addr::Node(self.rng.at(self.nodes.len())), self.requests);
        self.send(Addr::Operator, to, Message::Ask { request, ask });
    }

    pub(crate) fn operator_acts(&mut self) {
        if !self.shaking {
            return;
        }
        let service = self.rng.at(self.shape.specs.len());
        let ask = match self.rng.weighted(&self.shape.acts) {
            Act::Move => self.manual(service),
            Act::Spec => {
                let spec = self.shape.spec(&mut self.rng, self.shape.strict[service]);
                Ask::Write(self.put_service(service, spec))
            }
            Act::Recreate => self.recreate(service),
            Act::Deregister => Ask::Write(self.deregister(service)),
            Act::Admin => Ask::Write(self.admin(service)),
            Act::Reset => Ask::Write(self.reset(service)),
            Act::Pause => Ask::Write(self.pause(service)),
            Act::Resume => Ask::Write(self.resume_automation(service)),
            // Whoever was deleted by somebody is wanted back by somebody else.
            Act::Restore => Ask::Write(self.put_service(service, self.shape.specs[service].clone())),
        };
        tell!(self, "op asks: {}", short(&ask));
        self.operator_asks(ask);
        let after = self.rng.about(self.shape.operator_every);
        self.plan(after, Event::Operator);
    }

    fn manual(&mut self, service: usize) -> Ask {
        let to = self.rng.chance(500).then(|| self.letter(service).parse().expect("an instance id"));
        let request = ManualRequest {
            wanted: self.rng.one(&[ManualMove::Failover, ManualMove::Switchover, ManualMove::Failback]),
            to,
            reason: "because".to_owned(),
            actor: "op".to_owned(),
            // Nobody says what is not so where it would be believed.
            asserts_stopped: !self.shape.strict[service] && self.rng.chance(300),
        };
        Ask::Manual(service_name(service), request)
    }

    fn letter(&mut self, service: usize) -> &'static str {
        LETTERS[self.rng.at(self.shape.instances[service])]
    }

    /// Deletes a service, and makes it anew a moment later, or much later.
    fn recreate(&mut self, service: usize) -> Ask {
        for _ in 0..3 {
            let after = self.rng.about(ASK_AGAIN);
            let put = self.put_service(service, self.shape.specs[service].clone());
            self.operator_asks_at(after, Ask::Write(put));
        }
        let name = service_name(service);
        Ask::Write(Command::ServiceDelete(ServiceDelete { service: name, if_generation: None, actor: "op".to_owned() }))
    }

    fn deregister(&mut self, service: usize) -> Command {
        Command::InstanceDelete(InstanceDelete {
            service: service_name(service),
            instance: self.letter(service).parse().expect("an instance id"),
            if_generation: None,
            actor: "op".to_owned(),
        })
    }

    fn admin(&mut self, service: usize) -> Command {
        let states = [AdminState::Draining, AdminState::Maintenance, AdminState::Isolated, AdminState::Enabled];
        Command::InstanceAdmin(InstanceAdmin {
            service: service_name(service),
            instance: self.letter(service).parse().expect("an instance id"),
            state: self.rng.one(&states),
            reason: "because".to_owned(),
            lasts: Some(Millis(self.rng.between(200, 4_000))),
            until: None,
            actor: "op".to_owned(),
        })
    }

    fn pause(&mut self, service: usize) -> Command {
        Command::AutomationPause(AutomationPause {
            service: self.rng.chance(700).then(|| service_name(service)),
            reason: "because".to_owned(),
            owner: "op".to_owned(),
            lasts: Millis(self.rng.between(100, 3_000)),
            until: None,
            actor: "op".to_owned(),
        })
    }

    fn resume_automation(&mut self, service: usize) -> Command {
        let service = self.rng.chance(500).then(|| service_name(service));
        Command::AutomationResume(AutomationResume { service, reason: "because".to_owned(), actor: "op".to_owned() })
    }

    fn reset(&mut self, service: usize) -> Command {
        Command::InstanceReset(InstanceReset {
            service: service_name(service),
            instance: self.letter(service).parse().expect("an instance id"),
            reason: "because".to_owned(),
            actor: "op".to_owned(),
        })
    }

    pub(crate) fn operator_hears(&mut self, message: &Message) {
        if let Message::Answer { answer: Answer::Reply(Ok(Done::Started { .. } | Done::Promoted { .. })), .. } = message
        {
            self.seen.note(Sight::OperatorMoves);
        }
    }
}

fn short(ask: &Ask) -> String {
    let text = format!("{ask:?}");
    let cut = text.floor_char_boundary(160);
    text[..cut].to_owned()
}
