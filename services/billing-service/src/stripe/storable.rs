//! What JSON can say and Postgres cannot keep: an event that holds it must be stored all the same, or Stripe comes with it for three days.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

/// The value with a replacement character in place of each NUL, in names and texts.
#[must_use]
pub fn without_nul(value: Value) -> Value {
    let clean = |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
    match value {
        Value::String(text) => Value::String(clean(text)),
        Value::Array(items) => items.into_iter().map(without_nul).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (clean(name), without_nul(value))).collect::<Map<_, _>>().into(),
        plain => plain,
    }
}

/// An instant of this era; its beginning for anything else.
#[must_use]
pub fn instant(seconds: i64) -> DateTime<Utc> {
    const LAST_OF_YEAR_9999: i64 = 253_402_300_799;
    DateTime::from_timestamp(seconds.clamp(0, LAST_OF_YEAR_9999), 0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nul_is_replaced_everywhere_and_nothing_else_is() {
        let value = json!({"a\0b": ["x\0", {"\\u0000": 1.5, "n": null}], "c": true});
        assert_eq!(without_nul(value), json!({"a\u{fffd}b": ["x\u{fffd}", {"\\u0000": 1.5, "n": null}], "c": true}));
        assert_eq!((instant(i64::MIN), instant(1)), (DateTime::UNIX_EPOCH, DateTime::from_timestamp(1, 0).unwrap()));
    }
}
