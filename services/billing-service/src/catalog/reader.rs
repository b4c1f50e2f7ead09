//! Reads fields out of a tree and collects every fault with its path, so that a person mends a file once and not once for each.

use std::cell::RefCell;
use std::str::FromStr;

use serde_json::{Map, Value};

/// A fault: which field, and the rule that it breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field, such as `plans.pro.prices.USD.month`.
    pub path: String,
    /// The rule.
    pub rule: String,
}

/// All faults of a text.
#[derive(Debug, Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes a fault.
    pub fn add(&self, path: &str, rule: impl Into<String>) {
        self.0.borrow_mut().push(Fault { path: path.to_owned(), rule: rule.into() });
    }

    /// All of them, in the order they were found.
    pub fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// The path of a field within another.
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A mapping of which each known field is taken out; what is left at the end is unknown.
pub struct Fields<'f> {
    path: String,
    left: Map<String, Value>,
    faults: &'f Faults,
}

impl<'f> Fields<'f> {
    /// The fields of a mapping; of anything else none, and a fault.
    pub fn of(path: &str, value: Value, faults: &'f Faults) -> Self {
        let left = if let Value::Object(left) = value {
            left
        } else {
            faults.add(path, "must be a mapping");
            Map::new()
        };
        Self { path: path.to_owned(), left, faults }
    }

    /// A field's path.
    pub fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// Takes a field; null is as good as absent.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.left.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field that must be there.
    pub fn need(&mut self, name: &str) -> Option<Value> {
        let taken = self.take(name);
        if taken.is_none() {
            self.faults.add(&self.path(name), "is missing");
        }
        taken
    }

    /// Takes a text of 1 to 200 characters that must be there.
    pub fn text(&mut self, name: &str) -> String {
        let Some(value) = self.need(name) else { return String::new() };
        let path = self.path(name);
        let text = text(&path, &value, self.faults).unwrap_or_default();
        if value.is_string() && !(1..=200).contains(&text.chars().count()) {
            self.faults.add(&path, "must have 1 to 200 characters");
        }
        text
    }

    /// Takes a text of a kind of its own, if it is there.
    pub fn parsed<T: FromStr<Err: ToString>>(&mut self, name: &str) -> Option<T> {
        let value = self.take(name)?;
        let path = self.path(name);
        let text = text(&path, &value, self.faults)?;
        parsed(&path, &text, self.faults)
    }

    /// Takes a whole number within bounds, if it is there.
    pub fn number(&mut self, name: &str, least: u32, most: u32) -> Option<u32> {
        let value = self.take(name)?;
        let path = self.path(name);
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.faults.add(&path, format!("must be a whole number from {least} to {most}"));
        }
        number
    }

    /// Takes a mapping by codes of a kind of its own, if it is there.
    pub fn entries<K: FromStr<Err: ToString>>(&mut self, name: &str) -> Vec<(K, String, Value)> {
        let Some(value) = self.take(name) else { return Vec::new() };
        entries(&self.path(name), value, self.faults)
    }

    /// Takes a list of texts of a kind of their own, if it is there.
    pub fn list<T: FromStr<Err: ToString> + Ord>(&mut self, name: &str) -> Option<std::collections::BTreeSet<T>> {
        let value = self.take(name)?;
        let path = self.path(name);
        let Value::Array(items) = value else {
            self.faults.add(&path, "must be a list");
            return None;
        };
        let mut seen = std::collections::BTreeSet::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if let Some(item) = text(&path, item, self.faults).and_then(|text| parsed(&path, &text, self.faults))
                && !seen.insert(item)
            {
                self.faults.add(&path, "is there twice");
            }
        }
        Some(seen)
    }

    /// Says of each field that was not taken that nobody knows it.
    pub fn end(self) {
        for name in self.left.keys() {
            self.faults.add(&join(&self.path, name), "is not a field that is known here");
        }
    }
}

/// The entries of a mapping whose keys are of a kind of their own, with their paths.
pub fn entries<K: FromStr<Err: ToString>>(path: &str, value: Value, faults: &Faults) -> Vec<(K, String, Value)> {
    let Value::Object(map) = value else {
        faults.add(path, "must be a mapping");
        return Vec::new();
    };
    map.into_iter()
        .filter_map(|(key, value)| {
            let path = join(path, &key);
            parsed(&path, &key, faults).map(|key| (key, path, value))
        })
        .collect()
}

/// A value that must be text. A bare `20.00` is a number to YAML and would be read through a floating point: it is refused.
pub fn text(path: &str, value: &Value, faults: &Faults) -> Option<String> {
    if let Value::String(text) = value {
        return Some(text.clone());
    }
    faults.add(path, "must be text, in quotes");
    None
}

fn parsed<T: FromStr<Err: ToString>>(path: &str, text: &str, faults: &Faults) -> Option<T> {
    text.parse().map_err(|error: T::Err| faults.add(path, error.to_string())).ok()
}
