//! Signatures as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, in base64. An endpoint's secret is derived from the
//! service's own and the endpoint's id: there is none in the database to be read from a backup.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::{ExposeSecret, SecretString};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::EndpointId;
use crate::error::Error;

/// The secret of an endpoint, as its owner enters it: `whsec_` and base64. The first has the version 1, and each that takes its place the
/// next one.
///
/// # Errors
/// Never, in truth: any key will do.
pub fn secret(root: &SecretString, endpoint: EndpointId, version: i32) -> Result<SecretString, Error> {
    let later = if version > 1 { format!(" {version}") } else { String::new() };
    let derived = mac(root.expose_secret().as_bytes(), &[b"trivet webhook v1 ", endpoint.to_string().as_bytes(), later.as_bytes()])?;
    Ok(format!("whsec_{}", STANDARD.encode(derived)).into())
}

/// The header `webhook-signature` of a message that is signed with several secrets: a receiver takes it when it knows one of them.
///
/// # Errors
/// As [`sign`].
pub fn sign_all(secrets: &[SecretString], id: &str, timestamp: i64, body: &[u8]) -> Result<String, Error> {
    let signatures: Result<Vec<String>, Error> = secrets.iter().map(|secret| sign(secret, id, timestamp, body)).collect();
    Ok(signatures?.join(" "))
}

/// A signature of a message, with its version.
///
/// # Errors
/// When the secret is malformed.
pub fn sign(secret: &SecretString, id: &str, timestamp: i64, body: &[u8]) -> Result<String, Error> {
    let encoded = secret.expose_secret().trim_start_matches("whsec_");
    let key = STANDARD.decode(encoded).map_err(|_| Error::Internal("a webhook secret is malformed"))?;
    let signature = mac(&key, &[id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body])?;
    Ok(format!("v1,{}", STANDARD.encode(signature)))
}

fn mac(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, Error> {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).map_err(|_| Error::Internal("a key cannot be used"))?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks libraries.
    #[test]
    fn a_signature_is_the_one_that_other_implementations_make() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned().into();
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_endpoint_has_its_own_secrets_and_always_the_same() {
        let root = "root".to_owned().into();
        let of = |number, version| secret(&root, EndpointId::from_uuid(uuid::Uuid::from_u128(number)), version).unwrap();
        assert_eq!(of(1, 1).expose_secret(), of(1, 1).expose_secret());
        for other in [of(2, 1), of(1, 2), of(1, 3)] {
            assert_ne!(of(1, 1).expose_secret(), other.expose_secret());
        }
        assert_ne!(of(1, 2).expose_secret(), of(1, 3).expose_secret());
        assert!(sign(&of(1, 1), "msg", 0, b"").is_ok());
    }

    /// An endpoint that was registered before there were versions keeps its secret.
    #[test]
    fn the_first_secret_is_the_one_that_was_given_before_there_were_versions() {
        let first = secret(&"root".to_owned().into(), EndpointId::from_uuid(uuid::Uuid::from_u128(1)), 1).unwrap();
        assert_eq!(first.expose_secret(), "whsec_x74c0Lk24YyGaIDZYF3Msh/9aymGr6SPZjMwg2/CGlM=");
    }
}
