//! Tax rates: percentages on top of an amount, or within it.

use serde_json::{Number, Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::world::World;
use crate::{money, page};

pub(crate) const FIELDS: &str = "active country description display_name inclusive jurisdiction metadata.* percentage state tax_type";

pub(crate) fn create(call: &mut Call) -> Answer {
    let name = call.params.required("display_name")?.to_owned();
    call.params.required("inclusive")?;
    let text = call.params.required("percentage")?;
    let refuse = || Failure::invalid(format!("Invalid percentage: {text}")).param("percentage");
    let exact = money::percentage(text).ok_or_else(refuse)?;
    let shown: Number = serde_json::from_str(text).map_err(|_| refuse())?;
    let mut rate = json!({
        "id": call.world.id("txr"), "object": "tax_rate", "active": call.params.flag("active")?.unwrap_or(true),
        "country": call.params.value("country"), "created": call.world.clock.now(), "description": call.params.value("description"),
        "display_name": name, "effective_percentage": shown, "flat_amount": null, "inclusive": call.params.flag("inclusive")?,
        "jurisdiction": call.params.value("jurisdiction"), "jurisdiction_level": null, "livemode": false, "metadata": {},
        "percentage": shown, "rate_type": "percentage", "state": call.params.value("state"), "tax_type": call.params.value("tax_type"),
        "__percent": exact,
    });
    call.params.change_metadata(&mut rate);
    call.world.put(&rate);
    call.world.emit("tax_rate.created", &rate);
    Ok(rate)
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut rate = call.target("tax_rate")?;
    if let Some(fixed) = ["percentage", "inclusive"].into_iter().find(|name| call.params.has(name)) {
        return Err(Failure::unknown(fixed));
    }
    call.params.change_texts(&mut rate, "country description display_name jurisdiction state tax_type");
    call.params.change_flags(&mut rate, "active")?;
    call.params.change_metadata(&mut rate);
    call.world.update("tax_rate.updated", &rate);
    Ok(rate)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("tax_rate")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "tax_rate", |rate| page::matches(call, rate, "active inclusive"))
}

/// The rate that is used where tax is computed automatically: within the price unless that says otherwise, as in most countries.
pub(crate) fn automatic(world: &World, behavior: &Value) -> Value {
    json!({ "id": null, "inclusive": behavior != "exclusive", "__percent": world.settings.automatic_tax_percent.saturating_mul(1_000_000) })
}

/// The tax on an amount by a rate: what is on top of it, and what is within it.
pub(crate) fn on(rate: &Value, amount: i64) -> (i64, i64) {
    let percent = rate["__percent"].as_i64().unwrap_or_default();
    if rate["inclusive"] == true { (0, money::included(amount, percent)) } else { (money::share(amount, percent), 0) }
}
