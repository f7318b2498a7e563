//! Heartbeats on their way to an answer: each waits for a read-index round that began after it was received, and is then
//! granted time, or not, from what is applied by then. What takes something away (passive, another session, no such
//! instance) waits as well: a leader that was deposed and does not know it must not end what its successor has begun. Which
//! round speaks for whom is `core::lease::Rounds`; whether time is granted is `core::lease::Leases`. Here they are only
//! carried from one to the other.

use std::time::Duration;

use baton_client::view::{HeartbeatAnswer, Role};
use baton_core::lease::{LeaseTerms, ReadPoint, Renewal, Rounds, Withheld};
use baton_core::policy::{Liveness, OnQuorumLoss};
use baton_core::state::{Instance, Phase, Service};
use baton_core::time::{ClusterTime, Millis};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::watched::Rhythm;
use crate::consensus::{Consensus, ReadError};
use crate::leases::LeaderBook;
use crate::reports::wire::{Beat, BeatAnswer, HeartbeatsAnswer};
use crate::store::StateReader;

/// How many renewals a holder is to send within one lease: four may be lost.
const RENEWALS_PER_LEASE: u64 = 5;

/// Batches of heartbeats that may wait for a round. Each node has a few under way at a time; beyond this there is no quorum,
/// and whoever asks again in vain is told so.
const WAITING_MAX: usize = 256;

/// One batch of heartbeats.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) beats: Vec<Beat>,
    pub(super) answer: oneshot::Sender<Bytes>,
}

/// The renewals of one term.
pub(super) struct Renewals {
    rounds: Rounds<Waiting>,
    round: Option<BoxFuture<'static, Result<ReadPoint, ReadError>>>,
}

impl Renewals {
    pub(super) fn new() -> Self {
        Self { rounds: Rounds::default(), round: None }
    }

    /// Takes a batch. Dropped where too many wait: whoever asked asks again.
    pub(super) fn take(&mut self, waiting: Waiting, consensus: &Consensus) {
        if self.rounds.len() < WAITING_MAX {
            self.rounds.receive(waiting);
            self.begin(consensus);
        }
    }

    /// Begins a round for all who wait, if none is under way.
    fn begin(&mut self, consensus: &Consensus) {
        if self.rounds.wanted() {
            // Who is served is settled before the question goes out.
            self.rounds.begin();
            let consensus = consensus.clone();
            self.round = Some(async move { consensus.read_point().await }.boxed());
        }
    }

    /// The end of the round that is under way; never, where none is.
    pub(super) async fn round_ended(&mut self) -> Result<ReadPoint, ReadError> {
        match &mut self.round {
            Some(round) => {
                let found = round.await;
                self.round = None;
                found
            }
            None => std::future::pending().await,
        }
    }

    /// Grants what may be granted after a round, and answers. Where the round failed, or was made in another term than the
    /// table's, nobody is answered: this node may not lead any more, and whoever asks is sent to whoever does.
    pub(super) fn grant(&mut self, found: Result<ReadPoint, ReadError>, book: &LeaderBook, consensus: &Consensus) {
        let served = self.rounds.end();
        match found {
            Ok(point) => {
                let reader = consensus.reader();
                let at = consensus.now().time;
                for Waiting { beats, answer } in served {
                    let answers: Option<Vec<BeatAnswer>> =
                        beats.iter().map(|beat| granted(book, point, reader, beat, at)).collect();
                    let Some(answers) = answers else { continue };
                    if let Ok(told) = serde_json::to_vec(&HeartbeatsAnswer { answers }) {
                        // Whoever no longer waits needs no answer.
                        let _ = answer.send(told.into());
                    }
                }
            }
            Err(error) => tracing::debug!(%error, waiting = served.len(), "no lease is granted: no quorum answered"),
        }
        self.begin(consensus);
    }
}

/// The answer to a heartbeat, from the state that the round vouches for; `None` where it vouches for nothing here.
fn granted(
    book: &LeaderBook,
    point: ReadPoint,
    reader: &StateReader,
    beat: &Beat,
    at: ClusterTime,
) -> Option<BeatAnswer> {
    let asked = Renewal { service: &beat.service, instance: &beat.instance, session: &beat.session };
    let granted = book.grant(point, reader, &asked);
    if matches!(granted, Err(Withheld::OtherTerm | Withheld::Behind)) {
        // Nothing that this node holds is vouched for then: it must not say that somebody is not there, either.
        return None;
    }
    let view = reader.view();
    let Some(service) = view.state.service(&beat.service) else { return Some(BeatAnswer::NoSuchService) };
    let Some(instance) = service.instances.get(&beat.instance) else { return Some(BeatAnswer::NoSuchInstance) };
    if instance.registration.liveness == Liveness::Probe {
        return Some(BeatAnswer::NotHeartbeat);
    }
    if instance.session.as_ref() != Some(&beat.session) {
        return Some(BeatAnswer::UnknownSession);
    }
    let mut answer = told(service, instance, at);
    match granted {
        Ok(granted) => {
            answer.role = Role::Active;
            answer.token = Some(granted.token);
            answer.lease_ms = Some(granted.ttl.0);
            answer.on_quorum_loss = Some(granted.on_quorum_loss).filter(|word| *word == OnQuorumLoss::Freeze);
            metrics::counter!("baton_leases_granted_total").increment(1);
        }
        // Another is being promoted, which may still fail: nothing is granted, and nothing taken away.
        Err(Withheld::Sealed) => {
            answer.role = Role::Active;
            answer.token = service.active_token();
        }
        Err(Withheld::NotHolder | Withheld::NoLease | Withheld::OtherTerm | Withheld::Behind) => {}
    }
    Some(BeatAnswer::Taken(answer))
}

/// What a heartbeat is answered where no time is granted. Whoever may not act without a lease is passive until it has one.
pub(super) fn told(service: &Service, instance: &Instance, at: ClusterTime) -> HeartbeatAnswer {
    let leased = service.assignment.last_holder.as_ref().and_then(|holder| holder.lease);
    let holds = service.is_active(&instance.id);
    let role = if holds && leased.is_some() { Role::Passive } else { Role::of(service, instance, at) };
    let token = service.active_token().filter(|_| holds && role == Role::Active);
    HeartbeatAnswer {
        role,
        token,
        lease_ms: None,
        on_quorum_loss: None,
        phase: service.assignment.phase,
        interval_ms: interval(service, instance, leased.filter(|_| holds)).0,
    }
}

/// How often the leader wants to hear of an instance.
fn interval(service: &Service, instance: &Instance, lease: Option<LeaseTerms>) -> Millis {
    let expected = Rhythm::of(&service.spec, service.checks_of(instance)).expected;
    let renewals = lease.map_or(Duration::MAX, |terms| Duration::from_millis(terms.ttl.0 / RENEWALS_PER_LEASE));
    // Whoever is to step down, or may be the next one, is not kept waiting for longer than its lease would last.
    let moving = match service.assignment.phase {
        Phase::Switching | Phase::FailingOver | Phase::Promoting => {
            Duration::from_millis(service.spec.lease.ttl.0 / RENEWALS_PER_LEASE)
        }
        Phase::Vacant | Phase::Active => Duration::MAX,
    };
    let interval = expected.min(renewals).min(moving);
    Millis(u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1))
}
