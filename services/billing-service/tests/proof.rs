//! What must hold whatever happens: requirements that belong to no single route, and random commands against a reference model.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "api/app.rs"]
#[expect(dead_code, reason = "shared with the tests of the routes, which use all of it")]
mod app;
#[path = "api/gateway.rs"]
#[expect(dead_code, reason = "shared with the tests of the routes, which use all of it")]
mod gateway;
#[path = "proof/model.rs"]
mod model;
#[path = "proof/requirements.rs"]
mod requirements;
#[path = "api/selling.rs"]
mod selling;
#[path = "api/shop.rs"]
#[expect(dead_code, reason = "shared with the tests of the routes, which use all of it")]
mod shop;
#[path = "proof/stripe_calls.rs"]
mod stripe_calls;
