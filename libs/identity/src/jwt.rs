//! Signing and verifying JWTs (RFC 7519, RFC 8725): `EdDSA` only, an exact `typ`, and times by the injected clock.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::provider;

/// `typ` of access tokens (RFC 9068 section 2.1).
pub const ACCESS_TOKEN: &str = "at+jwt";
/// `typ` of client assertions, by which a service proves who it is.
pub const CLIENT_ASSERTION: &str = "client-authentication+jwt";
/// Longest token that is looked at, in bytes.
const MAX_BYTES: usize = 4096;
/// How far clocks may differ, in seconds.
const LEEWAY_SECONDS: i64 = 30;

/// Why a token is refused. Deliberately without detail for the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not valid")]
pub struct InvalidToken;

/// The instants that every token has, in seconds since 1970.
pub trait Lifetime {
    /// `iat`
    fn issued_at(&self) -> i64;
    /// `nbf`
    fn not_before(&self) -> i64;
    /// `exp`
    fn expires_at(&self) -> i64;
}

/// A key that signs.
#[derive(Clone)]
pub struct SigningKey {
    kid: String,
    key: EncodingKey,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A key from its PKCS#8 DER form.
    #[must_use]
    pub fn from_pkcs8(kid: &str, der: &[u8]) -> Self {
        provider::install();
        Self { kid: kid.to_owned(), key: EncodingKey::from_ed_der(der) }
    }

    /// A key from its PKCS#8 PEM form.
    ///
    /// # Errors
    /// When the text is not an Ed25519 key.
    pub fn from_pem(kid: &str, pem: &str) -> Result<Self, InvalidToken> {
        provider::install();
        Ok(Self { kid: kid.to_owned(), key: EncodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| InvalidToken)? })
    }

    /// Signs claims as a token of this type.
    ///
    /// # Errors
    /// When the key is not one.
    pub fn sign(&self, kind: &str, claims: &impl Serialize) -> Result<String, InvalidToken> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| InvalidToken)
    }
}

/// The header as we write it. One with anything else in it (`jku`, `jwk`, `x5u`, `crit`, …) is not ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OwnHeader {
    alg: String,
    typ: String,
    kid: String,
}

/// The `kid` of a token's header, when the header is one we could have written: `EdDSA`, the wanted `typ`, and nothing else.
///
/// # Errors
/// [`InvalidToken`] for anything else [I-46, I-47].
pub fn key_id(token: &str, kind: &str) -> Result<String, InvalidToken> {
    if token.len() > MAX_BYTES {
        return Err(InvalidToken);
    }
    let (header, _) = token.split_once('.').ok_or(InvalidToken)?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| InvalidToken)?;
    let header: OwnHeader = serde_json::from_slice(&header).map_err(|_| InvalidToken)?;
    if header.alg == "EdDSA" && header.typ == kind { Ok(header.kid) } else { Err(InvalidToken) }
}

/// Verifies signature, issuer, audience and times, and reads the claims; every claim of `T` is required with its type [I-48].
///
/// # Errors
/// [`InvalidToken`].
pub fn verify<T: DeserializeOwned + Lifetime>(
    token: &str,
    public_key: &[u8],
    issuer: &str,
    audience: &str,
    now: DateTime<Utc>,
) -> Result<T, InvalidToken> {
    provider::install();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[issuer]);
    validation.set_audience(&[audience]);
    validation.set_required_spec_claims(&["iss", "aud", "exp", "nbf", "sub"]);
    // Times are compared below, by the injected clock.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    let claims = jsonwebtoken::decode::<T>(token, &DecodingKey::from_ed_der(public_key), &validation).map_err(|_| InvalidToken)?.claims;
    let now = now.timestamp();
    let alive = claims.expires_at() > now && claims.not_before() <= now + LEEWAY_SECONDS && claims.issued_at() <= now + LEEWAY_SECONDS;
    if alive { Ok(claims) } else { Err(InvalidToken) }
}
