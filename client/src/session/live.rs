//! The loop of a session: it waits for whatever comes first, asks `baton_core::holder` what that means, and does it.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::holder::{Change, Holder, RoleAnswer, Stop};
use baton_core::id::{InstanceId, Token};
use baton_core::policy::{Mode, OnQuorumLoss};
use baton_core::probe::LocalTime;
use baton_core::state::Phase;
use reqwest::Method;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::event::FOREVER;
use super::wire::{Heard, LEAVE_LEAST, Line, Said};
use super::{Alarm, Asked, Release, SessionConfig, SessionEnd, SessionEvent, SessionOver, boot_time};
use crate::error::ClientError;
use crate::view::Stored;

/// Time for a registration at one endpoint: a node without a quorum says so within two seconds.
const REGISTER_LIMIT: Duration = Duration::from_millis(2_500);
/// The wait before a registration is tried again; it doubles.
const REGISTER_AGAIN_FIRST: Duration = Duration::from_millis(100);
/// The longest such wait: whoever returns is found within it.
const REGISTER_AGAIN_MAX: Duration = Duration::from_secs(2);
/// Requests in a row without an answer after which the worker is told: one is often lost with a node that died.
const FAILURES_TOLD: u32 = 3;
/// And how long nothing must have been heard by then: short leases ask often.
const SILENCE_TOLD: Duration = Duration::from_secs(1);
/// An endpoint that has not answered for this share of a lease is not waited for: another is asked beside it.
const HEDGE_SHARE: u32 = 12;
/// The least such wait: an answer that needed a round of the leader.
const HEDGE_MIN: Duration = Duration::from_millis(20);
/// The longest, and the wait of an instance that holds nothing.
const HEDGE_MAX: Duration = Duration::from_millis(500);
/// How soon an active that was granted nothing asks again: the leader is becoming sure of itself. It doubles.
const ASK_AGAIN: Duration = Duration::from_millis(30);
/// The longest such wait, where the cluster does not want to hear more often anyway: another is being promoted.
const ASK_AGAIN_MAX: Duration = Duration::from_millis(500);
/// After so many such answers in a row somebody asks what sort of service this is.
const UNDECIDED_MANY: u32 = 8;
/// The least time between two releases of one token that were not heard.
const UNRELEASED_AGAIN: Duration = Duration::from_millis(500);
/// How long one that wants to leave, and turns out to be the active, gives its worker to hear of it before it asks again.
const LEAVE_AGAIN: Duration = Duration::from_millis(200);
/// How long the last heartbeats may take before a release that says that the instance leaves: one that arrives behind it would
/// make it a candidate again.
const LAST_BEATS: Duration = Duration::from_millis(30);

/// Runs a session until its worker is gone or it is over.
pub(super) async fn live(config: SessionConfig, mut end: SessionEnd, mut alarm: Alarm) {
    loop {
        let Some(line) = register(&config, &mut end).await else { return };
        let mut life = Life::new(line);
        match life.run(&mut end, &mut alarm, config.follow_role).await {
            Some(Ended::Removed) => {}
            Some(Ended::Over(why)) => {
                // A worker that is gone has nothing to stop.
                let _ = end.news.send(SessionEvent::Over(why)).await;
                return;
            }
            None => return,
        }
    }
}

/// Registers the instance, however long it takes; none: the worker is gone, or it was refused and told so.
async fn register(config: &SessionConfig, end: &mut SessionEnd) -> Option<Line> {
    let SessionConfig { client, service, instance, registration, .. } = config;
    let (mut wait, mut failures) = (REGISTER_AGAIN_FIRST, 0_u32);
    let path = format!("/v1/services/{service}/instances/{instance}");
    for index in 0.. {
        // Dropped in the middle, it may have happened: the next registration opens another session, and nobody is hurt.
        let stored = tokio::select! {
            stored = client.write_at::<_, Stored>((Method::PUT, index), &path, registration, REGISTER_LIMIT) => stored,
            gone = unregistered(end) => return gone,
        };
        let why = match stored {
            Ok(stored) => match stored.session {
                Some(session) => {
                    if failures >= FAILURES_TOLD {
                        end.news.send(SessionEvent::Reachable).await.ok()?;
                    }
                    let (client, service, instance) = (client.clone(), service.clone(), instance.clone());
                    end.id.send_replace(Some(session.clone()));
                    return Some(Line { client, service, instance, session });
                }
                None => {
                    let why = "the registration was answered without a session".to_owned();
                    end.news.send(SessionEvent::Over(SessionOver::Refused { why })).await.ok()?;
                    return None;
                }
            },
            Err(ClientError::Problem(problem)) if (400..500).contains(&problem.status) && problem.status != 429 => {
                let why = ClientError::Problem(problem).to_string();
                end.news.send(SessionEvent::Over(SessionOver::Refused { why })).await.ok()?;
                return None;
            }
            Err(error) => error.to_string(),
        };
        failures += 1;
        if failures == FAILURES_TOLD {
            end.news.send(SessionEvent::Unreachable { why }).await.ok()?;
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            gone = unregistered(end) => return gone,
        }
        wait = (wait * 2).min(REGISTER_AGAIN_MAX);
    }
    None
}

/// Hears the worker while there is no session: it holds nothing, and can only go.
async fn unregistered(end: &mut SessionEnd) -> Option<Line> {
    loop {
        match end.asked.recv().await? {
            Asked::Release(Release { token, leaving, .. }) => {
                end.news.send(SessionEvent::Released { token }).await.ok()?;
                if !leaving {
                    continue;
                }
            }
            Asked::Acknowledge(_) => continue,
            Asked::Leave { .. } => {}
        }
        end.news.send(SessionEvent::Left).await.ok()?;
        return None;
    }
}

/// How the life of one registration ended.
enum Ended {
    /// The instance was deregistered: it may be registered anew.
    Removed,
    /// There is no other.
    Over(SessionOver),
}

/// What the worker was told that it may act by, and has not given back.
#[derive(Clone, Copy, Debug)]
struct Given {
    token: Token,
    until: LocalTime,
}

/// A wish to leave that has not been answered.
struct Leaving {
    reason: String,
    /// When it is said again, if it was refused.
    again: Option<LocalTime>,
    /// When it is too late for that.
    last: LocalTime,
}

/// The life of one registration.
struct Life {
    line: Line,
    holder: Holder,
    /// The endpoint that answered last, counted in a ring.
    index: usize,
    beats: JoinSet<(u64, usize, Heard)>,
    /// When each heartbeat under way was sent.
    sent: BTreeMap<u64, LocalTime>,
    given: BTreeMap<Token, Given>,
    /// What is being said until it is heard.
    words: JoinSet<Word>,
    releasing: BTreeMap<Token, AbortHandle>,
    acknowledging: BTreeMap<Token, AbortHandle>,
    /// The release of the highest token that was given back, and when it was said last.
    given_back: Option<(Release, LocalTime)>,
    /// A last word that waits for the last heartbeats, until then.
    parting: Option<(Asked, LocalTime)>,
    /// The worker wants to leave without a token.
    leaving: Option<Leaving>,
    /// No more heartbeats: the instance leaves, or is registered no more.
    silent: bool,
    removed: bool,
    /// Asks who is active, for the worker to tell.
    lookup: JoinSet<Option<InstanceId>>,
    /// The lookup is worth asking again.
    look_again: bool,
    waits_for: Option<Option<InstanceId>>,
    /// Answers in a row that said nothing of the role.
    undecided: u32,
    /// Asks what sort of service this is.
    modes: JoinSet<Option<Mode>>,
    failures: u32,
    /// When anything was heard last.
    answered: LocalTime,
    told_silent: bool,
    ttl: Duration,
    on_quorum_loss: OnQuorumLoss,
    phase: Option<Phase>,
}

/// What was said, and what became of it.
enum Word {
    Released {
        token: Token,
        leaving: bool,
        /// The worker has been told before.
        again: bool,
    },
    Acknowledged(Token),
    Left(Said),
}

/// What came first.
enum Came {
    Beat(u64, usize, Heard),
    Prompt,
    Asked(Asked),
    Gone,
    Said(Word),
    Active(Option<InstanceId>),
    Mode(Option<Mode>),
    Time,
}

impl Life {
    fn new(line: Line) -> Self {
        Self {
            line,
            holder: Holder::new(boot_time()),
            index: 0,
            beats: JoinSet::new(),
            sent: BTreeMap::new(),
            given: BTreeMap::new(),
            words: JoinSet::new(),
            releasing: BTreeMap::new(),
            acknowledging: BTreeMap::new(),
            given_back: None,
            parting: None,
            leaving: None,
            silent: false,
            removed: false,
            lookup: JoinSet::new(),
            look_again: true,
            waits_for: None,
            undecided: 0,
            modes: JoinSet::new(),
            failures: 0,
            answered: boot_time(),
            told_silent: false,
            ttl: Duration::ZERO,
            on_quorum_loss: OnQuorumLoss::SelfFence,
            phase: None,
        }
    }

    /// Lives; none: the worker is gone.
    async fn run(&mut self, end: &mut SessionEnd, alarm: &mut Alarm, follow_role: bool) -> Option<Ended> {
        let (prompt, mut prompts) = mpsc::channel(1);
        // Dropped with this life, and the stream with it.
        let mut stream = JoinSet::new();
        if follow_role {
            let line = self.line.clone();
            stream.spawn(async move { line.follow(0, prompt).await });
        }
        loop {
            self.send_what_is_due();
            let wake_at = self.wake_at();
            let came = tokio::select! {
                Some(Ok((number, index, heard))) = self.beats.join_next() => Came::Beat(number, index, heard),
                Some(()) = prompts.recv() => Came::Prompt,
                asked = end.asked.recv() => asked.map_or(Came::Gone, Came::Asked),
                // One that was stopped has said nothing.
                Some(word) = self.words.join_next() => word.map_or(Came::Time, Came::Said),
                Some(Ok(active)) = self.lookup.join_next() => Came::Active(active),
                Some(Ok(mode)) = self.modes.join_next() => Came::Mode(mode),
                () = alarm.at(wake_at) => Came::Time,
            };
            let mut news = Vec::new();
            let mut over = None;
            match came {
                Came::Beat(number, index, heard) => over = self.heard(number, index, heard, &mut news),
                Came::Prompt => {
                    self.look_again = true;
                    self.holder.prompted(boot_time());
                }
                Came::Asked(Asked::Release(release)) => self.release(release),
                Came::Asked(Asked::Acknowledge(token)) => self.acknowledge(token),
                Came::Asked(Asked::Leave { reason }) => self.leave(reason),
                Came::Gone => return None,
                Came::Said(word) => self.said(word, &mut news),
                Came::Mode(Some(Mode::ActiveActive)) if self.undecided > 0 => over = Some(self.many_are_active()),
                Came::Mode(_) => {}
                Came::Active(active) => self.tell_who(active, &mut news),
                Came::Time => {
                    let changes = self.holder.elapsed(boot_time());
                    self.changed(changes, &mut news);
                }
            }
            self.look_up();
            for event in news {
                end.news.send(event).await.ok()?;
            }
            if let Some(why) = over {
                return Some(Ended::Over(why));
            }
            // Whatever the worker held is given back or has run out, or it never held anything.
            if self.removed && self.worker_rests_at() <= boot_time() && self.releasing.is_empty() {
                return Some(Ended::Removed);
            }
        }
    }

    fn wake_at(&self) -> Option<LocalTime> {
        let beat = if self.silent { None } else { self.holder.beat_at() };
        let parting = self.parting.as_ref().map(|(_, at)| *at);
        let rests = self.removed.then(|| self.worker_rests_at());
        let leave = self.leaving.as_ref().and_then(|leaving| leaving.again);
        [beat, self.hedge_at(), self.holder.lapses_at(), parting, rests, leave].into_iter().flatten().min()
    }

    /// When the worker may act by nothing any more that it was told.
    fn worker_rests_at(&self) -> LocalTime {
        self.given.values().map(|given| given.until).max().unwrap_or_default()
    }

    /// When another endpoint is asked beside one that does not answer.
    fn hedge_at(&self) -> Option<LocalTime> {
        let others = self.sent.len() < self.line.client.endpoints().count();
        let (_, newest) = self.sent.last_key_value().filter(|_| others && !self.silent)?;
        let held = self.holder.lapses_at().is_some();
        let wait = if held { (self.ttl / HEDGE_SHARE).clamp(HEDGE_MIN, HEDGE_MAX) } else { HEDGE_MAX };
        Some(newest.plus(wait))
    }

    fn send_what_is_due(&mut self) {
        let now = boot_time();
        if self.parting.as_ref().is_some_and(|(_, at)| self.sent.is_empty() || *at <= now)
            && let Some((asked, _)) = self.parting.take()
        {
            match asked {
                Asked::Release(release) => self.give_back(release, false),
                Asked::Leave { reason } => self.say_that_it_leaves(reason, now),
                Asked::Acknowledge(_) => {}
            }
        }
        if let Some(leaving) = &mut self.leaving
            && leaving.again.take_if(|at| *at <= now).is_some()
        {
            let reason = leaving.reason.clone();
            self.part(Asked::Leave { reason });
        }
        if self.silent {
            return;
        }
        if self.hedge_at().is_some_and(|at| at <= now) {
            self.index += 1;
            self.holder.prompted(now);
        }
        if self.holder.beat_at().is_none_or(|at| at > now) {
            return;
        }
        // Read before the request is sent: the lease is counted from here.
        let now = boot_time();
        let beat = self.holder.send(now);
        self.sent.insert(beat.number, now);
        let (line, index) = (self.line.clone(), self.index);
        self.beats.spawn(async move { (beat.number, index, line.beat(index, beat.timeout).await) });
    }

    /// What a heartbeat came to; why the session is over, if it is.
    fn heard(&mut self, number: u64, index: usize, heard: Heard, news: &mut Vec<SessionEvent>) -> Option<SessionOver> {
        self.sent.remove(&number);
        let now = boot_time();
        if !matches!(heard, Heard::Nothing(_)) {
            self.index = index;
            self.failures = 0;
            self.answered = now;
            if std::mem::take(&mut self.told_silent) {
                news.push(SessionEvent::Reachable);
            }
        }
        match heard {
            Heard::Role { answer, phase } => {
                self.phase = Some(phase);
                self.undecided = 0;
                self.role(number, &answer, now, news);
                None
            }
            Heard::NotGranted => {
                self.holder.undecided(number);
                let wait = ASK_AGAIN.saturating_mul(1 << self.undecided.min(8)).min(ASK_AGAIN_MAX);
                self.holder.prompted(now.plus(wait));
                self.undecided = self.undecided.saturating_add(1);
                if self.undecided.is_multiple_of(UNDECIDED_MANY) && self.modes.is_empty() {
                    let line = self.line.clone();
                    self.modes
                        .spawn(async move { line.client.service(&line.service).await.ok().map(|it| it.spec.mode) });
                }
                None
            }
            Heard::Superseded => {
                self.silent = true;
                self.holder.superseded(number);
                Some(SessionOver::Superseded)
            }
            Heard::Removed => {
                self.silent = true;
                self.removed = true;
                self.holder.superseded(number);
                let reason = || "the instance was deregistered".to_owned();
                news.extend(self.given.keys().map(|token| SessionEvent::StepDown { token: *token, reason: reason() }));
                None
            }
            Heard::Refused(why) => {
                self.silent = true;
                self.holder.superseded(number);
                Some(SessionOver::Refused { why })
            }
            Heard::Nothing(why) => {
                if self.index == index {
                    self.index += 1;
                }
                self.holder.unanswered(number, now);
                self.failures = self.failures.saturating_add(1);
                let long = self.failures >= FAILURES_TOLD && now.since(self.answered) >= SILENCE_TOLD;
                if long && !std::mem::replace(&mut self.told_silent, true) {
                    news.push(SessionEvent::Unreachable { why });
                }
                None
            }
        }
    }

    fn role(&mut self, number: u64, answer: &RoleAnswer, now: LocalTime, news: &mut Vec<SessionEvent>) {
        if let Some(lease) = &answer.lease {
            self.ttl = lease.ttl;
            self.on_quorum_loss = lease.on_quorum_loss;
        }
        let changes = self.holder.answered(number, answer, now);
        self.changed(changes, news);
    }

    /// Tells the worker what changed for the holder.
    fn changed(&mut self, changes: Vec<Change>, news: &mut Vec<SessionEvent>) {
        for change in changes {
            match change {
                Change::Active { token, until } => {
                    let until = self.end_of(until);
                    self.given.insert(token, Given { token, until });
                    self.waits_for = None;
                    news.push(SessionEvent::Active { token, until, ttl: self.ttl });
                }
                Change::Extended { until } => {
                    let until = self.end_of(until);
                    // The newest token is the one that is renewed.
                    if let Some(mut given) = self.given.last_entry() {
                        given.get_mut().until = until;
                        news.push(SessionEvent::Extended { token: given.get().token, until });
                    }
                }
                Change::Stopped { token, why: Stop::SteppedDown } => {
                    let reason = self.phase.map_or_else(
                        || "the cluster says that it is passive".to_owned(),
                        |phase| format!("the service is {}", phase.as_str().replace('_', " ")),
                    );
                    news.push(SessionEvent::StepDown { token, reason });
                    self.stop_acknowledging(token);
                    self.look_again = true;
                }
                Change::Unreleased { token } => self.release_again(token),
                // The worker knows the end of its lease, and a new token tells it that the old one is over.
                Change::Stopped { why: Stop::Lapsed | Stop::Replaced | Stop::Superseded, .. } | Change::Superseded => {
                    self.look_again = true;
                }
            }
        }
    }

    fn end_of(&self, until: LocalTime) -> LocalTime {
        match self.on_quorum_loss {
            OnQuorumLoss::SelfFence => until,
            OnQuorumLoss::Freeze => FOREVER,
        }
    }

    fn release(&mut self, release: Release) {
        self.holder.release(release.token);
        self.stop_acknowledging(release.token);
        if release.leaving {
            // This says more than a word without a token.
            self.leaving = None;
            self.part(Asked::Release(release));
        } else {
            self.give_back(release, false);
        }
    }

    /// Says a last word, once the last heartbeats are back: one that came behind it would take it back.
    fn part(&mut self, word: Asked) {
        self.silent = true;
        self.parting = Some((word, boot_time().plus(LAST_BEATS)));
    }

    fn give_back(&mut self, release: Release, again: bool) {
        let (line, index) = (self.line.clone(), self.index);
        let Release { token, leaving, .. } = release;
        let now = boot_time();
        let until = self.given.get(&token).map_or(now, |given| given.until);
        if self.given_back.as_ref().is_none_or(|(last, _)| last.token <= token) {
            self.given_back = Some((release.clone(), now));
        }
        let saying = self.words.spawn(async move {
            line.release(index, release, until).await;
            Word::Released { token, leaving, again }
        });
        // The newest word is the one that counts.
        if let Some(older) = self.releasing.insert(token, saying) {
            older.abort();
        }
    }

    /// The cluster grants a token that was given back: it has not heard of that.
    fn release_again(&mut self, token: Token) {
        let Some((release, at)) = &self.given_back else { return };
        let soon = boot_time().since(*at) < UNRELEASED_AGAIN;
        if release.token == token && !soon && !self.releasing.contains_key(&token) && !self.silent {
            self.give_back(release.clone(), true);
        }
    }

    fn acknowledge(&mut self, token: Token) {
        if !self.given.contains_key(&token) || self.acknowledging.contains_key(&token) {
            return;
        }
        let (line, index) = (self.line.clone(), self.index);
        let saying = self.words.spawn(async move {
            line.acknowledge(index, token).await;
            Word::Acknowledged(token)
        });
        self.acknowledging.insert(token, saying);
    }

    fn stop_acknowledging(&mut self, token: Token) {
        if let Some(saying) = self.acknowledging.remove(&token) {
            saying.abort();
        }
    }

    /// The worker goes. What it has given back and nobody has heard of yet is said together with that.
    fn leave(&mut self, reason: String) {
        match (&self.given_back, self.releasing.last_key_value()) {
            (Some((last, _)), Some((token, _))) if last.token == *token => {
                self.release(Release { leaving: true, ..last.clone() });
            }
            _ => {
                let last = boot_time().plus(LEAVE_LEAST);
                self.leaving = Some(Leaving { reason: reason.clone(), again: None, last });
                self.part(Asked::Leave { reason });
            }
        }
    }

    fn say_that_it_leaves(&mut self, reason: String, now: LocalTime) {
        let (line, index) = (self.line.clone(), self.index);
        let last = self.leaving.as_ref().map_or(now, |leaving| leaving.last);
        self.words.spawn(async move { Word::Left(line.leave(index, &reason, last).await) });
    }

    /// What became of something that was said.
    fn said(&mut self, word: Word, news: &mut Vec<SessionEvent>) {
        match word {
            Word::Released { token, leaving, again } => {
                self.releasing.remove(&token);
                // Lower ones were replaced by it.
                self.given.retain(|other, _| *other > token);
                if !again {
                    news.push(SessionEvent::Released { token });
                }
                if leaving {
                    news.push(SessionEvent::Left);
                }
            }
            Word::Acknowledged(token) => {
                self.acknowledging.remove(&token);
            }
            Word::Left(said) => {
                // A release that came meanwhile says more.
                let Some(leaving) = &mut self.leaving else { return };
                let now = boot_time();
                if said == Said::Holds && now < leaving.last {
                    // Promoted just now: a heartbeat tells the token, and the worker gives that back.
                    leaving.again = Some(now.plus(LEAVE_AGAIN));
                    self.silent = false;
                    self.holder.prompted(now);
                } else {
                    self.leaving = None;
                    news.push(SessionEvent::Left);
                }
            }
        }
    }

    /// The service was made one of which all instances work at a time: there is no lease for anybody.
    fn many_are_active(&mut self) -> SessionOver {
        self.silent = true;
        let why = format!(
            "\"{}\" is active_active now: all its instances work at a time, and none is granted a lease",
            self.line.service
        );
        SessionOver::Refused { why }
    }

    /// Asks who is active, if the worker waits and does not know.
    fn look_up(&mut self) {
        let waits = self.given.is_empty() && !self.silent && self.phase.is_some();
        if waits && self.lookup.is_empty() && std::mem::take(&mut self.look_again) {
            let line = self.line.clone();
            self.lookup
                .spawn(async move { line.client.active(&line.service).await.ok().map(|active| active.instance) });
        }
    }

    fn tell_who(&mut self, active: Option<InstanceId>, news: &mut Vec<SessionEvent>) {
        let own = active.as_ref() == Some(&self.line.instance);
        if self.given.is_empty() && !own && self.waits_for.as_ref() != Some(&active) {
            self.waits_for = Some(active.clone());
            news.push(SessionEvent::Passive { active });
        }
    }
}
