//! What is derived from `AUTH_SECRET` (HKDF, RFC 5869): each purpose has a key of its own, and the root is never used itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chassis::config::FromSetting;
use chassis::{Random, SecretString};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use ring::hmac;

/// The derived keys of this installation.
#[derive(Clone)]
pub struct Secrets {
    root: Prk,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets([REDACTED])")
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        32
    }
}

impl FromSetting for Secrets {
    fn from_setting(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text.trim()).ok().filter(|bytes| bytes.len() >= 32);
        let bytes = bytes.ok_or("must be base64 of at least 32 random bytes")?;
        Ok(Self { root: Salt::new(HKDF_SHA256, b"trivet auth v1").extract(&bytes) })
    }
}

impl Secrets {
    fn derive(&self, purpose: &str) -> [u8; 32] {
        let mut key = [0; 32];
        let info = [purpose.as_bytes()];
        // Fails only for lengths that HKDF cannot give; 32 bytes it can.
        let filled = self.root.expand(&info, Length).and_then(|material| material.fill(&mut key));
        debug_assert!(filled.is_ok());
        key
    }

    /// Mixed into every password hash; a database without it is no use to a guesser.
    #[must_use]
    pub fn pepper(&self) -> [u8; 32] {
        self.derive("password pepper")
    }

    /// The root of cursors.
    #[must_use]
    pub fn cursors(&self) -> SecretString {
        STANDARD.encode(self.derive("cursors")).into()
    }

    /// The successor of a refresh token. It is derived, not drawn, so that a lost answer can be given again without keeping
    /// the token anywhere [I-52, I-54].
    #[must_use]
    pub fn refresh_successor(&self, token: &str) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("refresh successor"));
        let mut successor = [0; 32];
        successor.copy_from_slice(hmac::sign(&key, token.as_bytes()).as_ref());
        successor
    }

    /// The random part of an API key that is made under an `Idempotency-Key`: derived from the call, so that a repetition can show
    /// the same key although only its digest is stored [B-51, I-70].
    #[must_use]
    pub fn repeatable_api_key(&self, call: &[u8]) -> [u8; 24] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.derive("repeatable api key"));
        let mut bytes = [0; 24];
        bytes.copy_from_slice(&hmac::sign(&key, call).as_ref()[..24]);
        bytes
    }

    fn sealing_key(&self) -> Option<LessSafeKey> {
        UnboundKey::new(&CHACHA20_POLY1305, &self.derive("private keys at rest")).ok().map(LessSafeKey::new)
    }

    /// Encrypts a private key for the database, bound to its id.
    #[must_use]
    pub fn seal(&self, kid: &str, plain: &[u8], random: &Random) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = random.bytes();
        let mut sealed = plain.to_vec();
        self.sealing_key()?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(kid.as_bytes()), &mut sealed).ok()?;
        Some([&nonce[..], &sealed].concat())
    }

    /// Decrypts what [`seal`](Self::seal) made; none when it was changed or sealed under another root.
    #[must_use]
    pub fn open(&self, kid: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut bytes = sealed.to_vec();
        let plain = self.sealing_key()?.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(kid.as_bytes()), &mut bytes).ok()?;
        Some(plain.to_vec())
    }
}
