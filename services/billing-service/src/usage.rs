//! What requests used: recorded once for each, listed for those who pay.

mod consumer;
mod export;
mod list;
mod overage;
pub mod partitions;
mod posting;
mod record;
mod settlement;

pub use consumer::UsageEvents;
pub use export::{__path_export, Format, PAGE, chunks, export};
pub use list::{__path_list, UsageRow, list};
pub use overage::Overage;
pub use posting::{Posted, post_one};
pub use settlement::{Used, record_abandoned, settle};
