//! A page that was paid, or whose time is over. Access is decided by this, and never by the page that a browser comes back to [B-70].

use money::Currency;
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use crate::checkouts;
use crate::checkouts::store::{self, Checkout};
use crate::error::Error;
use crate::sales::{self, PaidBy, Payment};
use crate::state::AppState;
use crate::stripe::customers;
use crate::stripe::object::Object;
use crate::subscriptions::command::Command;
use crate::subscriptions::store as subscriptions;

pub(super) async fn apply(state: &AppState, transaction: &mut Transaction<'static, Postgres>, session: Object<'_>) -> Result<bool, Error> {
    let Some(id) = session.metadata::<Uuid>("checkout_id") else { return Ok(false) };
    let session_id = session.needs("id")?;
    let checkout =
        store::lock(transaction, id).await?.filter(|checkout| checkout.session_id.as_deref().is_none_or(|known| known == session_id));
    let Some(checkout) = checkout else { return Ok(false) };
    match (session.needs("status")?, session.text("payment_status")) {
        ("complete", Some("paid" | "no_payment_required")) => paid(state, transaction, &checkout, session).await?,
        // Paid by a slow means that came back: nobody can pay this page any more, and it is in the way of the next one.
        ("complete", _) if is_returned(session) => checkouts::give_up(state, transaction, &checkout).await?,
        // On its way: an event of its own tells how that ends.
        ("complete" | "open", _) => {}
        _ => store::end(state, transaction, checkout.id, "expired").await?,
    }
    Ok(true)
}

/// Whether the payment of a page that is complete has failed: while it is on its way, it waits for nobody to pay it.
fn is_returned(session: Object<'_>) -> bool {
    matches!(session.at("payment_intent").text("status"), Some("requires_payment_method" | "canceled"))
}

async fn paid(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    checkout: &Checkout,
    session: Object<'_>,
) -> Result<(), Error> {
    store::end(state, transaction, checkout.id, "paid").await?;
    if let Some(setup) = session.related("setup_intent") {
        begin_trial(state, transaction, checkout).await?;
        return customers::want_card(state, transaction, checkout.organization, &format!("/setup_intents/{setup}")).await;
    }
    let intent = session.related("payment_intent").ok_or(Error::Unreadable("payment_intent"))?;
    let currency = session.currency()?;
    let amount = without_tax(session, currency)?;
    // What was agreed is ours; what was paid is Stripe's. A sale is of what was paid, and both must be the same.
    if currency != checkout.currency || amount != checkout.amount {
        return Err(Error::Internal("a checkout was paid with another amount than was asked for"));
    }
    let payment = Payment {
        intent: intent.to_owned(),
        organization: checkout.organization,
        by: PaidBy::Checkout,
        by_id: checkout.id,
        currency,
        amount,
        // Nothing but an invoice is paid by a balance.
        balance: 0,
    };
    customers::want_card(state, transaction, checkout.organization, &format!("/payment_intents/{intent}")).await?;
    settle(state, transaction, checkout, &payment).await
}

/// The trial that waited for the card of this page, unless its time was over before we were told.
async fn begin_trial(state: &AppState, transaction: &mut Transaction<'static, Postgres>, checkout: &Checkout) -> Result<(), Error> {
    let Some(id) = checkout.subscription else { return Ok(()) };
    let subscription = subscriptions::locked(transaction, checkout.organization, id).await?;
    if subscription.waits_for_card() {
        subscriptions::apply(state, transaction, checkout.organization, id, &Command::BeginTrial, "stripe").await?;
    }
    Ok(())
}

/// What the prices came to: tax that was added on top is left out, and what is within them is a part of what they are.
fn without_tax(session: Object<'_>, currency: Currency) -> Result<i64, Error> {
    let details = session.at("total_details");
    let discounted = session.micros("amount_subtotal", currency)?.checked_sub(details.micros("amount_discount", currency)?);
    let shipping = details.micros("amount_shipping", currency)?;
    discounted.and_then(|prices| prices.checked_add(shipping)).ok_or(Error::Unreadable("total_details"))
}

/// The tax that was added to the prices.
pub(in crate::stripe) fn tax_on_top(session: Object<'_>, currency: Currency) -> Result<i64, Error> {
    let total = session.micros("amount_total", currency)?;
    total.checked_sub(without_tax(session, currency)?).ok_or(Error::Unreadable("amount_total"))
}

async fn settle(
    state: &AppState,
    transaction: &mut Transaction<'static, Postgres>,
    checkout: &Checkout,
    payment: &Payment,
) -> Result<(), Error> {
    match checkout.charge(transaction).await? {
        Some(charge) => sales::of_charge(state, transaction, payment, &charge).await?,
        None => {
            sales::of_credit(state, transaction, payment, (checkout.credit, checkout.rate()), checkout.credit_expires_at(state.clock.now()))
                .await?
        }
    };
    Ok(())
}
