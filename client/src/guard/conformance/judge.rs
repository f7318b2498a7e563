//! How writes that were made at once are judged: by the order that everybody can agree on, in which one write came before
//! another only if it had been answered before the other was asked for. Pure: tickets instead of times.
//!
//! The rules are what linearizability (Herlihy and Wing, 1990) leaves of "remember the highest, refuse the lower" for such a
//! history, so a resource that decides in any order that fits is never blamed.

use super::Outcome;
use super::report::Rule;

/// One write of a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Op {
    pub(super) writer: usize,
    pub(super) token: u64,
    pub(super) value: u64,
    /// Drawn before it was asked for.
    pub(super) called: u64,
    /// Drawn after it was answered, from the same row of numbers.
    pub(super) returned: u64,
    pub(super) outcome: Outcome,
}

impl Op {
    fn before(&self, other: &Self) -> bool {
        self.returned < other.called
    }

    pub(super) fn told(&self) -> String {
        let answer = match self.outcome {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
        };
        let Self { writer, token, value, called, returned, .. } = self;
        format!("at once, writer {writer}: write token {token}, value {value} → {answer} (from {called} to {returned})")
    }
}

/// Judges a race in which every token is higher than all before it. The error is the broken rule and what was seen.
pub(super) fn judge(ops: &[Op]) -> Result<(), (Rule, String)> {
    for op in ops {
        match op.outcome {
            Outcome::Accepted => {
                if let Some(earlier) = ops.iter().find(|earlier| earlier.before(op) && forbids(earlier, op)) {
                    return Err((
                        Rule::RaceLowerRefused,
                        format!("[{}], and after it [{}]", earlier.told(), op.told()),
                    ));
                }
            }
            Outcome::Refused => {
                let excused = ops.iter().any(|other| other.token > op.token && other.called < op.returned);
                if !excused {
                    let what = format!("nobody had presented a higher token than in [{}]", op.told());
                    return Err((Rule::RaceHigherAccepted, what));
                }
            }
        }
    }
    Ok(())
}

/// Whether the answer to `earlier` says that `later`, asked for after it, may not be accepted.
fn forbids(earlier: &Op, later: &Op) -> bool {
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

    fn op(token: u64, called: u64, returned: u64, outcome: Outcome) -> Op {
        Op { writer: 0, token, value: 0, called, returned, outcome }
    }

    fn broken(ops: &[Op]) -> Option<Rule> {
        judge(ops).err().map(|(rule, _)| rule)
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
}
