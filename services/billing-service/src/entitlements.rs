//! What an organization may do: made of its plans and of its hard budgets, and pushed to whoever caches it.
//!
//! The truth is computed from the database, and its number says how old it is. Whoever holds a copy hears `entitlements.changed` on the
//! stream of billing-service and asks again.

pub mod api;
pub mod compute;
pub mod push;
mod read;
mod version;

pub use read::read;
pub use version::{changed, changed_for_all};
