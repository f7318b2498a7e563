//! Instances: registered, changed, removed.

use std::sync::Arc;

use super::verdicts::moved_on;
use super::{Draft, Entry, check_generation};
use crate::breaker::Breaker;
use crate::command::{Done, InstanceChange, InstanceDelete, InstancePut, Refusal, Reply};
use crate::event::EventKind;
use crate::id::{InstanceId, Revision, ServiceName};
use crate::policy::{Liveness, Mode, Registration};
use crate::probe::Health;
use crate::state::{Admin, Change, INSTANCES_MAX, Instance, Service, Source};

impl Entry<'_> {
    pub(super) fn instance_put(&mut self, put: &InstancePut) -> Reply {
        let service = self.service(&put.service)?;
        let known = service.instances.get(&put.instance).cloned();
        check_generation(put.if_generation, known.as_ref().map_or(0, |instance| instance.generation))?;
        // Whoever heartbeats gets a new session with every PUT: one incarnation, one session. Nobody else has one.
        let session = match put.registration.liveness {
            Liveness::Heartbeat => Some(put.session.clone()),
            Liveness::Probe => None,
        };
        match known {
            None => {
                if service.instances.len() >= INSTANCES_MAX {
                    let what = "instances of a service".to_owned();
                    return Err(Refusal::LimitReached { what, limit: INSTANCES_MAX as u64 });
                }
                self.instance_create(put, session, service.instances.is_empty())
            }
            Some(instance) if session.is_none() && instance.registration == *put.registration => {
                Ok(Done::Stored { created: false, generation: instance.generation, session: None })
            }
            Some(instance) => {
                if service.spec.mode == Mode::ActiveActive && is_reprobed(&instance.registration, &put.registration) {
                    // What was registered before may still work, by the liveness it had.
                    self.remember_who_served(&put.service, std::iter::once(&instance))?;
                }
                self.instance_update(put, session, &instance)
            }
        }
    }

    /// Changes a registration without a new session: whoever is active stays it, with its token and its lease.
    pub(super) fn instance_change(&mut self, change: &InstanceChange) -> Reply {
        let InstanceChange { service: name, instance: id, registration: new, if_generation, actor } = change;
        let service = self.service(name)?;
        let Some(old) = service.instances.get(id).cloned() else {
            return Err(Refusal::NoSuchInstance { service: name.clone(), instance: id.clone() });
        };
        check_generation(Some(*if_generation), old.generation)?;
        if new.liveness != old.registration.liveness {
            return Err(moved_on(format!("how the life of \"{id}\" shows")));
        }
        if old.registration == **new {
            return Ok(Done::Stored { created: false, generation: old.generation, session: old.session.clone() });
        }
        let reprobed = is_reprobed(&old.registration, new);
        if service.spec.mode == Mode::ActiveActive && reprobed {
            self.remember_who_served(name, std::iter::once(&old))?;
        }
        let what =
            if reprobed { "another address or other checks: it is probed anew" } else { "nothing that is probed" };
        let reason = format!("{actor} changed what is said of \"{id}\": {what}");
        let revision =
            self.emit(Draft::new(EventKind::InstanceUpdated, reason).service(name).instance(id).actor(Some(actor)));
        let generation = old.generation + 1;
        if let Some(instance) = self.instance_mut(name, id) {
            instance.registration = (**new).clone();
            instance.generation = generation;
        }
        if reprobed {
            self.start_epoch(name, id, revision);
        }
        Ok(Done::Stored { created: false, generation, session: old.session.clone() })
    }

    fn instance_create(&mut self, put: &InstancePut, session: Option<String>, first: bool) -> Reply {
        let instance = Instance {
            id: put.instance.clone(),
            registration: (*put.registration).clone(),
            generation: 1,
            epoch: self.next_revision(),
            registered_at: self.wall,
            session: session.clone(),
            verdicts: imbl::OrdMap::new(),
            health: Health::Unknown,
            health_since: self.now,
            health_revision: self.next_revision(),
            first_failure: None,
            suspect_since: None,
            judged: imbl::OrdMap::new(),
            breaker: Breaker::closed(self.now),
            recovery: None,
            admin: Admin::enabled(self.wall),
            left: false,
        };
        let now = self.now;
        let service = self.service_mut(&put.service)?;
        if first {
            service.populated_at = now;
        }
        service.instances.insert(put.instance.clone(), Arc::new(instance));
        self.changes.insert(Change::Instance(put.service.clone(), put.instance.clone()));
        let place =
            put.registration.address.as_ref().map_or_else(|| "without an address".to_owned(), |a| format!("at {a}"));
        let reason = format!("{} registered \"{}\" {place}", put.actor, put.instance);
        self.emit(
            Draft::new(EventKind::InstanceRegistered, reason)
                .service(&put.service)
                .instance(&put.instance)
                .actor(Some(&put.actor)),
        );
        Ok(Done::Stored { created: true, generation: 1, session })
    }

    fn instance_update(&mut self, put: &InstancePut, session: Option<String>, old: &Instance) -> Reply {
        let generation = old.generation + 1;
        let new = &*put.registration;
        let reprobed = is_reprobed(&old.registration, new);
        let what = match (&session, reprobed) {
            (Some(_), _) => "in a new session",
            (None, true) => "with another address, checks or liveness: it is probed anew",
            (None, false) => "without a change to what is probed",
        };
        let reason = format!("{} registered \"{}\" again, {what}", put.actor, put.instance);
        let revision = self.emit(
            Draft::new(EventKind::InstanceUpdated, reason.clone())
                .service(&put.service)
                .instance(&put.instance)
                .actor(Some(&put.actor)),
        );
        if let Some(instance) = self.instance_mut(&put.service, &put.instance) {
            instance.registration = new.clone();
            instance.generation = generation;
            instance.session.clone_from(&session);
            instance.left = false;
        }
        if reprobed {
            self.start_epoch(&put.service, &put.instance, revision);
        } else if session.is_some() {
            self.start_session(&put.service, &put.instance, revision);
        }
        if session != old.session {
            self.end_session(&put.service, &put.instance, &reason, revision);
        }
        Ok(Done::Stored { created: false, generation, session })
    }

    pub(super) fn instance_delete(&mut self, delete: &InstanceDelete) -> Reply {
        let service = self.service(&delete.service)?;
        let Some(instance) = service.instances.get(&delete.instance) else {
            return Err(Refusal::NoSuchInstance { service: delete.service.clone(), instance: delete.instance.clone() });
        };
        check_generation(delete.if_generation, instance.generation)?;
        let reason = format!("{} deregistered \"{}\"", delete.actor, delete.instance);
        self.deregister(&service, instance, &reason, Some(&delete.actor))?;
        Ok(Done::Ok)
    }

    /// Removes an instance of `service`; if it is the active, the service has none from here on.
    pub(super) fn deregister(
        &mut self,
        service: &Service,
        instance: &Arc<Instance>,
        reason: &str,
        actor: Option<&str>,
    ) -> Result<(), Refusal> {
        self.service_mut(&service.name)?.instances.remove(&instance.id);
        self.changes.insert(Change::Instance(service.name.clone(), instance.id.clone()));
        let revision = self.emit(
            Draft::new(EventKind::InstanceDeregistered, reason)
                .service(&service.name)
                .instance(&instance.id)
                .actor(actor),
        );
        if service.spec.mode == Mode::ActiveActive {
            self.remember_who_served(&service.name, std::iter::once(instance))?;
        }
        if service.is_active(&instance.id) {
            self.vacate(&service.name, reason, actor, Some(revision))?;
        }
        Ok(())
    }

    /// Another incarnation heartbeats from now on: it has shown no sign of life yet, and the patience with it begins anew.
    fn start_session(&mut self, service: &ServiceName, id: &InstanceId, cause: Revision) {
        if let Some(instance) = self.instance_mut(service, id) {
            instance.judged.remove(&Source::Heartbeats);
        }
        self.count_instance_again(service, id, cause);
        let now = self.now;
        if let Some(instance) = self.instance_mut(service, id) {
            match instance.health {
                Health::Unknown | Health::Unhealthy => instance.health_since = now,
                Health::Healthy | Health::Suspect | Health::Isolated => {}
            }
        }
    }

    /// Something else is looked at from now on: what was held is about something that is no longer there.
    pub(super) fn start_epoch(&mut self, service: &ServiceName, id: &InstanceId, cause: Revision) {
        if let Some(instance) = self.instance_mut(service, id) {
            instance.epoch = cause;
            instance.verdicts = imbl::OrdMap::new();
            instance.judged = imbl::OrdMap::new();
        }
        // Calls that are still under way were made to what is no longer there: their generation is over.
        let now = self.now;
        let changed = self.instance_mut(service, id).and_then(|instance| instance.breaker.reset(now));
        self.tell_breaker(service, id, changed, Some(cause));
        self.count_instance_again(service, id, cause);
    }
}

/// Whether another thing is probed, or judged by other signs of life.
fn is_reprobed(old: &Registration, new: &Registration) -> bool {
    new.address != old.address || new.overrides.checks != old.overrides.checks || new.liveness != old.liveness
}
