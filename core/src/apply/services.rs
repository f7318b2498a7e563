//! Services: created, changed, removed.

use std::sync::Arc;

use super::{Draft, Entry, check_generation};
use crate::command::{Done, Refusal, Reply, ServiceDelete, ServicePut};
use crate::event::EventKind;
use crate::id::InstanceId;
use crate::policy::Mode;
use crate::state::{Assignment, Change, Phase, Rails, SERVICES_MAX, Service};

impl Entry<'_> {
    pub(super) fn service_put(&mut self, put: &ServicePut) -> Reply {
        let known = self.state.services.get(&put.service).cloned();
        check_generation(put.if_generation, known.as_ref().map_or(0, |service| service.generation))?;
        match known {
            None => self.service_create(put),
            Some(service) if *service.spec == *put.spec => {
                Ok(Done::Stored { created: false, generation: service.generation, session: None })
            }
            Some(service) => self.service_update(put, &service),
        }
    }

    fn service_create(&mut self, put: &ServicePut) -> Reply {
        if self.state.services.len() >= SERVICES_MAX {
            return Err(Refusal::LimitReached { what: "services in a cluster".to_owned(), limit: SERVICES_MAX as u64 });
        }
        // Whoever may still act under what was deleted by this name comes first.
        let last_holder = self.take_debt(&put.service);
        let service = Service {
            name: put.service.clone(),
            spec: Arc::new((*put.spec).clone()),
            generation: 1,
            created_at: self.wall,
            updated_at: self.wall,
            changed: self.next_revision(),
            assignment: Assignment { phase: Phase::Vacant, active: None, transition: None, last_holder },
            rails: Rails::default(),
            populated_at: self.now,
            instances: imbl::OrdMap::new(),
        };
        self.state.services.insert(put.service.clone(), Arc::new(service));
        self.ask_the_lease_first(&put.service);
        let reason = format!("{} created service \"{}\" ({})", put.actor, put.service, put.spec.mode);
        self.emit(Draft::new(EventKind::ServiceCreated, reason).service(&put.service).actor(Some(&put.actor)));
        Ok(Done::Stored { created: true, generation: 1, session: None })
    }

    fn service_update(&mut self, put: &ServicePut, old: &Service) -> Reply {
        let generation = old.generation + 1;
        let wall = self.wall;
        let service = self.service_mut(&put.service)?;
        service.spec = Arc::new((*put.spec).clone());
        service.generation = generation;
        service.updated_at = wall;
        let reason = format!("{} changed the spec of \"{}\" to generation {generation}", put.actor, put.service);
        let revision =
            self.emit(Draft::new(EventKind::ServiceUpdated, reason).service(&put.service).actor(Some(&put.actor)));

        if put.spec.mode == Mode::ActiveActive && old.spec.mode == Mode::ActivePassive {
            self.vacate(&put.service, "the service became active_active", Some(&put.actor), Some(revision))?;
        }
        if put.spec.mode == Mode::ActivePassive && old.spec.mode == Mode::ActiveActive {
            self.remember_who_served(&put.service, old.instances.values())?;
        }
        self.ask_the_lease_first(&put.service);
        if put.spec.checks != old.spec.checks {
            let reprobed: Vec<InstanceId> = old
                .instances
                .values()
                .filter(|instance| instance.registration.overrides.checks.is_none())
                .map(|instance| instance.id.clone())
                .collect();
            for instance in reprobed {
                self.start_epoch(&put.service, &instance, revision);
            }
        }
        // The quorum, the observers, the combination, the recovery's delay: whatever health is counted by.
        if put.spec.detection != old.spec.detection || put.spec.recovery != old.spec.recovery {
            self.count_service_again(&put.service, revision);
        }
        Ok(Done::Stored { created: false, generation, session: None })
    }

    pub(super) fn service_delete(&mut self, delete: &ServiceDelete) -> Reply {
        let service = self.service(&delete.service)?;
        check_generation(delete.if_generation, service.generation)?;
        let reason = format!("{} deleted service \"{}\"", delete.actor, delete.service);
        self.keep_debt(&service)?;
        self.vacate(&delete.service, &reason, Some(&delete.actor), None)?;
        for instance in service.instances.keys() {
            self.changes.insert(Change::Instance(delete.service.clone(), instance.clone()));
        }
        self.state.services.remove(&delete.service);
        self.changes.insert(Change::Service(delete.service.clone()));
        self.emit(Draft::new(EventKind::ServiceDeleted, reason).service(&delete.service).actor(Some(&delete.actor)));
        Ok(Done::Ok)
    }
}
