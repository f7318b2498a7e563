//! Who may be called now, and which one to call next: discovery's half of Baton. Pure: the state, the time and a seed come
//! in, a choice or a reason goes out. Nothing here changes an instance; what a [`Picker`] remembers is whose turn it is.
//!
//! The rules, in this order:
//!
//! 1. An `active_passive` service has one instance that may be called: its active, unless it is agreed to be unhealthy.
//!    In an `active_active` service every healthy instance may be called that does not cool down after failures.
//! 2. Nobody may be called whose breaker is open, or whom an operator drains, maintains or isolates: by no strategy, not
//!    with `fail_open`, and the active is no exception. Behind a half-open breaker there are as many places as its policy
//!    has trial calls, across the cluster.
//! 3. A `suspect` instance is second choice, and is offered where no healthy one of any tier may be called: a doubt about
//!    the local cluster is a better reason to leave it than none, and a remote site that is well still answers. An
//!    instance of weight 0 has no share of the calls: it is the last choice, behind the doubted ones.
//! 4. Among those the lowest tier that has anybody; in it those of the wanted zone, if there are any.
//! 5. A free trial place is offered before anything else there, by every strategy. Otherwise a breaker would never close
//!    while its neighbours are well; that it costs no more than a few calls is what the bound on trial calls is for.
//! 6. Among the rest the strategy decides.
//!
//! Where nobody may be called, `fail_open` offers the sick of an `active_active` service, all tiers together and marked
//! degraded: when all of them look sick, the looking is more likely to be wrong than all of them (Envoy calls it the panic
//! threshold). What a request excludes is never offered to it, and does not make a service sick.

mod picker;
mod standing;
mod strategy;
#[cfg(test)]
mod tests;

pub use picker::{Asked, Picked, Picker};
pub use standing::{Callable, NoInstance, callable, may_be_called, why_nobody};

use crate::policy::{LoadBalancing, words};

words! {
    /// How one instance is chosen among those that may be called.
    PickStrategy {
        /// The first one behind the last of `exclude` in order of tier and id, and around; without `exclude` the first.
        Next = "next",
        /// Any, by weight.
        Random = "random",
        /// The lowest tier, then the highest priority, then the highest weight now, then the id.
        Best = "best",
        /// The one whose last turn is the longest ago.
        RoundRobin = "round_robin",
        /// Each in turn by weight, with the turns of a heavy one spread out (nginx's smooth weighted round robin).
        WeightedRoundRobin = "weighted_round_robin",
    }
}

impl From<LoadBalancing> for PickStrategy {
    fn from(policy: LoadBalancing) -> Self {
        match policy {
            LoadBalancing::RoundRobin => Self::RoundRobin,
            LoadBalancing::WeightedRoundRobin => Self::WeightedRoundRobin,
            LoadBalancing::Random => Self::Random,
            LoadBalancing::Best => Self::Best,
        }
    }
}
