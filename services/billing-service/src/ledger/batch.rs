//! Many postings at once: settlements come in batches, and a statement for each would take longer than the work.

use identity::OrganizationId;
use money::Currency;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::postings::Posting;
use crate::error::Error;
use crate::state::AppState;

/// Writes postings of facts that were not posted before, in their order. Their accounts must be there and locked.
///
/// # Errors
/// The database's; it refuses what is not balanced, overdraws or was posted before.
pub async fn post_all(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    currency: Currency,
    postings: &[(OrganizationId, Posting)],
) -> Result<(), Error> {
    let ids: Vec<Uuid> = postings.iter().map(|_| state.random.uuid_v7(&state.clock)).collect();
    let kinds: Vec<String> = postings.iter().map(|(_, posting)| posting.kind.as_str().to_owned()).collect();
    let keys: Vec<String> = postings.iter().map(|(_, posting)| posting.external_key.clone()).collect();
    let organizations: Vec<Uuid> = postings.iter().map(|(organization, _)| organization.uuid()).collect();
    let times: Vec<_> = postings.iter().map(|(_, posting)| posting.occurred_at).collect();
    sqlx::query!(
        "insert into ledger_transactions (id, kind, external_key, organization_id, occurred_at)
         select id, kind, key, organization, time
         from unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::timestamptz[]) with ordinality as t (id, kind, key, organization, time, position)
         order by position",
        &ids,
        &kinds,
        &keys,
        &organizations,
        &times
    )
    .execute(&mut **transaction)
    .await?;
    let moved: Vec<_> = ids
        .iter()
        .zip(postings)
        .flat_map(|(id, (organization, posting))| {
            let entries = posting.entries.iter().filter(|(_, amount)| *amount != 0);
            entries.map(|(account, amount)| {
                (*id, account.belongs_to_organization().then(|| organization.uuid()), account.as_str().to_owned(), *amount)
            })
        })
        .collect();
    let (ids, owners): (Vec<Uuid>, Vec<Option<Uuid>>) = moved.iter().map(|(id, owner, ..)| (*id, *owner)).unzip();
    let (kinds, amounts): (Vec<String>, Vec<i64>) = moved.iter().map(|(.., kind, amount)| (kind.clone(), *amount)).unzip();
    let inserted = sqlx::query!(
        "insert into ledger_entries (transaction_id, account_id, amount_micros)
         select m.id, account.id, m.amount
         from unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[]) with ordinality as m (id, owner, kind, amount, position)
         cross join lateral (
           select a.id from accounts a where a.organization_id = m.owner and a.kind = m.kind and a.currency = $5
           union all
           select a.id from accounts a where m.owner is null and a.organization_id is null and a.kind = m.kind and a.currency = $5
         ) account order by m.position",
        &ids,
        &owners as &[Option<Uuid>],
        &kinds,
        &amounts,
        currency.code()
    )
    .execute(&mut **transaction)
    .await?;
    let all = u64::try_from(moved.len()).is_ok_and(|expected| inserted.rows_affected() == expected);
    if all { Ok(()) } else { Err(Error::Internal("an entry has no account")) }
}
