//! What becomes of a top-up that was wanted, and what switches them off.

use chrono::{DateTime, TimeDelta, Utc};
use identity::OrganizationId;
use money::Currency;
use serde_json::{Value, json};
use sqlx::postgres::types::PgInterval;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{MOST_FAILURES, PAUSE_AFTER_FAILURE};
use crate::budgets::webhooks::deliveries;
use crate::error::Error;
use crate::intents::{self, Intent};
use crate::sales::{self, Payment};
use crate::state::AppState;

/// How long it may be tried to collect one.
const STALE: TimeDelta = TimeDelta::hours(1);
/// What a customer is told of.
const OFF: &str = "auto_top_up.disabled";

/// It was paid: the credit is there. False when that is known already.
///
/// # Errors
/// The database's.
pub async fn paid(state: &AppState, transaction: &mut Transaction<'static, Postgres>, payment: &Payment) -> Result<bool, Error> {
    let (id, organization, now) = (payment.by_id, payment.organization.uuid(), state.clock.now());
    sqlx::query!("update auto_top_ups set failures = 0, updated_at = $2 where organization_id = $1", organization, now)
        .execute(&mut **transaction)
        .await?;
    sqlx::query!(
        "update top_ups set state = 'paid', ended_at = $3 where id = $1 and organization_id = $2 and state <> 'paid'",
        id,
        organization,
        now
    )
    .execute(&mut **transaction)
    .await?;
    sales::of_credit(state, transaction, payment, (payment.amount, None), None).await
}

/// It could not be collected, and its invoice is `open` if it is not void already. After enough of them in a row it is off, and the customer
/// is told.
///
/// # Errors
/// The database's.
pub async fn failed(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: Uuid,
    open: Option<&str>,
) -> Result<(), Error> {
    let now = state.clock.now();
    let failures = failures(transaction, organization).await?;
    if !end(transaction, organization, id, now, false).await? {
        return Ok(());
    }
    // Nobody tries it again behind our back: the next one is a purchase of its own.
    if let Some(invoice) = open {
        void(state, transaction, organization, id, invoice).await?;
    }
    let off = failures + 1 >= MOST_FAILURES;
    sqlx::query!(
        "update auto_top_ups set failures = failures + 1, enabled = enabled and not $2, next_at = $3, updated_at = $4 where organization_id = $1",
        organization.uuid(),
        off,
        now + PAUSE_AFTER_FAILURE,
        now
    )
    .execute(&mut **transaction)
    .await?;
    if !off {
        return Ok(());
    }
    metrics::counter!("billing_auto_top_ups_disabled_total").increment(1);
    tracing::warn!(organization.id = %organization, "automatic top-up is off after too many failures");
    let payload = json!({"type": OFF, "timestamp": now, "data": {"top_up_id": id, "failures": failures + 1}});
    deliveries::enqueue(state, transaction, organization, &format!("{OFF}-{id}"), OFF, &payload).await
}

/// Whether nobody wants it any more: it failed, or was switched off, or could not be asked for so long that the wallet may be full again.
///
/// # Errors
/// The database's.
pub async fn is_obsolete(state: &AppState, id: Uuid) -> Result<bool, Error> {
    let obsolete = sqlx::query_scalar!(
        r#"select (t.state = 'failed' or t.state = 'wanted' and (t.created_at < $2 or not coalesce(s.enabled, false))) as "obsolete!"
           from top_ups t left join auto_top_ups s on s.organization_id = t.organization_id where t.id = $1"#,
        id,
        state.clock.now() - STALE
    );
    Ok(obsolete.fetch_optional(&state.pool).await?.unwrap_or_default())
}

/// It is not collected any more, which is no failure of anybody's. Nothing else is bought before what was made of it is taken away: it may be
/// paid, and we not told yet.
///
/// # Errors
/// The database's.
pub async fn give_up(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: Uuid,
) -> Result<(), Error> {
    let now = state.clock.now();
    failures(transaction, organization).await?;
    if !end(transaction, organization, id, now, true).await? {
        return Ok(());
    }
    sqlx::query!(
        "update auto_top_ups set next_at = $2, updated_at = $3 where organization_id = $1",
        organization.uuid(),
        now + PAUSE_AFTER_FAILURE,
        now
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Nothing of one that was given up is left, and nothing of it was paid: the pause ends that began with that, and the wallet is looked at
/// again.
///
/// # Errors
/// The database's.
pub async fn look_again(state: &AppState, organization: OrganizationId, id: Uuid) -> Result<(), Error> {
    sqlx::query!(
        "update auto_top_ups s set next_at = $3 from top_ups t
         where s.organization_id = $1 and t.organization_id = $1 and t.id = $2 and t.given_up and s.next_at > $3 and s.next_at <= t.ended_at + $4",
        organization.uuid(),
        id,
        state.clock.now(),
        PgInterval::try_from(PAUSE_AFTER_FAILURE).map_err(|_| Error::Internal("a pause does not fit"))?
    )
    .execute(&state.pool)
    .await?;
    Ok(())
}

/// How many failed in a row. Locked, before what ends one: in the order of locks of all that does.
async fn failures(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId) -> Result<i32, Error> {
    let setting =
        sqlx::query_scalar!("select failures from auto_top_ups where organization_id = $1 for no key update", organization.uuid());
    Ok(setting.fetch_optional(&mut **transaction).await?.unwrap_or_default())
}

/// It was not paid; false when it has ended already.
async fn end(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: Uuid,
    now: DateTime<Utc>,
    given_up: bool,
) -> Result<bool, Error> {
    let ended = sqlx::query!(
        "update top_ups set state = 'failed', ended_at = $3, given_up = $4 where id = $1 and organization_id = $2 and state = 'wanted'",
        id,
        organization.uuid(),
        now,
        given_up
    );
    Ok(ended.execute(&mut **transaction).await?.rows_affected() == 1)
}

/// The organization pays in another currency from now on: what was set is off, and the customer is told.
///
/// # Errors
/// The database's.
pub async fn other_currency(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    currency: Currency,
) -> Result<(), Error> {
    switch_off(state, transaction, organization, &format!("{organization}-{currency}"), json!({"currency": currency})).await
}

/// Money of the organization's went back, or a bank asks for it: the credit that went with it is not bought again from the same card. What was
/// set is off, and the customer is told. `reversal` is Stripe's id of the refund or dispute.
///
/// # Errors
/// The database's.
pub async fn money_back(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    reversal: &str,
) -> Result<(), Error> {
    switch_off(state, transaction, organization, reversal, json!({"reversal_id": reversal})).await
}

async fn switch_off(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    over: &str,
    data: Value,
) -> Result<(), Error> {
    let now = state.clock.now();
    let off = sqlx::query!(
        "update auto_top_ups set enabled = false, updated_at = $2 where organization_id = $1 and enabled",
        organization.uuid(),
        now
    );
    if off.execute(&mut **transaction).await?.rows_affected() == 0 {
        return Ok(());
    }
    let payload = json!({"type": OFF, "timestamp": now, "data": data});
    deliveries::enqueue(state, transaction, organization, &format!("{OFF}-{over}"), OFF, &payload).await
}

async fn void(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: Uuid,
    invoice: &str,
) -> Result<(), Error> {
    let intent = Intent {
        kind: "top_up.void",
        subject: invoice.to_owned(),
        organization_id: Some(organization),
        idempotency_key: format!("top_up.void-{id}"),
        payload: json!({"invoice": invoice}),
    };
    intents::want(state, transaction, &intent).await
}
