//! Invoices: draft, open, then paid, void or uncollectible.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::world::{World, number, text};
use crate::{invoice_items, page, payment_methods, subscriptions};

mod collection;
pub(crate) mod lines;
pub(crate) mod pages;

pub(crate) use collection::{collect_now, due, paid_by, refused_by, void as void_invoice};

pub(crate) const FIELDS: &str = "auto_advance collection_method days_until_due default_payment_method default_tax_rates description \
    discounts.coupon discounts.promotion_code footer metadata.* payment_settings.*";
pub(crate) const NEW_FIELDS: &str = "auto_advance collection_method currency customer days_until_due default_payment_method \
    default_tax_rates description discounts.coupon discounts.promotion_code footer metadata.* payment_settings.* \
    pending_invoice_items_behavior subscription automatic_tax.enabled";

const HOUR: i64 = 3600;

/// What a new invoice is about.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) customer: &'a Value,
    /// Null for one of no subscription.
    pub(crate) subscription: &'a Value,
    pub(crate) currency: &'a str,
    pub(crate) reason: &'a str,
    pub(crate) lines: Vec<Value>,
    pub(crate) period: (i64, i64),
}

/// Makes a draft; it is not kept, so that a preview is one too.
pub(crate) fn draft(world: &mut World, new: New) -> Value {
    let New { customer, subscription, currency, reason, lines, period } = new;
    let now = world.now_of(customer);
    let parent = if subscription.is_null() {
        Value::Null
    } else {
        json!({ "type": "subscription_details", "quote_details": null,
            "subscription_details": { "metadata": subscription["metadata"], "subscription": subscription["id"] } })
    };
    let collection = subscription["collection_method"].as_str().unwrap_or("charge_automatically");
    let mut invoice = json!({
        "id": world.id("in"), "object": "invoice", "account_country": "US", "account_name": "Simulator", "account_tax_ids": null,
        "amount_due": 0, "amount_overpaid": 0, "amount_paid": 0, "amount_remaining": 0, "amount_shipping": 0, "application": null,
        "attempt_count": 0, "attempted": false, "auto_advance": true,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null, "provider": null, "status": null },
        "automatically_finalizes_at": now + HOUR, "billing_reason": reason, "collection_method": collection, "created": now,
        "currency": currency, "custom_fields": null, "customer": customer["id"], "customer_address": customer["address"],
        "customer_email": customer["email"], "customer_name": customer["name"], "customer_phone": customer["phone"],
        "customer_shipping": null, "customer_tax_exempt": customer["tax_exempt"], "customer_tax_ids": [],
        "default_payment_method": subscription["default_payment_method"], "default_source": null, "default_tax_rates": [],
        "description": null, "discounts": subscription["discounts"].as_array().cloned().unwrap_or_default(), "due_date": null,
        "effective_at": null, "ending_balance": null, "footer": null, "from_invoice": null, "hosted_invoice_url": null,
        "invoice_pdf": null, "issuer": { "type": "self" }, "last_finalization_error": null, "latest_revision": null,
        "lines": page::embedded(&lines, ""), "livemode": false, "metadata": {}, "next_payment_attempt": now + HOUR, "number": null,
        "on_behalf_of": null, "parent": parent,
        "payment_settings": { "default_mandate": null, "payment_method_options": null, "payment_method_types": null },
        "period_end": period.1, "period_start": period.0, "post_payment_credit_notes_amount": 0, "pre_payment_credit_notes_amount": 0,
        "receipt_number": null, "rendering": null, "shipping_cost": null, "shipping_details": null,
        "starting_balance": customer["balance"], "statement_descriptor": null, "status": "draft",
        "status_transitions": { "finalized_at": null, "marked_uncollectible_at": null, "paid_at": null, "voided_at": null },
        "subtotal": 0, "subtotal_excluding_tax": 0, "test_clock": customer["test_clock"], "total": 0, "total_discount_amounts": [],
        "total_excluding_tax": 0, "total_pretax_credit_amounts": [], "total_taxes": [], "webhooks_delivered_at": now,
        "__payments": page::embedded(&[], "/v1/invoice_payments"), "__intent": null, "__subscription": subscription["id"],
        "__tax_rates": subscription["__tax_rates"].as_array().cloned().unwrap_or_default(), "__confirmation_secret": null,
    });
    if let Some(days) = subscription["days_until_due"].as_i64() {
        invoice["due_date"] = (now + days * 24 * HOUR).into();
    }
    lines::sum_up(world, &mut invoice);
    invoice
}

/// Keeps a draft and has it finalized in an hour.
pub(crate) fn keep(world: &mut World, invoice: &Value) {
    world.put(invoice);
    world.emit("invoice.created", invoice);
    if invoice["auto_advance"] == true {
        world.wake(invoice, number(invoice, "automatically_finalizes_at"));
    }
}

pub(crate) fn create(call: &mut Call) -> Answer {
    let customer = call.named("customer", "customer")?;
    let subscription = call.maybe_named("subscription", "subscription")?.unwrap_or_default();
    let asked = call.params.text("currency").map(|currency| crate::money::currency(currency, "currency")).transpose()?;
    let currency = asked.or_else(|| customer["currency"].as_str().map(str::to_owned)).unwrap_or_else(|| "usd".to_owned());
    let includes = call.params.text("pending_invoice_items_behavior") == Some("include") || !subscription.is_null();
    let mut invoice = draft(
        call.world,
        New {
            customer: &customer,
            subscription: &subscription,
            currency: &currency,
            reason: "manual",
            lines: Vec::new(),
            period: (call.world.now_of(&customer), call.world.now_of(&customer)),
        },
    );
    if includes {
        let pending = invoice_items::take_pending(call.world, &customer, &currency, Some(&text(&invoice, "id")));
        invoice["lines"] = page::embedded(&pending, "");
    }
    invoice["auto_advance"] = call.params.flag("auto_advance")?.unwrap_or(false).into();
    invoice["__automatic_tax"] = call.params.flag("automatic_tax.enabled")?.into();
    if invoice["auto_advance"] == false {
        invoice["automatically_finalizes_at"] = Value::Null;
        invoice["next_payment_attempt"] = Value::Null;
    }
    change(call, &mut invoice)?;
    keep(call.world, &invoice);
    Ok(invoice)
}

fn change(call: &mut Call, invoice: &mut Value) -> Result<(), Failure> {
    call.params.change_texts(invoice, "description footer");
    call.params.change_metadata(invoice);
    if let Some(method) = call.maybe_named("payment_method", "default_payment_method")? {
        invoice["default_payment_method"] = method["id"].clone();
    }
    if let Some(way) = call.params.one_of("collection_method", &["charge_automatically", "send_invoice"])? {
        invoice["collection_method"] = way.into();
        if way == "send_invoice" {
            let days = call.params.natural("days_until_due")?.ok_or_else(|| Failure::missing("days_until_due"))?;
            invoice["due_date"] = (number(invoice, "created") + days * 86_400).into();
        }
    }
    if call.params.has("default_tax_rates") {
        let ids = call.params.texts("default_tax_rates");
        let rates = ids.iter().map(|id| call.world.get("tax_rate", id, "default_tax_rates")).collect::<Result<Vec<_>, _>>()?;
        invoice["default_tax_rates"] = rates.into();
        invoice["__tax_rates"] = ids.into();
    }
    if call.params.has("discounts") {
        let customer = call.world.related(invoice, "customer");
        invoice["discounts"] = crate::discounts::from_params(call.world, call.params, &customer)?.into();
    }
    lines::sum_up(call.world, invoice);
    Ok(())
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut invoice = call.target("invoice")?;
    if invoice["status"] == "draft" {
        change(call, &mut invoice)?;
    } else {
        call.params.change_metadata(&mut invoice);
    }
    call.params.change_flags(&mut invoice, "auto_advance")?;
    call.world.update("invoice.updated", &invoice);
    Ok(invoice)
}

pub(crate) fn finalize(call: &mut Call) -> Answer {
    let invoice = call.target("invoice")?;
    must_be(&invoice, &["draft"])?;
    let advance = call.params.flag("auto_advance")?;
    let mut invoice = collection::finalize(call.world, &invoice);
    if let Some(advance) = advance {
        invoice["auto_advance"] = advance.into();
        if advance && invoice["status"] == "open" && invoice["collection_method"] == "charge_automatically" {
            let at = call.world.now_of(&invoice) + HOUR;
            invoice["next_payment_attempt"] = at.into();
            call.world.wake(&invoice, at);
        }
        call.world.put(&invoice);
    }
    Ok(invoice)
}

pub(crate) fn pay(call: &mut Call) -> Answer {
    let mut invoice = call.target("invoice")?;
    if invoice["status"] == "paid" {
        return Err(Failure::invalid("Invoice is already paid").code("invoice_already_paid"));
    }
    must_be(&invoice, &["draft", "open", "uncollectible"])?;
    if invoice["status"] == "draft" {
        invoice = collection::finalize(call.world, &invoice);
    }
    if call.params.flag("paid_out_of_band")? == Some(true) {
        return Ok(collection::settle(call.world, &invoice, number(&invoice, "amount_remaining"), &Value::Null));
    }
    let method = call.params.text("payment_method").map(|id| payment_methods::resolve(call.world, id, "payment_method")).transpose()?;
    let off_session = call.params.flag("off_session")?.unwrap_or(true);
    collection::attempt(call.world, &text(&invoice, "id"), method, off_session)?;
    call.target("invoice")
}

pub(crate) fn void(call: &mut Call) -> Answer {
    let invoice = call.target("invoice")?;
    must_be(&invoice, &["open", "uncollectible"])?;
    if call.world.related(&invoice, "__intent")["status"] == "processing" {
        return Err(
            Failure::invalid("You cannot void an invoice whose payment is processing.").code("invoice_payment_intent_requires_action")
        );
    }
    Ok(collection::void(call.world, &invoice))
}

pub(crate) fn mark_uncollectible(call: &mut Call) -> Answer {
    let invoice = call.target("invoice")?;
    must_be(&invoice, &["open"])?;
    Ok(collection::give_up(call.world, &invoice))
}

/// Only drafts are deleted.
pub(crate) fn delete(call: &mut Call) -> Answer {
    let invoice = call.target("invoice")?;
    must_be(&invoice, &["draft"])?;
    invoice_items::give_back(call.world, &text(&invoice, "id"));
    call.world.emit("invoice.deleted", &invoice);
    Ok(call.world.delete(&text(&invoice, "id")))
}

/// Nothing is left to pay of an open invoice.
pub(crate) fn settle_nothing(world: &mut World, invoice: &Value) {
    collection::settle(world, invoice, 0, &Value::Null);
}

fn must_be(invoice: &Value, allowed: &[&str]) -> Result<(), Failure> {
    let status = text(invoice, "status");
    if allowed.contains(&status.as_str()) {
        return Ok(());
    }
    let message = format!("This invoice's status is {status}; it must be {} for that.", allowed.join(" or "));
    Err(Failure::invalid(message).code("invoice_not_editable"))
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("invoice")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "invoice", |invoice| {
        let subscription = call.params.text("subscription").is_none_or(|id| invoice["__subscription"] == id);
        subscription && page::matches(call, invoice, "collection_method customer status")
    })
}

pub(crate) fn list_lines(call: &mut Call) -> Answer {
    let invoice = call.target("invoice")?;
    let all = invoice["lines"]["data"].as_array().cloned().unwrap_or_default();
    page::cut(call, &all.iter().collect::<Vec<_>>())
}

pub(crate) fn list_payments(call: &mut Call) -> Answer {
    page::of(call, "invoice_payment", |payment| {
        let by_intent = call.params.text("payment.payment_intent").is_none_or(|id| payment["payment"]["payment_intent"] == id);
        by_intent && page::matches(call, payment, "invoice status")
    })
}

/// What an invoice would be: of the subscription's next renewal, with the changes that are asked for.
pub(crate) fn create_preview(call: &mut Call) -> Answer {
    subscriptions::preview(call)
}
