//! Does the ledger hold what it promises? Every transaction sums to zero, every balance equals its sum, every hold is somebody's.

use sqlx::PgPool;

/// What is wrong, one line each; empty when nothing is. Reads one consistent picture, also while serving.
///
/// # Errors
/// The database's.
pub async fn differences(pool: &PgPool) -> Result<Vec<String>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    sqlx::query!("set transaction isolation level repeatable read, read only").execute(&mut *transaction).await?;
    let unbalanced = sqlx::query!(
        r#"select t.id, coalesce(sum(e.amount_micros), 0)::bigint as "sum!", count(e.id) as "entries!" from ledger_transactions t
           left join ledger_entries e on e.transaction_id = t.id left join accounts a on a.id = e.account_id
           group by t.id, a.currency having coalesce(sum(e.amount_micros), 0) <> 0 or count(e.id) < 2"#
    )
    .fetch_all(&mut *transaction)
    .await?;
    let drifted = sqlx::query!(
        r#"select a.id, a.balance_micros, coalesce(sum(e.amount_micros), 0)::bigint as "sum!" from accounts a
           left join ledger_entries e on e.account_id = a.id group by a.id having a.balance_micros <> coalesce(sum(e.amount_micros), 0)"#
    )
    .fetch_all(&mut *transaction)
    .await?;
    let holds = sqlx::query!(
        r#"select a.organization_id, a.balance_micros,
             coalesce((select sum(r.amount_micros) from reservations r where r.organization_id = a.organization_id and r.state = 'held'), 0)::bigint as "held!"
           from accounts a where a.kind = 'holds'
             and a.balance_micros <> coalesce((select sum(r.amount_micros) from reservations r where r.organization_id = a.organization_id and r.state = 'held'), 0)"#
    )
    .fetch_all(&mut *transaction)
    .await?;
    let revenue = sqlx::query!(
        r#"select coalesce((select sum(balance_micros) from accounts where kind = 'revenue'), 0)::bigint as "posted!",
                  (coalesce((select sum(price_micros) from usage_events), 0)
                    + coalesce((select sum(price_micros) from usage_retired), 0))::bigint as "used!""#
    )
    .fetch_one(&mut *transaction)
    .await?;
    let mut lines = Vec::new();
    lines.extend(unbalanced.iter().map(|row| format!("transaction {} sums to {} over {} entries", row.id, row.sum, row.entries)));
    lines.extend(drifted.iter().map(|row| format!("account {} says {} and its entries sum to {}", row.id, row.balance_micros, row.sum)));
    lines.extend(holds.iter().map(|row| {
        let organization = row.organization_id.unwrap_or_default();
        format!("organization {organization} has {} on hold and reservations for {}", row.balance_micros, row.held)
    }));
    if revenue.posted != revenue.used {
        lines.push(format!("revenue is {} and usage comes to {}", revenue.posted, revenue.used));
    }
    Ok(lines)
}
