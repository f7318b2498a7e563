//! Whom to call: what a client asks for, and who may be called.

use baton_core::breaker::BreakerState;
use baton_core::id::{InstanceId, Revision, ServiceName, Token};
use baton_core::pick::PickStrategy;
use baton_core::policy::{Address, Mode};
use baton_core::probe::Health;
use serde::{Deserialize, Serialize};

/// The body of `POST …/pick`. All of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PickRequest {
    /// How to choose; left out, the service's `load_balancing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<PickStrategy>,
    /// Never these: those that this call has been tried on, the last one last. At most 1000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<InstanceId>,
    /// Rather one of this zone, where one of the same tier may be called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// One instance that may be called now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PickView {
    /// The service.
    pub service: ServiceName,
    /// The instance.
    pub instance: InstanceId,
    /// Where it listens; null where its registration names no address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7:5432"))]
    pub address: Option<Address>,
    /// The fencing token, where it is the active of an `active_passive` service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The generation of its breaker: name it in the report of how the call went.
    pub generation: u64,
    /// Its share of calls now: its weight times the share of its ramp.
    #[cfg_attr(feature = "openapi", schema(example = 0.55))]
    pub weight: f64,
    /// Its breaker is half open and this call is one of the few that try it: make it, and report how it went.
    pub trial: bool,
    /// All are sick, and by the service's `fail_open` one of them is offered all the same.
    pub degraded: bool,
    /// The last event that concerned the service. Of two answers, the one with the higher revision is the newer.
    pub revision: Revision,
}

/// One of those that may be called now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointView {
    /// The instance.
    pub instance: InstanceId,
    /// Where it listens; null where its registration names no address.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "10.0.0.7:5432"))]
    pub address: Option<Address>,
    /// The fencing token, where it is the active of an `active_passive` service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// The site or failure domain it is in.
    pub zone: Option<String>,
    /// Lower wins first.
    pub tier: u32,
    /// Within a tier, higher wins.
    pub priority: u32,
    /// Its share of calls now: its weight times the share of its ramp.
    #[cfg_attr(feature = "openapi", schema(example = 0.55))]
    pub effective_weight: f64,
    /// What the cluster agrees on about it.
    pub health: Health,
    /// `closed`, or `half_open`: then a call must be granted first, which is what `pick` does.
    pub breaker: BreakerState,
    /// The generation of its breaker: name it in reports of how calls went.
    pub generation: u64,
}

/// All that may be called now, of every tier and zone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndpointsView {
    /// The service.
    pub service: ServiceName,
    /// One active, or all.
    pub mode: Mode,
    /// Those that may be called, by id: the healthy ones; where there are none the doubted ones; where there are none of
    /// these either and the service has `fail_open`, the sick.
    pub endpoints: Vec<EndpointView>,
    /// All are sick, and they are listed by the service's `fail_open`.
    pub degraded: bool,
    /// Where nobody may be called: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The last event that concerned the service. A long poll with `after` set to it waits for the next.
    pub revision: Revision,
}
