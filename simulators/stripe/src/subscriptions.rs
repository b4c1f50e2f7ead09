//! Subscriptions: from the first payment to the end.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::invoices::{self, New};
use crate::params::Params;
use crate::settings::AfterRetries;
use crate::world::{World, number, text};
use crate::{discounts, invoice_items, page, payment_methods};

mod changes;
pub(crate) mod items;
mod periods;

pub(crate) use changes::{preview, update};
pub(crate) use periods::due;

pub(crate) const FIELDS: &str = "items.id items.price items.price_data.* items.quantity items.deleted items.metadata.* \
    items.clear_usage proration_behavior proration_date trial_end cancel_at_period_end cancel_at default_payment_method metadata.* \
    pause_collection.behavior pause_collection.resumes_at discounts.coupon discounts.promotion_code description billing_cycle_anchor \
    payment_behavior off_session collection_method days_until_due trial_settings.end_behavior.missing_payment_method \
    cancellation_details.* payment_settings.* default_tax_rates automatic_tax.enabled trial_from_plan";
pub(crate) const NEW_FIELDS: &str = "customer currency items.price items.price_data.* items.quantity items.metadata.* \
    trial_end trial_period_days trial_settings.end_behavior.missing_payment_method cancel_at_period_end cancel_at \
    default_payment_method metadata.* discounts.coupon discounts.promotion_code description \
    payment_behavior off_session collection_method days_until_due payment_settings.* default_tax_rates automatic_tax.enabled \
    billing_mode.* trial_from_plan";
pub(crate) const PREVIEW_FIELDS: &str = "customer subscription currency preview_mode subscription_details.items.id \
    subscription_details.items.price subscription_details.items.price_data.* subscription_details.items.quantity \
    subscription_details.items.deleted subscription_details.items.metadata.* subscription_details.proration_behavior \
    subscription_details.proration_date subscription_details.trial_end subscription_details.cancel_at_period_end \
    subscription_details.cancel_at subscription_details.billing_cycle_anchor subscription_details.discounts.coupon \
    subscription_details.default_tax_rates";

const DAY: i64 = 86_400;

/// What is done about the first invoice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum First {
    /// It is collected; the customer may be away.
    Collect { off_session: bool },
    /// It waits for somebody who confirms its intent.
    Wait,
}

pub(crate) fn create(call: &mut Call) -> Answer {
    let customer = call.named("customer", "customer")?;
    let behaviors = ["allow_incomplete", "default_incomplete", "error_if_incomplete"];
    let behavior = call.params.one_of("payment_behavior", &behaviors)?.unwrap_or("allow_incomplete");
    let off_session = call.params.flag("off_session")?.unwrap_or(false);
    let first = if behavior == "default_incomplete" { First::Wait } else { First::Collect { off_session } };
    if behavior == "error_if_incomplete" {
        let id = call.params.text("default_payment_method").map(str::to_owned).or_else(|| payment_methods::default_of(&customer));
        let method = id.as_deref().and_then(|id| call.world.find(id)).cloned().unwrap_or_default();
        if let Some(failure) = payment_methods::card(&method).and_then(|card| card.decline()) {
            return Err(failure);
        }
    }
    start_from(call.world, &customer, call.params, first)
}

/// Starts a subscription as parameters of `POST /v1/subscriptions` say.
pub(crate) fn start_from(world: &mut World, customer: &Value, params: &Params, first: First) -> Answer {
    let entries = params.list("items");
    let made = entries.iter().map(|entry| items::from_params(world, entry)).collect::<Result<Vec<_>, _>>()?;
    if made.is_empty() {
        return Err(Failure::missing("items"));
    }
    start(world, customer, made, params, first)
}

/// Starts a subscription with items that exist already; the parameters say the rest.
pub(crate) fn start(world: &mut World, customer: &Value, made: Vec<Value>, params: &Params, first: First) -> Answer {
    must_agree(&made, customer["currency"].as_str())?;
    let now = world.now_of(customer);
    let currency = text(&made[0]["price"], "currency");
    let days = params.natural("trial_period_days")?.map(|days| now + days * DAY);
    let named = params.text("trial_end").filter(|end| *end != "now").map(|_| params.required_integer("trial_end")).transpose()?;
    let trial = named.or(days).filter(|end| *end > now);
    let anchor = trial.unwrap_or(now);
    let id = world.id("sub");
    let mut subscription = json!({
        "id": id, "object": "subscription", "application": null, "application_fee_percent": null,
        "automatic_tax": { "disabled_reason": null, "enabled": false, "liability": null }, "billing_cycle_anchor": anchor,
        "billing_cycle_anchor_config": null, "billing_mode": { "type": "flexible", "flexible": { "proration_discounts": "included" } },
        "billing_schedules": [], "billing_thresholds": null, "cancel_at": null, "cancel_at_period_end": false, "canceled_at": null,
        "cancellation_details": { "comment": null, "feedback": null, "reason": null }, "collection_method": "charge_automatically",
        "created": now, "currency": currency, "customer": customer["id"], "customer_account": null, "days_until_due": null,
        "default_payment_method": null, "default_source": null, "default_tax_rates": [], "description": null, "discounts": [],
        "ended_at": null, "invoice_settings": { "account_tax_ids": null, "issuer": { "type": "self" } }, "items": page::embedded(&[], ""),
        "latest_invoice": null, "livemode": false, "metadata": {}, "next_pending_invoice_item_invoice": null, "on_behalf_of": null,
        "pause_collection": null,
        "payment_settings": { "payment_method_options": null, "payment_method_types": null, "save_default_payment_method": "off" },
        "pending_invoice_item_interval": null, "pending_setup_intent": null, "pending_update": null, "schedule": null, "start_date": now,
        "status": "active", "test_clock": customer["test_clock"], "transfer_data": null, "trial_end": trial,
        "trial_settings": { "end_behavior": { "missing_payment_method": "create_invoice" } },
        "trial_start": trial.map(|_| now), "__tax_rates": [],
    });
    let end = periods::next_boundary(&subscription, &made, now);
    items::set(&mut subscription, made, (now, end));
    keep_choices(world, &mut subscription, params)?;
    let mut lines = invoice_items::take_pending(world, customer, &currency, Some(""));
    lines.extend(first_lines(world, &subscription, trial));
    let new = New { customer, subscription: &subscription, currency: &currency, reason: "subscription_create", lines, period: (now, now) };
    let invoice = invoices::draft(world, new);
    subscription["latest_invoice"] = invoice["id"].clone();
    subscription["discounts"] = discounts::that_go_on(world, &subscription["discounts"], now);
    let owes = number(&invoice, "amount_due") + number(customer, "balance") > 0;
    let automatic = subscription["collection_method"] == "charge_automatically";
    let status = if trial.is_some() {
        "trialing"
    } else if owes && automatic {
        "incomplete"
    } else {
        "active"
    };
    subscription["status"] = status.into();
    begin(world, customer, &subscription, &invoice, first);
    world.get("subscription", &id, "id")
}

fn begin(world: &mut World, customer: &Value, subscription: &Value, invoice: &Value, first: First) {
    if customer["currency"].is_null() {
        let mut known = customer.clone();
        known["currency"] = subscription["currency"].clone();
        world.put(&known);
    }
    world.put(subscription);
    world.emit("customer.subscription.created", subscription);
    activate_clockwork(world, subscription);
    world.put(invoice);
    world.emit("invoice.created", invoice);
    let mode = if let First::Collect { off_session } = first { Some(off_session) } else { None };
    // A refusal leaves the subscription incomplete, which its status says.
    let _ = invoices::collect_now(world, invoice, None, mode);
}

/// The lines of the first invoice: nothing is paid for a trial, but it is on the invoice.
fn first_lines(world: &mut World, subscription: &Value, trial: Option<i64>) -> Vec<Value> {
    let mut lines = items::lines_of(world, subscription, items::period(subscription), None);
    for line in lines.iter_mut().filter(|_| trial.is_some()) {
        line["amount"] = 0.into();
        line["subtotal"] = 0.into();
    }
    lines
}

/// One currency and one interval for all items.
fn must_agree(items: &[Value], currency: Option<&str>) -> Result<(), Failure> {
    let Some(first) = items.first() else {
        return Err(Failure::invalid("A subscription must have at least one active item.").param("items"));
    };
    for item in items {
        let (price, first) = (&item["price"], &first["price"]);
        if price["currency"] != first["currency"] || currency.is_some_and(|currency| price["currency"] != currency) {
            let message = "You cannot combine currencies on a single customer. This customer has had a subscription, coupon, or invoice item with another currency.";
            return Err(Failure::invalid(message).param("items"));
        }
        if ["interval", "interval_count"].iter().any(|field| price["recurring"][field] != first["recurring"][field]) {
            return Err(Failure::invalid("The simulator bills all items of a subscription at the same interval.").param("items"));
        }
    }
    Ok(())
}

/// Keeps what is the same at the start and later.
fn keep_choices(world: &mut World, subscription: &mut Value, params: &Params) -> Result<(), Failure> {
    params.change_metadata(subscription);
    params.change_texts(subscription, "description");
    if params.unsets("default_payment_method") {
        subscription["default_payment_method"] = Value::Null;
    } else if let Some(id) = params.text("default_payment_method") {
        let method = world.get("payment_method", id, "default_payment_method")?;
        if method["customer"] != subscription["customer"] {
            let message = "The customer does not have a payment method with the given ID.";
            return Err(Failure::invalid(message).param("default_payment_method"));
        }
        subscription["default_payment_method"] = method["id"].clone();
    }
    if let Some(way) = params.one_of("collection_method", &["charge_automatically", "send_invoice"])? {
        subscription["collection_method"] = way.into();
        subscription["days_until_due"] = params.natural("days_until_due")?.into();
    }
    if let Some(missing) = params.one_of("trial_settings.end_behavior.missing_payment_method", &["cancel", "create_invoice", "pause"])? {
        subscription["trial_settings"]["end_behavior"]["missing_payment_method"] = missing.into();
    }
    if params.has("default_tax_rates") {
        let ids = params.texts("default_tax_rates");
        let rates = ids.iter().map(|id| world.get("tax_rate", id, "default_tax_rates")).collect::<Result<Vec<_>, _>>()?;
        subscription["default_tax_rates"] = rates.into();
        subscription["__tax_rates"] = ids.into();
    }
    if params.has("discounts") {
        let customer = world.related(subscription, "customer");
        subscription["discounts"] = discounts::from_params(world, params, &customer)?.into();
    }
    if params.unsets("pause_collection") {
        subscription["pause_collection"] = Value::Null;
    } else if let Some(pause) = params.nested("pause_collection") {
        pause.required("behavior")?;
        let behavior = pause.one_of("behavior", &["keep_as_draft", "mark_uncollectible", "void"])?;
        subscription["pause_collection"] = json!({ "behavior": behavior, "resumes_at": pause.integer("resumes_at")? });
    }
    keep_end(subscription, params)
}

fn keep_end(subscription: &mut Value, params: &Params) -> Result<(), Failure> {
    if let Some(ends) = params.flag("cancel_at_period_end")? {
        subscription["cancel_at_period_end"] = ends.into();
        subscription["cancel_at"] = if ends { items::period(subscription).1.into() } else { Value::Null };
    }
    if params.unsets("cancel_at") {
        subscription["cancel_at"] = Value::Null;
    } else if let Some(at) = params.integer("cancel_at")? {
        subscription["cancel_at"] = at.into();
    }
    if let Some(details) = params.tree("cancellation_details").as_object() {
        for (name, value) in details {
            subscription["cancellation_details"][name] = value.clone();
        }
    }
    Ok(())
}

/// Has the subscription looked at whenever something may be due.
fn activate_clockwork(world: &mut World, subscription: &Value) {
    let mut instants = vec![Some(items::period(subscription).1), subscription["cancel_at"].as_i64()];
    instants.push(subscription["pause_collection"]["resumes_at"].as_i64());
    if subscription["status"] == "incomplete" {
        instants.push(Some(number(subscription, "created") + periods::PATIENCE));
    }
    if let Some(end) = subscription["trial_end"].as_i64().filter(|_| subscription["status"] == "trialing") {
        instants.push(Some(end - periods::TRIAL_NOTICE));
    }
    for at in instants.into_iter().flatten() {
        world.wake(subscription, at);
    }
}

pub(crate) fn cancel(call: &mut Call) -> Answer {
    let mut subscription = call.target("subscription")?;
    if subscription["status"] == "canceled" {
        return Err(Failure::no_such("subscription", call.id(), "id"));
    }
    keep_end(&mut subscription, call.params)?;
    cancel_now(call.world, &subscription);
    call.target("subscription")
}

/// Ends a subscription.
fn cancel_now(world: &mut World, subscription: &Value) {
    let mut ended = subscription.clone();
    let now = world.now_of(subscription);
    ended["status"] = "canceled".into();
    ended["ended_at"] = now.into();
    if ended["canceled_at"].is_null() {
        ended["canceled_at"] = now.into();
    }
    if ended["cancellation_details"]["reason"].is_null() {
        ended["cancellation_details"]["reason"] = "cancellation_requested".into();
    }
    world.put(&ended);
    world.emit("customer.subscription.deleted", &ended);
}

/// Ends all subscriptions of a customer that goes.
pub(crate) fn cancel_all_of(world: &mut World, customer: &str) {
    let running = |subscription: &&Value| subscription["customer"] == customer && subscription["ended_at"].is_null();
    let all: Vec<Value> = world.all("subscription").filter(running).cloned().collect();
    for subscription in &all {
        cancel_now(world, subscription);
    }
}

/// Goes on after a pause that a trial without a card ended in.
pub(crate) fn resume(call: &mut Call) -> Answer {
    let mut subscription = call.target("subscription")?;
    if subscription["status"] != "paused" {
        return Err(Failure::invalid("Only a paused subscription can be resumed."));
    }
    let now = call.world.now_of(&subscription);
    subscription["billing_cycle_anchor"] = now.into();
    let same = items::of(&subscription);
    items::set(&mut subscription, same, (now, now));
    subscription["status"] = "active".into();
    call.world.put(&subscription);
    call.world.emit("customer.subscription.resumed", &subscription);
    periods::renew(call.world, &subscription);
    call.target("subscription")
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("subscription")
}

/// Canceled ones only where they are asked for.
pub(crate) fn list(call: &mut Call) -> Answer {
    let status = call.params.text("status").map(str::to_owned);
    page::of(call, "subscription", |subscription| {
        let found = text(subscription, "status");
        let wanted = match status.as_deref() {
            Some("all") => true,
            Some("ended") => found == "canceled" || found == "incomplete_expired",
            Some(status) => found == status,
            None => found != "canceled" && found != "incomplete_expired",
        };
        let price = call.params.text("price").is_none_or(|id| items::of(subscription).iter().any(|item| item["price"]["id"] == id));
        wanted && price && page::matches(call, subscription, "customer collection_method test_clock")
    })
}

/// An invoice of a subscription was paid.
pub(crate) fn paid(world: &mut World, invoice: &Value) {
    let mut subscription = world.related(invoice, "__subscription");
    let behind = ["incomplete", "past_due", "unpaid"].contains(&text(&subscription, "status").as_str());
    let open = |world: &World| world.all("invoice").any(|other| other["__subscription"] == subscription["id"] && other["status"] == "open");
    if behind && !open(world) {
        subscription["status"] = "active".into();
        world.update("customer.subscription.updated", &subscription);
    }
}

/// An invoice of a subscription could not be collected; `last` says what the last try leads to.
pub(crate) fn unpaid(world: &mut World, invoice: &Value, last: Option<AfterRetries>) {
    let mut subscription = world.related(invoice, "__subscription");
    if !["active", "trialing", "past_due"].contains(&text(&subscription, "status").as_str()) {
        return;
    }
    subscription["status"] = if last == Some(AfterRetries::Unpaid) { "unpaid" } else { "past_due" }.into();
    world.update("customer.subscription.updated", &subscription);
    if last == Some(AfterRetries::Cancel) {
        subscription["cancellation_details"]["reason"] = "payment_failed".into();
        cancel_now(world, &subscription);
    }
}

/// Ends a subscription that is still there.
pub(crate) fn end(world: &mut World, id: &str) {
    if let Some(subscription) = world.find(id).filter(|subscription| subscription["ended_at"].is_null()).cloned() {
        cancel_now(world, &subscription);
    }
}

/// Exchanges all items for those of a schedule's phase.
pub(crate) fn go_over_to(world: &mut World, id: &str, phase: &Value) -> Result<(), Failure> {
    let subscription = world.get("subscription", id, "id")?;
    let gone = items::of(&subscription).into_iter().map(|item| json!({ "id": item["id"], "deleted": "true" }));
    let come = phase["items"].as_array().into_iter().flatten();
    let come = come.map(|item| json!({ "price": item["price"], "quantity": item["quantity"].to_string() }));
    let entries: Vec<Value> = gone.chain(come).collect();
    let sent = json!({ "items": entries, "proration_behavior": phase["proration_behavior"] });
    let params = Params::new(sent.as_object().cloned().unwrap_or_default());
    changes::apply(world, &subscription, &params).map(|_| ())
}
