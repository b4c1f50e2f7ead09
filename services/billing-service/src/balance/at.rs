//! Balances of the past: what there is now without what was posted since, or the sum of what was posted before, whichever is less to read.

use chassis::postgres::begin_planned_anew;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::{PgPool, Postgres, Transaction};

use crate::error::{Error, check_instants};
use crate::ledger::chart::Account;
use crate::ledger::{Balances, CREDIT, balances};

/// A picture of the ledger as of now, in which an organization's history may be read: a long one takes longer than other requests may.
///
/// # Errors
/// The database's.
pub async fn history(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut transaction = begin_planned_anew(pool).await?;
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut *transaction).await?;
    sqlx::query!("set local statement_timeout = '60s'").execute(&mut *transaction).await?;
    Ok(transaction)
}

/// The balances as an instant begins: of everything that became true before it. Two periods that meet at it share them. The transaction
/// must see one picture ([`history`]).
///
/// # Errors
/// The database's.
pub async fn before(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    at: DateTime<Utc>,
) -> Result<Balances, Error> {
    const NOTHING: Balances = Balances { wallet: 0, held: 0, debt: 0 };
    check_instants(&[at])?;
    let Some((first, last)) = ends(transaction, organization).await? else { return Ok(NOTHING) };
    // What is nearer to the end of the history has less after it than before it. Which one is chosen changes no balance.
    if at - first > last - at {
        let now = balances(&mut **transaction, organization).await?.unwrap_or(NOTHING);
        let since = posted(transaction, organization, Some(at), None).await?;
        return Ok(Balances { wallet: now.wallet - since.wallet, held: now.held - since.held, debt: now.debt - since.debt });
    }
    posted(transaction, organization, None, Some(at)).await
}

/// When the first and the last transaction of the organization became true, as they were posted.
async fn ends(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>, Error> {
    let ends = sqlx::query!(
        r#"select (select occurred_at from ledger_transactions where organization_id = $1 order by position limit 1) as first,
             (select occurred_at from ledger_transactions where organization_id = $1 order by position desc limit 1) as last"#,
        organization.uuid()
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(ends.first.zip(ends.last))
}

/// What became true in `[from, to)`, by account; without an end where one is not given.
async fn posted(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    from: Option<DateTime<Utc>>,
    to: Option<DateTime<Utc>>,
) -> Result<Balances, Error> {
    let rows = sqlx::query!(
        r#"select a.kind, coalesce(sum(e.amount_micros), 0)::bigint as "sum!" from ledger_transactions t
           join ledger_entries e on e.transaction_id = t.id join accounts a on a.id = e.account_id
           where t.organization_id = $1 and ($2::timestamptz is null or t.occurred_at >= $2) and ($3::timestamptz is null or t.occurred_at < $3)
             and a.organization_id = $1 and a.currency = $4
           group by a.kind"#,
        organization.uuid(),
        from,
        to,
        CREDIT.code()
    )
    .fetch_all(&mut **transaction)
    .await?;
    let sum = |account: Account| rows.iter().filter(|row| row.kind == account.as_str()).map(|row| row.sum).sum::<i64>();
    Ok(Balances { wallet: sum(Account::Wallet), held: sum(Account::Holds), debt: -sum(Account::Debt) })
}
