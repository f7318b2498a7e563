//! How the signs of an instance's life become one: the observers' verdicts by quorum, beside them what the leader judges
//! from calls and heartbeats. Counting only; what follows from it (recovery, events) is `apply`'s.

use serde::{Deserialize, Serialize};

use super::Instance;
use crate::id::NodeId;
use crate::policy::{Combine, Detection, Quorum};
use crate::probe::{Source, Verdict};

/// How the health of an instance was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthInputs {
    /// Live observers assigned: the denominator.
    pub observers: u32,
    /// How many of them must say `down`.
    pub quorum: u32,
    /// How many say `up`.
    pub up: u32,
    /// How many say `suspect`.
    pub suspect: u32,
    /// How many say `down`.
    pub down: u32,
    /// What these come to, by the quorum and the veto.
    pub probes: Verdict,
    /// What clients' calls say; null where too few were reported.
    pub calls: Option<Verdict>,
    /// What heartbeats say; null where the instance sends none.
    pub heartbeats: Option<Verdict>,
    /// All of them, by `detection.combine`.
    pub verdict: Verdict,
    /// Whether it would be `down`, and one observer that sees it well stands against that, by policy.
    #[serde(default)]
    pub vetoed: bool,
}

impl Instance {
    /// Counts what is held of it. `observers` are the assigned, live ones, best first: the verdict quorum is over them,
    /// never over the lost. Where one of them has not looked yet, an observer that was released keeps its place.
    ///
    /// `probed`: whether there is anything to probe it by.
    pub fn count(&self, observers: &[NodeId], probed: bool, detection: &Detection) -> HealthInputs {
        let (mut up, mut suspect, mut down, mut missing) = (0, 0, 0, 0);
        let mut tally = |verdict| match verdict {
            Verdict::Unknown => {}
            Verdict::Up => up += 1,
            Verdict::Suspect => suspect += 1,
            Verdict::Down => down += 1,
        };
        for observer in observers {
            match self.verdicts.get(observer) {
                Some(record) => tally(record.verdict),
                None => missing += 1,
            }
        }
        if missing > 0 {
            let standing_in = self.verdicts.iter().filter(|(observer, _)| !observers.contains(observer));
            standing_in.take(missing).for_each(|(_, record)| tally(record.verdict));
        }
        let observers = u32::try_from(observers.len()).unwrap_or(u32::MAX);
        let quorum = match detection.quorum {
            // As many as were asked for, however few are left: whoever wants two witnesses is not content with one.
            Quorum::Count(number) => number,
            Quorum::Majority(_) => observers / 2 + 1,
        };
        let probes = if down >= quorum && down > 0 {
            Verdict::Down
        } else if down + suspect > 0 {
            Verdict::Suspect
        } else if up > 0 {
            Verdict::Up
        } else {
            Verdict::Unknown
        };
        let calls = self.judged.get(&Source::Calls).map(|record| record.verdict);
        let heartbeats = self.judged.get(&Source::Heartbeats).map(|record| record.verdict);
        let verdict = match combined(detection.combine, [Some(probes), calls, heartbeats]) {
            // Whoever is to be probed is not called well before a probe has said so.
            Verdict::Up if probed && probes == Verdict::Unknown => Verdict::Unknown,
            verdict @ (Verdict::Unknown | Verdict::Up | Verdict::Suspect | Verdict::Down) => verdict,
        };
        let vetoed = verdict == Verdict::Down && detection.veto && up > 0;
        let verdict = if vetoed { Verdict::Suspect } else { verdict };
        HealthInputs { observers, quorum, up, suspect, down, probes, calls, heartbeats, verdict, vetoed }
    }
}

/// One verdict of several sources, over those that have something to say.
fn combined(combine: Combine, sources: [Option<Verdict>; 3]) -> Verdict {
    let spoken = || sources.into_iter().flatten().filter(|verdict| *verdict != Verdict::Unknown);
    let any = |wanted: Verdict| spoken().any(|verdict| verdict == wanted);
    let down = match combine {
        Combine::Any => any(Verdict::Down),
        Combine::All => any(Verdict::Down) && spoken().all(|verdict| verdict == Verdict::Down),
    };
    if down {
        Verdict::Down
    } else if any(Verdict::Down) || any(Verdict::Suspect) {
        Verdict::Suspect
    } else if any(Verdict::Up) {
        Verdict::Up
    } else {
        Verdict::Unknown
    }
}
