//! Stand-in until the real file is merged.
use serde::{Deserialize, Serialize};

use crate::probe::FailureClass;

/// The numbers that opened (or closed) a breaker; travels in events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerNumbers {
    /// Failures in a row.
    pub consecutive_failures: u64,
    /// Calls counted.
    pub calls: u64,
    /// Failures among them.
    pub failures: u64,
    /// The class of the last failure.
    pub class: Option<FailureClass>,
}
