//! The requests of the API that clients make, each path spelt once. How a request travels is `http`'s.

use baton_core::event::Event;
use baton_core::id::{InstanceId, Revision, ServiceName, TransitionId};
use baton_core::transition::Transition;
use serde::Serialize;

use crate::error::ClientError;
use crate::http::Client;
use crate::view::{
    ActiveView, AdminRequest, ClusterView, EndpointsView, EventPage, InstanceView, MoveRequest, PickRequest, PickView,
    Readiness, ResetRequest, ServiceView, Stored,
};

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

    /// Moves the active, both sides well.
    pub async fn switchover(
        &self,
        service: &ServiceName,
        request: &MoveRequest,
    ) -> Result<serde_json::Value, ClientError> {
        self.post(&format!("/v1/services/{service}/switchover"), request).await
    }

    /// The record of one transition.
    pub async fn transition(&self, id: TransitionId) -> Result<Transition, ClientError> {
        self.get(&format!("/v1/transitions/{id}")).await
    }

    /// The events after a revision, at most `limit` of them.
    pub async fn events(&self, after: Revision, limit: usize) -> Result<Vec<Event>, ClientError> {
        let page: EventPage = self.get(&format!("/v1/events?after={after}&limit={limit}")).await?;
        Ok(page.items)
    }
}
