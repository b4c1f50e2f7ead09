//! What somebody wants to buy, priced. A plan begins as a subscription that waits for its first payment.

use chassis::Problem;
use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::Currency;
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};

use super::api::Urls;
use crate::catalog::domain::Expiry;
use crate::catalog::{Code, Interval, stored};
use crate::error::Error;
use crate::ledger::CREDIT;
use crate::state::AppState;
use crate::subscriptions::status::Status;
use crate::subscriptions::store::Wanted;
use crate::subscriptions::{SubscriptionId, store};

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Credit.
    CreditPack,
    /// The first charge of a plan.
    Plan,
    /// A card, with which the trial of a plan begins.
    Card,
}

impl Kind {
    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreditPack => "credit_pack",
            Self::Plan => "plan",
            Self::Card => "card",
        }
    }
}

/// Something to be bought.
#[derive(Debug)]
pub struct Wish {
    pub(super) kind: Kind,
    pub(super) item: Code,
    pub(super) wanted: Value,
    pub(super) description: String,
    pub(super) currency: Currency,
    pub(super) amount: i64,
    pub(super) credit: i64,
    /// What a pack costs in the currency of credit, if it is sold in it.
    pub(super) par: Option<i64>,
    pub(super) credit_days: Option<i32>,
    pub(super) subscription: Option<SubscriptionId>,
    pub(super) urls: Urls,
}

/// What a request for a plan is recognized by.
pub(super) fn plan_key(wanted: &Wanted) -> Value {
    json!({"plan": wanted.plan, "interval": wanted.interval, "currency": wanted.currency, "seats": wanted.seats, "coupon": wanted.coupon})
}

/// A pack that is sold in the currency, which is that of the organization's first purchase.
pub(super) async fn credit_pack(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    code: &Code,
    currency: Currency,
    urls: Urls,
) -> Result<Wish, Error> {
    let catalog = stored::current(transaction).await?;
    let pack = catalog.credit_packs.get(code).ok_or(Error::NotFound)?;
    let not_sold = || crate::subscriptions::command::Refusal::NotSold;
    let amount = *pack.prices.get(&currency).ok_or_else(not_sold)?;
    let credit = *pack.credit.get(&CREDIT).ok_or_else(not_sold)?;
    if let Some(own) = store::currency(transaction, organization).await?.filter(|own| *own != currency) {
        let rule = format!("must be {}, in which the organization pays", own.code());
        return Err(Problem::invalid_field("currency", rule).into());
    }
    let par = pack.prices.get(&CREDIT).copied();
    let credit_days = match pack.expires {
        Expiry::Days(days) => Some(i32::try_from(days).map_err(|_| Error::Internal("an expiry does not fit"))?),
        Expiry::Never | Expiry::PeriodEnd => None,
    };
    let wanted = json!({"credit_pack": code, "currency": currency, "amount_micros": amount, "credit_micros": credit});
    let description = pack.name.clone();
    Ok(Wish {
        kind: Kind::CreditPack,
        item: code.clone(),
        wanted,
        description,
        currency,
        amount,
        credit,
        par,
        credit_days,
        subscription: None,
        urls,
    })
}

/// Begins the subscription. None to pay when it is in force already: nothing is to be paid for it, and no card is needed.
pub(super) async fn plan(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    wanted: &Wanted,
    actor: &str,
    urls: Urls,
) -> Result<(store::Stored, Option<Wish>), Error> {
    let sold = stored::sold(transaction, &wanted.plan).await?;
    let begun = store::start(state, transaction, organization, wanted, actor).await?;
    let subscription = &begun.subscription;
    let kind = match subscription.status {
        Status::Incomplete if subscription.waits_for_card() => Kind::Card,
        Status::Incomplete => Kind::Plan,
        _ => return Ok((begun, None)),
    };
    let wish = Wish {
        kind,
        item: subscription.terms.group.clone(),
        wanted: plan_key(wanted),
        description: describe(&sold.plan.name, wanted),
        currency: wanted.currency,
        amount: if kind == Kind::Plan { first_charge(transaction, begun.id).await? } else { 0 },
        credit: 0,
        par: None,
        credit_days: None,
        subscription: Some(begun.id),
        urls,
    };
    Ok((begun, Some(wish)))
}

async fn first_charge(transaction: &mut Transaction<'static, Postgres>, id: SubscriptionId) -> Result<i64, Error> {
    let total =
        sqlx::query_scalar!("select total_micros from subscription_charges where subscription_id = $1 and reason = 'start'", id.uuid())
            .fetch_one(&mut **transaction)
            .await?;
    Ok(total)
}

fn describe(name: &str, wanted: &Wanted) -> String {
    let every = match wanted.interval {
        Interval::Month => "per month",
        Interval::Year => "per year",
    };
    let seats = if wanted.seats > 1 { format!(", {} seats", wanted.seats) } else { String::new() };
    let coupon = wanted.coupon.as_ref().map_or_else(String::new, |coupon| format!(", with {coupon}"));
    format!("{name} {every}{seats}{coupon}")
}

/// Until when a page can be used that is made now: as long as the first payment of a subscription may take, and within Stripe's day.
pub(super) fn expires_at(now: DateTime<Utc>) -> DateTime<Utc> {
    now + chrono::TimeDelta::hours(crate::subscriptions::state::INCOMPLETE_HOURS)
}
