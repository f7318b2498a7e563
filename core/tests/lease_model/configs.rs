//! The bounded configurations. Each bounds what can happen, never when: heartbeats, ticks and pauses are unlimited in all of them,
//! and each is explored to its last state.

use super::properties::Kind;
use super::state::{NodeAt, Process, Term};

/// What a configuration begins with. n1 was just elected in term 1, and its first entry is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Nobody has ever held the service.
    Vacant,
    /// "a" holds it, under token 1.
    Held,
}

/// Bounds, and what is switched on.
pub(crate) struct Config {
    pub(crate) name: &'static str,
    /// What it is there to show.
    pub(crate) about: &'static str,
    pub(crate) start: Start,
    /// Who may run for which term.
    pub(crate) campaigns: &'static [(Term, NodeAt)],
    /// The longest log, first entries of terms included.
    pub(crate) longest_log: usize,
    /// The most promotions in a log.
    pub(crate) promotions: usize,
    /// Who sends heartbeats.
    pub(crate) processes: &'static [Process],
    /// Whether heartbeats and answers may be under way for longer than an instant. Where not, they may still be lost and
    /// repeated, and all processes still pause.
    pub(crate) delay: bool,
    pub(crate) releases: bool,
    pub(crate) registers: bool,
    pub(crate) deletes: bool,
    pub(crate) shortens: bool,
    /// Whether promotions that will be refused are appended too.
    pub(crate) refusals: bool,
    /// Whether it is small enough for every run of the tests.
    pub(crate) quick: bool,
    /// What must be seen in it.
    pub(crate) expects: &'static [Kind],
}

const N1: NodeAt = 0;
const N2: NodeAt = 1;
const A: Process = Process::A;
const B: Process = Process::B;
const A2: Process = Process::A2;

const PLAIN: Config = Config {
    name: "plain",
    about: "one leader, one failover by lease; loss, delay, duplication, pauses",
    start: Start::Held,
    campaigns: &[],
    longest_log: 1,
    promotions: 1,
    processes: &[A, B],
    delay: true,
    releases: false,
    registers: false,
    deletes: false,
    shortens: false,
    refusals: false,
    quick: false,
    expects: &[Kind::ByLease],
};

/// One leader.
pub(crate) static ONE_LEADER: Config = PLAIN;

/// Two leaders.
pub(crate) static TWO_LEADERS: Config = Config {
    name: "two-leaders",
    about: "n2 may depose n1, which need not know; one failover; loss, delay, duplication, pauses",
    campaigns: &[(2, N2)],
    longest_log: 2,
    expects: &[Kind::ByLease, Kind::AfterElection, Kind::DeposedAnswers],
    ..PLAIN
};

/// There and back.
pub(crate) static THERE_AND_BACK: Config = Config {
    name: "there-and-back",
    about: "two leaders, two failovers by lease in a row",
    longest_log: 3,
    promotions: 2,
    delay: false,
    ..TWO_LEADERS
};

/// Re-election.
pub(crate) static RE_ELECTION: Config = Config {
    name: "re-election",
    about: "n1, n2 and n1 again lead; one failover",
    campaigns: &[(2, N2), (3, N1)],
    longest_log: 3,
    delay: false,
    expects: &[Kind::ByLease, Kind::AfterElection, Kind::LeadsAgain, Kind::DeposedAnswers],
    ..PLAIN
};

/// Release.
pub(crate) static RELEASE: Config = Config {
    name: "release",
    about: "the holder may stop and say so; its word may come late, twice, or never; two promotions",
    longest_log: 4,
    promotions: 2,
    releases: true,
    expects: &[Kind::ByLease, Kind::ReleaseIsQuicker],
    ..PLAIN
};

/// Release under two leaders.
pub(crate) static RELEASE_TWO_LEADERS: Config = Config {
    name: "release-two-leaders",
    about: "the same under two leaders, with one promotion",
    campaigns: &[(2, N2)],
    longest_log: 3,
    promotions: 1,
    delay: false,
    expects: &[Kind::ByLease, Kind::ReleaseIsQuicker, Kind::AfterElection],
    ..RELEASE
};

/// Re-registration.
pub(crate) static RE_REGISTRATION: Config = Config {
    name: "re-registration",
    about: "a second process registers as \"a\" while the first may still run; two leaders",
    campaigns: &[(2, N2)],
    longest_log: 3,
    processes: &[A, A2],
    delay: false,
    registers: true,
    expects: &[Kind::ByLease, Kind::AfterElection],
    ..PLAIN
};

/// Debt.
pub(crate) static DEBT: Config = Config {
    name: "debt",
    about: "the service is deleted and made anew while \"a\" may still act; two leaders",
    campaigns: &[(2, N2)],
    longest_log: 4,
    delay: false,
    deletes: true,
    expects: &[Kind::ByLease, Kind::AfterElection],
    ..PLAIN
};

/// The spec's length changes.
pub(crate) static SHORTER: Config = Config {
    name: "shorter",
    about: "the spec asks for a shorter lease in mid-tenure; two failovers, the second of a short tenure",
    longest_log: 3,
    promotions: 2,
    shortens: true,
    ..PLAIN
};

/// Races for a vacant service.
pub(crate) static RACES: Config = Config {
    name: "races",
    about: "a vacant service; several promotions in flight, those that will be refused included; two leaders",
    start: Start::Vacant,
    campaigns: &[(2, N2)],
    longest_log: 3,
    promotions: 2,
    delay: false,
    refusals: true,
    expects: &[Kind::ByLease],
    ..PLAIN
};

/// All, smallest first.
pub(crate) static FULL: [&Config; 10] = [
    &ONE_LEADER,
    &SHORTER,
    &RELEASE,
    &RE_REGISTRATION,
    &DEBT,
    &RACES,
    &RELEASE_TWO_LEADERS,
    &TWO_LEADERS,
    &THERE_AND_BACK,
    &RE_ELECTION,
];
