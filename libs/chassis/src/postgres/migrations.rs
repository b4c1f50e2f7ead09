//! Embedded migrations, applied once and in order, by one process at a time.

use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use super::code;

/// Names the migrations of a crate, in order, and embeds their text: `migrations!["0001_accounts"]` reads
/// `../migrations/0001_accounts.sql` beside the file that calls it.
#[macro_export]
macro_rules! migrations {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../migrations/", $name, ".sql")))),*] };
}

/// The tables that the chassis itself needs in each database.
const CHASSIS: &[(&str, &str)] = &[
    ("chassis_0001_outbox", include_str!("../../migrations/0001_outbox.sql")),
    ("chassis_0002_inbox", include_str!("../../migrations/0002_inbox.sql")),
    ("chassis_0003_idempotency", include_str!("../../migrations/0003_idempotency.sql")),
];

/// Key of the advisory lock ("trivet" in ASCII).
const LOCK: i64 = 0x7472_6976_6574;
const LOCK_RETRY: Duration = Duration::from_millis(100);
const LOCK_ATTEMPTS: u32 = 600;
/// Tries of one migration whose tables are in use.
const TABLE_ATTEMPTS: u32 = 30;

/// The migrations of one service.
#[derive(Debug, Clone, Copy)]
pub struct Migrations {
    /// The role that the service runs as; it owns nothing.
    pub app_role: &'static str,
    /// Name and text, in order.
    pub files: &'static [(&'static str, &'static str)],
}

/// Why a database is not at the expected version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database answered with an error.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed.
    #[error("migration {name} failed: {source}")]
    Failed {
        /// The migration.
        name: &'static str,
        /// The database's error.
        source: sqlx::Error,
    },
    /// A migration that was applied has another text now.
    #[error("migration {0} was applied with another text; an applied migration is never edited")]
    Changed(&'static str),
    /// A migration is missing in the database.
    #[error("migration {0} is not applied")]
    Missing(&'static str),
    /// Somebody else has been migrating for a minute.
    #[error("another process holds the migration lock")]
    Locked,
}

impl Migrations {
    fn all(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        CHASSIS.iter().chain(self.files).copied()
    }

    /// Applies what is missing, each migration in a transaction of its own.
    ///
    /// # Errors
    /// [`MigrateError`]; what was applied before stays.
    pub async fn apply(self, connection: &mut PgConnection) -> Result<(), MigrateError> {
        // Tried, not waited for: a session waiting for a lock would block `create index concurrently` elsewhere.
        let mut attempts = 0;
        while !sqlx::query_scalar::<_, bool>("select pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut *connection).await? {
            attempts += 1;
            if attempts == LOCK_ATTEMPTS {
                return Err(MigrateError::Locked);
            }
            tokio::time::sleep(LOCK_RETRY).await;
        }
        let outcome = self.apply_locked(connection).await;
        sqlx::query("select pg_advisory_unlock($1)").bind(LOCK).execute(connection).await?;
        outcome
    }

    async fn apply_locked(self, connection: &mut PgConnection) -> Result<(), MigrateError> {
        connection
            .execute("create table if not exists _migrations (name text primary key, checksum bytea not null, applied_at timestamptz not null default now())")
            .await?;
        let role = self.app_role;
        let grants = format!(
            "grant usage on schema public to {role}; grant select on _migrations to {role}; alter default privileges in schema public revoke all on tables from public"
        );
        connection.execute(AssertSqlSafe(grants)).await?;
        let applied = applied(connection).await?;
        for (name, text) in self.all() {
            match applied.iter().find(|(applied, _)| applied == name) {
                Some((_, sum)) if *sum == checksum(text) => {}
                Some(_) => return Err(MigrateError::Changed(name)),
                None => {
                    self.patiently(connection, name, text).await.map_err(|source| MigrateError::Failed { name, source })?;
                    tracing::info!(migration.name = name, "applied a migration");
                }
            }
        }
        Ok(())
    }

    /// While a table is in use, a migration that must have it gives way after the connection's short lock time limit and tries again:
    /// whoever comes after it in the queue for the lock waits no longer than that.
    async fn patiently(self, connection: &mut PgConnection, name: &str, text: &'static str) -> Result<(), sqlx::Error> {
        let mut attempts = 1;
        loop {
            match self.run(connection, name, text).await {
                Err(error) if code(&error).as_deref() == Some("55P03") && attempts < TABLE_ATTEMPTS => {
                    tracing::warn!(migration.name = name, attempts, "a table that a migration needs is in use; it will be tried again");
                    attempts += 1;
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn run(self, connection: &mut PgConnection, name: &str, text: &'static str) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin().await?;
        transaction.execute(text).await?;
        if name.starts_with("chassis_") {
            let grant = format!("grant select, insert, update, delete on _{} to {}", &name[13..], self.app_role);
            transaction.execute(AssertSqlSafe(grant)).await?;
        }
        sqlx::query("insert into _migrations (name, checksum) values ($1, $2)")
            .bind(name)
            .bind(checksum(text))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }

    /// Whether the database has every migration of this binary; more are fine (a newer version may be rolling out).
    ///
    /// # Errors
    /// [`MigrateError::Missing`], [`MigrateError::Changed`], or the database's error.
    pub async fn verify(self, pool: &PgPool) -> Result<(), MigrateError> {
        let applied = match applied(&mut *pool.acquire().await?).await {
            // There is not even the table of migrations: none was ever applied.
            Err(error) if code(&error).as_deref() == Some("42P01") => Vec::new(),
            outcome => outcome?,
        };
        for (name, text) in self.all() {
            match applied.iter().find(|(applied, _)| applied == name) {
                None => return Err(MigrateError::Missing(name)),
                Some((_, sum)) if *sum != checksum(text) => return Err(MigrateError::Changed(name)),
                Some(_) => {}
            }
        }
        Ok(())
    }
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<(String, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query("select name, checksum from _migrations").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn checksum(text: &str) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}
