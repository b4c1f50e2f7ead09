//! Margin: what was earned, what it cost us, and an alert where the one is less than the other. For operators only.

mod alerts;
mod noted;
mod report;

pub use alerts::{Alert, look, run};
pub use noted::{NotedAlert, get as list_alerts, newest};
pub use report::{By, MarginRow, get, report};
