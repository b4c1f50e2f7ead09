//! What is shown of an object, in answers and in events.

use serde_json::{Map, Value};

/// Entries that Stripe shows of a list inside of an object.
const EMBEDDED: usize = 10;

/// An object without what is the simulator's own.
pub(crate) fn shown(object: &Value) -> Value {
    match object {
        Value::Object(fields) => {
            // With room for all: a filter does not say how many it lets pass, and a map that grows is hashed again each time.
            let mut visible = Map::with_capacity(fields.len());
            visible.extend(fields.iter().filter(|(name, _)| !name.starts_with("__")).map(|(name, value)| (name.clone(), shown(value))));
            cut_embedded(&mut visible);
            Value::Object(visible)
        }
        Value::Array(entries) => Value::Array(entries.iter().map(shown).collect()),
        other => other.clone(),
    }
}

/// Removes from an object what is the simulator's own.
pub(crate) fn hide(object: &mut Value) {
    match object {
        Value::Object(fields) => {
            fields.retain(|name, _| !name.starts_with("__"));
            cut_embedded(fields);
            fields.values_mut().for_each(hide);
        }
        Value::Array(entries) => entries.iter_mut().for_each(hide),
        _ => {}
    }
}

/// Leaves of a list inside of an object what Stripe shows there; the others are on the pages at its `url`.
fn cut_embedded(fields: &mut Map<String, Value>) {
    if !fields.contains_key("total_count") {
        return;
    }
    if let Some(Value::Array(data)) = fields.get_mut("data")
        && data.len() > EMBEDDED
    {
        data.truncate(EMBEDDED);
        fields.insert("has_more".to_owned(), true.into());
    }
}
