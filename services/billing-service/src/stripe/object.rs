//! How Stripe's objects are read: what is needed is asked for by name, and everything else is left alone, so that a field that is new
//! or gone spoils nothing that does not need it [B28].

use chrono::{DateTime, Utc};
use money::Currency;
use serde_json::Value;

use crate::error::Error;

/// An object, or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a>(pub &'a Value);

impl<'a> Object<'a> {
    /// A part; of what is not there, nothing.
    #[must_use]
    pub fn at(self, name: &str) -> Self {
        static NOTHING: Value = Value::Null;
        Self(self.0.get(name).unwrap_or(&NOTHING))
    }

    /// A text that may be absent.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.0.get(name)?.as_str()
    }

    /// A number that may be absent.
    #[must_use]
    pub fn number(self, name: &str) -> Option<i64> {
        self.0.get(name)?.as_i64()
    }

    /// The id of a related object, whether it is expanded or not.
    #[must_use]
    pub fn related(self, name: &str) -> Option<&'a str> {
        let field = self.0.get(name)?;
        field.as_str().or_else(|| field.get("id")?.as_str())
    }

    /// The parts of a list, or of Stripe's `{data: […]}`.
    pub fn list(self, name: &str) -> impl Iterator<Item = Object<'a>> {
        let field = self.at(name);
        field.0.as_array().or_else(|| field.0.get("data")?.as_array()).into_iter().flatten().map(Object)
    }

    /// What we named it after.
    #[must_use]
    pub fn metadata<T: std::str::FromStr>(self, name: &str) -> Option<T> {
        self.at("metadata").text(name)?.parse().ok()
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn needs(self, name: &'static str) -> Result<&'a str, Error> {
        self.text(name).ok_or(Error::Unreadable(name))
    }

    /// The currency it is in.
    ///
    /// # Errors
    /// [`Error::Unreadable`].
    pub fn currency(self) -> Result<Currency, Error> {
        self.needs("currency")?.to_uppercase().parse().map_err(|_| Error::Unreadable("currency"))
    }

    /// An amount in micro-units; absent is zero.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when it does not fit.
    pub fn micros(self, name: &'static str, currency: Currency) -> Result<i64, Error> {
        money::from_minor_units(currency, self.number(name).unwrap_or(0)).ok_or(Error::Unreadable(name))
    }

    /// An instant that may be absent.
    #[must_use]
    pub fn time(self, name: &str) -> Option<DateTime<Utc>> {
        DateTime::from_timestamp(self.number(name)?, 0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// [B-20]
    #[test]
    fn what_is_missing_is_missed_where_it_is_needed_and_by_its_name() {
        let value = json!({"id": "in_1", "currency": "kwd", "customer": {"id": "cus_1"}, "total": 1234, "metadata": {"n": "7"}, "lines": {"data": [{"id": "il_1"}]}});
        let object = Object(&value);
        assert_eq!((object.related("customer"), object.related("subscription")), (Some("cus_1"), None));
        assert_eq!((object.micros("total", object.currency().unwrap()).unwrap(), object.metadata::<u8>("n")), (1_234_000, Some(7)));
        assert_eq!(object.list("lines").filter_map(|line| line.text("id")).collect::<Vec<_>>(), ["il_1"]);
        assert!(object.at("parent").at("subscription_details").text("subscription").is_none());
        assert!(matches!(object.needs("status"), Err(Error::Unreadable("status"))));
    }
}
