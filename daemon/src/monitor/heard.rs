//! Making sure of being heard. Whoever is cut off from the cluster sees everything fail, and may not know yet that it is
//! cut off; so before a node accuses anybody, its quorum must hear it, after what it saw.

use std::time::Duration;

use baton_core::command::{Reply, VerdictsRecord};
use baton_core::probe::Verdict;

use crate::consensus::ProposeError;

/// Before it accuses, a node makes sure that its quorum hears it, and gives that so long; twice as long after each time in
/// vain, since a slow network or disk is no reason to accuse nobody for ever. (The barrier itself gives up within 2 s.)
const HEARD_WITHIN: Duration = Duration::from_millis(300);
const HEARD_WITHIN_MAX: Duration = Duration::from_millis(2_400);

/// Why verdicts were not recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsaid {
    /// The quorum did not hear this node when it was about to accuse.
    #[error("no quorum heard this node before it could accuse anybody")]
    Unheard,
    /// They were proposed in vain.
    #[error(transparent)]
    Failed(#[from] ProposeError),
}

/// How long the quorum gets to hear this node before it accuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience(Duration);

impl Default for Patience {
    fn default() -> Self {
        Self(HEARD_WITHIN)
    }
}

impl Patience {
    /// It was not heard in time. Answers whether that is news.
    pub(super) fn unheard(&mut self) -> bool {
        let news = self.0 == HEARD_WITHIN;
        self.0 = (self.0 * 2).min(HEARD_WITHIN_MAX);
        news
    }

    /// It was heard.
    pub(super) fn heard(&mut self) {
        *self = Self::default();
    }
}

/// Whether a record speaks against anybody. Only then somebody may be harmed by one who is cut off.
fn accuses(record: &VerdictsRecord) -> bool {
    record.verdicts.iter().any(|report| match report.verdict {
        Verdict::Suspect | Verdict::Down => true,
        Verdict::Up | Verdict::Unknown => false,
    })
}

/// Proposes a record; one that accuses only when the `barrier`, begun now, shows within the patience that a quorum hears
/// this node. What is not said is not proposed at all.
pub(super) async fn say<E>(
    record: VerdictsRecord,
    patience: Patience,
    barrier: impl Future<Output = Result<(), E>>,
    propose: impl AsyncFnOnce(VerdictsRecord) -> Result<Reply, ProposeError>,
) -> Result<Reply, Unsaid> {
    if accuses(&record) && !matches!(tokio::time::timeout(patience.0, barrier).await, Ok(Ok(()))) {
        return Err(Unsaid::Unheard);
    }
    Ok(propose(record).await?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use baton_core::command::{Done, VerdictReport};
    use baton_core::probe::Evidence;

    use super::*;

    fn record(verdicts: &[Verdict]) -> VerdictsRecord {
        let report = |verdict: &Verdict| VerdictReport {
            service: "web".parse().expect("a name"),
            instance: "a".parse().expect("an id"),
            epoch: 1,
            verdict: *verdict,
            evidence: Evidence {
                check: "http".to_owned(),
                class: None,
                detail: "seen".to_owned(),
                streak: 1,
                first_failure_age: None,
            },
        };
        VerdictsRecord { observer: 1, verdicts: verdicts.iter().map(report).collect() }
    }

    /// What the quorum does when it is asked.
    #[derive(Clone, Copy, Debug)]
    enum Quorum {
        Hears,
        IsSilent,
        SaysNo,
    }

    /// Tries to say it; tells what came of it, and whether it was proposed.
    async fn try_to_say(verdicts: &[Verdict], quorum: Quorum) -> (Result<Reply, Unsaid>, bool) {
        let (asked, proposed) = (Cell::new(false), Cell::new(false));
        let barrier = async {
            asked.set(true);
            match quorum {
                Quorum::Hears => Ok(()),
                Quorum::IsSilent => std::future::pending().await,
                Quorum::SaysNo => Err("no quorum"),
            }
        };
        let patience = Patience(Duration::from_millis(20));
        let said = say(record(verdicts), patience, barrier, async |record| {
            assert_eq!(asked.get(), accuses(&record), "first it is heard, then it speaks");
            proposed.set(true);
            Ok(Ok(Done::Ok))
        })
        .await;
        (said, proposed.get())
    }

    #[tokio::test]
    async fn nobody_is_accused_by_one_whom_no_quorum_hears() {
        for verdicts in [&[Verdict::Down][..], &[Verdict::Suspect], &[Verdict::Up, Verdict::Down, Verdict::Up]] {
            for quorum in [Quorum::IsSilent, Quorum::SaysNo] {
                let (said, proposed) = try_to_say(verdicts, quorum).await;
                assert!(matches!(said, Err(Unsaid::Unheard)) && !proposed, "{verdicts:?}, {quorum:?}: {said:?}");
            }
            let (said, proposed) = try_to_say(verdicts, Quorum::Hears).await;
            assert!(matches!(said, Ok(Ok(Done::Ok))) && proposed, "{verdicts:?}: {said:?}");
        }
    }

    #[tokio::test]
    async fn whoever_accuses_nobody_need_not_be_heard_first() {
        for verdicts in [&[][..], &[Verdict::Up], &[Verdict::Unknown, Verdict::Up]] {
            let (said, proposed) = try_to_say(verdicts, Quorum::IsSilent).await;
            assert!(matches!(said, Ok(Ok(Done::Ok))) && proposed, "{verdicts:?}: {said:?}");
        }
    }

    #[test]
    fn a_slow_quorum_gets_more_time_from_try_to_try_up_to_a_bound() {
        let mut patience = Patience::default();
        let tries: Vec<(bool, u128)> = (0..5).map(|_| (patience.unheard(), patience.0.as_millis())).collect();
        assert_eq!(tries, [(true, 600), (false, 1_200), (false, 2_400), (false, 2_400), (false, 2_400)]);
        patience.heard();
        assert_eq!(patience, Patience(HEARD_WITHIN));
    }
}
