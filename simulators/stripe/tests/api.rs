//! The simulator over HTTP, as a shop and its tests see it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod api {
    mod catalog;
    mod client;
    mod customers;
    mod edge;
    mod idempotency;
    mod receiver;
    mod webhooks;
}
