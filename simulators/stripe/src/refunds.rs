//! Refunds: of a whole charge or a part, never of more than is left.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::world::{World, number, text};

pub(crate) const FIELDS: &str = "amount charge payment_intent reason metadata.* instructions_email refund_application_fee reverse_transfer";

pub(crate) fn create(call: &mut Call) -> Answer {
    let charge = match call.maybe_named("payment_intent", "payment_intent")? {
        Some(intent) => call.world.related(&intent, "latest_charge"),
        None => call.named("charge", "charge")?,
    };
    if charge["status"] != "succeeded" {
        return Err(Failure::invalid("This charge has not succeeded and cannot be refunded.").param("payment_intent"));
    }
    let reason = call.params.one_of("reason", &["duplicate", "fraudulent", "requested_by_customer"])?;
    let mut refund = make(call.world, &charge, call.params.integer("amount")?)?;
    refund["reason"] = reason.into();
    call.params.change_metadata(&mut refund);
    call.world.put(&refund);
    call.world.emit("refund.created", &refund);
    let charge = call.world.related(&refund, "charge");
    call.world.emit("charge.refunded", &charge);
    Ok(refund)
}

/// Gives money of a charge back; all that is left of it by default. Events are the caller's.
pub(crate) fn make(world: &mut World, charge: &Value, amount: Option<i64>) -> Answer {
    let (captured, refunded) = (number(charge, "amount_captured"), number(charge, "amount_refunded"));
    let left = captured - refunded;
    if left <= 0 {
        let message = format!("Charge {} has already been refunded.", text(charge, "id"));
        return Err(Failure::invalid(message).code("charge_already_refunded"));
    }
    // One that was won is over, and its charge can be refunded like any other.
    let is_charged_back = world.all("dispute").any(|dispute| dispute["charge"] == charge["id"] && dispute["status"] != "won");
    if is_charged_back {
        let message = format!("Charge {} has been charged back; cannot issue a refund.", text(charge, "id"));
        return Err(Failure::invalid(message).code("charge_disputed"));
    }
    let amount = amount.unwrap_or(left);
    if amount <= 0 {
        return Err(Failure::invalid("Invalid positive integer").code("parameter_invalid_integer").param("amount"));
    }
    if amount > left {
        let currency = text(charge, "currency");
        let (asked, left) = (crate::money::written(amount, &currency), crate::money::written(left, &currency));
        return Err(
            Failure::invalid(format!("Refund amount ({asked}) is greater than unrefunded amount on charge ({left})")).param("amount")
        );
    }
    let refund = json!({
        "id": world.id("re"), "object": "refund", "amount": amount, "balance_transaction": world.id("txn"), "charge": charge["id"],
        "created": world.now_of(charge), "currency": charge["currency"], "destination_details": { "type": "card", "card": { "type": "refund", "reference_type": "acquirer_reference_number", "reference_status": "pending" } },
        "metadata": {}, "payment_intent": charge["payment_intent"], "reason": null, "receipt_number": null,
        "source_transfer_reversal": null, "status": "succeeded", "transfer_reversal": null, "__customer": charge["customer"],
    });
    let mut charge = charge.clone();
    charge["amount_refunded"] = (refunded + amount).into();
    charge["refunded"] = (refunded + amount == captured).into();
    if let Some(list) = charge["__refunds"]["data"].as_array_mut() {
        list.insert(0, refund.clone());
    }
    world.put(&charge);
    world.put(&refund);
    Ok(refund)
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut refund = call.target("refund")?;
    call.params.change_metadata(&mut refund);
    call.world.update("refund.updated", &refund);
    Ok(refund)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("refund")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "refund", |refund| page::matches(call, refund, "charge payment_intent"))
}
