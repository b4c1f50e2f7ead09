//! The kill drill: who is ended and when, what is asked of the stack meanwhile, and what must be true afterwards.
//!
//! Never part of an image. `main.rs` runs it; `bin/` has the services as the drill needs them, with [steps] at which they can be ended.

pub mod books;
pub mod coverage;
pub mod hurry;
pub mod incidents;
pub mod kills;
pub mod load;
pub mod metrics;
pub mod reports;
pub mod shop;
pub mod steps;

/// What each organization has to begin with, in micro-units: enough for everything, and less than the highest threshold of a top-up.
pub const GRANT: i64 = 500_000_000_000;
