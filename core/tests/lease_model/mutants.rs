//! The rule with one clause left out, clause by clause. Each is explored where its counterexample is found soonest.

use super::configs::{
    Config, DEBT, ONE_LEADER, RACES, RE_ELECTION, RE_REGISTRATION, RELEASE, SHORTER, THERE_AND_BACK, TWO_PROMPT,
};
use super::properties::Kind;

/// One clause that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    NoReadIndex,
    RoundBeforeReceipt,
    NoWaitOfNewLeader,
    WaitFromCandidacy,
    TableKept,
    TableKeyedByFlag,
    MarginForOneClock,
    MarginOfTwoPercent,
    ClockStopsInSleep,
    AnswerToTheNewest,
    CountedFromReceipt,
    RecordedAfterSending,
    NoSeal,
    SealAtAppend,
    SealTimesOut,
    PendingPassesSeal,
    SessionNotChecked,
    GrantBeforeOwnEntry,
    RegistrationInherits,
    DeletionForgetsDebt,
    LengthChangesInTenure,
    ReleaseWithoutToken,
    AnswerAfterRelease,
    LowerAnswerAfterRelease,
    TimeoutIsAProof,
    PromotionWithoutCompare,
    TokenCountedPerService,
    VoteForAnyLog,
}

impl Mutant {
    pub(crate) const ALL: [Self; 28] = [
        Self::NoReadIndex,
        Self::RoundBeforeReceipt,
        Self::NoWaitOfNewLeader,
        Self::WaitFromCandidacy,
        Self::TableKept,
        Self::TableKeyedByFlag,
        Self::MarginForOneClock,
        Self::MarginOfTwoPercent,
        Self::ClockStopsInSleep,
        Self::AnswerToTheNewest,
        Self::CountedFromReceipt,
        Self::RecordedAfterSending,
        Self::NoSeal,
        Self::SealAtAppend,
        Self::SealTimesOut,
        Self::PendingPassesSeal,
        Self::SessionNotChecked,
        Self::GrantBeforeOwnEntry,
        Self::RegistrationInherits,
        Self::DeletionForgetsDebt,
        Self::LengthChangesInTenure,
        Self::ReleaseWithoutToken,
        Self::AnswerAfterRelease,
        Self::LowerAnswerAfterRelease,
        Self::TimeoutIsAProof,
        Self::PromotionWithoutCompare,
        Self::TokenCountedPerService,
        Self::VoteForAnyLog,
    ];

    /// The name of its transcript.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NoReadIndex => "no-read-index",
            Self::RoundBeforeReceipt => "read-index-begun-before-receipt",
            Self::NoWaitOfNewLeader => "no-wait-of-a-new-leader",
            Self::WaitFromCandidacy => "wait-from-candidacy",
            Self::TableKept => "table-kept-on-re-election",
            Self::TableKeyedByFlag => "table-keyed-by-a-flag",
            Self::MarginForOneClock => "margin-for-one-clock",
            Self::MarginOfTwoPercent => "margin-of-two-percent",
            Self::ClockStopsInSleep => "clock-stops-in-sleep",
            Self::AnswerToTheNewest => "answer-matched-to-the-newest-request",
            Self::CountedFromReceipt => "lease-counted-from-receipt",
            Self::RecordedAfterSending => "recorded-after-sending",
            Self::NoSeal => "no-seal",
            Self::SealAtAppend => "seal-only-when-appended",
            Self::SealTimesOut => "seal-lifted-by-a-time-out",
            Self::PendingPassesSeal => "pending-renewal-passes-the-seal",
            Self::SessionNotChecked => "session-not-checked",
            Self::GrantBeforeOwnEntry => "grant-before-own-first-entry",
            Self::RegistrationInherits => "re-registration-inherits",
            Self::DeletionForgetsDebt => "deletion-forgets-the-debt",
            Self::LengthChangesInTenure => "ttl-changed-in-mid-tenure",
            Self::ReleaseWithoutToken => "release-without-token",
            Self::AnswerAfterRelease => "answer-heard-after-release",
            Self::LowerAnswerAfterRelease => "lower-answer-heard-after-release",
            Self::TimeoutIsAProof => "activation-time-out-as-proof",
            Self::PromotionWithoutCompare => "promotion-without-compare-and-set",
            Self::TokenCountedPerService => "token-counted-per-service",
            Self::VoteForAnyLog => "vote-for-any-log",
        }
    }

    /// The clause as the rule has it, and what the mutant does instead.
    pub(crate) const fn clause(self) -> &'static str {
        match self {
            Self::NoReadIndex => {
                "A grant needs a read-index round of the leader's own term. Here: a leader answers on its own belief."
            }
            Self::RoundBeforeReceipt => {
                "The read-index round begins after the heartbeat was received. Here: a round that was under way will do."
            }
            Self::NoWaitOfNewLeader => {
                "W must have passed since the start of the leadership. Here: an empty table means that nothing was granted."
            }
            Self::WaitFromCandidacy => {
                "W counts from a moment after a majority voted. Here: from the start of the candidacy."
            }
            Self::TableKept => {
                "The table starts empty at every election, re-election included. Here: a node that led before keeps its table."
            }
            Self::TableKeyedByFlag => {
                "The table belongs to a term. Here: it is dropped when somebody sees that the node is no leader, which nobody \
                 need see."
            }
            Self::MarginForOneClock => "W = 1.03 × ttl, as both clocks may err. Here: 1.01 × ttl.",
            Self::MarginOfTwoPercent => {
                "W = 1.03 × ttl, as both clocks may err. Here: 1.02 × ttl, which looks like enough."
            }
            Self::ClockStopsInSleep => {
                "A holder counts by CLOCK_BOOTTIME. Here: by a clock that stands still while its host sleeps."
            }
            Self::AnswerToTheNewest => {
                "A lease counts from the very request that was answered. Here: from the newest that was sent."
            }
            Self::CountedFromReceipt => {
                "A lease counts from before its request was sent. Here: from the receipt of the answer."
            }
            Self::RecordedAfterSending => {
                "Check, record, send are one step. Here: the record is made after the sending."
            }
            Self::NoSeal => {
                "A promotion by lease is proposed under a seal. Here: the wait is checked, and renewals go on."
            }
            Self::SealAtAppend => {
                "The seal closes in the step that checks the wait. Here: it closes when the promotion is appended."
            }
            Self::SealTimesOut => {
                "A seal ends when its promotion is decided, surely never entered the log, or with the term. Here: after a while."
            }
            Self::PendingPassesSeal => {
                "Under a seal nothing is granted, pending renewals included. Here: what was confirmed before goes out."
            }
            Self::SessionNotChecked => {
                "A grant is for the current session. Here: for whoever heartbeats under the name."
            }
            Self::GrantBeforeOwnEntry => {
                "Grants are made from a state in which the first entry of the leader's own term is applied. Here: from any."
            }
            Self::RegistrationInherits => {
                "A new session inherits nothing, and the old one's lease stays owed. Here: it takes over the tenure."
            }
            Self::DeletionForgetsDebt => "A deleted service leaves its lease owed. Here: what is deleted is forgotten.",
            Self::LengthChangesInTenure => {
                "The length is copied when the token is minted. Here: the spec's counts at once."
            }
            Self::ReleaseWithoutToken => "A release matches session and token. Here: the session is enough.",
            Self::AnswerAfterRelease => {
                "After releasing a token a process ignores answers that name it or a lower one. Here: it hears them."
            }
            Self::LowerAnswerAfterRelease => {
                "After releasing a token a process ignores answers that name it or a lower one. Here: only those that name it."
            }
            Self::TimeoutIsAProof => {
                "An activation time-out is no proof. Here: who has not acknowledged is taken to have stopped."
            }
            Self::PromotionWithoutCompare => {
                "A promotion is refused at apply when what it saw has moved on. Here: it is applied anyway."
            }
            Self::TokenCountedPerService => {
                "A token comes from the log's index. Here: each service counts its own promotions, anew after it was deleted."
            }
            Self::VoteForAnyLog => "Raft's: a node votes for logs as long as its own. Here: for any log.",
        }
    }

    /// Where it is explored, and what it must break.
    pub(crate) fn case(self) -> (&'static Config, &'static [Kind]) {
        const TWO: &[Kind] = &[Kind::OneHolder];
        match self {
            Self::NoReadIndex | Self::RoundBeforeReceipt => (&TWO_PROMPT, &[Kind::OneHolder, Kind::DeposedExtendsNone]),
            Self::NoWaitOfNewLeader | Self::WaitFromCandidacy | Self::GrantBeforeOwnEntry => (&TWO_PROMPT, TWO),
            Self::TableKept | Self::TableKeyedByFlag => (&RE_ELECTION, TWO),
            Self::MarginForOneClock
            | Self::MarginOfTwoPercent
            | Self::ClockStopsInSleep
            | Self::AnswerToTheNewest
            | Self::CountedFromReceipt
            | Self::RecordedAfterSending
            | Self::NoSeal
            | Self::SealAtAppend
            | Self::SealTimesOut
            | Self::PendingPassesSeal => (&ONE_LEADER, TWO),
            Self::RegistrationInherits | Self::SessionNotChecked => (&RE_REGISTRATION, TWO),
            Self::DeletionForgetsDebt => (&DEBT, TWO),
            Self::LengthChangesInTenure => (&SHORTER, TWO),
            Self::ReleaseWithoutToken | Self::AnswerAfterRelease | Self::LowerAnswerAfterRelease => (&RELEASE, TWO),
            Self::TimeoutIsAProof => (&THERE_AND_BACK, TWO),
            Self::PromotionWithoutCompare => (&RACES, &[Kind::OneHolder, Kind::OneActive]),
            Self::TokenCountedPerService => (&DEBT, &[Kind::TokensRise]),
            Self::VoteForAnyLog => (&RE_ELECTION, &[Kind::LogsAgree]),
        }
    }
}
