//! Commands for operators.

use std::io::Write;

use chassis::{Clock, Random, postgres};
use clap::Subcommand;

use crate::administrators;
use crate::config::AuthConfig;
use crate::secrets::Secrets;
use crate::tokens;

/// `auth-service admin …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Print a token with which the first administrator can be made (`POST /v1/administrators`), once, within an hour.
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
            writeln!(std::io::stdout(), "{}", administrators::bootstrap(&pool, &clock, &random).await?)?;
        }
    }
    Ok(())
}
