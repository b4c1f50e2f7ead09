//! How an invoice is finalized, collected, retried and given up.

use serde_json::{Value, json};

use crate::call::Answer;
use crate::error::Failure;
use crate::payments::{self, Mode};
use crate::settings::AfterRetries;
use crate::world::{World, number, text};
use crate::{balance, money, page, payment_methods, subscriptions};

const DAY: i64 = 86_400;

/// Gives a draft its number, settles it with the customer's balance, and asks for what is left. What is less than any card is charged waits
/// on the balance for the next invoice, and counts as paid.
pub(super) fn finalize(world: &mut World, draft: &Value) -> Value {
    let mut invoice = draft.clone();
    let customer = world.related(&invoice, "customer");
    let now = world.now_of(&invoice);
    world.invoice_number += 1;
    let (total, start) = (number(&invoice, "total"), number(&customer, "balance"));
    let (owed, currency) = (total.saturating_add(start), text(&invoice, "currency"));
    let is_too_small = (1..money::minimum(&currency)).contains(&owed);
    let (end, due) = if is_too_small { (owed, 0) } else { (owed.min(0), owed.max(0)) };
    invoice["number"] = format!("{}-{:04}", text(&customer, "invoice_prefix"), world.invoice_number).into();
    invoice["status"] = "open".into();
    invoice["status_transitions"]["finalized_at"] = now.into();
    invoice["effective_at"] = now.into();
    invoice["automatically_finalizes_at"] = Value::Null;
    invoice["next_payment_attempt"] = Value::Null;
    invoice["starting_balance"] = start.into();
    invoice["ending_balance"] = end.into();
    invoice["amount_due"] = due.into();
    invoice["amount_remaining"] = due.into();
    let page = format!("{}/invoices/{}", world.public_url, text(&invoice, "id"));
    invoice["invoice_pdf"] = format!("{page}/pdf").into();
    invoice["hosted_invoice_url"] = page.into();
    let of = [("invoice", invoice["id"].clone())];
    let applied = owed.min(0) - start;
    if applied != 0 {
        balance::add(world, &customer, applied, &currency, "applied_to_invoice", &of);
    }
    if is_too_small {
        let customer = world.related(&invoice, "customer");
        balance::add(world, &customer, owed, &currency, "invoice_too_small", &of);
    }
    if due > 0 {
        want_payment(world, &mut invoice, &customer);
    }
    world.put(&invoice);
    world.emit("invoice.finalized", &invoice);
    if due == 0 { settle(world, &invoice, 0, &Value::Null) } else { invoice }
}

/// Makes the intent that an open invoice is paid with.
fn want_payment(world: &mut World, invoice: &mut Value, customer: &Value) {
    let mut intent = payments::make(world, customer, number(invoice, "amount_due"), &text(invoice, "currency"));
    intent["__invoice"] = invoice["id"].clone();
    intent["description"] = if invoice["__subscription"].is_null() { "Payment for Invoice" } else { "Subscription payment" }.into();
    world.put(&intent);
    world.emit("payment_intent.created", &intent);
    let payment = json!({
        "id": world.id("inpay"), "object": "invoice_payment", "amount_paid": null, "amount_requested": invoice["amount_due"],
        "created": intent["created"], "currency": invoice["currency"], "invoice": invoice["id"], "is_default": true, "livemode": false,
        "payment": { "type": "payment_intent", "payment_intent": intent["id"] }, "status": "open",
        "status_transitions": { "canceled_at": null, "paid_at": null },
    });
    world.put(&payment);
    invoice["__intent"] = intent["id"].clone();
    invoice["__confirmation_secret"] = json!({ "type": "payment_intent", "client_secret": intent["client_secret"] });
    invoice["__payments"] = page::embedded(&[payment], "/v1/invoice_payments");
}

/// Tries to collect an open invoice once, with a method or with the default one.
pub(crate) fn attempt(world: &mut World, id: &str, method: Option<Value>, off_session: bool) -> Result<(), Failure> {
    let mut invoice = world.get("invoice", id, "id")?;
    if invoice["status"] != "open" && invoice["status"] != "uncollectible" {
        return Ok(());
    }
    invoice["attempted"] = true.into();
    invoice["next_payment_attempt"] = Value::Null;
    invoice["attempt_count"] = (number(&invoice, "attempt_count") + 1).into();
    world.put(&invoice);
    let outcome = match method.or_else(|| default_method(world, &invoice)) {
        Some(method) => {
            let intent = world.related(&invoice, "__intent");
            payments::charge(world, &intent, &method, Mode { authenticated: false, off_session })
        }
        None => Err(no_method()),
    };
    let invoice = world.get("invoice", id, "id")?;
    match outcome {
        Ok(intent) if intent["status"] == "succeeded" => Ok(()),
        // On its way: what becomes of it, a later event tells.
        Ok(intent) if intent["status"] == "processing" => {
            world.emit("invoice.updated", &invoice);
            Ok(())
        }
        Ok(_) => {
            world.emit("invoice.payment_action_required", &invoice);
            failed(world, &invoice);
            Ok(())
        }
        Err(failure) => {
            if failure.error.get("code").is_some_and(|code| code == "authentication_required") {
                world.emit("invoice.payment_action_required", &invoice);
            }
            failed(world, &invoice);
            Err(failure)
        }
    }
}

fn no_method() -> Failure {
    let message =
        "This customer has no attached payment source or default payment method. Please consider adding a default payment method.";
    Failure::invalid(message).code("resource_missing")
}

/// The invoice's method, else the subscription's, else the customer's.
fn default_method(world: &World, invoice: &Value) -> Option<Value> {
    let subscription = world.related(invoice, "__subscription");
    let customer = world.related(invoice, "customer");
    let named = [invoice["default_payment_method"].as_str(), subscription["default_payment_method"].as_str()];
    let id = named.into_iter().flatten().next().map(str::to_owned).or_else(|| payment_methods::default_of(&customer))?;
    world.find(&id).cloned()
}

/// Plans the next try, or ends the tries.
fn failed(world: &mut World, invoice: &Value) {
    let mut invoice = invoice.clone();
    let now = world.now_of(&invoice);
    let tries = usize::try_from(number(&invoice, "attempt_count") - 1).unwrap_or_default();
    // The first invoice of a subscription is not retried: the subscription waits for 23 hours.
    let retried = invoice["billing_reason"] != "subscription_create" && invoice["auto_advance"] == true;
    let next = world.settings.retry_days.get(tries).filter(|_| retried).map(|days| now + days * DAY);
    invoice["next_payment_attempt"] = next.into();
    world.put(&invoice);
    world.emit("invoice.payment_failed", &invoice);
    if let Some(next) = next {
        world.wake(&invoice, next);
    }
    let last = if retried && next.is_none() { Some(world.settings.after_retries) } else { None };
    subscriptions::unpaid(world, &invoice, last.filter(|last| *last != AfterRetries::PastDue));
}

/// An intent of an invoice has succeeded.
pub(crate) fn paid_by(world: &mut World, id: &str, intent: &Value) {
    if let Ok(invoice) = world.get("invoice", id, "id") {
        settle(world, &invoice, number(intent, "amount_received"), &intent["id"]);
    }
}

/// An intent of an invoice was on its way, and came back.
pub(crate) fn refused_by(world: &mut World, id: &str) {
    if let Ok(invoice) = world.get("invoice", id, "id") {
        failed(world, &invoice);
    }
}

/// Marks an invoice as paid.
pub(super) fn settle(world: &mut World, invoice: &Value, amount: i64, intent: &Value) -> Value {
    let mut invoice = invoice.clone();
    let now = world.now_of(&invoice);
    invoice["status"] = "paid".into();
    invoice["attempted"] = true.into();
    invoice["amount_paid"] = amount.into();
    invoice["amount_remaining"] = 0.into();
    invoice["next_payment_attempt"] = Value::Null;
    invoice["status_transitions"]["paid_at"] = now.into();
    if let Some(payment) = invoice["__payments"]["data"].get_mut(0) {
        let paid = !intent.is_null();
        payment["status"] = if paid { "paid" } else { "canceled" }.into();
        payment["amount_paid"] = if paid { amount.into() } else { Value::Null };
        payment["status_transitions"][if paid { "paid_at" } else { "canceled_at" }] = now.into();
        let payment = payment.clone();
        world.put(&payment);
        world.emit("invoice_payment.paid", &payment);
    }
    world.put(&invoice);
    world.emit("invoice.paid", &invoice);
    world.emit("invoice.payment_succeeded", &invoice);
    subscriptions::paid(world, &invoice);
    invoice
}

/// Voids an invoice: nothing is owed, its intent is given up, and what the customer's balance had paid of it is there again.
pub(crate) fn void(world: &mut World, invoice: &Value) -> Value {
    let applied = invoice["ending_balance"].as_i64().unwrap_or_default() - number(invoice, "starting_balance");
    if applied != 0 && invoice["ending_balance"].is_i64() {
        let customer = world.related(invoice, "customer");
        let of = [("invoice", invoice["id"].clone())];
        balance::add(world, &customer, -applied, &text(invoice, "currency"), "unapplied_from_invoice", &of);
    }
    end(world, invoice, "void", "voided_at", "invoice.voided")
}

/// Stops asking, without forgiving.
pub(super) fn give_up(world: &mut World, invoice: &Value) -> Value {
    end(world, invoice, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible")
}

fn end(world: &mut World, invoice: &Value, status: &str, field: &str, event: &str) -> Value {
    let mut invoice = invoice.clone();
    let mut intent = world.related(&invoice, "__intent");
    if status == "void" && !intent.is_null() && intent["status"] != "succeeded" {
        payments::cancel_intent(world, &mut intent);
    }
    invoice["status"] = status.into();
    invoice["auto_advance"] = false.into();
    invoice["next_payment_attempt"] = Value::Null;
    invoice["status_transitions"][field] = world.now_of(&invoice).into();
    world.put(&invoice);
    world.emit(event, &invoice);
    invoice
}

/// Finalizes and collects in one go, as with the first invoice of a subscription.
pub(crate) fn collect_now(world: &mut World, draft: &Value, method: Option<Value>, mode: Option<bool>) -> Answer {
    let invoice = finalize(world, draft);
    if let Some(off_session) = mode.filter(|_| invoice["status"] == "open" && invoice["collection_method"] == "charge_automatically") {
        attempt(world, &text(&invoice, "id"), method, off_session)?;
    }
    world.get("invoice", &text(&invoice, "id"), "id")
}

/// Does what the clock makes due: an hour after a draft, and at each retry.
pub(crate) fn due(world: &mut World, invoice: &Value) {
    let now = world.now_of(invoice);
    let reached = |field: &str| invoice[field].as_i64().is_some_and(|at| at <= now);
    if invoice["auto_advance"] != true {
        return;
    }
    let pause = text(&world.related(invoice, "__subscription")["pause_collection"], "behavior");
    // How it went is in the events; there is nobody to tell.
    match text(invoice, "status").as_str() {
        "draft" if reached("automatically_finalizes_at") => match pause.as_str() {
            "void" | "mark_uncollectible" => {
                let open = finalize(world, invoice);
                let _ = if pause == "void" { void(world, &open) } else { give_up(world, &open) };
            }
            _ => {
                let _ = collect_now(world, invoice, None, Some(true));
            }
        },
        "open" if reached("next_payment_attempt") => {
            let _ = attempt(world, &text(invoice, "id"), None, true);
        }
        _ => {}
    }
}
