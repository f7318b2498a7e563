//! The monitor: `ProbeResult`s in, proposed verdicts out. It tells the prober what to probe, by what the state says, and
//! tells the cluster what this node holds of each instance. The deciding is in `book` and `say`; here is only the loop that
//! carries news to them and proposals from them. Health is not computed here: `apply` counts it from every observer's verdicts.

mod book;
mod heard;
mod say;
mod short;
mod survey;
mod watch;

#[cfg(test)]
mod live;
#[cfg(test)]
mod tests;

use std::time::Duration;

use baton_core::command::{Command, Reply};
use baton_core::id::NodeId;
use baton_core::probe::LocalTime;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, Leadership};
use crate::prober::{Clock, LagMeter, Pace, ProbeConfig, Prober, ProberNews, Target, TargetId};
use crate::reports::ProbeTally;
use crate::store::Changed;
use book::Book;
use heard::{Patience, Unsaid, say};

/// How long verdicts are gathered before they are proposed: many instances fail together, and one entry carries them all.
const GATHER: Duration = Duration::from_millis(10);

/// How often this node asks itself whether it may trust what it sees.
const VITALS_EVERY: Duration = Duration::from_millis(100);

/// A node that has heard nothing of its quorum for so long may be cut off. Four of Raft's heartbeats, and no longer than
/// three failures take at the usual fast pace: a node that is cut off notices before it accuses anybody.
const SILENCE_MAX: Duration = Duration::from_millis(400);

/// A stop of the whole process of at least this length makes everything it held unknown. Shorter ones only spoil the
/// probes that were under way.
const STOOD_STILL: Duration = Duration::from_secs(1);

/// How often everything is compared with what is committed, whatever the changes told. A safety net: it mends what
/// nobody foresaw.
const COMPARE_ALL_EVERY: Duration = Duration::from_secs(5);

/// What the book asks of a prober. A trait so that the book can be tried without sockets.
pub(crate) trait Probing {
    /// Takes on a target, at the fast pace.
    fn insert(&mut self, target: Target) -> TargetId;
    /// Lets a target go.
    fn remove(&mut self, id: TargetId);
    /// Sets how fast it is probed.
    fn pace(&mut self, id: TargetId, pace: Pace);
    /// Probes it at once.
    fn hurry(&mut self, id: TargetId);
}

impl Probing for Prober {
    fn insert(&mut self, target: Target) -> TargetId {
        self.insert(target)
    }

    fn remove(&mut self, id: TargetId) {
        self.remove(id);
    }

    fn pace(&mut self, id: TargetId, pace: Pace) {
        self.pace(id, pace);
    }

    fn hurry(&mut self, id: TargetId) {
        self.hurry(id);
    }
}

/// Probes every instance and proposes what this node holds of it, until told to stop.
pub(crate) async fn run(
    node_id: NodeId,
    probe: ProbeConfig,
    consensus: Consensus,
    tally: ProbeTally,
    shutdown: CancellationToken,
) {
    let clock = Clock;
    let lag = LagMeter::start(clock);
    let monitor = Monitor {
        book: Book::new(node_id, clock.now()).counting(tally),
        prober: Prober::start(clock, lag.clone(), &probe),
        clock,
        lag,
        consensus,
        led: None,
        looked_at_vitals: clock.now(),
        compared_all: clock.now(),
        proposal: None,
        speak_at: None,
        patience: Patience::default(),
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = monitor.watch() => {}
    }
}

/// The loop and what it holds.
struct Monitor {
    book: Book,
    prober: Prober,
    clock: Clock,
    lag: LagMeter,
    consensus: Consensus,
    /// The term and the leader under which the book sees.
    led: Option<(u64, NodeId)>,
    looked_at_vitals: LocalTime,
    compared_all: LocalTime,
    /// The one proposal under way. What changes meanwhile is said in the next.
    proposal: Option<BoxFuture<'static, Result<Reply, Unsaid>>>,
    /// When to propose what has been gathered.
    speak_at: Option<LocalTime>,
    /// How long the quorum gets to hear this node before it accuses.
    patience: Patience,
}

impl Monitor {
    async fn watch(mut self) {
        // Subscribed before the first look, so that nothing falls between.
        let mut changes = self.consensus.reader().changes();
        let mut leadership = self.consensus.leadership();
        let mut vitals = tokio::time::interval(VITALS_EVERY);
        vitals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.rescan();
        loop {
            self.plan_to_speak();
            let wait = self.speak_at.map(|at| at.since(self.clock.now()));
            let time_to_speak = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            let proposal = self.proposal.as_mut();
            let answered = async {
                match proposal {
                    Some(proposal) => proposal.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                news = self.prober.next() => {
                    let now_led = leadership.borrow().clone();
                    self.look_at_quorum(&now_led);
                    for news in &news {
                        match news {
                            ProberNews::Result(result) => self.book.seen(result, &mut self.prober),
                            ProberNews::Ended(target) => self.book.hinted(*target, &mut self.prober),
                        }
                    }
                }
                changed = changes.recv() => match changed {
                    Ok(Changed::Objects(changed)) => {
                        let view = self.consensus.reader().view();
                        self.book.changed(&view.state, &changed, &mut self.prober);
                    }
                    Ok(Changed::Everything) | Err(RecvError::Lagged(_)) => self.rescan(),
                    Err(RecvError::Closed) => return,
                },
                told = leadership.changed() => {
                    if told.is_err() {
                        return;
                    }
                    let now_led = leadership.borrow_and_update().clone();
                    self.look_at_quorum(&now_led);
                }
                _ = vitals.tick() => {
                    let now_led = leadership.borrow().clone();
                    self.look_at_vitals(&now_led);
                }
                answer = answered => {
                    self.proposal = None;
                    self.take_answer(answer);
                }
                () = time_to_speak => self.speak(),
            }
        }
    }

    fn rescan(&mut self) {
        let view = self.consensus.reader().view();
        self.book.rescan(&view.state, &mut self.prober);
        self.book.compare_all();
    }

    /// Whether this node hears its quorum now, and whether it is still the same one.
    fn look_at_quorum(&mut self, leadership: &Leadership) {
        let now = self.clock.now();
        let fresh = self.consensus.staleness().is_some_and(|silence| silence <= SILENCE_MAX);
        match leadership.leader.filter(|_| fresh) {
            None => {
                if self.led.take().is_some() {
                    metrics::counter!("baton_monitor_self_doubts_total", "reason" => "quorum").increment(1);
                }
                if self.proposal.take().is_some() {
                    // What is still on its way was seen by one who may have been cut off already.
                    self.book.failed(now);
                }
                self.book.sight_lost(now, &mut self.prober);
            }
            Some(leader) => {
                let led = Some((leadership.term, leader));
                if self.led != led {
                    // Another leader, or none for a while: what was seen meanwhile is confirmed before it is said.
                    self.led = led;
                    self.book.look_again(now, &mut self.prober);
                }
            }
        }
        metrics::gauge!("baton_observer_blind").set(if self.led.is_none() { 1.0 } else { 0.0 });
    }

    fn look_at_vitals(&mut self, leadership: &Leadership) {
        let now = self.clock.now();
        let stop = self.lag.worst_since(self.looked_at_vitals);
        self.looked_at_vitals = now;
        metrics::gauge!("baton_node_lag_seconds").set(stop.as_secs_f64());
        if stop >= STOOD_STILL {
            metrics::counter!("baton_monitor_self_doubts_total", "reason" => "stood_still").increment(1);
            self.book.stood_still(now, stop, &mut self.prober);
        }
        self.look_at_quorum(leadership);
        let view = self.consensus.reader().view();
        self.book.examine_itself(&view.state, now, &mut self.prober);
        self.tell_trust();
        let short = u32::try_from(self.book.short_of()).unwrap_or(u32::MAX);
        metrics::gauge!("baton_monitor_checks_without_means").set(f64::from(short));
        self.book.compare_overdue(now);
        if now.since(self.compared_all) >= COMPARE_ALL_EVERY {
            self.compared_all = now;
            self.book.compare_all();
        }
    }

    /// Sets the time of the next proposal: a moment after the first thing to say came up, and not before the last one is
    /// answered.
    fn plan_to_speak(&mut self) {
        self.speak_at = match (&self.proposal, self.book.wants_to_speak()) {
            (None, Some(from)) => Some(self.speak_at.unwrap_or_else(|| self.clock.now().plus(GATHER)).max(from)),
            (Some(_), _) | (None, None) => None,
        };
    }

    fn speak(&mut self) {
        self.speak_at = None;
        let view = self.consensus.reader().view();
        let proposal = self.book.proposal(&view.state, self.clock.now(), &mut self.prober);
        self.tell_trust();
        let Some(record) = proposal else { return };
        let said = u64::try_from(record.verdicts.len()).unwrap_or(u64::MAX);
        metrics::counter!("baton_verdicts_proposed_total").increment(said);
        let consensus = self.consensus.clone();
        let patience = self.patience;
        self.proposal = Some(
            async move {
                let propose = async |record| consensus.propose(Command::VerdictsRecord(record)).await;
                say(record, patience, consensus.barrier(), propose).await
            }
            .boxed(),
        );
    }

    /// Whether what this node says can be believed, in its own opinion.
    fn tell_trust(&self) {
        let trusts = |yes: bool| if yes { 1.0 } else { 0.0 };
        metrics::gauge!("baton_monitor_trusts_itself", "reason" => "sight").set(trusts(self.book.trusts_itself()));
        metrics::gauge!("baton_monitor_trusts_itself", "reason" => "quorum").set(trusts(self.led.is_some()));
    }

    fn take_answer(&mut self, answer: Result<Reply, Unsaid>) {
        match answer {
            Ok(Ok(_)) => {
                self.patience.heard();
                self.book.accepted();
            }
            Ok(Err(refusal)) => {
                tracing::debug!(%refusal, "verdicts were refused");
                self.book.failed(self.clock.now());
            }
            Err(error) => {
                tracing::debug!(%error, "verdicts were not recorded");
                metrics::counter!("baton_verdict_proposals_failed_total").increment(1);
                self.book.failed(self.clock.now());
                match error {
                    // It may have been cut off while it looked: only what it sees from now on counts.
                    Unsaid::Unheard => {
                        if self.patience.unheard() {
                            tracing::warn!("{error}: what it saw is looked at again, and the quorum gets more time");
                        }
                        self.book.doubt_itself(self.clock.now(), &mut self.prober);
                    }
                    Unsaid::Failed(_) => {}
                }
            }
        }
    }
}
