//! What operators say of instances, and what time brings: the ends of what was given an end.

use super::{Draft, Entry};
use crate::command::{Done, InstanceAdmin, InstanceReset, InstancesDue, Refusal, Reply};
use crate::event::EventKind;
use crate::id::{InstanceId, ServiceName};
use crate::state::{Admin, AdminState, Instance, Service};
use crate::time::{Millis, WallTime};

impl Entry<'_> {
    pub(super) fn instance_admin(&mut self, wanted: &InstanceAdmin) -> Reply {
        let InstanceAdmin { service, instance: id, state, reason, lasts, until, actor } = wanted;
        let known = self.service(service)?;
        let instance = registered(&known, id)?;
        if *state == AdminState::Maintenance && known.is_active(id) {
            return Err(Refusal::IsActive {
                service: service.clone(),
                instance: id.clone(),
                why:
                    "nobody would notice its death while it is not probed. Move the service first (POST …/switchover), \
                      or isolate the instance, which moves it"
                        .to_owned(),
            });
        }
        let (from, now, wall) = (instance.admin.state, self.now, self.wall);
        // What has an end goes back to enabled; enabled itself has nothing to go back to.
        let lasts = lasts.filter(|_| *state != AdminState::Enabled);
        // The wish was a moment on its way: the label is the one that was wished, not one a few milliseconds beside it.
        let counted = |lasts: Millis| WallTime(wall.0.saturating_add(i64::try_from(lasts.0).unwrap_or(i64::MAX)));
        let until = lasts.map(|lasts| until.unwrap_or_else(|| counted(lasts)));
        let admin = Admin {
            state: *state,
            reason: reason.clone(),
            actor: Some(actor.clone()),
            since: wall,
            at: now,
            ends: lasts.map(|lasts| now.plus(lasts)),
            until,
        };
        let end = until.map_or_else(String::new, |until| format!(" until {until}"));
        let told = format!("{actor} set it {state}{end}: {reason}");
        self.set_admin(service, id, admin, from, told, Some(actor));
        Ok(Done::Ok)
    }

    fn set_admin(
        &mut self,
        service: &ServiceName,
        id: &InstanceId,
        admin: Admin,
        from: AdminState,
        told: String,
        actor: Option<&str>,
    ) {
        let to = admin.state;
        let revision = self.emit(
            Draft::new(EventKind::InstanceAdminChanged, told)
                .service(service)
                .instance(id)
                .change(Some(from), Some(to))
                .actor(actor),
        );
        if let Some(instance) = self.instance_mut(service, id) {
            instance.admin = admin;
        }
        // What was seen before a maintenance says nothing about what comes out of it, and what is not probed has no verdicts.
        if (from == AdminState::Maintenance) != (to == AdminState::Maintenance) {
            self.start_epoch(service, id, revision);
        } else {
            self.count_instance_again(service, id, revision);
        }
    }

    pub(super) fn instance_reset(&mut self, wanted: &InstanceReset) -> Reply {
        let InstanceReset { service, instance: id, reason, actor } = wanted;
        let known = self.service(service)?;
        registered(&known, id)?;
        let told = format!("{actor} reset it (breaker, cool-down, recovery and all that was seen of it): {reason}");
        let revision =
            self.emit(Draft::new(EventKind::InstanceReset, told).service(service).instance(id).actor(Some(actor)));
        if let Some(instance) = self.instance_mut(service, id) {
            instance.recovery = None;
        }
        if let Ok(service) = self.service_mut(service)
            && service.rails.latch.take().is_some()
        {
            service.rails.moves.clear();
        }
        // A new epoch: every observer and the leader begin with empty windows, and the breaker is closed.
        self.start_epoch(service, id, revision);
        Ok(Done::Ok)
    }

    pub(super) fn instances_due(&mut self, due: &InstancesDue) -> Reply {
        for id in &due.instances {
            self.instance_due(&due.service, id)?;
        }
        for id in &due.missing {
            self.instance_missing(&due.service, id)?;
        }
        Ok(Done::Ok)
    }

    /// Removes an instance that is missing for too long, by the clock of this entry.
    fn instance_missing(&mut self, service: &ServiceName, id: &InstanceId) -> Result<(), Refusal> {
        let known = self.service(service)?;
        let Some(instance) = known.instances.get(id) else { return Ok(()) };
        if let Some(after) = instance.registration.deregister_after
            && instance.deregistered_at(&known).is_some_and(|at| self.now >= at)
        {
            let told = format!("deregistered: it was {} for longer than deregister_after ({after})", instance.health);
            self.deregister(&known, instance, &told, None)?;
        }
        Ok(())
    }

    /// Does what the time has come for, by the clock of this entry and not by the proposer's.
    fn instance_due(&mut self, service: &ServiceName, id: &InstanceId) -> Result<(), Refusal> {
        let known = self.service(service)?;
        let Some(instance) = known.instances.get(id).cloned() else { return Ok(()) };
        let now = self.now;
        if instance.admin.ends.is_some_and(|ends| now >= ends) {
            let told = format!("the time given for \"{}\" is over ({})", instance.admin.state, instance.admin.reason);
            let admin = Admin { at: now, ..Admin::enabled(self.wall) };
            self.set_admin(service, id, admin, instance.admin.state, told, None);
        }
        let half_open =
            self.instance(service, id).is_some_and(|it| it.breaker.open_until().is_some_and(|at| now >= at));
        if half_open {
            let changed = self.instance_mut(service, id).and_then(|instance| instance.breaker.elapse(now));
            self.tell_breaker(service, id, changed, None);
        }
        let recovered = |it: &Instance| it.recovery.as_ref().and_then(|recovery| recovery.due(&known.spec.recovery));
        if self.instance(service, id).and_then(recovered).is_some_and(|at| now >= at) {
            self.count_instance_again(service, id, instance.health_revision);
        }
        let forgotten = |it: &Instance| it.recovery.as_ref().and_then(|it| it.forgotten_at(&known.spec.recovery));
        if self.instance(service, id).and_then(forgotten).is_some_and(|at| now >= at)
            && let Some(instance) = self.instance_mut(service, id)
        {
            instance.recovery = None;
        }
        Ok(())
    }

    fn instance(&self, service: &ServiceName, id: &InstanceId) -> Option<&Instance> {
        self.state.instance(service, id).map(AsRef::as_ref)
    }
}

fn registered<'a>(service: &'a Service, id: &InstanceId) -> Result<&'a Instance, Refusal> {
    service
        .instances
        .get(id)
        .map(AsRef::as_ref)
        .ok_or_else(|| Refusal::NoSuchInstance { service: service.name.clone(), instance: id.clone() })
}
