//! The simulator over HTTP, as a shop and its tests see it.
#![expect(clippy::unwrap_used, reason = "tests")]

mod api {
    mod balances;
    mod billing;
    mod catalog;
    mod checkout;
    mod client;
    mod control;
    mod customers;
    mod edge;
    mod idempotency;
    mod invariants;
    mod pages;
    mod payments;
    mod receiver;
    mod restart;
    mod shapes;
    mod subscriptions;
    mod webhooks;
}
