//! Which proof holds that the last holder of a service has stopped, and if none does, what could still bring one.

use crate::lease::{LeaseClaim, LeaseStanding};
use crate::mutant::{Mutant, planted};
use crate::policy::{AutoWord, Liveness, OnQuorumLoss, ProofKind, ProofPolicy};
use crate::state::{Holder, ReleaseHow, Service};
use crate::time::Millis;
use crate::transition::{Fencing, ProofRecord};

/// What a proposer brings beside the state.
#[derive(Clone, Copy, Debug, Default)]
pub struct Grounds<'a> {
    /// The proof that an operator asserts.
    pub asserted: Option<ProofKind>,
    /// A claim that a lease has run out.
    pub claim: Option<&'a LeaseClaim>,
    /// The term in which a claim must have been made: the log entry's, or the leader's own.
    pub term: u64,
    /// How the lease stands, for those who only explain. Nothing is promoted by it.
    pub standing: Option<&'a LeaseStanding>,
    /// The fencing hook was run against this holder and is not run again, where that is so: why, in a sentence.
    pub hook_over: Option<&'a str>,
}

/// Why no proof holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoProof {
    /// One may come: the holder's release, its lease's end, the fencing hook.
    Pending {
        /// What is waited for, in a sentence.
        why: String,
        /// When the lease will have run out at the latest, if it is one of them and its state is known: in so long.
        lease_in: Option<Millis>,
        /// Whether the fencing hook could bring one.
        hook: bool,
        /// Whether nothing else than the hook could, but for a word of the holder's own: there is no lease that ends by itself.
        only_hook: bool,
    },
    /// None can come by itself: only an operator's word.
    Never {
        /// Why not, and what to do.
        why: String,
    },
}

impl NoProof {
    /// Why, in a sentence, without how long that takes and what an operator may do about it.
    pub fn why(&self) -> &str {
        match self {
            Self::Pending { why, .. } | Self::Never { why } => why,
        }
    }

    /// Why, with how long that takes where it is known, in a sentence.
    pub fn waits(&self) -> String {
        match self {
            Self::Pending { why, lease_in: Some(left), .. } => format!("{why} (at most {} from now)", left.at_most()),
            Self::Pending { why, lease_in: None, .. } | Self::Never { why } => why.clone(),
        }
    }

    /// All of it: what an operator may do about it too.
    pub fn told(&self) -> String {
        format!("{}; {OPERATOR_MAY_SAY}", self.waits())
    }
}

/// What helps where no proof holds.
pub(crate) const OPERATOR_MAY_SAY: &str =
    "an operator may say that it has stopped: a failover with proof \"operator\" and a reason";

fn proof(proof: ProofKind, fencing: Fencing, evidence: impl Into<String>) -> ProofRecord {
    ProofRecord { proof, fencing, evidence: evidence.into() }
}

/// Which proofs the service accepts of this holder.
struct Accepted {
    release: bool,
    lease: bool,
    hook: bool,
    token: Option<Fencing>,
}

fn accepted(policy: &ProofPolicy, holder: &Holder) -> Accepted {
    match policy {
        // Whoever had a lease owes it, whatever is registered under its name now.
        ProofPolicy::Auto(AutoWord::Auto) => match (holder.lease, holder.liveness) {
            (Some(_), _) => Accepted { release: true, lease: true, hook: false, token: None },
            (None, Liveness::Probe) => {
                Accepted { release: true, lease: false, hook: false, token: Some(Fencing::Advisory) }
            }
            (None, Liveness::Heartbeat) => Accepted { release: true, lease: false, hook: false, token: None },
        },
        ProofPolicy::List(kinds) => {
            let has = |kind| kinds.contains(&kind);
            Accepted {
                release: has(ProofKind::Release),
                lease: has(ProofKind::Lease),
                // To cut off one that stands for many stops one of many.
                hook: has(ProofKind::Hook) && !holder.stands_for_others(),
                token: has(ProofKind::Token).then_some(Fencing::Enforced),
            }
        }
    }
}

/// Whether this holder's token is proof enough, so that no operator's word is needed.
pub(super) fn token_is_enough(service: &Service, holder: &Holder) -> bool {
    accepted(&service.spec.fencing.proof, holder).token.is_some()
}

/// The proof that holds for promoting somebody, or why none does. An operator's word comes first where there is one, then
/// what is worth most.
pub fn proof_that_holds(service: &Service, grounds: &Grounds<'_>) -> Result<ProofRecord, NoProof> {
    if grounds.asserted == Some(ProofKind::Operator) {
        let evidence = "a named operator asserts that the old active has stopped";
        return Ok(proof(ProofKind::Operator, Fencing::Enforced, evidence));
    }
    let Some(holder) = &service.assignment.last_holder else {
        return Ok(proof(ProofKind::NoneNeeded, Fencing::Enforced, "nobody has held this service"));
    };
    proof_about(service, holder, grounds).map(|record| told_of_others(holder, record))
}

/// Whether this holder, of which nothing more is known, keeps others from being promoted under the spec as it is.
pub(crate) fn needs_proof(service: &Service, holder: &Holder) -> bool {
    proof_about(service, holder, &Grounds::default()).is_err()
}

/// What proves that one holder has stopped says nothing of those it stands for.
fn told_of_others(holder: &Holder, record: ProofRecord) -> ProofRecord {
    match record.proof {
        ProofKind::Release | ProofKind::Lease | ProofKind::Hook if holder.stands_for_others() => {
            let evidence = format!(
                "{}; but others served beside \"{}\" in active_active, and nothing says that they have stopped",
                record.evidence, holder.instance
            );
            proof(record.proof, Fencing::Advisory, evidence)
        }
        ProofKind::Release
        | ProofKind::Lease
        | ProofKind::Hook
        | ProofKind::Token
        | ProofKind::Operator
        | ProofKind::NoneNeeded => record,
    }
}

fn proof_about(service: &Service, holder: &Holder, grounds: &Grounds<'_>) -> Result<ProofRecord, NoProof> {
    let accepted = accepted(&service.spec.fencing.proof, holder);
    if accepted.release
        && let Some(released) = &holder.released
    {
        return Ok(match released.how {
            ReleaseHow::Said => proof(
                ProofKind::Release,
                Fencing::Enforced,
                format!("\"{}\" said that it has stopped: {}", holder.instance, released.reason),
            ),
            ReleaseHow::Disconnected => proof(
                ProofKind::Release,
                Fencing::Advisory,
                format!(
                    "the role stream of \"{}\" was closed, and lease.release_on_disconnect takes that for a release: {}",
                    holder.instance, released.reason
                ),
            ),
        });
    }
    if accepted.lease
        && let Some(record) = by_lease(holder, grounds)
    {
        return Ok(record);
    }
    if accepted.hook
        && let Some(fenced) = &holder.fenced
    {
        return Ok(proof(ProofKind::Hook, Fencing::Enforced, fenced.evidence.clone()));
    }
    match accepted.token {
        Some(Fencing::Enforced) => {
            Ok(proof(ProofKind::Token, Fencing::Enforced, "the service declares that its resource refuses old tokens"))
        }
        Some(Fencing::Advisory) => Ok(proof(
            ProofKind::Token,
            Fencing::Advisory,
            "fencing.proof is \"auto\" and the old active is only probed: whoever checks tokens refuses it, nothing else stops it",
        )),
        None => Err(no_proof(service, holder, &accepted, grounds)),
    }
}

fn by_lease(holder: &Holder, grounds: &Grounds<'_>) -> Option<ProofRecord> {
    let (terms, token) = (holder.lease?, holder.token?);
    let claim = grounds.claim.or(match grounds.standing {
        Some(LeaseStanding::RanOut { claim }) => Some(claim),
        Some(LeaseStanding::Runs { .. } | LeaseStanding::Unknown) | None => None,
    });
    let claim = claim?;
    // The claim of a leader of another term may be from before another one granted.
    if claim.term != grounds.term || (claim.token != token && !planted(Mutant::PromotionWithoutCompare)) {
        return None;
    }
    // Whoever proposed it has sealed it, and looked. A number that says otherwise is worth no trust.
    if !claim.waited(&terms) {
        return None;
    }
    let wait = Millis(u64::try_from(terms.wait().as_millis()).unwrap_or(u64::MAX));
    let renewed = match claim.renewed_ago {
        // To the millisecond: rounded, the two could look as if too little had been waited.
        Some(ago) => format!("was last renewed {ago} ago"),
        None => format!("was not renewed since the leader was elected {} ago", claim.led_for),
    };
    let word = format!(
        "the lease of \"{}\" under token {token} (ttl {}) {renewed}; {wait} were to be waited",
        holder.instance, terms.ttl
    );
    Some(match terms.on_quorum_loss {
        OnQuorumLoss::SelfFence => proof(ProofKind::Lease, Fencing::Enforced, word),
        OnQuorumLoss::Freeze => proof(
            ProofKind::Lease,
            Fencing::Advisory,
            format!("{word}; but on_quorum_loss is \"freeze\": a holder that hears no quorum goes on"),
        ),
    })
}

fn no_proof(service: &Service, holder: &Holder, accepted: &Accepted, grounds: &Grounds<'_>) -> NoProof {
    let who = &holder.instance;
    let mut waits: Vec<String> = Vec::new();
    let mut lease_in = None;
    // Only a holder with a session, or with an address where it is asked, can say that it stopped.
    if accepted.release && holder.token.is_some() {
        waits.push("its release".to_owned());
    }
    let leased = accepted.lease && holder.lease.is_some() && holder.token.is_some();
    if leased {
        waits.push(match grounds.standing {
            Some(LeaseStanding::Runs { left, .. }) => {
                lease_in = Some(*left);
                "the end of its lease".to_owned()
            }
            Some(LeaseStanding::RanOut { .. } | LeaseStanding::Unknown) | None => "the end of its lease".to_owned(),
        });
    }
    let hook = accepted.hook && service.spec.fencing.hook.is_some();
    let over = grounds.hook_over.filter(|_| hook);
    let hook = hook && over.is_none();
    if hook {
        waits.push("the fencing hook's confirmation".to_owned());
    }
    let over = over.map_or_else(String::new, |why| format!("; {why}"));
    let accepts = match &service.spec.fencing.proof {
        ProofPolicy::Auto(AutoWord::Auto) => "fencing.proof is \"auto\"".to_owned(),
        ProofPolicy::List(kinds) => {
            let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
            format!("fencing.proof accepts {}", names.join(", "))
        }
    };
    if !leased && !hook && (holder.lease.is_none() || waits.is_empty()) {
        let one = match &service.spec.fencing.proof {
            ProofPolicy::List(kinds) if kinds.contains(&ProofKind::Hook) => {
                ", and cutting off one of them would not stop the others"
            }
            ProofPolicy::List(_) | ProofPolicy::Auto(AutoWord::Auto) => "",
        };
        let why = if holder.stands_for_others() {
            let without = if holder.token.is_none() { ", without a token or a lease that could end" } else { "" };
            format!("{accepts}, and \"{who}\" served beside others{without}{one}")
        } else {
            format!("{accepts}, and nothing of that can come of \"{who}\" by itself{over}")
        };
        return NoProof::Never { why };
    }
    let why = format!("\"{who}\" may still act: waiting for {}{over}", waits.join(" or "));
    NoProof::Pending { why, lease_in, hook, only_hook: hook && !leased }
}
