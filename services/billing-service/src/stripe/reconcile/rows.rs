//! Of each object of Stripe's the few fields that are compared.

use std::collections::{BTreeMap, HashMap};

use identity::OrganizationId;
use money::Currency;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::error::Error;
use crate::stripe::facts::checkout::tax_on_top;
use crate::stripe::facts::credit_note::Amounts;
use crate::stripe::facts::invoice::{Sums, paid_with};
use crate::stripe::facts::reversal::fee;
use crate::stripe::object::Object;

/// Which list a row belongs to. Amounts are micro-units, times seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum List {
    /// `id`, `organization`, `currency` and `balance` (above zero what is owed by the customer; none where it could not be read), `at`
    Customers,
    /// `id`, `organization`, `object` (what it paid), `asked` (whether that was ours), `currency`, `amount` (without tax), `at`
    Payments,
    /// `id`, `kind`, `payment_intent`, `amount`, `fee` and `fee_currency`, `phase`, `at`
    Reversals,
    /// `id`, `organization`, `customer`, `status`, `currency`, `total`, `applied` (by the customer's balance), `agrees`, `charge`, `at`
    Invoices,
    /// `id`, `organization`, `status`, `currency`, `amount`, `balance` (what of it went there), `at`
    CreditNotes,
    /// `id`, `organization`, `checkout`, `payment`, `at`: those that are complete and paid
    Sessions,
    /// `id` of a payment and what it paid: `object`, `asked`, `tax`, `at`
    Paid,
}

impl List {
    /// Those that are counted, in the order of [`super::Report::seen`].
    pub(super) const COUNTED: [Self; 6] =
        [Self::Customers, Self::Payments, Self::Reversals, Self::Invoices, Self::CreditNotes, Self::Sessions];

    /// Its name in the database.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Customers => "customers",
            Self::Payments => "payments",
            Self::Reversals => "reversals",
            Self::Invoices => "invoices",
            Self::CreditNotes => "credit_notes",
            Self::Sessions => "sessions",
            Self::Paid => "paid",
        }
    }
}

/// What was known, before a page was read, of what its objects name.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Organizations of our customers, former ones too.
    pub(super) owners: HashMap<String, Uuid>,
    /// Rows of `paid`, by payment.
    pub(super) paid: HashMap<String, Value>,
    /// The currencies of our payments.
    pub(super) payments: HashMap<String, Currency>,
}

impl Known {
    fn owner(&self, object: Object<'_>) -> Option<Uuid> {
        self.owners.get(object.related("customer")?).copied()
    }
}

/// The rows of a page: a later one of the same object takes the place of the one before.
pub(super) type Rows = BTreeMap<(List, String), Value>;

/// Reads an object into rows; none when it is none of ours.
pub(super) type Read = fn(&Known, Object<'_>, &mut Rows) -> Result<(), Error>;

pub(super) fn customer(_: &Known, customer: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    if let Some(organization) = customer.metadata::<OrganizationId>("organization_id") {
        let id = customer.needs("id")?;
        let mut row = json!({"id": id, "organization": organization.uuid(), "at": customer.number("created")});
        let told = balance(customer);
        if let Ok((currency, balance)) = &told {
            row["currency"] = json!(currency.map(Currency::code));
            row["balance"] = json!(balance);
        }
        // A customer it is, also where its balance is in a currency that is none of ours.
        rows.insert((List::Customers, id.to_owned()), row);
        told?;
    }
    Ok(())
}

/// Without a currency nothing was ever invoiced or credited.
fn balance(customer: Object<'_>) -> Result<(Option<Currency>, i64), Error> {
    let Some(_) = customer.text("currency") else { return Ok((None, 0)) };
    let currency = customer.currency()?;
    Ok((Some(currency), customer.micros("balance", currency)?))
}

pub(super) fn session(known: &Known, session: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    let Some(organization) = known.owner(session) else { return Ok(()) };
    let (id, at) = (session.needs("id")?, session.number("created").unwrap_or(0));
    let checkout = session.metadata::<Uuid>("checkout_id");
    if let Some(payment) = session.related("payment_intent") {
        let tax = tax_on_top(session, session.currency()?)?;
        let row = json!({"object": id, "asked": checkout.is_some(), "tax": tax, "at": at});
        rows.insert((List::Paid, payment.to_owned()), row);
    }
    if checkout.is_some() && matches!(session.text("payment_status"), Some("paid" | "no_payment_required")) {
        let payment = session.related("payment_intent");
        let row = json!({"id": id, "organization": organization, "checkout": checkout, "payment": payment, "at": at});
        rows.insert((List::Sessions, id.to_owned()), row);
    }
    Ok(())
}

pub(super) fn invoice(known: &Known, invoice: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    let Some(organization) = known.owner(invoice) else { return Ok(()) };
    let (id, status, currency) = (invoice.needs("id")?, invoice.needs("status")?, invoice.currency()?);
    let sums = Sums::of(invoice, currency)?;
    // When it last changed its status.
    let changes = invoice.at("status_transitions");
    let times = ["finalized_at", "paid_at", "voided_at", "marked_uncollectible_at"].map(|name| changes.number(name).unwrap_or(0));
    let at = times.into_iter().fold(invoice.number("created").unwrap_or(0), i64::max);
    let charge = invoice.metadata::<Uuid>("charge_id");
    let asked = charge.is_some() || invoice.metadata::<Uuid>("top_up_id").is_some();
    if let Some(payment) = paid_with(invoice) {
        rows.insert((List::Paid, payment.to_owned()), json!({"object": id, "asked": asked, "tax": sums.tax_due, "at": at}));
    } else if asked && status == "paid" {
        // The customer's balance at Stripe paid: the invoice is the payment.
        let row = json!({"id": id, "organization": organization, "object": id, "asked": true, "currency": currency.code(),
            "amount": sums.received(), "received": sums.received(), "at": at});
        rows.insert((List::Payments, id.to_owned()), row);
    }
    // A long list of lines is not all here, and not summed.
    let agrees = sums.agree() || invoice.at("lines").0["has_more"] == true;
    let row = json!({"id": id, "organization": organization, "customer": invoice.related("customer"), "status": status,
        "currency": currency.code(), "total": sums.total, "applied": sums.balance, "agrees": agrees, "charge": charge, "operation": invoice.metadata::<String>("operation"), "at": at});
    rows.insert((List::Invoices, id.to_owned()), row);
    Ok(())
}

pub(super) fn credit_note(known: &Known, note: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    let Some(organization) = known.owner(note) else { return Ok(()) };
    let (id, currency) = (note.needs("id")?, note.currency()?);
    let amounts = Amounts::of(note, currency)?;
    let at = note.number("created").unwrap_or(0).max(note.number("voided_at").unwrap_or(0));
    let row = json!({"id": id, "organization": organization, "status": note.needs("status")?, "currency": currency.code(),
        "amount": amounts.amount, "balance": amounts.balance, "at": at});
    rows.insert((List::CreditNotes, id.to_owned()), row);
    Ok(())
}

pub(super) fn payment(known: &Known, payment: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    let Some(organization) = known.owner(payment).filter(|_| payment.text("status") == Some("succeeded")) else { return Ok(()) };
    let (id, currency) = (payment.needs("id")?, payment.currency()?);
    let received = payment.micros("amount_received", currency)?;
    let created = payment.number("created").unwrap_or(0);
    let paid = known.paid.get(id).map(Object);
    let of = |name: &str| paid.and_then(|paid| paid.number(name));
    let amount = received.checked_sub(of("tax").unwrap_or(0)).ok_or(Error::Unreadable("amount_received"))?;
    let row = json!({"id": id, "organization": organization, "object": paid.and_then(|paid| paid.text("object")).unwrap_or(id),
        "asked": paid.is_some_and(|paid| paid.0["asked"] == true), "currency": currency.code(), "amount": amount, "received": received,
        "at": of("at").map_or(created, |at| at.max(created))});
    rows.insert((List::Payments, id.to_owned()), row);
    Ok(())
}

pub(super) fn refund(known: &Known, refund: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    let phase = match refund.needs("status")? {
        "succeeded" | "pending" => "taken",
        "failed" | "canceled" => "failed",
        _ => "none",
    };
    reversal(known, refund, "refund", phase, rows)
}

pub(super) fn dispute(known: &Known, dispute: Object<'_>, rows: &mut Rows) -> Result<(), Error> {
    let phase = match dispute.needs("status")? {
        "won" => "won",
        "lost" => "lost",
        status if status.starts_with("warning") || status == "prevented" => "none",
        _ => "open",
    };
    reversal(known, dispute, "dispute", phase, rows)
}

fn reversal(known: &Known, object: Object<'_>, kind: &str, phase: &str, rows: &mut Rows) -> Result<(), Error> {
    let Some((payment, currency)) = object.related("payment_intent").and_then(|id| known.payments.get_key_value(id)) else {
        return Ok(());
    };
    let (id, fee) = (object.needs("id")?, fee(object)?);
    let row = json!({"id": id, "kind": kind, "payment_intent": payment, "amount": object.micros("amount", *currency)?,
        "fee": fee.map(|fee| fee.amount), "fee_currency": fee.map(|fee| fee.currency.code()), "phase": phase,
        "at": object.number("created")});
    rows.insert((List::Reversals, id.to_owned()), row);
    Ok(())
}
