//! The promotion protocol told as stories: a leader with its table of leases, three instances that heartbeat, and what becomes of
//! releases, registrations, switches, acknowledgements and debts. The table itself is tried in `core/src/lease/tests.rs`, the
//! holder's side in `core/src/holder/tests.rs`; rails have stories of their own.

mod support;

mod protocol {
    mod activation;
    mod cluster;
    mod debts;
    #[cfg(feature = "mutants")]
    mod faults;
    mod fencing;
    mod moves;
    mod releases;
    mod tenures;
}
