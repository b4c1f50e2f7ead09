//! What strangers write, nearly right and entirely wrong: no parser panics, none takes memory without bound, each says what is wrong with
//! what, and what is accepted means the same after it was written and read again.
//!
//! Inputs are made of the samples in `data/fuzz`, the same ones each time; what once broke something is kept there.
//! `TRIVET_FUZZ_ROUNDS` makes more of them.

use chassis::SecretString;
use chrono::DateTime;
use http::{HeaderMap, HeaderValue, header};
use testkit::mutate::Mutator;

use crate::stripe::signature::{sign, verify};
use crate::{catalog, metering, rates};

macro_rules! samples {
    ($($name:literal),+) => {
        &[$(include_bytes!(concat!("../data/fuzz/", $name)) as &[u8]),+]
    };
}

/// Memory that all parsers together may need, whatever they are given.
const MOST_BYTES: u64 = 1 << 30;

/// Makes inputs and gives each, as text, to a parser.
fn fuzz(samples: &[&[u8]], mut parse: impl FnMut(&str)) {
    let rounds = std::env::var_os("TRIVET_FUZZ_ROUNDS").map_or(2_500_u64, |text| text.to_str().unwrap().parse().unwrap());
    let mut mutator = Mutator::new(samples, 1);
    for sample in samples {
        parse(&String::from_utf8_lossy(sample));
    }
    for _ in 0..rounds {
        parse(&String::from_utf8_lossy(&mutator.next_input()));
    }
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
    let samples: &[&[u8]] =
        &[good.as_bytes(), samples!("signature/one", "signature/many")[0], samples!("signature/one", "signature/many")[1]];
    let mut accepted = 0;
    fuzz(samples, |header| {
        if verify(header, body, std::slice::from_ref(&secret), now).is_ok() {
            accepted += 1;
            assert!(header.contains("t=1900000000") && header.to_lowercase().contains(signature), "{header}");
        }
    });
    assert!(accepted > 0, "nothing was ever accepted");
}

/// [B-57] Every event that is refused is refused by an attribute and a rule.
#[test]
fn a_cloud_event_is_read_or_refused_by_its_attribute() {
    fuzz(samples!("cloud_event/structured.json", "cloud_event/batch.json"), |text| {
        for kind in ["application/cloudevents+json", "application/cloudevents-batch+json"] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            let Ok(received) = metering::read(&headers, text.as_bytes()) else { continue };
            assert!(received.events.len() <= 1000);
            for event in received.events {
                match event {
                    Ok(event) => assert!(!event.id.is_empty() && !event.source.is_empty() && !event.kind.is_empty(), "{text}"),
                    Err(rejection) => assert!(!rejection.code.is_empty() && rejection.detail.contains(' '), "{rejection:?}: {text}"),
                }
            }
        }
    });
}

fn is_name(model: &str) -> bool {
    !model.is_empty() && model.len() <= 200 && !model.contains('\0')
}

/// [B-32] Of a list of prices no price is made up, and what is wrong is told by its field.
#[test]
fn a_price_list_is_read_or_refused_by_its_fields() {
    fuzz(samples!("price_list/list.json", "price_list/without-a-name.json"), |text| match rates::price_list(text) {
        Ok(listed) => assert!(listed.iter().all(|listed| is_name(&listed.model)), "{text}"),
        Err(mistakes) => assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.rule.is_empty()), "{mistakes:?}: {text}"),
    });
}

/// [B-32] The same of our own form of it.
#[test]
fn a_list_of_rate_cards_is_read_or_refused_by_its_fields() {
    fuzz(samples!("own_list/cards.yaml", "own_list/aliases.yaml"), |text| match rates::own_list(text, 2_000) {
        Ok(cards) => assert!(cards.iter().all(|card| is_name(&card.model) && card.free_micros >= 0), "{text}"),
        Err(mistakes) => assert!(!mistakes.is_empty() && mistakes.iter().all(|mistake| !mistake.rule.is_empty()), "{mistakes:?}: {text}"),
    });
}

/// [B-26] A catalogue that is accepted is the same one after it was printed.
#[test]
fn a_catalogue_is_read_and_survives_being_printed_or_is_refused_by_its_paths() {
    let mut accepted = 0;
    fuzz(samples!("catalog/small.yaml", "catalog/example.yaml"), |text| match catalog::parse(text) {
        Ok(read) => {
            accepted += 1;
            assert_eq!(catalog::parse(&catalog::print::print(&read)).as_ref(), Ok(&read), "{text}");
        }
        Err(invalid) => assert!(!invalid.0.is_empty() && invalid.0.iter().all(|fault| !fault.rule.is_empty()), "{invalid:?}: {text}"),
    });
    assert!(accepted > 100, "{accepted} were accepted: the samples are not catalogues");
}
