//! Verification of `Stripe-Signature` over the raw bytes of a body [B-1 to B-7].
//!
//! Our own, because async-stripe's reads only the last `v1` of the header, one secret at a time, and puts the body into a span.

use chassis::{ExposeSecret, SecretString};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How far the signed time may be from ours, either way, in seconds [B-4].
pub const TOLERANCE_SECONDS: i64 = 300;

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSignature {
    /// The header has no time or no `v1` signature.
    #[error("must hold t and v1")]
    Malformed,
    /// The signed time is too far away.
    #[error("must be signed within five minutes")]
    OutOfTolerance,
    /// No signature fits any secret.
    #[error("must be signed with the endpoint's secret")]
    NoMatch,
}

/// What a header says: when a body was signed, and how. Whether that is so is known when the body is there.
#[derive(Debug)]
pub struct Claim<'a> {
    time: &'a str,
    signatures: Vec<Vec<u8>>,
}

impl<'a> Claim<'a> {
    /// Reads a header; unknown schemes and broken hex spoil nothing.
    ///
    /// # Errors
    /// [`InvalidSignature::Malformed`], [`InvalidSignature::OutOfTolerance`].
    pub fn read(header: &'a str, now: DateTime<Utc>) -> Result<Self, InvalidSignature> {
        let pairs: Vec<(&str, &str)> = header.split(',').filter_map(|part| part.trim().split_once('=')).collect();
        let time = pairs.iter().find(|(key, _)| *key == "t").ok_or(InvalidSignature::Malformed)?.1;
        let signed: i64 = time.parse().map_err(|_| InvalidSignature::Malformed)?;
        let mut signatures = pairs.iter().filter(|(key, _)| *key == "v1").map(|(_, value)| *value).peekable();
        signatures.peek().ok_or(InvalidSignature::Malformed)?;
        if now.timestamp().abs_diff(signed) > TOLERANCE_SECONDS.unsigned_abs() {
            return Err(InvalidSignature::OutOfTolerance);
        }
        Ok(Self { time, signatures: signatures.filter_map(decode_hex).collect() })
    }

    /// Accepts a body when any `v1` of the header fits it with any of the secrets.
    ///
    /// # Errors
    /// [`InvalidSignature::NoMatch`].
    pub fn verify(&self, body: &[u8], secrets: &[SecretString]) -> Result<(), InvalidSignature> {
        let fits = |secret: &SecretString| {
            let mac = mac(secret, self.time, body);
            // Compared in constant time by the MAC itself.
            self.signatures.iter().any(|signature| mac.clone().is_some_and(|mac| mac.verify_slice(signature).is_ok()))
        };
        if secrets.iter().any(fits) { Ok(()) } else { Err(InvalidSignature::NoMatch) }
    }
}

/// Reads the header of a body, and accepts it or not.
///
/// # Errors
/// [`InvalidSignature`].
pub fn verify(header: &str, body: &[u8], secrets: &[SecretString], now: DateTime<Utc>) -> Result<(), InvalidSignature> {
    Claim::read(header, now)?.verify(body, secrets)
}

fn mac(secret: &SecretString, time: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()).ok()?;
    mac.update(time.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The header that Stripe would send; for tests and tools.
#[must_use]
pub fn sign(body: &[u8], secret: &SecretString, at: DateTime<Utc>) -> String {
    let time = at.timestamp().to_string();
    let tag = mac(secret, &time, body).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default();
    let hex = tag.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    format!("t={time},v1={hex}")
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    const BODY: &[u8] = br#"{"id": "evt_1"}"#;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_900_000_000, 0).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn check(header: &str, body: &[u8], secrets: &[&str], at: DateTime<Utc>) -> Result<(), InvalidSignature> {
        let secrets: Vec<SecretString> = secrets.iter().map(|text| secret(text)).collect();
        verify(header, body, &secrets, at)
    }

    /// [B-1] [B-2]
    #[test]
    fn the_signature_is_over_the_raw_bytes_so_that_changed_whitespace_fails() {
        let header = sign(BODY, &secret("whsec_a"), now());
        assert_eq!(check(&header, BODY, &["whsec_a"], now()), Ok(()));
        assert_eq!(check(&header, br#"{"id":"evt_1"}"#, &["whsec_a"], now()), Err(InvalidSignature::NoMatch));
    }

    /// [B-2] A vector computed by another implementation (Python's hmac).
    #[test]
    fn the_signed_string_is_time_dot_body() {
        let header = sign(b"{}", &secret("whsec_test"), DateTime::from_timestamp(1, 0).unwrap());
        assert_eq!(header, "t=1,v1=7500d5d4be4b3ef07af1fe56f7d522d135cdaa7530de557e67cc1049c52de094");
    }

    /// [B-4]
    #[test]
    fn the_tolerance_is_three_hundred_seconds_both_ways() {
        let header = sign(BODY, &secret("s"), now());
        for (seconds, fine) in [(299, true), (300, true), (301, false), (-299, true), (-300, true), (-301, false)] {
            let outcome = check(&header, BODY, &["s"], now() + TimeDelta::seconds(seconds));
            assert_eq!(outcome, if fine { Ok(()) } else { Err(InvalidSignature::OutOfTolerance) }, "{seconds} s");
        }
    }

    /// [B-5]
    #[test]
    fn any_of_several_signatures_counts_and_unknown_or_broken_ones_spoil_nothing() {
        let header = sign(BODY, &secret("s"), now());
        let good = header.split_once("v1=").unwrap().1;
        for header in [
            format!("t={},v1=zz,v1={good}", now().timestamp()),
            format!("t={},v1={good},v1={}", now().timestamp(), "00".repeat(32)),
            format!("t={}, v0={good}, v1={good}, x=y", now().timestamp()),
        ] {
            assert_eq!(check(&header, BODY, &["s"], now()), Ok(()), "{header}");
        }
        let only_v0 = format!("t={},v0={good}", now().timestamp());
        assert_eq!(check(&only_v0, BODY, &["s"], now()), Err(InvalidSignature::Malformed));
    }

    /// [B-6]
    #[test]
    fn each_of_two_active_secrets_is_accepted() {
        for signer in ["old", "new"] {
            assert_eq!(check(&sign(BODY, &secret(signer), now()), BODY, &["old", "new"], now()), Ok(()));
        }
        assert_eq!(check(&sign(BODY, &secret("other"), now()), BODY, &["old", "new"], now()), Err(InvalidSignature::NoMatch));
    }

    #[test]
    fn a_malformed_header_is_refused() {
        for header in ["", "t=1", "v1=00", "t=x,v1=00", "é=1,t=1"] {
            assert_eq!(check(header, BODY, &["s"], now()), Err(InvalidSignature::Malformed), "{header}");
        }
    }

    /// [B-3] The bytes and not their spelling are compared, by the one function that takes as long for every wrong signature.
    #[test]
    fn signatures_are_compared_as_bytes_in_constant_time() {
        let header = sign(BODY, &secret("s"), now());
        let (time, good) = header.split_once(",v1=").unwrap();
        assert_eq!(check(&format!("{time},v1={}", good.to_uppercase()), BODY, &["s"], now()), Ok(()));
        for at in [0, 31, 63] {
            let mut wrong = good.to_owned();
            wrong.replace_range(at..=at, if &good[at..=at] == "0" { "1" } else { "0" });
            for wrong in [&wrong[..], &good[..62], &format!("{good}00")] {
                assert_eq!(check(&format!("{time},v1={wrong}"), BODY, &["s"], now()), Err(InvalidSignature::NoMatch), "{wrong}");
            }
        }
        let (verifying, _) = include_str!("signature.rs").split_once("#[cfg(test)]").unwrap();
        assert!(verifying.contains("mac.verify_slice(signature)") && !verifying.contains("signature =="));
    }
}
