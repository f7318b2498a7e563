//! Faults that can be planted in the lease rule, one for each of its clauses, so that the simulator can show that it would
//! find them in the real code. In a build without the feature `mutants` nothing can be planted, and every question here is
//! the constant `false`.
//!
//! No decision may depend on anything here but through [`planted`], and whoever asks must say beside it what the clause is.

/// One clause of the lease rule left out or got wrong. The names are those of the model's mutants
/// (`core/tests/lease_model/mutants.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// A renewal is granted without asking a majority. Planted where rounds are made: see `lease::Rounds`.
    NoReadIndex,
    /// A round that was already under way when a renewal was received counts for it.
    RoundBeforeReceipt,
    /// A new leader does not wait W from its election.
    NoWaitOfNewLeader,
    /// A new leader counts its wait from its candidacy. Planted where leaders are made.
    WaitFromCandidacy,
    /// A node that is elected again keeps the table of its earlier term.
    TableKeptOnReelection,
    /// W covers the error of one clock only.
    MarginOfOneClock,
    /// The holder's clock stops while its machine sleeps. Planted where clocks are made.
    ClockStopsInSleep,
    /// The holder counts its lease from its newest request instead of the one that was answered.
    AnswerMatchedToNewest,
    /// A grant is noted only after it was sent.
    RecordedAfterSending,
    /// The wait is checked, and nothing is closed.
    NoSeal,
    /// The token is closed only when the proposal is in the leader's log.
    SealAtAppend,
    /// A seal ends by itself after a while.
    SealTimesOut,
    /// A renewal is granted from a state that is not applied up to the round's index.
    GrantBeforeOwnEntry,
    /// Whoever registers again under the holder's id goes on with its token.
    RegistrationInherits,
    /// A service that is deleted and made again owes nothing.
    DeletionForgetsDebt,
    /// A changed `ttl` counts at once, in mid-tenure.
    LengthChangesInTenure,
    /// A release need not name the token.
    ReleaseWithoutToken,
    /// The holder heeds an answer that names a token it has released.
    AnswerHeardAfterRelease,
    /// That nobody acknowledged in time is taken as a proof that nobody works.
    ActivationTimeoutAsProof,
    /// A promotion does not compare what its proposer saw with what is there.
    PromotionWithoutCompare,
}

impl Mutant {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::NoReadIndex,
        Self::RoundBeforeReceipt,
        Self::NoWaitOfNewLeader,
        Self::WaitFromCandidacy,
        Self::TableKeptOnReelection,
        Self::MarginOfOneClock,
        Self::ClockStopsInSleep,
        Self::AnswerMatchedToNewest,
        Self::RecordedAfterSending,
        Self::NoSeal,
        Self::SealAtAppend,
        Self::SealTimesOut,
        Self::GrantBeforeOwnEntry,
        Self::RegistrationInherits,
        Self::DeletionForgetsDebt,
        Self::LengthChangesInTenure,
        Self::ReleaseWithoutToken,
        Self::AnswerHeardAfterRelease,
        Self::ActivationTimeoutAsProof,
        Self::PromotionWithoutCompare,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Whether this fault is planted on this thread.
#[cfg(feature = "mutants")]
pub fn planted(mutant: Mutant) -> bool {
    PLANTED.with(std::cell::Cell::get) == Some(mutant)
}

/// Whether this fault is planted: never, in this build.
#[cfg(not(feature = "mutants"))]
pub const fn planted(_: Mutant) -> bool {
    false
}

/// Plants a fault on this thread, or takes out whichever is there.
#[cfg(feature = "mutants")]
pub fn plant(mutant: Option<Mutant>) {
    PLANTED.with(|planted| planted.set(mutant));
}
