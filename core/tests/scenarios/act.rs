//! What each line does to the world of a story. What follows from it is `story`'s.

use std::sync::Arc;

use baton_core::command::{Command, InstanceAdmin, InstanceDelete, InstancePut, InstanceReset, ServicePut};
use baton_core::detector::HeartbeatState;
use baton_core::id::{InstanceId, NodeId};
use baton_core::planner::{Facts, ManualRequest, plan_manual, plan_service};
use baton_core::state::{Instance, Service};

use super::directive::{Directive, Fate, Nodes, Told, Which};
use super::judge;
use super::observer::Observer;
use super::story::{EACH_SECOND, Result, Story};
use super::tell;
use crate::support::announce;

impl Story {
    pub(super) fn act(&mut self, what: &Directive) -> Result {
        match what {
            Directive::Nodes(count) => {
                for node in self.nodes.len() as u64 + 1..=*count {
                    self.nodes.insert(node, Observer::new(node));
                    self.propose(announce(node))?;
                }
                Ok(())
            }
            Directive::Service(service, spec) => {
                self.name = Some(service.clone());
                let (service, spec, actor) = (service.clone(), spec.clone(), "alice".to_owned());
                self.propose(Command::ServicePut(ServicePut { service, spec, if_generation: None, actor }))
            }
            Directive::Instance(id, registration) => {
                self.sessions += 1;
                let put = InstancePut {
                    service: self.service()?.name.clone(),
                    instance: id.clone(),
                    registration: registration.clone(),
                    session: format!("session-{}", self.sessions),
                    if_generation: None,
                    actor: "alice".to_owned(),
                };
                self.propose(Command::InstancePut(put))
            }
            Directive::Deregister(id) => {
                let (service, actor) = (self.service()?.name.clone(), "alice".to_owned());
                let delete = InstanceDelete { service, instance: id.clone(), if_generation: None, actor };
                self.propose(Command::InstanceDelete(delete))
            }
            Directive::See(nodes, which, seen, late) => {
                let now = self.log.now;
                let ids = self.instances(which)?;
                for node in self.observing(nodes)? {
                    for id in &ids {
                        let Some(observer) = self.nodes.get_mut(&node) else { continue };
                        let told = observer.see(id, seen, *late, now)?;
                        // Whoever does not observe it is no part of "all".
                        let told = told.into_iter().filter(|_| *nodes != Nodes::All || self.observes(node, id));
                        let told: Vec<String> = told.collect();
                        told.into_iter().for_each(|line| self.teller.remark(now, line));
                    }
                    self.settle()?;
                }
                Ok(())
            }
            Directive::FromNowSee(nodes, which, seen) => {
                let now = self.log.now;
                let ids = self.instances(which)?;
                for node in self.observing(nodes)? {
                    for id in &ids {
                        self.nodes.entry(node).and_modify(|observer| observer.set_weather(id, seen, now));
                    }
                }
                Ok(())
            }
            Directive::Node(node, fate) => self.fate(*node, fate),
            Directive::Calls(id, generation, told) => {
                self.instance(id)?;
                self.told(id, told, *generation)
            }
            Directive::FromNowCalls(id, calls) => {
                self.instance(id)?;
                let at = self.log.now.plus(EACH_SECOND);
                let habit = self.habits.entry(id.clone()).or_default();
                (habit.calls, habit.calls_at) = (calls.clone(), at);
                Ok(())
            }
            Directive::TrialCall(id, generation) => {
                let before = self.instance(id)?;
                self.propose(judge::trial(&*self.service()?, &before, *generation))?;
                let breaker = &self.instance(id)?.breaker;
                if breaker.trials != before.breaker.trials {
                    let now = self.log.now;
                    let out = breaker.trials_out(&self.service()?.spec.breaker, now);
                    self.teller.remark(now, format!("granted: {out} trial calls are out"));
                }
                Ok(())
            }
            Directive::Beat(id, state) => self.beat(id, state),
            Directive::FromNowBeat(id, every) => {
                self.instance(id)?;
                let at = self.log.now.plus(every.unwrap_or_default());
                let habit = self.habits.entry(id.clone()).or_default();
                let agreed = habit.agreed;
                (habit.every, habit.agreed, habit.beat_at) = (*every, every.or(agreed), at);
                if habit.agreed != agreed {
                    // Whoever judges begins with the interval that was agreed.
                    self.judges.remove(id);
                }
                Ok(())
            }
            Directive::Admin { actor, instance, state, lasts, reason } => {
                let admin = InstanceAdmin {
                    service: self.service()?.name.clone(),
                    instance: instance.clone(),
                    state: *state,
                    reason: reason.clone(),
                    lasts: *lasts,
                    until: None,
                    actor: actor.clone(),
                };
                self.propose(Command::InstanceAdmin(admin))
            }
            Directive::Reset { actor, instance, reason } => {
                let (service, instance) = (self.service()?.name.clone(), instance.clone());
                let (reason, actor) = (reason.clone(), actor.clone());
                self.propose(Command::InstanceReset(InstanceReset { service, instance, reason, actor }))
            }
            Directive::Move { actor, wanted, to, asserting, reason } => {
                let request = ManualRequest {
                    wanted: *wanted,
                    to: to.clone(),
                    reason: reason.clone(),
                    actor: actor.clone(),
                    asserts_stopped: *asserting,
                };
                let (state, seed) = (&self.log.state, self.log.state.meta.revision);
                match plan_manual(state, &self.service()?.name, &request, &Facts::default(), self.log.now, seed) {
                    Ok(plan) => plan.command.map_or(Ok(()), |command| self.propose(command)),
                    Err(refusal) => {
                        self.teller.remark(self.log.now, format!("refused ({}): {refusal}", refusal.code()));
                        Ok(())
                    }
                }
            }
            Directive::Wait(length) => self.wait_until(self.log.now.plus(*length)),
            Directive::Jump(length) => {
                self.log.now = self.log.now.plus(*length);
                let now = self.log.now;
                // Each finds that it stood still, as the daemon does.
                self.nodes.values_mut().for_each(|observer| observer.stood_still(now));
                self.judges.values_mut().for_each(|judge| judge.forgive(now));
                self.happen()?;
                self.settle()
            }
            Directive::Again => {
                let last = self.last.clone().ok_or("there is no last log entry")?;
                self.propose(last)
            }
            Directive::Show(which) => {
                let service = self.service()?;
                for id in self.instances(which)? {
                    let lines = tell::instance(&self.log.state, &service, &*self.instance(&id)?, self.log.now);
                    lines.into_iter().for_each(|line| self.teller.remark(self.log.now, line));
                }
                Ok(())
            }
            Directive::Explain => {
                let service = self.service()?;
                let plan = plan_service(
                    &self.log.state,
                    &service,
                    &Facts::default(),
                    self.log.now,
                    self.log.state.meta.revision,
                );
                let report = plan.report;
                self.teller.remark(self.log.now, format!("{}: {}", report.decision, report.summary));
                for gate in report.gates {
                    self.teller.remark(self.log.now, format!("   {} {}: {}", gate.verdict, gate.gate, gate.why));
                }
                for candidate in report.candidates {
                    let failed = candidate.rules.iter().find(|rule| !rule.pass);
                    let why = failed.map_or_else(|| "may be promoted".to_owned(), |rule| rule.why.clone());
                    self.teller.remark(self.log.now, format!("   candidate {}: {why}", candidate.instance));
                }
                Ok(())
            }
            Directive::Observers(id) => {
                let (service, instance) = (self.service()?, self.instance(id)?);
                let nodes: Vec<String> =
                    self.log.state.observers_of(&service, &instance).iter().map(ToString::to_string).collect();
                self.teller.remark(self.log.now, format!("{id} is observed by nodes {}", nodes.join(", ")));
                Ok(())
            }
            Directive::Weights => {
                let line = tell::weights(&*self.service()?, self.log.now);
                self.teller.remark(self.log.now, line);
                Ok(())
            }
        }
    }

    fn fate(&mut self, node: NodeId, fate: &Fate) -> Result {
        let now = self.log.now;
        let leader = self.leader;
        let observer = self.nodes.get_mut(&node).ok_or_else(|| format!("there is no node {node}"))?;
        match fate {
            Fate::RunsLate(length) => observer.lag = *length,
            Fate::FallsSilent | Fate::StandsStill if node == leader => {
                return Err("the leader: let another node lead first, or write `jump`".to_owned());
            }
            Fate::FallsSilent => {
                observer.silent_since = Some(now);
                observer.lose_sight(now);
            }
            Fate::IsHeardAgain => {
                observer.silent_since = None;
                observer.look_again(now);
            }
            Fate::StandsStill => {
                observer.silent_since = Some(now);
                observer.stopped = true;
            }
            Fate::GoesOn => {
                observer.silent_since = None;
                observer.stopped = false;
                observer.stood_still(now);
                observer.look_again(now);
                // The first that it does is what it meant to do when it was stopped.
                let told = observer.run(now);
                told.into_iter().for_each(|line| self.teller.remark(now, line));
            }
            Fate::MessagesHeld => observer.held = Some(Vec::new()),
            Fate::MessagesArrive => {
                for record in observer.held.take().unwrap_or_default() {
                    self.propose(Command::VerdictsRecord(record))?;
                }
                self.nodes.entry(node).and_modify(Observer::speak_anew);
            }
            Fate::Leads => {
                (self.leader, self.leads_since) = (node, now);
                // What the leader before had heard, this one has not.
                self.judges.clear();
            }
        }
        Ok(())
    }

    pub(super) fn told(&mut self, id: &InstanceId, told: &[Told], generation: Option<u64>) -> Result {
        let (now, instance) = (self.log.now, self.instance(id)?);
        self.sync_judges()?;
        let judge = self.judges.get_mut(id).ok_or("nobody judges it")?;
        if let Some(late) = judge.calls(&judge::slice(told), generation, &instance, now) {
            self.teller.remark(now, late);
        }
        Ok(())
    }

    pub(super) fn beat(&mut self, id: &InstanceId, state: &str) -> Result {
        let state = HeartbeatState::ALL.iter().find(|(word, _)| *word == state).map(|(_, state)| *state);
        let state = state.ok_or("a heartbeat says ok, degraded or failing")?;
        self.instance(id)?;
        self.sync_judges()?;
        let now = self.log.now;
        self.judges.get_mut(id).ok_or("nobody judges it")?.beat(state, now)
    }

    // -- Who is meant -----------------------------------------------------------------------------------------------

    pub(super) fn service(&self) -> Result<Arc<Service>> {
        let name = self.name.as_ref().ok_or("there is no service yet")?;
        self.log.state.service(name).cloned().ok_or_else(|| format!("there is no service {name}"))
    }

    pub(super) fn instance(&self, id: &InstanceId) -> Result<Arc<Instance>> {
        self.service()?.instances.get(id).cloned().ok_or_else(|| format!("there is no instance {id}"))
    }

    fn instances(&self, which: &Which) -> Result<Vec<InstanceId>> {
        match which {
            Which::Everything => Ok(self.service()?.instances.keys().cloned().collect()),
            Which::These(ids) => {
                ids.iter().try_for_each(|id| self.instance(id).map(|_| ()))?;
                Ok(ids.clone())
            }
        }
    }

    fn observing(&self, nodes: &Nodes) -> Result<Vec<NodeId>> {
        match nodes {
            Nodes::All => Ok(self.nodes.keys().copied().collect()),
            Nodes::These(nodes) => {
                let unknown = nodes.iter().find(|node| !self.nodes.contains_key(node));
                unknown.map_or_else(|| Ok(nodes.clone()), |node| Err(format!("there is no node {node}")))
            }
        }
    }

    fn observes(&self, node: NodeId, id: &InstanceId) -> bool {
        let (Ok(service), Ok(instance)) = (self.service(), self.instance(id)) else { return false };
        self.log.state.observers_of(&service, &instance).contains(&node)
    }
}

impl Directive {
    /// Whether something should come of it, so that it is worth telling where nothing does.
    pub(super) fn acts(&self) -> bool {
        match self {
            Self::Nodes(_)
            | Self::Service(..)
            | Self::Instance(..)
            | Self::Deregister(_)
            | Self::See(..)
            | Self::Calls(..)
            | Self::TrialCall(..)
            | Self::Beat(..)
            | Self::Admin { .. }
            | Self::Reset { .. }
            | Self::Move { .. }
            | Self::Wait(_)
            | Self::Jump(_)
            | Self::Again => true,
            Self::FromNowSee(..)
            | Self::Node(..)
            | Self::FromNowCalls(..)
            | Self::FromNowBeat(..)
            | Self::Show(_)
            | Self::Explain
            | Self::Observers(_)
            | Self::Weights => false,
        }
    }
}
