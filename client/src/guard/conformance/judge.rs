//! How writes that were made at once are judged: by the order that everybody can agree on, in which one write came
//! before another only if it had been answered before the other was asked for. Pure: tickets instead of times.
//!
//! The rules are what linearizability (Herlihy and Wing, 1990) leaves of "remember the highest, refuse the lower" for
//! such a history, so a resource that decides in any order that fits is never blamed.

use super::Outcome;
use super::report::Rule;

/// When something was asked for and answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Drawn before it was asked for.
    pub(super) called: u64,
    /// Drawn after it was answered, from the same row of numbers.
    pub(super) returned: u64,
}

impl Span {
    fn before(self, other: Self) -> bool {
        self.returned < other.called
    }
}

/// One write of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) writer: usize,
    pub(super) token: u64,
    pub(super) value: u64,
    pub(super) span: Span,
    pub(super) outcome: Outcome,
}

impl Write {
    pub(super) fn told(&self) -> String {
        let answer = match self.outcome {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
        };
        let Self { writer, token, value, span: Span { called, returned }, .. } = self;
        format!("at once, writer {writer}: write token {token}, value {value} → {answer} (from {called} to {returned})")
    }
}

/// One read of a race, and the value that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) writer: usize,
    pub(super) value: u64,
    pub(super) span: Span,
}

impl Read {
    pub(super) fn told(&self) -> String {
        let Self { writer, value, span: Span { called, returned } } = self;
        format!("at once, writer {writer}: read → {value} (from {called} to {returned})")
    }
}

/// Judges the writes of a race in which every token is higher than all before it. The error is the broken rule and what
/// was seen.
pub(super) fn judge_writes(writes: &[Write]) -> Result<(), (Rule, String)> {
    for write in writes {
        match write.outcome {
            Outcome::Accepted => {
                let forbidding = |earlier: &&Write| earlier.span.before(write.span) && forbids(earlier, write);
                if let Some(earlier) = writes.iter().find(forbidding) {
                    let what = format!("[{}], and after it [{}]", earlier.told(), write.told());
                    return Err((Rule::RaceLowerRefused, what));
                }
            }
            Outcome::Refused => {
                let excuse = |other: &Write| other.token > write.token && other.span.called < write.span.returned;
                if !writes.iter().any(excuse) {
                    let what = format!("nobody had presented a higher token than in [{}]", write.told());
                    return Err((Rule::RaceHigherAccepted, what));
                }
            }
        }
    }
    Ok(())
}

/// Judges the reads among those writes: a value that stands was written with no lower token than any that had been
/// accepted before it was asked for, since its own write came after that one.
pub(super) fn judge_reads(writes: &[Write], reads: &[Read]) -> Result<(), (Rule, String)> {
    for read in reads {
        let source = writes.iter().find(|write| write.value == read.value);
        if let Some(refused) = source.filter(|write| write.outcome == Outcome::Refused) {
            return Err((Rule::RefusedIsNotDone, format!("[{}] shows what [{}]", read.told(), refused.told())));
        }
        // A value from before the race has a token lower than all of the race.
        let token = source.map_or(0, |write| write.token);
        let overwritten = writes
            .iter()
            .find(|write| write.outcome == Outcome::Accepted && write.token > token && write.span.before(read.span));
        if let Some(higher) = overwritten {
            let of = source
                .map_or_else(|| "what stood before all of them".to_owned(), |write| format!("[{}]", write.told()));
            let what = format!("[{}], and after it [{}], which is the value of {of}", higher.told(), read.told());
            return Err((Rule::RaceHighestStands, what));
        }
    }
    Ok(())
}

/// Whether the answer to `earlier` says that `later`, asked for after it, may not be accepted.
fn forbids(earlier: &Write, later: &Write) -> bool {
    match earlier.outcome {
        Outcome::Accepted => earlier.token > later.token,
        // It was refused for something higher, and that stays.
        Outcome::Refused => earlier.token >= later.token,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Accepted, Refused};

    /// A write whose value is its token.
    fn op(token: u64, called: u64, returned: u64, outcome: Outcome) -> Write {
        Write { writer: 0, token, value: token, span: Span { called, returned }, outcome }
    }

    fn broken(writes: &[Write]) -> Option<Rule> {
        judge_writes(writes).err().map(|(rule, _)| rule)
    }

    fn seen(writes: &[Write], value: u64, called: u64) -> Option<Rule> {
        let read = Read { writer: 0, value, span: Span { called, returned: called + 1 } };
        judge_reads(writes, &[read]).err().map(|(rule, _)| rule)
    }

    #[test]
    fn a_lower_one_after_a_higher_is_found_out() {
        assert_eq!(broken(&[op(7, 0, 1, Accepted), op(5, 2, 3, Accepted)]), Some(Rule::RaceLowerRefused));
    }

    #[test]
    fn what_overlaps_may_come_in_any_order() {
        assert_eq!(broken(&[op(7, 0, 2, Accepted), op(5, 1, 3, Accepted)]), None);
        assert_eq!(broken(&[op(7, 0, 2, Accepted), op(5, 1, 3, Refused)]), None);
        assert_eq!(broken(&[op(5, 0, 2, Refused), op(7, 1, 3, Accepted)]), None, "7 may have been decided at 1");
    }

    #[test]
    fn a_refusal_needs_somebody_higher_who_has_asked() {
        assert_eq!(broken(&[op(5, 0, 1, Refused), op(7, 2, 3, Accepted)]), Some(Rule::RaceHigherAccepted));
        assert_eq!(broken(&[op(7, 0, 1, Refused)]), Some(Rule::RaceHigherAccepted));
    }

    #[test]
    fn a_refusal_is_final() {
        let ops = [op(7, 0, 9, Accepted), op(5, 1, 2, Refused), op(5, 3, 4, Accepted)];
        assert_eq!(broken(&ops), Some(Rule::RaceLowerRefused));
    }

    #[test]
    fn a_lower_value_may_not_stand_after_a_higher_was_accepted() {
        let writes = [op(7, 0, 2, Accepted), op(5, 1, 5, Accepted), op(6, 3, 4, Refused)];
        assert_eq!(seen(&writes, 7, 6), None);
        assert_eq!(seen(&writes, 5, 1), None, "7 may not have been done yet");
        assert_eq!(seen(&writes, 5, 3), Some(Rule::RaceHighestStands), "5 landed on top of 7");
        assert_eq!(seen(&writes, 1, 3), Some(Rule::RaceHighestStands), "7 was not done at all");
        assert_eq!(seen(&writes, 6, 3), Some(Rule::RefusedIsNotDone));
    }
}
