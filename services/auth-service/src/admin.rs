//! Commands for operators.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::{Clock, Random, postgres};
use chrono::TimeDelta;
use clap::Subcommand;
use sha2::{Digest, Sha256};

use crate::config::AuthConfig;
use crate::secrets::Secrets;
use crate::tokens;

const BOOTSTRAP_LIFE: TimeDelta = TimeDelta::hours(1);

/// `auth-service admin …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print a token with which the first administrator can be made, once, within an hour.
    Bootstrap,
    /// Keys that sign tokens.
    #[command(subcommand)]
    Keys(Keys),
}

/// `auth-service admin keys …`
#[derive(Debug, Clone, Subcommand)]
pub enum Keys {
    /// Let the published next key sign from now on and publish a new next one.
    Rotate,
}

/// Runs a command.
///
/// # Errors
/// The database's.
pub async fn run(command: Command, config: AuthConfig) -> anyhow::Result<()> {
    let pool = postgres::connect(&config.postgres, "auth-service admin")?;
    let (clock, random) = (Clock::system(), Random::system());
    match command {
        Command::Keys(Keys::Rotate) => {
            tokens::rotate(&pool, &Secrets::new(&config.secret)?, &clock, &random).await?;
            writeln!(std::io::stdout(), "rotated: the next key signs from now on; processes notice within seconds")?;
        }
        Command::Bootstrap => {
            let token = format!("tvb_{}", URL_SAFE_NO_PAD.encode(random.bytes::<32>()));
            let inserted = sqlx::query!(
                "insert into bootstrap_tokens (token_sha256, expires_at) select $1, $2
                 where not exists (select from bootstrap_tokens where used_at is not null)",
                Sha256::digest(&token).to_vec(),
                clock.now() + BOOTSTRAP_LIFE
            )
            .execute(&pool)
            .await?;
            anyhow::ensure!(inserted.rows_affected() == 1, "there is an administrator already; bootstrap works once");
            writeln!(std::io::stdout(), "{token}")?;
        }
    }
    Ok(())
}
