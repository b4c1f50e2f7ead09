//! Subscriptions in the database: what the machine decided, with all its effects, in the caller's transaction.
//!
//! A row of `subscriptions` is locked before any account of the ledger, never after.

mod effects;

use chassis::Problem;
use chassis::postgres::constraint;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::Currency;
use serde_json::json;
use sqlx::{PgConnection, Postgres, Transaction};

use super::SubscriptionId;
use super::command::{AppliedCoupon, Command, Refusal};
use super::machine;
use super::redemptions;
use super::state::{Outcome, Subscription};
use super::status::Status;
use super::terms::Terms;
use crate::catalog::{Code, Interval, stored};
use crate::error::Error;
use crate::ledger::CREDIT;
use crate::state::AppState;
use crate::top_ups;

const UNREADABLE: Error = Error::Internal("a stored subscription cannot be read");

/// The field of a request that names a coupon, to begin with and later.
const AT_START: &str = "coupon";
const LATER: &str = "change.coupon";

/// What somebody wants to subscribe to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The plan.
    pub plan: Code,
    /// What to pay in.
    pub currency: Currency,
    /// How often.
    pub interval: Interval,
    /// How many seats.
    pub seats: u32,
    /// What is taken off.
    pub coupon: Option<Code>,
}

/// A subscription and its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its id.
    pub id: SubscriptionId,
    /// What it is.
    pub subscription: Subscription,
}

/// What the machine says to a wish, nothing written: also what a preview shows.
///
/// # Errors
/// [`Error::NotFound`] for what is not sold; 409 `coupon_redeemed`; what the machine refuses.
pub async fn propose(
    connection: &mut PgConnection,
    organization: OrganizationId,
    wanted: &Wanted,
    now: DateTime<Utc>,
) -> Result<Outcome, Error> {
    if currency(connection, organization).await?.is_some_and(|fixed| fixed != wanted.currency) {
        return Err(Refusal::OtherCurrency.into());
    }
    let sold = stored::sold(connection, &wanted.plan).await?;
    let terms = Terms::of(&sold, wanted.currency, wanted.interval)?;
    let coupon = match &wanted.coupon {
        Some(code) => {
            let coupon = stored::coupon(connection, code).await?;
            redemptions::check(connection, organization, code, &terms.group, AT_START).await?;
            Some(AppliedCoupon::of(code.clone(), &coupon, &wanted.plan, wanted.currency, now)?)
        }
        None => None,
    };
    // One trial for each group: a second one would be a plan for nothing. What never began was none.
    let before = sqlx::query_scalar!(
        r#"select exists (select from subscriptions s join subscription_changes c on c.subscription_id = s.id
             where s.organization_id = $1 and s.plan_group = $2 and c.status_after not in ('incomplete', 'incomplete_expired', 'canceled')) as "exists!""#,
        organization.uuid(),
        terms.group.as_str()
    )
    .fetch_one(connection)
    .await?;
    Ok(machine::start(terms, wanted.seats, !before, coupon, now)?)
}

/// Begins a subscription [B-69].
///
/// # Errors
/// 409 `subscription_exists` when the customer has a living one of the group; what [`propose`] says.
pub async fn start(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    wanted: &Wanted,
    actor: &str,
) -> Result<Stored, Error> {
    let now = state.clock.now();
    let outcome = propose(transaction, organization, wanted, now).await?;
    // A page that nobody pays binds nobody: what waits for its payment fixes the currency with it.
    if outcome.subscription.status != Status::Incomplete {
        fix_currency(state, transaction, organization, wanted.currency).await?;
    }
    let (id, subscription) = (SubscriptionId::new(&state.clock, &state.random), &outcome.subscription);
    let inserted = sqlx::query!(
        "insert into subscriptions (id, organization_id, plan_group, plan_code, plan_version, status, currency, revision, state, next_action_at,
                                    created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)",
        id.uuid(),
        organization.uuid(),
        subscription.terms.group.as_str(),
        subscription.terms.plan.as_str(),
        subscription.terms.version,
        subscription.status.as_str(),
        subscription.terms.currency.code(),
        subscription.revision,
        json!(subscription),
        subscription.next_action_at(),
        now
    )
    .execute(&mut **transaction)
    .await;
    match inserted {
        Err(error) if constraint(&error) == Some("subscriptions_one_living_in_a_group") => {
            return Err(Problem::conflict("subscription_exists", "There is a subscription of this group of plans already").into());
        }
        inserted => inserted?,
    };
    chassis::step!("subscription.stored");
    if let Some(code) = &wanted.coupon {
        redemptions::redeem(state, transaction, organization, id, code, AT_START).await?;
    }
    let command = json!({"kind": "start", "coupon": wanted.coupon});
    effects::record(state, transaction, organization, id, actor, &command, None, &outcome).await?;
    Ok(Stored { id, subscription: outcome.subscription })
}

/// Decides a command and writes what was decided.
///
/// # Errors
/// [`Error::NotFound`] when the organization has no such subscription; 409 `coupon_redeemed`; what the machine refuses.
pub async fn apply(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: SubscriptionId,
    command: &Command,
    actor: &str,
) -> Result<Stored, Error> {
    let before = locked(transaction, organization, id).await?;
    if let Command::ApplyCoupon { coupon } = command {
        redemptions::check(transaction, organization, &coupon.code, &before.terms.group, LATER).await?;
    }
    let outcome = machine::decide(&before, command, state.clock.now())?;
    if outcome.subscription == before {
        return Ok(Stored { id, subscription: before });
    }
    write(state, transaction, id, &before, &outcome.subscription).await?;
    chassis::step!("subscription.written");
    // As when it begins without a card: from now on it is in force.
    if matches!(command, Command::BeginTrial) {
        fix_currency(state, transaction, organization, before.terms.currency).await?;
    }
    if let Command::ApplyCoupon { coupon } = command {
        redemptions::redeem(state, transaction, organization, id, &coupon.code, LATER).await?;
    }
    if before.status == Status::Incomplete && outcome.subscription.status.is_terminal() {
        redemptions::release(transaction, organization, id).await?;
    }
    effects::record(state, transaction, organization, id, actor, &json!(command), Some(before.status), &outcome).await?;
    Ok(Stored { id, subscription: outcome.subscription })
}

/// A subscription of an organization, locked until the transaction ends.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn locked(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    id: SubscriptionId,
) -> Result<Subscription, Error> {
    let row = sqlx::query!(
        "select state from subscriptions where organization_id = $1 and id = $2 for no key update",
        organization.uuid(),
        id.uuid()
    )
    .fetch_optional(&mut **transaction)
    .await?
    .ok_or(Error::NotFound)?;
    read(row.state)
}

async fn write(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    id: SubscriptionId,
    before: &Subscription,
    after: &Subscription,
) -> Result<(), Error> {
    let written = sqlx::query!(
        "update subscriptions set plan_group = $3, plan_code = $4, plan_version = $5, status = $6, revision = $7, state = $8, next_action_at = $9,
                updated_at = $10
         where id = $1 and revision = $2",
        id.uuid(),
        before.revision,
        after.terms.group.as_str(),
        after.terms.plan.as_str(),
        after.terms.version,
        after.status.as_str(),
        after.revision,
        json!(after),
        after.next_action_at(),
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if written.rows_affected() == 1 { Ok(()) } else { Err(Error::Internal("a locked subscription was changed by somebody else")) }
}

/// The living subscriptions of an organization, oldest first.
///
/// # Errors
/// The database's.
pub async fn living(connection: &mut PgConnection, organization: OrganizationId) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query!(
        "select id, state from subscriptions where organization_id = $1 and status not in ('canceled', 'incomplete_expired') order by created_at, id",
        organization.uuid()
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(|row| Ok(Stored { id: SubscriptionId::from_uuid(row.id), subscription: read(row.state)? })).collect()
}

/// The newest subscriptions of an organization, also those that are over.
///
/// # Errors
/// The database's.
pub async fn newest(connection: &mut PgConnection, organization: OrganizationId) -> Result<Vec<Stored>, Error> {
    let rows = sqlx::query!(
        "select id, state from subscriptions where organization_id = $1 order by created_at desc, id desc limit 100",
        organization.uuid()
    );
    let rows = rows.fetch_all(connection).await?.into_iter();
    rows.map(|row| Ok(Stored { id: SubscriptionId::from_uuid(row.id), subscription: read(row.state)? })).collect()
}

/// One subscription of an organization.
///
/// # Errors
/// [`Error::NotFound`]; the database's.
pub async fn find(connection: &mut PgConnection, organization: OrganizationId, id: SubscriptionId) -> Result<Subscription, Error> {
    let row = sqlx::query!("select state from subscriptions where organization_id = $1 and id = $2", organization.uuid(), id.uuid())
        .fetch_optional(connection)
        .await?
        .ok_or(Error::NotFound)?;
    read(row.state)
}

/// The currency the customer pays in, once there was a purchase.
///
/// # Errors
/// The database's.
pub async fn currency(connection: &mut PgConnection, organization: OrganizationId) -> Result<Option<Currency>, Error> {
    let row = sqlx::query_scalar!("select currency from billing_currencies where organization_id = $1", organization.uuid())
        .fetch_optional(connection)
        .await?;
    row.map(|text| stored::currency(&text)).transpose()
}

/// Makes this the customer's currency, unless there is one.
///
/// # Errors
/// The database's.
pub async fn fix_currency(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    currency: Currency,
) -> Result<(), Error> {
    let fixed = sqlx::query!(
        "insert into billing_currencies (organization_id, currency, created_at) values ($1, $2, $3) on conflict do nothing",
        organization.uuid(),
        currency.code(),
        state.clock.now()
    )
    .execute(&mut **transaction)
    .await?;
    if fixed.rows_affected() == 1 && currency != CREDIT {
        top_ups::other_currency(state, transaction, organization, currency).await?;
    }
    Ok(())
}

pub(super) fn read(state: serde_json::Value) -> Result<Subscription, Error> {
    serde_json::from_value(state).map_err(|_| UNREADABLE)
}

/// What the calendar says to a subscription that is due.
#[must_use]
pub(super) fn due_command(subscription: &Subscription, now: DateTime<Utc>) -> Option<Command> {
    match subscription.status {
        Status::Incomplete => Some(Command::Expire),
        Status::Trialing | Status::Active => Some(Command::Renew),
        Status::PastDue if subscription.cancel_at_period_end && now >= subscription.period.end => Some(Command::Renew),
        Status::PastDue => Some(Command::GraceOver),
        Status::Unpaid | Status::Paused | Status::IncompleteExpired | Status::Canceled => None,
    }
}
