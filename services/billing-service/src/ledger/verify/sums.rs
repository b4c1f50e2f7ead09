//! Zero sums, balances, holds, and revenue against usage.

use futures::TryStreamExt;
use sqlx::{Postgres, Transaction};

/// Reports each sum that is wrong.
pub async fn check(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    transactions(transaction, report).await?;
    accounts(transaction, report).await?;
    holds(transaction, report).await?;
    revenue(transaction, report).await
}

async fn transactions(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query!(
        r#"select t.id, coalesce(sum(e.amount_micros), 0)::bigint as "sum!", count(e.id) as "entries!" from ledger_transactions t
           left join ledger_entries e on e.transaction_id = t.id left join accounts a on a.id = e.account_id
           group by t.id, a.currency having coalesce(sum(e.amount_micros), 0) <> 0 or count(e.id) < 2"#
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        report(format!("transaction {} sums to {} over {} entries", row.id, row.sum, row.entries));
    }
    Ok(())
}

async fn accounts(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query!(
        r#"select a.id, a.balance_micros, coalesce(sum(e.amount_micros), 0)::bigint as "sum!" from accounts a
           left join ledger_entries e on e.account_id = a.id group by a.id having a.balance_micros <> coalesce(sum(e.amount_micros), 0)"#
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        report(format!("account {} says {} and its entries sum to {}", row.id, row.balance_micros, row.sum));
    }
    Ok(())
}

async fn holds(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query!(
        r#"select a.organization_id, a.balance_micros as "balance_micros!", (coalesce(r.held, 0) + coalesce(l.held, 0))::bigint as "bound!"
           from accounts a
           left join (select organization_id, sum(amount_micros) as held from reservations where state = 'held' group by 1) r using (organization_id)
           left join (select organization_id, sum(held_micros) as held from leases where state <> 'closed' group by 1) l using (organization_id)
           where a.kind = 'holds' and a.balance_micros <> coalesce(r.held, 0) + coalesce(l.held, 0)"#
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        let organization = row.organization_id.unwrap_or_default();
        report(format!(
            "organization {organization} has {} on hold, and its reservations and leases come to {}",
            row.balance_micros, row.bound
        ));
    }
    Ok(())
}

async fn revenue(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    let mut rows = sqlx::query!(
        r#"select currency as "currency!", sum(posted)::bigint as "posted!", sum(used)::bigint as "used!" from (
             select currency, balance_micros as posted, 0 as used from accounts where kind = 'revenue'
             union all select currency, 0, price_micros from usage_events
             union all select currency, 0, price_micros from usage_retired) as counted
           group by currency having sum(posted) <> sum(used) order by currency"#
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        report(format!("revenue is {} {} and usage comes to {}", row.posted, row.currency, row.used));
    }
    Ok(())
}
