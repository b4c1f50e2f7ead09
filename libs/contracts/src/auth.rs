//! The private API of auth-service (`/internal/v1`), as its callers see it.

use async_trait::async_trait;
use chassis::http::Client;
use identity::{ApiKeyLookup, LookupUnavailable, PresentedKey, ServiceTokens, VerifiedApiKey};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The name auth-service goes by as an audience of service tokens.
pub const SERVICE: &str = "auth-service";
/// The scope a caller of the look-up needs.
pub const SCOPE_API_KEYS_VERIFY: &str = "api_keys:verify";

/// `POST /internal/v1/api-keys/verify`: who does this key belong to? The key itself never travels, only its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VerifyApiKeyRequest {
    /// SHA-256 of the whole key, 64 lowercase hexadecimal digits.
    #[schema(min_length = 64, max_length = 64)]
    pub key_sha256: String,
}

/// The answer of the look-up, always 200: a key that is unknown, expired or revoked has no entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VerifyApiKeyResponse {
    /// The key, if it may be used now.
    pub api_key: Option<VerifiedApiKey>,
}

/// Asks auth-service about API keys, as a service.
#[derive(Debug, Clone)]
pub struct AuthClient {
    client: Client,
    tokens: ServiceTokens,
}

impl AuthClient {
    /// A client of the private listener behind `client`.
    #[must_use]
    pub fn new(client: Client, tokens: ServiceTokens) -> Self {
        Self { client, tokens }
    }
}

#[async_trait]
impl ApiKeyLookup for AuthClient {
    async fn verify(&self, key: &PresentedKey) -> Result<Option<VerifiedApiKey>, LookupUnavailable> {
        let token = self.tokens.get(SERVICE, SCOPE_API_KEYS_VERIFY).await?;
        let request = VerifyApiKeyRequest { key_sha256: key.sha256().to_owned() };
        let sent = self.client.request(Method::POST, "/internal/v1/api-keys/verify").bearer_auth(token).json(&request).send().await;
        let response = sent.and_then(reqwest::Response::error_for_status).map_err(|error| {
            tracing::warn!(error.message = %error.without_url(), "an API key could not be looked up");
            LookupUnavailable
        })?;
        let answer: VerifyApiKeyResponse = response.json().await.map_err(|_| LookupUnavailable)?;
        Ok(answer.api_key)
    }
}
