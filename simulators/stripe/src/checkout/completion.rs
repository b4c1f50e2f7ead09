//! What happens when the customer presses a button on the page.

use serde_json::{Map, Value, json};

use crate::cards::{self, Behavior};
use crate::error::Failure;
use crate::params::Params;
use crate::payments::{self, Mode};
use crate::subscriptions::{self, First, items};
use crate::world::{World, number, text};
use crate::{invoice_items, payment_methods};

/// How the customer's attempt went.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Outcome {
    /// The session is complete.
    Complete(Value),
    /// The bank wants the cardholder to confirm first.
    Challenge,
    /// The card was refused; the session stays open.
    Declined(String),
}

/// Pays a session with a test card; `authenticated` where the cardholder has confirmed.
pub(crate) fn complete(world: &mut World, id: &str, card: &str, authenticated: bool) -> Result<Outcome, Failure> {
    let session = world.get("checkout.session", id, "id")?;
    if session["status"] != "open" {
        return Err(Failure::invalid(format!("This Checkout Session is {}.", text(&session, "status"))));
    }
    let card = cards::named(card).ok_or_else(|| Failure::no_such("test card", card, "payment_method"))?;
    match card.behavior {
        // A failed try leaves a trace only in payment mode: there is no subscription before its first payment.
        Behavior::Declines(..) => {
            let message = refuse(world, &session, card);
            return Ok(Outcome::Declined(message));
        }
        Behavior::Authenticates | Behavior::AuthenticatesOnce if !authenticated => return Ok(Outcome::Challenge),
        _ => {}
    }
    let mut session = session;
    let mut customer = customer_of(world, &session);
    session["customer"] = customer["id"].clone();
    let address = address_of(world, &session, &mut customer);
    session["customer_details"] = json!({
        "address": address, "business_name": null, "email": customer["email"].as_str().map_or(session["customer_email"].clone(), Value::from),
        "individual_name": null, "name": customer["name"], "phone": null, "tax_exempt": "none", "tax_ids": [],
    });
    let mut method = payment_methods::of_card(world, card);
    method["billing_details"]["email"] = session["customer_details"]["email"].clone();
    if !address.is_null() {
        method["billing_details"]["address"] = address;
    }
    world.put(&method);
    match text(&session, "mode").as_str() {
        "payment" => pay(world, &mut session, &customer, &method, authenticated)?,
        "subscription" => subscribe(world, &mut session, &customer, &method, authenticated)?,
        _ => set_up(world, &mut session, &customer, &method)?,
    }
    session["status"] = "complete".into();
    session["url"] = Value::Null;
    world.put(&session);
    world.emit("checkout.session.completed", &session);
    Ok(Outcome::Complete(session))
}

/// The address that a page asks for, if it does; the customer keeps it where that is wanted.
fn address_of(world: &mut World, session: &Value, customer: &mut Value) -> Value {
    if session["__asks_address"] != true {
        return Value::Null;
    }
    let address = json!({ "city": null, "country": "US", "line1": null, "line2": null, "postal_code": "42424", "state": null });
    if session["__customer_update"]["address"] == "auto" && !customer.is_null() {
        customer["address"] = address.clone();
        world.update("customer.updated", customer);
    }
    address
}

/// The session's customer, or a new one where the mode needs one.
fn customer_of(world: &mut World, session: &Value) -> Value {
    let known = world.related(session, "customer");
    if !known.is_null() || (session["mode"] == "payment" && session["customer_creation"] != "always") {
        return known;
    }
    let now = world.clock.now();
    let id = world.id("cus");
    let customer = crate::customers::blank(&id, now, &session["customer_email"]);
    world.put(&customer);
    world.emit("customer.created", &customer);
    customer
}

fn refuse(world: &mut World, session: &Value, card: cards::Card) -> String {
    let failure = card.decline().unwrap_or_else(Failure::internal);
    let message = failure.error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
    if session["mode"] == "payment" {
        let customer = world.related(session, "customer");
        let mut intent = world.related(session, "payment_intent");
        if intent.is_null() {
            intent = new_intent(world, session, &customer);
        }
        let method = payment_methods::of_card(world, card);
        // The refusal is what is wanted here.
        let _ = payments::charge(world, &intent, &method, Mode::default());
        let mut session = session.clone();
        session["payment_intent"] = intent["id"].clone();
        world.put(&session);
    }
    message
}

fn new_intent(world: &mut World, session: &Value, customer: &Value) -> Value {
    let mut intent = payments::make(world, customer, number(session, "amount_total"), &text(session, "currency"));
    let data = params_of(&session["__payment_data"]);
    data.change_texts(
        &mut intent,
        "description setup_future_usage receipt_email capture_method statement_descriptor statement_descriptor_suffix",
    );
    data.change_metadata(&mut intent);
    intent["__session"] = session["id"].clone();
    world.put(&intent);
    world.emit("payment_intent.created", &intent);
    intent
}

/// The payment of a session that was complete before it was paid has arrived, or come back.
pub(crate) fn payment_ended(world: &mut World, intent: &Value, paid: bool) {
    let mut session = world.related(intent, "__session");
    if session["status"] != "complete" {
        return;
    }
    if paid {
        session["payment_status"] = "paid".into();
        world.put(&session);
    }
    world.emit(if paid { "checkout.session.async_payment_succeeded" } else { "checkout.session.async_payment_failed" }, &session);
}

fn pay(world: &mut World, session: &mut Value, customer: &Value, method: &Value, authenticated: bool) -> Result<(), Failure> {
    if number(session, "amount_total") == 0 {
        session["payment_status"] = "no_payment_required".into();
        return Ok(());
    }
    let mut intent = world.related(session, "payment_intent");
    if intent.is_null() {
        intent = new_intent(world, session, customer);
    }
    intent["customer"] = customer["id"].clone();
    session["payment_intent"] = intent["id"].clone();
    let charged = payments::charge(world, &intent, method, Mode { authenticated, off_session: false })?;
    session["payment_status"] = if charged["status"] == "processing" { "unpaid" } else { "paid" }.into();
    Ok(())
}

fn subscribe(world: &mut World, session: &mut Value, customer: &Value, method: &Value, authenticated: bool) -> Result<(), Failure> {
    let method = payment_methods::attach_to(world, method, &text(customer, "id"))?;
    let mut made = Vec::new();
    for item in session["__line_items"]["data"].as_array().cloned().unwrap_or_default() {
        if item["price"]["recurring"].is_null() {
            once(world, customer, &item);
        } else {
            made.push(items::make(world, &item["price"], item["quantity"].as_i64().unwrap_or(1))?);
        }
    }
    let mut fields = session["__subscription_data"].as_object().cloned().unwrap_or_default();
    fields.insert("default_payment_method".to_owned(), method["id"].clone());
    let discounts: Vec<Value> = session["__discounts"].as_array().into_iter().flatten().map(discount_entry).collect();
    if !discounts.is_empty() {
        fields.insert("discounts".to_owned(), discounts.into());
    }
    let rates = session["__line_items"]["data"][0]["__tax_rates"].clone();
    if rates.as_array().is_some_and(|rates| !rates.is_empty()) && !fields.contains_key("default_tax_rates") {
        fields.insert("default_tax_rates".to_owned(), rates);
    }
    let subscription = subscriptions::start(world, customer, made, &Params::new(fields), First::Collect { off_session: false })?;
    let intent = world.related(&world.related(&subscription, "latest_invoice"), "__intent");
    if authenticated && intent["status"] == "requires_action" {
        payments::authenticate(world, &text(&intent, "id"), true)?;
    }
    session["subscription"] = subscription["id"].clone();
    session["invoice"] = subscription["latest_invoice"].clone();
    session["payment_status"] = if number(session, "amount_total") == 0 { "no_payment_required" } else { "paid" }.into();
    Ok(())
}

fn discount_entry(kept: &Value) -> Value {
    if kept["code"].is_string() { json!({ "promotion_code": kept["code"] }) } else { json!({ "coupon": kept["coupon"] }) }
}

/// What is bought once along with a subscription is on its first invoice.
fn once(world: &mut World, customer: &Value, item: &Value) {
    let now = world.now_of(customer);
    let amount = number(item, "amount_subtotal");
    let mut pending = invoice_items::make(world, customer, amount, &text(item, "currency"), (now, now));
    pending["description"] = item["description"].clone();
    pending["quantity"] = item["quantity"].clone();
    pending["pricing"] = crate::invoices::lines::pricing(&item["price"]);
    world.put(&pending);
    world.emit("invoiceitem.created", &pending);
}

fn set_up(world: &mut World, session: &mut Value, customer: &Value, method: &Value) -> Result<(), Failure> {
    let method = payment_methods::attach_to(world, method, &text(customer, "id"))?;
    let id = world.id("seti");
    let secret = format!("{id}_secret_{}", world.id("s"));
    let mut intent = json!({
        "id": id, "object": "setup_intent", "application": null, "cancellation_reason": null, "client_secret": secret,
        "created": world.now_of(customer), "customer": customer["id"], "description": null, "last_setup_error": null, "livemode": false,
        "mandate": null, "metadata": {}, "next_action": null, "on_behalf_of": null, "payment_method": method["id"],
        "payment_method_types": ["card"], "status": "succeeded", "usage": "off_session",
    });
    params_of(&session["__setup_data"]).change_metadata(&mut intent);
    world.put(&intent);
    world.emit("setup_intent.succeeded", &intent);
    session["setup_intent"] = intent["id"].clone();
    Ok(())
}

fn params_of(kept: &Value) -> Params {
    Params::new(kept.as_object().cloned().unwrap_or_else(Map::new))
}

/// Ends a session that nobody paid.
pub(crate) fn expire_session(world: &mut World, session: &Value) -> Value {
    let mut session = session.clone();
    session["status"] = "expired".into();
    session["url"] = Value::Null;
    let mut intent = world.related(&session, "payment_intent");
    if !intent.is_null() && intent["status"] != "succeeded" {
        payments::cancel_intent(world, &mut intent);
    }
    world.put(&session);
    world.emit("checkout.session.expired", &session);
    session
}
