//! The failover SDK's session: one life of an instance that speaks to the cluster itself. What a session tells whoever
//! does the work, and what it is told, are plain data; what is done with them is not decided here.

mod clock;
mod event;
mod line;

pub use clock::{Alarm, NoAlarm, boot_time};
pub use event::{SessionEvent, SessionOver};
pub use line::{Release, Session, SessionEnd};
