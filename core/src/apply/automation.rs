//! Pauses, latches and the brake: when Baton may not move services by itself. What they hold back is decided in `rules`.

use super::verdicts::moved_on;
use super::{Draft, Entry};
use crate::command::{AutomationPause, AutomationResume, Done, Refusal, Reply};
use crate::event::EventKind;
use crate::id::ServiceName;
use crate::rules::{times, wave};
use crate::state::{Brake, Latch, Pause};
use crate::time::WallTime;

impl Entry<'_> {
    pub(super) fn automation_pause(&mut self, wanted: &AutomationPause) -> Reply {
        let AutomationPause { service, reason, owner, lasts, until, actor } = wanted;
        if let Some(name) = service {
            self.service(name)?;
        }
        let wall = self.wall;
        let counted = WallTime(wall.0.saturating_add(i64::try_from(lasts.0).unwrap_or(i64::MAX)));
        let until = until.unwrap_or(counted);
        let pause = Pause {
            reason: reason.clone(),
            owner: owner.clone(),
            actor: actor.clone(),
            since: wall,
            until,
            ends: self.now.plus(*lasts),
        };
        match service {
            Some(name) => self.service_mut(name)?.rails.pause = Some(pause),
            None => self.state.meta.pause = Some(pause),
        }
        let told = format!("{actor} paused it until {until}, {owner} answers for it: {reason}");
        self.tell_automation(EventKind::AutomationPaused, service.as_ref(), told, Some(actor));
        Ok(Done::Ok)
    }

    pub(super) fn automation_resume(&mut self, wanted: &AutomationResume) -> Reply {
        let AutomationResume { service, reason, actor } = wanted;
        let mut ended: Vec<&str> = Vec::new();
        match service {
            Some(name) => {
                self.service(name)?;
                let rails = &mut self.service_mut(name)?.rails;
                if rails.pause.take().is_some() {
                    ended.push("its pause");
                }
                if rails.latch.take().is_some() {
                    ended.push("the latch after too many moves");
                    // Whoever looked begins to count anew.
                    rails.moves.clear();
                }
            }
            None => {
                let now = self.now;
                let meta = &mut self.state.meta;
                if meta.pause.take().is_some() {
                    ended.push("the pause of all");
                }
                if meta.brake.take().is_some() {
                    ended.push("the brake");
                    meta.brake_released = now;
                }
            }
        }
        if ended.is_empty() {
            let why = match service {
                Some(name) => format!("the automation of \"{name}\" is neither paused nor latched"),
                None => "automation is neither paused nor braked".to_owned(),
            };
            return Err(Refusal::NothingToDo { why });
        }
        let told = format!("{actor} ended {}: {reason}", ended.join(" and "));
        self.tell_automation(EventKind::AutomationResumed, service.as_ref(), told, Some(actor));
        Ok(Done::Ok)
    }

    pub(super) fn automation_due(&mut self, service: Option<&ServiceName>) -> Reply {
        let now = self.now;
        let pause = match service {
            Some(name) => self.service(name)?.rails.pause.clone(),
            None => self.state.meta.pause.clone(),
        };
        let Some(pause) = pause.filter(|pause| !pause.holds(now)) else {
            return Err(moved_on("the pause"));
        };
        match service {
            Some(name) => self.service_mut(name)?.rails.pause = None,
            None => self.state.meta.pause = None,
        }
        let told = format!("the pause of {} is over: {}", pause.owner, pause.reason);
        self.tell_automation(EventKind::AutomationResumed, service, told, None);
        Ok(Done::Ok)
    }

    pub(super) fn latch_set(&mut self, name: &ServiceName) -> Reply {
        let service = self.service(name)?;
        let (now, wall) = (self.now, self.wall);
        let (max, window) = (service.spec.failover.max_in_window, service.spec.failover.window);
        let moves = service.rails.moves_within(window, now);
        if service.rails.latch.is_some() || moves < max as usize {
            return Err(moved_on(format!("how often \"{name}\" was moved")));
        }
        let moves = u32::try_from(moves).unwrap_or(u32::MAX);
        self.service_mut(name)?.rails.latch = Some(Latch { since: wall, moves, window });
        let told = format!(
            "it was moved {} within {window}, and max_in_window is {max}: no further automatic move before an \
             operator has looked and resumed it",
            times(moves as usize)
        );
        self.tell_automation(EventKind::AutomationBraked, Some(name), told, None);
        Ok(Done::Ok)
    }

    pub(super) fn brake_set(&mut self) -> Reply {
        let wave = wave(self.state, self.now);
        if self.state.meta.brake.is_some() || !wave.breaks() {
            return Err(moved_on("how many services want to fail over"));
        }
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let brake = Brake { since: self.wall, wanting: count(wave.wanting), of: count(wave.of) };
        let told = format!(
            "{} of {} services want to fail over at once: no automatic move until an operator releases the brake by a resume \
             of all",
            brake.wanting, brake.of
        );
        self.state.meta.brake = Some(brake);
        self.tell_automation(EventKind::AutomationBraked, None, told, None);
        Ok(Done::Ok)
    }

    fn tell_automation(&mut self, kind: EventKind, service: Option<&ServiceName>, told: String, actor: Option<&str>) {
        let draft = Draft::new(kind, told).actor(actor);
        self.emit(match service {
            Some(name) => draft.service(name),
            None => draft,
        });
    }
}
