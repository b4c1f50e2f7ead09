//! What comes as an event of Stripe's, nearly right and entirely wrong; `crate::fuzzing` says more.

use serde_json::Value;
use testkit::fuzz::Target;

use super::facts::checkout::tax_on_top;
use super::facts::invoice::{Sums, paid_with};
use super::facts::{Family, reversal};
use super::object::Object;
use super::storable::instant;
use super::webhook;
use crate::error::Error;
use crate::fuzzing::{fuzz, samples};

/// What is read of an object, whatever it is: each part or the field that cannot be read.
fn outcomes(object: Object<'_>) -> Vec<String> {
    let of = |name: &str, read: Result<String, Error>| match read {
        Ok(text) => format!("{name} {text}"),
        Err(Error::Unreadable(field)) => format!("{name} unreadable {field}"),
        Err(other) => panic!("{name} failed otherwise: {other:?}"),
    };
    let sums = object.currency().and_then(|currency| Sums::of(object, currency));
    vec![
        of("sums", sums.map(|sums| if sums.agree() { "agree".into() } else { "disagree".into() })),
        of(
            "tax",
            object
                .currency()
                .and_then(|currency| tax_on_top(object, currency))
                .map(|tax| if tax < 0 { "below zero".into() } else { String::new() }),
        ),
        of("fee", reversal::fee(object).map(|_| String::new())),
        format!("paid {} related {}", paid_with(object).is_some(), object.related("customer").is_some()),
        format!("id {} time {}", object.metadata::<uuid::Uuid>("charge_id").is_some(), object.time("created").is_some()),
    ]
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// [B-21] Of the version that we ask in, as the events that come.
#[test]
fn the_samples_of_events_are_of_the_pinned_version() {
    let events = samples!(in "../../data/fuzz/event/": "customer.json", "invoice.json", "session.json", "dispute.json");
    for event in events {
        let event: Value = serde_json::from_slice(event).unwrap();
        assert_eq!(event["api_version"], stripe_client_core::VERSION.as_str());
    }
}

/// [B-20] An event is read as it can be stored, or refused by its field; of its object, each amount is exact or said to be unreadable.
#[test]
fn an_event_and_its_object_are_read_or_refused_by_their_fields() {
    let target = Target {
        name: "event",
        samples: samples!(in "../../data/fuzz/event/": "customer.json", "unknown.json", "invoice.json", "session.json", "dispute.json"),
        corpus: include_str!("../../data/fuzz/event.corpus"),
        sources: &[
            include_str!("webhook.rs"),
            include_str!("object.rs"),
            include_str!("facts.rs"),
            include_str!("facts/invoice.rs"),
            include_str!("facts/checkout.rs"),
            include_str!("facts/reversal.rs"),
        ],
    };
    fuzz(&target, |text| match webhook::read(text.as_bytes(), false) {
        Ok((event, payload)) => {
            assert!(!event.id.is_empty() && event.id.len() <= webhook::MAX_ID, "{text}");
            assert!(!has_nul(&payload), "Postgres keeps no NUL: {text}");
            assert!(instant(event.created) <= instant(i64::MAX), "{text}");
            let mut outcomes = outcomes(Object(&payload).at("data").at("object"));
            outcomes.push(format!("{:?}", Family::of(&event.kind)));
            outcomes
        }
        Err(problem) => {
            assert!(problem.status().is_client_error() && problem.body().errors.iter().all(|error| !error.rule.is_empty()), "{text}");
            vec![problem.code().to_owned()]
        }
    });
}
