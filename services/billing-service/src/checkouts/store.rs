//! Checkouts in the database: one that is open for each thing [B-69].

use chassis::telemetry::current_traceparent;
use chrono::{DateTime, TimeDelta, Utc};
use identity::OrganizationId;
use money::Currency;
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

use super::wish::Wish;
use crate::catalog::stored;
use crate::error::Error;
use crate::ledger::postings::Rate;
use crate::sales::ChargeRef;
use crate::state::AppState;
use crate::subscriptions::SubscriptionId;

/// A checkout.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// Its id.
    pub id: Uuid,
    /// Whose it is.
    pub organization: OrganizationId,
    /// What exactly is bought.
    pub wanted: Value,
    /// What people read on the page.
    pub description: String,
    /// In what.
    pub currency: Currency,
    /// In micro-units; zero where only a card is left.
    pub amount: i64,
    /// The credit of a pack, in micro-units.
    pub credit: i64,
    /// What the pack costs in the currency of credit, if it is sold in it.
    pub par: Option<i64>,
    /// Days after which it expires.
    pub credit_days: Option<i32>,
    /// The subscription whose first charge this is, or for which a card is left.
    pub subscription: Option<SubscriptionId>,
    /// Where a browser goes afterwards.
    pub success_url: String,
    /// Where a browser goes when nothing is bought.
    pub cancel_url: String,
    /// Stripe's session; none while it is not made.
    pub session_id: Option<String>,
    /// The page.
    pub url: Option<String>,
    /// Until when it can be used.
    pub expires_at: DateTime<Utc>,
}

/// A row of the table.
struct Row {
    id: Uuid,
    organization_id: Uuid,
    wanted: Value,
    description: String,
    currency: String,
    amount_micros: i64,
    credit_micros: i64,
    par_micros: Option<i64>,
    credit_days: Option<i32>,
    subscription_id: Option<Uuid>,
    success_url: String,
    cancel_url: String,
    session_id: Option<String>,
    url: Option<String>,
    expires_at: DateTime<Utc>,
}

impl Row {
    fn read(self) -> Result<Checkout, Error> {
        Ok(Checkout {
            id: self.id,
            organization: OrganizationId::from_uuid(self.organization_id),
            wanted: self.wanted,
            description: self.description,
            currency: stored::currency(&self.currency)?,
            amount: self.amount_micros,
            credit: self.credit_micros,
            par: self.par_micros,
            credit_days: self.credit_days,
            subscription: self.subscription_id.map(SubscriptionId::from_uuid),
            success_url: self.success_url,
            cancel_url: self.cancel_url,
            session_id: self.session_id,
            url: self.url,
            expires_at: self.expires_at,
        })
    }
}

impl Checkout {
    /// At which price the money of a pack is credit: as the pack costs in both currencies, or else for the credit it gives.
    #[must_use]
    pub fn rate(&self) -> Option<Rate> {
        let rate = Rate { money: self.amount, credit: self.par.unwrap_or(self.credit) };
        (rate.money > 0 && rate.credit > 0).then_some(rate)
    }

    /// When the credit of a pack ends that was paid now.
    #[must_use]
    pub fn credit_expires_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.credit_days.map(|days| now + TimeDelta::days(i64::from(days)))
    }

    /// The charge that it pays; none for credit.
    ///
    /// # Errors
    /// The database's.
    pub async fn charge(&self, connection: &mut PgConnection) -> Result<Option<ChargeRef>, Error> {
        let Some(subscription) = self.subscription else { return Ok(None) };
        let row = sqlx::query!(
            "select period_start, reason from subscription_charges where subscription_id = $1 and organization_id = $2 and reason = 'start'",
            subscription.uuid(),
            self.organization.uuid()
        )
        .fetch_optional(connection)
        .await?
        .ok_or(Error::Internal("a subscription that is paid has no first charge"))?;
        Ok(Some(ChargeRef { subscription, period_start: row.period_start, reason: row.reason }))
    }
}

/// Writes what is wanted. None when there is a page for the same thing already.
///
/// # Errors
/// The database's.
pub async fn insert(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    wish: &Wish,
    expires_at: DateTime<Utc>,
) -> Result<bool, Error> {
    let inserted = sqlx::query!(
        "insert into checkouts (id, organization_id, kind, item, wanted, description, currency, amount_micros, credit_micros, credit_days,
            subscription_id, success_url, cancel_url, par_micros, state, expires_at, created_at, traceparent)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'wanted', $15, $16, $17) on conflict do nothing",
        state.random.uuid_v7(&state.clock),
        organization.uuid(),
        wish.kind.as_str(),
        wish.item.as_str(),
        wish.wanted,
        wish.description,
        wish.currency.code(),
        wish.amount,
        wish.credit,
        wish.credit_days,
        wish.subscription.map(SubscriptionId::uuid),
        wish.urls.success,
        wish.urls.cancel,
        wish.par,
        expires_at,
        state.clock.now(),
        current_traceparent()
    )
    .execute(&mut **transaction)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// The pages that are open for a thing; one of each kind at most.
///
/// # Errors
/// The database's.
pub async fn open(
    connection: &mut PgConnection,
    organization: OrganizationId,
    kinds: &[&str],
    item: &str,
) -> Result<Option<Checkout>, Error> {
    let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
    let row = sqlx::query_as!(
        Row,
        "select id, organization_id, wanted, description, currency, amount_micros, credit_micros, par_micros, credit_days, subscription_id, success_url,
            cancel_url, session_id, url, expires_at
         from checkouts where organization_id = $1 and kind = any($2) and item = $3 and state in ('wanted', 'open') order by created_at limit 1",
        organization.uuid(),
        &kinds,
        item
    )
    .fetch_optional(connection)
    .await?;
    row.map(Row::read).transpose()
}

/// One checkout, locked.
///
/// # Errors
/// The database's.
pub async fn lock(transaction: &mut Transaction<'static, Postgres>, id: Uuid) -> Result<Option<Checkout>, Error> {
    let row = sqlx::query_as!(
        Row,
        "select id, organization_id, wanted, description, currency, amount_micros, credit_micros, par_micros, credit_days, subscription_id, success_url,
            cancel_url, session_id, url, expires_at
         from checkouts where id = $1 for no key update",
        id
    )
    .fetch_optional(&mut **transaction)
    .await?;
    row.map(Row::read).transpose()
}

/// The page was made. False when the checkout is over, or has another page.
///
/// # Errors
/// The database's.
pub async fn opened(state: &AppState, id: Uuid, session_id: &str, url: &str) -> Result<bool, Error> {
    let opened = sqlx::query!(
        "update checkouts set state = 'open', session_id = $2, url = $3 where id = $1 and (state = 'wanted' or state = 'open' and session_id = $2)",
        id,
        session_id,
        url
    )
    .execute(&state.pool)
    .await?;
    Ok(opened.rows_affected() == 1)
}

/// The page was paid, or its time is over. One that was paid stays so; one that was given up may yet turn out to be paid.
///
/// # Errors
/// The database's.
pub async fn end(state: &AppState, transaction: &mut Transaction<'static, Postgres>, id: Uuid, how: &'static str) -> Result<(), Error> {
    sqlx::query!("update checkouts set state = $2, ended_at = $3 where id = $1 and state not in ('paid', $2)", id, how, state.clock.now())
        .execute(&mut **transaction)
        .await?;
    Ok(())
}
