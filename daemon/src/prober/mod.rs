//! The prober: sockets in, `ProbeResult`s out. It asks instances what it is told to ask, when it is time, and says what
//! it saw and whether that can be believed. What it means for an instance is the monitor's; nothing here holds a verdict.
//!
//! One owner, one loop: whoever holds the `Prober` waits in `next`, which starts probes as they fall due. A task exists
//! only while a probe is in flight. No probe waits for another, so one slow target delays nobody.

mod clock;
mod fault;
mod http;
mod lag;
mod plan;
mod resolve;
mod schedule;
mod tcp;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use baton_core::policy::Address;
use baton_core::probe::{Distrust, FailureClass, LocalTime, Outcome, Timing, trusted};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

pub(crate) use clock::Clock;
pub(crate) use lag::LagMeter;
pub(crate) use plan::{CheckPlan, PlanKind};
pub(crate) use schedule::{Pace, TargetId};

use fault::Fault;
use http::Stage;
use resolve::Resolver;
use schedule::{Rhythm, Schedule};

/// The most probes in flight. Enough for 2,000 targets a second that all hang for half a second; each takes a descriptor
/// and a few kilobytes. Where the process may open fewer files, a quarter of those.
const IN_FLIGHT_MAX: usize = 1_024;

/// The most results handed over at once, so that whoever takes them gets to look at other things between.
const RESULTS_MAX: usize = 256;

/// What is probed, and by which check.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Where it listens.
    pub(crate) address: Address,
    /// What to ask.
    pub(crate) plan: Arc<CheckPlan>,
    /// Who probes what by which check, in a number: decides the target's place in its interval.
    pub(crate) hash: u64,
}

/// What a probe came to.
#[derive(Debug)]
pub(crate) struct ProbeResult {
    /// Of which target.
    pub(crate) target: TargetId,
    /// When it was to run and when it did.
    pub(crate) timing: Timing,
    /// The outcome, or why it says nothing about the instance.
    pub(crate) seen: Result<Outcome, Distrust>,
}

/// The number that spreads probes: the same for the same node, service, instance and check, different for any other.
pub(crate) fn spread(of: impl Hash) -> u64 {
    // Unkeyed, so a restart does not move everything; nothing but evenness is asked of it.
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// Probes targets as they fall due.
#[derive(Debug)]
pub(crate) struct Prober {
    clock: Clock,
    lag: LagMeter,
    resolver: Resolver,
    schedule: Schedule,
    targets: HashMap<TargetId, Known>,
    flying: JoinSet<ProbeResult>,
    by_task: HashMap<Id, TargetId>,
    in_flight_max: usize,
    /// Whether probes that are due wait for others to land: then their being late is our own limit's doing.
    held_back: bool,
    last_id: u64,
}

#[derive(Debug)]
struct Known {
    target: Arc<Target>,
    probe: Option<AbortHandle>,
}

impl Prober {
    /// A prober without targets, on the present runtime.
    pub(crate) fn start(clock: Clock, lag: LagMeter) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = files.map_or(IN_FLIGHT_MAX, |files| usize::try_from(files / 4).unwrap_or(IN_FLIGHT_MAX));
        Self {
            clock,
            lag,
            resolver: Resolver::new(clock),
            schedule: Schedule::default(),
            targets: HashMap::new(),
            flying: JoinSet::new(),
            by_task: HashMap::new(),
            in_flight_max: quarter.clamp(1, IN_FLIGHT_MAX),
            held_back: false,
            last_id: 0,
        }
    }

    /// Takes on a target. It is probed at the fast pace until [`Self::pace`] says otherwise.
    pub(crate) fn insert(&mut self, target: Target) -> TargetId {
        self.last_id += 1;
        let id = TargetId(self.last_id);
        let rhythm = Rhythm { interval: target.plan.interval, fast: target.plan.fast_interval, hash: target.hash };
        self.schedule.insert(id, rhythm, self.clock.now());
        self.targets.insert(id, Known { target: Arc::new(target), probe: None });
        self.count_targets();
        id
    }

    /// Lets a target go. A probe of it that is under way is broken off, and tells nothing.
    pub(crate) fn remove(&mut self, id: TargetId) {
        self.schedule.remove(id);
        if let Some(Known { probe: Some(probe), .. }) = self.targets.remove(&id) {
            probe.abort();
        }
        self.count_targets();
    }

    /// Sets how fast a target is probed.
    pub(crate) fn pace(&mut self, id: TargetId, pace: Pace) {
        self.schedule.pace(id, pace, self.clock.now());
    }

    /// Probes a target at once.
    pub(crate) fn hurry(&mut self, id: TargetId) {
        self.schedule.hurry(id, self.clock.now());
    }

    /// Waits until probes have landed and hands over their results, starting others as they fall due. May be dropped
    /// at any time without losing a result. Never ends while there is no target.
    pub(crate) async fn next(&mut self) -> Vec<ProbeResult> {
        loop {
            self.launch();
            let room = self.flying.len() < self.in_flight_max;
            let due = self.schedule.next_due().filter(|_| room);
            let wait = due.map(|due| due.since(self.clock.now()));
            let falls_due = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(joined) = self.flying.join_next_with_id() => {
                    let mut results = Vec::new();
                    results.extend(self.landed(joined));
                    while results.len() < RESULTS_MAX && let Some(joined) = self.flying.try_join_next_with_id() {
                        results.extend(self.landed(joined));
                    }
                    if !results.is_empty() {
                        return results;
                    }
                }
                () = falls_due => {}
            }
        }
    }

    /// Starts what is due, as far as there is room.
    fn launch(&mut self) {
        let now = self.clock.now();
        while self.flying.len() < self.in_flight_max {
            let Some((id, due)) = self.schedule.pop(now) else {
                self.held_back = false;
                return;
            };
            let Some(known) = self.targets.get_mut(&id) else { continue };
            let due = if self.held_back { now } else { due };
            let probe = Probe {
                id,
                target: known.target.clone(),
                due,
                clock: self.clock,
                lag: self.lag.clone(),
                resolver: self.resolver.clone(),
            };
            let task = self.flying.spawn(probe.run());
            self.by_task.insert(task.id(), id);
            known.probe = Some(task);
        }
        self.held_back = self.schedule.next_due().is_some_and(|due| due <= now);
    }

    /// A probe's task has ended. A probe that was broken off, or of a target that was let go, tells nothing.
    fn landed(&mut self, joined: Result<(Id, ProbeResult), JoinError>) -> Option<ProbeResult> {
        let (task, result) = match joined {
            Ok((task, result)) => (task, Some(result)),
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(%error, "a probe panicked: this is a defect, please report it");
                }
                (error.id(), None)
            }
        };
        let id = self.by_task.remove(&task)?;
        let known = self.targets.get_mut(&id)?;
        known.probe = None;
        self.schedule.finished(id, self.clock.now());
        let result = result?;
        count(known.target.plan.word(), &result.seen);
        Some(result)
    }

    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float, and so many targets there never are")]
    fn count_targets(&self) {
        metrics::gauge!("baton_probe_targets").set(self.schedule.len() as f64);
    }
}

fn count(kind: &'static str, seen: &Result<Outcome, Distrust>) {
    match seen {
        Ok(Outcome::Success) => {
            metrics::counter!("baton_probes_total", "type" => kind, "outcome" => "success").increment(1);
        }
        Ok(Outcome::Failure { class, .. }) => {
            metrics::counter!("baton_probes_total", "type" => kind, "outcome" => class.as_str()).increment(1);
        }
        Err(distrust) => {
            metrics::counter!("baton_probes_discarded_total", "reason" => distrust.word()).increment(1);
        }
    }
}

/// One probe, from its start to its result.
struct Probe {
    id: TargetId,
    target: Arc<Target>,
    due: LocalTime,
    clock: Clock,
    lag: LagMeter,
    resolver: Resolver,
}

impl Probe {
    async fn run(self) -> ProbeResult {
        let started = self.clock.now();
        let timeout = self.target.plan.timeout;
        // 0: not connected yet; then the `Stage` reached.
        let stage = AtomicU8::new(0);
        let outcome = match tokio::time::timeout(timeout, self.attempt(&stage)).await {
            Ok(Ok(())) => Ok(Outcome::Success),
            Ok(Err(Fault::Target { class, detail })) => Ok(Outcome::failure(class, detail)),
            Ok(Err(Fault::Node { detail })) => Err(Distrust::NodeShort { detail }),
            Err(_) => Ok(Outcome::failure(FailureClass::Timeout, waited_for(&stage, timeout))),
        };
        let timing = Timing { due: self.due, started, ended: self.clock.now(), timeout };
        let seen = outcome.and_then(|outcome| match outcome {
            Outcome::Success => Ok(Outcome::Success),
            Outcome::Failure { .. } => trusted(&timing, self.lag.worst_since(self.due)).map(|()| outcome),
        });
        ProbeResult { target: self.id, timing, seen }
    }

    async fn attempt(&self, stage: &AtomicU8) -> Result<(), Fault> {
        let Target { address, plan, .. } = self.target.as_ref();
        let port = plan.port.unwrap_or(address.port);
        let stream = tcp::connect(&self.resolver, &address.host, port).await?;
        match &plan.kind {
            PlanKind::Tcp => Ok(()),
            PlanKind::Http(plan) => {
                let authority = Address { host: address.host.clone(), port }.to_string();
                http::ask(plan, &authority, stream, |now| stage.store(now as u8, Ordering::Relaxed)).await
            }
        }
    }
}

fn waited_for(stage: &AtomicU8, timeout: Duration) -> String {
    let reached = stage.load(Ordering::Relaxed);
    let timeout = baton_core::time::Millis(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
    if reached == Stage::Body as u8 {
        format!("the body was not complete within {timeout}")
    } else if reached == Stage::Head as u8 {
        format!("connected, but no answer within {timeout}")
    } else {
        format!("no connection within {timeout}")
    }
}
