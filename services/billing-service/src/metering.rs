//! Metering for any service: events that say what was used, and meters that count them. Nothing here moves money.

mod cloud_event;
mod definition;
mod events;
mod fields;
mod ingest;
mod meters;
mod placement;
pub mod retention;
mod windows;

#[cfg(test)]
pub(crate) use cloud_event::read;
pub use definition::Aggregation;
pub use events::{__path_receive, receive, receive_internal};
pub(crate) use meters::lock as lock_meters;
pub use meters::{__path_create, __path_list, create, list};
pub use placement::{Placement, Rules, Unplaced};
pub use windows::{__path_usage, usage};

chassis::define_id!(
    /// One meter.
    MeterId, "mtr"
);
