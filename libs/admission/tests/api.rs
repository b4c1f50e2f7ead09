//! The scripts on a real Redis: what they take, what they refuse, and what a lost or truncated log costs.

#[path = "api/durability.rs"]
mod durability;
#[path = "api/lease.rs"]
mod lease;
#[path = "api/limits.rs"]
mod limits;
#[path = "api/model.rs"]
mod model;
#[path = "api/settlement.rs"]
mod settlement;
#[path = "api/world.rs"]
mod world;
