//! What the gateway costs: its latency and throughput beside a proxy that only forwards, on the same core, in the same run.
//!
//! Never part of an image, and never a test: figures go into `docs/architecture/PERFORMANCE.md`, with the command that gave them.

pub mod admission;
pub mod billing;
pub mod load;
pub mod processes;
pub mod stack;
