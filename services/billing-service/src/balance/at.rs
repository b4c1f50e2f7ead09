//! Balances of the past: the sums of what was posted before an instant.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::PgExecutor;

use crate::error::Error;
use crate::ledger::chart::Account;
use crate::ledger::{Balances, CREDIT};

/// The balances as an instant begins: of everything that became true before it. Two periods that meet at it share them.
///
/// # Errors
/// The database's.
pub async fn before(executor: impl PgExecutor<'_>, organization: OrganizationId, at: DateTime<Utc>) -> Result<Balances, Error> {
    let rows = sqlx::query!(
        r#"select a.kind, coalesce(sum(e.amount_micros), 0)::bigint as "sum!" from accounts a
           join ledger_entries e on e.account_id = a.id join ledger_transactions t on t.id = e.transaction_id
           where a.organization_id = $1 and a.currency = $3 and t.occurred_at < $2 group by a.kind"#,
        organization.uuid(),
        at,
        CREDIT.code()
    )
    .fetch_all(executor)
    .await?;
    let sum = |account: Account| rows.iter().filter(|row| row.kind == account.as_str()).map(|row| row.sum).sum::<i64>();
    Ok(Balances { wallet: sum(Account::Wallet), held: sum(Account::Holds), debt: -sum(Account::Debt) })
}
