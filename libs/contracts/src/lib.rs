//! What the services say to each other: requests and answers of the private listeners, events on Redis streams, and
//! typed clients for them. No behavior beyond the wire: a service never depends on another service, only on this.

pub mod auth;
pub mod billing;
pub mod entitlements;
pub mod events;
pub mod ids;
pub mod leases;
pub mod rates;
pub mod shard;
pub mod usage;

pub use ids::{LeaseId, RequestId, ReservationId};
pub use shard::Shard;
