//! Payment intents: an amount that is to be taken from a card, until it is.

use serde_json::{Map, Value, json};

use crate::call::{Answer, Call};
use crate::cards::Behavior;
use crate::error::Failure;
use crate::world::{World, number, text};
use crate::{charges, checkout, disputes, invoices, money, page, payment_methods};

pub(crate) const FIELDS: &str = "amount currency customer description metadata.* payment_method payment_method_types receipt_email \
    setup_future_usage statement_descriptor statement_descriptor_suffix shipping.* payment_method_options.*";
pub(crate) const NEW_FIELDS: &str = "amount currency customer description metadata.* payment_method payment_method_types receipt_email \
    setup_future_usage statement_descriptor statement_descriptor_suffix shipping.* payment_method_options.* capture_method \
    confirmation_method confirm off_session return_url error_on_requires_action use_stripe_sdk automatic_payment_methods.enabled \
    automatic_payment_methods.allow_redirects";
pub(crate) const CONFIRM_FIELDS: &str =
    "payment_method off_session return_url error_on_requires_action use_stripe_sdk receipt_email setup_future_usage";

/// How a card is charged.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Mode {
    /// The cardholder has just confirmed.
    pub(crate) authenticated: bool,
    /// The customer is not there to confirm anything.
    pub(crate) off_session: bool,
}

/// Makes an intent that nothing was done for yet.
pub(crate) fn make(world: &mut World, customer: &Value, amount: i64, currency: &str) -> Value {
    let id = world.id("pi");
    let secret = format!("{id}_secret_{}", world.id("s"));
    json!({
        "id": id, "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_details": { "tip": {} },
        "amount_received": 0, "application": null, "application_fee_amount": null, "automatic_payment_methods": null,
        "canceled_at": null, "cancellation_reason": null, "capture_method": "automatic_async", "client_secret": secret,
        "confirmation_method": "automatic", "created": world.now_of(customer), "currency": currency, "customer": customer["id"],
        "description": null, "last_payment_error": null, "latest_charge": null, "livemode": false, "metadata": {}, "next_action": null,
        "on_behalf_of": null, "payment_method": null, "payment_method_options": {}, "payment_method_types": ["card"],
        "processing": null, "receipt_email": null, "review": null, "setup_future_usage": null, "shipping": null,
        "statement_descriptor": null, "statement_descriptor_suffix": null, "status": "requires_payment_method", "transfer_data": null,
        "transfer_group": null, "__invoice": null, "__return_url": null,
    })
}

pub(crate) fn create(call: &mut Call) -> Answer {
    let amount = call.params.required_integer("amount")?;
    let currency = money::currency(call.params.required("currency")?, "currency")?;
    money::chargeable(amount, &currency)?;
    let customer = call.maybe_named("customer", "customer")?.unwrap_or(Value::Null);
    let mut intent = make(call.world, &customer, amount, &currency);
    change(call, &mut intent)?;
    if let Some(capture) = call.params.one_of("capture_method", &["automatic", "automatic_async", "manual"])? {
        intent["capture_method"] = capture.into();
    }
    if let Some(enabled) = call.params.flag("automatic_payment_methods.enabled")? {
        intent["automatic_payment_methods"] = json!({ "enabled": enabled, "allow_redirects": "always" });
    }
    call.world.put(&intent);
    call.world.emit("payment_intent.created", &intent);
    if call.params.flag("confirm")? == Some(true) { confirm_intent(call, &intent) } else { Ok(intent) }
}

fn change(call: &mut Call, intent: &mut Value) -> Result<(), Failure> {
    call.params.change_texts(intent, "description receipt_email setup_future_usage statement_descriptor statement_descriptor_suffix");
    call.params.change_metadata(intent);
    if let Some(id) = call.params.text("payment_method") {
        let method = payment_methods::resolve(call.world, id, "payment_method")?;
        intent["payment_method"] = method["id"].clone();
        intent["status"] = "requires_confirmation".into();
    }
    Ok(())
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut intent = call.target("payment_intent")?;
    if let Some(amount) = call.params.integer("amount")? {
        must_be(&intent, &["requires_payment_method", "requires_confirmation", "requires_action"])?;
        money::chargeable(amount, &text(&intent, "currency"))?;
        intent["amount"] = amount.into();
    }
    change(call, &mut intent)?;
    call.world.put(&intent);
    Ok(intent)
}

pub(crate) fn confirm(call: &mut Call) -> Answer {
    let intent = call.target("payment_intent")?;
    confirm_intent(call, &intent)
}

fn confirm_intent(call: &mut Call, intent: &Value) -> Answer {
    must_be(intent, &["requires_payment_method", "requires_confirmation", "requires_action"])?;
    let mut intent = intent.clone();
    change(call, &mut intent)?;
    let method = call.world.related(&intent, "payment_method");
    if method.is_null() {
        let message = "You cannot confirm this PaymentIntent because it's missing a payment method.";
        return Err(Failure::invalid(message).code("payment_intent_unexpected_state"));
    }
    intent["__return_url"] = call.params.value("return_url");
    let mode = Mode { off_session: call.params.flag("off_session")?.unwrap_or(false), authenticated: false };
    charge(call.world, &intent, &method, mode)
}

/// Charges a card: the intent as it is then, or the refusal. Both are kept.
pub(crate) fn charge(world: &mut World, intent: &Value, method: &Value, mode: Mode) -> Answer {
    let card = payment_methods::card(method).ok_or_else(Failure::internal)?;
    let known = method["__authenticated"] == true && mode.off_session && card.behavior == Behavior::AuthenticatesOnce;
    match card.behavior {
        Behavior::Declines(code, decline, message) => Err(refuse(world, intent, method, Failure::card(code, decline, message))),
        Behavior::Authenticates | Behavior::AuthenticatesOnce if !mode.authenticated && !known => {
            if mode.off_session {
                let message = "Your card was declined. This transaction requires authentication.";
                let failure = Failure::card("authentication_required", Some("authentication_required"), message);
                return Err(refuse(world, intent, method, failure));
            }
            Ok(ask(world, intent, method))
        }
        Behavior::Processes => Ok(process(world, intent, method)),
        behavior => {
            let paid = succeed(world, intent, method, mode);
            if let Behavior::Disputes(reason) = behavior {
                disputes::open(world, &text(&paid, "latest_charge"), None, reason)?;
            }
            Ok(paid)
        }
    }
}

fn succeed(world: &mut World, intent: &Value, method: &Value, mode: Mode) -> Value {
    if mode.authenticated {
        let mut known = method.clone();
        known["__authenticated"] = true.into();
        world.put(&known);
    }
    let mut intent = intent.clone();
    intent["payment_method"] = method["id"].clone();
    intent["next_action"] = Value::Null;
    intent["last_payment_error"] = Value::Null;
    let charge = charges::make(world, &intent, method, None);
    intent["latest_charge"] = charge["id"].clone();
    if intent["capture_method"] == "manual" {
        intent["status"] = "requires_capture".into();
        intent["amount_capturable"] = intent["amount"].clone();
        world.put(&intent);
        world.emit("payment_intent.amount_capturable_updated", &intent);
        return intent;
    }
    intent["status"] = "succeeded".into();
    intent["amount_received"] = intent["amount"].clone();
    world.put(&intent);
    world.emit("payment_intent.succeeded", &intent);
    if intent["setup_future_usage"].is_string() && intent["customer"].is_string() && method["customer"].is_null() {
        // A card that paid can be attached.
        let _ = payment_methods::attach_to(world, method, &text(&intent, "customer"));
    }
    if intent["__invoice"].is_string() {
        invoices::paid_by(world, &text(&intent, "__invoice"), &intent);
    }
    intent
}

fn refuse(world: &mut World, intent: &Value, method: &Value, failure: Failure) -> Failure {
    let mut intent = intent.clone();
    let charge = charges::make(world, &intent, method, Some(&failure));
    intent["latest_charge"] = charge["id"].clone();
    intent["status"] = "requires_payment_method".into();
    intent["payment_method"] = Value::Null;
    intent["next_action"] = Value::Null;
    let failure = failure.with("charge", charge["id"].clone());
    let mut error: Map<String, Value> = failure.error.clone();
    error.insert("payment_method".to_owned(), method.clone());
    intent["last_payment_error"] = error.into();
    world.put(&intent);
    world.emit("payment_intent.payment_failed", &intent);
    failure.with("payment_method", crate::shown::shown(method)).with("payment_intent", crate::shown::shown(&intent))
}

fn ask(world: &mut World, intent: &Value, method: &Value) -> Value {
    let mut intent = intent.clone();
    intent["payment_method"] = method["id"].clone();
    intent["status"] = "requires_action".into();
    let url = format!("{}/_simulator/3ds/{}", world.public_url, text(&intent, "id"));
    intent["next_action"] = json!({ "type": "redirect_to_url", "redirect_to_url": { "url": url, "return_url": intent["__return_url"] } });
    world.put(&intent);
    world.emit("payment_intent.requires_action", &intent);
    intent
}

fn process(world: &mut World, intent: &Value, method: &Value) -> Value {
    let mut intent = intent.clone();
    intent["payment_method"] = method["id"].clone();
    intent["status"] = "processing".into();
    world.put(&intent);
    world.emit("payment_intent.processing", &intent);
    intent
}

/// How a payment ends that was on its way.
pub(crate) fn end_processing(world: &mut World, id: &str, pays: bool) -> Answer {
    let intent = world.get("payment_intent", id, "id")?;
    must_be(&intent, &["processing"])?;
    let method = world.related(&intent, "payment_method");
    if pays {
        let paid = succeed(world, &intent, &method, Mode::default());
        checkout::payment_ended(world, &paid, true);
        return Ok(paid);
    }
    let failure = Failure::card("payment_method_provider_decline", None, "The payment was returned.");
    refuse(world, &intent, &method, failure);
    if intent["__invoice"].is_string() {
        invoices::refused_by(world, &text(&intent, "__invoice"));
    }
    checkout::payment_ended(world, &intent, false);
    world.get("payment_intent", id, "id")
}

/// What the cardholder does on the bank's page: confirms, or fails to.
pub(crate) fn authenticate(world: &mut World, id: &str, confirms: bool) -> Answer {
    let intent = world.get("payment_intent", id, "id")?;
    must_be(&intent, &["requires_action"])?;
    let method = world.related(&intent, "payment_method");
    if confirms {
        return charge(world, &intent, &method, Mode { authenticated: true, off_session: false });
    }
    let message = "We are unable to authenticate your payment method. Please choose a different payment method and try again.";
    let failure = Failure::card("payment_intent_authentication_failure", None, message);
    refuse(world, &intent, &method, failure);
    world.get("payment_intent", id, "id")
}

pub(crate) fn capture(call: &mut Call) -> Answer {
    let mut intent = call.target("payment_intent")?;
    must_be(&intent, &["requires_capture"])?;
    let whole = number(&intent, "amount");
    let amount = call.params.natural("amount_to_capture")?.unwrap_or(whole);
    if amount > whole || amount == 0 {
        return Err(Failure::invalid("You cannot capture more than what was authorized.")
            .code("amount_too_large")
            .param("amount_to_capture"));
    }
    let mut charge = call.world.related(&intent, "latest_charge");
    charge["captured"] = true.into();
    charge["amount_captured"] = amount.into();
    charge["amount_refunded"] = (whole - amount).into();
    call.world.update("charge.captured", &charge);
    intent["amount_capturable"] = 0.into();
    intent["amount_received"] = amount.into();
    intent["status"] = "succeeded".into();
    call.world.put(&intent);
    call.world.emit("payment_intent.succeeded", &intent);
    Ok(intent)
}

pub(crate) fn cancel(call: &mut Call) -> Answer {
    let mut intent = call.target("payment_intent")?;
    must_be(&intent, &["requires_payment_method", "requires_confirmation", "requires_action", "requires_capture"])?;
    intent["cancellation_reason"] = call.params.value("cancellation_reason");
    cancel_intent(call.world, &mut intent);
    Ok(intent)
}

/// Gives up an intent that has not succeeded.
pub(crate) fn cancel_intent(world: &mut World, intent: &mut Value) {
    intent["status"] = "canceled".into();
    intent["canceled_at"] = world.now_of(intent).into();
    intent["next_action"] = Value::Null;
    intent["amount_capturable"] = 0.into();
    world.put(intent);
    world.emit("payment_intent.canceled", intent);
}

fn must_be(intent: &Value, allowed: &[&str]) -> Result<(), Failure> {
    let status = text(intent, "status");
    if allowed.contains(&status.as_str()) {
        return Ok(());
    }
    let message = format!("This PaymentIntent's status is {status}; it must be one of {} for that.", allowed.join(", "));
    Err(Failure::invalid(message).code("payment_intent_unexpected_state").with("payment_intent", crate::shown::shown(intent)))
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("payment_intent")
}

/// The setup of a card, which checkout makes.
pub(crate) fn retrieve_setup(call: &mut Call) -> Answer {
    call.target("setup_intent")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "payment_intent", |intent| page::matches(call, intent, "customer"))
}
