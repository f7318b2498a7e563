//! The leader's judge: what clients report and instances say comes in from every node, and goes out as judgements and as
//! what becomes of breakers. The deciding is in `book`; here is only the loop that carries news to it and proposals from
//! it. Each node runs the loop, and only the leader judges. Nothing outlives a term.

mod book;
mod counts;
mod renewals;
mod watched;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use baton_core::command::{Command, InstanceReturned, JudgementsRecord, Reply};
use baton_core::id::NodeId;
use baton_core::probe::{LocalTime, Verdict};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::Serialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::consensus::{Answers, Consensus, Leadership, ProposeError};
use crate::leases::LeaderBook;
use crate::prober::{Clock, LagMeter};
use crate::reports::wire::{self, Beat, BeatAnswer, CallsAsk, CountsAsk, FactsAsk, HeartbeatsAsk, TotalsAsk};
use crate::store::{Changed, View};
use book::{Book, Key};
use renewals::{Renewals, Waiting};
use watched::{Fate, Place};

/// Questions that may wait. Each node sends some dozens a second.
const QUEUE: usize = 1_024;

/// How long judgements are gathered before they are proposed: many instances fail together.
const GATHER: Duration = Duration::from_millis(10);

/// How often the judge looks at the clock, whatever happens: windows empty, and it must notice that it stood still.
const TURN_EVERY: Duration = Duration::from_millis(100);

/// A silence without a quorum that is longer than this means that this leader was cut off: whoever was not heard meanwhile
/// is forgiven. Raft's own heartbeats come every 100 ms.
const CUT_OFF: Duration = Duration::from_millis(400);

/// A stop of this node that is longer is worth a line in its log.
const STOOD_STILL: Duration = Duration::from_millis(400);

/// How often everything is compared with what is committed, whatever the changes told.
const COMPARE_ALL_EVERY: Duration = Duration::from_secs(5);

/// Before it accuses, the leader makes sure that its quorum hears it, and gives that so long; twice as long after each time
/// in vain.
const HEARD_WITHIN: Duration = Duration::from_millis(300);
const HEARD_WITHIN_MAX: Duration = Duration::from_millis(2_400);

/// Commands about breakers under way at once.
const BREAKERS_IN_FLIGHT: usize = 64;

/// What a node asks of the leader's judge, understood.
#[derive(Debug)]
enum Asked {
    Calls(CallsAsk),
    Totals(TotalsAsk),
    Heartbeats(HeartbeatsAsk),
    Counts(CountsAsk),
    Facts(FactsAsk),
}

#[derive(Debug)]
struct Question {
    from: NodeId,
    asked: Asked,
    answer: oneshot::Sender<Bytes>,
}

/// The way in for questions, from whatever node.
#[derive(Clone, Debug)]
pub(crate) struct Judge {
    queue: mpsc::Sender<Question>,
}

/// The end that judges.
#[derive(Debug)]
pub(crate) struct JudgeTask {
    consensus: Consensus,
    leases: LeaderBook,
    questions: mpsc::Receiver<Question>,
}

/// The judge's two ends.
pub(crate) fn new(consensus: Consensus, leases: LeaderBook) -> (Judge, JudgeTask) {
    let (queue, questions) = mpsc::channel(QUEUE);
    (Judge { queue }, JudgeTask { consensus, leases, questions })
}

impl Answers for Judge {
    fn answer(&self, from: NodeId, kind: &str, body: Bytes) -> BoxFuture<'static, Option<Bytes>> {
        // Read here, in the task of whoever asks: the judge's own loop has better things to do.
        let asked = match kind {
            wire::CALLS => serde_json::from_slice(&body).map(Asked::Calls),
            wire::TOTALS => serde_json::from_slice(&body).map(Asked::Totals),
            wire::HEARTBEATS => serde_json::from_slice(&body).map(Asked::Heartbeats),
            wire::COUNTS => serde_json::from_slice(&body).map(Asked::Counts),
            wire::FACTS => serde_json::from_slice(&body).map(Asked::Facts),
            other => {
                tracing::warn!(from, kind = other, "a node asks the leader what this version does not know");
                return futures_util::future::ready(None).boxed();
            }
        };
        let queue = self.queue.clone();
        let kind = kind.to_owned();
        async move {
            let asked = asked
                .inspect_err(|error| tracing::warn!(from, kind, %error, "a node's question does not parse"))
                .ok()?;
            let (answer, answered) = oneshot::channel();
            queue.try_send(Question { from, asked, answer }).ok()?;
            answered.await.ok()
        }
        .boxed()
    }
}

impl JudgeTask {
    /// Judges while this node leads, until told to stop.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let mut leadership = self.consensus.leadership();
        loop {
            let leads = tokio::select! {
                () = shutdown.cancelled() => return,
                leads = leadership.wait_for(|leadership| leadership.is_leader) => match leads {
                    Ok(leads) => leads.clone(),
                    Err(_) => return,
                },
            };
            // What was asked of an earlier term is answered by nobody.
            while self.questions.try_recv().is_ok() {}
            let tenure = Tenure::new(self.consensus.clone(), self.leases.clone(), &leads);
            tenure.run(&mut self.questions, &mut leadership, &shutdown).await;
        }
    }
}

/// Why judgements were not recorded.
#[derive(Debug, thiserror::Error)]
enum Unsaid {
    /// The quorum did not hear this node when it was about to accuse.
    #[error("no quorum heard this leader before it could accuse anybody")]
    Unheard,
    /// They were proposed in vain.
    #[error(transparent)]
    Failed(#[from] ProposeError),
}

/// How far judgements have come.
enum Said {
    /// The quorum hears this node: they may be proposed, as far as they still hold.
    Heard(JudgementsRecord),
    /// They were proposed; what the log said.
    Answered(Reply),
}

type BreakerOutcome = (Key, u64, Result<Reply, ProposeError>);

/// One term as leader. Nothing of it outlives the term.
struct Tenure {
    consensus: Consensus,
    leases: LeaderBook,
    term: u64,
    clock: Clock,
    /// How late the timers of this node run, and with them everything that brings heartbeats here.
    lag: LagMeter,
    book: Book,
    /// When the loop last turned.
    turned: LocalTime,
    swept: LocalTime,
    compared_all: LocalTime,
    /// The one proposal of judgements under way.
    proposal: Option<BoxFuture<'static, Result<Said, Unsaid>>>,
    speak_at: Option<LocalTime>,
    patience: Duration,
    /// Heartbeats that may be granted time.
    renewals: Renewals,
    /// Instances that had left and heartbeat again: proposed, and not yet answered.
    returning: BTreeSet<Key>,
}

impl Tenure {
    fn new(consensus: Consensus, leases: LeaderBook, leads: &Leadership) -> Self {
        // A majority has voted for this node before it could know that it leads.
        leases.begin(leads.term);
        let clock = Clock;
        let now = clock.now();
        Self {
            consensus,
            leases,
            term: leads.term,
            clock,
            lag: LagMeter::start(clock),
            book: Book::new(now),
            turned: now,
            swept: now,
            compared_all: now,
            proposal: None,
            speak_at: None,
            patience: HEARD_WITHIN,
            renewals: Renewals::new(),
            returning: BTreeSet::new(),
        }
    }

    async fn run(
        mut self,
        questions: &mut mpsc::Receiver<Question>,
        leadership: &mut watch::Receiver<Leadership>,
        shutdown: &CancellationToken,
    ) {
        // Subscribed before the first look, so that nothing falls between.
        let mut changes = self.consensus.reader().changes();
        self.rescan();
        let mut breakers: FuturesUnordered<BoxFuture<'static, BreakerOutcome>> = FuturesUnordered::new();
        let mut returns: FuturesUnordered<BoxFuture<'static, Key>> = FuturesUnordered::new();
        let mut turn = interval(TURN_EVERY);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.look_at_itself();
            self.move_breakers(&mut breakers);
            self.plan_to_speak();
            let now = self.clock.now();
            let speak = self.speak_at.map(|at| at.since(now));
            let alarm = self.book.alarm().map(|at| at.since(now));
            let proposal = self.proposal.as_mut();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = leads_no_longer(leadership, self.term) => return,
                question = questions.recv() => match question {
                    Some(question) => self.answer(question, &mut returns),
                    None => return,
                },
                found = self.renewals.round_ended() => {
                    self.renewals.grant(found, &self.leases, &self.consensus);
                }
                Some(key) = returns.next(), if !returns.is_empty() => {
                    self.returning.remove(&key);
                }
                changed = changes.recv() => match changed {
                    Ok(Changed::Objects(changed)) => {
                        let view = self.consensus.reader().view();
                        self.book.changed(&view.state, &changed, self.clock.now());
                    }
                    Ok(Changed::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => self.rescan(),
                    Err(RecvError::Closed) => return,
                },
                _ = turn.tick() => self.turn(),
                () = sleep(alarm) => self.ring(),
                said = finished(proposal) => {
                    self.proposal = None;
                    match said {
                        Ok(Said::Heard(record)) => {
                            // What came in while the quorum was asked is known before anybody is accused.
                            for _ in 0..QUEUE {
                                let Ok(question) = questions.try_recv() else { break };
                                self.answer(question, &mut returns);
                            }
                            self.propose_what_holds(record);
                        }
                        Ok(Said::Answered(reply)) => self.take_answer(Ok(reply)),
                        Err(unsaid) => self.take_answer(Err(unsaid)),
                    }
                }
                Some((key, generation, outcome)) = breakers.next(), if !breakers.is_empty() => {
                    self.breaker_answered(key, generation, &outcome);
                }
                () = sleep(speak) => self.speak(),
            }
        }
    }

    fn rescan(&mut self) {
        let view = self.consensus.reader().view();
        self.book.rescan(&view.state, self.clock.now());
        self.book.compare_all();
    }

    /// Whether this leader may hold anybody's silence against them. Asked before anything else, at every turn: whoever
    /// wakes up after a stop must not begin by accusing. Late is this loop, or any timer of the node since it last turned.
    fn look_at_itself(&mut self) {
        let now = self.clock.now();
        let since = std::mem::replace(&mut self.turned, now);
        let late = now.since(since.plus(TURN_EVERY)).max(self.lag.worst_since(since));
        if late > STOOD_STILL {
            tracing::warn!(?late, "this node stood still: nobody's silence counts until now");
        }
        self.book.ran_late(late, now);
    }

    fn turn(&mut self) {
        let now = self.clock.now();
        if self.consensus.staleness().is_none_or(|silence| silence > CUT_OFF) {
            // The nodes that were told of heartbeats may not have reached this one.
            self.book.forgive(now);
        }
        if now.since(self.swept) >= TURN_EVERY {
            self.swept = now;
            self.book.sweep(now);
            self.book.compare_overdue(now);
        }
        if now.since(self.compared_all) >= COMPARE_ALL_EVERY {
            self.compared_all = now;
            self.rescan();
        }
    }

    fn ring(&mut self) {
        // Checked once more: the alarm itself may be what the stop delayed.
        self.look_at_itself();
        self.book.ring(self.clock.now());
    }

    fn answer(&mut self, question: Question, returns: &mut FuturesUnordered<BoxFuture<'static, Key>>) {
        let Question { from, asked, answer } = question;
        let view = self.consensus.reader().view();
        let now = self.clock.now();
        let told = match asked {
            Asked::Calls(ask) => encoded(&self.book.calls(&view.state, from, &ask, now)),
            Asked::Totals(told) => {
                self.book.totals(&view.state, from, told);
                Some(Bytes::new())
            }
            Asked::Heartbeats(ask) => {
                let at = self.consensus.now().time;
                let HeartbeatsAsk { boot, beats } = ask;
                for beat in &beats {
                    let place = Some(Place { node: from, boot, number: beat.number }).filter(|it| it.number > 0);
                    match self.book.beat(&view.state, beat, place, now, at) {
                        BeatAnswer::Taken(_) => self.heard(&view, beat, returns),
                        BeatAnswer::NoSuchService
                        | BeatAnswer::NoSuchInstance
                        | BeatAnswer::NotHeartbeat
                        | BeatAnswer::UnknownSession => {}
                    }
                }
                self.renewals.take(Waiting { beats, answer }, &self.consensus);
                return;
            }
            Asked::Facts(FactsAsk { service }) => view
                .state
                .service(&service)
                .and_then(|known| encoded(&self.leases.facts(known, self.consensus.node_id(), self.term))),
            Asked::Counts(ask) => encoded(&self.book.counts(&view.state, &ask)),
        };
        if let Some(told) = told {
            // Whoever no longer waits needs no answer.
            let _ = answer.send(told);
        }
    }

    /// A heartbeat in the instance's present session: what it says beside its state.
    fn heard(&mut self, view: &View, beat: &Beat, returns: &mut FuturesUnordered<BoxFuture<'static, Key>>) {
        let key = (beat.service.clone(), beat.instance.clone());
        // By the book, which knows whether this heartbeat was overtaken by a later one.
        self.leases.note_lag(&beat.service, &beat.instance, self.book.lag(&key));
        let Some(instance) = view.state.instance(&beat.service, &beat.instance) else { return };
        if instance.left && returns.len() < BREAKERS_IN_FLIGHT && self.returning.insert(key.clone()) {
            let consensus = self.consensus.clone();
            let command = Command::InstanceReturned(InstanceReturned {
                service: beat.service.clone(),
                instance: beat.instance.clone(),
                session: beat.session.clone(),
            });
            returns.push(
                async move {
                    if let Err(error) = consensus.propose(command).await {
                        tracing::debug!(%error, "that an instance is back could not be said: its next heartbeat says it");
                    }
                    key
                }
                .boxed(),
            );
        }
    }

    fn move_breakers(&mut self, under_way: &mut FuturesUnordered<BoxFuture<'static, BreakerOutcome>>) {
        let room = BREAKERS_IN_FLIGHT.saturating_sub(under_way.len());
        let view = self.consensus.reader().view();
        for (key, generation, command) in self.book.breaker_commands(&view.state, self.clock.now(), room) {
            let consensus = self.consensus.clone();
            under_way.push(async move { (key, generation, consensus.propose(command).await) }.boxed());
        }
    }

    fn breaker_answered(&mut self, key: Key, generation: u64, outcome: &Result<Reply, ProposeError>) {
        self.book.breaker_answered(key, generation, fate_of(outcome), self.clock.now());
    }

    /// Sets the time of the next proposal: a moment after the first thing to say came up, and not before the last one is
    /// answered.
    fn plan_to_speak(&mut self) {
        self.speak_at = match (&self.proposal, self.book.wants_to_judge()) {
            (None, Some(from)) => Some(self.speak_at.unwrap_or_else(|| self.clock.now().plus(GATHER)).max(from)),
            (Some(_), _) | (None, None) => None,
        };
    }

    fn speak(&mut self) {
        self.speak_at = None;
        self.look_at_itself();
        let view = self.consensus.reader().view();
        let Some(record) = self.book.judgements(&view.state, self.clock.now()) else { return };
        let accuses = record.judgements.iter().any(|judgement| match judgement.verdict {
            Verdict::Suspect | Verdict::Down => true,
            Verdict::Up | Verdict::Unknown => false,
        });
        if !accuses {
            self.propose(record);
            return;
        }
        let (consensus, patience) = (self.consensus.clone(), self.patience);
        self.proposal = Some(
            async move {
                // A leader that is cut off hears nobody. So the quorum must hear it after what it did not hear.
                match tokio::time::timeout(patience, consensus.barrier()).await {
                    Ok(Ok(())) => Ok(Said::Heard(record)),
                    Ok(Err(_)) | Err(_) => Err(Unsaid::Unheard),
                }
            }
            .boxed(),
        );
    }

    /// Asking the quorum takes hundreds of milliseconds on a busy machine: whoever was heard meanwhile is not accused.
    fn propose_what_holds(&mut self, record: JudgementsRecord) {
        self.look_at_itself();
        let view = self.consensus.reader().view();
        match self.book.still_held(&view.state, record) {
            Some(record) => self.propose(record),
            None => self.patience = HEARD_WITHIN,
        }
    }

    fn propose(&mut self, record: JudgementsRecord) {
        let said = u64::try_from(record.judgements.len()).unwrap_or(u64::MAX);
        metrics::counter!("baton_judgements_proposed_total").increment(said);
        let consensus = self.consensus.clone();
        let propose = async move { Ok(Said::Answered(consensus.propose(Command::JudgementsRecord(record)).await?)) };
        self.proposal = Some(propose.boxed());
    }

    fn take_answer(&mut self, answer: Result<Reply, Unsaid>) {
        let now = self.clock.now();
        match answer {
            Ok(Ok(_)) => {
                self.patience = HEARD_WITHIN;
                self.book.judged();
            }
            Ok(Err(refusal)) => {
                tracing::debug!(%refusal, "judgements were refused");
                self.book.not_judged(now);
            }
            Err(error) => {
                tracing::debug!(%error, "judgements were not recorded");
                match error {
                    Unsaid::Unheard => {
                        self.patience = (self.patience * 2).min(HEARD_WITHIN_MAX);
                        self.book.forgive(now);
                    }
                    Unsaid::Failed(_) => {}
                }
                self.book.not_judged(now);
            }
        }
    }
}

/// What became of a proposal about a breaker. One that was refused is as good as not proposed: while the breaker stays
/// as it is, the same would be refused again, so it must not be repeated without a rest.
fn fate_of(outcome: &Result<Reply, ProposeError>) -> Fate {
    match outcome {
        Ok(Ok(_)) => Fate::Done,
        Ok(Err(refusal)) => {
            tracing::debug!(%refusal, "a breaker was not moved");
            Fate::Undone
        }
        Err(ProposeError::NoLeader | ProposeError::Overloaded | ProposeError::Stopped) => Fate::Undone,
        Err(ProposeError::Unknown | ProposeError::Unencodable) => Fate::Unknown,
    }
}

/// Plain data always encodes; were it otherwise, the asker would ask again.
fn encoded<T: Serialize>(answer: &T) -> Option<Bytes> {
    serde_json::to_vec(answer).ok().map(Bytes::from)
}

/// The end of what is under way; never, where nothing is.
async fn finished<T>(work: Option<&mut BoxFuture<'static, T>>) -> T {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}

/// Sleeps for so long; for ever where there is nothing to wake for.
async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Waits until this node does not lead in `term` any more, or is ending.
async fn leads_no_longer(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    // The guard that is handed out must not live across another await, so it ends here.
    let _ = leadership.wait_for(|now| !now.is_leader || now.term != term).await;
}
