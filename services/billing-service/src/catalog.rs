//! The catalogue: what is sold, as code. A file says all of it, `catalog plan` shows what would change, `catalog apply` changes it
//! in one transaction. What was sold once is never edited: a change makes a new version, and customers stay on theirs.

pub mod amount;
pub mod api;
pub mod apply;
pub mod diff;
pub mod domain;
#[cfg(test)]
mod faults;
pub mod parse;
pub mod print;
#[cfg(test)]
mod properties;
mod reader;
pub mod stored;

pub use domain::{Catalog, Code, Interval, Plan};
pub use parse::{Invalid, parse};
