//! chat-service over HTTP, against real Redis and stand-ins for auth-service, billing-service and the provider that do exactly
//! what a test tells them.

#[path = "api/budget.rs"]
mod budget;
#[path = "api/documents.rs"]
mod documents;
#[path = "api/edge.rs"]
mod edge;
#[path = "api/failures.rs"]
mod failures;
#[path = "api/harness.rs"]
mod harness;
#[path = "api/ledger.rs"]
mod ledger;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/models.rs"]
mod models;
#[path = "api/neighbors.rs"]
mod neighbors;
#[path = "api/plans.rs"]
mod plans;
#[path = "api/refusals.rs"]
mod refusals;
#[path = "api/settlement.rs"]
mod settlement;
#[path = "api/spending.rs"]
mod spending;
#[path = "api/streams.rs"]
mod streams;
#[path = "api/upstream.rs"]
mod upstream;
#[path = "api/whole.rs"]
mod whole;
