//! What a process says of itself beside its heartbeats: that it has stopped, that it serves, that it leaves. What is not
//! answered is said again, and may so arrive late and more than once.

use std::time::Duration;

use baton_core::command::{Ack, Command, InstanceLeft, Release};
use baton_core::id::Token;
use baton_core::state::ReleaseHow;

use super::message::Ask;
use super::process::Asked;
use super::world::{World, tell};

/// How often a release, or an acknowledgement, is said again that was not answered, and how long that is waited for.
const SAYS_AGAIN: u32 = 8;
const SAY_PATIENCE: Duration = Duration::from_millis(400);

impl World {
    /// It stops of itself, and says so: it steps down, or its child has ended.
    pub(crate) fn steps_down(&mut self, at: usize, leaving: bool) {
        let Some(token) = self.processes[at].may_act(self.now) else { return };
        let Some((session, _)) = &self.processes[at].session else { return };
        let session = session.clone();
        tell!(self, "p{at} gives up token {token}{}", if leaving { " and leaves" } else { "" });
        self.say_released(at, &session, token, leaving);
        self.wake_later(at);
    }

    /// It holds nothing, and is no candidate until it heartbeats again.
    pub(crate) fn leaves(&mut self, at: usize) {
        let process = &self.processes[at];
        let Some((session, _)) = &process.session else { return };
        let (service, instance, session) = (process.name(), process.instance.clone(), session.clone());
        let left = InstanceLeft { service, instance, session, reason: "it leaves".to_owned() };
        self.say(at, Command::InstanceLeft(left), 0);
        self.wake_later(at);
    }

    pub(crate) fn say_released(&mut self, at: usize, session: &str, token: Token, leaving: bool) {
        let process = &mut self.processes[at];
        if let Some((of, holder)) = &mut process.session
            && of == session
        {
            holder.release(token);
        }
        let release = Release {
            service: process.name(),
            instance: process.instance.clone(),
            session: Some(session.to_owned()),
            token,
            leaving,
            how: ReleaseHow::Said,
            reason: "it has stopped".to_owned(),
        };
        self.say(at, Command::Release(release), SAYS_AGAIN);
        self.wake_later(at);
    }

    pub(crate) fn say_served(&mut self, at: usize, session: &str, token: Token) {
        let process = &self.processes[at];
        if process.may_act(self.now) != Some(token) {
            return;
        }
        let (service, instance) = (process.name(), process.instance.clone());
        let ack = Ack { service, instance, session: Some(session.to_owned()), token };
        self.say(at, Command::Ack(ack), SAYS_AGAIN);
        self.wake_later(at);
    }

    pub(crate) fn say(&mut self, at: usize, command: Command, again: u32) {
        let until = self.process_time(at).plus(SAY_PATIENCE);
        self.ask(at, Asked::Say { command: command.clone(), again, until }, Ask::Write(command));
    }
}
