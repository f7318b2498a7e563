//! The requests of the API that clients make, each path spelt once. How a request travels is `http`'s.

use std::time::Duration;

use baton_core::event::Event;
use baton_core::id::{InstanceId, Revision, ServiceName, Token, TransitionId};
use baton_core::planner::{ManualMove, ServiceReport};
use baton_core::transition::Transition;
use serde::Serialize;

use crate::error::ClientError;
use crate::http::Client;
use crate::view::{
    AckRequest, ActiveView, AdminRequest, ClusterAutomation, ClusterView, EndpointsView, EventPage, InstanceView,
    MoveAnswer, MoveRequest, PauseRequest, PickRequest, PickView, Readiness, ReleaseRequest, Released, ResetRequest,
    ResumeRequest, ServiceAutomation, ServiceView, Stored, TransitionPage, VerifyAnswer, VerifyRequest,
};

/// How long the answer to a move may take: the server waits ten seconds for its end, or as long as the request says, and
/// tells then how it stands.
const MOVE_TIMEOUT: Duration = Duration::from_secs(15);

impl Client {
    /// The cluster, as the node that answers sees it.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.get("/v1/cluster").await
    }

    /// Whether the node that answers has a leader and is caught up; a problem with status 503 if not.
    pub async fn ready(&self) -> Result<Readiness, ClientError> {
        self.get("/readyz").await
    }

    /// Every service.
    pub async fn services(&self) -> Result<Vec<ServiceView>, ClientError> {
        self.get_all("/v1/services").await
    }

    /// One service with its instances.
    pub async fn service(&self, service: &ServiceName) -> Result<ServiceView, ClientError> {
        self.get(&format!("/v1/services/{service}")).await
    }

    /// One service as the node that answers knows it, which may be late. An answer comes even without a quorum.
    pub async fn service_stale(&self, service: &ServiceName) -> Result<ServiceView, ClientError> {
        self.get(&format!("/v1/services/{service}?consistency=stale")).await
    }

    /// The active of a service; the problem `no_active` where there is none.
    pub async fn active(&self, service: &ServiceName) -> Result<ActiveView, ClientError> {
        self.get(&format!("/v1/services/{service}/active")).await
    }

    /// One instance of a service that may be called now; the problem `no_instance` where there is none.
    pub async fn pick(&self, service: &ServiceName, request: &PickRequest) -> Result<PickView, ClientError> {
        self.post(&format!("/v1/services/{service}/pick"), request).await
    }

    /// All instances of a service that may be called now.
    pub async fn callable(&self, service: &ServiceName) -> Result<EndpointsView, ClientError> {
        self.get(&format!("/v1/services/{service}/endpoints")).await
    }

    /// One instance.
    pub async fn instance(&self, service: &ServiceName, instance: &InstanceId) -> Result<InstanceView, ClientError> {
        self.get(&format!("/v1/services/{service}/instances/{instance}")).await
    }

    /// Creates a service or replaces its spec.
    pub async fn put_service<B: Serialize + Sync>(
        &self,
        service: &ServiceName,
        spec: &B,
    ) -> Result<Stored, ClientError> {
        self.put(&format!("/v1/services/{service}"), spec).await
    }

    /// Removes a service and its instances.
    pub async fn delete_service(&self, service: &ServiceName) -> Result<(), ClientError> {
        self.delete(&format!("/v1/services/{service}")).await
    }

    /// Registers an instance.
    pub async fn put_instance<B: Serialize + Sync>(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        registration: &B,
    ) -> Result<Stored, ClientError> {
        self.put(&format!("/v1/services/{service}/instances/{instance}"), registration).await
    }

    /// Takes an instance out, or lets it in again.
    pub async fn set_admin(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        request: &AdminRequest,
    ) -> Result<InstanceView, ClientError> {
        self.post(&format!("/v1/services/{service}/instances/{instance}/admin"), request).await
    }

    /// Makes everything forgotten that speaks against an instance.
    pub async fn reset(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        request: &ResetRequest,
    ) -> Result<InstanceView, ClientError> {
        self.post(&format!("/v1/services/{service}/instances/{instance}/reset"), request).await
    }

    /// Changes what is said of an instance, without a new session: `changes` are merged into its registration.
    pub async fn patch_instance<B: Serialize + Sync>(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        changes: &B,
    ) -> Result<Stored, ClientError> {
        self.patch(&format!("/v1/services/{service}/instances/{instance}"), changes).await
    }

    /// Says that a promoted instance serves; the record of the move that promoted it.
    pub async fn ack(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        request: &AckRequest,
    ) -> Result<Transition, ClientError> {
        self.post(&format!("/v1/services/{service}/instances/{instance}/ack"), request).await
    }

    /// Says that a holder has stopped.
    pub async fn release(
        &self,
        service: &ServiceName,
        instance: &InstanceId,
        request: &ReleaseRequest,
    ) -> Result<Released, ClientError> {
        self.post(&format!("/v1/services/{service}/instances/{instance}/release"), request).await
    }

    /// Whether a token is the active's.
    pub async fn verify_token(&self, service: &ServiceName, token: Token) -> Result<VerifyAnswer, ClientError> {
        self.post(&format!("/v1/services/{service}/tokens/verify"), &VerifyRequest { token }).await
    }

    /// Moves the active. Answered when the move is at its end, or while it is still open after the request's `wait`.
    pub async fn make_move(
        &self,
        wanted: ManualMove,
        service: &ServiceName,
        request: &MoveRequest,
    ) -> Result<MoveAnswer, ClientError> {
        let patient = self.clone().answer_within(MOVE_TIMEOUT);
        patient.post(&format!("/v1/services/{service}/{wanted}"), request).await
    }

    /// Moves the active, both sides well.
    pub async fn switchover(&self, service: &ServiceName, request: &MoveRequest) -> Result<MoveAnswer, ClientError> {
        self.make_move(ManualMove::Switchover, service, request).await
    }

    /// Why, and why not.
    pub async fn explain(&self, service: &ServiceName) -> Result<ServiceReport, ClientError> {
        self.get(&format!("/v1/services/{service}/explain")).await
    }

    /// The same as the node that answers knows it, which may be late. An answer comes even without a quorum.
    pub async fn explain_stale(&self, service: &ServiceName) -> Result<ServiceReport, ClientError> {
        self.get(&format!("/v1/services/{service}/explain?consistency=stale")).await
    }

    /// Keeps Baton from moving a service by itself, for a while.
    pub async fn pause(&self, service: &ServiceName, request: &PauseRequest) -> Result<ServiceAutomation, ClientError> {
        self.post(&format!("/v1/services/{service}/pause"), request).await
    }

    /// Lets Baton move a service by itself again.
    pub async fn resume(
        &self,
        service: &ServiceName,
        request: &ResumeRequest,
    ) -> Result<ServiceAutomation, ClientError> {
        self.post(&format!("/v1/services/{service}/resume"), request).await
    }

    /// Keeps Baton from moving any service by itself, for a while.
    pub async fn pause_all(&self, request: &PauseRequest) -> Result<ClusterAutomation, ClientError> {
        self.post("/v1/automation/pause", request).await
    }

    /// Lets Baton move services by itself again, and releases the brake.
    pub async fn resume_all(&self, request: &ResumeRequest) -> Result<ClusterAutomation, ClientError> {
        self.post("/v1/automation/resume", request).await
    }

    /// The record of one transition.
    pub async fn transition(&self, id: TransitionId) -> Result<Transition, ClientError> {
        self.get(&format!("/v1/transitions/{id}")).await
    }

    /// One transition's record as the node that answers knows it, which may be late. An answer comes even without a quorum.
    pub async fn transition_stale(&self, id: TransitionId) -> Result<Transition, ClientError> {
        self.get(&format!("/v1/transitions/{id}?consistency=stale")).await
    }

    /// The last transitions, the newest first: of one service, or of all.
    pub async fn transitions(
        &self,
        service: Option<&ServiceName>,
        limit: usize,
    ) -> Result<Vec<Transition>, ClientError> {
        let of = service.map_or_else(String::new, |service| format!("&service={service}"));
        let page: TransitionPage = self.get(&format!("/v1/transitions?limit={limit}{of}")).await?;
        Ok(page.items)
    }

    /// The same as the node that answers knows them, which may be late. An answer comes even without a quorum.
    pub async fn transitions_stale(
        &self,
        service: Option<&ServiceName>,
        limit: usize,
    ) -> Result<Vec<Transition>, ClientError> {
        let of = service.map_or_else(String::new, |service| format!("&service={service}"));
        let page: TransitionPage = self.get(&format!("/v1/transitions?consistency=stale&limit={limit}{of}")).await?;
        Ok(page.items)
    }

    /// The events after a revision, at most `limit` of them.
    pub async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, ClientError> {
        let page: EventPage = self.get(&format!("/v1/events?after={after}&limit={limit}")).await?;
        Ok(page.items)
    }
}
