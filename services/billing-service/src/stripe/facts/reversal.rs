//! Refunds and disputes, by whoever made them: we, somebody at Stripe's dashboard, or a bank.

use money::Currency;
use sqlx::{Postgres, Transaction};

use super::customer;
use crate::error::Error;
use crate::sales::{self, Reversal};
use crate::state::AppState;
use crate::stripe::object::Object;

pub(super) async fn refund(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    refund: Object<'_>,
    fetched: i64,
) -> Result<bool, Error> {
    let Some(reversal) = read(transaction, refund, fetched).await? else { return Ok(false) };
    sales::refunded(state, transaction, &reversal).await?;
    Ok(true)
}

pub(super) async fn dispute(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    dispute: Object<'_>,
    fetched: i64,
) -> Result<bool, Error> {
    let Some(reversal) = read(transaction, dispute, fetched).await? else { return Ok(false) };
    sales::disputed(state, transaction, &reversal, fees(dispute, dispute.currency()?)?).await?;
    Ok(true)
}

/// What Stripe took for it, in micro-units.
pub(in crate::stripe) fn fees(object: Object<'_>, currency: Currency) -> Result<i64, Error> {
    object.list("balance_transactions").try_fold(0_i64, |sum, movement| {
        sum.checked_add(movement.micros("fee", currency)?).ok_or(Error::Unreadable("balance_transactions"))
    })
}

/// None when it is about money of somebody who is no customer of ours. A payment that we know is ours whoever its customer is now; one of
/// a customer of ours that we do not know is on its way to us, and the event comes again.
async fn read(transaction: &mut Transaction<'static, Postgres>, object: Object<'_>, fetched: i64) -> Result<Option<Reversal>, Error> {
    let Some(payment_intent) = object.related("payment_intent") else { return Ok(None) };
    let known = sqlx::query_scalar!("select 1 from stripe_payments where payment_intent_id = $1", payment_intent);
    if known.fetch_optional(&mut **transaction).await?.is_none()
        && customer::owner(transaction, object.at("payment_intent").related("customer")).await?.is_none()
    {
        return Ok(None);
    }
    Ok(Some(Reversal {
        id: object.needs("id")?.to_owned(),
        payment_intent: payment_intent.to_owned(),
        amount_minor: object.number("amount").filter(|amount| *amount > 0).ok_or(Error::Unreadable("amount"))?,
        status: object.needs("status")?.to_owned(),
        fetched,
    }))
}
