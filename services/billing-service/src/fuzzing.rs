//! What strangers write, nearly right and entirely wrong: no parser panics, none takes memory without bound, each says what is wrong with
//! what, and what is accepted means the same after it was written and read again.
//!
//! Inputs are made of the samples in `data/fuzz` and of the corpora that runs before left there; what once broke something is kept there.
//! [`testkit::fuzz`] says how to run them for longer; `//services/billing-service:billing-service_fuzz_test` is compiled to tell which
//! branches an input takes.

use chassis::SecretString;
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, header};
use testkit::fuzz::Target;

use crate::stripe::signature::{sign, verify};
use crate::{catalog, metering, rates};

macro_rules! samples {
    (in $folder:literal: $($name:literal),+) => {
        &[$(include_bytes!(concat!($folder, $name)) as &[u8]),+]
    };
}
pub(crate) use samples;

/// Memory that all parsers together may need, whatever they are given.
const MOST_BYTES: u64 = 1 << 30;

/// Runs a target, and looks at what memory it took.
pub(crate) fn fuzz(target: &Target<'_>, parse: impl FnMut(&str) -> Vec<String>) {
    testkit::fuzz::fuzz(target, parse);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().trim().parse().unwrap();
    assert!(peak * 1024 < MOST_BYTES, "{peak} kB were in use");
}

/// [B-1] [B-5] No header is accepted that does not hold the signature of this body, and none that does and says its time is refused.
#[test]
fn a_signature_header_is_accepted_only_for_the_signature_that_is_in_it() {
    let (secret, now, body) = (SecretString::from("whsec_x".to_owned()), DateTime::from_timestamp(1_900_000_000, 0).unwrap(), b"{}");
    let good = sign(body, &secret, now);
    let (_, signature) = good.split_once("v1=").unwrap();
    let [one, many] = samples!(in "../data/fuzz/": "signature/one", "signature/many");
    let target = Target {
        name: "signature",
        samples: &[good.as_bytes(), one, many],
        corpus: include_str!("../data/fuzz/signature.corpus"),
        sources: &[include_str!("stripe/signature.rs")],
    };
    let mut accepted = 0;
    fuzz(&target, |header| match verify(header, body, std::slice::from_ref(&secret), now) {
        Ok(()) => {
            accepted += 1;
            assert!(header.contains("t=1900000000") && header.to_lowercase().contains(signature), "{header}");
            vec!["accepted".to_owned()]
        }
        Err(invalid) => vec![invalid.to_string()],
    });
    assert!(accepted > 0, "nothing was ever accepted");
}

/// [B-57] Every event that is refused is refused by an attribute and a rule.
#[test]
fn a_cloud_event_is_read_or_refused_by_its_attribute() {
    let target = Target {
        name: "cloud_event",
        samples: samples!(in "../data/fuzz/": "cloud_event/structured.json", "cloud_event/batch.json"),
        corpus: include_str!("../data/fuzz/cloud_event.corpus"),
        sources: &[include_str!("metering/cloud_event.rs")],
    };
    fuzz(&target, |text| {
        let mut outcomes = Vec::new();
        for kind in ["application/cloudevents+json", "application/cloudevents-batch+json"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            let Ok(received) = metering::read(&headers, text.as_bytes()) else {
                outcomes.push("no events".to_owned());
                continue;
            };
            assert!(received.events.len() <= 1000);
            for event in received.events {
                match event {
                    Ok(event) => {
                        assert!(!event.id.is_empty() && !event.source.is_empty() && !event.kind.is_empty(), "{text}");
                        for path in [&["pixels".to_owned()][..], &["nested".to_owned(), "a".to_owned()], &["n".to_owned()]] {
                            outcomes
                                .push(event.fields().decimal(path).map_or_else(|rejection| rejection.detail, |_| "a decimal".to_owned()));
                        }
                    }
                    Err(rejection) => {
                        assert!(!rejection.code.is_empty() && rejection.detail.contains(' '), "{rejection:?}: {text}");
                        outcomes.push(rejection.detail);
                    }
                }
            }
        }
        outcomes
    });
}

fn is_name(model: &str) -> bool {
    !model.is_empty() && model.len() <= 200 && !model.contains('\0')
}

fn rules(mistakes: Vec<rates::Mistake>) -> Vec<String> {
    mistakes.into_iter().map(|mistake| mistake.rule).collect()
}

/// [B-32] Of a list of prices no price is made up, and what is wrong is told by its field.
#[test]
fn a_price_list_is_read_or_refused_by_its_fields() {
    let target = Target {
        name: "price_list",
        samples: samples!(in "../data/fuzz/": "price_list/list.json", "price_list/without-a-name.json"),
        corpus: include_str!("../data/fuzz/price_list.corpus"),
        sources: &[include_str!("rates/price_list.rs")],
    };
    fuzz(&target, |text| match rates::price_list(text) {
        Ok(listed) => {
            assert!(listed.iter().all(|listed| is_name(&listed.model)), "{text}");
            vec![format!("listed {}", if listed.is_empty() { "nothing" } else { "something" })]
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.rule.is_empty()), "{mistakes:?}: {text}");
            rules(mistakes)
        }
    });
}

/// [B-32] The same of our own form of it.
#[test]
fn a_list_of_rate_cards_is_read_or_refused_by_its_fields() {
    let target = Target {
        name: "own_list",
        samples: samples!(in "../data/fuzz/": "own_list/cards.yaml", "own_list/cards.json", "own_list/aliases.yaml"),
        corpus: include_str!("../data/fuzz/own_list.corpus"),
        sources: &[include_str!("rates/own_list.rs")],
    };
    fuzz(&target, |text| match rates::own_list(text, 2_000) {
        Ok(cards) => {
            assert!(cards.iter().all(|card| is_name(&card.model) && card.free_micros >= 0), "{text}");
            vec![format!("listed {}", if cards.is_empty() { "nothing" } else { "something" })]
        }
        Err(mistakes) => {
            assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.rule.is_empty()), "{mistakes:?}: {text}");
            rules(mistakes)
        }
    });
}

/// [B-26] A catalogue that is accepted is the same one after it was printed.
#[test]
fn a_catalogue_is_read_and_survives_being_printed_or_is_refused_by_its_paths() {
    let target = Target {
        name: "catalog",
        samples: samples!(in "../data/fuzz/": "catalog/small.yaml", "catalog/small.json", "catalog/example.yaml"),
        corpus: include_str!("../data/fuzz/catalog.corpus"),
        sources: &[
            include_str!("catalog/parse.rs"),
            include_str!("catalog/parse/items.rs"),
            include_str!("catalog/parse/plan.rs"),
            include_str!("catalog/parse/rules.rs"),
            include_str!("catalog/reader.rs"),
            include_str!("catalog/amount.rs"),
        ],
    };
    let mut accepted = 0;
    fuzz(&target, |text| match catalog::parse(text) {
        Ok(read) => {
            accepted += 1;
            assert_eq!(catalog::parse(&catalog::print::print(&read)).as_ref(), Ok(&read), "{text}");
            vec!["accepted".to_owned()]
        }
        Err(invalid) => {
            assert!(!invalid.0.is_empty() && invalid.0.iter().all(|fault| !fault.rule.is_empty()), "{invalid:?}: {text}");
            invalid.0.into_iter().map(|fault| fault.rule).collect()
        }
    });
    assert!(accepted > 20, "{accepted} were accepted: the samples are not catalogues");
}
