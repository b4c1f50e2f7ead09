//! Changes of a JSON document's structure. What is no JSON is left to the other changes.

use serde_json::{Map, Value};

use super::Mutator;

/// Deeper than any reader should follow.
const DEPTH: usize = 300;

impl Mutator {
    /// Leaves out, doubles, renames, replaces or wraps a part of the document.
    pub(super) fn change_tree(&mut self, input: &mut Vec<u8>) {
        let Ok(mut tree) = serde_json::from_slice::<Value>(input) else { return self.change_text(input) };
        let mut left = self.below(count(&tree));
        if let Some(part) = nth(&mut tree, &mut left) {
            self.change_part(part);
        }
        *input = tree.to_string().into_bytes();
    }

    fn change_part(&mut self, part: &mut Value) {
        match (self.below(8), &mut *part) {
            (0, Value::Object(fields)) if !fields.is_empty() => {
                let name = self.name_in(fields);
                let old = fields.remove(&name);
                if self.below(2) == 0 {
                    fields.insert(self.word(), old.unwrap_or_default());
                }
            }
            (0, Value::Array(items)) if !items.is_empty() => {
                let at = self.below(items.len());
                let again = items[at].clone();
                if self.below(2) == 0 { drop(items.remove(at)) } else { items.resize(items.len() + 1 + self.below(3), again) }
            }
            (1..=4, Value::Object(fields)) => {
                let (name, value) = (self.word(), self.foreign());
                fields.insert(name, value);
            }
            (1..=4, Value::Array(items)) => items.push(self.foreign()),
            (5, _) => *part = self.foreign(),
            (6, _) => {
                let (depth, name) = (if self.below(20) == 0 { DEPTH } else { 1 }, self.word());
                let wrap = |inner| if name.is_empty() { Value::Array(vec![inner]) } else { Map::from_iter([(name.clone(), inner)]).into() };
                *part = (0..depth).fold(part.take(), |inner, _| wrap(inner));
            }
            _ => {
                // A word as what it is in JSON, or as a text.
                let word = self.word();
                *part = serde_json::from_str(&word).ok().filter(|_| self.below(2) == 0).unwrap_or(Value::String(word));
            }
        }
    }

    fn name_in(&mut self, fields: &Map<String, Value>) -> String {
        let at = self.below(fields.len());
        fields.keys().nth(at).cloned().unwrap_or_default()
    }

    /// A part of another sample; a word, where that is no JSON.
    fn foreign(&mut self) -> Value {
        let Ok(mut other) = serde_json::from_slice::<Value>(self.sample()) else { return Value::String(self.word()) };
        let mut left = self.below(count(&other));
        nth(&mut other, &mut left).map(Value::take).unwrap_or_default()
    }
}

/// Parts of a document, itself among them.
fn count(tree: &Value) -> usize {
    match tree {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(fields) => 1 + fields.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn nth<'a>(tree: &'a mut Value, left: &mut usize) -> Option<&'a mut Value> {
    if *left == 0 {
        return Some(tree);
    }
    *left -= 1;
    match tree {
        Value::Array(items) => items.iter_mut().find_map(|item| nth(item, left)),
        Value::Object(fields) => fields.values_mut().find_map(|value| nth(value, left)),
        _ => None,
    }
}
