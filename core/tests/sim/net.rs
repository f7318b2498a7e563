//! The network: who can reach whom, how long it takes, what is lost and what arrives twice. It knows no message.

use std::collections::BTreeSet;

use super::clock::{MS, Micros};
use super::rng::Rng;

/// Who sends and receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Addr {
    /// A Baton node.
    Node(usize),
    /// A process that runs as an instance.
    Process(usize),
    /// People, and whatever asks in their name.
    Operator,
    /// What a service's instances work on.
    Resource(usize),
}

impl std::fmt::Display for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(at) => write!(f, "n{}", at + 1),
            Self::Process(at) => write!(f, "p{at}"),
            Self::Operator => write!(f, "op"),
            Self::Resource(at) => write!(f, "r{at}"),
        }
    }
}

/// How the network behaves when nothing is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// What a message takes at least.
    pub(crate) delay: Micros,
    /// About how much more.
    pub(crate) jitter: Micros,
    /// How many in a thousand are lost.
    pub(crate) loss: u64,
    /// How many in a thousand arrive twice.
    pub(crate) twice: u64,
    /// How many in a thousand take much longer, and are overtaken.
    pub(crate) late: u64,
    /// About how much longer those take.
    pub(crate) lateness: Micros,
}

impl Weather {
    pub(crate) const FAIR: Self = Self { delay: 200, jitter: 300, loss: 0, twice: 0, late: 0, lateness: 0 };

    /// Some weather, from fair to foul.
    pub(crate) fn any(rng: &mut Rng) -> Self {
        if rng.chance(200) {
            return Self::FAIR;
        }
        Self {
            delay: rng.between(50, 2 * MS),
            jitter: rng.between(100, 10 * MS),
            loss: rng.one(&[0, 0, 5, 20, 80]),
            twice: rng.one(&[0, 5, 50]),
            late: rng.one(&[0, 5, 30]),
            lateness: rng.between(20 * MS, 600 * MS),
        }
    }
}

/// The network of one run.
#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) weather: Weather,
    /// Ways that are cut: from, to.
    cut: BTreeSet<(Addr, Addr)>,
    rng: Rng,
}

impl Net {
    pub(crate) const fn new(weather: Weather, rng: Rng) -> Self {
        Self { weather, cut: BTreeSet::new(), rng }
    }

    pub(crate) fn cut(&mut self, from: Addr, to: Addr) {
        self.cut.insert((from, to));
    }

    pub(crate) fn cut_both(&mut self, one: Addr, other: Addr) {
        self.cut(one, other);
        self.cut(other, one);
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn reaches(&self, from: Addr, to: Addr) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// How long each copy of a message takes that is sent now; none where it is lost.
    pub(crate) fn delays(&mut self, from: Addr, to: Addr) -> Vec<Micros> {
        if from == to {
            return vec![1];
        }
        let weather = self.weather;
        if !self.reaches(from, to) || self.rng.chance(weather.loss) {
            return Vec::new();
        }
        let copies = if self.rng.chance(weather.twice) { 2 } else { 1 };
        (0..copies).map(|_| self.delay()).collect()
    }

    fn delay(&mut self) -> Micros {
        let weather = self.weather;
        let late = if self.rng.chance(weather.late) { self.rng.about(weather.lateness) } else { 0 };
        weather.delay + self.rng.about(weather.jitter) + late
    }
}
