//! Stripe: events in, customers out.

pub mod customers;
pub mod signature;
pub mod webhook;
pub mod worker;
