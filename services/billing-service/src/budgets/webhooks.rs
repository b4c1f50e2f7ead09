//! Signed messages to where an organization wants them (Standard Webhooks): registered, guarded against being turned on our own
//! network, sent until they arrive, listed, replayable. Secrets are replaced while messages go on.

pub mod deliveries;
pub mod endpoints;
pub mod guard;
pub mod secrets;
pub mod sender;
pub mod signature;

chassis::define_id!(
    /// Where messages go.
    EndpointId, "whe"
);
chassis::define_id!(
    /// One message to one endpoint.
    DeliveryId, "whd"
);
