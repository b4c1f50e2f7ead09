//! Tokens signed by the key that signs, with any header and any claims.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::Ed25519KeyPair;
use serde_json::Value;

use super::app::App;

/// The current key, and the parts of a good token.
pub struct Forge {
    pair: Ed25519KeyPair,
    pub header: Value,
    pub claims: Value,
}

/// Header or claims of a token.
pub fn part(token: &str, number: usize) -> Value {
    let part = token.split('.').nth(number).expect("a token has parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

impl Forge {
    /// With the current key, from its sealed form in the database.
    pub async fn of(app: &App, token: &str) -> Self {
        let query = sqlx::query_as("select kid, private_key from signing_keys where state = 'current'");
        let (kid, sealed): (String, Vec<u8>) = query.fetch_one(&app.database.owner).await.unwrap();
        let der = app.config.secret.open(&kid, &sealed).unwrap();
        Self { pair: Ed25519KeyPair::from_pkcs8(&der).unwrap(), header: part(token, 0), claims: part(token, 1) }
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(message.as_bytes())))
    }
}
