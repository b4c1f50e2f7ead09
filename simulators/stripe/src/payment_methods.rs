//! Payment methods: cards only.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::cards::{self, Card};
use crate::error::Failure;
use crate::page;
use crate::world::{World, text};

pub(crate) const FIELDS: &str = "billing_details.* metadata.* allow_redisplay card.exp_month card.exp_year";
pub(crate) const NEW_FIELDS: &str =
    "type billing_details.* metadata.* allow_redisplay card.number card.exp_month card.exp_year card.cvc card.token";

/// Expiry of all cards that do not say another one.
const EXPIRY_YEAR: i64 = 2040;

pub(crate) fn create(call: &mut Call) -> Answer {
    call.params.required("type")?;
    call.params.one_of("type", &["card"])?;
    let number = call.params.text("card.token").map_or_else(|| call.params.required("card.number"), Ok)?;
    let Some(card) = cards::numbered(number) else {
        let message = "Your card number is incorrect: the simulator takes Stripe's test cards only.";
        return Err(Failure::card("incorrect_number", None, message).param("number"));
    };
    let mut method = of_card(call.world, card);
    if let Some(month) = call.params.natural("card.exp_month")? {
        method["card"]["exp_month"] = month.into();
    }
    if let Some(year) = call.params.natural("card.exp_year")? {
        method["card"]["exp_year"] = year.into();
    }
    change(call, &mut method);
    call.world.put(&method);
    Ok(method)
}

/// A new payment method of a test card; kept.
pub(crate) fn of_card(world: &mut World, card: Card) -> Value {
    let fingerprint: String = card.number.bytes().rev().map(|digit| char::from(digit - b'0' + b'a')).collect();
    let method = json!({
        "id": world.id("pm"), "object": "payment_method", "allow_redisplay": "unspecified",
        "billing_details": { "address": address(), "email": null, "name": null, "phone": null, "tax_id": null },
        "card": {
            "brand": card.brand, "checks": { "address_line1_check": null, "address_postal_code_check": null, "cvc_check": "pass" },
            "country": "US", "display_brand": card.brand, "exp_month": 12, "exp_year": EXPIRY_YEAR, "fingerprint": fingerprint,
            "funding": if card.name.ends_with("_debit") { "debit" } else { "credit" }, "generated_from": null, "last4": card.last4(),
            "networks": { "available": [card.brand], "preferred": null }, "regulated_status": "unregulated",
            "three_d_secure_usage": { "supported": true }, "wallet": null,
        },
        "created": world.clock.now(), "customer": null, "livemode": false, "metadata": {}, "type": "card", "__card": card.name,
    });
    world.put(&method);
    method
}

fn address() -> Value {
    json!({ "city": null, "country": null, "line1": null, "line2": null, "postal_code": null, "state": null })
}

fn change(call: &Call, method: &mut Value) {
    call.params.change_metadata(method);
    call.params.change_texts(method, "allow_redisplay");
    if let Some(details) = call.params.tree("billing_details").as_object() {
        for (name, value) in details {
            method["billing_details"][name] = value.clone();
        }
    }
}

/// The method that a parameter names; `pm_card_visa` and the like make a new one each time, as at Stripe.
pub(crate) fn resolve(world: &mut World, id: &str, param: &str) -> Answer {
    match cards::named(id).or_else(|| id.starts_with("tok_").then(|| cards::numbered(id)).flatten()) {
        Some(card) => Ok(of_card(world, card)),
        None => world.get("payment_method", id, param),
    }
}

/// The test card behind a method.
pub(crate) fn card(method: &Value) -> Option<Card> {
    cards::named(&text(method, "__card"))
}

/// Gives a method to a customer.
pub(crate) fn attach_to(world: &mut World, method: &Value, customer: &str) -> Answer {
    if method["customer"] == customer {
        return Ok(method.clone());
    }
    if method["customer"].is_string() {
        let message = "The payment method you provided has already been attached to a customer.";
        return Err(Failure::invalid(message).code("payment_method_unexpected_state").param("payment_method"));
    }
    if let Some(failure) = card(method).filter(|card| card.refuses_attach).and_then(|card| card.decline()) {
        return Err(failure);
    }
    let mut method = method.clone();
    method["customer"] = customer.into();
    world.put(&method);
    world.emit("payment_method.attached", &method);
    Ok(method)
}

pub(crate) fn attach(call: &mut Call) -> Answer {
    let customer = text(&call.named("customer", "customer")?, "id");
    let id = call.id().to_owned();
    let method = resolve(call.world, &id, "id")?;
    attach_to(call.world, &method, &customer)
}

pub(crate) fn detach(call: &mut Call) -> Answer {
    let mut method = call.target("payment_method")?;
    let mut customer = call.world.related(&method, "customer");
    if customer.is_null() {
        let message = "The payment method you provided is not attached to a customer so detachment is impossible.";
        return Err(Failure::invalid(message).param("payment_method"));
    }
    if customer["invoice_settings"]["default_payment_method"] == method["id"] {
        customer["invoice_settings"]["default_payment_method"] = Value::Null;
        call.world.update("customer.updated", &customer);
    }
    method["customer"] = Value::Null;
    call.world.update("payment_method.detached", &method);
    Ok(method)
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut method = call.target("payment_method")?;
    change(call, &mut method);
    call.world.update("payment_method.updated", &method);
    Ok(method)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    let id = call.id().to_owned();
    resolve(call.world, &id, "id")
}

/// Methods of a customer; without one there are none to be seen.
pub(crate) fn list(call: &mut Call) -> Answer {
    let customer = call.maybe_named("customer", "customer")?;
    page::of(call, "payment_method", |method| {
        customer.as_ref().is_some_and(|customer| method["customer"] == customer["id"]) && page::matches(call, method, "type")
    })
}

/// The methods of the customer in the path.
pub(crate) fn list_of_customer(call: &mut Call) -> Answer {
    let customer = call.target("customer")?;
    page::of(call, "payment_method", |method| method["customer"] == customer["id"] && page::matches(call, method, "type"))
}

/// What a customer is charged with when nothing else is said: its default.
pub(crate) fn default_of(customer: &Value) -> Option<String> {
    customer["invoice_settings"]["default_payment_method"].as_str().map(str::to_owned)
}
