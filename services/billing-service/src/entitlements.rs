//! What an organization may do: made of its plans and of its hard budgets, and pushed to whoever caches it.
//!
//! The truth is computed from the database. A copy stands in Redis for the admission script; its number says how old it is. Whoever
//! holds another copy hears `entitlements.changed` on the stream of billing-service and asks again, here and not in Redis, whose copy
//! may be written a moment after the news.

pub mod api;
pub mod compute;
pub mod copy;
pub mod push;
mod read;
mod version;

pub use read::read;
pub use version::{changed, changed_for_all};
