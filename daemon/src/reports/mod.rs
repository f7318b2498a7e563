//! What clients and instances say themselves, on the node that hears it: calls are summed, heartbeats gathered, counts
//! kept, and all of it is told to the leader, who judges. Nothing is judged here, and nothing enters the log from here.
//!
//! ```text
//!   POST …/reports ───▶ Sums ──100 ms──▶ "calls"  ─┐
//!   probes, calls ────▶ Totals ──2 s───▶ "totals" ─┼─▶ the leader's judge
//!   POST …/heartbeat ──────────3 ms────▶ "heartbeats" ┘
//! ```

mod beats;
mod sums;
mod totals;
pub(crate) mod wire;

#[cfg(test)]
mod tests;

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use baton_client::view::{DroppedReport, HeartbeatAnswer, ReportsAnswer};
use baton_core::calls::{Call, CallCounts, CallOutcome, CallSlice, classify};
use baton_core::id::{InstanceId, Revision, ServiceName};
use baton_core::planner::Facts;
use baton_core::probe::LocalTime;
use baton_core::state::Service;
use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::consensus::{AskError, Consensus, ReadError};
use crate::prober::Clock;
use beats::{Beats, BeatsTask};
use sums::{AGE_MAX, SumKey, Sums};
use totals::Totals;
pub(crate) use wire::CountsAsk;
use wire::{Beat, CallsAnswer, CallsAsk, CountsAnswer, FactsAsk, Known, TotalsAsk};

pub(crate) use beats::HeartbeatError;
pub(crate) use totals::ProbeTally;

/// How often calls are told to the leader.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// Sums that are told at a time: some two megabytes at most.
const SLICES_PER_ASK: usize = 2_000;
/// How often counts are told to the leader. Nothing is decided by them, and every probe changes one.
const TOTALS_EVERY: Duration = Duration::from_secs(2);
/// Counts that are told at a time: about a megabyte.
const TOTALS_PER_ASK: usize = 2_000;
/// How often the counts of instances that are gone are let go.
const PRUNE_EVERY: u32 = 5;
/// How many dropped reports an answer names: enough to see what is wrong.
const DROPPED_SHOWN: usize = 100;
/// How long a report of what this node does not know waits until it knows more. It holds its body meanwhile, up to four
/// megabytes; a leader that can be reached says in a few milliseconds how far the log is.
const BEHIND_FOR: Duration = Duration::from_millis(500);
/// How long an answer waits for counts: they are a side matter, and must not hold up the rest.
const COUNTS_WITHIN: Duration = Duration::from_millis(250);

/// How one call went, as its caller says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Report<'a> {
    /// Who was called: the text of a name.
    pub instance: &'a str,
    /// The caller's word.
    pub outcome: Option<CallOutcome>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// How long it took.
    pub latency: Option<Duration>,
    /// How many calls went like this.
    pub count: u32,
    /// The breaker's generation that the caller was given.
    pub generation: Option<u64>,
}

/// What this node hears. Clones are cheap.
#[derive(Clone, Debug)]
pub(crate) struct Reports {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    consensus: Consensus,
    clock: Clock,
    sums: Mutex<Sums>,
    totals: Arc<Totals>,
    beats: Beats,
}

impl Inner {
    fn sums(&self) -> MutexGuard<'_, Sums> {
        // A panic between two of its steps leaves at worst a key without a sum, which is passed over.
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells the leader what this node hears.
#[derive(Debug)]
pub(crate) struct ReportsTask {
    inner: Arc<Inner>,
    beats: BeatsTask,
}

/// Reports of one request about one instance and generation, summed.
struct Line {
    id: InstanceId,
    epoch: Revision,
    generation: Option<u64>,
    slice: CallSlice,
}

/// Where a report goes.
#[derive(Clone, Copy)]
enum Place {
    /// To this line.
    Line(usize),
    /// Nowhere: there is no such instance.
    Unknown,
    /// Nowhere: the breaker has moved on to this generation.
    Late(u64),
    /// Nowhere: the breaker is at this generation, and has not been where the report says.
    Unheard(u64),
}

impl Reports {
    /// The way in, and the task that must run for anything to be heard.
    pub(crate) fn new(consensus: Consensus) -> (Self, ReportsTask) {
        let (beats, task) = Beats::new();
        let totals = Arc::new(Totals::default());
        let inner = Arc::new(Inner { consensus, clock: Clock, sums: Mutex::default(), totals, beats });
        (Self { inner: inner.clone() }, ReportsTask { inner, beats: task })
    }

    /// Counts this node's probes.
    pub(crate) fn probe_tally(&self) -> ProbeTally {
        ProbeTally::of(self.inner.totals.clone())
    }

    /// Takes reports of calls to instances of a service; `None` where there is no such service. The names must be names.
    ///
    /// Those of instances that are not there, late ones (of an older generation of the breaker), and those of a generation
    /// that there has not been are dropped, and counted nowhere. Before anything is dropped because this node does not know
    /// it, the node makes sure that it knows what there is.
    pub(crate) async fn take(&self, name: &ServiceName, reports: &[Report<'_>]) -> Option<ReportsAnswer> {
        let reader = self.inner.consensus.reader();
        let mut view = reader.view();
        if !view.state.service(name).is_some_and(|service| all_known(service, reports))
            && self.inner.consensus.hears_leader()
        {
            // This node may be behind. Where no quorum says what is true, what it knows must do.
            match tokio::time::timeout(BEHIND_FOR, self.inner.consensus.barrier()).await {
                Ok(Ok(())) => view = reader.view(),
                Ok(Err(ReadError::NoQuorum | ReadError::Stopped)) | Err(_) => {}
            }
        }
        let service = view.state.service(name)?;
        let (lines, answer) = sum(service, reports);
        self.keep(name, lines);
        Some(answer)
    }

    fn keep(&self, name: &ServiceName, lines: Vec<Line>) {
        let now = self.inner.clock.now();
        let mut all = CallCounts::default();
        let mut crowded_out = 0;
        for Line { id, epoch, generation, slice } in lines {
            all.merge(&slice.counts);
            let key = (name.clone(), id);
            self.inner.totals.calls(&key, epoch, &slice.counts);
            let key = SumKey { service: key.0, instance: key.1, epoch, generation };
            crowded_out += self.inner.sums().add(key, &slice, now);
        }
        measured(&all);
        dropped("crowded_out", crowded_out);
    }

    /// Brings a heartbeat to the leader; what it said.
    pub(crate) async fn heartbeat(&self, beat: Beat) -> Result<HeartbeatAnswer, HeartbeatError> {
        let state = beat.state.as_str();
        let answer = self.inner.beats.send(beat).await;
        metrics::counter!("baton_heartbeats_total", "state" => if answer.is_ok() { state } else { "refused" })
            .increment(1);
        answer
    }

    /// What the planner knows of a service beside the log, by the leader's word; nothing, where it could not be asked in
    /// time.
    pub(crate) async fn facts(&self, service: &ServiceName) -> Facts {
        let ask = FactsAsk { service: service.clone() };
        let Ok(ask) = serde_json::to_vec(&ask) else { return Facts::default() };
        let asked = self.inner.consensus.ask_leader(wire::FACTS, ask.into());
        match tokio::time::timeout(COUNTS_WITHIN, asked).await {
            Ok(Ok(answer)) => serde_json::from_slice(&answer).unwrap_or_default(),
            Ok(Err(_)) | Err(_) => Facts::default(),
        }
    }

    /// What is known of instances beside the log, by the leader's word; `None` where it could not be asked in time.
    pub(crate) async fn counts(&self, ask: &CountsAsk) -> Option<BTreeMap<InstanceId, Known>> {
        let ask = serde_json::to_vec(ask).ok()?;
        let asked = self.inner.consensus.ask_leader(wire::COUNTS, ask.into());
        let answer = tokio::time::timeout(COUNTS_WITHIN, asked).await.ok()?.ok()?;
        serde_json::from_slice::<CountsAnswer>(&answer).ok().map(|told| told.instances)
    }
}

/// Whether a node that knows the service like that knows whom and what the reports speak of. Any number may be made up for
/// a generation, and each would have a sum of its own: so only such are summed as there have been.
fn all_known(service: &Service, reports: &[Report<'_>]) -> bool {
    reports.iter().all(|report| {
        let instance = service.instances.get(report.instance);
        instance.is_some_and(|it| report.generation.is_none_or(|named| named <= it.breaker.generation))
    })
}

/// Sums the reports of one request. Without a lock, so that many requests can do it at once.
fn sum(service: &Service, reports: &[Report<'_>]) -> (Vec<Line>, ReportsAnswer) {
    let timeout = service.spec.detection.timeout.as_duration();
    let mut lines: Vec<Line> = Vec::new();
    let mut places: HashMap<(&str, Option<u64>), Place> = HashMap::new();
    let mut answer = ReportsAnswer { accepted: 0, dropped: Vec::new(), dropped_total: 0 };
    let (mut unknown, mut late, mut unheard) = (0, 0, 0);
    for (index, report) in reports.iter().enumerate() {
        let place = *places.entry((report.instance, report.generation)).or_insert_with(|| {
            let Some((id, instance)) = service.instances.get_key_value(report.instance) else { return Place::Unknown };
            let present = instance.breaker.generation;
            match report.generation.map(|named| named.cmp(&present)) {
                Some(Ordering::Less) => return Place::Late(present),
                Some(Ordering::Greater) => return Place::Unheard(present),
                Some(Ordering::Equal) | None => {}
            }
            let (id, generation) = (id.clone(), report.generation);
            lines.push(Line { id, epoch: instance.epoch, generation, slice: CallSlice::default() });
            Place::Line(lines.len() - 1)
        });
        let reason = match place {
            Place::Line(line) => {
                let outcome = classify(report.outcome, report.status, report.latency, timeout);
                lines[line].slice.record(&Call { outcome, latency: report.latency, count: report.count });
                answer.accepted += 1;
                continue;
            }
            Place::Unknown => {
                unknown += u64::from(report.count);
                format!("service \"{}\" has no such instance", service.name)
            }
            Place::Late(present) => {
                late += u64::from(report.count);
                let named = report.generation.unwrap_or_default();
                format!("it is late: the call began in generation {named} of the breaker, which is at {present}")
            }
            Place::Unheard(present) => {
                unheard += u64::from(report.count);
                let named = report.generation.unwrap_or_default();
                format!("it names generation {named} of the breaker, which is only at {present}")
            }
        };
        answer.dropped_total += 1;
        if answer.dropped.len() < DROPPED_SHOWN
            && let Ok(instance) = report.instance.parse()
        {
            answer.dropped.push(DroppedReport { index: index as u64, instance, reason });
        }
    }
    dropped("unknown_instance", unknown);
    dropped("late", late);
    dropped("unknown_generation", unheard);
    (lines, answer)
}

/// Counts calls that are not judged, by why.
fn dropped(reason: &'static str, calls: u64) {
    if calls > 0 {
        metrics::counter!("baton_reports_dropped_total", "reason" => reason).increment(calls);
    }
}

fn measured(counts: &CallCounts) {
    let CallCounts { success, timeout, connection, server_error, rate_limit, malformed, slow, client_error } = *counts;
    for (outcome, count) in [
        (CallOutcome::Success, success),
        (CallOutcome::Timeout, timeout),
        (CallOutcome::Connection, connection),
        (CallOutcome::ServerError, server_error),
        (CallOutcome::RateLimit, rate_limit),
        (CallOutcome::Malformed, malformed),
        (CallOutcome::Slow, slow),
        (CallOutcome::ClientError, client_error),
    ] {
        if count > 0 {
            metrics::counter!("baton_reports_total", "outcome" => outcome.as_str()).increment(count);
        }
    }
}

/// One telling of calls, kept until it is answered or too old.
struct Telling {
    /// When its first call was reported.
    since: LocalTime,
    calls: u64,
    body: Bytes,
}

impl ReportsTask {
    /// Tells the leader until told to stop.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let Self { inner, beats } = self;
        // A number that no other start of this node has, and that survives any JSON parser.
        let boot = uuid::Uuid::now_v7().as_u64_pair().1 >> 11;
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tell_calls(&inner, boot) => {}
            () = tell_totals(&inner, boot) => {}
            () = beats.run(inner.consensus.clone(), boot) => {}
        }
    }
}

async fn tell_calls(inner: &Inner, boot: u64) {
    let mut flush = interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    let mut telling: Option<Telling> = None;
    loop {
        flush.tick().await;
        // All that waits, in as many tellings as it takes. One at a time: their order is the order of the calls.
        loop {
            if telling.is_none() {
                number += 1;
                telling = next_telling(inner, boot, number);
            }
            let Some(open) = &telling else { break };
            let answer = inner.consensus.ask_leader(wire::CALLS, open.body.clone()).await;
            match answer {
                Ok(answer) => {
                    let told: CallsAnswer = serde_json::from_slice(&answer).unwrap_or_default();
                    dropped("late", told.late);
                    telling = None;
                }
                Err(error) => {
                    let now = inner.clock.now();
                    // Repeated under its number, so that it is not counted twice where only the answer was lost.
                    if now.since(open.since) >= AGE_MAX || error == AskError::TooLong {
                        tracing::debug!(%error, calls = open.calls, "reported calls could not be told in time");
                        dropped("no_leader", open.calls);
                        telling = None;
                    }
                    dropped("no_leader", inner.sums().drop_old(now));
                    break;
                }
            }
        }
    }
}

fn next_telling(inner: &Inner, boot: u64, number: u64) -> Option<Telling> {
    let (since, slices) = inner.sums().take(SLICES_PER_ASK)?;
    let calls = slices.iter().map(|of| of.slice.calls()).sum();
    // Numbers and names always encode.
    let body = serde_json::to_vec(&CallsAsk { boot, number, slices }).ok()?;
    Some(Telling { since, calls, body: body.into() })
}

async fn tell_totals(inner: &Inner, boot: u64) {
    let mut tick = interval(TOTALS_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let leadership = inner.consensus.leadership();
    let mut told_in = 0;
    let mut ticks = 0_u32;
    loop {
        tick.tick().await;
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(PRUNE_EVERY) {
            inner.totals.prune(&inner.consensus.reader().view().state);
        }
        let term = leadership.borrow().term;
        if term != told_in {
            inner.totals.all_news();
            told_in = term;
        }
        loop {
            let totals = inner.totals.news(TOTALS_PER_ASK);
            if totals.is_empty() {
                break;
            }
            let ask = TotalsAsk { boot, totals };
            let told = match serde_json::to_vec(&ask) {
                Ok(body) => inner.consensus.ask_leader(wire::TOTALS, body.into()).await.is_ok(),
                Err(_) => false,
            };
            if !told {
                inner.totals.untold(&ask.totals);
                break;
            }
        }
    }
}
