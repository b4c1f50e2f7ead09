//! `CloudEvents` 1.0 in their three forms over HTTP: attributes in headers (binary), one JSON event (structured), and a batch.

use chassis::Problem;
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::Fields;

/// Events in a batch at most.
pub const MAX_BATCH: usize = 1_000;
const MAX_DATA: usize = 64 * 1024;
/// Digits of a number in `data`, and how far its exponent may go: more than a double has, and far within Postgres' `numeric`, which
/// would refuse the whole batch.
const MAX_DIGITS: usize = 1_000;
const MAX_EXPONENT: u32 = 1_000;
const BATCH: &str = "application/cloudevents-batch+json";
const STRUCTURED: &str = "application/cloudevents+json";

/// One event, as far as metering needs it. Attributes that are not named here are extensions and are left alone.
#[derive(Debug, Clone, Deserialize)]
pub struct CloudEvent {
    specversion: String,
    /// Unique with `source`.
    pub id: String,
    /// Who says so.
    pub source: String,
    /// What kind of thing happened.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it is about.
    #[serde(default)]
    pub subject: Option<String>,
    /// When it happened; when it came, if absent.
    #[serde(default)]
    pub time: Option<DateTime<Utc>>,
    /// What is counted: JSON.
    #[serde(default)]
    pub data: Option<Box<RawValue>>,
}

/// Why an event is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// A stable name.
    pub code: &'static str,
    /// The attribute and the rule it breaks.
    pub detail: String,
}

impl Rejection {
    pub(super) fn new(code: &'static str, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// The events of a request, each on its own: a bad one does not spoil the others.
#[derive(Debug)]
pub struct Received {
    /// Whether they came as a batch and are answered one by one.
    pub batch: bool,
    /// In the order they came.
    pub events: Vec<Result<CloudEvent, Rejection>>,
}

/// Reads a request.
///
/// # Errors
/// 415 for another media type, 400 for a body that is no JSON, 422 for a batch that is too large.
pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Received, Problem> {
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default().to_ascii_lowercase();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    match content_type {
        BATCH => {
            let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|_| not_json("must be a JSON array of events"))?;
            if items.len() > MAX_BATCH {
                return Err(Problem::invalid_field("body", format!("must have at most {MAX_BATCH} events")));
            }
            Ok(Received { batch: true, events: items.iter().map(|item| parse(item.get())).collect() })
        }
        STRUCTURED => {
            let item: &RawValue = serde_json::from_slice(body).map_err(|_| not_json("must be one JSON event"))?;
            Ok(Received { batch: false, events: vec![parse(item.get())] })
        }
        "application/json" if headers.contains_key("ce-id") => {
            let data: Box<RawValue> = serde_json::from_slice(body).map_err(|_| not_json("must be JSON"))?;
            Ok(Received { batch: false, events: vec![binary(headers, data)] })
        }
        _ => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be CloudEvents")
            .field("content-type", format!("must be {STRUCTURED}, {BATCH}, or application/json with ce- headers"))),
    }
}

fn not_json(rule: &str) -> Problem {
    Problem::bad_request("invalid_json", "The body is not JSON").field("body", rule)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn binary(headers: &HeaderMap, data: Box<RawValue>) -> Result<CloudEvent, Rejection> {
    let attribute = |name: &str| text(headers, &format!("ce-{name}"));
    let time = attribute("time").map(|time| time.parse().map_err(|_| Rejection::new("invalid_event", "time must be an RFC 3339 instant")));
    checked(CloudEvent {
        specversion: attribute("specversion").unwrap_or_default(),
        id: attribute("id").unwrap_or_default(),
        source: attribute("source").unwrap_or_default(),
        kind: attribute("type").unwrap_or_default(),
        subject: attribute("subject"),
        time: time.transpose()?,
        data: Some(data),
    })
}

/// Reads one JSON event.
///
/// # Errors
/// The attribute and the rule it breaks.
pub fn parse(json: &str) -> Result<CloudEvent, Rejection> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let event = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner().to_string();
        // Never the value itself: it may be somebody's secret.
        let rule = if inner.contains("missing field") { inner.split(" at line").next().unwrap_or_default() } else { "has the wrong form" };
        Rejection::new("invalid_event", if path == "." { rule.to_owned() } else { format!("{path} {rule}") })
    })?;
    checked(event)
}

fn checked(event: CloudEvent) -> Result<CloudEvent, Rejection> {
    let rule = |detail: &str| Err(Rejection::new("invalid_event", detail));
    if event.specversion != "1.0" {
        return rule("specversion must be 1.0");
    }
    let texts = [
        ("id", Some(&event.id), 256),
        ("source", Some(&event.source), 512),
        ("type", Some(&event.kind), 256),
        ("subject", event.subject.as_ref(), 512),
    ];
    for (name, value, most) in texts {
        if value.is_some_and(|value| value.is_empty() || value.len() > most || value.contains('\0')) {
            return rule(&format!("{name} must have 1 to {most} bytes and no NUL"));
        }
    }
    let Some(data) = event.data.as_deref() else { return Ok(event) };
    // Postgres keeps no NUL, in no spelling.
    if data.get().len() > MAX_DATA || data.get().contains("\\u0000") || serde_json::from_str::<serde_json::Value>(data.get()).is_err() {
        return rule("data must be JSON of at most 65536 bytes without NUL");
    }
    if !numbers_fit(data.get()) {
        return rule("data must have numbers of at most 1000 characters with an exponent from -1000 to 1000");
    }
    Ok(event)
}

/// Whether Postgres can keep each number of a text that is JSON.
fn numbers_fit(json: &str) -> bool {
    let (mut in_text, mut escaped) = (false, false);
    let outside = |character: char| {
        let quoted = in_text || character == '"';
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_text = !in_text,
            _ => {}
        }
        // What is within a text becomes something that no number has.
        if quoted { ' ' } else { character }
    };
    let bare: String = json.chars().map(outside).collect();
    bare.split(|character: char| !matches!(character, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).all(|number| {
        let exponent =
            number.starts_with(|first: char| first == '-' || first.is_ascii_digit()).then(|| number.split_once(['e', 'E'])).flatten();
        let fits = |exponent: &str| exponent.parse::<i32>().is_ok_and(|exponent| exponent.unsigned_abs() <= MAX_EXPONENT);
        number.len() <= MAX_DIGITS && exponent.is_none_or(|(_, exponent)| fits(exponent))
    })
}

impl CloudEvent {
    /// The JSON of `data`; null without one.
    #[must_use]
    pub fn json(&self) -> &str {
        self.data.as_deref().map_or("null", RawValue::get)
    }

    /// What is in `data`, to be looked at by each meter of its type.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields::of(self.data.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(more: &str) -> Result<CloudEvent, Rejection> {
        parse(&format!(r#"{{"specversion":"1.0","id":"1","source":"/a","type":"t"{more}}}"#))
    }

    #[test]
    fn an_event_is_read_with_its_extensions_and_one_that_breaks_a_rule_is_refused_by_its_name() {
        assert!(event(r#","subject":"s","time":"2030-01-01T00:00:00.5+01:00","traceparent":"00-x","data":{"a":[1]}"#).is_ok());
        for (json, detail) in [
            (r#"{"id":"1","source":"/a","type":"t"}"#, "missing field `specversion`"),
            (r#"{"specversion":"0.3","id":"1","source":"/a","type":"t"}"#, "specversion must be 1.0"),
            (r#"{"specversion":"1.0","id":"","source":"/a","type":"t"}"#, "id must have 1 to 256 bytes and no NUL"),
            (r#"{"specversion":"1.0","id":"1","source":5,"type":"t"}"#, "source has the wrong form"),
            (r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","time":"noon"}"#, "time has the wrong form"),
            (
                r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":"\u0000"}"#,
                "data must be JSON of at most 65536 bytes without NUL",
            ),
            (
                r#"{"specversion":"1.0","id":"1","source":"/a","type":"t","data":"\ud800"}"#,
                "data must be JSON of at most 65536 bytes without NUL",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err(), Rejection::new("invalid_event", detail), "{json}");
        }
    }

    #[test]
    fn numbers_that_postgres_cannot_keep_are_refused_wherever_they_are_and_digits_in_texts_are_no_numbers() {
        let refusal =
            Rejection::new("invalid_event", "data must have numbers of at most 1000 characters with an exponent from -1000 to 1000");
        let long = "1".repeat(1_001);
        for data in ["1e-20000", "[1,{\"a\":[-1E+1001]}]", "1e99999999999", "{\"a\\\"\":1e-1001}", &long] {
            let refused = event(&format!(",\"data\":{data}")).map(|_| ());
            // Beyond a double it is no JSON to serde either.
            let known = refused.as_ref().is_err_and(|found| *found == refusal || found.detail.starts_with("data must be JSON"));
            assert!(known, "{data}: {refused:?}");
        }
        assert_eq!(event(",\"data\":1e-1001").unwrap_err(), refusal);
        let (fits, text) = ("1".repeat(300), "1".repeat(60_000));
        for data in
            ["1e-1000", "-1.5E+300", "true", "\"1e-20000\"", "{\"1e-20000\":\"\\\"1e-20000\"}", "0e-0", &fits, &format!("\"{text}\"")]
        {
            assert!(event(&format!(",\"data\":{data}")).is_ok(), "{data}");
        }
    }

    /// [B-26]
    #[test]
    fn a_value_is_read_digit_by_digit_and_what_is_no_decimal_is_refused() {
        let value = |data: &str| {
            let path = ["a".to_owned(), "b".to_owned()];
            event(&format!(r#","data":{data}"#))
                .unwrap()
                .fields()
                .decimal(&path)
                .map(|value| value.to_string())
                .map_err(|rejection| rejection.code)
        };
        assert_eq!(value(r#"{"a":{"b":0.1}}"#), Ok("0.1".to_owned()));
        assert_eq!(value(r#"{"a":{"b":"123456789012345678.000000000001"}}"#), Ok("123456789012345678.000000000001".to_owned()));
        for data in [
            r#"{"a":{"b":-1}}"#,
            r#"{"a":{"b":1e-13}}"#,
            r#"{"a":{"b":"x"}}"#,
            r#"{"a":{"b":true}}"#,
            r#"{"a":{}}"#,
            r#"{"a":1}"#,
            "[]",
            r#"{"a":{"b":null}}"#,
        ] {
            assert_eq!(value(data), Err("invalid_value"), "{data}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(body in r#"[\[\]{}",:a-z0-9.eE\\ -]{0,80}"#) {
            for kind in [BATCH, STRUCTURED] {
                let mut headers = HeaderMap::new();
                headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
                let _ = read(&headers, body.as_bytes());
            }
        }
    }
}
