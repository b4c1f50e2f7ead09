//! The SQL of lots.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use sqlx::types::Json;
use sqlx::{PgExecutor, Postgres, Transaction};
use uuid::Uuid;

use super::burn::{self, Burned};
use super::lot::{GrantId, Lot, ModelHold, Source, restriction};
use crate::error::Error;

/// Why a lot moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Movement {
    /// It was given.
    Grant,
    /// It paid for usage.
    Burn,
    /// It repaid debt.
    Repayment,
    /// It expired.
    Expiry,
    /// It was taken back by the house.
    Revocation,
    /// It went to another wallet.
    Transfer,
    /// Its money was given back.
    Refund,
    /// Its money is disputed.
    Dispute,
    /// An operator took from it.
    Adjustment,
    /// It got back what it had paid.
    Unwind,
}

impl Movement {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grant => "grant",
            Self::Burn => "burn",
            Self::Repayment => "repayment",
            Self::Expiry => "expiry",
            Self::Revocation => "revocation",
            Self::Transfer => "transfer",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
            Self::Adjustment => "adjustment",
            Self::Unwind => "unwind",
        }
    }
}

/// The lots of an organization that have something left, in the order in which they burn. What holds from before an expiry may still
/// need is read with them: holds of any kind belong into that sum.
///
/// # Errors
/// The database's.
pub async fn lots(executor: impl PgExecutor<'_>, organization: OrganizationId, now: DateTime<Utc>) -> Result<Vec<Lot>, Error> {
    Ok(lots_of(executor, &[organization.uuid()], now).await?.remove(&organization).unwrap_or_default())
}

/// What leases hold for the requests of single models.
///
/// # Errors
/// The database's.
pub async fn model_holds(executor: impl PgExecutor<'_>, organization: OrganizationId) -> Result<Vec<ModelHold>, Error> {
    let rows = sqlx::query!(
        r#"select model as "model!", sum(held_micros)::bigint as "held!" from leases
           where organization_id = $1 and state <> 'closed' and model is not null group by model order by model"#,
        organization.uuid()
    )
    .fetch_all(executor)
    .await?;
    Ok(rows.into_iter().map(|row| ModelHold { model: row.model, held: row.held }).collect())
}

/// The same for several organizations.
///
/// # Errors
/// The database's.
pub async fn lots_of(
    executor: impl PgExecutor<'_>,
    organizations: &[Uuid],
    now: DateTime<Utc>,
) -> Result<HashMap<OrganizationId, Vec<Lot>>, Error> {
    let rows = sqlx::query!(
        r#"select g.id, g.organization_id, g.position, g.source, g.remaining_micros, g.priority, g.expires_at, g.created_at,
             g.models as "models: Json<Vec<String>>", g.features as "features: Json<Vec<String>>", g.version,
             case when g.expires_at <= $2 then (coalesce((select sum(r.amount_micros) from reservations r where r.organization_id = g.organization_id
               and r.state = 'held' and r.created_at < g.expires_at), 0) + coalesce((select sum(l.held_micros) from leases l
               where l.organization_id = g.organization_id and l.state <> 'closed' and l.opened_at < g.expires_at), 0))::bigint
               else 0 end as "held_before!"
           from grants g where g.organization_id = any((select $1::uuid[])::uuid[]) and g.state = 'active' and g.remaining_micros > 0"#,
        organizations,
        now
    )
    .fetch_all(executor)
    .await?;
    let mut lots: HashMap<OrganizationId, Vec<Lot>> = HashMap::new();
    for row in rows {
        lots.entry(OrganizationId::from_uuid(row.organization_id)).or_default().push(Lot {
            id: GrantId::from_uuid(row.id),
            source: Source::named(&row.source).ok_or(Error::Internal("a grant has an unknown source"))?,
            remaining: row.remaining_micros,
            priority: row.priority,
            position: row.position,
            expires_at: row.expires_at,
            created_at: row.created_at,
            models: row.models.and_then(|Json(models)| restriction(models)),
            features: row.features.and_then(|Json(features)| restriction(features)),
            version: row.version,
            held_before: row.held_before,
        });
    }
    for lots in lots.values_mut() {
        burn::order(lots);
    }
    Ok(lots)
}

/// How far below zero holds may take what is available, in micro-units.
///
/// # Errors
/// The database's.
pub async fn overdraft(executor: impl PgExecutor<'_>, organization: OrganizationId) -> Result<i64, sqlx::Error> {
    let limit = sqlx::query_scalar!("select overdraft_limit from wallets where organization_id = $1", organization.uuid());
    Ok(limit.fetch_optional(executor).await?.unwrap_or(0))
}

/// Moves lots by signed amounts, for one fact.
pub async fn move_lots(
    transaction: &mut Transaction<'static, Postgres>,
    movement: Movement,
    key: &str,
    moved: &[(GrantId, i64)],
    at: DateTime<Utc>,
) -> Result<(), Error> {
    let moved: Vec<_> = moved.iter().map(|(grant, amount)| (*grant, *amount, None)).collect();
    insert(transaction, movement, key, &moved, at).await
}

/// Gives lots back what movements took.
pub async fn reverse(
    transaction: &mut Transaction<'static, Postgres>,
    key: &str,
    given: &[(Burned, i64)],
    at: DateTime<Utc>,
) -> Result<(), Error> {
    let moved: Vec<_> = given.iter().map(|(burned, amount)| (burned.grant, *amount, Some(burned.movement))).collect();
    insert(transaction, Movement::Unwind, key, &moved, at).await
}

async fn insert(
    transaction: &mut Transaction<'static, Postgres>,
    movement: Movement,
    key: &str,
    moved: &[(GrantId, i64, Option<i64>)],
    at: DateTime<Utc>,
) -> Result<(), Error> {
    let moved: Vec<Moved> =
        moved.iter().map(|&(grant, amount, reverses)| Moved { grant, movement, key: key.to_owned(), amount, reverses, at }).collect();
    insert_all(transaction, &moved).await
}

/// A movement of a lot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// The lot.
    pub grant: GrantId,
    /// Why.
    pub movement: Movement,
    /// The fact.
    pub key: String,
    /// By how much, in micro-units.
    pub amount: i64,
    /// The movement that it gives back.
    pub reverses: Option<i64>,
    /// When: the instant of the posting that it follows, so that lots and accounts agree as of any instant.
    pub at: DateTime<Utc>,
}

/// Moves lots, for any number of facts.
///
/// # Errors
/// The database's.
pub async fn insert_all(transaction: &mut Transaction<'static, Postgres>, moved: &[Moved]) -> Result<(), Error> {
    if moved.is_empty() {
        return Ok(());
    }
    let grants: Vec<Uuid> = moved.iter().map(|moved| moved.grant.uuid()).collect();
    let kinds: Vec<String> = moved.iter().map(|moved| moved.movement.as_str().to_owned()).collect();
    let keys: Vec<String> = moved.iter().map(|moved| moved.key.clone()).collect();
    let amounts: Vec<i64> = moved.iter().map(|moved| moved.amount).collect();
    let reverses: Vec<Option<i64>> = moved.iter().map(|moved| moved.reverses).collect();
    let instants: Vec<DateTime<Utc>> = moved.iter().map(|moved| moved.at).collect();
    sqlx::query!(
        "insert into grant_movements (grant_id, kind, external_key, amount_micros, reverses, occurred_at)
         select grant_id, kind, key, amount, reverses, at
         from unnest((select $1::uuid[]), (select $2::text[]), (select $3::text[]), (select $4::bigint[]), (select $5::bigint[]),
           (select $6::timestamptz[])) with ordinality
           as moved (grant_id, kind, key, amount, reverses, at, place)
         order by place",
        &grants,
        &kinds,
        &keys,
        &amounts,
        &reverses as &[Option<i64>],
        &instants
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What a fact took from the lots of an organization and has not given back, in the order it was recorded.
pub async fn recorded(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    movement: Movement,
    key: &str,
) -> Result<Vec<Burned>, Error> {
    let rows = sqlx::query!(
        r#"select m.id, m.grant_id,
             (-m.amount_micros - coalesce((select sum(u.amount_micros) from grant_movements u where u.reverses = m.id), 0))::bigint as "left!"
           from grant_movements m join grants g on g.id = m.grant_id
           where m.external_key in ($1, $1 || ':late') and m.kind = $2 and g.organization_id = $3 and m.amount_micros < 0 order by m.id"#,
        key,
        movement.as_str(),
        organization.uuid()
    )
    .fetch_all(&mut **transaction)
    .await?;
    Ok(rows.into_iter().map(|row| Burned { movement: row.id, grant: GrantId::from_uuid(row.grant_id), left: row.left }).collect())
}
