//! Disputes: opened and decided by the bank, which is the control route.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::world::{World, number, text};

/// What a dispute costs, whoever wins, in the smallest units of the currency in which the account is settled.
const FEE: i64 = 1500;
const ANSWER_SECONDS: i64 = 9 * 86_400;

/// Opens a dispute about a charge; about all that was not refunded by default.
pub(crate) fn open(world: &mut World, charge: &str, amount: Option<i64>, reason: &str) -> Answer {
    let mut charge = world.get("charge", charge, "charge")?;
    let left = number(&charge, "amount_captured") - number(&charge, "amount_refunded");
    let amount = amount.unwrap_or(left);
    if charge["disputed"] == true || amount <= 0 || amount > left {
        return Err(Failure::invalid("This charge cannot be disputed, or not for this amount.").param("charge"));
    }
    let now = world.now_of(&charge);
    let withdrawn = movement(world, -amount, FEE, &charge, now);
    let dispute = json!({
        "id": world.id("dp"), "object": "dispute", "amount": amount, "balance_transactions": [withdrawn], "charge": charge["id"],
        "created": now, "currency": charge["currency"], "enhanced_eligibility_types": [], "evidence": { "enhanced_evidence": {} },
        "evidence_details": {
            "due_by": now + ANSWER_SECONDS, "enhanced_eligibility": {}, "has_evidence": false, "past_due": false, "submission_count": 0,
        },
        "is_charge_refundable": false, "livemode": false, "metadata": {}, "payment_intent": charge["payment_intent"], "reason": reason,
        "status": "needs_response", "__customer": charge["customer"],
    });
    charge["disputed"] = true.into();
    world.put(&charge);
    world.put(&dispute);
    world.emit("charge.dispute.created", &dispute);
    world.emit("charge.dispute.funds_withdrawn", &dispute);
    Ok(dispute)
}

/// A movement of the account's balance: in the currency in which that is settled.
fn movement(world: &mut World, amount: i64, fee: i64, charge: &Value, now: i64) -> Value {
    let (currency, amount, rate) = world.settings.settled(&text(charge, "currency"), amount);
    json!({
        "id": world.id("txn"), "object": "balance_transaction", "amount": amount, "available_on": now, "balance_type": "payments",
        "created": now, "currency": currency, "exchange_rate": rate, "fee": fee, "fee_details": [], "net": amount - fee,
        "reporting_category": "dispute", "source": charge["id"], "status": "available", "type": "adjustment",
    })
}

/// Decides a dispute: `won` gives the money back, `lost` does not.
pub(crate) fn close(world: &mut World, id: &str, won: bool) -> Answer {
    let mut dispute = world.get("dispute", id, "id")?;
    if dispute["status"] == "won" || dispute["status"] == "lost" {
        return Err(Failure::invalid("This dispute is already closed."));
    }
    dispute["status"] = if won { "won" } else { "lost" }.into();
    if won {
        let charge = world.related(&dispute, "charge");
        let now = world.now_of(&charge);
        let returned = movement(world, number(&dispute, "amount"), 0, &charge, now);
        if let Some(list) = dispute["balance_transactions"].as_array_mut() {
            list.push(returned);
        }
    }
    world.put(&dispute);
    world.emit("charge.dispute.closed", &dispute);
    if won {
        world.emit("charge.dispute.funds_reinstated", &dispute);
    }
    Ok(dispute)
}

/// The shop sends evidence.
pub(crate) fn update(call: &mut Call) -> Answer {
    let mut dispute = call.target("dispute")?;
    call.params.change_metadata(&mut dispute);
    if let Some(evidence) = call.params.tree("evidence").as_object() {
        for (name, value) in evidence {
            dispute["evidence"][name] = value.clone();
        }
        dispute["evidence_details"]["has_evidence"] = true.into();
    }
    if call.params.flag("submit")?.unwrap_or(call.params.has("evidence")) {
        dispute["status"] = "under_review".into();
        dispute["evidence_details"]["submission_count"] = (number(&dispute["evidence_details"], "submission_count") + 1).into();
    }
    call.world.update("charge.dispute.updated", &dispute);
    Ok(dispute)
}

/// The shop gives in.
pub(crate) fn accept(call: &mut Call) -> Answer {
    let id = text(&call.target("dispute")?, "id");
    close(call.world, &id, false)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("dispute")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "dispute", |dispute| page::matches(call, dispute, "charge payment_intent"))
}
