//! What requests used: settled once for each, listed for those who pay.

mod consumer;
mod export;
mod list;
pub mod partitions;
mod settlement;

pub use consumer::UsageEvents;
pub use export::{__path_export, Format, PAGE, chunks, export};
pub use list::{__path_list, UsageRow, list};
pub use settlement::{Used, record_abandoned, settle};
