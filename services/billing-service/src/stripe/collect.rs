//! An invoice that Stripe collects from the customer's card: for a charge of a subscription, or for a top-up. Four requests, each with
//! its part of one stored key, so that any of them may be repeated.

use money::Currency;
use serde_json::Value;

use super::call::Call;
use super::object::Object;
use super::transport::{Transport, TransportError};
use crate::error::Error;

/// What an invoice says that was taken away from a customer who is gone.
const LEFT: &str = "left";

/// What is to be collected.
#[derive(Debug)]
pub struct Collection<'a> {
    /// From whom.
    pub customer: &'a str,
    /// The key of this try.
    pub key: &'a str,
    /// The operation, by which its invoice is found when the key no longer tells.
    pub operation: &'a str,
    /// In what.
    pub currency: Currency,
    /// Description and micro-units of each line; below zero for what is taken off.
    pub lines: Vec<(String, i64)>,
    /// What of ours it is for, by which its events are recognized.
    pub metadata: [(&'static str, String); 2],
    /// Whether Stripe computes the tax.
    pub automatic_tax: bool,
}

/// What came of asking a customer for money.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Stripe's id of the invoice.
    pub invoice: String,
    /// Whether the customer has nothing to pay it with: nobody was asked, and Stripe would take the next card that comes.
    pub lacks_card: bool,
}

/// Collects, or leaves an invoice that the customer's bank refused: that is an answer too, and its event says so.
///
/// # Errors
/// Stripe's, for what is to be tried again.
pub async fn collect(stripe: &Transport, wanted: &Collection<'_>) -> Result<Asked, Error> {
    let key = |part: &str| format!("{}-{part}", wanted.key);
    let invoice = stripe.ask(&invoice(wanted, key("invoice"))).await?;
    chassis::step!("invoice.made");
    let id = Object(&invoice).needs("id")?.to_owned();
    for (number, (description, micros)) in wanted.lines.iter().enumerate() {
        let call = Call::post("/invoiceitems", key(&format!("item-{number}")))
            .with("customer", wanted.customer)
            .with("invoice", &id)
            .with("currency", wanted.currency.code().to_lowercase())
            .with("amount", money::minor_units(wanted.currency, *micros))
            .with("description", description)
            // Our prices are without tax: by Stripe's own default it would be a part of some of them.
            .with("tax_behavior", "exclusive");
        stripe.ask(&call).await?;
        chassis::step!("invoice.item_added");
    }
    let call = Call::post(format!("/invoices/{id}/finalize"), key("finalize")).with("auto_advance", true);
    let finalized = unless_done(stripe.ask(&call).await)?;
    chassis::step!("invoice.finalized");
    if finalized.as_ref().is_some_and(|invoice| Object(invoice).text("status") == Some("paid")) {
        return Ok(Asked { invoice: id, lacks_card: false });
    }
    let asked = pay(stripe, &id, key("pay")).await?;
    chassis::step!("invoice.paid");
    Ok(asked)
}

async fn pay(stripe: &Transport, id: &str, key: String) -> Result<Asked, Error> {
    let asked = |lacks_card| Asked { invoice: id.to_owned(), lacks_card };
    match stripe.ask(&Call::post(format!("/invoices/{id}/pay"), key)).await {
        // Paid; or the bank said no: Stripe tries again by its own rules, and tells.
        Ok(_) | Err(TransportError::Refused { status: 402, .. }) => Ok(asked(false)),
        // The only thing that an invoice's payment lacks is a card.
        Err(error) if error.status() == Some(400) && error.code() == Some("resource_missing") => Ok(asked(true)),
        Err(error) => unless_done(Err(error)).map(|_| asked(false)),
    }
}

fn invoice(wanted: &Collection<'_>, key: String) -> Call {
    let mut call = Call::post("/invoices", key)
        .with("customer", wanted.customer)
        .with("currency", wanted.currency.code().to_lowercase())
        .with("collection_method", "charge_automatically")
        .with("auto_advance", false)
        // Nothing that somebody else has pending for the customer.
        .with("pending_invoice_items_behavior", "exclude")
        .metadata("operation", wanted.operation);
    for (name, value) in &wanted.metadata {
        call = call.metadata(name, value);
    }
    if wanted.automatic_tax { call.with("automatic_tax[enabled]", true) } else { call }
}

/// What cannot be done because it was done before under a key that Stripe has forgotten is done.
fn unless_done(answer: Result<Value, TransportError>) -> Result<Option<Value>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.code(), Some("invoice_already_paid" | "invoice_not_editable" | "invoice_already_finalized")) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Goes on with an invoice that was begun under a key which no longer tells how far it came [B-64, B-65]: paid now if nobody was asked for
/// money yet; none when there is only half of one, which is taken away.
///
/// # Errors
/// Stripe's.
pub async fn resume(stripe: &Transport, invoice: Object<'_>, key: &str) -> Result<Option<Asked>, Error> {
    chassis::step!("resumed_invoice.found");
    let id = invoice.needs("id")?;
    match invoice.text("status") {
        Some("draft") => {
            stripe.ask(&Call::delete(format!("/invoices/{id}"))).await?;
            chassis::step!("resumed_invoice.deleted");
            return Ok(None);
        }
        Some("open") if invoice.number("attempt_count").unwrap_or(0) == 0 => {
            let asked = pay(stripe, id, format!("{key}-resume")).await?;
            chassis::step!("resumed_invoice.paid");
            return Ok(Some(asked));
        }
        _ => {}
    }
    Ok(Some(Asked { invoice: id.to_owned(), lacks_card: false }))
}

/// What came of an operation with a customer that is gone at Stripe: its invoice, if that was paid or somebody decided about it. One that
/// waits for money is taken away, because nobody can pay it any more. What `is_owed` whatever became of it is collected anew then, from the
/// customer that took the place; what is not, a top-up, ended with its invoice, and the next one is a purchase of its own.
///
/// # Errors
/// Stripe's; what cannot be taken away yet, because its payment is on its way, is looked at again by the next try.
pub async fn left(stripe: &Transport, customer: &str, operation: &str, key: &str, is_owed: bool) -> Result<Option<String>, Error> {
    let invoice = match find(stripe, customer, operation).await {
        Ok(Some(invoice)) => invoice,
        // Stripe does not know the customer at all: nothing can have been made with it.
        Err(Error::Stripe(error)) if is_unknown(&error) => return Ok(None),
        other => return other.map(|_| None),
    };
    chassis::step!("left_invoice.found");
    let invoice = Object(&invoice);
    let id = invoice.needs("id")?;
    match invoice.text("status") {
        Some("draft") => {
            stripe.ask(&Call::delete(format!("/invoices/{id}"))).await?;
            chassis::step!("left_invoice.deleted");
            return Ok(None);
        }
        Some("open") => {
            // So that a try which comes no further is told from somebody who voids what shall not be paid.
            stripe.ask(&Call::post(format!("/invoices/{id}"), format!("{key}-left")).metadata(LEFT, true)).await?;
            chassis::step!("left_invoice.noted");
            stripe.ask(&Call::post(format!("/invoices/{id}/void"), format!("{key}-void"))).await?;
            chassis::step!("left_invoice.voided");
        }
        Some("void") if is_left(invoice) => {}
        _ => return Ok(Some(id.to_owned())),
    }
    Ok((!is_owed).then(|| id.to_owned()))
}

/// Whether an invoice was taken away, or is about to be, because its customer is gone.
pub(super) fn is_left(invoice: Object<'_>) -> bool {
    invoice.metadata::<bool>(LEFT) == Some(true)
}

/// The invoice of an operation with a customer.
///
/// # Errors
/// Stripe's.
pub async fn find(stripe: &Transport, customer: &str, operation: &str) -> Result<Option<Value>, Error> {
    made_by(stripe, &of_customer(customer), operation).await
}

/// All invoices of an operation with a customer; none of one that Stripe does not know.
///
/// # Errors
/// Stripe's.
pub async fn all(stripe: &Transport, customer: &str, operation: &str) -> Result<Vec<Value>, Error> {
    let mut all = Vec::new();
    let take = |made: Object<'_>| {
        all.push(made.0.clone());
        false
    };
    match each_made_by(stripe, &of_customer(customer), operation, take).await {
        Err(Error::Stripe(error)) if is_unknown(&error) => Ok(Vec::new()),
        other => other.map(|()| all),
    }
}

fn of_customer(customer: &str) -> Call {
    Call::get("/invoices").with("customer", customer)
}

/// Whether Stripe does not know what it was asked about at all.
fn is_unknown(error: &TransportError) -> bool {
    error.status() == Some(404) || error.code() == Some("resource_missing")
}

/// What an operation made, of all that a list has.
///
/// # Errors
/// Stripe's.
pub(super) async fn made_by(stripe: &Transport, first: &Call, operation: &str) -> Result<Option<Value>, Error> {
    let mut found = None;
    let take = |made: Object<'_>| {
        found = Some(made.0.clone());
        true
    };
    each_made_by(stripe, first, operation, take).await?;
    Ok(found)
}

/// Shows what an operation made until one is enough, page by page: a list may have grown since by what others made.
async fn each_made_by(
    stripe: &Transport,
    first: &Call,
    operation: &str,
    mut is_enough: impl FnMut(Object<'_>) -> bool + Send,
) -> Result<(), Error> {
    let mut after: Option<String> = None;
    loop {
        let page = stripe.ask(&first.clone().with("limit", 100).with_some("starting_after", after.as_deref())).await?;
        let mut last = None;
        for object in Object(&page).list("data") {
            if object.metadata::<String>("operation").as_deref() == Some(operation) && is_enough(object) {
                return Ok(());
            }
            last = object.text("id").map(ToOwned::to_owned);
        }
        if page["has_more"] != true || last.is_none() {
            return Ok(());
        }
        after = last;
    }
}
