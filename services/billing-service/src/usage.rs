//! What requests used: settled once for each, listed for those who pay.

mod consumer;
mod list;
mod settlement;

pub use consumer::UsageEvents;
pub use list::{__path_list, UsageRow, list};
pub use settlement::{Used, record_abandoned, settle};
