//! The table: one term's memory of acknowledged renewals and of seals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{LeaseTerms, ReadPoint};
use crate::id::{InstanceId, ServiceName, Token};
use crate::mutant::{Mutant, planted};
use crate::policy::OnQuorumLoss;
use crate::probe::LocalTime;
use crate::state::{Service, State};
use crate::time::Millis;

/// A holder's wish for more time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewal<'a> {
    /// The service.
    pub service: &'a ServiceName,
    /// The instance.
    pub instance: &'a InstanceId,
    /// The session in which it asks.
    pub session: &'a str,
}

/// What was granted: the holder may act for `ttl` from just before it sent its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// Under which token.
    pub token: Token,
    /// For how long.
    pub ttl: Millis,
    /// What it does without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
}

/// Why nothing was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The round was made in another term than the table's.
    #[error("the leader's term has changed")]
    OtherTerm,
    /// The state is behind the round.
    #[error("the state is not applied up to the read index")]
    Behind,
    /// The session is not the one that holds the service, or it is to stop.
    #[error("this session does not hold the service")]
    NotHolder,
    /// The tenure has no lease: its holder was only probed when it was promoted.
    #[error("this tenure has no lease")]
    NoLease,
    /// A promotion of another is being proposed.
    #[error("the token is sealed: another instance is being promoted")]
    Sealed,
}

/// Why a token could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// The table is another term's.
    #[error("the leader's term has changed")]
    OtherTerm,
    /// The lease may still run.
    #[error("the lease may run for another {} ms", left.as_millis())]
    Runs {
        /// For so long at most, by the leader's clock, if it is not renewed.
        left: Duration,
    },
}

/// One closing of a token. It is opened again by [`Leases::unseal`] only.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a seal that is dropped stays closed until the term ends"]
pub struct Seal {
    term: u64,
    token: Token,
    number: u64,
}

/// What a promotion by `lease` claims, checked at apply: the log entry must be of that very term, so that the claim of a
/// leader that was deposed meanwhile, and whose table nobody keeps, is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeaseClaim {
    /// The token whose lease has run out.
    pub token: Token,
    /// The term of the leader that sealed it.
    pub term: u64,
    /// How long ago that leader recorded the last renewal; none: it never granted any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewed_ago: Option<Millis>,
    /// How long ago that leader was elected.
    pub led_for: Millis,
}

impl LeaseClaim {
    /// Whether its own numbers say what it claims: W has passed since the last renewal, and since the leader's election.
    pub fn waited(&self, terms: &LeaseTerms) -> bool {
        let past = |ago: Millis| ago.as_duration() >= terms.wait();
        (past(self.led_for) || planted(Mutant::NoWaitOfNewLeader)) && self.renewed_ago.is_none_or(past)
    }
}

/// How the lease of a token stands, as far as a node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "lease", rename_all = "snake_case")]
pub enum LeaseStanding {
    /// This node does not know: it does not lead, and could not ask who does.
    #[default]
    Unknown,
    /// It may still run.
    Runs {
        /// For so long at most, by the leader's clock, if it is not renewed.
        left: Millis,
        /// How long ago a renewal was recorded; none: not in this term.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        renewed_ago: Option<Millis>,
    },
    /// It has run out.
    RanOut {
        /// What a proposal may claim, once the token is sealed.
        claim: LeaseClaim,
    },
}

#[derive(Debug, Default)]
struct Tenure {
    /// When the last renewal was recorded.
    renewed: Option<LocalTime>,
    /// The seals that are not lifted, with the moment of each.
    seals: BTreeMap<u64, LocalTime>,
    /// Sent and not yet recorded: only a planted fault leaves anything here.
    unrecorded: bool,
}

/// The leader's table. Every node has one; that of a node which does not lead is another term's, and grants nothing.
#[derive(Debug, Default)]
pub struct Leases {
    term: u64,
    elected: LocalTime,
    tenures: BTreeMap<Token, Tenure>,
    seals: u64,
}

impl Leases {
    /// A table of no term.
    pub fn new() -> Self {
        Self::default()
    }

    /// The term whose table this is.
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// This node was elected in `term`: `now` must be after a majority has voted for it. Said again of the same term, or
    /// late of an older one, it changes nothing.
    pub fn begin(&mut self, term: u64, now: LocalTime) {
        if term <= self.term {
            return;
        }
        let led_before = self.term > 0;
        self.term = term;
        // Another leader may have granted meanwhile: what this table knows is worth nothing, even if it is this node's own.
        if led_before && planted(Mutant::TableKeptOnReelection) {
            return;
        }
        self.elected = now;
        self.tenures.clear();
    }

    /// Grants a renewal, if it may be granted: checks and records in one step. The answer may be sent only after this.
    ///
    /// `point` is what a round found that began after the request was received; `applied` the index of `state`.
    ///
    /// `state` must be read while the lock around this table is held. One that was read before may be from before a promotion
    /// whose seal has been lifted since, and would grant time under a token that is over.
    pub fn grant(
        &mut self,
        point: ReadPoint,
        applied: u64,
        state: &State,
        asked: &Renewal<'_>,
        now: LocalTime,
    ) -> Result<Granted, Withheld> {
        for tenure in self.tenures.values_mut().filter(|tenure| tenure.unrecorded) {
            (tenure.renewed, tenure.unrecorded) = (Some(now), false);
        }
        if point.term != self.term {
            return Err(Withheld::OtherTerm);
        }
        // From a state as old as the leader's last term on it might grant what was taken away since.
        if applied < point.index && !planted(Mutant::GrantBeforeOwnEntry) {
            return Err(Withheld::Behind);
        }
        let service = state.service(asked.service).ok_or(Withheld::NotHolder)?;
        let (token, mut terms) = held_by(service, asked)?;
        if planted(Mutant::LengthChangesInTenure) {
            terms = LeaseTerms::of(&service.spec);
        }
        let tenure = self.tenures.entry(token).or_default();
        let lasting = |sealed: &LocalTime| !planted(Mutant::SealTimesOut) || now.since(*sealed) < terms.wait();
        if tenure.seals.values().any(lasting) {
            return Err(Withheld::Sealed);
        }
        if planted(Mutant::RecordedAfterSending) {
            tenure.unrecorded = true;
        } else {
            tenure.renewed = Some(now);
        }
        Ok(Granted { token, ttl: terms.ttl, on_quorum_loss: terms.on_quorum_loss })
    }

    /// How long the lease of `token` may still run, at most.
    fn left(&self, token: Token, terms: &LeaseTerms, now: LocalTime) -> Duration {
        let wait = terms.wait();
        let renewed = self.tenures.get(&token).and_then(|tenure| tenure.renewed);
        let left = |since: LocalTime| wait.saturating_sub(now.since(since));
        // What an earlier leader granted is known to nobody: it was granted before this one was elected.
        let of_office = if planted(Mutant::NoWaitOfNewLeader) { Duration::ZERO } else { left(self.elected) };
        of_office.max(renewed.map_or(Duration::ZERO, left))
    }

    fn claim(&self, token: Token, now: LocalTime) -> LeaseClaim {
        let renewed = self.tenures.get(&token).and_then(|tenure| tenure.renewed);
        LeaseClaim {
            token,
            term: self.term,
            renewed_ago: renewed.map(|at| whole_ms(now.since(at))),
            led_for: whole_ms(now.since(self.elected)),
        }
    }

    /// How the lease of `token` stands, for a leader of `term`.
    pub fn standing(&self, term: u64, token: Token, terms: &LeaseTerms, now: LocalTime) -> LeaseStanding {
        if term != self.term {
            return LeaseStanding::Unknown;
        }
        let left = self.left(token, terms, now);
        let claim = self.claim(token, now);
        if left == Duration::ZERO {
            LeaseStanding::RanOut { claim }
        } else {
            let left = Millis(whole_ms(left).0 + u64::from(!left.subsec_nanos().is_multiple_of(1_000_000)));
            LeaseStanding::Runs { left, renewed_ago: claim.renewed_ago }
        }
    }

    /// Closes `token` for a proposal of `term`: checks once more that its lease has run out, and from here on grants nothing
    /// under it, renewals that are already waiting included. Only then may a promotion by `lease` be proposed.
    ///
    /// A token may be closed several times over: it is open when all of them are lifted.
    pub fn seal(
        &mut self,
        term: u64,
        token: Token,
        terms: &LeaseTerms,
        now: LocalTime,
    ) -> Result<(Seal, LeaseClaim), Unsealable> {
        if term != self.term {
            return Err(Unsealable::OtherTerm);
        }
        let left = self.left(token, terms, now);
        if left > Duration::ZERO {
            return Err(Unsealable::Runs { left });
        }
        self.seals += 1;
        let seal = Seal { term, token, number: self.seals };
        if !planted(Mutant::NoSeal) && !planted(Mutant::SealAtAppend) {
            self.tenures.entry(token).or_default().seals.insert(seal.number, now);
        }
        Ok((seal, self.claim(token, now)))
    }

    /// The proposal is in the leader's log: for the fault that closes only then.
    #[cfg(feature = "mutants")]
    pub fn appended(&mut self, seal: &Seal, now: LocalTime) {
        if planted(Mutant::SealAtAppend) && seal.term == self.term {
            self.tenures.entry(seal.token).or_default().seals.insert(seal.number, now);
        }
    }

    /// Lifts a seal: the proposal was answered, or surely never entered the log. Where that is not known, the seal must be
    /// kept: what is in the log is applied some day, or the term ends.
    #[expect(clippy::needless_pass_by_value, reason = "a lifted seal must not be lifted again")]
    pub fn unseal(&mut self, seal: Seal) {
        if seal.term == self.term
            && let Some(tenure) = self.tenures.get_mut(&seal.token)
        {
            tenure.seals.remove(&seal.number);
        }
    }

    /// Forgets the tenures that no service holds or owes any more. Those that are younger than `state` are kept: it may have
    /// been read a moment ago.
    pub fn retain(&mut self, state: &State) {
        let owed: BTreeSet<Token> = state
            .services
            .values()
            .filter_map(|service| service.assignment.last_holder.as_ref()?.token)
            .chain(state.debts.values().filter_map(|debt| debt.holder.token))
            .collect();
        let youngest = state.meta.last_token;
        self.tenures.retain(|token, _| *token > youngest || owed.contains(token));
    }
}

/// The token and the terms under which the asker holds the service. It must not be about to stop: the phases in which
/// somebody is to step down have no active.
fn held_by(service: &Service, asked: &Renewal<'_>) -> Result<(Token, LeaseTerms), Withheld> {
    let assignment = &service.assignment;
    let (Some(active), Some(holder)) = (&assignment.active, &assignment.last_holder) else {
        return Err(Withheld::NotHolder);
    };
    let named = active.instance == *asked.instance && holder.token == Some(active.token);
    let in_session = holder.session.as_deref() == Some(asked.session);
    if !named || !in_session || holder.released.is_some() {
        return Err(Withheld::NotHolder);
    }
    // A session that was superseded is not the holder's any more, whatever the record of the holder says.
    let current = service.instances.get(asked.instance).is_some_and(|it| it.session.as_deref() == Some(asked.session));
    if !current {
        return Err(Withheld::NotHolder);
    }
    holder.lease.map(|terms| (active.token, terms)).ok_or(Withheld::NoLease)
}

fn whole_ms(length: Duration) -> Millis {
    Millis(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}
