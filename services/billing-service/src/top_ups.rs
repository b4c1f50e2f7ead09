//! Credit that is bought by itself when the wallet runs low: one purchase at a time, large enough to close the gap, within a cap for
//! the month, and off after enough failures [B-49].

pub mod api;
mod outcome;

use std::time::Duration;

use chassis::in_transaction;
use chassis::postgres::keep_running;
use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, Utc};
use identity::OrganizationId;
use money::Currency;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::{Postgres, Transaction};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use uuid::Uuid;

use crate::aside;
use crate::error::Error;
use crate::grants::{self, Use};
use crate::intents::{self, Intent};
use crate::leases::Unspent;
use crate::state::AppState;
use crate::subscriptions::state::{OpenCharge, Subscription};
use crate::subscriptions::status::Status;
use crate::subscriptions::store::{self, Stored};
use crate::{lanes, leases, ledger, reservations};

pub use outcome::{failed, give_up, is_obsolete, look_again, money_back, other_currency, paid};

const TASK: &str = "top-ups";
/// The pause while what is in a lease keeps the wallet above its threshold.
const PAUSE_WHILE_LEASED: TimeDelta = TimeDelta::seconds(10);
/// The pause while the credit of a plan's next period is on its way.
const PAUSE_WHILE_RENEWED: TimeDelta = TimeDelta::seconds(10);
/// How long that is waited for: a card is charged within seconds, and a debit of a bank account takes days.
const RENEWED_WITHIN: TimeDelta = TimeDelta::hours(1);
/// The pause after a purchase, whatever became of it.
const PAUSE: TimeDelta = TimeDelta::minutes(1);
/// The pause after a failure.
const PAUSE_AFTER_FAILURE: TimeDelta = TimeDelta::hours(1);
/// Failures in a row after which it is off.
const MOST_FAILURES: i32 = 3;
/// Wallets that one look adds up at most, a hundredth of a millisecond each: with this many and more that top themselves up, each is looked at
/// once in as many looks as there are pages of them.
const PAGE: i64 = 2000;
/// Wallets that are topped up at once.
const LANES: usize = 8;
/// The most that Stripe takes at once, in micro-units.
const MOST: i64 = 999_999_990_000;

/// A purchase that Stripe is to collect.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TopUp {
    /// Its id.
    pub id: Uuid,
    /// In micro-units, of credit as of money.
    pub amount_micros: i64,
    /// In what.
    pub currency: Currency,
}

/// Looks until the token is cancelled, at one page of wallets a time; without a key of Stripe's nothing can be collected, and nothing is
/// wanted.
pub async fn run_until(state: &AppState, pause: Duration, stop: &CancellationToken) {
    if state.stripe.is_none() {
        return stop.cancelled().await;
    }
    let after = Mutex::new(Uuid::nil());
    keep_running(TASK, stop, pause, || async {
        let mut after = after.lock().await;
        *after = look(state, *after).await?.unwrap_or_default();
        Ok(())
    })
    .await;
}

/// Looks at every page once.
///
/// # Errors
/// The database's, when it cannot be reached.
pub async fn sweep(state: &AppState) -> Result<(), Error> {
    let mut after = Some(Uuid::nil());
    while let Some(last) = after {
        after = look(state, last).await?;
    }
    Ok(())
}

/// Has those wallets topped up that are low, of the page of organizations after the given one; the last of the page, none when there are no more.
async fn look(state: &AppState, after: Uuid) -> Result<Option<Uuid>, Error> {
    let page = low(state, after).await?;
    lanes::each(LANES, page.low, |organization| one(state, organization)).await?;
    Ok(page.last)
}

/// Looks at a wallet that a page found low again, under its lock and with what lies in its lease. One that cannot be topped up is set aside.
async fn one(state: &AppState, organization: OrganizationId) -> Result<(), Error> {
    leases::drain(state, organization).await?;
    let leased = leases::unspent(state, organization).await?;
    let done = in_transaction!(state.pool, |transaction| { top_up(state, transaction, organization, leased).await });
    let Err(error) = &done else { return done };
    let Some(pause) = aside::pause(TASK, organization.uuid(), error) else { return done };
    let until = state.clock.now() + pause;
    in_transaction!(state.pool, |transaction| { put_off(state, transaction, organization, until).await })
}

/// Tops up a wallet that is still low, unless another replica is at it.
async fn top_up(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    leased: Option<Unspent>,
) -> Result<(), Error> {
    let now = state.clock.now();
    let set = sqlx::query!(
        "select threshold_micros, amount_micros, monthly_cap_micros from auto_top_ups t where organization_id = $1 and enabled and next_at <= $2
           and not exists (select from top_ups u where u.organization_id = t.organization_id and u.state = 'wanted')
         for no key update skip locked",
        organization.uuid(),
        now
    );
    let Some(set) = set.fetch_optional(&mut **transaction).await? else { return Ok(()) };
    let mut found = available(transaction, organization, leased.as_ref(), now).await?;
    if found.is_some_and(|available| available < set.threshold_micros) {
        // What dead processes hold is not used up [B-42].
        reservations::free_all(state, transaction, organization).await?;
        found = self::available(transaction, organization, leased.as_ref(), now).await?;
    }
    let pause = match found {
        Some(available) if available < set.threshold_micros => {
            let (threshold, amount, cap) = (set.threshold_micros, set.amount_micros, set.monthly_cap_micros);
            buy(state, transaction, organization, &Low { available, threshold, amount, cap }).await?
        }
        // What is in the lease may be used in a moment, or Redis may say what it is.
        _ => PAUSE_WHILE_LEASED,
    };
    put_off(state, transaction, organization, now + pause).await
}

/// What can be spent, with what lies in leases, in micro-units; none while Redis does not say what that is.
async fn available(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    leased: Option<&Unspent>,
    now: DateTime<Utc>,
) -> Result<Option<i64>, Error> {
    let balances = ledger::lock(transaction, organization).await?;
    let lots = grants::lots(&mut **transaction, organization, now).await?;
    let holds = grants::model_holds(&mut **transaction, organization).await?;
    let available = grants::burn::spendable(&lots, &holds, balances, Use::CHAT, now);
    // What a lease for one model keeps of credit for everything is not used up either.
    let bound = grants::burn::bound(&lots, &holds, Use::CHAT, now);
    Ok(leased.map(|unspent| available.saturating_add(unspent.all + unspent.models.min(bound))))
}

/// A wallet below its threshold, in micro-units.
struct Low {
    available: i64,
    threshold: i64,
    /// What is bought at once, at least.
    amount: i64,
    /// What is bought in a month, at most.
    cap: i64,
}

/// Has credit bought, unless a plan brings some or the month's cap is reached: for how long nobody need look again.
async fn buy(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    low: &Low,
) -> Result<TimeDelta, Error> {
    let now = state.clock.now();
    if plan_brings_credit(transaction, organization, now).await? {
        return Ok(PAUSE_WHILE_RENEWED);
    }
    let left = low.cap.saturating_sub(spent(transaction, organization, now).await?);
    let amount = size(low.threshold, low.amount, low.available, left);
    if amount > left {
        // Nothing can change before the month does, or the settings.
        return Ok(PAUSE_AFTER_FAILURE);
    }
    let span = tracing::info_span!(parent: None, "top_up", otel.name = "top up", organization.id = %organization);
    want(state, transaction, organization, amount).instrument(span).await?;
    chassis::step!("top_up.wanted");
    Ok(PAUSE)
}

/// Whom a look found.
#[derive(Debug, Default)]
struct Page {
    /// Those whose credit for everything, without that in their leases, is below their threshold.
    low: Vec<OrganizationId>,
    /// The last of those that were added up; none when the page was not full.
    last: Option<Uuid>,
}

async fn low(state: &AppState, after: Uuid) -> Result<Page, Error> {
    let looked_at = sqlx::query!(
        r#"with page as materialized (
             select t.organization_id, t.threshold_micros, row_number() over (order by t.organization_id) as place from auto_top_ups t
             where t.organization_id > $3 and t.enabled and t.next_at <= $1 order by t.organization_id limit $4)
           select p.organization_id, p.place as "place!", w.is_low as "is_low!" from page p cross join lateral (
             select (select coalesce(sum(a.balance_micros), 0) from accounts a where a.organization_id = p.organization_id and a.currency = $2 and a.kind in ('wallet', 'debt'))
                 - (select coalesce(sum(g.remaining_micros), 0) from grants g where g.organization_id = p.organization_id and g.state = 'active'
                    and (g.models is not null or g.features is not null or g.expires_at <= $1))
                 < p.threshold_micros
               and not exists (select from top_ups u where u.organization_id = p.organization_id and u.state = 'wanted') as is_low) w
           where w.is_low or p.place = $4 order by p.place"#,
        state.clock.now(),
        crate::ledger::CREDIT.code(),
        after,
        PAGE
    );
    let mut page = Page::default();
    for row in looked_at.fetch_all(&state.pool).await? {
        if row.is_low {
            page.low.push(OrganizationId::from_uuid(row.organization_id));
        }
        if row.place == PAGE {
            page.last = Some(row.organization_id);
        }
    }
    Ok(page)
}

/// As much as is set, or as much as closes the gap with one purchase, in whole smallest units; of the gap as much as is `left` of the cap,
/// as long as that is what is set at least.
fn size(threshold: i64, amount: i64, available: i64, left: i64) -> i64 {
    let gap = threshold.saturating_sub(available);
    let unit = crate::catalog::amount::minor_micros(crate::ledger::CREDIT);
    let (whole, left) = (gap.saturating_add(unit - 1) / unit * unit, left.max(0) / unit * unit);
    amount.max(whole.min(left)).min(MOST)
}

/// Whether a plan's period has just ended, and with it its credit, and that of the next one is not there yet.
async fn plan_brings_credit(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    now: DateTime<Utc>,
) -> Result<bool, Error> {
    let is_young = |since: DateTime<Utc>| (now - RENEWED_WITHIN..=now).contains(&since);
    let is_due = |of: &Subscription| of.renews() && is_young(of.period.end) && of.terms.credit_micros() > 0;
    let is_paid_soon = |charge: &OpenCharge| !charge.failed && !charge.given_up && charge.grant.is_some() && is_young(charge.period_start);
    let living = store::living(transaction, organization).await?;
    // A page that nobody has paid yet brings nothing.
    let begun = living.iter().filter(|stored| stored.subscription.status != Status::Incomplete);
    if begun.into_iter().any(|Stored { subscription, .. }| is_due(subscription) || subscription.open.iter().any(is_paid_soon)) {
        return Ok(true);
    }
    let given = sqlx::query_scalar!(
        r#"select exists (select from subscription_grants where organization_id = $1 and posted_at is null and created_at >= $2) as "given!""#,
        organization.uuid(),
        now - RENEWED_WITHIN
    );
    Ok(given.fetch_one(&mut **transaction).await?)
}

/// What was bought this month, or is about to be. What failed counts until its invoice is void at Stripe: somebody may yet pay it.
async fn spent(transaction: &mut Transaction<'static, Postgres>, organization: OrganizationId, now: DateTime<Utc>) -> Result<i64, Error> {
    let first = NaiveDate::from_ymd_opt(now.year(), now.month(), 1).unwrap_or_default().and_time(chrono::NaiveTime::MIN).and_utc();
    let spent = sqlx::query_scalar!(
        r#"select coalesce(sum(t.amount_micros), 0)::bigint as "spent!" from top_ups t where t.organization_id = $1 and t.created_at >= $2
             and (t.state <> 'failed' or exists (select from stripe_invoices i where i.organization_id = t.organization_id and i.source = 'top_up'
                                                  and i.source_id = t.id and i.status <> 'void'))"#,
        organization.uuid(),
        first
    );
    Ok(spent.fetch_one(&mut **transaction).await?)
}

async fn want(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    amount: i64,
) -> Result<(), Error> {
    let id = state.random.uuid_v7(&state.clock);
    let now = state.clock.now();
    sqlx::query!(
        "insert into top_ups (id, organization_id, amount_micros, state, created_at) values ($1, $2, $3, 'wanted', $4)",
        id,
        organization.uuid(),
        amount,
        now
    )
    .execute(&mut **transaction)
    .await?;
    let intent = Intent {
        kind: "top_up.charge",
        subject: id.to_string(),
        organization_id: Some(organization),
        idempotency_key: format!("top_up.charge-{id}"),
        payload: json!(TopUp { id, amount_micros: amount, currency: crate::ledger::CREDIT }),
    };
    intents::want(state, transaction, &intent).await
}

async fn put_off(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    until: DateTime<Utc>,
) -> Result<(), Error> {
    let now = state.clock.now();
    sqlx::query!("update auto_top_ups set next_at = $2, updated_at = $3 where organization_id = $1", organization.uuid(), until, now)
        .execute(&mut **transaction)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MOST, size};

    /// [B-49]
    #[test]
    fn one_purchase_closes_the_gap_in_whole_cents() {
        assert_eq!(size(5_000_000, 10_000_000, 4_999_999, MOST), 10_000_000);
        assert_eq!(size(5_000_000, 10_000_000, -7_000_001, MOST), 12_010_000, "a debt is part of the gap");
        assert_eq!(size(0, 1_000_000, -1, MOST), 1_000_000);
        assert_eq!(size(0, 1_000_000, -2 * MOST, i64::MAX), MOST, "the rest of the gap comes with the next one");
    }

    /// [B-49] Whose gap is larger than what is left of the month has what is left, and not nothing.
    #[test]
    fn of_a_gap_beyond_the_cap_as_much_is_bought_as_the_cap_leaves() {
        assert_eq!(size(100_000_000, 10_000_000, 0, 50_000_000), 50_000_000);
        assert_eq!(size(100_000_000, 10_000_000, 0, 10_009_999), 10_000_000, "in whole cents");
        assert_eq!(size(100_000_000, 10_000_000, 0, 9_999_999), 10_000_000, "less than what is set is not bought: it does not fit");
        assert_eq!(size(100_000_000, 10_000_000, 0, -5), 10_000_000);
    }
}
