//! Does the ledger hold what it promises? Every transaction sums to zero and is what was sealed, every balance equals its sum, every
//! hold is somebody's. Reads one consistent picture, also while serving, and holds one row at a time.

mod chain;
mod lots;
mod sums;

use std::fmt;

use sqlx::PgPool;

use crate::audit::hex;

/// Lines that [`differences`] keeps; a ledger with more is not mended line by line.
pub const LINES: usize = 1000;

/// What was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Transactions under a seal.
    pub sealed: u64,
    /// Seals.
    pub seals: i64,
    /// The hash of the last seal: who keeps it finds out if all of the chain was made anew.
    pub head: [u8; 32],
    /// Whether a seal with the hash that the caller kept is in the chain.
    pub has_expected: bool,
    /// What is wrong.
    pub differences: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} transactions under {} seals, the last of them {}", self.sealed, self.seals, hex(&self.head))
    }
}

/// Looks at everything, and reports what is wrong line by line, naming the row.
///
/// # Errors
/// The database's.
pub async fn check(pool: &PgPool, expected: Option<&[u8]>, mut report: impl FnMut(String)) -> Result<Summary, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut *transaction).await?;
    // A large ledger takes longer than a request may.
    sqlx::query!("set local statement_timeout = 0").execute(&mut *transaction).await?;
    sqlx::query!("set local idle_in_transaction_session_timeout = 0").execute(&mut *transaction).await?;
    let mut count = 0;
    let mut report = |line: String| {
        count += 1;
        report(line);
    };
    let mut summary = chain::check(&mut transaction, expected, &mut report).await?;
    sums::check(&mut transaction, &mut report).await?;
    lots::check(&mut transaction, &mut report).await?;
    summary.differences = count;
    Ok(summary)
}

/// What is wrong, one line each, the first thousand of them; empty when nothing is.
///
/// # Errors
/// The database's.
pub async fn differences(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let mut lines = Vec::new();
    check(pool, None, |line| {
        if lines.len() < LINES {
            lines.push(line);
        }
    })
    .await?;
    Ok(lines)
}
