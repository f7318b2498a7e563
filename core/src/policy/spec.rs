//! The spec of a service, part by part, with the defaults of the contract.

use serde::{Deserialize, Serialize};

use super::Check;
use crate::time::Millis;

/// Declares a closed set of words, spelt in `snake_case` on the wire; `ALL` lists them for error messages.
///
/// The spelling is taken as `tt` and not as `literal`: a `literal` reaches derives in an invisible group, in which utoipa
/// does not find the rename that serde does, and the published words would be others than the spoken ones.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:tt),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every word of the set with its spelling.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),+];

            /// The word as it is spelt on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl $crate::json::Word for $name {
            fn words() -> &'static [(&'static str, Self)] {
                Self::ALL
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How a service's instances share the work.
    Mode {
        /// One instance is active, the others wait.
        ActivePassive = "active_passive",
        /// All healthy instances serve, by weight and tier.
        ActiveActive = "active_active",
    }
}

words! {
    /// How the verdicts of several detectors become one.
    Combine {
        /// One that says down is enough.
        Any = "any",
        /// All must say down.
        All = "all",
    }
}

words! {
    /// How an instance comes back after it was unhealthy.
    RecoveryStrategy {
        /// As soon as `rise` probes succeed.
        Immediate = "immediate",
        /// After a delay that grows with recent failures, with a weight that ramps up.
        Gradual = "gradual",
        /// After extra good probes at the fast interval.
        Probing = "probing",
    }
}

words! {
    /// Which candidate is promoted.
    FailoverStrategy {
        /// The following one in order of tier and id.
        Next = "next",
        /// Any, evenly, drawn anew with every event of the cluster: between two events the same state names the same one.
        Random = "random",
        /// The lowest tier, then the highest priority, then the least lag, then the old active's zone, then the id.
        Best = "best",
    }
}

words! {
    /// Whether a service goes back to its preferred instance.
    FailbackMode {
        /// When an operator asks.
        Manual = "manual",
        /// By itself, after `stable_for`.
        Automatic = "automatic",
        /// Never.
        Never = "never",
    }
}

words! {
    /// Why we may believe that the old active has stopped.
    ProofKind {
        /// Nobody has held this service, no lease is owed.
        NoneNeeded = "none_needed",
        /// The holder itself said that it stopped.
        Release = "release",
        /// The holder's lease has run out.
        Lease = "lease",
        /// The fencing hook confirmed that it cut the holder off.
        Hook = "hook",
        /// The service's resource refuses old tokens, so nothing need be waited for.
        Token = "token",
        /// A named operator asserts it, with a reason.
        Operator = "operator",
    }
}

words! {
    /// What the holder does when the cluster has no quorum.
    OnQuorumLoss {
        /// It stops when its lease runs out.
        SelfFence = "self_fence",
        /// It goes on.
        Freeze = "freeze",
    }
}

words! {
    /// How the waits between a client's tries grow.
    RetryStrategy {
        /// Always `initial_backoff`.
        Simple = "simple",
        /// `initial_backoff × multiplierⁿ`, up to `max_backoff`.
        Exponential = "exponential",
        /// As exponential, spread by `jitter`.
        Jittered = "jittered",
    }
}

words! {
    /// Failures after which a client tries again.
    RetryOn {
        /// No answer in time.
        Timeout = "timeout",
        /// Refused, reset, unreachable, or TLS failed.
        Connection = "connection",
        /// HTTP 5xx.
        ServerError = "server_error",
        /// HTTP 429.
        RateLimit = "rate_limit",
        /// An answer that is not what was agreed.
        Malformed = "malformed",
        /// Slower than the slow-call limit.
        Slow = "slow",
    }
}

words! {
    /// How `pick` and discovery spread calls.
    LoadBalancing {
        /// Each in turn.
        RoundRobin = "round_robin",
        /// Each in turn, by weight.
        WeightedRoundRobin = "weighted_round_robin",
        /// Any, by weight.
        Random = "random",
        /// Always the best.
        Best = "best",
    }
}

/// How many live observers must say `down`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Quorum {
    /// At least so many.
    Count(u32),
    /// More than half of the assigned, live observers: written `"majority"`.
    Majority(MajorityWord),
}

words! {
    /// The word `majority`.
    MajorityWord {
        /// More than half.
        Majority = "majority",
    }
}

/// Judging by the share of failed calls in a sliding window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorRate {
    /// The window's length.
    pub window: Millis,
    /// Calls in the window below which nothing is judged.
    pub min_requests: u32,
    /// The share of failures, 0 to 1, from which the instance is down.
    pub threshold: f64,
}

/// Judging by a latency percentile against an adaptive baseline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SlowCalls {
    /// The window's length.
    pub window: Millis,
    /// Calls in the window below which nothing is judged.
    pub min_requests: u32,
    /// The percentile looked at, 0 to 1.
    pub percentile: f64,
    /// The limit is the baseline's percentile times this.
    pub multiplier: f64,
    /// The limit is never below this.
    pub floor: Millis,
    /// The limit is never above this.
    pub ceiling: Millis,
}

/// Judging heartbeats by how unlikely their absence is (phi accrual: Hayashibara et al., 2004).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accrual {
    /// The suspicion, as −log10 of the probability, from which the instance is down.
    pub phi: f64,
}

/// How failures are noticed and agreed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Detection {
    /// How many nodes watch each instance.
    pub observers: u32,
    /// How many of them must say `down`.
    pub quorum: Quorum,
    /// Whether one fresh positive sighting blocks `down`.
    pub veto: bool,
    /// The error-rate detector.
    pub error_rate: ErrorRate,
    /// The slow-call detector.
    pub slow: SlowCalls,
    /// The heartbeat detector.
    pub accrual: Accrual,
    /// A reported call slower than this is a time-out failure.
    pub timeout: Millis,
    /// How detectors combine.
    pub combine: Combine,
}

/// When calls to an instance are refused, and when they are tried again (states and names as in resilience4j).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerPolicy {
    /// Failed calls in a row that open it.
    pub consecutive_failures: u32,
    /// The share of failures, 0 to 1, that opens it.
    pub error_rate: f64,
    /// Calls in the window below which the share is not judged.
    pub min_requests: u32,
    /// The window's length.
    pub window: Millis,
    /// How long it stays open the first time.
    pub open_for: Millis,
    /// The longest it stays open.
    pub open_for_max: Millis,
    /// Growth of `open_for` from trip to trip.
    pub open_for_multiplier: f64,
    /// Trial calls let through while half open.
    pub half_open_max_calls: u32,
    /// How long a trial call may take.
    pub half_open_timeout: Millis,
    /// Good trial calls that close it.
    pub success_threshold: u32,
}

/// How an instance comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RecoveryPolicy {
    /// By which strategy.
    pub strategy: RecoveryStrategy,
    /// How long an instance that failed again and again is no candidate for an automatic move; an operator's move does
    /// not wait for it. `"0s"`: never.
    pub cooldown: Millis,
    /// Failures in a row that start the cool-down. What is counted is how many times in a row the instance became
    /// `unhealthy`, without having been well for `cooldown` between; not failed probes or calls. "Three failed calls in a
    /// row and it is left alone for five minutes" is the breaker's: `consecutive_failures` 3 with `open_for` `"5m"`.
    pub cooldown_after: u32,
    /// `gradual`: how long an instance must have been well before it is taken back after its first failure.
    pub initial_delay: Millis,
    /// `gradual`: the longest such delay.
    pub max_delay: Millis,
    /// `gradual`: growth of the delay from failure to failure.
    pub multiplier: f64,
    /// `gradual`: time in which the weight goes from 10 % to full.
    pub ramp: Millis,
    /// `probing`: extra good probes wanted.
    pub probes: u32,
}

/// How and how often the active is replaced.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailoverPolicy {
    /// Whether Baton promotes by itself.
    pub automatic: bool,
    /// Which candidate.
    pub strategy: FailoverStrategy,
    /// Time from one automatic failover to the next.
    pub min_interval: Millis,
    /// Automatic failovers within `window` after which an operator must look.
    pub max_in_window: u32,
    /// The window of `max_in_window`.
    pub window: Millis,
    /// Time in which a promoted instance must acknowledge.
    pub activation_timeout: Millis,
    /// Whether a promoted instance must acknowledge.
    pub require_ack: bool,
    /// The largest replication lag of a candidate, in the instance's own unit.
    #[serde(default)]
    pub max_lag: Option<u64>,
    /// How long a candidate must have been healthy.
    pub min_healthy: Millis,
}

/// Whether and when a service goes back to its preferred instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailbackPolicy {
    /// Who decides.
    pub mode: FailbackMode,
    /// How long the preferred instance must have been healthy without a break.
    pub stable_for: Millis,
}

/// How long a holder may act without asking again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LeasePolicy {
    /// The lease's length.
    pub ttl: Millis,
    /// Extra wait after its end (Consul's lock-delay).
    pub delay: Millis,
    /// Whether the end of the session's connection counts as a release.
    pub release_on_disconnect: bool,
}

/// How a holder is cut off: exactly one of `url` and `agent`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FencingHook {
    /// A webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A fence agent, by the name the node's configuration gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Time for one try.
    pub timeout: Millis,
    /// Tries.
    pub attempts: u32,
}

/// Which proofs are accepted: `"auto"` or a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProofPolicy {
    /// These.
    List(Vec<ProofKind>),
    /// `lease` for instances that heartbeat, `token` for those that are only probed: written `"auto"`.
    Auto(AutoWord),
}

impl ProofPolicy {
    /// The proof that is asked for first, to name one where none holds.
    pub fn first(&self) -> ProofKind {
        match self {
            Self::List(kinds) => kinds.first().copied().unwrap_or(ProofKind::Lease),
            Self::Auto(AutoWord::Auto) => ProofKind::Lease,
        }
    }
}

words! {
    /// The word `auto`.
    AutoWord {
        /// By the liveness of the holder.
        Auto = "auto",
    }
}

/// What counts as proof that the old active has stopped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FencingPolicy {
    /// Accepted proofs.
    pub proof: ProofPolicy,
    /// The hook behind the proof `hook`.
    #[serde(default)]
    pub hook: Option<FencingHook>,
}

/// How clients try again; served as gRPC service config too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryPolicy {
    /// How waits grow.
    pub strategy: RetryStrategy,
    /// Tries in all.
    pub max_attempts: u32,
    /// The first wait.
    pub initial_backoff: Millis,
    /// The longest wait.
    pub max_backoff: Millis,
    /// Growth from wait to wait.
    pub multiplier: f64,
    /// Spread of a wait, as a share of it.
    pub jitter: f64,
    /// Failures worth another try.
    pub retry_on: Vec<RetryOn>,
}

/// All that an operator wants of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spec {
    /// One active, or all.
    pub mode: Mode,
    /// How instances are probed. None: only heartbeats and reports count.
    pub checks: Vec<Check>,
    /// How failures are noticed and agreed.
    pub detection: Detection,
    /// When calls to an instance are refused.
    pub breaker: BreakerPolicy,
    /// How an instance comes back.
    pub recovery: RecoveryPolicy,
    /// How the active is replaced.
    pub failover: FailoverPolicy,
    /// Whether the preferred instance gets its place back.
    pub failback: FailbackPolicy,
    /// How long a holder may act without asking.
    pub lease: LeasePolicy,
    /// What proves that the old active has stopped.
    pub fencing: FencingPolicy,
    /// What the holder does without a quorum.
    pub on_quorum_loss: OnQuorumLoss,
    /// How clients try again.
    pub retry: RetryPolicy,
    /// `active_active`: when all are sick, offer all, marked degraded.
    pub fail_open: bool,
    /// How calls are spread.
    pub load_balancing: LoadBalancing,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            mode: Mode::ActivePassive,
            checks: Vec::new(),
            detection: Detection {
                observers: 3,
                quorum: Quorum::Majority(MajorityWord::Majority),
                veto: false,
                error_rate: ErrorRate { window: Millis::secs(10), min_requests: 10, threshold: 0.5 },
                slow: SlowCalls {
                    window: Millis::secs(30),
                    min_requests: 20,
                    percentile: 0.95,
                    multiplier: 2.0,
                    floor: Millis(50),
                    ceiling: Millis::secs(30),
                },
                accrual: Accrual { phi: 8.0 },
                timeout: Millis::secs(30),
                combine: Combine::Any,
            },
            breaker: BreakerPolicy {
                consecutive_failures: 5,
                error_rate: 0.5,
                min_requests: 10,
                window: Millis::secs(10),
                open_for: Millis::secs(30),
                open_for_max: Millis::secs(300),
                open_for_multiplier: 2.0,
                half_open_max_calls: 3,
                half_open_timeout: Millis::secs(10),
                success_threshold: 3,
            },
            recovery: RecoveryPolicy {
                strategy: RecoveryStrategy::Gradual,
                cooldown: Millis::secs(300),
                cooldown_after: 3,
                initial_delay: Millis::secs(1),
                max_delay: Millis::secs(300),
                multiplier: 2.0,
                ramp: Millis::secs(60),
                probes: 3,
            },
            failover: FailoverPolicy {
                automatic: true,
                strategy: FailoverStrategy::Best,
                min_interval: Millis::secs(60),
                max_in_window: 3,
                window: Millis::secs(3_600),
                activation_timeout: Millis::secs(30),
                require_ack: false,
                max_lag: None,
                min_healthy: Millis::ZERO,
            },
            failback: FailbackPolicy { mode: FailbackMode::Manual, stable_for: Millis::secs(300) },
            lease: LeasePolicy { ttl: Millis::secs(10), delay: Millis::ZERO, release_on_disconnect: false },
            fencing: FencingPolicy { proof: ProofPolicy::Auto(AutoWord::Auto), hook: None },
            on_quorum_loss: OnQuorumLoss::SelfFence,
            retry: RetryPolicy {
                strategy: RetryStrategy::Jittered,
                max_attempts: 3,
                initial_backoff: Millis(100),
                max_backoff: Millis::secs(10),
                multiplier: 2.0,
                jitter: 0.2,
                retry_on: vec![RetryOn::Timeout, RetryOn::Connection, RetryOn::ServerError, RetryOn::RateLimit],
            },
            fail_open: false,
            load_balancing: LoadBalancing::WeightedRoundRobin,
        }
    }
}
