//! Signatures as Standard Webhooks has them: HMAC-SHA256 over `id.timestamp.body`, in base64. An endpoint's secret is derived from the
//! service's own and the endpoint's id: there is none in the database to be read from a backup.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::{ExposeSecret, SecretString};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::EndpointId;
use crate::error::Error;

/// The secret of an endpoint, as its owner enters it: `whsec_` and base64.
///
/// # Errors
/// Never, in truth: any key will do.
pub fn secret(root: &SecretString, endpoint: EndpointId) -> Result<SecretString, Error> {
    let derived = mac(root.expose_secret().as_bytes(), &[b"trivet webhook v1 ", endpoint.to_string().as_bytes()])?;
    Ok(format!("whsec_{}", STANDARD.encode(derived)).into())
}

/// The header `webhook-signature` of a message.
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
    fn each_endpoint_has_its_own_secret_and_always_the_same() {
        let root = "root".to_owned().into();
        let of = |number| secret(&root, EndpointId::from_uuid(uuid::Uuid::from_u128(number))).unwrap();
        assert_eq!(of(1).expose_secret(), of(1).expose_secret());
        assert_ne!(of(1).expose_secret(), of(2).expose_secret());
        assert!(sign(&of(1), "msg", 0, b"").is_ok());
    }
}
