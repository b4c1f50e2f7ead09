//! Reading JSON without owning it, and without memory for what nobody asked for.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// More fields than any API has: looking a name up stays cheap.
const MAX_FIELDS: usize = 256;

/// The fields of an object in their order, their values untouched.
#[derive(Debug)]
pub(crate) struct Fields(Vec<(String, Box<RawValue>)>);

impl Fields {
    /// A field's value; null is absent.
    pub(crate) fn raw(&self, name: &str) -> Option<&RawValue> {
        self.iter().find(|(field, _)| *field == name).map(|(_, raw)| raw).filter(|raw| !is_null(raw))
    }

    /// A field's value as this type; null is absent.
    pub(crate) fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, serde_json::Error> {
        self.raw(name).map(|raw| serde_json::from_str(raw.get())).transpose()
    }

    /// All fields, nulls too.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &RawValue)> {
        self.0.iter().map(|(name, raw)| (name.as_str(), &**raw))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Two readers may choose differently between two values: what is checked must be what is sent.
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom("a field is given twice"));
                    }
                    if fields.len() == MAX_FIELDS {
                        return Err(A::Error::custom("there are too many fields"));
                    }
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(Object)
    }
}

/// Passes each element of a list on, one after another: a list of millions takes no memory.
///
/// # Errors
/// When it is no list of such elements.
pub(crate) fn for_each<'j, T: Deserialize<'j>>(list: &'j RawValue, each: impl FnMut(T)) -> Result<(), serde_json::Error> {
    struct List<F, T>(F, PhantomData<T>);

    impl<'de, T: Deserialize<'de>, F: FnMut(T)> Visitor<'de> for List<F, T> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element()? {
                self.0(element);
            }
            Ok(())
        }
    }

    serde_json::Deserializer::from_str(list.get()).deserialize_seq(List(each, PhantomData))
}

/// The fields of an object by their keys, repeated ones too; none, when it is no object.
pub(crate) fn entries<'j, K: Deserialize<'j>>(json: &'j str) -> Option<Vec<(K, &'j RawValue)>> {
    struct Object<K>(PhantomData<K>);

    impl<'de, K: Deserialize<'de>> Visitor<'de> for Object<K> {
        type Value = Vec<(K, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries)
        }
    }

    let mut deserializer = serde_json::Deserializer::from_str(json);
    let entries = deserializer.deserialize_map(Object(PhantomData)).ok()?;
    deserializer.end().ok()?;
    Some(entries)
}

/// Appends a field to an object that is being written, its value as it comes.
pub(crate) fn push_field(object: &mut Vec<u8>, name: &str, value: &str) {
    if object.last() != Some(&b'{') {
        object.push(b',');
    }
    object.extend_from_slice(Value::from(name).to_string().as_bytes());
    object.push(b':');
    object.extend_from_slice(value.as_bytes());
}

/// A string's text.
pub(crate) fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    // A `Cow` that stands alone is always read as an owned one; only a field can borrow.
    #[derive(Deserialize)]
    #[serde(transparent)]
    struct Text<'t>(#[serde(borrow)] Cow<'t, str>);

    serde_json::from_str::<Text<'_>>(raw.get()).ok().map(|text| text.0)
}

/// The text of any value: a string's own, or the JSON without its blanks and escapes.
pub(crate) fn text(raw: &RawValue) -> Cow<'_, str> {
    let compact = || serde_json::from_str::<Value>(raw.get()).map_or(Cow::Borrowed(raw.get()), |value| value.to_string().into());
    string(raw).unwrap_or_else(compact)
}

pub(crate) fn is_null(raw: &RawValue) -> bool {
    raw.get() == "null"
}

/// Whether this is a string, a list or an object with something in it: no other value carries text.
pub(crate) fn has_content(raw: &RawValue) -> bool {
    match raw.get().as_bytes() {
        [b'"', inner @ .., b'"'] => !inner.is_empty(),
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => !inner.trim_ascii().is_empty(),
        _ => false,
    }
}

/// Whether this is a list or an object.
pub(crate) fn is_compound(raw: &RawValue) -> bool {
    matches!(raw.get().as_bytes().first(), Some(b'[' | b'{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).expect("what the test gives is valid")
    }

    #[test]
    fn a_value_is_told_by_its_text_whatever_its_kind() {
        for (json, expected) in [(r#""\u0041\n""#, "A\n"), (r#"{ "k" : ["\u00e9", 1] }"#, r#"{"k":["é",1]}"#), ("1e999", "1e999")] {
            assert_eq!(text(&raw(json)), expected);
        }
    }

    #[test]
    fn empty_values_and_numbers_carry_no_text() {
        for json in ["null", "true", "1.5", "\"\"", "[ ]", "{}"] {
            assert!(!has_content(&raw(json)), "{json}");
        }
        for json in ["\" \"", "[0]", r#"{"a":null}"#] {
            assert!(has_content(&raw(json)), "{json}");
        }
    }

    #[test]
    fn an_object_of_too_many_fields_is_refused_before_it_costs_anything() {
        let object = |count: usize| format!("{{{}}}", (0..count).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","));
        assert!(serde_json::from_str::<Fields>(&object(MAX_FIELDS)).is_ok());
        assert!(serde_json::from_str::<Fields>(&object(MAX_FIELDS + 1)).is_err());
    }
}
