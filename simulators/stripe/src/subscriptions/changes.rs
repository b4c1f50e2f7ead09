//! Changes of a running subscription, and what they cost.

use serde_json::{Value, json};

use super::{activate_clockwork, cancel_now, items, keep_choices, periods};
use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::invoices::{self, New};
use crate::params::Params;
use crate::world::{World, looks_like, number, text};
use crate::{invoice_items, money, page, prices};

pub(crate) fn update(call: &mut Call) -> Answer {
    let subscription = call.target("subscription")?;
    let changed = apply(call.world, &subscription, call.params)?;
    Ok(changed)
}

/// Changes a subscription as the parameters say; the same for a preview, on a copy of the account.
pub(super) fn apply(world: &mut World, subscription: &Value, params: &Params) -> Answer {
    if ["canceled", "incomplete_expired"].contains(&text(subscription, "status").as_str()) {
        let message = "A canceled subscription can only update its cancellation_details and metadata.";
        return Err(Failure::invalid(message));
    }
    let mut changed = subscription.clone();
    let now = world.now_of(subscription);
    keep_choices(world, &mut changed, params)?;
    if params.has("cancel_at_period_end") || params.has("cancel_at") {
        changed["canceled_at"] = if changed["cancel_at"].is_null() { Value::Null } else { now.into() };
    }
    let ends_trial = params.text("trial_end") == Some("now") && changed["status"] == "trialing";
    if let Some(end) = params.text("trial_end").filter(|end| *end != "now") {
        let end: i64 = end.parse().map_err(|_| Failure::invalid("Invalid timestamp: trial_end").param("trial_end"))?;
        lengthen_trial(world, &mut changed, end, now)?;
    }
    let wanted = wanted_items(world, &changed, params)?;
    let behavior = params.one_of("proration_behavior", &["create_prorations", "always_invoice", "none"])?.unwrap_or("create_prorations");
    let at = params.integer("proration_date")?.unwrap_or(now);
    let billed = if ends_trial {
        changed["trial_end"] = now.into();
        changed["billing_cycle_anchor"] = now.into();
        Some(switch(world, &mut changed, wanted, now, false))
    } else if wanted == items::of(&changed) && params.text("billing_cycle_anchor") != Some("now") {
        None
    } else {
        exchange(world, &mut changed, wanted, behavior, at, params.text("billing_cycle_anchor") == Some("now"))
    };
    world.put(&changed);
    if let Some(draft) = billed {
        collect(world, &mut changed, &draft, params)?;
    }
    if !looks_like(subscription, &changed) {
        world.emit_change("customer.subscription.updated", &changed, Some(subscription));
    }
    activate_clockwork(world, &changed);
    if changed["cancel_at"].as_i64().is_some_and(|at| at <= now) {
        cancel_now(world, &changed);
    }
    world.get("subscription", &text(&changed, "id"), "id")
}

/// Makes the invoice of a change at once; a refusal leaves the subscription past due, unless an error was asked for.
fn collect(world: &mut World, changed: &mut Value, draft: &Value, params: &Params) -> Result<(), Failure> {
    world.put(draft);
    world.emit("invoice.created", draft);
    changed["latest_invoice"] = draft["id"].clone();
    world.put(changed);
    let off_session = params.flag("off_session")?.unwrap_or(false);
    let outcome = invoices::collect_now(world, draft, None, Some(off_session));
    if let (Err(failure), Some("error_if_incomplete")) = (outcome, params.text("payment_behavior")) {
        return Err(Failure { takes_back: true, ..failure });
    }
    *changed = world.get("subscription", &text(changed, "id"), "id")?;
    Ok(())
}

fn lengthen_trial(world: &World, changed: &mut Value, end: i64, now: i64) -> Result<(), Failure> {
    if end <= now {
        return Err(Failure::invalid("Invalid timestamp: must be an integer Unix timestamp in the future.").param("trial_end"));
    }
    if changed["trial_start"].is_null() || changed["status"] != "trialing" {
        changed["trial_start"] = world.now_of(changed).into();
    }
    changed["trial_end"] = end.into();
    changed["billing_cycle_anchor"] = end.into();
    changed["status"] = "trialing".into();
    let start = items::period(changed).0;
    let same = items::of(changed);
    items::set(changed, same, (start, end));
    Ok(())
}

/// The items after the entries of `items` were applied.
fn wanted_items(world: &mut World, subscription: &Value, params: &Params) -> Result<Vec<Value>, Failure> {
    let mut wanted = items::of(subscription);
    for entry in params.list("items") {
        let Some(id) = entry.text("id") else {
            let mut added = items::from_params(world, &entry)?;
            if wanted.iter().any(|item| item["price"]["id"] == added["price"]["id"]) {
                return Err(Failure::invalid("Cannot add multiple subscription items with the same price.").param("items"));
            }
            added["subscription"] = subscription["id"].clone();
            wanted.push(added);
            continue;
        };
        let place =
            wanted.iter().position(|item| item["id"] == id).ok_or_else(|| Failure::no_such("subscription item", id, "items.0.id"))?;
        if entry.flag("deleted")? == Some(true) {
            wanted.remove(place);
            continue;
        }
        let item = &mut wanted[place];
        if entry.has("price") || entry.has("price_data") {
            let fresh = items::from_params(world, &entry)?;
            for field in ["price", "plan"] {
                item[field] = fresh[field].clone();
            }
            item["quantity"] = if entry.has("quantity") || item["quantity"].is_null() || fresh["quantity"].is_null() {
                fresh["quantity"].clone()
            } else {
                item["quantity"].clone()
            };
        } else if let Some(quantity) = entry.natural("quantity")? {
            item["quantity"] = quantity.into();
        }
        entry.change_metadata(item);
    }
    super::must_agree(&wanted, subscription["currency"].as_str())?;
    Ok(wanted)
}

/// Exchanges the items; the draft that is due at once, if one is.
fn exchange(world: &mut World, changed: &mut Value, wanted: Vec<Value>, behavior: &str, at: i64, resets: bool) -> Option<Value> {
    let interval = |items: &[Value]| {
        items.first().map(|item| (item["price"]["recurring"]["interval"].clone(), item["price"]["recurring"]["interval_count"].clone()))
    };
    let (start, end) = items::period(changed);
    let old = items::of(changed);
    let resets = resets || interval(&old) != interval(&wanted);
    let running = changed["status"] != "trialing" && changed["status"] != "incomplete";
    let at = at.clamp(start, end);
    if running && behavior != "none" {
        prorate(world, changed, &old, &wanted, (at, start, end), resets);
    }
    if resets && running {
        changed["billing_cycle_anchor"] = at.into();
        return Some(switch(world, changed, wanted, at, behavior != "none"));
    }
    items::set(changed, wanted, (start, end));
    if behavior != "always_invoice" || !running {
        return None;
    }
    let customer = world.related(changed, "customer");
    let currency = text(changed, "currency");
    let new = New {
        customer: &customer,
        subscription: changed,
        currency: &currency,
        reason: "subscription_update",
        lines: Vec::new(),
        period: (at, at),
    };
    Some(with_pending(world, new, Vec::new()))
}

/// Begins a new period at an instant, with its invoice.
fn switch(world: &mut World, changed: &mut Value, wanted: Vec<Value>, at: i64, pending: bool) -> Value {
    let end = periods::next_boundary(changed, &wanted, at);
    items::set(changed, wanted, (at, end));
    changed["status"] = "active".into();
    let lines = items::lines_of(world, changed, (at, end), None);
    let customer = world.related(changed, "customer");
    let currency = text(changed, "currency");
    let new =
        New { customer: &customer, subscription: changed, currency: &currency, reason: "subscription_update", lines, period: (at, at) };
    if pending { with_pending(world, new, Vec::new()) } else { invoices::draft(world, new) }
}

fn with_pending(world: &mut World, mut new: New, more: Vec<Value>) -> Value {
    let (customer, currency) = (new.customer.clone(), new.currency.to_owned());
    let own = std::mem::take(&mut new.lines);
    let mut invoice = invoices::draft(world, new);
    let mut lines = invoice_items::take_pending(world, &customer, &currency, Some(&text(&invoice, "id")));
    lines.extend(own);
    lines.extend(more);
    invoice["lines"] = page::embedded(&lines, "");
    invoices::lines::sum_up(world, &mut invoice);
    invoice
}

/// Leaves credit for the unused time of what goes, and charges for the time left of what comes, as items that wait.
fn prorate(world: &mut World, subscription: &Value, old: &[Value], wanted: &[Value], (at, start, end): (i64, i64, i64), resets: bool) {
    let part = |item: &Value| {
        let whole = prices::cost(&item["price"], number(item, "quantity"));
        money::ratio(whole, i128::from(end - at), i128::from(end - start))
    };
    let same = |one: &Value, other: &Value| {
        one["id"] == other["id"] && one["price"]["id"] == other["price"]["id"] && one["quantity"] == other["quantity"]
    };
    let gone = old.iter().filter(|item| resets || !wanted.iter().any(|other| same(item, other)));
    let come = wanted.iter().filter(|item| !resets && !old.iter().any(|other| same(item, other)));
    let credit = gone.map(|item| (item, -part(item), "Unused time on"));
    let charge = come.map(|item| (item, part(item), "Remaining time on"));
    let customer = world.related(subscription, "customer");
    for (item, amount, what) in credit.chain(charge).collect::<Vec<_>>() {
        if amount == 0 {
            continue;
        }
        let product = text(&world.related(&item["price"], "product"), "name");
        let mut pending = invoice_items::make(world, &customer, amount, &text(subscription, "currency"), (at, end));
        pending["description"] = format!("{what} {} × {product}", number(item, "quantity")).into();
        pending["discountable"] = false.into();
        pending["proration"] = true.into();
        pending["quantity"] = item["quantity"].clone();
        pending["pricing"] = invoices::lines::pricing(&item["price"]);
        pending["parent"] = json!({ "type": "subscription_details", "subscription_details": { "subscription": subscription["id"], "subscription_item": item["id"] } });
        pending["__of"] = json!({ "subscription": subscription["id"], "item": item["id"] });
        world.put(&pending);
        world.emit("invoiceitem.created", &pending);
    }
}

/// What the next invoice would be, also after a change: all is done on a copy of the account.
pub(crate) fn preview(call: &mut Call) -> Answer {
    let mut sketch = call.world.sketch();
    let details = call.params.nested("subscription_details").unwrap_or_default();
    let mut invoice = if let Some(subscription) = call.maybe_named("subscription", "subscription")? {
        let changed = apply(&mut sketch, &subscription, &details)?;
        if changed["latest_invoice"] == subscription["latest_invoice"] {
            if changed["cancel_at_period_end"] == true {
                return Err(Failure::invalid("No upcoming invoices for customer").code("invoice_upcoming_none"));
            }
            let ended = items::period(&changed);
            let period = (ended.1, periods::next_boundary(&changed, &items::of(&changed), ended.1));
            periods::renewal(&mut sketch, &changed, period, Some(ended), false)
        } else {
            // The change is billed at once: that invoice, as it was before it was collected.
            sketch.related(&changed, "latest_invoice")
        }
    } else {
        let customer = call.named("customer", "customer")?;
        let started = super::start_from(&mut sketch, &customer, &details, super::First::Wait)?;
        sketch.related(&started, "latest_invoice")
    };
    invoice["id"] = text(&invoice, "id").replacen("in_", "upcoming_in_", 1).into();
    for (field, value) in [("status", json!("draft")), ("number", Value::Null), ("amount_paid", 0.into()), ("attempted", false.into())] {
        invoice[field] = value;
    }
    invoice["amount_remaining"] = invoice["amount_due"].clone();
    Ok(invoice)
}
