//! Public keys: JSON Web Key Sets of Ed25519 keys (RFC 8037), and where a service gets them from.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::Clock;
use chassis::http::Client;
use chrono::TimeDelta;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api_key::LookupUnavailable;
use crate::fetched::Fetched;

/// How long fetched keys are used; new keys are published for longer than this before they sign [I-50].
pub const CACHE_TIME: Duration = Duration::from_mins(5);
/// Keys of this age are fetched again in the background, so that nobody waits when they come to their end.
const RENEW_AFTER: TimeDelta = TimeDelta::minutes(4);
/// An unknown `kid` asks again at most this often: garbage must not become load.
const REFETCH_PAUSE: TimeDelta = TimeDelta::seconds(5);

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

    /// The public key, if it is one that we can verify with.
    #[must_use]
    pub fn public_key(&self) -> Option<Vec<u8>> {
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

/// The keys that auth-service publishes, cached. While auth-service is away, known keys go on being used, and nobody waits for it
/// longer than one request takes.
#[derive(Debug)]
pub struct RemoteKeys {
    client: Client,
    fetched: Arc<Fetched<KeysById>>,
}

impl RemoteKeys {
    /// Keys from the service behind this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self::with_clock(client, Clock::system())
    }

    /// The same, with ages by this clock.
    #[must_use]
    pub fn with_clock(client: Client, clock: Clock) -> Self {
        Self { client, fetched: Arc::new(Fetched::new(clock)) }
    }

    fn fetch(&self) -> impl Future<Output = Result<KeysById, LookupUnavailable>> + Send + 'static {
        let client = self.client.clone();
        async move {
            let sent = client.request(Method::GET, "/.well-known/jwks.json").send().await;
            let response = sent.and_then(reqwest::Response::error_for_status).map_err(|error| {
                tracing::warn!(error.message = %error.without_url(), "the keys of tokens could not be had");
                LookupUnavailable
            })?;
            let published: JwkSet = response.json().await.map_err(|_| LookupUnavailable)?;
            Ok(Arc::new(published.keys.iter().filter_map(|key| Some((key.kid.clone(), key.public_key()?))).collect()))
        }
    }
}

/// Whether keys of this age say enough about a `kid`; of a clock that was set back nothing is believed.
fn usable(age: TimeDelta, found: bool) -> bool {
    let limit = if found { RENEW_AFTER } else { REFETCH_PAUSE };
    (TimeDelta::zero()..limit).contains(&age)
}

#[async_trait]
impl KeySource for RemoteKeys {
    async fn key(&self, kid: &str) -> Result<Option<Vec<u8>>, LookupUnavailable> {
        let good = |age: TimeDelta, keys: &KeysById| usable(age, keys.contains_key(kid));
        let known = self.fetched.known();
        if let Some((age, keys)) = &known {
            if good(*age, keys) {
                return Ok(keys.get(kid).cloned());
            }
            let young = age.to_std().is_ok_and(|age| age < CACHE_TIME);
            if let Some(key) = keys.get(kid).filter(|_| young || self.fetched.failing()) {
                self.fetched.renew(good, self.fetch());
                return Ok(Some(key.clone()));
            }
        }
        match self.fetched.get(good, self.fetch()).await {
            Ok(keys) => Ok(keys.get(kid).cloned()),
            // Stale but known is better than turning everybody away; an unknown key cannot be judged.
            Err(unavailable) => known.and_then(|(_, keys)| keys.get(kid).cloned()).map(Some).ok_or(unavailable),
        }
    }
}
