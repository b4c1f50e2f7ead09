//! The SQL of leases. The lock order of all: the organization's accounts, then its leases by their ids.

use chrono::{DateTime, TimeDelta, Utc};
use contracts::LeaseId;
use identity::OrganizationId;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::error::Error;
use crate::grants::{self, Use};
use crate::ledger::{self, Balances, postings};
use crate::state::AppState;

/// A lease that can be filled, or that ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLease {
    /// Its id.
    pub id: LeaseId,
    /// Whose.
    pub organization_id: OrganizationId,
    /// The model whose requests alone are paid from it; none for all.
    pub model: Option<String>,
    /// Which of the organization's.
    pub epoch: i64,
    /// The data of Redis it was opened on.
    pub instance: String,
    /// `opening`, `open`, `closing`, `draining` (what is held is in flight), `lost` (what is held may be anything) or `closed`.
    pub state: String,
    /// All that was put into it.
    pub funded: i64,
    /// What of it is still held.
    pub held: i64,
    /// How often it was filled.
    pub fundings: i32,
    /// What it was filled with the last time is four times this.
    pub low: i64,
    /// When it was filled the last time.
    pub funded_at: DateTime<Utc>,
    /// When it ends unless it is filled again: nothing is admitted on it from then on.
    pub deadline: DateTime<Utc>,
    /// When nothing of it can be in flight any more; none before its end.
    pub drained_at: Option<DateTime<Utc>>,
}

impl StoredLease {
    /// Whether it can be filled.
    #[must_use]
    pub fn is_active(&self) -> bool {
        matches!(self.state.as_str(), "opening" | "open")
    }

    /// Whether what it still holds is nobody's any more.
    #[must_use]
    pub fn is_drained(&self, now: DateTime<Utc>) -> bool {
        matches!(self.state.as_str(), "draining" | "lost") && self.held > 0 && self.drained_at.is_some_and(|at| at <= now)
    }
}

macro_rules! lease {
    ($row:expr) => {{
        let row = $row;
        StoredLease {
            id: LeaseId::from_uuid(row.id),
            organization_id: OrganizationId::from_uuid(row.organization_id),
            model: row.model,
            epoch: row.epoch,
            instance: row.instance,
            state: row.state,
            funded: row.funded_micros,
            held: row.held_micros,
            fundings: row.fundings,
            low: row.low_micros,
            funded_at: row.funded_at,
            deadline: row.deadline,
            drained_at: row.drained_at,
        }
    }};
}

/// The leases of an organization that are not closed, locked, the newest first. Its accounts must be locked already.
pub async fn unfinished(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<Vec<StoredLease>, Error> {
    let rows = sqlx::query!(
        "select id, organization_id, model, epoch, instance, state, funded_micros, held_micros, fundings, low_micros, funded_at, deadline, drained_at
         from leases where organization_id = $1 and state <> 'closed' order by id for no key update",
        organization.uuid()
    )
    .fetch_all(&mut **transaction)
    .await?;
    let mut leases: Vec<StoredLease> = rows.into_iter().map(|row| lease!(row)).collect();
    leases.sort_by_key(|lease| std::cmp::Reverse(lease.epoch));
    Ok(leases)
}

/// A lease, locked after the accounts of its organization.
pub async fn find(transaction: &mut Transaction<'static, Postgres>, id: LeaseId) -> Result<Option<(StoredLease, Balances)>, Error> {
    let owner =
        sqlx::query_scalar!("select organization_id from leases where id = $1", id.uuid()).fetch_optional(&mut **transaction).await?;
    let Some(owner) = owner else { return Ok(None) };
    let balances = ledger::lock(transaction, OrganizationId::from_uuid(owner)).await?;
    let row = sqlx::query!(
        "select id, organization_id, model, epoch, instance, state, funded_micros, held_micros, fundings, low_micros, funded_at, deadline, drained_at
         from leases where id = $1 for no key update",
        id.uuid()
    )
    .fetch_one(&mut **transaction)
    .await?;
    Ok(Some((lease!(row), balances)))
}

/// Opens a lease, with its first hold: for all requests, or for those of one model.
pub async fn open(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    (organization, model): (OrganizationId, Option<&str>),
    (amount, until): (i64, Option<DateTime<Utc>>),
    instance: &str,
) -> Result<StoredLease, Error> {
    let now = state.clock.now();
    let id = LeaseId::new(&state.clock, &state.random);
    let epoch = sqlx::query_scalar!(
        r#"insert into leases (id, organization_id, model, currency, epoch, instance, state, funded_micros, held_micros, fundings, low_micros,
             opened_at, funded_at, deadline)
           select $1, $2, $9, $3, coalesce(max(epoch), 0) + 1, $4, 'opening', $5, $5, 1, $6, $7, $7, $8 from leases where organization_id = $2
           returning epoch"#,
        id.uuid(),
        organization.uuid(),
        crate::ledger::CREDIT.code(),
        instance,
        amount,
        super::sizing::low(amount),
        now,
        deadline(state, now, until),
        model
    )
    .fetch_one(&mut **transaction)
    .await?;
    let posting = postings::lease(format!("{id}:1"), amount, now);
    ledger::post(state, transaction, Some(organization), crate::ledger::CREDIT, &posting).await?;
    Ok(StoredLease {
        id,
        organization_id: organization,
        model: model.map(str::to_owned),
        epoch,
        instance: instance.to_owned(),
        state: "opening".into(),
        funded: amount,
        held: amount,
        fundings: 1,
        low: super::sizing::low(amount),
        funded_at: now,
        deadline: deadline(state, now, until),
        drained_at: None,
    })
}

/// Puts more into a lease.
pub async fn add(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    lease: StoredLease,
    amount: i64,
    until: Option<DateTime<Utc>>,
) -> Result<StoredLease, Error> {
    let now = state.clock.now();
    let lease = StoredLease {
        funded: lease.funded.checked_add(amount).ok_or(Error::Internal("a lease overflows"))?,
        held: lease.held + amount,
        fundings: lease.fundings + 1,
        low: super::sizing::low(amount),
        funded_at: now,
        deadline: deadline(state, now, until),
        ..lease
    };
    sqlx::query!(
        "update leases set funded_micros = $2, held_micros = $3, fundings = $4, low_micros = $5, funded_at = $6, deadline = $7 where id = $1",
        lease.id.uuid(),
        lease.funded,
        lease.held,
        lease.fundings,
        lease.low,
        now,
        lease.deadline
    )
    .execute(&mut **transaction)
    .await?;
    let posting = postings::lease(format!("{}:{}", lease.id, lease.fundings), amount, now);
    ledger::post(state, transaction, Some(lease.organization_id), crate::ledger::CREDIT, &posting).await?;
    Ok(lease)
}

/// No later than the next expiry of credit: what expired must not be spent from a lease [B-46].
fn deadline(state: &AppState, now: DateTime<Utc>, until: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let end = now + TimeDelta::from_std(state.config.lease.life.0).unwrap_or(TimeDelta::MAX);
    until.map_or(end, |until| until.min(end))
}

/// Has a lease come after all that Redis has, if that is not too late for it: while it is `opening` nothing was taken from it. `later` is the epoch
/// of one that Redis has. Hold and id stay, so that a funding which is under way is for the same lease still. The state of the lease; none when it
/// does not exist, or comes after the other one already.
///
/// # Errors
/// The database's.
pub async fn rise(transaction: &mut Transaction<'static, Postgres>, id: LeaseId, later: i64) -> Result<Option<String>, Error> {
    let found = find(transaction, id).await?.map(|(lease, _)| lease);
    // Somebody else may have been told of the other one too.
    let Some(lease) = found.filter(|lease| lease.epoch <= later) else { return Ok(None) };
    if lease.state == "opening" {
        tracing::warn!(lease.id = %id, epoch = lease.epoch, later, "Redis has later leases than the database, which was restored: the next one comes after them");
        sqlx::query!(
            "update leases set epoch = (select greatest(max(epoch), $2) + 1 from leases where organization_id = $3) where id = $1",
            id.uuid(),
            later,
            lease.organization_id.uuid()
        )
        .execute(&mut **transaction)
        .await?;
    }
    Ok(Some(lease.state))
}

/// Notes that Redis has it.
pub async fn opened(state: &AppState, id: LeaseId) -> Result<(), Error> {
    sqlx::query!("update leases set state = 'open' where id = $1 and state = 'opening'", id.uuid()).execute(&state.pool).await?;
    Ok(())
}

/// Begins its end: it cannot be filled any more.
pub async fn closing(transaction: &mut Transaction<'static, Postgres>, id: LeaseId) -> Result<(), Error> {
    sqlx::query!("update leases set state = 'closing', next_at = null where id = $1", id.uuid()).execute(&mut **transaction).await?;
    Ok(())
}

/// Has a lease ended by the next sweep.
pub async fn end_early(state: &AppState, id: LeaseId) -> Result<(), Error> {
    sqlx::query!("update leases set state = 'closing', next_at = null where id = $1 and state in ('opening', 'open')", id.uuid())
        .execute(&state.pool)
        .await?;
    Ok(())
}

/// Whether money of an organization is bound in leases that Redis has lost.
pub async fn is_any_lost(state: &AppState, organization: OrganizationId) -> Result<bool, Error> {
    let lost = sqlx::query_scalar!(
        r#"select exists (select from leases where organization_id = $1 and state = 'lost' and held_micros > 0) as "lost!""#,
        organization.uuid()
    );
    Ok(lost.fetch_one(&state.pool).await?)
}

/// Gives back a part, and notes what it waits for in the next state: nothing, when nothing is held any more. Each state gives back once.
pub async fn give_back(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    (lease, balances): (&StoredLease, Balances),
    amount: i64,
    (next, drained_at): (&str, DateTime<Utc>),
) -> Result<(), Error> {
    let now = state.clock.now();
    // Nothing of it can be in flight any more: what it holds belongs to nobody, and a closed lease holds nothing.
    let amount = if drained_at <= now { lease.held } else { amount.clamp(0, lease.held) };
    let held = lease.held - amount;
    let over = held == 0;
    if amount > 0 {
        let posting = postings::lease_return(format!("{}:{}", lease.id, lease.state), amount, balances, now);
        ledger::post(state, transaction, Some(lease.organization_id), crate::ledger::CREDIT, &posting).await?;
        // What repays debt is paid by lots.
        grants::follow(state, transaction, lease.organization_id, &posting, Use::ANYTHING, now).await?;
    }
    sqlx::query!(
        "update leases set state = $2, held_micros = $3, drained_at = $4, closed_at = $5, next_at = null where id = $1",
        lease.id.uuid(),
        if over { "closed" } else { next },
        held,
        drained_at,
        over.then_some(now)
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// What a lease still holds, while settlements are posted against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseHold {
    /// Whose it is.
    pub organization_id: OrganizationId,
    /// The amount, in micro-units.
    pub held: i64,
}

/// Locks leases, after the accounts of their organizations.
///
/// # Errors
/// The database's.
pub async fn lock_holds(transaction: &mut Transaction<'static, Postgres>, ids: &[Uuid]) -> Result<Vec<(LeaseId, LeaseHold)>, Error> {
    let rows = sqlx::query!(
        "select id, organization_id, held_micros from leases where id = any((select $1::uuid[])::uuid[]) order by id for no key update",
        ids
    )
    .fetch_all(&mut **transaction)
    .await?;
    let hold = |organization, held| LeaseHold { organization_id: OrganizationId::from_uuid(organization), held };
    Ok(rows.into_iter().map(|row| (LeaseId::from_uuid(row.id), hold(row.organization_id, row.held_micros))).collect())
}

/// Writes what leases hold now.
///
/// # Errors
/// The database's.
pub async fn update_holds(transaction: &mut Transaction<'static, Postgres>, holds: &[(LeaseId, LeaseHold)]) -> Result<(), Error> {
    let (ids, held): (Vec<Uuid>, Vec<i64>) = holds.iter().map(|(id, hold)| (id.uuid(), hold.held)).unzip();
    sqlx::query!(
        "update leases set held_micros = moved.held from unnest((select $1::uuid[]), (select $2::bigint[])) as moved (id, held)
         where leases.id = moved.id",
        &ids,
        &held
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
