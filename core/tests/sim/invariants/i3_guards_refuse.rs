//! I3: a resource that remembers the highest token it saw refuses every lower one, so what it takes never goes back.

use baton_core::id::Token;

pub(crate) const NAME: &str = "I3";

/// A guard that had seen `highest` was asked under `token`.
pub(crate) fn check(token: Token, highest: u64, admits: bool) -> Result<(), String> {
    if admits == (token.0 >= highest) {
        Ok(())
    } else {
        Err(format!("a guard that has seen {highest} was asked under token {token}, and its answer was {admits}"))
    }
}
