//! The sub-ledger of credit: lots against their movements, and against wallet and holds.

use futures::TryStreamExt;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};

/// Reports each lot and each organization whose lots are wrong.
pub async fn check(transaction: &mut Transaction<'static, Postgres>, report: &mut impl FnMut(String)) -> Result<(), sqlx::Error> {
    {
        let mut rows = sqlx::query!(
            r#"select g.id, g.remaining_micros, coalesce(sum(m.amount_micros), 0)::bigint as "sum!" from grants g
               left join grant_movements m on m.grant_id = g.id group by g.id having g.remaining_micros <> coalesce(sum(m.amount_micros), 0)"#
        )
        .fetch(&mut **transaction);
        while let Some(row) = rows.try_next().await? {
            report(format!("grant {} says {} and its movements sum to {}", row.id, row.remaining_micros, row.sum));
        }
    }
    let mut rows = sqlx::query!(
        r#"select a.organization_id as "organization!", a.currency, sum(a.balance_micros)::bigint as "posted!", coalesce(max(g.remaining), 0)::bigint as "lots!"
           from accounts a left join (select organization_id, currency, sum(remaining_micros) as remaining from grants group by organization_id, currency) g
             on g.organization_id = a.organization_id and g.currency = a.currency
           where a.kind in ('wallet', 'holds') group by a.organization_id, a.currency having sum(a.balance_micros) <> coalesce(max(g.remaining), 0)"#
    )
    .fetch(&mut **transaction);
    while let Some(row) = rows.try_next().await? {
        let organization = OrganizationId::from_uuid(row.organization);
        report(format!("organization {organization} has {} {} in wallet and holds and {} in lots", row.posted, row.currency, row.lots));
    }
    Ok(())
}
