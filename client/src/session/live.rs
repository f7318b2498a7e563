//! The loop of a session: it waits for whatever comes first, asks `baton_core::holder` what that means, and does it.

use std::collections::BTreeMap;
use std::time::Duration;

use baton_core::holder::{Change, Holder, RoleAnswer, Stop};
use baton_core::id::{InstanceId, Token};
use baton_core::policy::OnQuorumLoss;
use baton_core::probe::LocalTime;
use baton_core::state::Phase;
use reqwest::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::event::FOREVER;
use super::wire::{Heard, Line};
use super::{Alarm, Release, SessionConfig, SessionEnd, SessionEvent, SessionOver, boot_time};
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
/// How soon an active that was granted nothing asks again: the leader is becoming sure of itself.
const ASK_AGAIN: Duration = Duration::from_millis(30);
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
            () = end.news.closed() => return None,
        };
        let why = match stored {
            Ok(stored) => match stored.session {
                Some(session) => {
                    if failures >= FAILURES_TOLD {
                        end.news.send(SessionEvent::Reachable).await.ok()?;
                    }
                    let (client, service, instance) = (client.clone(), service.clone(), instance.clone());
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
            () = end.news.closed() => return None,
        }
        wait = (wait * 2).min(REGISTER_AGAIN_MAX);
    }
    None
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
    releases: JoinSet<Token>,
    /// A release that waits for the last heartbeats, until then.
    parting: Option<(Release, LocalTime)>,
    /// No more heartbeats: the instance leaves, or is registered no more.
    silent: bool,
    removed: bool,
    /// Asks who is active, for the worker to tell.
    lookup: JoinSet<Option<InstanceId>>,
    /// The lookup is worth asking again.
    look_again: bool,
    waits_for: Option<Option<InstanceId>>,
    failures: u32,
    /// When anything was heard last.
    answered: LocalTime,
    told_silent: bool,
    ttl: Duration,
    on_quorum_loss: OnQuorumLoss,
    phase: Option<Phase>,
}

/// What came first.
enum Came {
    Beat(u64, usize, Heard),
    Prompt,
    Release(Release),
    Gone,
    Released(Token),
    Active(Option<InstanceId>),
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
            releases: JoinSet::new(),
            parting: None,
            silent: false,
            removed: false,
            lookup: JoinSet::new(),
            look_again: true,
            waits_for: None,
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
                release = end.releases.recv() => release.map_or(Came::Gone, Came::Release),
                Some(Ok(token)) = self.releases.join_next() => Came::Released(token),
                Some(Ok(active)) = self.lookup.join_next() => Came::Active(active),
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
                Came::Release(release) => self.release(release),
                Came::Gone => return None,
                Came::Released(token) => {
                    // Lower ones were replaced by it.
                    self.given.retain(|other, _| *other > token);
                    news.push(SessionEvent::Released { token });
                }
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
            if self.removed && self.worker_rests_at() <= boot_time() && self.releases.is_empty() {
                return Some(Ended::Removed);
            }
        }
    }

    fn wake_at(&self) -> Option<LocalTime> {
        let beat = if self.silent { None } else { self.holder.beat_at() };
        let parting = self.parting.as_ref().map(|(_, at)| *at);
        let rests = self.removed.then(|| self.worker_rests_at());
        [beat, self.hedge_at(), self.holder.lapses_at(), parting, rests].into_iter().flatten().min()
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
            && let Some((release, _)) = self.parting.take()
        {
            self.give_back(release);
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
                self.role(number, &answer, now, news);
                None
            }
            Heard::NotGranted => {
                self.holder.unanswered(number, now);
                self.holder.prompted(now.plus(ASK_AGAIN));
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
                    self.look_again = true;
                }
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
        self.silent |= release.leaving;
        if release.leaving && !self.sent.is_empty() {
            self.parting = Some((release, boot_time().plus(LAST_BEATS)));
        } else {
            self.give_back(release);
        }
    }

    fn give_back(&mut self, release: Release) {
        let (line, index) = (self.line.clone(), self.index);
        let until = self.given.get(&release.token).map_or_else(boot_time, |given| given.until);
        self.releases.spawn(async move {
            let token = release.token;
            line.release(index, release, until).await;
            token
        });
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
