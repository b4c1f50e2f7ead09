//! Refunds and disputes, by whoever made them: we, somebody at Stripe's dashboard, or a bank.

use sqlx::{Postgres, Transaction};

use super::turn::Turn;
use crate::error::Error;
use crate::ledger::postings::Fee;
use crate::sales::{self, Reversal};
use crate::state::AppState;
use crate::stripe::object::Object;

pub(super) async fn refund(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    refund: Object<'_>,
    fetched: i64,
    turn: &Turn,
) -> Result<bool, Error> {
    let Some(reversal) = read(refund, fetched, turn)? else { return Ok(false) };
    sales::refunded(state, transaction, &reversal).await?;
    Ok(true)
}

pub(super) async fn dispute(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    dispute: Object<'_>,
    fetched: i64,
    turn: &Turn,
) -> Result<bool, Error> {
    let Some(reversal) = read(dispute, fetched, turn)? else { return Ok(false) };
    sales::disputed(state, transaction, &reversal, fee(dispute)?).await?;
    Ok(true)
}

/// What Stripe took for it. The movements of its balance are in the currency in which it settles with us, whatever that of the payment is;
/// none when there are none, and a fee that is in two currencies cannot be read.
pub(in crate::stripe) fn fee(object: Object<'_>) -> Result<Option<Fee>, Error> {
    let unreadable = || Error::Unreadable("balance_transactions");
    let movements = object.list("balance_transactions").filter(|movement| movement.number("fee").is_some_and(|fee| fee != 0));
    movements.into_iter().try_fold(None, |sum: Option<Fee>, movement| {
        let currency = movement.currency()?;
        let sum = sum.unwrap_or(Fee { currency, amount: 0 });
        let amount = sum.amount.checked_add(movement.micros("fee", currency)?).filter(|_| currency == sum.currency);
        Ok(Some(Fee { currency, amount: amount.ok_or_else(unreadable)? }))
    })
}

/// None when it is about money of somebody who is no customer of ours. A payment that we know is ours whoever its customer is now; one of
/// a customer of ours that we do not know is on its way to us, and the event comes again.
fn read(object: Object<'_>, fetched: i64, turn: &Turn) -> Result<Option<Reversal>, Error> {
    let Some(payment_intent) = object.related("payment_intent").filter(|_| turn.is_ours) else { return Ok(None) };
    Ok(Some(Reversal {
        id: object.needs("id")?.to_owned(),
        payment_intent: payment_intent.to_owned(),
        amount_minor: object.number("amount").filter(|amount| *amount > 0).ok_or(Error::Unreadable("amount"))?,
        received_minor: object.at("payment_intent").number("amount_received"),
        status: object.needs("status")?.to_owned(),
        fetched,
    }))
}

#[cfg(test)]
mod tests {
    use money::Currency;
    use serde_json::{Value, json};

    use super::*;

    /// [B-48]
    #[test]
    fn a_fee_is_in_the_currency_of_the_movements_and_not_in_that_of_the_dispute() {
        let movement = |currency: &str, fee: i64| json!({"currency": currency, "fee": fee});
        let dispute = |movements: &[Value]| json!({"currency": "jpy", "balance_transactions": movements});
        let fee_of = |movements: &[Value]| fee(Object(&dispute(movements)));
        let usd = |amount: i64| Some(Fee { currency: Currency::USD, amount });
        assert_eq!(fee_of(&[]).unwrap(), None);
        assert_eq!(fee_of(&[movement("usd", 1500), movement("usd", 0)]).unwrap(), usd(15_000_000));
        assert_eq!(fee_of(&[movement("usd", 1500), movement("usd", -500)]).unwrap(), usd(10_000_000));
        assert!(matches!(fee_of(&[movement("usd", 1500), movement("eur", 1)]), Err(Error::Unreadable("balance_transactions"))));
        assert!(matches!(fee_of(&[json!({"fee": 1500})]), Err(Error::Unreadable("currency"))));
    }
}
