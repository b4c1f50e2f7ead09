//! Public keys: JSON Web Key Sets of Ed25519 keys (RFC 8037), and where a service gets them from.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::http::Client;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api_key::LookupUnavailable;

/// How long fetched keys are used; new keys are published for longer than this before they sign [I-50].
pub const CACHE_TIME: Duration = Duration::from_mins(5);
/// An unknown `kid` asks again at most this often: garbage must not become load.
const REFETCH_PAUSE: Duration = Duration::from_secs(5);

/// One public key (RFC 8037 section 2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `OKP`
    pub kty: String,
    /// `Ed25519`
    pub crv: String,
    /// `EdDSA`
    pub alg: String,
    /// `sig`
    #[serde(rename = "use")]
    pub usage: String,
    /// The key's id.
    pub kid: String,
    /// The public key, base64url.
    pub x: String,
}

impl Jwk {
    /// The entry of an Ed25519 public key.
    #[must_use]
    pub fn ed25519(kid: &str, public_key: &[u8]) -> Self {
        let text = |text: &str| text.to_owned();
        Self {
            kty: text("OKP"),
            crv: text("Ed25519"),
            alg: text("EdDSA"),
            usage: text("sig"),
            kid: text(kid),
            x: URL_SAFE_NO_PAD.encode(public_key),
        }
    }

    fn public_key(&self) -> Option<Vec<u8>> {
        let ours = self.kty == "OKP" && self.crv == "Ed25519" && self.alg == "EdDSA";
        URL_SAFE_NO_PAD.decode(&self.x).ok().filter(|key| ours && key.len() == 32)
    }
}

/// A set of public keys (RFC 7517 section 5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

impl JwkSet {
    /// The public key with this id.
    #[must_use]
    pub fn find(&self, kid: &str) -> Option<Vec<u8>> {
        self.keys.iter().find(|key| key.kid == kid).and_then(Jwk::public_key)
    }
}

/// Where public keys come from.
#[async_trait]
pub trait KeySource: Send + Sync {
    /// The key with this id; none when there is no such key.
    ///
    /// # Errors
    /// When it cannot be known right now.
    async fn key(&self, kid: &str) -> Result<Option<Vec<u8>>, LookupUnavailable>;
}

type KeysById = Arc<HashMap<String, Vec<u8>>>;

/// The keys that auth-service publishes, cached. While auth-service is away, known keys go on being used.
#[derive(Debug)]
pub struct RemoteKeys {
    client: Client,
    cached: Mutex<Option<(Instant, KeysById)>>,
    fetching: tokio::sync::Mutex<()>,
}

impl RemoteKeys {
    /// Keys from the service behind this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, cached: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    fn known(&self) -> Option<(Instant, KeysById)> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn fetch(&self) -> Result<KeysById, LookupUnavailable> {
        let response = self.client.request(Method::GET, "/.well-known/jwks.json").send().await.map_err(|_| LookupUnavailable)?;
        let set: JwkSet = response.error_for_status().map_err(|_| LookupUnavailable)?.json().await.map_err(|_| LookupUnavailable)?;
        let keys = set.keys.iter().filter_map(|key| Some((key.kid.clone(), key.public_key()?))).collect();
        let keys = Arc::new(keys);
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Arc::clone(&keys)));
        Ok(keys)
    }
}

#[async_trait]
impl KeySource for RemoteKeys {
    async fn key(&self, kid: &str) -> Result<Option<Vec<u8>>, LookupUnavailable> {
        let usable = |age: Duration, found: bool| (found && age < CACHE_TIME) || (!found && age < REFETCH_PAUSE);
        if let Some((at, keys)) = self.known() {
            let found = keys.get(kid);
            if usable(at.elapsed(), found.is_some()) {
                return Ok(found.cloned());
            }
        }
        let _one_at_a_time = self.fetching.lock().await;
        if let Some((at, keys)) = self.known()
            && usable(at.elapsed(), keys.contains_key(kid))
        {
            return Ok(keys.get(kid).cloned());
        }
        match (self.fetch().await, self.known()) {
            (Ok(keys), _) => Ok(keys.get(kid).cloned()),
            // Stale but known is better than turning everybody away; an unknown key cannot be judged.
            (Err(unavailable), Some((_, keys))) => keys.get(kid).cloned().map(Some).ok_or(unavailable),
            (Err(unavailable), None) => Err(unavailable),
        }
    }
}
