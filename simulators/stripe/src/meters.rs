//! Meters: usage that is reported, and billed at the end of a period.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::world::{World, number, text};

pub(crate) const FIELDS: &str = "display_name event_name default_aggregation.formula customer_mapping.type customer_mapping.event_payload_key \
    value_settings.event_payload_key event_time_window";

const DAY: i64 = 86_400;
/// How old a reported event may be.
const OLDEST: i64 = 35 * DAY;
/// How far ahead it may be dated.
const AHEAD: i64 = 300;
/// How long an identifier is remembered.
const REMEMBERED: i64 = DAY;

pub(crate) fn create(call: &mut Call) -> Answer {
    let (name, event) = (call.params.required("display_name")?.to_owned(), call.params.required("event_name")?.to_owned());
    call.params.required("default_aggregation.formula")?;
    let formula = call.params.one_of("default_aggregation.formula", &["sum", "count", "last"])?;
    if call.world.all("billing.meter").any(|meter| meter["event_name"] == event && meter["status"] == "active") {
        let message = format!("An active meter with the event name `{event}` already exists.");
        return Err(Failure::invalid(message).code("resource_already_exists").param("event_name"));
    }
    let now = call.world.clock.now();
    let meter = json!({
        "id": call.world.id("mtr"), "object": "billing.meter", "created": now,
        "customer_mapping": { "type": "by_id", "event_payload_key": call.params.text("customer_mapping.event_payload_key").unwrap_or("stripe_customer_id") },
        "default_aggregation": { "formula": formula }, "display_name": name, "event_name": event,
        "event_time_window": call.params.value("event_time_window"), "livemode": false, "status": "active",
        "status_transitions": { "deactivated_at": null }, "updated": now,
        "value_settings": { "event_payload_key": call.params.text("value_settings.event_payload_key").unwrap_or("value") },
    });
    call.world.put(&meter);
    call.world.emit("billing.meter.created", &meter);
    Ok(meter)
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut meter = call.target("billing.meter")?;
    call.params.change_texts(&mut meter, "display_name");
    call.world.update("billing.meter.updated", &meter);
    Ok(meter)
}

pub(crate) fn deactivate(call: &mut Call) -> Answer {
    let mut meter = call.target("billing.meter")?;
    meter["status"] = "inactive".into();
    meter["status_transitions"]["deactivated_at"] = call.world.clock.now().into();
    call.world.update("billing.meter.deactivated", &meter);
    Ok(meter)
}

pub(crate) fn reactivate(call: &mut Call) -> Answer {
    let mut meter = call.target("billing.meter")?;
    meter["status"] = "active".into();
    meter["status_transitions"]["deactivated_at"] = Value::Null;
    call.world.update("billing.meter.reactivated", &meter);
    Ok(meter)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("billing.meter")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "billing.meter", |meter| page::matches(call, meter, "status"))
}

/// Takes an event; one whose identifier came within the last day is refused.
pub(crate) fn report(call: &mut Call) -> Answer {
    let name = call.params.required("event_name")?.to_owned();
    let active = |meter: &&Value| meter["event_name"] == name && meter["status"] == "active";
    let meter = call.world.all("billing.meter").find(active).cloned().ok_or_else(|| {
        Failure::invalid(format!("No active meter found for event name {name}.")).code("resource_missing").param("event_name")
    })?;
    let key = text(&meter["customer_mapping"], "event_payload_key");
    let customer = call.world.get("customer", call.params.required(&format!("payload.{key}"))?, &format!("payload.{key}"))?;
    let value_key = format!("payload.{}", text(&meter["value_settings"], "event_payload_key"));
    let value = if meter["default_aggregation"]["formula"] == "count" { 1 } else { call.params.required_integer(&value_key)? };
    let now = call.world.now_of(&customer);
    let at = call.params.integer("timestamp")?.unwrap_or(now);
    if at < now - OLDEST || at > now + AHEAD {
        let message = "The timestamp must be within the past 35 calendar days or up to 5 minutes in the future.";
        return Err(Failure::invalid(message).code("timestamp_invalid").param("timestamp"));
    }
    let identifier = call.params.text("identifier").map_or_else(|| call.world.id("mev"), str::to_owned);
    let real = call.world.clock.now();
    call.world.meter_identifiers.retain(|_, until| *until > real);
    if call.world.meter_identifiers.contains_key(&identifier) {
        let message = format!("An event already exists with identifier {identifier}.");
        return Err(Failure::invalid(message).code("duplicate_meter_event").param("identifier"));
    }
    call.world.meter_identifiers.insert(identifier.clone(), real + REMEMBERED);
    let event = json!({
        "object": "billing.meter_event", "created": now, "event_name": name, "identifier": identifier, "livemode": false,
        "payload": call.params.tree("payload"), "timestamp": at,
    });
    let mut kept = event.clone();
    kept["id"] = call.world.id("mtrevt").into();
    for (field, kept_value) in [("__meter", meter["id"].clone()), ("__customer", customer["id"].clone()), ("__value", value.into())] {
        kept[field] = kept_value;
    }
    call.world.put(&kept);
    Ok(event)
}

/// Takes an event back, within a day.
pub(crate) fn adjust(call: &mut Call) -> Answer {
    let name = call.params.required("event_name")?.to_owned();
    call.params.required("type")?;
    let identifier = call.params.required("cancel.identifier")?.to_owned();
    let of_it = |event: &&Value| event["identifier"] == identifier && event["event_name"] == name;
    let mut event = call.world.all("billing.meter_event").find(of_it).cloned().ok_or_else(|| {
        Failure::invalid(format!("No event found with identifier {identifier}.")).code("resource_missing").param("cancel[identifier]")
    })?;
    event["__value"] = 0.into();
    event["__canceled"] = true.into();
    call.world.put(&event);
    Ok(json!({
        "object": "billing.meter_event_adjustment", "cancel": { "identifier": identifier }, "event_name": name, "livemode": false,
        "status": "complete", "type": "cancel",
    }))
}

/// What a customer used of a meter within `[start, end)`.
pub(crate) fn used(world: &World, meter: &str, customer: &str, (start, end): (i64, i64)) -> i64 {
    let formula = world.find(meter).map(|meter| text(&meter["default_aggregation"], "formula")).unwrap_or_default();
    let within = |event: &&Value| {
        let at = number(event, "timestamp");
        event["__meter"] == meter && event["__customer"] == customer && event["__canceled"] != true && start <= at && at < end
    };
    let values = world.all("billing.meter_event").filter(within);
    if formula == "last" {
        values.max_by_key(|event| number(event, "timestamp")).map_or(0, |event| number(event, "__value"))
    } else {
        values.map(|event| number(event, "__value")).fold(0, i64::saturating_add)
    }
}

/// Sums of a customer: over all of the time asked for, or by hour or day.
pub(crate) fn summaries(call: &mut Call) -> Answer {
    let meter = call.target("billing.meter")?;
    let customer = text(&call.named("customer", "customer")?, "id");
    let (start, end) = (call.params.required_integer("start_time")?, call.params.required_integer("end_time")?);
    let step = match call.params.one_of("value_grouping_window", &["hour", "day"])? {
        Some("hour") => 3600,
        Some(_) => DAY,
        None => end - start,
    };
    if start >= end || start % 60 != 0 || end % 60 != 0 || (end - start) / step.max(1) > 10_000 {
        return Err(Failure::invalid("start_time must be before end_time, and both must be whole minutes.").param("start_time"));
    }
    let mut found = Vec::new();
    let mut from = start;
    while from < end {
        let to = (from + step).min(end);
        let value = used(call.world, &text(&meter, "id"), &customer, (from, to));
        if value != 0 {
            found.insert(
                0,
                json!({
                    "id": format!("mtrusg_{from}_{to}"), "object": "billing.meter_event_summary", "aggregated_value": value, "end_time": to,
                    "livemode": false, "meter": meter["id"], "start_time": from,
                }),
            );
        }
        from = to;
    }
    page::cut(call, &found.iter().collect::<Vec<_>>())
}
