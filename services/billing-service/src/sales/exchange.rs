//! At which price money in another currency is credit: at the catalogue's own.

use super::Payment;
use crate::error::Error;
use crate::ledger::CREDIT;
use crate::ledger::postings::{Rate, Sale};

/// What was sold for a payment. Without credit nothing is exchanged: what was paid is earned in its own currency.
///
/// # Errors
/// [`Error::Internal`] when there is no price to exchange at, of something that costs nothing in the currency it was paid in.
pub(super) fn sale(payment: &Payment, credit: i64, rate: Option<Rate>) -> Result<Sale, Error> {
    if payment.currency == CREDIT || credit == 0 {
        return Ok(Sale { balance: payment.balance, ..Sale::of(payment.amount, credit) });
    }
    let rate = rate.ok_or(Error::Internal("money that was paid for credit has no rate"))?;
    Ok(Sale { balance: payment.balance, ..Sale::exchanged(payment.amount, credit, payment.currency, rate) })
}
