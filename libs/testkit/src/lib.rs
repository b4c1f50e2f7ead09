//! Real Postgres and Redis for one test. The servers are started once per test binary, on free ports and with throw-away data;
//! each test has a database of its own. Never part of a service's image.

pub mod contract;
pub mod coverage;
pub mod eventually;
pub mod fuzz;
pub mod http;
pub mod logs;
pub mod mutate;
pub mod ports;
pub mod postgres;
pub mod queries;
pub mod redis;
pub mod repository;
mod scratch;
mod server;

use chassis::Clock;
use chassis::clock::ManualClock;
use chrono::DateTime;

pub use eventually::eventually;
pub use postgres::TestDatabase;
pub use redis::TestRedis;
pub use server::Server;

/// A clock that stands at the first instant of 2030 until it is turned.
#[must_use]
pub fn clock() -> (Clock, ManualClock) {
    Clock::manual(DateTime::from_timestamp(1_893_456_000, 0).unwrap_or(DateTime::UNIX_EPOCH))
}
