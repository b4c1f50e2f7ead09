//! A credit note: mirrored as it is. What of it went to the customer's balance is owed by the house from then on, once; what of it went back
//! to a card is a refund, which has its own events; and what made an open invoice cheaper is read with the invoice.

use identity::OrganizationId;
use money::Currency;
use sqlx::{Postgres, Transaction};

use super::turn::Turn;
use crate::error::Error;
use crate::ledger::{self, postings};
use crate::state::AppState;
use crate::stripe::object::Object;

/// The amounts of a credit note, in micro-units, with tax.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::stripe) struct Amounts {
    /// In all.
    pub(in crate::stripe) amount: i64,
    /// What made an open invoice cheaper.
    reduced: i64,
    /// What went to the customer's balance.
    pub(in crate::stripe) balance: i64,
    /// What went back to a card.
    refunded: i64,
    /// What was settled elsewhere.
    elsewhere: i64,
}

impl Amounts {
    /// Of a credit note whose `customer_balance_transaction` is expanded.
    pub(in crate::stripe) fn of(note: Object<'_>, currency: Currency) -> Result<Self, Error> {
        const MOVED: &str = "customer_balance_transaction";
        let moved = note.at(MOVED);
        // Only its id: how much it was is not known, and is not nothing.
        if note.related(MOVED).is_some() && moved.number("amount").is_none() {
            return Err(Error::Unreadable(MOVED));
        }
        let refunds = note.list("refunds").try_fold(0_i64, |sum, refund| {
            sum.checked_add(refund.micros("amount_refunded", currency)?).ok_or(Error::Unreadable("refunds"))
        });
        Ok(Self {
            amount: note.micros("amount", currency)?,
            reduced: note.micros("pre_payment_amount", currency)?,
            // Credit is below zero at Stripe.
            balance: moved.micros("amount", currency)?.checked_neg().ok_or(Error::Unreadable(MOVED))?,
            refunded: refunds?,
            elsewhere: note.micros("out_of_band_amount", currency)?,
        })
    }
}

pub(super) async fn apply(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    note: Object<'_>,
    fetched: i64,
    turn: &Turn,
) -> Result<bool, Error> {
    let Some(organization) = turn.owner else { return Ok(false) };
    let currency = note.currency()?;
    let amounts = Amounts::of(note, currency)?;
    mirror(transaction, organization, note, currency, amounts, fetched).await?;
    if amounts.balance != 0 {
        let posting = postings::credit_note(note.needs("id")?, amounts.balance, state.clock.now());
        ledger::post(state, transaction, Some(organization), currency, &posting).await?;
    }
    Ok(true)
}

/// Writes the credit note as it was seen, unless a later look has written it already [B-17].
async fn mirror(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    note: Object<'_>,
    currency: Currency,
    amounts: Amounts,
    fetched: i64,
) -> Result<(), Error> {
    sqlx::query!(
        "insert into stripe_credit_notes as n (credit_note_id, organization_id, invoice_id, number, status, reason, memo, currency, amount_micros,
            reduced_micros, balance_micros, refunded_micros, elsewhere_micros, pdf_url, fetched, created_at, voided_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
         on conflict (credit_note_id) do update set number = excluded.number, status = excluded.status, reason = excluded.reason, memo = excluded.memo,
            amount_micros = excluded.amount_micros, reduced_micros = excluded.reduced_micros, balance_micros = excluded.balance_micros,
            refunded_micros = excluded.refunded_micros, elsewhere_micros = excluded.elsewhere_micros, pdf_url = excluded.pdf_url,
            fetched = excluded.fetched, voided_at = excluded.voided_at
         where n.fetched < excluded.fetched",
        note.needs("id")?,
        organization.uuid(),
        note.related("invoice").ok_or(Error::Unreadable("invoice"))?,
        note.text("number"),
        note.needs("status")?,
        note.text("reason"),
        note.text("memo"),
        currency.code(),
        amounts.amount,
        amounts.reduced,
        amounts.balance,
        amounts.refunded,
        amounts.elsewhere,
        note.text("pdf"),
        fetched,
        note.time("created").ok_or(Error::Unreadable("created"))?,
        note.time("voided_at")
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// [B-20] [B28] A field that is absent is nothing; a move of the balance that is not told is not taken for none.
    #[test]
    fn the_parts_of_a_credit_note_are_read_and_what_is_not_told_is_said_to_be_unreadable() {
        let mut note = json!({"amount": 600, "customer_balance_transaction": {"id": "cbtxn_1", "amount": -200},
            "refunds": [{"amount_refunded": 250}, {"amount_refunded": 50}], "out_of_band_amount": 100});
        let read = |note: &serde_json::Value| Amounts::of(Object(note), Currency::USD);
        let cents = |cents: i64| cents * 10_000;
        let expected = Amounts { amount: cents(600), reduced: 0, balance: cents(200), refunded: cents(300), elsewhere: cents(100) };
        assert_eq!(read(&note).unwrap(), expected);
        note["customer_balance_transaction"] = serde_json::Value::Null;
        assert_eq!(read(&note).unwrap(), Amounts { balance: 0, ..expected });
        note["customer_balance_transaction"] = "cbtxn_1".into();
        assert!(matches!(read(&note), Err(Error::Unreadable("customer_balance_transaction"))));
    }
}
