//! What a run came to, in words: the rules, how often each was tried, and the one that was broken with all that led to
//! it.

use std::fmt;

/// The steps that a failure shows. The rest is told as a number: what matters is at the end.
const SHOWN_MAX: usize = 60;

/// What is asked of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Every write is answered, by yes or no.
    Answered,
    /// A token higher than all before is accepted.
    HigherAccepted,
    /// The highest token is accepted again and again.
    EqualAccepted,
    /// A token lower than the highest is refused.
    LowerRefused,
    /// Tokens are compared as whole numbers of 53 bits: not as text, not cut to 32 bits, not rounded.
    WholeNumbers,
    /// A write without a token is refused.
    NoTokenRefused,
    /// The value of an accepted write is what is read next.
    AcceptedIsDone,
    /// A refused write changes nothing.
    RefusedIsNotDone,
    /// What was seen before a restart is remembered after it.
    RestartRemembers,
    /// Of many at once: after a token was accepted, no lower one is; after one was refused, it is never accepted.
    RaceLowerRefused,
    /// Of many at once: a token is refused only when a higher one has been presented.
    RaceHigherAccepted,
    /// Of many at once: after a token was accepted, the value of no lower one stands.
    RaceHighestStands,
}

impl Rule {
    /// Every rule, in the order in which they are told.
    pub const ALL: [Self; 12] = [
        Self::Answered,
        Self::HigherAccepted,
        Self::EqualAccepted,
        Self::LowerRefused,
        Self::WholeNumbers,
        Self::NoTokenRefused,
        Self::AcceptedIsDone,
        Self::RefusedIsNotDone,
        Self::RestartRemembers,
        Self::RaceLowerRefused,
        Self::RaceHigherAccepted,
        Self::RaceHighestStands,
    ];

    /// The stable word for it, for programs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::HigherAccepted => "higher_accepted",
            Self::EqualAccepted => "equal_accepted",
            Self::LowerRefused => "lower_refused",
            Self::WholeNumbers => "whole_numbers",
            Self::NoTokenRefused => "no_token_refused",
            Self::AcceptedIsDone => "accepted_is_done",
            Self::RefusedIsNotDone => "refused_is_not_done",
            Self::RestartRemembers => "restart_remembers",
            Self::RaceLowerRefused => "race_lower_refused",
            Self::RaceHigherAccepted => "race_higher_accepted",
            Self::RaceHighestStands => "race_highest_stands",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Answered => "every write is answered",
            Self::HigherAccepted => "a higher token is accepted",
            Self::EqualAccepted => "an equal token is accepted",
            Self::LowerRefused => "a lower token is refused",
            Self::WholeNumbers => "tokens are compared as whole numbers of 53 bits",
            Self::NoTokenRefused => "a write without a token is refused",
            Self::AcceptedIsDone => "an accepted write is done",
            Self::RefusedIsNotDone => "a refused write changes nothing",
            Self::RestartRemembers => "a restart forgets nothing",
            Self::RaceLowerRefused => "at once: nothing lower is accepted after a higher token was",
            Self::RaceHigherAccepted => "at once: a token is refused only for a higher one",
            Self::RaceHighestStands => "at once: no lower token's value stands after a higher token was accepted",
        })
    }
}

/// A run in which no rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What the random parts grew from.
    pub seed: u64,
    /// Writes that were asked for.
    pub writes: u64,
    /// The highest token that the resource has seen now: a next run begins above it.
    pub highest: u64,
    /// The rules that held, and how often each was tried.
    pub held: Vec<(Rule, u64)>,
    /// The rules that could not be tried, and why.
    pub skipped: Vec<(Rule, &'static str)>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (rule, times) in &self.held {
            writeln!(f, "held     {rule} ({times} times)")?;
        }
        for (rule, why) in &self.skipped {
            writeln!(f, "skipped  {rule}: {why}")?;
        }
        write!(f, "{} writes, seed {}; the resource has seen token {} now", self.writes, self.seed, self.highest)
    }
}

/// The rule that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which rule.
    pub rule: Rule,
    /// What was seen, in a sentence.
    pub what: String,
    /// Whether nobody answered at all: then nothing is known of the resource.
    pub silent: bool,
    /// What the random parts grew from.
    pub seed: u64,
    /// The first token of the run.
    pub first: u64,
    /// Everything that was done, in order; what was done at once is in the order in which it was begun.
    pub history: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken   {}", self.rule)?;
        writeln!(f, "  {}", self.what)?;
        writeln!(
            f,
            "  seed {}, first token {}: the same on a fresh resource tries the same again",
            self.seed, self.first
        )?;
        let left_out = self.history.len().saturating_sub(SHOWN_MAX);
        write!(f, "  what was done ({} steps", self.history.len())?;
        if left_out > 0 {
            write!(f, ", the last {SHOWN_MAX} of them")?;
        }
        write!(f, "):")?;
        for (index, step) in self.history.iter().enumerate().skip(left_out) {
            write!(f, "\n    {:>4}  {step}", index + 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}
