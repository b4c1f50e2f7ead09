//! The text of a refresh token; only its digest is stored [I-54].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const PREFIX: &str = "tvr_";

/// A refresh token: 256 bits, opaque.
#[derive(Debug, Clone)]
pub struct RefreshToken(SecretString);

impl RefreshToken {
    /// The token of these bytes, which nobody else must be able to know.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)).into())
    }

    /// A token as a client presents it; none when it cannot be one of ours. The encoding is canonical: one token, one text.
    #[must_use]
    pub fn presented(text: &SecretString) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.expose_secret().strip_prefix(PREFIX)?).ok()?;
        bytes.try_into().ok().map(Self::from_bytes)
    }

    /// The text, for the answer that gives it out.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored.
    pub fn sha256(&self) -> Vec<u8> {
        Sha256::digest(self.expose()).to_vec()
    }
}
