//! The signing keys as rows: made under a lock, encrypted at rest, rotated by turning their states.

use chassis::in_transaction;
use chassis::{Clock, Random};
use chrono::TimeDelta;
use identity::JwkSet;
use identity::jwks::{CACHE_TIME, Jwk};
use identity::jwt::SigningKey;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use sqlx::{PgPool, Postgres, Transaction};

use crate::audit::Event;
use crate::error::Error;
use crate::secrets::Secrets;

/// How long a former key stays published: longer than any token it signed.
const FORMER_LIFE: TimeDelta = TimeDelta::seconds(super::ACCESS_SECONDS + 60);
/// A key is published for this long before it signs: as long as others cache keys, after the last of our own processes has seen it.
const PUBLISHED_BEFORE: TimeDelta = TimeDelta::seconds((CACHE_TIME.as_secs() + super::RELOAD.as_secs()).cast_signed());
/// Key of the advisory lock under which keys are made and rotated.
const LOCK: i64 = 0x6b65_7972_696e;

/// The keys of this moment.
#[derive(Debug)]
pub struct Keyring {
    current: SigningKey,
    published: JwkSet,
}

impl Keyring {
    /// The key that signs.
    #[must_use]
    pub const fn current(&self) -> &SigningKey {
        &self.current
    }

    /// The keys that verify.
    #[must_use]
    pub fn published(&self) -> JwkSet {
        self.published.clone()
    }

    /// Reads the keys; makes the first two when there are none.
    ///
    /// # Errors
    /// The database's, or a key that does not open under this `AUTH_SECRET`.
    pub async fn load(pool: &PgPool, secrets: &Secrets, clock: &Clock, random: &Random) -> Result<Self, Error> {
        if let Some(keyring) = Self::read(pool, secrets, clock).await? {
            return Ok(keyring);
        }
        in_transaction!(pool, |transaction| {
            lock(transaction).await?;
            let present = sqlx::query_scalar!(r#"select exists (select from signing_keys where state = 'current') as "present!""#)
                .fetch_one(&mut **transaction)
                .await?;
            if !present {
                insert(transaction, secrets, clock, random, "current").await?;
                insert(transaction, secrets, clock, random, "next").await?;
            }
            Ok::<_, Error>(())
        })?;
        Self::read(pool, secrets, clock).await?.ok_or(Error::Internal("there is no signing key"))
    }

    async fn read(pool: &PgPool, secrets: &Secrets, clock: &Clock) -> Result<Option<Self>, Error> {
        let oldest = clock.now() - FORMER_LIFE;
        let rows = sqlx::query!(
            "select kid, public_key, private_key, state from signing_keys where state <> 'former' or retired_at > $1 order by created_at",
            oldest
        )
        .fetch_all(pool)
        .await?;
        let published = JwkSet { keys: rows.iter().map(|row| Jwk::ed25519(&row.kid, &row.public_key)).collect() };
        let Some(row) = rows.iter().find(|row| row.state == "current") else { return Ok(None) };
        let der = secrets
            .open(&row.kid, &row.private_key)
            .ok_or(Error::Internal("a signing key does not open: is AUTH_SECRET the one it was made with?"))?;
        Ok(Some(Self { current: SigningKey::from_pkcs8(&row.kid, &der), published }))
    }
}

async fn lock(transaction: &mut Transaction<'static, Postgres>) -> Result<(), Error> {
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut **transaction).await?;
    Ok(())
}

async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    secrets: &Secrets,
    clock: &Clock,
    random: &Random,
    state: &str,
) -> Result<(), Error> {
    let broken = || Error::Internal("a signing key could not be made");
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| broken())?;
    let pair = Ed25519KeyPair::from_pkcs8(der.as_ref()).map_err(|_| broken())?;
    let kid = random.uuid_v7(clock).simple().to_string();
    let sealed = secrets.seal(&kid, der.as_ref(), random).ok_or_else(broken)?;
    sqlx::query!(
        "insert into signing_keys (kid, public_key, private_key, state, created_at) values ($1, $2, $3, $4, $5)",
        kid,
        pair.public_key().as_ref(),
        sealed,
        state,
        clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// How a rotation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// The next key signs from now on.
    Done,
    /// Nothing was changed: there may be verifiers that do not know the next key before this long from now.
    TooEarly(TimeDelta),
}

/// Rotates: the published next key signs from now on, a new next one is published, the former verifies for a while. A next key
/// that was not published for long enough signs only when that is forced [I-50].
///
/// # Errors
/// The database's.
pub async fn rotate(pool: &PgPool, secrets: &Secrets, clock: &Clock, random: &Random, force: bool) -> Result<Rotation, Error> {
    Keyring::load(pool, secrets, clock, random).await?;
    let event = Event::of_operator("signing_key.rotate").ended(if force { "forced" } else { "success" });
    let rotation = in_transaction!(pool, |transaction| {
        lock(transaction).await?;
        let wait = wait(transaction, clock).await?;
        if wait > TimeDelta::zero() && !force {
            return Ok(Rotation::TooEarly(wait));
        }
        sqlx::query!("update signing_keys set state = 'former', retired_at = $1 where state = 'current'", clock.now())
            .execute(&mut **transaction)
            .await?;
        sqlx::query!("update signing_keys set state = 'current' where state = 'next'").execute(&mut **transaction).await?;
        insert(transaction, secrets, clock, random, "next").await?;
        event.write(transaction, clock, random).await?;
        Ok::<_, Error>(Rotation::Done)
    })?;
    match rotation {
        Rotation::Done => event.log(),
        Rotation::TooEarly(_) => event.ended("too_early").refuse(pool, clock, random).await,
    }
    Ok(rotation)
}

/// How long the next key must still be published before it may sign.
async fn wait(transaction: &mut Transaction<'static, Postgres>, clock: &Clock) -> Result<TimeDelta, Error> {
    let published = sqlx::query_scalar!("select created_at from signing_keys where state = 'next'").fetch_one(&mut **transaction).await?;
    Ok(published + PUBLISHED_BEFORE - clock.now())
}
