//! Charges: what was taken from a card, or was refused.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::world::World;

/// Makes the charge of an intent with a method; failed where there is a failure.
pub(crate) fn make(world: &mut World, intent: &Value, method: &Value, failure: Option<&Failure>) -> Value {
    let paid = failure.is_none();
    let said = |name: &str| failure.map_or(Value::Null, |failure| failure.error.get(name).cloned().unwrap_or_default());
    let captured = if paid && intent["capture_method"] != "manual" { intent["amount"].clone() } else { 0.into() };
    let balance = if paid { Value::from(world.id("txn")) } else { Value::Null };
    let card = &method["card"];
    let charge = json!({
        "id": world.id("ch"), "object": "charge", "amount": intent["amount"], "amount_captured": captured, "amount_refunded": 0,
        "application": null, "application_fee": null, "application_fee_amount": null, "balance_transaction": balance,
        "billing_details": method["billing_details"], "calculated_statement_descriptor": "SIMULATOR", "captured": captured != 0,
        "created": world.now_of(intent), "currency": intent["currency"], "customer": intent["customer"],
        "description": intent["description"], "disputed": false, "failure_balance_transaction": null, "failure_code": said("code"),
        "failure_message": said("message"), "fraud_details": {}, "livemode": false, "metadata": intent["metadata"], "on_behalf_of": null,
        "outcome": {
            "type": if paid { "authorized" } else { "issuer_declined" }, "network_status": if paid { "approved_by_network" } else { "declined_by_network" },
            "reason": said("decline_code"), "risk_level": "normal", "risk_score": 1,
            "seller_message": if paid { "Payment complete." } else { "The bank declined the payment." },
        },
        "paid": paid, "payment_intent": intent["id"], "payment_method": method["id"],
        "payment_method_details": { "type": "card", "card": {
            "brand": card["brand"], "country": card["country"], "exp_month": card["exp_month"], "exp_year": card["exp_year"],
            "fingerprint": card["fingerprint"], "funding": card["funding"], "last4": card["last4"], "network": card["brand"],
        } },
        "receipt_email": null, "receipt_number": null, "receipt_url": null, "refunded": false, "review": null, "shipping": null,
        "source_transfer": null, "statement_descriptor": null, "statement_descriptor_suffix": null,
        "status": if paid { "succeeded" } else { "failed" }, "transfer_data": null, "transfer_group": null,
        "__refunds": page::embedded(&[], "/v1/refunds"),
    });
    world.put(&charge);
    world.emit(if paid { "charge.succeeded" } else { "charge.failed" }, &charge);
    charge
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("charge")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "charge", |charge| page::matches(call, charge, "customer payment_intent"))
}
