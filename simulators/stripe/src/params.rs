//! The parameters of a request: what is allowed, and typed reading.

use serde_json::{Map, Value};

use crate::error::{Failure, bracketed};

/// Allowed with every request.
const ALWAYS: &str = "expand";

/// A tree of parameters; leaves are texts. An empty text means "unset".
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    fields: Map<String, Value>,
    /// Where these are in the request, for errors.
    prefix: String,
}

impl Params {
    pub(crate) fn new(fields: Map<String, Value>) -> Self {
        Self { fields, prefix: String::new() }
    }

    /// Refuses what the specification does not list.
    ///
    /// A specification is names with blanks between; `a.b` is a nested one, `a.*` anything below; places in lists are not named.
    pub(crate) fn check(&self, specification: &str) -> Result<(), Failure> {
        let patterns: Vec<&str> = specification.split_ascii_whitespace().chain([ALWAYS]).collect();
        self.fields.iter().try_for_each(|(name, value)| check(&patterns, name, name, value))
    }

    fn at(&self, path: &str) -> Option<&Value> {
        let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
        let start = self.fields.get(first)?;
        rest.map_or(Some(start), |rest| {
            rest.split('.').try_fold(start, |value, name| match value {
                Value::Array(entries) => entries.get(name.parse::<usize>().ok()?),
                other => other.get(name),
            })
        })
    }

    fn named(&self, path: &str) -> String {
        if self.prefix.is_empty() { bracketed(path) } else { bracketed(&format!("{}.{path}", self.prefix)) }
    }

    /// Whether the parameter was sent, be it empty.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    /// Whether the parameter was sent as an empty text, which unsets it.
    pub(crate) fn unsets(&self, path: &str) -> bool {
        self.at(path).and_then(Value::as_str) == Some("")
    }

    /// A text that is not empty.
    pub(crate) fn text(&self, path: &str) -> Option<&str> {
        self.at(path)?.as_str().filter(|text| !text.is_empty())
    }

    /// A text as JSON; null where there is none.
    pub(crate) fn value(&self, path: &str) -> Value {
        self.text(path).map_or(Value::Null, Value::from)
    }

    /// A text that must be there.
    pub(crate) fn required(&self, path: &str) -> Result<&str, Failure> {
        self.text(path).ok_or_else(|| {
            let name = self.named(path);
            Failure::invalid(format!("Missing required param: {name}.")).code("parameter_missing").param(&name)
        })
    }

    /// A whole number.
    pub(crate) fn integer(&self, path: &str) -> Result<Option<i64>, Failure> {
        let Some(text) = self.text(path) else { return Ok(None) };
        let number = text
            .parse()
            .map_err(|_| Failure::invalid(format!("Invalid integer: {text}")).code("parameter_invalid_integer").param(&self.named(path)))?;
        Ok(Some(number))
    }

    /// A whole number that must be there.
    pub(crate) fn required_integer(&self, path: &str) -> Result<i64, Failure> {
        self.required(path)?;
        self.integer(path)?.ok_or_else(|| Failure::missing(path))
    }

    /// An amount or a count: not negative.
    pub(crate) fn natural(&self, path: &str) -> Result<Option<i64>, Failure> {
        let number = self.integer(path)?;
        if number.is_some_and(|number| number < 0) {
            let message = "This value must be greater than or equal to 0.";
            return Err(Failure::invalid(message).code("parameter_invalid_integer").param(&self.named(path)));
        }
        Ok(number)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, path: &str) -> Result<Option<bool>, Failure> {
        match self.text(path) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(other) => Err(Failure::invalid(format!("Invalid boolean: {other}")).param(&self.named(path))),
        }
    }

    /// One of the words.
    pub(crate) fn one_of<'a>(&'a self, path: &str, words: &[&str]) -> Result<Option<&'a str>, Failure> {
        let Some(text) = self.text(path) else { return Ok(None) };
        if words.contains(&text) {
            return Ok(Some(text));
        }
        let message = format!("Invalid {}: must be one of {}", self.named(path), words.join(", or "));
        Err(Failure::invalid(message).param(&self.named(path)))
    }

    /// The parameters below a name.
    pub(crate) fn nested(&self, path: &str) -> Option<Self> {
        let fields = self.at(path)?.as_object()?.clone();
        Some(Self { fields, prefix: self.below(path) })
    }

    /// The entries of a list of trees.
    pub(crate) fn list(&self, path: &str) -> Vec<Self> {
        let entries = self.at(path).and_then(Value::as_array).cloned().unwrap_or_default();
        let named = |(place, entry): (usize, Value)| match entry {
            Value::Object(fields) => Some(Self { fields, prefix: self.below(&format!("{path}.{place}")) }),
            _ => None,
        };
        entries.into_iter().enumerate().filter_map(named).collect()
    }

    /// The entries of a list of texts.
    pub(crate) fn texts(&self, path: &str) -> Vec<String> {
        let entries = self.at(path).and_then(Value::as_array).cloned().unwrap_or_default();
        entries.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect()
    }

    /// The tree below a name as it was sent, for fields that are only kept.
    pub(crate) fn tree(&self, path: &str) -> Value {
        self.at(path).filter(|value| value.as_str() != Some("")).cloned().unwrap_or(Value::Null)
    }

    /// Changes metadata as Stripe does: an empty value removes a key, an empty whole removes all.
    pub(crate) fn change_metadata(&self, object: &mut Value) {
        if !object["metadata"].is_object() {
            object["metadata"] = Value::Object(Map::new());
        }
        let Some(kept) = object["metadata"].as_object_mut() else { return };
        match self.at("metadata") {
            Some(Value::Object(sent)) => {
                for (key, value) in sent {
                    if value.as_str() == Some("") {
                        kept.remove(key);
                    } else {
                        kept.insert(key.clone(), value.clone());
                    }
                }
            }
            Some(_) => kept.clear(),
            None => {}
        }
    }

    /// Puts texts that were sent into the object's fields of the same names; empty ones become null.
    pub(crate) fn change_texts(&self, object: &mut Value, names: &str) {
        for name in names.split_ascii_whitespace().filter(|name| self.has(name)) {
            object[name] = self.value(name);
        }
    }

    /// Puts flags that were sent into the object's fields of the same names.
    pub(crate) fn change_flags(&self, object: &mut Value, names: &str) -> Result<(), Failure> {
        for name in names.split_ascii_whitespace() {
            if let Some(flag) = self.flag(name)? {
                object[name] = flag.into();
            }
        }
        Ok(())
    }

    fn below(&self, path: &str) -> String {
        if self.prefix.is_empty() { path.to_owned() } else { format!("{}.{path}", self.prefix) }
    }
}

fn check(patterns: &[&str], shape: &str, name: &str, value: &Value) -> Result<(), Failure> {
    let free = |pattern: &&str| pattern.strip_suffix(".*").is_some_and(|open| shape == open || shape.starts_with(&format!("{open}.")));
    if patterns.iter().any(free) {
        return Ok(());
    }
    match value {
        Value::Object(fields) => {
            fields.iter().try_for_each(|(key, value)| check(patterns, &format!("{shape}.{key}"), &format!("{name}[{key}]"), value))
        }
        Value::Array(entries) => {
            entries.iter().enumerate().try_for_each(|(place, value)| check(patterns, shape, &format!("{name}[{place}]"), value))
        }
        // Empty unsets a tree as a whole.
        Value::String(text) if text.is_empty() && patterns.iter().any(|pattern| pattern.starts_with(&format!("{shape}."))) => Ok(()),
        _ if patterns.contains(&shape) => Ok(()),
        _ => Err(Failure::unknown(name)),
    }
}
