//! Bodies and queries as Stripe's libraries write them: `items[0][price]=price_1&metadata[k]=v`.

use serde_json::{Map, Value};
use url::form_urlencoded;

use crate::error::Failure;

/// Deeper than any parameter of the API.
const MAX_DEPTH: usize = 8;

/// Reads a form into a tree whose leaves are texts; numbered keys become lists.
pub(crate) fn parse(form: &[u8]) -> Result<Map<String, Value>, Failure> {
    let mut root = Map::new();
    for (key, value) in form_urlencoded::parse(form) {
        let segments = segments(&key).ok_or_else(|| Failure::invalid(format!("Invalid parameter name: {key}")).param(&key))?;
        insert(&mut root, &segments, value.into_owned())
            .ok_or_else(|| Failure::invalid(format!("Invalid parameter: {key}")).param(&key))?;
    }
    Ok(root.into_iter().map(|(key, value)| (key.clone(), lists(&key, value))).collect())
}

/// `a[b][]` is `a`, `b`, and an empty name: the next of a list.
fn segments(key: &str) -> Option<Vec<&str>> {
    let Some((first, rest)) = key.split_once('[') else {
        return (!key.is_empty()).then(|| vec![key]);
    };
    let rest = rest.strip_suffix(']')?;
    let segments: Vec<&str> = std::iter::once(first).chain(rest.split("][")).collect();
    let plain = segments.iter().all(|segment| !segment.contains(['[', ']']));
    (plain && !first.is_empty() && segments.len() <= MAX_DEPTH).then_some(segments)
}

fn insert(into: &mut Map<String, Value>, segments: &[&str], value: String) -> Option<()> {
    let (first, rest) = segments.split_first()?;
    let name = if first.is_empty() { into.len().to_string() } else { (*first).to_owned() };
    if rest.is_empty() {
        into.insert(name, Value::String(value));
        return Some(());
    }
    let below = into.entry(name).or_insert_with(|| Value::Object(Map::new()));
    insert(below.as_object_mut()?, rest, value)
}

/// Makes lists of objects whose names are numbers. Metadata has names of the caller's choice, and stays.
fn lists(name: &str, value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let numbered = name != "metadata" && !fields.is_empty() && fields.keys().all(|key| key.parse::<u32>().is_ok());
    if !numbered {
        return Value::Object(fields.into_iter().map(|(key, value)| (key.clone(), lists(&key, value))).collect());
    }
    let mut entries: Vec<(u32, Value)> = fields.into_iter().filter_map(|(key, value)| Some((key.parse().ok()?, value))).collect();
    entries.sort_by_key(|(index, _)| *index);
    Value::Array(entries.into_iter().map(|(_, value)| lists("", value)).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn brackets_become_trees_and_numbers_become_lists() {
        let tree = parse(b"a=1&items[1][price]=q&items[0][price]=p&metadata[0]=x&expand[]=one&expand[]=two").unwrap();
        let expected = json!({
            "a": "1", "items": [{"price": "p"}, {"price": "q"}], "metadata": {"0": "x"}, "expand": ["one", "two"]
        });
        assert_eq!(Value::Object(tree), expected);
    }

    #[test]
    fn names_that_contradict_each_other_or_do_not_close_are_refused() {
        assert!(parse(b"a=1&a[b]=2").is_err());
        assert!(parse(b"a[b=2").is_err());
        assert!(parse(b"a[a][a][a][a][a][a][a][a]=2").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_form_brings_it_down(bytes in proptest::collection::vec(0_u8..=255, 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
