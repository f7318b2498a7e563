//! What a supervisor decides: when the child is started, told to stop, killed, when its token is given back, and how it all
//! ends. A machine of inputs and outputs, with `now` as an argument: no clock, no process, no request may enter.
//!
//! The rule above all others: no process of the child's group lives beyond the lease. TERM comes a grace and a margin before
//! its end, KILL a margin before; a token is given back only when the group is empty.

use std::time::Duration;

use baton_client::{Release, SessionEvent, SessionOver};
use baton_core::id::Token;
use baton_core::probe::LocalTime;
use rustix::process::Signal;

use super::rules::{AckBy, Restart, Rules, WELL_AFTER, backoff, margin};
use super::words::{Ended, length, who};
use crate::terminal::exit::Exit;

/// How long a kernel may take to end a group that was killed, before somebody is told that it does not.
const KILL_TAKES: Duration = Duration::from_secs(1);

/// Why a token is given back under which nobody has worked.
const NOT_STARTED: &str = "its process was not started yet";

/// What the supervisor is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// News of the session.
    Session(SessionEvent),
    /// The child could not be started.
    NotStarted {
        /// The exit code that a shell would give.
        code: u8,
        /// What the system said.
        why: String,
    },
    /// The child runs.
    Started,
    /// The child itself has ended; others of its group may live.
    Ended(Ended),
    /// No process of the child's group is left.
    Empty,
    /// Somebody wants `baton run` to end.
    Asked(Signal),
    /// It is the time that was asked for, or later.
    Time,
}

/// What the supervisor wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// Start the child with this token.
    Start(Token),
    /// Send the whole group this signal.
    Signal(Signal),
    /// Kill the whole group, until nobody is left.
    Kill,
    /// Say that the child serves under this token.
    Acknowledge(Token),
    /// Give the token back.
    Release(Release),
    /// Say that the instance goes away, and holds nothing; why.
    Leave(String),
    /// Tell the person at the terminal.
    Say(String),
    /// End with this code. Nothing comes after it.
    Exit(u8),
}

/// One token's time.
#[derive(Clone, Copy, Debug)]
struct Tenure {
    token: Token,
    until: LocalTime,
    ttl: Duration,
    /// When the lease was granted or renewed last.
    renewed: LocalTime,
}

/// A child and its group.
#[derive(Clone, Copy, Debug)]
struct Run {
    tenure: Tenure,
    started: LocalTime,
    /// It was told to stop, and is killed then if its lease does not end before.
    kill_at: Option<LocalTime>,
    /// Since when its group is being killed.
    killed: Option<LocalTime>,
    /// The child itself has ended; its group is being emptied.
    ended: Option<Ended>,
    /// It has been said that somebody of the group cannot be killed.
    warned: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// There is no child.
    Waiting,
    /// There is one, or what is left of its group.
    Running(Run),
    /// There is none, and the cluster has not heard of it yet.
    Releasing { token: Token },
    /// There is none and none comes, and the cluster has not heard yet that the instance goes away.
    Leaving,
    /// Nothing more is done.
    Over,
}

/// Why `baton run` ends for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    /// Somebody sent it this signal.
    Asked(Signal),
    /// The child ended by itself and is not started again.
    Done,
    /// The session is over.
    Over(Exit),
}

/// The supervisor of one child.
#[derive(Debug)]
pub(super) struct Supervisor {
    name: String,
    command: String,
    rules: Rules,
    state: State,
    /// A tenure for which no child has been started yet.
    next: Option<Tenure>,
    /// A tenure that ended before a child was started for it. It is given back when the old child is gone: whoever is
    /// promoted on that must be alone.
    owed: Option<Token>,
    /// No child is started before this.
    not_before: LocalTime,
    /// Ends in a row.
    ends: u32,
    leaving: Option<Leaving>,
    /// Nobody hears a release any more.
    deaf: bool,
    /// How the last child ended, where that ends `baton run` too.
    code: Option<u8>,
    /// The last line about waiting, so that it is said once.
    said: Option<String>,
    /// When it looked at its deadlines last.
    looked: LocalTime,
}

impl Supervisor {
    /// A supervisor without a child; `name` is `service/instance`, `command` what the child is called in its lines.
    pub(super) fn new(name: String, command: String, rules: Rules) -> Self {
        Self {
            name,
            command,
            rules,
            state: State::Waiting,
            next: None,
            owed: None,
            not_before: LocalTime::default(),
            ends: 0,
            leaving: None,
            deaf: false,
            code: None,
            said: None,
            looked: LocalTime::default(),
        }
    }

    /// Takes what happened and says what is to be done. Whatever happened, the deadlines are looked at.
    pub(super) fn step(&mut self, now: LocalTime, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        if matches!(self.state, State::Over) {
            return out;
        }
        match input {
            Input::Session(event) => self.session(now, event, &mut out),
            Input::NotStarted { code, why } => self.not_started(now, code, &why, &mut out),
            Input::Started => self.started(&mut out),
            Input::Ended(how) => self.ended(now, how, &mut out),
            Input::Empty => self.empty(now, &mut out),
            Input::Asked(signal) => self.asked(now, signal, &mut out),
            Input::Time => {}
        }
        self.look(now, &mut out);
        self.looked = now;
        out
    }

    /// When the supervisor wants to be called at the latest, if nothing happens before.
    ///
    /// A deadline that has passed since the last step is still to come: only a step can meet it.
    pub(super) fn wake_at(&self) -> Option<LocalTime> {
        match &self.state {
            State::Waiting if self.not_before > self.looked => self.next.map(|next| self.not_before.min(next.until)),
            State::Waiting => self.next.map(|next| next.until),
            State::Running(run) => run.deadline(&self.rules),
            State::Releasing { .. } | State::Leaving | State::Over => None,
        }
    }

    /// Until when a process of the group may live at the very most: between the supervisor's own KILL and the end of the
    /// lease, so that a watchdog that kills then never kills what the supervisor would have spared.
    pub(super) fn lives_until(&self) -> Option<LocalTime> {
        match &self.state {
            State::Running(run) => Some(before(run.tenure.until, margin(run.tenure.ttl) / 2)),
            State::Waiting | State::Releasing { .. } | State::Leaving | State::Over => None,
        }
    }

    fn session(&mut self, now: LocalTime, event: SessionEvent, out: &mut Vec<Output>) {
        match event {
            SessionEvent::Passive { active } => {
                if matches!(self.state, State::Waiting) && self.next.is_none() {
                    let line = format!("{} is passive, waiting ({})", self.name, who(active.as_ref()));
                    self.say_once(line, out);
                }
            }
            SessionEvent::Active { token, until, ttl } => self.active(now, token, until, ttl, out),
            SessionEvent::Extended { token, until } => self.extended(now, token, until),
            SessionEvent::StepDown { token, reason } => self.step_down(now, token, &reason, out),
            SessionEvent::Released { token } => {
                if matches!(self.state, State::Releasing { token: mine } if mine == token) {
                    self.state = State::Waiting;
                }
            }
            SessionEvent::Left => {
                if matches!(self.state, State::Leaving) {
                    self.state = State::Waiting;
                }
            }
            SessionEvent::Unreachable { why } => {
                out.push(Output::Say(format!("{} gets no answer from the cluster: {why}", self.name)));
            }
            SessionEvent::Reachable => {
                out.push(Output::Say(format!("{} is answered by the cluster again", self.name)));
            }
            SessionEvent::Over(why) => self.over(now, why, out),
        }
    }

    fn active(&mut self, now: LocalTime, token: Token, until: LocalTime, ttl: Duration, out: &mut Vec<Output>) {
        let tenure = Tenure { token, until, ttl, renewed: now };
        self.owed.take_if(|owed| *owed == token);
        if self.leaving.is_some() && matches!(self.state, State::Releasing { .. } | State::Leaving) {
            // Promoted while it said that it goes.
            self.release(token, NOT_STARTED.to_owned(), out);
            return;
        }
        if let State::Running(run) = &mut self.state {
            if run.tenure.token == token {
                self.extended(now, token, until);
                return;
            }
            // The child works with a token that is worth nothing any more.
            if run.kill_at.is_none() && run.ended.is_none() {
                out.push(Output::Say(format!(
                    "{} is active with token {token} instead of {}: stopping {}",
                    self.name, run.tenure.token, self.command
                )));
            }
            run.stop(now.plus(self.rules.grace(ttl)), Signal::TERM, out);
        }
        self.next = Some(tenure);
    }

    fn extended(&mut self, now: LocalTime, token: Token, until: LocalTime) {
        let running = match &mut self.state {
            State::Running(run) => Some(&mut run.tenure),
            State::Waiting | State::Releasing { .. } | State::Leaving | State::Over => None,
        };
        for tenure in running.into_iter().chain(&mut self.next).filter(|tenure| tenure.token == token) {
            tenure.until = tenure.until.max(until);
            tenure.renewed = now;
        }
    }

    fn step_down(&mut self, now: LocalTime, token: Token, reason: &str, out: &mut Vec<Output>) {
        if self.next.take_if(|next| next.token == token).is_some() {
            match self.state {
                State::Running(_) => self.owed = self.owed.max(Some(token)),
                State::Waiting | State::Releasing { .. } | State::Leaving => {
                    self.release(token, NOT_STARTED.to_owned(), out);
                }
                State::Over => {}
            }
        }
        let State::Running(run) = &mut self.state else { return };
        if run.tenure.token != token || run.ended.is_some() {
            return;
        }
        let kill_at = now.plus(self.rules.stop_timeout).min(run.last_moment());
        let left = length(kill_at.since(now));
        if run.kill_at.is_none() {
            out.push(Output::Say(format!(
                "{} steps down ({reason}): stopping {}, {left} at most",
                self.name, self.command
            )));
        }
        run.stop(kill_at, Signal::TERM, out);
    }

    fn over(&mut self, now: LocalTime, why: SessionOver, out: &mut Vec<Output>) {
        let (told, exit) = match why {
            SessionOver::Superseded => (
                "somebody else has registered under this id; two processes must not share one".to_owned(),
                Exit::PreconditionFailed,
            ),
            SessionOver::Refused { why } => (why, Exit::BadInput),
        };
        out.push(Output::Say(format!("{} has lost its session: {told}", self.name)));
        (self.next, self.owed) = (None, None);
        self.deaf = true;
        self.leaving.get_or_insert(Leaving::Over(exit));
        match &mut self.state {
            State::Running(run) => run.stop(now.plus(self.rules.grace(run.tenure.ttl)), Signal::TERM, out),
            State::Releasing { .. } | State::Leaving => self.state = State::Waiting,
            State::Waiting | State::Over => {}
        }
    }

    fn asked(&mut self, now: LocalTime, signal: Signal, out: &mut Vec<Output>) {
        let again = self.leaving.is_some();
        if !again {
            self.leaving = Some(Leaving::Asked(signal));
        }
        match &mut self.state {
            State::Running(run) if run.ended.is_none() => {
                // Whoever asks twice wants no more patience.
                let patience = if again { Duration::ZERO } else { self.rules.stop_timeout };
                run.stop(now.plus(patience), signal, out);
            }
            // An earlier release may not have been heard yet; it did not say that the instance goes.
            State::Waiting | State::Releasing { .. } if !again && !self.deaf => match self.next.take() {
                Some(next) => self.release(next.token, NOT_STARTED.to_owned(), out),
                None => {
                    let reason = format!("baton run ends by signal {}", signal.as_raw());
                    out.push(Output::Leave(reason));
                    self.state = State::Leaving;
                }
            },
            State::Leaving => self.state = State::Waiting,
            State::Waiting | State::Running(_) | State::Releasing { .. } | State::Over => {}
        }
    }

    fn started(&self, out: &mut Vec<Output>) {
        if let (State::Running(run), AckBy::Started) = (&self.state, self.rules.ack) {
            out.push(Output::Acknowledge(run.tenure.token));
        }
    }

    fn not_started(&mut self, now: LocalTime, code: u8, why: &str, out: &mut Vec<Output>) {
        out.push(Output::Say(format!("{} cannot be started: {why}", self.command)));
        if let State::Running(run) = &mut self.state {
            run.ended = Some(Ended::Code(code));
            self.finish(now, out);
        }
    }

    fn ended(&mut self, now: LocalTime, how: Ended, out: &mut Vec<Output>) {
        if let State::Running(run) = &mut self.state {
            run.ended = Some(how);
            run.killed = Some(now);
            // Whoever it has started counts too.
            out.push(Output::Kill);
        }
    }

    fn empty(&mut self, now: LocalTime, out: &mut Vec<Output>) {
        if matches!(&self.state, State::Running(run) if run.ended.is_some()) {
            self.finish(now, out);
        }
    }

    /// The child and its group are gone: what comes next is decided, and the token is given back.
    fn finish(&mut self, now: LocalTime, out: &mut Vec<Output>) {
        let State::Running(Run { tenure, started, kill_at, ended: Some(how), .. }) = self.state else { return };
        let mut line = format!("{} ended ({how})", self.command);
        let by_itself = kill_at.is_none();
        if by_itself && self.leaving.is_none() {
            let again = match self.rules.restart {
                Restart::Never => false,
                Restart::OnFailure => how != Ended::Code(0),
                Restart::Always => true,
            };
            if again {
                self.ends = if now.since(started) >= WELL_AFTER { 1 } else { self.ends.saturating_add(1) };
                let wait = backoff(self.ends);
                self.not_before = now.plus(wait);
                line.push_str(&format!(", it may start again in {}", length(wait)));
            } else {
                self.leaving = Some(Leaving::Done);
            }
        }
        if self.leaving.is_some() {
            self.code = Some(how.code());
        }
        if self.deaf {
            out.push(Output::Say(line));
            self.state = State::Waiting;
        } else {
            out.push(Output::Say(format!("{line}: releasing token {}", tenure.token)));
            let next = self.next.take_if(|_| self.leaving.is_some()).map(|next| next.token);
            // In this order: the last word is about the newest token, and says whether the instance goes.
            let unused = [self.owed.take(), next].into_iter().flatten().max().filter(|token| *token > tenure.token);
            let (token, reason) = (tenure.token, format!("its process ended ({how})"));
            match unused {
                Some(unused) => {
                    out.push(Output::Release(Release { token, leaving: false, reason }));
                    self.release(unused, NOT_STARTED.to_owned(), out);
                }
                None => self.release(token, reason, out),
            }
        }
    }

    fn release(&mut self, token: Token, reason: String, out: &mut Vec<Output>) {
        out.push(Output::Release(Release { token, leaving: self.leaving.is_some(), reason }));
        self.state = State::Releasing { token };
    }

    /// What the time brings, in any state.
    fn look(&mut self, now: LocalTime, out: &mut Vec<Output>) {
        match &mut self.state {
            State::Waiting if self.leaving.is_some() => {
                out.push(Output::Exit(self.exit_code()));
                self.state = State::Over;
            }
            State::Waiting => self.consider(now, out),
            State::Running(run) => {
                let (name, command) = (&self.name, &self.command);
                run.look(now, &self.rules, name, command, out);
            }
            State::Releasing { .. } | State::Leaving | State::Over => {}
        }
    }

    /// Starts a child if there is a tenure to start it in.
    fn consider(&mut self, now: LocalTime, out: &mut Vec<Output>) {
        let Some(next) = self.next else { return };
        if now >= next.until {
            self.next = None;
            self.release(next.token, "its lease ended before its process was started".to_owned(), out);
            return;
        }
        if now < self.not_before {
            let wait = length(self.not_before.since(now));
            let line = format!("{} is active with token {}, {} starts in {wait}", self.name, next.token, self.command);
            // By the token, so that a renewal does not repeat it.
            if self.said.as_ref().is_none_or(|said| !said.contains(&format!("token {},", next.token))) {
                self.say_once(line, out);
            }
            return;
        }
        // With so little left it would be told to stop at once: the next renewal starts it.
        if now >= next.stop_at(&self.rules) {
            return;
        }
        self.next = None;
        self.said = None;
        self.state =
            State::Running(Run { tenure: next, started: now, kill_at: None, killed: None, ended: None, warned: false });
        let line = format!("{} is active with token {}, starting {}", self.name, next.token, self.command);
        out.extend([Output::Say(line), Output::Start(next.token)]);
    }

    fn say_once(&mut self, line: String, out: &mut Vec<Output>) {
        if self.said.as_ref() != Some(&line) {
            out.push(Output::Say(line.clone()));
            self.said = Some(line);
        }
    }

    fn exit_code(&self) -> u8 {
        match (self.leaving, self.code) {
            (Some(Leaving::Over(exit)), _) => exit as u8,
            (Some(Leaving::Asked(_) | Leaving::Done) | None, Some(code)) => code,
            (Some(Leaving::Asked(signal)), None) => Ended::Signal(signal.as_raw()).code(),
            (Some(Leaving::Done) | None, None) => Exit::Done as u8,
        }
    }
}

impl Tenure {
    /// When a child is told to stop unless the lease is renewed before.
    fn stop_at(&self, rules: &Rules) -> LocalTime {
        before(self.kill_at(), rules.grace(self.ttl))
    }

    /// When it is killed unless the lease is renewed before.
    fn kill_at(&self) -> LocalTime {
        before(self.until, margin(self.ttl))
    }
}

impl Run {
    /// The last moment at which the group may be killed.
    fn last_moment(&self) -> LocalTime {
        self.tenure.kill_at()
    }

    /// Tells the child to stop, once; a second reason can only shorten its time.
    fn stop(&mut self, kill_at: LocalTime, signal: Signal, out: &mut Vec<Output>) {
        if self.ended.is_some() {
            return;
        }
        match &mut self.kill_at {
            Some(earlier) => *earlier = kill_at.min(*earlier),
            None => {
                self.kill_at = Some(kill_at);
                out.push(Output::Signal(signal));
            }
        }
    }

    /// When something is due.
    fn deadline(&self, rules: &Rules) -> Option<LocalTime> {
        match (self.killed, self.kill_at) {
            (Some(_), _) if self.warned => None,
            (Some(killed), _) => Some(killed.plus(KILL_TAKES).max(self.tenure.until)),
            (None, Some(kill_at)) => Some(kill_at.min(self.last_moment())),
            (None, None) => Some(self.tenure.stop_at(rules)),
        }
    }

    fn look(&mut self, now: LocalTime, rules: &Rules, name: &str, command: &str, out: &mut Vec<Output>) {
        if self.deadline(rules).is_none_or(|deadline| now < deadline) {
            return;
        }
        let token = self.tenure.token;
        if self.killed.is_some() {
            self.warned = true;
            out.push(Output::Say(format!(
                "the lease of token {token} is over and a process of {command} lives although it was killed: only what \
                 checks tokens is safe from it"
            )));
            return;
        }
        let since = length(now.since(self.tenure.renewed));
        if self.kill_at.is_none() && now < self.last_moment() {
            let left = length(self.last_moment().since(now));
            out.push(Output::Say(format!(
                "{name}: the lease of token {token} cannot be renewed since {since}: stopping {command}, {left} at most"
            )));
            self.stop(self.last_moment(), Signal::TERM, out);
            return;
        }
        out.push(Output::Say(match self.kill_at {
            Some(_) => format!("{command} has not stopped in time: killing it"),
            // Stopped itself, or asleep with the whole machine, beyond the moment for a polite word.
            None => format!("{name}: the lease of token {token} has not been renewed since {since}: killing {command}"),
        }));
        // It is not the child's own end.
        self.kill_at.get_or_insert(now);
        self.killed = Some(now);
        out.push(Output::Kill);
    }
}

fn before(time: LocalTime, length: Duration) -> LocalTime {
    LocalTime(time.0.saturating_sub(length))
}
