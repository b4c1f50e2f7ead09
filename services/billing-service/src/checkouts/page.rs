//! The page at Stripe: made once for each checkout, however often it is asked for.

use chassis::in_transaction;
use chrono::TimeDelta;
use serde_json::Value;
use sqlx::{Postgres, Transaction};

use super::store::{self, Checkout};
use crate::error::Error;
use crate::state::AppState;
use crate::stripe::call::Call;
use crate::stripe::customers;
use crate::stripe::object::Object;
use crate::stripe::transport::Transport;
use crate::subscriptions::command::Command;
use crate::subscriptions::status::Status;

/// The shortest life of a page that Stripe makes, and some minutes for the way there.
const SHORTEST: TimeDelta = TimeDelta::minutes(35);

/// The checkout with its page. The request has the same key each time [B-63], so that a lost answer costs nothing.
pub(super) async fn make(state: &AppState, stripe: &Transport, mut checkout: Checkout) -> Result<Checkout, Error> {
    if checkout.url.is_some() {
        return Ok(checkout);
    }
    chassis::step!("checkout.stored");
    let session = match ask(state, stripe, &checkout).await {
        Err(Error::Stripe(error)) if error.is_final() && matches!(error.status(), Some(400 | 402 | 404)) => {
            tracing::warn!(checkout.id = %checkout.id, error.message = %error, "Stripe refuses a page: its checkout is given up");
            // Or it would stand in the way of the next one until its time is over.
            in_transaction!(state.pool, |transaction| { give_up(state, transaction, &checkout).await })?;
            return Err(refused(error.code()));
        }
        asked => asked?,
    };
    chassis::step!("checkout.sent");
    let session = Object(&session);
    let (id, url) = (session.needs("id")?, session.needs("url")?);
    checkout.url = Some(url.to_owned());
    checkout.session_id = Some(id.to_owned());
    if !store::opened(state, checkout.id, id, url).await? {
        // It was given up while its page was made: nobody may pay that.
        take_away(stripe, &checkout).await?;
        return Err(ended());
    }
    chassis::step!("checkout.opened");
    Ok(checkout)
}

async fn ask(state: &AppState, stripe: &Transport, checkout: &Checkout) -> Result<Value, Error> {
    let request = |customer: &str| {
        chassis::step!("checkout.customer_known");
        request(state, checkout, customer)
    };
    customers::ask(state, stripe, checkout.organization, request).await
}

fn refused(code: Option<&str>) -> Error {
    let problem = |code, title| chassis::Problem::new(http::StatusCode::UNPROCESSABLE_ENTITY, code, title);
    if code == Some("amount_too_small") {
        let problem = problem("amount_too_small", "This costs less than can be paid at once");
        return problem.field("item", "must cost, after its coupon, at least what Stripe takes in one payment").into();
    }
    let problem = problem("checkout_refused", "Stripe does not make a page for this");
    problem.field("success_url", "must be, as cancel_url, a URL that Stripe takes").into()
}

fn request(state: &AppState, checkout: &Checkout, customer: &str) -> Call {
    let call = Call::post("/checkout/sessions", format!("checkout-{}-{customer}", checkout.id))
        .with("customer", customer)
        .with("client_reference_id", checkout.organization)
        .with("success_url", &checkout.success_url)
        .with("cancel_url", &checkout.cancel_url)
        .with("expires_at", checkout.expires_at.timestamp())
        // What pays at once or not at all: a debit of a bank account takes days, and neither page nor subscription waits so long.
        .with("payment_method_types[0]", "card")
        .metadata("checkout_id", checkout.id)
        .metadata("organization_id", checkout.organization);
    let currency = checkout.currency.code().to_lowercase();
    let taxed = state.config.stripe.automatic_tax;
    if checkout.amount == 0 {
        let call = call.with("mode", "setup").with("currency", currency);
        // What is charged after the trial is taxed by where the customer is, and cannot be collected while that is not known. Tax ids are
        // collected where something is paid; before that the portal takes one.
        return if taxed { call.with("billing_address_collection", "required").with("customer_update[address]", "auto") } else { call };
    }
    let call = call
        .with("mode", "payment")
        .with("line_items[0][quantity]", 1)
        .with("line_items[0][price_data][currency]", currency)
        .with("line_items[0][price_data][unit_amount]", money::minor_units(checkout.currency, checkout.amount))
        .with("line_items[0][price_data][product_data][name]", &checkout.description)
        // Our prices are without tax: by Stripe's own default it would be a part of some of them.
        .with("line_items[0][price_data][tax_behavior]", "exclusive")
        // The card stays, for later charges of a plan and for top-ups.
        .with("payment_intent_data[setup_future_usage]", "off_session")
        .with("payment_intent_data[metadata][checkout_id]", checkout.id);
    if !taxed {
        return call;
    }
    call.with("automatic_tax[enabled]", true)
        .with("tax_id_collection[enabled]", true)
        .with("customer_update[address]", "auto")
        .with("customer_update[name]", "auto")
}

/// Whether a page can still be paid, as Stripe says; one that is not made yet can.
pub(super) async fn is_open(stripe: &Transport, checkout: &Checkout) -> Result<bool, Error> {
    let Some(session) = &checkout.session_id else { return Ok(true) };
    match stripe.ask_patiently(&Call::get(format!("/checkout/sessions/{session}"))).await {
        Ok(session) if Object(&session).text("status") == Some("complete") => Err(ended()),
        Ok(session) => Ok(Object(&session).text("status") == Some("open")),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn ended() -> Error {
    let title = "The page that was open has just been paid or has ended; look at the subscription and the balance, and try again";
    chassis::Problem::conflict("checkout_ended", title).into()
}

/// Whether a page can still be paid, as far as the clock says.
pub(super) fn is_usable(state: &AppState, checkout: &Checkout) -> bool {
    // One that is not made yet must still be long enough for Stripe.
    let margin = if checkout.session_id.is_some() { TimeDelta::zero() } else { SHORTEST };
    state.clock.now() + margin < checkout.expires_at
}

/// Takes a page away at Stripe, so that nobody can pay it any more.
pub(super) async fn take_away(stripe: &Transport, checkout: &Checkout) -> Result<(), Error> {
    let Some(session) = &checkout.session_id else { return Ok(()) };
    let call = Call::post(format!("/checkout/sessions/{session}/expire"), format!("checkout-{}-expire", checkout.id));
    match stripe.ask_patiently(&call).await {
        Ok(_) => Ok(()),
        // Paid or over already: what it is, its event will tell.
        Err(error) if error.status() == Some(400) => Err(ended()),
        Err(error) => Err(error.into()),
    }
}

/// Gives up a checkout that nobody can pay any more, and the subscription that waited for it.
pub(crate) async fn give_up(state: &AppState, transaction: &mut Transaction<'static, Postgres>, checkout: &Checkout) -> Result<(), Error> {
    // In the order in which an event of the page would lock them.
    store::lock(transaction, checkout.id).await?;
    if let Some(id) = checkout.subscription {
        let subscription = crate::subscriptions::store::locked(transaction, checkout.organization, id).await?;
        if subscription.status == Status::Incomplete {
            let (organization, command) = (checkout.organization, Command::CancelNow);
            crate::subscriptions::store::apply(state, transaction, organization, id, &command, "checkout").await?;
        }
    }
    store::end(state, transaction, checkout.id, "expired").await
}
