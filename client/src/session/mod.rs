//! The failover SDK's session: one life of an instance that speaks to the cluster itself. It registers, sends heartbeats to
//! any node that answers, follows the role stream, and gives tokens back. Every decision about the lease is
//! `baton_core::holder`'s; here are the requests and the clock.
//!
//! The worker (`baton run`, or a program of yours) hears [`SessionEvent`]s and answers with [`Session::release`]. It must stop
//! by itself when a lease that was told to it ends: no event says so, since nobody may be there to send it.

mod clock;
mod event;
mod line;
mod live;
mod wire;

#[cfg(test)]
mod tests;

use baton_core::id::{InstanceId, ServiceName};
use baton_core::policy::Registration;

use crate::http::Client;
pub use clock::{Alarm, NoAlarm, boot_time};
pub use event::{FOREVER, SessionEvent, SessionOver};
pub use line::{Asked, Release, Session, SessionEnd};

/// Who wants a session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// The cluster, by all its endpoints.
    pub client: Client,
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// What is said of it; its `liveness` must be `heartbeat`.
    pub registration: Registration,
    /// Whether the role stream is followed, so that a promotion is heard of at once and not by the next heartbeat. Must be
    /// false where the service has `lease.release_on_disconnect`: there the loss of a connection, which may happen to anybody,
    /// gives the token away while the worker still acts by it.
    pub follow_role: bool,
}

impl Session {
    /// Begins a session, and goes on until it is dropped or over. Must be called within a runtime.
    pub fn start(config: SessionConfig) -> Result<Self, NoAlarm> {
        let alarm = Alarm::new()?;
        let (session, end) = Self::line();
        tokio::spawn(live::live(config, end, alarm));
        Ok(session)
    }
}
