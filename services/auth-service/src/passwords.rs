//! Passwords: what one may be, and how it is kept. Argon2id with m = 19,456 KiB, t = 2, p = 1 (OWASP), a salt of 128 bits and a
//! pepper, on a bounded pool: memory is what guessing costs, so it must not be what overload takes from us.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use chassis::{ExposeSecret, Problem, Random, SecretString};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::error::Error;
use crate::secrets::Secrets;

const MEMORY_KIB: u32 = 19_456;
const ITERATIONS: u32 = 2;
const LANES: u32 = 1;
/// NIST SP 800-63B-4 section 3.1.1: where the password is the only factor.
const MIN_CODE_POINTS: usize = 15;
/// Refused before hashing: nobody's time is for sale by the megabyte.
const MAX_BYTES: usize = 1024;

/// A password in the form that is hashed (NFC).
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// A password for a new account: length is the only rule [I-1 to I-3].
    ///
    /// # Errors
    /// 422 naming the rule.
    pub fn for_new_account(text: &SecretString) -> Result<Self, Problem> {
        let password = Self::presented(text)?;
        if password.0.expose_secret().chars().count() < MIN_CODE_POINTS {
            return Err(Problem::invalid_field("password", format!("must be at least {MIN_CODE_POINTS} characters long")));
        }
        Ok(password)
    }

    /// A password somebody presents: only the cap applies, which is as public as the documentation.
    ///
    /// # Errors
    /// 422 when it is longer than could ever have been set.
    pub fn presented(text: &SecretString) -> Result<Self, Problem> {
        if text.expose_secret().len() > MAX_BYTES {
            return Err(Problem::invalid_field("password", format!("must be at most {MAX_BYTES} bytes long")));
        }
        Ok(Self(text.expose_secret().nfc().collect::<String>().into()))
    }
}

/// Hashes and verifies, a few at a time.
#[derive(Clone)]
pub struct Hasher(Arc<Inner>);

struct Inner {
    pepper: [u8; 32],
    places: Arc<Semaphore>,
    random: Random,
    /// What an unknown user's password is compared with, so that they cost what known ones cost [I-22].
    dummy: String,
    runs: AtomicU64,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hasher")
    }
}

impl Hasher {
    /// A hasher with `places` at once.
    ///
    /// # Errors
    /// When Argon2 refuses its parameters.
    pub fn new(secrets: &Secrets, places: usize, random: Random) -> Result<Self, Error> {
        let pepper = secrets.pepper();
        let dummy = hash(&pepper, &random.bytes::<16>(), &random.bytes::<16>())?;
        Ok(Self(Arc::new(Inner { pepper, places: Arc::new(Semaphore::new(places)), random, dummy, runs: AtomicU64::new(0) })))
    }

    /// How many hashes were computed; what tests compare instead of time.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.0.runs.load(Ordering::SeqCst)
    }

    /// Runs Argon2 off the async threads; refuses at once when all places are taken.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Inner) -> T + Send + 'static) -> Result<T, Error> {
        let place = Arc::clone(&self.0.places).try_acquire_owned().map_err(|_| Error::HasherBusy)?;
        let inner = Arc::clone(&self.0);
        let result = tokio::task::spawn_blocking(move || {
            let _place = place;
            inner.runs.fetch_add(1, Ordering::SeqCst);
            work(&inner)
        });
        result.await.map_err(|_| Error::Internal("hashing was interrupted"))
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// [`Error::HasherBusy`].
    pub async fn hash(&self, password: Password) -> Result<String, Error> {
        self.run(move |inner| hash(&inner.pepper, password.0.expose_secret().as_bytes(), &inner.random.bytes::<16>())).await?
    }

    /// Whether the password belongs to the hash; without a hash, equal work and no.
    ///
    /// # Errors
    /// [`Error::HasherBusy`].
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, Error> {
        self.run(move |inner| {
            let known = stored.is_some();
            let stored = stored.unwrap_or_else(|| inner.dummy.clone());
            verify(&inner.pepper, password.0.expose_secret().as_bytes(), &stored) && known
        })
        .await
    }

    /// Whether a stored hash is weaker than what is made today [I-11].
    #[must_use]
    pub fn is_outdated(stored: &str) -> bool {
        let parsed = PasswordHash::new(stored).ok().and_then(|hash| Params::try_from(&hash).ok());
        parsed.is_none_or(|params| params.m_cost() < MEMORY_KIB || params.t_cost() < ITERATIONS)
    }
}

fn argon2(pepper: &[u8]) -> Result<Argon2<'_>, Error> {
    let params = Params::new(MEMORY_KIB, ITERATIONS, LANES, None).map_err(|_| Error::Internal("Argon2 refused its parameters"))?;
    Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params).map_err(|_| Error::Internal("Argon2 refused the pepper"))
}

fn hash(pepper: &[u8], password: &[u8], salt: &[u8]) -> Result<String, Error> {
    let hash = argon2(pepper)?.hash_password_with_salt(password, salt).map_err(|_| Error::Internal("Argon2 failed"))?;
    Ok(hash.to_string())
}

fn verify(pepper: &[u8], password: &[u8], stored: &str) -> bool {
    let Ok(argon2) = argon2(pepper) else { return false };
    PasswordHash::new(stored).is_ok_and(|hash| argon2.verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use chassis::config::FromSetting;

    use super::*;

    fn hasher() -> Hasher {
        let root = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
        Hasher::new(&Secrets::from_setting(root).unwrap(), 2, Random::seeded(1)).unwrap()
    }

    fn new(text: &str) -> Result<Password, Problem> {
        Password::for_new_account(&text.to_owned().into())
    }

    fn presented(text: &str) -> Password {
        Password::presented(&text.to_owned().into()).unwrap()
    }

    /// [I-1] [I-3]
    #[test]
    fn a_password_needs_fifteen_code_points_and_nothing_else() {
        assert!(new("fourteen chars").is_err());
        assert!(new("aaaaa bbbbb ccccc").is_ok());
        assert!(new("🦀🦀🦀🦀🦀 🦀🦀🦀🦀🦀 🦀🦀🦀").is_ok(), "each code point counts one");
        assert!(new(&"🦀".repeat(14)).is_err());
    }

    /// [I-2]
    #[test]
    fn long_passwords_are_accepted_up_to_a_cap_in_bytes() {
        assert!(new(&"x".repeat(64)).is_ok());
        assert!(new(&"x".repeat(128)).is_ok());
        assert!(new(&"x".repeat(MAX_BYTES)).is_ok());
        assert!(new(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    /// [I-4]
    #[tokio::test]
    async fn composed_and_decomposed_forms_are_the_same_password() {
        let hasher = hasher();
        let stored = hasher.hash(new("caf\u{e9} caf\u{e9} caf\u{e9} caf\u{e9}").unwrap()).await.unwrap();
        assert!(hasher.verify(presented("cafe\u{301} cafe\u{301} cafe\u{301} cafe\u{301}"), Some(stored)).await.unwrap());
    }

    /// [I-5]
    #[tokio::test]
    async fn nothing_is_truncated_or_folded() {
        let hasher = hasher();
        let password = format!("{}A{}z", "x".repeat(72), "y".repeat(50));
        let stored = hasher.hash(new(&password).unwrap()).await.unwrap();
        for other in [password.replace('A', "B"), password.replace('A', "a"), password.replace('z', "Z"), password[..122].to_owned()] {
            assert!(!hasher.verify(presented(&other), Some(stored.clone())).await.unwrap(), "{other}");
        }
        assert!(hasher.verify(presented(&password), Some(stored)).await.unwrap());
    }

    /// [I-11]
    #[tokio::test]
    async fn the_stored_form_is_argon2id_with_the_set_parameters_and_a_weaker_one_is_outdated() {
        let stored = hasher().hash(new("aaaaa bbbbb ccccc").unwrap()).await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(!Hasher::is_outdated(&stored));
        assert!(Hasher::is_outdated(&stored.replace("t=2", "t=1")));
        assert!(Hasher::is_outdated(&stored.replace("m=19456", "m=9216")));
    }

    /// [I-22]
    #[tokio::test]
    async fn an_unknown_user_costs_one_hash_as_a_known_one_does() {
        let hasher = hasher();
        assert!(!hasher.verify(presented("whatever"), None).await.unwrap());
        assert_eq!(hasher.runs(), 1);
    }

    #[tokio::test]
    async fn a_full_pool_refuses_at_once() {
        let hasher = hasher();
        let _both = hasher.0.places.try_acquire_many(2).unwrap();
        assert!(matches!(hasher.verify(presented("x"), None).await, Err(Error::HasherBusy)));
    }
}
