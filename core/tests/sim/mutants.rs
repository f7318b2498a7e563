//! For each fault that can be planted in the lease rule: the kind of run in which it matters, and where to begin.

use baton_core::mutant::Mutant;

use super::bias::Bias;

/// Where to look for a fault: the kind of run, and the first of the seeds that are played in order. Some seed close behind
/// it has found the fault when this was written; the search goes on from there when the code has changed since.
pub(crate) const fn where_found(mutant: Mutant) -> (Bias, u64) {
    match mutant {
        Mutant::NoReadIndex
        | Mutant::RegistrationInherits
        | Mutant::ClockStopsInSleep
        | Mutant::AnswerHeardAfterRelease
        | Mutant::ActivationTimeoutAsProof => (Bias::None, 1),
        Mutant::DeletionForgetsDebt | Mutant::LengthChangesInTenure => (Bias::Churn, 1),
        Mutant::PromotionWithoutCompare => (Bias::Races, 1),
        Mutant::RoundBeforeReceipt => (Bias::LateRounds, 1),
        Mutant::NoWaitOfNewLeader | Mutant::TableKeptOnReelection => (Bias::Elections, 1),
        Mutant::WaitFromCandidacy => (Bias::Candidacies, 1),
        Mutant::MarginOfOneClock => (Bias::Margin, 1),
        Mutant::AnswerMatchedToNewest | Mutant::RecordedAfterSending => (Bias::LateAnswers, 1),
        Mutant::NoSeal | Mutant::SealAtAppend | Mutant::SealTimesOut => (Bias::SlowProposals, 1),
        Mutant::GrantBeforeOwnEntry => (Bias::SlowStates, 1),
        Mutant::ReleaseWithoutToken => (Bias::LateReleases, 1),
    }
}
