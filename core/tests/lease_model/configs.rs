//! The bounded configurations. Each bounds what can happen, never when: heartbeats, ticks and pauses are unlimited in
//! all of them, and each is explored to its last state.

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
    /// Who answers a leader and takes its log. Without elections one follower stands for either: the other one's word
    /// adds nothing to a majority that is there.
    pub(crate) followers: &'static [NodeAt],
    /// The longest log, first entries of terms included.
    pub(crate) longest_log: usize,
    /// The most promotions in a log.
    pub(crate) promotions: usize,
    /// Who sends heartbeats.
    pub(crate) processes: &'static [Process],
    /// Whether heartbeats and answers may be under way for longer than an instant. Where not, they may still be lost
    /// and repeated, and all processes still pause: a heartbeat is sent when it is received, and where nobody releases,
    /// an answer is heard when it is sent, since hearing it later could only make its holder act for less time.
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
const N3: NodeAt = 2;
const ANYONE: &[NodeAt] = &[0, 1, 2];
const A: Process = Process::A;
const B: Process = Process::B;
const A2: Process = Process::A2;

const PLAIN: Config = Config {
    name: "plain",
    about: "one leader, one failover by lease; loss, delay, duplication, pauses",
    start: Start::Held,
    campaigns: &[],
    followers: &[N2],
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
pub(crate) static ONE_LEADER: Config = Config { quick: true, ..PLAIN };

/// One leader, and more of it.
pub(crate) static ONE_LEADER_MORE: Config = Config {
    name: "there-and-back",
    about: "one leader, three failovers by lease in a row",
    longest_log: 3,
    promotions: 3,
    ..PLAIN
};

/// Two leaders, without delay.
pub(crate) static TWO_PROMPT: Config = Config {
    name: "two-leaders-prompt",
    about: "n2 may depose n1, which need not know; one failover; loss, duplication, pauses",
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 2,
    delay: false,
    expects: &[Kind::ByLease, Kind::AfterElection, Kind::DeposedAnswers],
    quick: true,
    ..PLAIN
};

/// Two leaders.
pub(crate) static TWO_LEADERS: Config =
    Config { name: "two-leaders", about: "the same, with delay", delay: true, quick: false, ..TWO_PROMPT };

/// Two leaders, there and back.
pub(crate) static THERE_AND_BACK: Config = Config {
    name: "two-there-and-back",
    about: "two leaders, two failovers by lease in a row, without delay",
    longest_log: 3,
    promotions: 2,
    ..TWO_PROMPT
};

/// The same with delay.
pub(crate) static THERE_AND_BACK_DELAY: Config = Config {
    name: "two-there-and-back-delay",
    about: "the same, with delay",
    delay: true,
    quick: false,
    ..THERE_AND_BACK
};

/// Re-election.
pub(crate) static RE_ELECTION: Config = Config {
    name: "re-election",
    about: "n1, n2 and n1 again lead; one failover; loss, duplication, pauses",
    campaigns: &[(2, N2), (3, N1)],
    followers: ANYONE,
    longest_log: 3,
    delay: false,
    expects: &[Kind::ByLease, Kind::AfterElection, Kind::LeadsAgain, Kind::DeposedAnswers],
    quick: true,
    ..PLAIN
};

/// Three leaders, whoever they are.
pub(crate) static THREE_LEADERS: Config = Config {
    name: "three-leaders",
    about: "n1 and n2 lead, then n1 again, or n3; two failovers; loss, duplication, pauses",
    campaigns: &[(2, N2), (3, N1), (3, N3)],
    longest_log: 4,
    promotions: 2,
    quick: false,
    ..RE_ELECTION
};

/// Three leaders, with delay.
pub(crate) static THREE_LEADERS_DELAY: Config =
    Config { name: "three-leaders-delay", about: "the same, with delay", delay: true, ..THREE_LEADERS };

/// Re-election with delay.
pub(crate) static RE_ELECTION_DELAY: Config = Config {
    name: "re-election-delay",
    about: "n1, n2 and n1 again lead; one failover; loss, delay, duplication, pauses",
    delay: true,
    quick: false,
    ..RE_ELECTION
};

/// Release.
pub(crate) static RELEASE: Config = Config {
    name: "release",
    about: "one leader; the holder may stop and say so; its word may come late, twice, or never; two promotions",
    longest_log: 4,
    promotions: 2,
    releases: true,
    expects: &[Kind::ByLease, Kind::ReleaseIsQuicker],
    ..PLAIN
};

/// Release, and more of it.
pub(crate) static RELEASE_MORE: Config =
    Config { name: "release-more", about: "the same with three promotions", longest_log: 6, promotions: 3, ..RELEASE };

/// Release under two leaders.
pub(crate) static RELEASE_TWO_LEADERS: Config = Config {
    name: "release-two-leaders",
    about: "release under two leaders, without delay of renewals; two promotions",
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 4,
    delay: false,
    expects: &[Kind::ByLease, Kind::ReleaseIsQuicker, Kind::AfterElection],
    ..RELEASE
};

/// The same with delay.
pub(crate) static RELEASE_TWO_DELAY: Config = Config {
    name: "release-two-leaders-delay",
    about: "release under two leaders, with delay; one promotion",
    longest_log: 3,
    promotions: 1,
    delay: true,
    ..RELEASE_TWO_LEADERS
};

/// Re-registration.
pub(crate) static RE_REGISTRATION: Config = Config {
    name: "re-registration",
    about: "a second process registers as \"a\" while the first may still run; two leaders",
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 3,
    processes: &[A, A2],
    delay: false,
    registers: true,
    expects: &[Kind::ByLease, Kind::AfterElection],
    quick: true,
    ..PLAIN
};

/// Re-registration with "b".
pub(crate) static RE_REGISTRATION_MORE: Config = Config {
    name: "re-registration-more",
    about: "the same, with \"b\" as a candidate, releases, two promotions",
    longest_log: 4,
    promotions: 2,
    processes: &[A, B, A2],
    releases: true,
    quick: false,
    ..RE_REGISTRATION
};

/// Re-registration with delay.
pub(crate) static RE_REGISTRATION_DELAY: Config = Config {
    name: "re-registration-delay",
    about: "a second process registers as \"a\"; two leaders; with delay",
    delay: true,
    quick: false,
    ..RE_REGISTRATION
};

/// Debt.
pub(crate) static DEBT: Config = Config {
    name: "debt",
    about: "the service is deleted and made anew while \"a\" may still act; two leaders",
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 4,
    delay: false,
    deletes: true,
    expects: &[Kind::ByLease, Kind::AfterElection],
    ..PLAIN
};

/// Debt, and more of it.
pub(crate) static DEBT_MORE: Config = Config {
    name: "debt-more",
    about: "the same with releases, from the one who owes too; two promotions",
    longest_log: 5,
    promotions: 2,
    releases: true,
    ..DEBT
};

/// The spec's length changes.
pub(crate) static SHORTER: Config = Config {
    name: "shorter",
    about: "the spec asks for a shorter lease in mid-tenure; two failovers, the second of a short tenure",
    longest_log: 3,
    promotions: 2,
    shortens: true,
    quick: true,
    ..PLAIN
};

/// The same under two leaders.
pub(crate) static SHORTER_TWO_LEADERS: Config = Config {
    name: "shorter-two-leaders",
    about: "the same under two leaders, without delay",
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 4,
    delay: false,
    expects: &[Kind::ByLease, Kind::AfterElection],
    quick: false,
    ..SHORTER
};

/// Races for a vacant service.
pub(crate) static RACES: Config = Config {
    name: "races",
    about: "a vacant service; several promotions in flight, those that will be refused included; two leaders",
    start: Start::Vacant,
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 3,
    promotions: 2,
    delay: false,
    refusals: true,
    expects: &[Kind::ByLease],
    ..PLAIN
};

/// All of it, in a short log.
pub(crate) static ALL_AT_ONCE: Config = Config {
    name: "all-at-once",
    about: "releases, re-registration, deletion, a shorter lease under two leaders; a log of three, one promotion",
    campaigns: &[(2, N2)],
    followers: ANYONE,
    longest_log: 3,
    processes: &[A, B, A2],
    delay: false,
    releases: true,
    registers: true,
    deletes: true,
    shortens: true,
    expects: &[Kind::ByLease, Kind::ReleaseIsQuicker, Kind::AfterElection],
    ..PLAIN
};

/// All that are explored.
pub(crate) static FULL: [&Config; 23] = [
    &ONE_LEADER,
    &ONE_LEADER_MORE,
    &TWO_PROMPT,
    &TWO_LEADERS,
    &THERE_AND_BACK,
    &THERE_AND_BACK_DELAY,
    &RE_ELECTION,
    &RE_ELECTION_DELAY,
    &THREE_LEADERS,
    &THREE_LEADERS_DELAY,
    &RELEASE,
    &RELEASE_MORE,
    &RELEASE_TWO_LEADERS,
    &RELEASE_TWO_DELAY,
    &RE_REGISTRATION,
    &RE_REGISTRATION_MORE,
    &RE_REGISTRATION_DELAY,
    &DEBT,
    &DEBT_MORE,
    &SHORTER,
    &SHORTER_TWO_LEADERS,
    &RACES,
    &ALL_AT_ONCE,
];
