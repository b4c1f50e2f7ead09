//! What every customer paid, for those whose books must agree: whole numbers in the smallest unit of each currency.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::simulator::Simulator;
use crate::world::{World, number, text};

/// The sums of a customer in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LedgerRow {
    /// `cus_…`; empty for payments without a customer.
    pub customer: String,
    /// Small letters.
    pub currency: String,
    /// Invoices that are paid.
    pub paid_invoices: u64,
    /// Sum of what was paid on them.
    pub invoiced: i64,
    /// Charges that succeeded.
    pub charges: u64,
    /// Sum of what was captured.
    pub charged: i64,
    /// Sum of refunds.
    pub refunded: i64,
    /// Sum of what banks took back: open and lost disputes.
    pub disputed: i64,
    /// Sum of credit notes that are not void.
    pub credited: i64,
    /// `charged - refunded - disputed`.
    pub net: i64,
}

/// One row for each customer and currency, ordered by both.
pub(crate) fn of(world: &World) -> Vec<LedgerRow> {
    let mut rows = BTreeMap::<(String, String), LedgerRow>::new();
    let mut add = |object: &Value, change: &dyn Fn(&mut LedgerRow)| {
        let customer = if object["__customer"].is_string() { text(object, "__customer") } else { text(object, "customer") };
        let row = rows.entry((customer.clone(), text(object, "currency"))).or_default();
        (row.customer, row.currency) = (customer, text(object, "currency"));
        change(row);
    };
    for invoice in world.all("invoice").filter(|invoice| invoice["status"] == "paid") {
        add(invoice, &|row| {
            row.paid_invoices += 1;
            row.invoiced += number(invoice, "amount_paid");
        });
    }
    for charge in world.all("charge").filter(|charge| charge["status"] == "succeeded" && charge["captured"] == true) {
        add(charge, &|row| {
            row.charges += 1;
            row.charged += number(charge, "amount_captured");
        });
    }
    for refund in world.all("refund").filter(|refund| refund["status"] == "succeeded") {
        add(refund, &|row| row.refunded += number(refund, "amount"));
    }
    for dispute in world.all("dispute").filter(|dispute| dispute["status"] != "won") {
        add(dispute, &|row| row.disputed += number(dispute, "amount"));
    }
    for note in world.all("credit_note").filter(|note| note["status"] == "issued") {
        add(note, &|row| row.credited += number(note, "amount"));
    }
    let net = |mut row: LedgerRow| {
        row.net = row.charged - row.refunded - row.disputed;
        row
    };
    rows.into_values().map(net).collect()
}

impl Simulator {
    /// What every customer paid, was given back and lost to disputes: one row for each customer and currency.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerRow> {
        of(&self.world())
    }
}
