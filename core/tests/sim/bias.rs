//! Kinds of runs in which some clause of the lease rule matters often. A fault in that clause is found sooner there; the
//! promises hold in all of them.

use super::clock::{MS, SEC};
use super::net::Weather;
use super::rng::Rng;
use super::shape::{Act, Fault, Shape};

/// A kind of run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bias {
    /// Any.
    None,
    /// Prompt messages, long leases, holders that are cut off, the worst clocks: a margin that is too small shows.
    Margin,
    /// Answers come late, so that several requests are under way.
    LateAnswers,
    /// Machines of holders that sleep.
    Sleepers,
    /// Leaders lose their office at any moment, and many messages are late.
    Elections,
    /// Leaders are deposed while the answers to their rounds are under way.
    LateRounds,
    /// Nodes that run for long before they are elected.
    Candidacies,
    /// Proposals that wait long for a disk, holders that come back meanwhile.
    SlowProposals,
    /// States that trail far behind their logs.
    SlowStates,
    /// Releases that come late, and twice.
    LateReleases,
    /// Specs that change, services that are deleted and made anew, while holders are cut off.
    Churn,
    /// Operators and the planner who want different things at once.
    Races,
}

impl Bias {
    pub(crate) const ALL: [Self; 12] = [
        Self::None,
        Self::Margin,
        Self::LateAnswers,
        Self::Sleepers,
        Self::Elections,
        Self::LateRounds,
        Self::Candidacies,
        Self::SlowProposals,
        Self::SlowStates,
        Self::LateReleases,
        Self::Churn,
        Self::Races,
    ];

    /// The run of a seed, of this kind.
    pub(crate) fn shape(self, seed: u64) -> Shape {
        let mut shape = Shape::of(seed);
        if self == Self::None {
            return shape;
        }
        // One service or two, of two or three instances, and no proof but those that I15 covers.
        let mut rng = Rng::new(seed ^ 0xb1a5);
        shape.nodes = 3;
        shape.instances = (0..rng.between(1, 2)).map(|_| 2 + rng.at(2)).collect();
        shape.strict = vec![true; shape.instances.len()];
        shape.weather = Weather { delay: 100, jitter: 400, ..Weather::FAIR };
        shape.ttls = vec![250, 400];
        (shape.think, shape.apply_lag) = (MS, MS);
        shape.slander = 5;
        match self {
            Self::None => {}
            Self::Margin => {
                shape.ttls = vec![3_000, 5_000];
                (shape.think, shape.apply_lag) = (50, 50);
                (shape.shaken, shape.settles) = (60 * SEC, 60 * SEC);
                (shape.slander, shape.silence, shape.worst_clocks) = (0, 100, true);
                shape.nemesis_every = 8 * SEC;
                shape.operator_every = 20 * SEC;
                shape.faults = vec![(Fault::CutProcess, 10), (Fault::StopProcess, 3), (Fault::HealNet, 8)];
                shape.acts = vec![(Act::Move, 1), (Act::Resume, 1)];
            }
            Self::LateAnswers => {
                shape.weather = Weather { late: 250, lateness: 120 * MS, ..shape.weather };
                (shape.nemesis_every, shape.operator_every) = (600 * MS, 2 * SEC);
                shape.faults =
                    vec![(Fault::CutProcess, 8), (Fault::CutAnswers, 8), (Fault::HealNet, 12), (Fault::StopProcess, 2)];
                shape.acts = vec![(Act::Move, 3), (Act::Resume, 1)];
            }
            Self::Sleepers => {
                (shape.nemesis_every, shape.operator_every) = (500 * MS, 3 * SEC);
                (shape.silence, shape.asleep) = (100, 900);
                shape.faults = vec![(Fault::StopProcess, 10), (Fault::HealNet, 1)];
                shape.acts = vec![(Act::Move, 2), (Act::Resume, 1)];
            }
            Self::Elections => {
                shape.weather = Weather { late: 150, lateness: 100 * MS, twice: 20, ..shape.weather };
                (shape.nemesis_every, shape.operator_every) = (300 * MS, 500 * MS);
                shape.faults = vec![
                    (Fault::Campaign, 20),
                    (Fault::CutProcess, 2),
                    (Fault::CutOneWay, 3),
                    (Fault::CutNode, 3),
                    (Fault::StopNode, 6),
                    (Fault::HealNet, 8),
                ];
                shape.acts = vec![(Act::Move, 10), (Act::Resume, 1)];
                (shape.slander, shape.think, shape.hasty) = (10, 20 * MS, true);
            }
            Self::LateRounds => {
                shape.weather = Weather { late: 400, lateness: 80 * MS, ..shape.weather };
                shape.ttls = vec![400];
                (shape.nemesis_every, shape.operator_every) = (150 * MS, SEC);
                shape.faults = vec![(Fault::Coup, 10), (Fault::HealNet, 10)];
                shape.acts = vec![(Act::Move, 10), (Act::Resume, 1)];
                shape.slander = 0;
            }
            Self::Candidacies => {
                shape.ttls = vec![600, 1_000];
                shape.shaken = 40 * SEC;
                (shape.nemesis_every, shape.operator_every) = (2 * SEC, 5 * SEC);
                shape.silence = 100;
                shape.faults = vec![(Fault::Exile, 10), (Fault::Campaign, 2), (Fault::HealNet, 1)];
                shape.acts = vec![(Act::Move, 10), (Act::Resume, 3)];
                (shape.slander, shape.hasty) = (0, true);
            }
            Self::SlowProposals => {
                (shape.nemesis_every, shape.operator_every) = (250 * MS, 3 * SEC);
                (shape.silence, shape.slander) = (rng.one(&[150, 200]), 10);
                shape.batching = 250 * MS;
                shape.faults =
                    vec![(Fault::StickDisk, 3), (Fault::CutProcess, 8), (Fault::StopProcess, 15), (Fault::HealNet, 20)];
                shape.acts = vec![(Act::Move, 1), (Act::Resume, 3), (Act::Reset, 3)];
            }
            Self::SlowStates => {
                (shape.apply_lag, shape.persist_every) = (300 * MS, 20 * SEC);
                (shape.nemesis_every, shape.operator_every) = (400 * MS, 400 * MS);
                shape.faults = vec![
                    (Fault::Campaign, 20),
                    (Fault::KillNode, 5),
                    (Fault::CutNode, 4),
                    (Fault::StopNode, 3),
                    (Fault::HealNet, 10),
                ];
                shape.acts = vec![(Act::Move, 10), (Act::Resume, 1)];
            }
            Self::LateReleases => {
                shape.weather = Weather { late: 200, lateness: 300 * MS, twice: 200, ..shape.weather };
                shape.instances = vec![2];
                shape.strict = vec![true];
                (shape.nemesis_every, shape.operator_every) = (250 * MS, 600 * MS);
                shape.faults = vec![(Fault::StepDown, 20), (Fault::HealNet, 1)];
                shape.acts = vec![(Act::Move, 10), (Act::Resume, 1)];
            }
            Self::Churn => {
                shape.ttls = vec![250, 2_000];
                (shape.nemesis_every, shape.operator_every) = (500 * MS, 500 * MS);
                (shape.silence, shape.comes_again) = (100, 20 * MS);
                shape.faults = vec![(Fault::CutProcess, 10), (Fault::StopProcess, 5), (Fault::HealNet, 10)];
                shape.acts =
                    vec![(Act::Spec, 10), (Act::Recreate, 8), (Act::Move, 3), (Act::Restore, 3), (Act::Resume, 1)];
            }
            Self::Races => {
                (shape.nemesis_every, shape.operator_every) = (300 * MS, 80 * MS);
                (shape.think, shape.apply_lag) = (40 * MS, 5 * MS);
                (shape.slander, shape.silence) = (20, 100);
                shape.faults = vec![(Fault::StepDown, 10), (Fault::StopProcess, 3), (Fault::HealNet, 1)];
                shape.acts = vec![(Act::Move, 20), (Act::Deregister, 3), (Act::Resume, 3), (Act::Reset, 3)];
            }
        }
        let mut rng = Rng::new(seed ^ 0x5bec5);
        shape.choose_specs(&mut rng);
        shape
    }
}
