//! `Stripe-Signature`: a time and one `v1` for each secret.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The header's value. A test account's events carry a `v0` too, which is no signature of anything.
pub(crate) fn header(secrets: &[&str], time: i64, body: &[u8]) -> String {
    let mut header = format!("t={time}");
    for secret in secrets {
        let _ = write!(header, ",v1={}", sign(secret, time, body));
    }
    let _ = write!(header, ",v0={}", sign("v0", time, b""));
    header
}

/// HMAC-SHA256 of `time.body`, in hexadecimal digits.
pub(crate) fn sign(secret: &str, time: i64, body: &[u8]) -> String {
    // A key of any length is a key.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(format!("{time}.").as_bytes());
    mac.update(body);
    mac.finalize().into_bytes().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with `openssl dgst -sha256 -hmac whsec_test` over `1700000000.{}`.
    #[test]
    fn the_signature_is_the_hmac_of_time_and_body() {
        let signed = sign("whsec_test", 1_700_000_000, b"{}");
        assert_eq!(signed, "35495024f4ef3f94e5a93e22221544c4b75e9a42300cd965ab81cb85cd994e91");
        assert_eq!(header(&["whsec_test", "other"], 1_700_000_000, b"{}").matches(",v1=").count(), 2);
    }
}
