//! For each fault that can be planted in the lease rule: the kind of run in which it matters, and where to begin.

use baton_core::mutant::Mutant;

use super::bias::Bias;

/// Where to look for a fault: the kind of run, and the first of the seeds that are played in order. That one was the first
/// from 1 on that found it when this was written. Any change of the code shifts what a seed does, so the search goes on from
/// there; `survey` looks for better places.
pub(crate) const fn where_found(mutant: Mutant) -> (Bias, u64) {
    match mutant {
        Mutant::NoReadIndex => (Bias::None, 3),
        Mutant::RegistrationInherits => (Bias::None, 2),
        Mutant::ActivationTimeoutAsProof => (Bias::None, 8),
        Mutant::ClockStopsInSleep | Mutant::AnswerHeardAfterRelease => (Bias::None, 10),
        Mutant::MarginOfOneClock => (Bias::Margin, 1),
        Mutant::AnswerMatchedToNewest => (Bias::LateAnswers, 15),
        Mutant::RecordedAfterSending => (Bias::LateAnswers, 8),
        Mutant::NoWaitOfNewLeader => (Bias::Elections, 8),
        Mutant::TableKeptOnReelection => (Bias::Elections, 3),
        Mutant::RoundBeforeReceipt => (Bias::LateRounds, 6),
        Mutant::WaitFromCandidacy => (Bias::Candidacies, 4),
        Mutant::NoSeal | Mutant::SealAtAppend => (Bias::SlowProposals, 8),
        Mutant::SealTimesOut => (Bias::SlowProposals, 10),
        Mutant::GrantBeforeOwnEntry => (Bias::SlowStates, 39),
        Mutant::ReleaseWithoutToken => (Bias::LateReleases, 6),
        Mutant::DeletionForgetsDebt => (Bias::Churn, 1),
        Mutant::LengthChangesInTenure => (Bias::Churn, 2),
        Mutant::PromotionWithoutCompare => (Bias::Races, 2),
    }
}
