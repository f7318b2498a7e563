//! The lease rule, as a leader keeps it: heartbeats are received, a read-index round speaks for those that were there
//! when it began, and each is granted, or not, in one step. Whatever is decided here is decided by `core::lease`; this
//! room has only the waiting in between, in which anybody may be stopped.

use std::time::Duration;

use baton_core::id::InstanceId;
use baton_core::lease::{ReadPoint, Renewal, Withheld};
use baton_core::mutant::{Mutant, planted};
use baton_core::state::{Phase, Service};

use super::clock::Micros;
use super::invariants;
use super::message::{Answer, Beat, NodeTimer, RequestId};
use super::net::Addr;
use super::seen::Sight;
use super::world::{World, tell};

/// How long a leader waits for a majority's answer to a round before it tells those that wait to ask again.
const ROUND_PATIENCE: Duration = Duration::from_millis(400);

/// How soon a grant is tried again for which the state was not yet applied far enough, and how often.
const BEHIND: Duration = Duration::from_millis(3);
const BEHIND_MAX: u32 = 50;

/// A heartbeat that waits for a round, or for its grant.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) via: usize,
    pub(crate) client: Addr,
    pub(crate) request: RequestId,
    pub(crate) beat: Beat,
}

/// The round that is under way: its number, what it found if it is confirmed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    number: u64,
    index: u64,
}

impl World {
    /// A heartbeat has come to a node that believes to lead.
    pub(crate) fn heartbeat(&mut self, at: usize, pending: Pending) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        let Some(lead) = &mut node.lead else { return };
        let term = lead.term;
        let Beat { service, instance, session, .. } = &pending.beat;
        if node.state.instance(service, instance).is_some_and(|it| it.session.as_ref() == Some(session)) {
            lead.heard.insert((service.clone(), instance.clone()), (session.clone(), now));
        }
        if planted(Mutant::NoReadIndex) {
            // The fault: the leader asks nobody but itself.
            let point = ReadPoint { term, index: node.applied };
            self.grant_soon(at, term, point, vec![pending]);
            return;
        }
        lead.rounds.receive(pending);
        self.round_soon(at, term);
    }

    /// Begins a round in a moment, if somebody waits for one and none is under way.
    fn round_soon(&mut self, at: usize, term: u64) {
        let Some(lead) = self.lead(at, term) else { return };
        if lead.rounds.wanted() && !std::mem::replace(&mut lead.round_planned, true) {
            let after = self.about(self.shape.think / 4 + 1);
            self.node_will(at, after, NodeTimer::Round { term });
        }
    }

    pub(crate) fn begin_round(&mut self, at: usize, term: u64) {
        let node = &mut self.nodes[at];
        let Some(lead) = node.lead.as_mut().filter(|lead| lead.term == term) else { return };
        lead.round_planned = false;
        if !lead.rounds.wanted() || !node.raft.leads() || node.raft.term != term {
            return;
        }
        // What was committed before is at the commit index, or before the first entry of its own term.
        let index = node.raft.commit.max(lead.first_index);
        lead.rounds.begin();
        let number = node.raft.begin_round();
        lead.round = Some(Round { number, index });
        self.after_raft(at);
        self.node_will(at, ROUND_PATIENCE, NodeTimer::RoundOver { term, number });
    }

    /// Somebody may have answered.
    pub(crate) fn rounds_moved(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let confirmed = node.raft.confirmed_round();
        let Some(lead) = &mut node.lead else { return };
        let Some(round) = lead.round.filter(|round| round.number <= confirmed && node.raft.term == lead.term) else {
            return;
        };
        lead.round = None;
        let (term, renewals) = (lead.term, lead.rounds.end());
        self.grant_soon(at, term, ReadPoint { term, index: round.index }, renewals);
        self.round_soon(at, term);
    }

    /// Nobody has answered in time.
    pub(crate) fn round_over(&mut self, at: usize, term: u64, number: u64) {
        let Some(lead) = self.lead(at, term) else { return };
        if lead.round.is_none_or(|round| round.number != number) {
            return;
        }
        lead.round = None;
        for Pending { via, client, request, .. } in lead.rounds.end() {
            self.relay(at, via, client, request, Answer::Unavailable);
        }
        self.round_soon(at, term);
    }

    fn grant_soon(&mut self, at: usize, term: u64, point: ReadPoint, renewals: Vec<Pending>) {
        for renewal in renewals {
            let after = self.about(self.shape.think / 4 + 1);
            self.node_will(at, after, NodeTimer::Grant { term, point, renewal, tried: 0 });
        }
    }

    /// Grants a renewal, or tells why not. One step: nothing comes between the check, the record and the answer.
    pub(crate) fn grant(&mut self, at: usize, term: u64, point: ReadPoint, renewal: Pending, tried: u32) {
        let now = self.local(at);
        let node = &mut self.nodes[at];
        let Pending { via, client, request, beat } = &renewal;
        let Beat { service, instance, session, era, .. } = beat;
        let asked = Renewal { service, instance, session };
        let outcome = node.leases.grant(point, node.applied, &node.state, &asked, now);
        let known = node.state.service(service);
        let interval = known.map_or(Duration::from_secs(1), |known| interval(known, instance));
        let current = node.state.instance(service, instance).map(|it| it.session.as_ref() == Some(session));
        let answer = match outcome {
            Ok(granted) => {
                self.granted(at, *era, term, granted.token.0);
                Answer::Role { lease: Some(granted), interval }
            }
            Err(Withheld::Behind) if tried < BEHIND_MAX => {
                if tried == 0 {
                    self.seen.note(Sight::GrantsBehind);
                }
                let after = BEHIND.max(Duration::from_micros(self.shape.apply_lag / 4));
                self.node_will(at, after, NodeTimer::Grant { term, point, renewal, tried: tried + 1 });
                return;
            }
            Err(Withheld::OtherTerm | Withheld::Behind) => Answer::Unavailable,
            Err(Withheld::Sealed) => {
                self.seen.note(Sight::GrantsSealed);
                // Another is being promoted, which may still fail: nothing is granted, and nothing taken away.
                Answer::Undecided
            }
            Err(Withheld::NotHolder | Withheld::NoLease) if current == Some(true) => {
                Answer::Role { lease: None, interval }
            }
            Err(Withheld::NotHolder | Withheld::NoLease) => Answer::UnknownSession,
        };
        if !matches!(answer, Answer::Role { lease: None, .. }) {
            tell!(self, "n{} answers {client} ({service}/{instance} {session}): {answer:?}", at + 1);
        }
        let (via, client, request) = (*via, *client, *request);
        self.relay(at, via, client, request, answer);
    }

    /// A leader of `term` has granted time to one who asked when `era` was the highest elected term.
    fn granted(&mut self, at: usize, era: u64, term: u64, token: u64) {
        invariants::grants(self, at, term, era, token);
        self.seen.note(Sight::Grants);
        if term < self.elected {
            self.seen.note(Sight::DeposedGrants);
        }
        if self.nodes[at].led_before(term) {
            self.seen.note(Sight::ReelectedGrants);
        }
        self.last_grant.insert(token, self.now);
    }
}

/// How often an instance is asked to heartbeat: several times within its lease where it holds, or may be the next to.
fn interval(service: &Service, instance: &InstanceId) -> Duration {
    let lease = service.assignment.last_holder.as_ref().and_then(|holder| holder.lease);
    let moving = match service.assignment.phase {
        Phase::Switching | Phase::FailingOver | Phase::Promoting => true,
        Phase::Vacant | Phase::Active => false,
    };
    let spec = service.spec.lease.ttl.as_duration();
    match lease.filter(|_| service.is_active(instance)) {
        Some(terms) => terms.ttl.as_duration() / RENEWALS_PER_LEASE,
        None if moving => spec / RENEWALS_PER_LEASE,
        None => spec / BEATS_PER_LEASE,
    }
}

/// How many renewals a holder is to send within one lease, and how many heartbeats any other within as long.
const RENEWALS_PER_LEASE: u32 = 5;
const BEATS_PER_LEASE: u32 = 3;

/// True time of the last grant of each token, for those who tell how a promotion came about.
pub(crate) type LastGrant = std::collections::BTreeMap<u64, Micros>;
