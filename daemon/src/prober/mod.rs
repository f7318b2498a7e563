//! The prober: sockets in, `ProbeResult`s out. It asks instances what it is told to ask, when it is time, and says what
//! it saw and whether that can be believed. What it means for an instance is the monitor's; nothing here holds a verdict.
//!
//! One owner, one loop: whoever holds the `Prober` waits in `next`, which starts probes as they fall due. A task exists
//! only while a probe is in flight. No probe waits for another, so one slow target delays nobody.

mod agent;
mod grpc;
mod health;
mod held;
mod http;
mod lag;
mod plan;
mod probe;
mod schedule;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::Address;
use baton_core::probe::{Distrust, FailureClass, LocalTime, Outcome, Timing};
use rustls::pki_types::CertificateDer;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

pub(crate) use crate::clock::Clock;
pub(crate) use lag::LagMeter;
pub(crate) use plan::{CheckPlan, PlanKind};
pub(crate) use schedule::{Pace, TargetId};
pub(crate) use tls::read_ca_file;

use crate::net::target::{fault, resolve, tcp, tls};

use agent::Agents;
use held::Holds;
use probe::{Means, Probe};
use resolve::Resolver;
use schedule::{Rhythm, Schedule};
use tls::Roots;

/// The most probes in flight. Enough for 2,000 targets a second that all hang for half a second; each takes a descriptor
/// and a few kilobytes. Where the process may open fewer files, a quarter of those.
const IN_FLIGHT_MAX: usize = 1_024;

/// The most local commands that run at once. They are bounded apart from sockets: thirty processes are a burden to a
/// machine that does not notice a thousand connections.
const AGENTS_MAX: usize = 32;

/// The most news handed over at once, so that whoever takes them gets to look at other things between.
const NEWS_MAX: usize = 256;

/// What this node's own configuration says about probing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProbeConfig {
    /// Certificates trusted beside the system's.
    pub(crate) ca: Vec<CertificateDer<'static>>,
    /// The file that they came from, which is read again from time to time.
    pub(crate) ca_file: Option<PathBuf>,
    /// The local commands that checks of type `agent` name: the program and its arguments.
    pub(crate) agents: BTreeMap<InstanceId, Vec<String>>,
}

/// What is probed, and by which check.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Which instance it is of.
    pub(crate) of: (ServiceName, InstanceId),
    /// Where it listens.
    pub(crate) address: Address,
    /// What to ask.
    pub(crate) plan: Arc<CheckPlan>,
    /// Whether to hold an idle connection to it, the end of which is told.
    pub(crate) watch: bool,
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

/// What the prober has to tell.
#[derive(Debug)]
pub(crate) enum ProberNews {
    /// A probe has landed.
    Result(ProbeResult),
    /// The held connection to a target has ended, and the target is being probed. A hint to look closely, and no more.
    Ended(TargetId),
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
    means: Arc<Means>,
    schedule: Schedule,
    targets: HashMap<TargetId, Known>,
    holds: Holds,
    flying: JoinSet<ProbeResult>,
    by_task: HashMap<Id, Flight>,
    in_flight_max: usize,
    /// Whether probes that are due wait for others to land: then their being late is our own limit's doing.
    held_back: bool,
    /// How many of those in flight are local commands. They take no socket, but a process each.
    agents: usize,
    /// Local commands that are due and wait for others to end.
    agents_waiting: VecDeque<TargetId>,
    last_id: u64,
}

/// A probe under way.
#[derive(Debug)]
struct Flight {
    id: TargetId,
    is_agent: bool,
}

#[derive(Debug)]
struct Known {
    target: Arc<Target>,
    probe: Option<AbortHandle>,
}

impl Prober {
    /// A prober without targets, on the present runtime.
    pub(crate) fn start(clock: Clock, lag: LagMeter, config: &ProbeConfig) -> Self {
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let quarter = files.map_or(IN_FLIGHT_MAX, |files| usize::try_from(files / 4).unwrap_or(IN_FLIGHT_MAX));
        let means = Arc::new(Means {
            clock,
            lag,
            resolver: Resolver::new(clock),
            roots: Roots::with(&config.ca, config.ca_file.as_deref()),
            agents: Agents::new(&config.agents),
        });
        Self {
            clock,
            holds: Holds::new(means.clone(), files),
            means,
            schedule: Schedule::default(),
            targets: HashMap::new(),
            flying: JoinSet::new(),
            by_task: HashMap::new(),
            in_flight_max: quarter.clamp(1, IN_FLIGHT_MAX),
            held_back: false,
            agents: 0,
            agents_waiting: VecDeque::new(),
            last_id: 0,
        }
    }

    /// Takes on a target. It is probed at the fast pace until [`Self::pace`] says otherwise.
    pub(crate) fn insert(&mut self, target: Target) -> TargetId {
        self.last_id += 1;
        let id = TargetId(self.last_id);
        let rhythm = Rhythm { interval: target.plan.interval, fast: target.plan.fast_interval, hash: target.hash };
        self.schedule.insert(id, rhythm, self.clock.now());
        let target = Arc::new(target);
        if target.watch {
            self.holds.insert(id, target.clone());
        }
        self.targets.insert(id, Known { target, probe: None });
        self.count_targets();
        id
    }

    /// Lets a target go. A probe of it that is under way is broken off, and tells nothing; a held connection is closed.
    pub(crate) fn remove(&mut self, id: TargetId) {
        self.schedule.remove(id);
        self.holds.remove(id);
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

    /// Waits until probes have landed or held connections have ended and hands over what there is to tell, starting other
    /// probes as they fall due. May be dropped at any time without losing anything. Never ends while there is no target.
    pub(crate) async fn next(&mut self) -> Vec<ProberNews> {
        loop {
            self.launch();
            let room = self.has_room();
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
                    let mut news = Vec::new();
                    news.extend(self.landed(joined).map(ProberNews::Result));
                    while news.len() < NEWS_MAX && let Some(joined) = self.flying.try_join_next_with_id() {
                        news.extend(self.landed(joined).map(ProberNews::Result));
                    }
                    if !news.is_empty() {
                        return news;
                    }
                }
                id = self.holds.ended() => {
                    self.hurry(id);
                    self.launch();
                    return vec![ProberNews::Ended(id)];
                }
                () = falls_due => {}
            }
        }
    }

    /// Whether one more socket may be opened.
    fn has_room(&self) -> bool {
        self.flying.len() - self.agents < self.in_flight_max
    }

    /// Starts what is due, as far as there is room.
    fn launch(&mut self) {
        let now = self.clock.now();
        while self.agents < AGENTS_MAX
            && let Some(id) = self.agents_waiting.pop_front()
        {
            // Their being late is our own limit's doing.
            self.begin(id, now);
        }
        while self.has_room() {
            let Some((id, due)) = self.schedule.pop(now) else {
                self.held_back = false;
                return;
            };
            let is_agent = self.targets.get(&id).is_some_and(|known| known.target.plan.is_agent());
            if is_agent && self.agents >= AGENTS_MAX {
                self.agents_waiting.push_back(id);
            } else {
                self.begin(id, if self.held_back { now } else { due });
            }
        }
        self.held_back = self.schedule.next_due().is_some_and(|due| due <= now);
    }

    fn begin(&mut self, id: TargetId, due: LocalTime) {
        let Some(known) = self.targets.get_mut(&id) else { return };
        let is_agent = known.target.plan.is_agent();
        let probe = Probe { id, target: known.target.clone(), due, means: self.means.clone() };
        let task = self.flying.spawn(probe.run());
        self.agents += usize::from(is_agent);
        self.by_task.insert(task.id(), Flight { id, is_agent });
        known.probe = Some(task);
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
        let Flight { id, is_agent } = self.by_task.remove(&task)?;
        self.agents -= usize::from(is_agent);
        let known = self.targets.get_mut(&id)?;
        known.probe = None;
        let now = self.clock.now();
        self.schedule.finished(id, now);
        let result = result?;
        match &result.seen {
            Ok(Outcome::Success) => self.holds.found_well(id, now),
            Ok(Outcome::Failure { class: FailureClass::Connection | FailureClass::Timeout, .. }) => {
                self.holds.found_nobody(id, now);
            }
            // Somebody is there, or nobody knows.
            Ok(Outcome::Failure { .. }) | Err(_) => {}
        }
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
