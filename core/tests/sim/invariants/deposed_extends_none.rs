//! A deposed leader extends no lease: what it grants was asked for before another was elected.

pub(crate) const NAME: &str = "deposed-extends-none";

/// The leader of `term` grants what was asked for when `era` was the highest term that a majority had elected.
pub(crate) fn check(node: usize, term: u64, era: u64, token: u64) -> Result<(), String> {
    if era <= term {
        return Ok(());
    }
    Err(format!(
        "n{}, leader of term {term}, extends the lease of token {token} on a heartbeat that was sent after the election \
         of term {era}",
        node + 1
    ))
}
