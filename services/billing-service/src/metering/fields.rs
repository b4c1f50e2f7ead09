//! What is in the data of an event, by paths.

use std::collections::HashMap;

use money::Decimal;
use serde_json::value::RawValue;

use super::cloud_event::Rejection;

/// The data of one event. Many meters look at it, by many paths: an object is read once, when somebody first asks for something in it, so
/// that the time this takes goes with the size of the data and not with the number of meters.
#[derive(Debug)]
pub struct Fields<'a> {
    data: Option<&'a RawValue>,
    /// The objects that were read, by the path to each; none where there is no object.
    objects: HashMap<Vec<String>, Option<HashMap<String, &'a RawValue>>>,
}

impl<'a> Fields<'a> {
    /// Of some JSON; of nothing, where an event has none.
    #[must_use]
    pub fn of(data: Option<&'a RawValue>) -> Self {
        Self { data, objects: HashMap::new() }
    }

    fn raw(&mut self, path: &[String]) -> Option<&'a RawValue> {
        let Some((name, within)) = path.split_last() else { return self.data };
        if !self.objects.contains_key(within) {
            let object = self.raw(within).and_then(|object| serde_json::from_str(object.get()).ok());
            self.objects.insert(within.to_vec(), object);
        }
        self.objects.get(within)?.as_ref()?.get(name).copied()
    }

    /// What is at a path, as text: what Postgres' `#>>` gives for members of objects.
    #[must_use]
    pub fn at(&mut self, path: &[String]) -> Option<String> {
        match self.raw(path)?.get() {
            "null" => None,
            text if text.starts_with('"') => serde_json::from_str(text).ok(),
            text => Some(text.to_owned()),
        }
    }

    /// The exact decimal at a path: a JSON number, or a text with plain digits.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn decimal(&mut self, path: &[String]) -> Result<Decimal, Rejection> {
        let broken = |rule: String| Rejection::new("invalid_value", format!("data.{} {rule}", path.join(".")));
        let text = self.at(path).ok_or_else(|| broken("must be given".to_owned()))?;
        // As where it is added up.
        let exponent = text.split_once(['e', 'E']).map_or("", |(_, exponent)| exponent.trim_start_matches(['+', '-']));
        if exponent.len() > 2 {
            return Err(broken("must have an exponent of at most two digits".to_owned()));
        }
        text.parse().map_err(|error: money::InvalidDecimal| broken(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each object is read once, however many look into it, and however deep.
    #[test]
    fn what_many_meters_look_at_is_read_once() {
        let data: Box<RawValue> = serde_json::from_str(r#"{"a":{"b":{"c":1,"d":"x"},"e":null},"f":[1]}"#).unwrap();
        let mut fields = Fields::of(Some(&data));
        let mut at = |path: &str| fields.at(&path.split('.').map(str::to_owned).collect::<Vec<_>>());
        for _ in 0..3 {
            assert_eq!((at("a.b.c"), at("a.b.d"), at("a.e")), (Some("1".to_owned()), Some("x".to_owned()), None));
            assert_eq!((at("f.0"), at("f.x.y"), at("none.x"), at("a.b.c.d")), (None, None, None, None));
            assert_eq!(at("f"), Some("[1]".to_owned()));
        }
        // The whole, a, a.b, and the four that are no objects: a list, what would be in it, nothing, and a number.
        assert_eq!(fields.objects.len(), 7);
        assert_eq!(Fields::of(None).at(&["a".to_owned()]), None);
    }
}
