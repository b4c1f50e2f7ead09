//! What requests used: recorded once for each, listed for those who pay.

mod consumer;
mod list;
mod posting;
mod record;
mod settlement;

pub use consumer::UsageEvents;
pub use list::{__path_list, UsageRow, list};
pub use posting::{Posted, post_one};
pub use settlement::{Used, record_abandoned, settle};
