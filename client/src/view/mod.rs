//! The bodies of the API, as types: what the daemon writes and what clients read. Plain data; the daemon makes them
//! from its state, and nothing here reaches for a socket.

mod automation;
mod cluster;
mod condition;
mod holder;
mod moves;
mod operator;
mod page;
mod pick;
mod problem;
mod reports;
mod service;
mod stream;

pub use automation::{ClusterAutomation, PauseRequest, PauseView, ResumeRequest, ServiceAutomation};
pub use cluster::{ClusterView, LocalView, NodeRole, NodeView, ProcessLiveness, Readiness};
pub use condition::{AdminView, BreakerView, JudgedView, RecoveryView};
pub use holder::{
    AckRequest, ReleaseRequest, Released, RoleOver, RoleView, STREAM_OVER, STREAM_ROLE, VerifyAnswer, VerifyRequest,
};
pub use moves::{MoveAnswer, MoveRequest};
pub use operator::{AdminRequest, ResetRequest};
pub use page::{EventPage, InstancePage, ServicePage, TransitionPage};
pub use pick::{EndpointView, EndpointsView, PickRequest, PickView};
pub use problem::{PROBLEM_JSON, Problem};
pub use reports::{
    CallReport, DroppedReport, FailureCounts, HeartbeatAnswer, HeartbeatRequest, ReportsAnswer, ReportsRequest,
};
pub use service::{
    ActiveView, InstanceState, InstanceSummary, InstanceView, Removed, Role, ServiceSummary, ServiceView, Stored,
    VerdictView,
};
pub use stream::{Bookmark, Reset, STREAM_BOOKMARK, STREAM_RESET, STREAM_SNAPSHOT, Snapshot};
