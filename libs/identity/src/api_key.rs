//! API keys: `tvk_<environment>_<random><checksum>`. The checksum lets a typing error or a leaked fragment be recognized
//! offline; only the SHA-256 of a key is ever stored or sent [I-70].

use std::fmt;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::{ExposeSecret, Random, SecretString};
use chrono::{DateTime, Utc};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::ids::{ApiKeyId, OrganizationId};
use crate::scopes::Scopes;

/// What every key starts with.
pub const PREFIX: &str = "tvk_";
/// 192 random bits, base64url without padding.
const RANDOM_CHARACTERS: usize = 32;
/// 36 bits of a digest, base64url.
const CHECKSUM_CHARACTERS: usize = 6;

/// A new key, shown once.
#[derive(Debug, Clone)]
pub struct ApiKeySecret(SecretString);

impl ApiKeySecret {
    /// A new key of an environment such as `live` or `test`.
    #[must_use]
    pub fn generate(environment: &str, random: &Random) -> Self {
        Self::from_bytes(environment, random.bytes())
    }

    /// The key of these bytes, which nobody else must be able to know.
    #[must_use]
    pub fn from_bytes(environment: &str, bytes: [u8; 24]) -> Self {
        let body = format!("{PREFIX}{environment}_{}", URL_SAFE_NO_PAD.encode(bytes));
        Self(format!("{body}{}", checksum(&body)).into())
    }

    /// The text, for the one answer that shows it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// What is stored.
    #[must_use]
    pub fn sha256(&self) -> String {
        sha256_hex(self.expose())
    }

    /// The part before the random one, shown in lists.
    #[must_use]
    pub fn prefix(&self) -> &str {
        let text = self.expose();
        &text[..text.len() - RANDOM_CHARACTERS - CHECKSUM_CHARACTERS]
    }

    /// The last four characters, shown in lists.
    #[must_use]
    pub fn last_four(&self) -> &str {
        let text = self.expose();
        &text[text.len() - 4..]
    }
}

/// A key as a client presents it, known to be well formed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PresentedKey {
    sha256: String,
}

impl fmt::Debug for PresentedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresentedKey([REDACTED])")
    }
}

impl PresentedKey {
    /// Checks form and checksum, without any look-up.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(PREFIX).filter(|_| text.is_ascii())?;
        let (environment, secret) = rest.split_once('_')?;
        let well_formed = (1..=16).contains(&environment.len())
            && environment.bytes().all(|byte| byte.is_ascii_lowercase())
            && secret.len() == RANDOM_CHARACTERS + CHECKSUM_CHARACTERS;
        let (body, sum) = text.split_at(text.len() - CHECKSUM_CHARACTERS.min(text.len()));
        (well_formed && checksum(body) == sum).then(|| Self { sha256: sha256_hex(text) })
    }

    /// SHA-256 of the key, 64 lowercase hexadecimal digits.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

fn sha256_hex(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().fold(String::with_capacity(64), |hex, byte| hex + &format!("{byte:02x}"))
}

fn checksum(body: &str) -> String {
    let sum = digest(&SHA256, format!("trivet api key checksum v1 {body}").as_bytes());
    let mut text = URL_SAFE_NO_PAD.encode(sum.as_ref());
    text.truncate(CHECKSUM_CHARACTERS);
    text
}

/// What auth-service knows about a key that may be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifiedApiKey {
    /// The key.
    pub api_key_id: ApiKeyId,
    /// The organization it acts for.
    pub organization_id: OrganizationId,
    /// What it may be used for.
    pub scopes: Scopes,
    /// When it ends, if it does.
    pub expires_at: Option<DateTime<Utc>>,
    /// Requests per minute that it may make, if that is limited below the service's own limit.
    pub requests_per_minute: Option<u32>,
}

/// It cannot be known right now; try again. Never to be read as "no".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential cannot be checked right now")]
pub struct LookupUnavailable;

/// Finds out what a key is.
#[async_trait]
pub trait ApiKeyLookup: Send + Sync {
    /// The key, if it exists and may be used.
    ///
    /// # Errors
    /// When it cannot be known right now.
    async fn verify(&self, key: &PresentedKey) -> Result<Option<VerifiedApiKey>, LookupUnavailable>;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// [I-70]
    #[test]
    fn a_key_has_prefix_environment_160_random_bits_and_a_checksum() {
        let key = ApiKeySecret::generate("live", &Random::seeded(1));
        assert!(key.expose().starts_with("tvk_live_"), "{}", key.expose());
        assert_eq!(key.prefix(), "tvk_live_");
        assert_eq!(key.expose().len(), "tvk_live_".len() + RANDOM_CHARACTERS + CHECKSUM_CHARACTERS);
        const { assert!(RANDOM_CHARACTERS * 6 >= 160) };
        assert_eq!(PresentedKey::parse(key.expose()).unwrap().sha256(), key.sha256());
        assert!(!format!("{key:?}").contains(&key.expose()[9..]), "the key is in its Debug form");
    }

    /// [I-70] [I-49]
    #[test]
    fn a_changed_shortened_or_extended_key_is_refused_offline() {
        let key = ApiKeySecret::generate("live", &Random::seeded(2)).expose().to_owned();
        for position in 0..key.len() {
            for replacement in ["A", "z", "_"] {
                let mut changed = key.clone();
                changed.replace_range(position..=position, replacement);
                assert!(changed == key || PresentedKey::parse(&changed).is_none(), "{changed}");
            }
            assert!(PresentedKey::parse(&key[..position]).is_none(), "a prefix of {position} characters");
        }
        for wrong in [format!("{key}="), format!(" {key}"), key.to_uppercase(), String::new(), "tvk_é_".into()] {
            assert!(PresentedKey::parse(&wrong).is_none(), "{wrong}");
        }
    }
}
