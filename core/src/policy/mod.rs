//! What an operator wants of a service: the `Spec`, its parts and their defaults. Types and defaults only; how text
//! becomes one is next door in `parse`, what may be decided from one is in `planner` and `apply`.

mod check;
mod inactive;
mod parse;
mod registration;
mod spec;

pub use check::{Check, CheckKind, CheckTls, StatusRange};
pub use inactive::{Inactive, inactive_parts};
pub use parse::{FieldError, LAG_MAX, parse_registration, parse_registration_patch, parse_spec};
pub use registration::{Address, InvalidAddress, Liveness, Overrides, Registration};
pub(crate) use spec::words;
pub use spec::{
    Accrual, AutoWord, BreakerPolicy, Combine, Detection, ErrorRate, FailbackMode, FailbackPolicy, FailoverPolicy,
    FailoverStrategy, FencingHook, FencingPolicy, LeasePolicy, LoadBalancing, MajorityWord, Mode, OnQuorumLoss,
    ProofKind, ProofPolicy, Quorum, RecoveryPolicy, RecoveryStrategy, RetryOn, RetryPolicy, RetryStrategy, SlowCalls,
    Spec,
};
