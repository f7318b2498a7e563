//! The demo's client: it keeps asking who is active, calls that instance at a steady rate, and counts what comes of it. It
//! retries nothing, so that what it counts is what the service did.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use baton_client::Client;
use baton_client::view::ActiveView;
use baton_core::id::{InstanceId, ServiceName};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use super::narrator::Narrator;

/// Time from one call to the next.
const PERIOD: Duration = Duration::from_millis(25);
/// Time from one question for the active to the next.
const ASK_PERIOD: Duration = Duration::from_millis(20);
/// How long a call may take: on loopback an answer takes a millisecond or two.
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
/// Outcomes kept for finding hand-overs: four minutes of calls.
const KEPT_MAX: usize = 10_000;
/// Calls from one renewal of the live line to the next.
const LIVE_EVERY: u64 = 5;

/// What was counted of one server.
#[derive(Clone, Debug, Default)]
pub(super) struct Count {
    /// Calls made.
    pub(super) calls: u64,
    /// Of these, answered well.
    pub(super) ok: u64,
    /// The slowest good answer.
    pub(super) slowest: Duration,
    /// All good answers' times together.
    pub(super) total: Duration,
}

/// How one call went.
#[derive(Clone, Debug)]
struct Outcome {
    at: Instant,
    to: InstanceId,
    ok: bool,
}

#[derive(Debug, Default)]
struct Tally {
    /// The last answer to "who is active". A client remembers it while Baton cannot be asked.
    active: Option<ActiveView>,
    asked: u64,
    unanswered: u64,
    per_server: BTreeMap<InstanceId, Count>,
    /// Turns at which nobody was known to be active.
    held_back: u64,
    outcomes: VecDeque<Outcome>,
}

/// What was counted in all.
#[derive(Clone, Debug)]
pub(super) struct Totals {
    /// By server.
    pub(super) per_server: BTreeMap<InstanceId, Count>,
    /// Turns without a call, for there was no active.
    pub(super) held_back: u64,
    /// Questions for the active.
    pub(super) asked: u64,
    /// Questions that Baton could not answer just then.
    pub(super) unanswered: u64,
}

impl Totals {
    /// Calls made.
    pub(super) fn calls(&self) -> u64 {
        self.per_server.values().map(|count| count.calls).sum()
    }

    /// Calls answered well.
    pub(super) fn ok(&self) -> u64 {
        self.per_server.values().map(|count| count.ok).sum()
    }
}

/// The running client. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Calls {
    tally: Arc<Mutex<Tally>>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Calls {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn lock(tally: &Mutex<Tally>) -> std::sync::MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Calls {
    /// Begins to ask and to call.
    pub(super) fn start(baton: Client, service: ServiceName, narrator: Arc<Narrator>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .timeout(CALL_TIMEOUT)
            .connect_timeout(CALL_TIMEOUT)
            .no_proxy()
            .retry(reqwest::retry::never())
            .build()?;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let ask = tokio::spawn(ask(baton, service, Arc::clone(&tally)));
        let call = tokio::spawn(call(http, Arc::clone(&tally), narrator));
        Ok(Self { tally, tasks: [ask, call] })
    }

    /// What was counted until now.
    pub(super) fn totals(&self) -> Totals {
        let tally = lock(&self.tally);
        Totals {
            per_server: tally.per_server.clone(),
            held_back: tally.held_back,
            asked: tally.asked,
            unanswered: tally.unanswered,
        }
    }

    /// How long no call went well while `to` took over from `from`, if both served.
    pub(super) fn hand_over(&self, from: &InstanceId, to: &InstanceId) -> Option<Duration> {
        let tally = lock(&self.tally);
        let good = |id: &InstanceId| {
            let id = id.clone();
            tally.outcomes.iter().filter(move |outcome| outcome.ok && outcome.to == id).map(|outcome| outcome.at)
        };
        let last = good(from).next_back()?;
        let first = good(to).find(|&at| at > last)?;
        Some(first - last)
    }

    /// Good calls since a moment, and the longest time between two of them, the moment itself included.
    pub(super) fn since(&self, moment: Instant) -> (usize, Duration) {
        let tally = lock(&self.tally);
        let mut last = moment;
        let mut longest = Duration::ZERO;
        let mut count = 0;
        for outcome in tally.outcomes.iter().filter(|outcome| outcome.ok && outcome.at > moment) {
            longest = longest.max(outcome.at - last);
            last = outcome.at;
            count += 1;
        }
        (count, longest.max(last.elapsed()))
    }
}

async fn ask(baton: Client, service: ServiceName, tally: Arc<Mutex<Tally>>) {
    let mut ticks = interval(ASK_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = baton.active(&service).await;
        let mut tally = lock(&tally);
        tally.asked += 1;
        match answer {
            // Answers of different nodes may overtake one another: the newer one counts.
            Ok(active) if tally.active.as_ref().is_some_and(|known| known.revision > active.revision) => {}
            Ok(active) => tally.active = Some(active),
            Err(error) if error.code() == Some("no_active") => tally.active = None,
            Err(_) => tally.unanswered += 1,
        }
    }
}

async fn call(http: reqwest::Client, tally: Arc<Mutex<Tally>>, narrator: Arc<Narrator>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut turn = 0_u64;
    loop {
        ticks.tick().await;
        turn += 1;
        let target = lock(&tally).active.as_ref().and_then(|active| {
            active.address.as_ref().map(|address| (active.instance.clone(), active.token, address.to_string()))
        });
        match target {
            None => lock(&tally).held_back += 1,
            Some((to, _, address)) => {
                let began = Instant::now();
                let answer = http.get(format!("http://{address}/")).send().await;
                let ok = answer.is_ok_and(|answer| answer.status().is_success());
                record(&mut lock(&tally), to, ok, began);
            }
        }
        if turn.is_multiple_of(LIVE_EVERY) {
            let line = live(&lock(&tally));
            narrator.live(&line);
        }
    }
}

fn record(tally: &mut Tally, to: InstanceId, ok: bool, began: Instant) {
    let at = Instant::now();
    let count = tally.per_server.entry(to.clone()).or_default();
    count.calls += 1;
    if ok {
        count.ok += 1;
        count.total += at - began;
        count.slowest = count.slowest.max(at - began);
    }
    if tally.outcomes.len() >= KEPT_MAX {
        tally.outcomes.pop_front();
    }
    tally.outcomes.push_back(Outcome { at, to, ok });
}

fn live(tally: &Tally) -> String {
    let calls: u64 = tally.per_server.values().map(|count| count.calls).sum();
    let ok: u64 = tally.per_server.values().map(|count| count.ok).sum();
    let active = match &tally.active {
        Some(active) => format!("active {} (token {})", active.instance, active.token),
        None => "nobody is active".to_owned(),
    };
    let recent: String =
        tally.outcomes.iter().rev().take(20).rev().map(|outcome| if outcome.ok { '·' } else { '×' }).collect();
    format!("{active}  calls {calls}  ok {ok}  failed {}  {recent}", calls - ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hand_over_lasts_from_the_last_good_call_to_the_first() {
        let start = Instant::now();
        let id = |name: &str| -> InstanceId { name.parse().expect("a name") };
        let mut tally = Tally::default();
        for (ms, to, ok) in
            [(0, "a", true), (10, "a", true), (20, "a", false), (30, "b", false), (45, "b", true), (90, "b", true)]
        {
            tally.outcomes.push_back(Outcome { at: start + Duration::from_millis(ms), to: id(to), ok });
        }
        let tally = Arc::new(Mutex::new(tally));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let calls = Calls { tally, tasks: [runtime.spawn(async {}), runtime.spawn(async {})] };
        assert_eq!(calls.hand_over(&id("a"), &id("b")), Some(Duration::from_millis(35)));
        assert_eq!(calls.hand_over(&id("b"), &id("a")), None);
    }
}
