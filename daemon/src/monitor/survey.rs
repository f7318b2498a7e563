//! A look around: some of the instances that this node watches, probed at once, so that it knows whether what fails to
//! it alone is one instance or everything. What follows from it is decided in `baton_core::sight`.

use std::time::Duration;

use baton_core::probe::LocalTime;

use super::watch::Key;

/// The most instances looked at in one round. Enough to tell a cut way from a dead instance, and little beside the
/// ordinary probes of one second.
const ASKED_MAX: usize = 16;

/// The least time between two rounds: one flapping instance must not make a node probe all the others without rest.
const ROUND_EVERY: Duration = Duration::from_secs(1);

/// What a round gets beside the longest look: probes wait for their place in the schedule, and a busy node for its turn.
const ROUND_GRACE: Duration = Duration::from_millis(500);

/// One round.
#[derive(Debug)]
pub(crate) struct Survey {
    /// Looks that began earlier do not count.
    pub(crate) begun: LocalTime,
    /// Whoever has not answered by then is left out.
    ends: LocalTime,
    /// Which instances are looked at.
    pub(crate) asked: Vec<Key>,
}

impl Survey {
    /// A round that begins now.
    pub(crate) fn begin(now: LocalTime, asked: Vec<Key>, longest_look: Duration) -> Self {
        Self { begun: now, ends: now.plus(longest_look + ROUND_GRACE), asked }
    }

    /// Whether another round may begin.
    pub(crate) fn rested(&self, now: LocalTime) -> bool {
        now.since(self.begun) >= ROUND_EVERY
    }

    /// Whether no more answers are waited for.
    pub(crate) fn over(&self, now: LocalTime) -> bool {
        now >= self.ends
    }
}

/// Picks at most [`ASKED_MAX`] of `all`, evenly, and others in each `round`.
pub(crate) fn pick(all: &[Key], round: usize) -> Vec<Key> {
    let asked = all.len().min(ASKED_MAX);
    (0..asked).map(|place| all[(place * all.len() / asked + round) % all.len()].clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn keys(count: usize) -> Vec<Key> {
        let key = |number| ("web".parse().expect("a name"), format!("i-{number}").parse().expect("an id"));
        (0..count).map(key).collect()
    }

    #[test]
    fn few_are_all_asked_and_of_many_others_each_time() {
        assert_eq!(pick(&keys(0), 3), []);
        let few = keys(5);
        assert_eq!(pick(&few, 7).into_iter().collect::<BTreeSet<_>>(), few.into_iter().collect());
        let many = keys(1_000);
        let (one, other) = (pick(&many, 1), pick(&many, 2));
        assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), ASKED_MAX);
        assert!(one.iter().all(|key| !other.contains(key)), "{one:?} {other:?}");
    }
}
