//! From a text to a [`Catalog`], or to all that is wrong with it at once.

mod items;
mod plan;
mod rules;

use std::fmt;

use serde_json::Value;

use super::domain::Catalog;
use super::reader::{Faults, Fields};

pub use super::reader::Fault;
pub(super) use items::{coupon, credit_pack};
pub(super) use plan::plan;

/// The largest file, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Everything that is wrong with a catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub Vec<Fault>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the catalogue is not valid:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {}: {}", fault.path, fault.rule))
    }
}

impl std::error::Error for Invalid {}

/// Reads a catalogue. YAML with bounds on size, depth, nodes and aliases, without merge keys and without a key that is there twice.
///
/// # Errors
/// [`Invalid`], with every fault.
pub fn parse(text: &str) -> Result<Catalog, Invalid> {
    if text.len() > MAX_BYTES {
        return Err(Invalid(vec![fault(format!("must have at most {MAX_BYTES} bytes"))]));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_depth: 16, max_nodes: 50_000, max_events: 200_000, max_documents: 1, max_aliases: 100, max_anchors: 100 },
        merge_keys: serde_saphyr::options::MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    let tree: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| Invalid(vec![fault(error.to_string())]))?;
    let faults = Faults::default();
    let read = catalog(tree, &faults);
    rules::check(&read, &faults);
    let faults = faults.into_vec();
    if faults.is_empty() { Ok(read) } else { Err(Invalid(faults)) }
}

fn fault(rule: String) -> Fault {
    Fault { path: "file".to_owned(), rule }
}

fn catalog(tree: Value, faults: &Faults) -> Catalog {
    let mut fields = Fields::of("", tree, faults);
    if fields.number("format", 1, 1).is_none() {
        faults.add("format", "must be 1");
    }
    let read = Catalog {
        default_plan: fields.parsed("default_plan"),
        plans: fields.entries("plans").into_iter().map(|(code, path, value)| (code, plan(&path, value, faults))).collect(),
        credit_packs: fields
            .entries("credit_packs")
            .into_iter()
            .map(|(code, path, value)| (code, credit_pack(&path, value, faults)))
            .collect(),
        coupons: fields.entries("coupons").into_iter().map(|(code, path, value)| (code, coupon(&path, value, faults))).collect(),
    };
    fields.end();
    read
}
