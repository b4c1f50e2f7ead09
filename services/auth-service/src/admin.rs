//! Commands for operators.

use std::io::Write;

use chassis::{Clock, Random, postgres};
use clap::Subcommand;

use crate::administrators;
use crate::config::AuthConfig;
use crate::tokens::{self, Rotation};

/// `auth-service …`
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// What only an operator may do.
    #[command(subcommand)]
    Admin(Admin),
}

/// `auth-service admin …`
#[derive(Debug, Clone, Subcommand)]
pub enum Admin {
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
    Rotate {
        /// Also when verifiers may not know the next key yet: for a current key that is no longer ours alone.
        #[arg(long)]
        force: bool,
    },
}

/// Runs a command.
///
/// # Errors
/// The database's, and when the command is refused.
pub async fn run(Command::Admin(command): Command, config: AuthConfig) -> anyhow::Result<()> {
    let pool = postgres::connect(&config.postgres, "auth-service admin")?;
    let (clock, random) = (Clock::system(), Random::system());
    match command {
        Admin::Keys(Keys::Rotate { force }) => {
            if let Rotation::TooEarly(wait) = tokens::rotate(&pool, &config.secret, &clock, &random, force).await? {
                anyhow::bail!("the next key is too new, not everybody may know it yet: wait {} s, or use --force", wait.num_seconds() + 1);
            }
            writeln!(std::io::stdout(), "rotated: the next key signs from now on; processes notice within seconds")?;
        }
        Admin::Bootstrap => {
            writeln!(std::io::stdout(), "{}", administrators::bootstrap(&pool, &clock, &random).await?)?;
        }
    }
    Ok(())
}
