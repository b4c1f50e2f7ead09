//! Subscription schedules: phases of items that a subscription goes through, one after the other.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::params::Params;
use crate::subscriptions::{self, First, items};
use crate::world::{World, number, text};

pub(crate) const FIELDS: &str = "end_behavior metadata.* phases.items.price phases.items.quantity phases.start_date phases.end_date \
    phases.proration_behavior phases.metadata.* proration_behavior";
pub(crate) const NEW_FIELDS: &str = "customer from_subscription start_date end_behavior metadata.* phases.items.price \
    phases.items.quantity phases.start_date phases.end_date phases.proration_behavior phases.metadata.*";

pub(crate) fn create(call: &mut Call) -> Answer {
    let id = call.world.id("sub_sched");
    let (subscription, phases) = match call.maybe_named("subscription", "from_subscription")? {
        Some(subscription) if subscription["schedule"].is_null() => {
            let phase = current(&subscription);
            (subscription, vec![phase])
        }
        Some(_) => return Err(Failure::invalid("This subscription has a schedule already.").param("from_subscription")),
        None => begin(call)?,
    };
    let mut schedule = json!({
        "id": id, "object": "subscription_schedule", "application": null, "billing_mode": subscription["billing_mode"], "canceled_at": null,
        "completed_at": null, "created": call.world.now_of(&subscription), "current_phase": null, "customer": subscription["customer"],
        "default_settings": { "billing_cycle_anchor": "automatic", "invoice_settings": { "issuer": { "type": "self" } } },
        "end_behavior": end_behavior(call.params)?, "livemode": false, "metadata": {}, "phases": phases, "released_at": null,
        "released_subscription": null, "status": "active", "subscription": subscription["id"], "test_clock": subscription["test_clock"],
    });
    call.params.change_metadata(&mut schedule);
    keep(call.world, &mut schedule);
    let mut subscription = call.world.related(&schedule, "subscription");
    subscription["schedule"] = schedule["id"].clone();
    call.world.update("customer.subscription.updated", &subscription);
    call.world.emit("subscription_schedule.created", &schedule);
    Ok(schedule)
}

/// Starts the subscription of a schedule whose first phase begins now.
fn begin(call: &mut Call) -> Result<(Value, Vec<Value>), Failure> {
    let customer = call.named("customer", "customer")?;
    let now = call.world.now_of(&customer);
    let phases = phases(call.world, call.params, now)?;
    let entries = call.params.list("phases").first().map(|phase| phase.list("items")).unwrap_or_default();
    let made = entries.iter().map(|entry| items::from_params(call.world, entry)).collect::<Result<Vec<_>, _>>()?;
    let subscription = subscriptions::start(call.world, &customer, made, &Params::default(), First::Collect { off_session: true })?;
    Ok((subscription, phases))
}

/// What a subscription has, as a phase that lasts as long as its period.
fn current(subscription: &Value) -> Value {
    let (start, end) = items::period(subscription);
    let entries =
        items::of(subscription).iter().map(|item| entry(&text(&item["price"], "id"), item["quantity"].as_i64())).collect::<Vec<_>>();
    phase(&entries, &subscription["currency"], start, end, "create_prorations")
}

fn entry(price: &str, quantity: Option<i64>) -> Value {
    json!({ "billing_thresholds": null, "discounts": [], "metadata": {}, "plan": price, "price": price, "quantity": quantity, "tax_rates": [] })
}

fn phase(entries: &[Value], currency: &Value, start: i64, end: i64, behavior: &str) -> Value {
    json!({
        "add_invoice_items": [], "currency": currency, "discounts": [], "end_date": end, "items": entries, "metadata": {},
        "proration_behavior": behavior, "start_date": start,
    })
}

/// The phases of the parameters; each begins where the one before ends.
fn phases(world: &World, params: &Params, from: i64) -> Result<Vec<Value>, Failure> {
    let mut start = from;
    let mut found = Vec::new();
    for sent in params.list("phases") {
        if sent.text("start_date").is_some_and(|date| date != "now") {
            start = sent.required_integer("start_date")?;
        }
        let end = sent.required_integer("end_date")?;
        if end <= start {
            return Err(Failure::invalid("A phase must end after it begins.").param("phases"));
        }
        let (mut entries, mut currency) = (Vec::new(), Value::Null);
        for item in sent.list("items") {
            let price = world.get("price", item.required("price")?, "phases.0.items.0.price")?;
            currency = price["currency"].clone();
            entries.push(entry(&text(&price, "id"), Some(item.natural("quantity")?.unwrap_or(1))));
        }
        let behavior = sent.one_of("proration_behavior", &["create_prorations", "always_invoice", "none"])?.unwrap_or("create_prorations");
        found.push(phase(&entries, &currency, start, end, behavior));
        start = end;
    }
    if found.is_empty() { Err(Failure::missing("phases")) } else { Ok(found) }
}

fn end_behavior(params: &Params) -> Result<&str, Failure> {
    Ok(params.one_of("end_behavior", &["release", "cancel"])?.unwrap_or("release"))
}

/// Keeps a schedule with its current phase, and has it looked at when a phase ends.
fn keep(world: &mut World, schedule: &mut Value) {
    let now = world.now_of(schedule);
    let phases = schedule["phases"].as_array().cloned().unwrap_or_default();
    let at = phases.iter().find(|phase| number(phase, "start_date") <= now && now < number(phase, "end_date"));
    schedule["current_phase"] = at.map_or(Value::Null, |phase| json!({ "start_date": phase["start_date"], "end_date": phase["end_date"] }));
    world.put(schedule);
    for phase in &phases {
        world.wake(schedule, number(phase, "end_date"));
    }
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut schedule = active(call)?;
    if call.params.has("phases") {
        let from = number(&schedule["phases"][0], "start_date");
        schedule["phases"] = phases(call.world, call.params, from)?.into();
    }
    if call.params.has("end_behavior") {
        schedule["end_behavior"] = end_behavior(call.params)?.into();
    }
    call.params.change_metadata(&mut schedule);
    keep(call.world, &mut schedule);
    call.world.emit("subscription_schedule.updated", &schedule);
    Ok(schedule)
}

/// Goes on to the next phase, or ends.
pub(crate) fn due(world: &mut World, schedule: &Value) {
    let now = world.now_of(schedule);
    let ended = schedule["current_phase"]["end_date"].as_i64().is_none_or(|end| end <= now);
    if schedule["status"] != "active" || !ended {
        return;
    }
    let mut schedule = schedule.clone();
    keep(world, &mut schedule);
    let phases = schedule["phases"].as_array().cloned().unwrap_or_default();
    match phases.iter().find(|phase| phase["start_date"] == schedule["current_phase"]["start_date"]) {
        Some(phase) => {
            // A phase whose prices can no longer be sold is as a phase without a change.
            if let Err(failure) = subscriptions::go_over_to(world, &text(&schedule, "subscription"), phase) {
                tracing::warn!(error = ?failure.error, "a phase could not begin");
            }
            world.emit("subscription_schedule.updated", &schedule);
        }
        None if schedule["end_behavior"] == "cancel" => {
            schedule["status"] = "completed".into();
            schedule["completed_at"] = now.into();
            world.put(&schedule);
            world.emit("subscription_schedule.completed", &schedule);
            subscriptions::end(world, &text(&schedule, "subscription"));
        }
        None => {
            let_go(world, &mut schedule);
        }
    }
}

fn let_go(world: &mut World, schedule: &mut Value) {
    let mut subscription = world.related(schedule, "subscription");
    schedule["status"] = "released".into();
    schedule["released_at"] = world.now_of(schedule).into();
    schedule["released_subscription"] = subscription["id"].clone();
    schedule["subscription"] = Value::Null;
    schedule["current_phase"] = Value::Null;
    world.put(schedule);
    subscription["schedule"] = Value::Null;
    world.update("customer.subscription.updated", &subscription);
    world.emit("subscription_schedule.released", schedule);
}

/// Leaves the subscription as it is.
pub(crate) fn release(call: &mut Call) -> Answer {
    let mut schedule = active(call)?;
    let_go(call.world, &mut schedule);
    Ok(schedule)
}

/// Ends the subscription too.
pub(crate) fn cancel(call: &mut Call) -> Answer {
    let mut schedule = active(call)?;
    schedule["status"] = "canceled".into();
    schedule["canceled_at"] = call.world.now_of(&schedule).into();
    schedule["current_phase"] = Value::Null;
    call.world.put(&schedule);
    call.world.emit("subscription_schedule.canceled", &schedule);
    subscriptions::end(call.world, &text(&schedule, "subscription"));
    Ok(schedule)
}

fn active(call: &Call) -> Answer {
    let schedule = call.target("subscription_schedule")?;
    if schedule["status"] == "active" {
        return Ok(schedule);
    }
    Err(Failure::invalid(format!("This schedule is {}.", text(&schedule, "status"))))
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("subscription_schedule")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "subscription_schedule", |schedule| page::matches(call, schedule, "customer"))
}
