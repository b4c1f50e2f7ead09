//! Postgres: a bounded pool, transactions that are retried when the database asks for it, and what its errors mean.

mod migrations;

use std::future::Future;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::pool::PoolConnectionMetadata;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, Executor, PgConnection, Postgres, Transaction};
use tokio::time::Instant;

pub use migrations::{MigrateError, Migrations};

use crate::config::Millis;
use crate::health::Readiness;

/// How often a transaction is tried when the database reports a conflict with another.
const ATTEMPTS: u32 = 5;
/// How long a one-shot waits for a database that is started together with it.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two of its tries.
const PAUSE: Duration = Duration::from_millis(100);
/// A connection that was used this recently is taken for alive. One that was not is asked first: asking each time would be a second way to the
/// database for each statement, and never asking would fail a request for each connection that a restart of the database has cut.
pub const ALIVE: Duration = Duration::from_millis(500);

crate::settings! {
    /// The service's own database.
    pub struct PostgresConfig {
        /// `postgres://role@host:5432/database`, without the password.
        pub url: String = required "TRIVET_DATABASE_URL",
        /// Password of the role.
        pub password: Option<SecretString> = optional "TRIVET_DATABASE_PASSWORD",
        /// Connections held at most.
        pub max_connections: u32 = default "TRIVET_DATABASE_MAX_CONNECTIONS" "16",
        /// Milliseconds one statement may take.
        pub statement_timeout: Millis = default "TRIVET_DATABASE_STATEMENT_TIMEOUT_MS" "5000",
        /// Milliseconds to wait for a free connection or for a lock.
        pub wait_timeout: Millis = default "TRIVET_DATABASE_WAIT_TIMEOUT_MS" "2000",
    }
}

/// A pool that connects when it is first used. A database that is away is no reason not to start: `/ready` says so.
///
/// # Errors
/// When the URL is malformed.
pub fn connect(config: &PostgresConfig, application: &str) -> Result<PgPool, sqlx::Error> {
    Ok(PgPoolOptions::new()
        .max_connections(config.max_connections)
        .acquire_timeout(config.wait_timeout.0)
        .test_before_acquire(false)
        .before_acquire(|connection, metadata| Box::pin(is_alive(connection, metadata)))
        .connect_lazy_with(options(config, application)?))
}

/// Whether a pooled connection may be used; the pool closes it and takes another when it may not.
async fn is_alive(connection: &mut PgConnection, metadata: PoolConnectionMetadata) -> Result<bool, sqlx::Error> {
    // An error would be logged as a warning for each connection that was cut, and is not one.
    Ok(metadata.idle_for < ALIVE || connection.ping().await.is_ok())
}

/// A transaction whose statements are planned for the values they are given. A prepared statement is soon planned for any values: then a
/// page of a long list is taken for a tenth of all there is, and all of it is sorted for each page.
///
/// # Errors
/// When the database does not answer.
pub async fn begin_planned_anew(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    transaction.execute("set local plan_cache_mode = force_custom_plan").await?;
    Ok(transaction)
}

/// The connection's options: time limits are set for each session, and no statement is logged with its values.
///
/// # Errors
/// When the URL is malformed.
pub fn options(config: &PostgresConfig, application: &str) -> Result<PgConnectOptions, sqlx::Error> {
    let mut options: PgConnectOptions = config.url.parse()?;
    if let Some(password) = &config.password {
        options = options.password(password.expose_secret());
    }
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    Ok(options
        .application_name(application)
        .options([
            ("statement_timeout", milliseconds(config.statement_timeout.0)),
            ("lock_timeout", milliseconds(config.wait_timeout.0)),
            ("idle_in_transaction_session_timeout", milliseconds(config.statement_timeout.0 * 2)),
        ])
        .disable_statement_logging())
}

/// One connection, for a command that is started together with the database: while nobody answers it is tried again, for a minute.
///
/// # Errors
/// When the URL is malformed or the role is refused, at once; when the database does not come.
pub async fn connect_patiently(config: &PostgresConfig, application: &str) -> Result<PgConnection, sqlx::Error> {
    let (options, end) = (options(config, application)?, Instant::now() + PATIENCE);
    loop {
        match PgConnection::connect_with(&options).await {
            Err(error) if is_unavailable(&error) && Instant::now() < end => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

/// Makes `/ready` depend on the database and on its schema being the one this binary expects.
pub fn watch(readiness: &Readiness, pool: &PgPool, migrations: Migrations) {
    let pool = pool.clone();
    readiness.register("postgres", move || {
        let pool = pool.clone();
        async move {
            migrations.verify(&pool).await.map_err(|error| match error {
                // What the database says is not for strangers.
                MigrateError::Database(error) => {
                    tracing::debug!(error.message = %error, "the database cannot be asked for its migrations");
                    "not available".to_owned()
                }
                error => error.to_string(),
            })
        }
    });
}

/// An error that may hide one of the database's.
pub trait DatabaseError: From<sqlx::Error> {
    /// The database's error, if it is one.
    fn database(&self) -> Option<&sqlx::Error>;
}

impl DatabaseError for sqlx::Error {
    fn database(&self) -> Option<&sqlx::Error> {
        Some(self)
    }
}

/// Runs a block in a transaction and commits it: `in_transaction!(&pool, |transaction| { … })`, where the block is the body of an
/// async function that may use `?` and `return`. When the database reports a serialization failure or a deadlock the whole
/// block is run again, a few times; it must therefore have no effect outside the transaction.
///
/// A macro and not a function, because a borrowing async closure cannot yet promise to be `Send`.
#[macro_export]
macro_rules! in_transaction {
    ($pool:expr, |$transaction:ident| $body:block) => {{
        let mut attempt = 1;
        loop {
            let outcome = async {
                let mut opened = $pool.begin().await?;
                let worked = async {
                    let $transaction = &mut opened;
                    $body
                };
                match worked.await {
                    Ok(value) => {
                        $crate::step!("transaction.worked");
                        opened.commit().await?;
                        $crate::step!("transaction.committed");
                        Ok(value)
                    }
                    Err(error) => Err(error),
                }
            }
            .await;
            match outcome {
                Err(error) if $crate::postgres::may_retry(&error, attempt) => attempt += 1,
                outcome => break outcome,
            }
        }
    }};
}

/// Whether a transaction that failed at its `attempt`th try may be run again.
pub fn may_retry<E: DatabaseError>(error: &E, attempt: u32) -> bool {
    attempt < ATTEMPTS && error.database().is_some_and(is_conflict)
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}

/// Whether the transaction lost against another and may simply be run again (serialization failure, deadlock).
#[must_use]
pub fn is_conflict(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("40001" | "40P01"))
}

/// The name of the constraint that a statement broke.
#[must_use]
pub fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error()?.constraint()
}

/// Whether the database is away, full or too slow right now, so that trying later makes sense: 503, not 500.
#[must_use]
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => true,
        // 08: connection; 53: resources; 57P0x: shutting down or starting up; 57014, 55P03: time limits.
        _ => code(error).is_some_and(|code| {
            code.starts_with("08") || code.starts_with("53") || code.starts_with("57P0") || code == "57014" || code == "55P03"
        }),
    }
}

/// Runs a piece of work again and again, with a pause in between; for relays and sweepers. Failures are counted, and the Unix time of the last
/// success is kept, since work that hangs does not fail; of work that goes on until the token is cancelled there is none.
pub async fn keep_running<Fut>(
    name: &'static str,
    stop: &tokio_util::sync::CancellationToken,
    pause: Duration,
    mut work: impl FnMut() -> Fut,
) where
    Fut: Future<Output = anyhow::Result<()>>,
{
    while !stop.is_cancelled() {
        match work().await {
            Ok(()) => {
                // By the clock of those who look at it, and not by one that a test turns.
                #[expect(clippy::cast_precision_loss, reason = "gauges are floating point")]
                let now = crate::clock::Clock::system().now().timestamp() as f64;
                metrics::gauge!("background_last_success_timestamp_seconds", "task" => name).set(now);
            }
            Err(error) => {
                metrics::counter!("background_failures_total", "task" => name).increment(1);
                tracing::warn!(task.name = name, error.message = format!("{error:#}"), "a background step failed and will be tried again");
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
