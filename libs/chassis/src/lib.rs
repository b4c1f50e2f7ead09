//! What every service stands on, so that a service is only its features: configuration, telemetry, the HTTP edge, health,
//! shutdown, Postgres, Redis, and the patterns that move facts between services without losing or doubling them.

pub mod cli;
pub mod clock;
pub mod config;
pub mod cursor;
pub mod health;
pub mod host;
pub mod http;
pub mod id;
pub mod idempotency;
pub mod inbox;
pub mod lifecycle;
pub mod outbox;
pub mod postgres;
pub mod problem;
pub mod random;
pub mod redis;
pub mod retention;
pub mod steps;
pub mod streams;
pub mod telemetry;

pub use clock::Clock;
pub use problem::Problem;
pub use random::Random;
pub use secrecy::{ExposeSecret, SecretString};
