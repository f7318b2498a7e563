//! The holder's side of a lease, as a machine without I/O: when to send a heartbeat, what an answer is worth, until when it
//! may act. The client library, `baton run` and the simulator drive it; they read the clock (one that counts while the
//! machine sleeps, `CLOCK_BOOTTIME`), send, and stop what must stop.
//!
//! The rule: a lease counts from just before the very request was sent that is answered, and only an answer that names its
//! token and its length extends it. A pushed role only prompts a heartbeat. After a release of a token every answer that
//! names that token or a lower one grants nothing; it only shows that the release was not heard. When the lease runs out, the holder stops, whatever it hears.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::Token;
use crate::mutant::{Mutant, planted};
use crate::policy::OnQuorumLoss;
use crate::probe::LocalTime;

/// Requests without an answer that are remembered. Whoever has more under way has lost the oldest.
const UNDER_WAY_MAX: usize = 64;
/// The longest a heartbeat is waited for, whatever the lease's length.
const TIMEOUT_MAX: Duration = Duration::from_secs(2);
/// The shortest, where the lease leaves so much.
const TIMEOUT_MIN: Duration = Duration::from_millis(50);
/// How soon a heartbeat is sent again that had no answer, while a lease runs.
const RETRY: Duration = Duration::from_millis(20);
/// The same for one that holds nothing: nobody waits for it.
const RETRY_PASSIVE: Duration = Duration::from_millis(500);
/// How often one is sent before the cluster has said how often it wants to hear.
const INTERVAL: Duration = Duration::from_secs(1);
/// The most often that an answer can ask for: a bad one must not make a holder send without rest.
const INTERVAL_MIN: Duration = RETRY;

/// What a heartbeat's answer says of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleAnswer {
    /// The token and the lease, where the instance is active and was granted time.
    pub lease: Option<LeaseAnswer>,
    /// How often the cluster wants to hear.
    pub interval: Duration,
}

/// A lease, as an answer grants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseAnswer {
    /// Under which token.
    pub token: Token,
    /// For how long from just before the request was sent.
    pub ttl: Duration,
    /// What to do without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
}

/// A heartbeat to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Its number: the answer must come back with it.
    pub number: u64,
    /// How long to wait for the answer: always less than what is left of a lease.
    pub timeout: Duration,
}

/// Why a holder must stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The cluster says that it is passive: it is to step down, and then to release.
    SteppedDown,
    /// The lease has run out.
    Lapsed,
    /// Another registration has taken its place: this session is over.
    Superseded,
    /// It is active again under a higher token: what works under the old one must end first.
    Replaced,
}

/// What changed for the holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It may act, under this token, until then.
    Active {
        /// The token.
        token: Token,
        /// The end of the lease; with `freeze` it may go on beyond it.
        until: LocalTime,
    },
    /// It may go on until then.
    Extended {
        /// The new end of the lease.
        until: LocalTime,
    },
    /// It must stop what it does under this token.
    Stopped {
        /// The token.
        token: Token,
        /// Why.
        why: Stop,
    },
    /// The session is over, and it held nothing.
    Superseded,
    /// An answer grants a token that was released before it was asked for: the release was not heard, and while it is not,
    /// the service is held by nobody and given to nobody. It is to be said again, though not for every such answer.
    Unreleased {
        /// The token.
        token: Token,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    token: Token,
    until: LocalTime,
    on_quorum_loss: OnQuorumLoss,
    /// The number of the request whose answer granted it last.
    by: u64,
}

/// One session of an instance.
#[derive(Clone, Debug)]
pub struct Holder {
    sent: BTreeMap<u64, LocalTime>,
    next: u64,
    beat_at: LocalTime,
    interval: Duration,
    held: Option<Held>,
    /// The highest token that was released or given up: nothing that names it or a lower one is heeded.
    done_with: Option<Token>,
    /// The highest token that was released, and the number of the first request after that.
    released: Option<(Token, u64)>,
    /// The number of the newest request whose answer said that it is passive.
    passive_by: u64,
    over: bool,
}

impl Holder {
    /// A session that has just been registered: the first heartbeat is due at once.
    pub const fn new(now: LocalTime) -> Self {
        Self {
            sent: BTreeMap::new(),
            next: 1,
            beat_at: now,
            interval: INTERVAL,
            held: None,
            done_with: None,
            released: None,
            passive_by: 0,
            over: false,
        }
    }

    /// The token under which it may act at `now`.
    pub fn may_act(&self, now: LocalTime) -> Option<Token> {
        self.held.filter(|held| held.on_quorum_loss == OnQuorumLoss::Freeze || now < held.until).map(|held| held.token)
    }

    /// When the lease that it holds runs out. None where it holds nothing, or would go on (`freeze`).
    pub fn lapses_at(&self) -> Option<LocalTime> {
        self.held.filter(|held| held.on_quorum_loss == OnQuorumLoss::SelfFence).map(|held| held.until)
    }

    /// Whether another registration has taken its place.
    pub const fn is_over(&self) -> bool {
        self.over
    }

    /// When the next heartbeat is due; none: the session is over.
    pub const fn beat_at(&self) -> Option<LocalTime> {
        if self.over { None } else { Some(self.beat_at) }
    }

    /// The cluster says that something about its role has changed. That alone is believed by nobody: it asks.
    pub fn prompted(&mut self, now: LocalTime) {
        self.beat_at = self.beat_at.min(now);
    }

    /// A heartbeat is about to be sent. `now` must be read before it is: the lease is counted from here.
    pub fn send(&mut self, now: LocalTime) -> Beat {
        let number = self.next;
        self.next += 1;
        self.sent.insert(number, now);
        while self.sent.len() > UNDER_WAY_MAX {
            self.sent.pop_first();
        }
        self.beat_at = now.plus(self.interval);
        let left = self.lapses_at().map(|at| at.since(now));
        let timeout = match left {
            // Half of what is left: one that is lost leaves time for another.
            Some(left) if left > Duration::ZERO => (left / 2).clamp(TIMEOUT_MIN.min(left / 2), TIMEOUT_MAX),
            Some(_) | None => TIMEOUT_MAX,
        };
        Beat { number, timeout }
    }

    /// The answer to the heartbeat of that number.
    pub fn answered(&mut self, number: u64, answer: &RoleAnswer, now: LocalTime) -> Vec<Change> {
        let Some(mut sent) = self.sent.remove(&number) else { return Vec::new() };
        if self.over {
            return Vec::new();
        }
        if planted(Mutant::AnswerMatchedToNewest) {
            sent = self.sent.last_key_value().map_or(sent, |(_, newest)| sent.max(*newest));
        }
        self.interval = answer.interval.max(INTERVAL_MIN);
        self.beat_at = self.beat_at.min(now.plus(self.interval));
        match answer.lease {
            Some(lease) => self.granted(number, sent, &lease, now),
            None => self.told_passive(number),
        }
    }

    fn granted(&mut self, number: u64, sent: LocalTime, lease: &LeaseAnswer, now: LocalTime) -> Vec<Change> {
        let LeaseAnswer { token, ttl, on_quorum_loss } = *lease;
        // It was granted before the release was heard: whoever relies on the release would be the second.
        if self.done_with.is_some_and(|done| token <= done) && !planted(Mutant::AnswerHeardAfterRelease) {
            // What was asked after the release may still have overtaken it: to say it twice does no harm.
            let unheard = self.released.is_some_and(|(released, next)| token == released && number >= next);
            return if unheard { vec![Change::Unreleased { token }] } else { Vec::new() };
        }
        // It was asked before the request whose answer has told it to step down: nobody starts again on that.
        if number < self.passive_by {
            return Vec::new();
        }
        let until = sent.plus(ttl);
        if until <= now && on_quorum_loss == OnQuorumLoss::SelfFence {
            // So late an answer grants nothing.
            return Vec::new();
        }
        match &mut self.held {
            Some(held) if token < held.token => Vec::new(),
            Some(held) if token == held.token => {
                held.by = held.by.max(number);
                if until <= held.until {
                    return Vec::new();
                }
                held.until = until;
                vec![Change::Extended { until }]
            }
            Some(held) => {
                let old = held.token;
                self.held = Some(Held { token, until, on_quorum_loss, by: number });
                self.give_up(old);
                vec![Change::Stopped { token: old, why: Stop::Replaced }, Change::Active { token, until }]
            }
            None => {
                self.held = Some(Held { token, until, on_quorum_loss, by: number });
                vec![Change::Active { token, until }]
            }
        }
    }

    fn told_passive(&mut self, number: u64) -> Vec<Change> {
        self.passive_by = self.passive_by.max(number);
        match self.held {
            // An older answer than the one that made it active says nothing of what it is now.
            Some(held) if number > held.by => self.stopped(held.token, Stop::SteppedDown),
            Some(_) | None => Vec::new(),
        }
    }

    fn give_up(&mut self, token: Token) {
        self.done_with = self.done_with.max(Some(token));
    }

    fn stopped(&mut self, token: Token, why: Stop) -> Vec<Change> {
        self.held = None;
        vec![Change::Stopped { token, why }]
    }

    /// The cluster says that the session is not the instance's present one.
    pub fn superseded(&mut self, number: u64) -> Vec<Change> {
        self.sent.remove(&number);
        if std::mem::replace(&mut self.over, true) {
            return Vec::new();
        }
        match self.held {
            Some(held) => self.stopped(held.token, Stop::Superseded),
            None => vec![Change::Superseded],
        }
    }

    /// The heartbeat of that number has no answer, or only that there is no quorum. It is sent again soon.
    pub fn unanswered(&mut self, number: u64, now: LocalTime) {
        self.sent.remove(&number);
        let retry = if self.held.is_some() { RETRY } else { RETRY_PASSIVE.min(self.interval) };
        self.beat_at = self.beat_at.min(now.plus(retry));
    }

    /// The heartbeat of that number has an answer that says nothing of the role: nothing is granted now, and nothing taken
    /// away. It is as if there had been none, but that whoever answers so need not be asked without rest.
    pub fn undecided(&mut self, number: u64) {
        self.sent.remove(&number);
    }

    /// Time has passed: whether the lease has run out.
    pub fn elapsed(&mut self, now: LocalTime) -> Vec<Change> {
        match self.held {
            Some(held) if self.may_act(now).is_none() => self.stopped(held.token, Stop::Lapsed),
            Some(_) | None => Vec::new(),
        }
    }

    /// It has stopped what it did under `token`, and is about to say so. From here on nothing that names that token or a
    /// lower one grants anything.
    pub fn release(&mut self, token: Token) {
        self.give_up(token);
        if self.released.is_none_or(|(released, _)| released < token) {
            self.released = Some((token, self.next));
        }
        if self.held.is_some_and(|held| held.token <= token) {
            self.held = None;
        }
    }
}
