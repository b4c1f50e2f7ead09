//! The private lease API of billing-service (`POST /internal/v1/leases`): money that requests are paid from without asking again.

use identity::OrganizationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::LeaseId;

/// The scope that a gateway needs: for leases, for the price list by which it admits, and for settlements past the stream.
pub const SCOPE_LEASES_WRITE: &str = "leases:write";

/// Asks that an organization's lease reach for a request, or that it be filled up before it runs dry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// Who pays.
    pub organization_id: OrganizationId,
    /// What is missing for the request that asks, in micro-units; zero when it only runs low.
    pub needed_micros: i64,
    /// The lease as the caller saw it; none, when there was none.
    pub seen: Option<SeenLease>,
    /// The model of the request that asks: where the lease for all requests cannot be filled, credit that may pay for this model alone
    /// may fill another. With nothing needed, that other is the one that runs low.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRequest>,
}

/// What a request misses of the lease for its model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelRequest {
    /// The model, as rate cards name it.
    pub model: String,
    /// What is missing in the lease for it, in micro-units; zero when it only runs low.
    pub needed_micros: i64,
    /// What the request costs at most, in micro-units: with that, what lies in the lease for all requests can be known.
    pub cost_micros: i64,
    /// That lease as the caller saw it; none, when there was none.
    pub seen: Option<SeenLease>,
}

/// A lease as a request saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SeenLease {
    /// Its id.
    pub lease_id: LeaseId,
    /// All that had been put into it by then, in micro-units. When it is more by now, somebody else asked first.
    pub funded_micros: i64,
}

/// The lease, filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// Which of the organization's leases it is; a later one has a higher epoch.
    pub epoch: i64,
    /// All that has been put into it, in micro-units.
    pub funded_micros: i64,
}

/// Why there is no lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The wallet does not reach.
    #[error("the wallet does not reach")]
    InsufficientFunds,
    /// It cannot be known right now.
    #[error("billing cannot answer right now")]
    Unavailable,
}
