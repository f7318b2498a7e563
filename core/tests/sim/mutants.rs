//! For each fault that can be planted in the lease rule: the kind of run in which it matters.

use baton_core::mutant::Mutant;

use super::bias::Bias;

/// The kind of run in which a fault is hunted: seeds are played from 1 on, in order, until one shows it. `survey` tells how
/// often each kind does.
pub(crate) const fn kind_for(mutant: Mutant) -> Bias {
    match mutant {
        Mutant::NoReadIndex | Mutant::RegistrationInherits | Mutant::ActivationTimeoutAsProof => Bias::None,
        Mutant::MarginOfOneClock => Bias::Margin,
        Mutant::ClockStopsInSleep => Bias::Sleepers,
        Mutant::AnswerMatchedToNewest | Mutant::RecordedAfterSending => Bias::LateAnswers,
        Mutant::NoWaitOfNewLeader | Mutant::TableKeptOnReelection => Bias::Elections,
        Mutant::RoundBeforeReceipt => Bias::LateRounds,
        Mutant::WaitFromCandidacy => Bias::Candidacies,
        Mutant::NoSeal | Mutant::SealAtAppend | Mutant::SealTimesOut => Bias::SlowProposals,
        Mutant::GrantBeforeOwnEntry => Bias::SlowStates,
        Mutant::ReleaseWithoutToken | Mutant::AnswerHeardAfterRelease => Bias::LateReleases,
        Mutant::DeletionForgetsDebt | Mutant::LengthChangesInTenure => Bias::Churn,
        Mutant::PromotionWithoutCompare => Bias::Races,
    }
}
