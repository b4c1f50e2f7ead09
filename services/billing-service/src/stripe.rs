//! Stripe: events in, customers out.

pub(crate) mod backoff;
pub mod customers;
pub mod signature;
pub(crate) mod storable;
pub mod transport;
pub mod webhook;
pub mod worker;
