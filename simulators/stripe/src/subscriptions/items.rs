//! The items of a subscription: a price, a quantity, and the period that they are paid for.

use serde_json::{Value, json};

use crate::error::Failure;
use crate::invoices::lines::{self, Line};
use crate::params::Params;
use crate::world::{World, number, text};
use crate::{meters, money, page, prices};

/// Makes an item from an entry of `items`, for a period that is set later.
pub(crate) fn from_params(world: &mut World, entry: &Params) -> Result<Value, Failure> {
    let price = if let Some(id) = entry.text("price") {
        world.get("price", id, "items.0.price")?
    } else {
        let data = entry.nested("price_data").ok_or_else(|| Failure::missing("items.0.price"))?;
        let product = match data.text("product") {
            Some(product) => text(&world.get("product", product, "items.0.price_data.product")?, "id"),
            None => prices::product_of(world, &data)?,
        };
        prices::make(world, &data, &product)?
    };
    let quantity = entry.natural("quantity")?.unwrap_or(1);
    let mut item = make(world, &price, quantity)?;
    entry.change_metadata(&mut item);
    Ok(item)
}

/// Makes an item of a recurring price.
pub(crate) fn make(world: &mut World, price: &Value, quantity: i64) -> Result<Value, Failure> {
    if price["recurring"].is_null() {
        let message = "The price specified is set to `type=one_time` but this field only accepts prices with `type=recurring`.";
        return Err(Failure::invalid(message).param("items[0][price]"));
    }
    if price["active"] != true {
        return Err(Failure::invalid("The price specified is inactive. This field only accepts active prices.").param("items[0][price]"));
    }
    let metered = price["recurring"]["usage_type"] == "metered";
    Ok(json!({
        "id": world.id("si"), "object": "subscription_item", "billing_thresholds": null, "created": world.clock.now(),
        "current_period_end": 0, "current_period_start": 0, "discounts": [], "metadata": {}, "plan": plan(price), "price": price,
        "quantity": if metered { Value::Null } else { quantity.into() }, "subscription": "", "tax_rates": [],
    }))
}

/// The old shape of a recurring price.
fn plan(price: &Value) -> Value {
    json!({
        "id": price["id"], "object": "plan", "active": price["active"], "amount": price["unit_amount"],
        "amount_decimal": price["unit_amount_decimal"], "billing_scheme": "per_unit", "created": price["created"],
        "currency": price["currency"], "interval": price["recurring"]["interval"],
        "interval_count": price["recurring"]["interval_count"], "livemode": false, "metadata": {}, "meter": price["recurring"]["meter"],
        "nickname": price["nickname"], "product": price["product"], "tiers_mode": null, "transform_usage": null,
        "trial_period_days": null, "usage_type": price["recurring"]["usage_type"],
    })
}

/// The items of a subscription.
pub(crate) fn of(subscription: &Value) -> Vec<Value> {
    subscription["items"]["data"].as_array().cloned().unwrap_or_default()
}

/// Puts items into a subscription, with its period.
pub(crate) fn set(subscription: &mut Value, mut items: Vec<Value>, period: (i64, i64)) {
    let id = text(subscription, "id");
    for item in &mut items {
        item["subscription"] = id.clone().into();
        item["current_period_start"] = period.0.into();
        item["current_period_end"] = period.1.into();
    }
    subscription["items"] = page::embedded(&items, &format!("/v1/subscription_items?subscription={id}"));
}

/// The period of a subscription: that of its first item.
pub(crate) fn period(subscription: &Value) -> (i64, i64) {
    let item = &subscription["items"]["data"][0];
    (number(item, "current_period_start"), number(item, "current_period_end"))
}

/// The lines of a period: what is paid before it, and the metered usage of the period that has ended.
pub(crate) fn lines_of(world: &mut World, subscription: &Value, period: (i64, i64), ended: Option<(i64, i64)>) -> Vec<Value> {
    let (id, currency) = (text(subscription, "id"), text(subscription, "currency"));
    let mut lines = Vec::new();
    for item in of(subscription) {
        let price = &item["price"];
        let metered = price["recurring"]["usage_type"] == "metered";
        let (quantity, period) = match (metered, ended) {
            (true, None) => continue,
            (true, Some(ended)) => {
                (meters::used(world, &text(&price["recurring"], "meter"), &text(subscription, "customer"), ended), ended)
            }
            (false, _) => (number(&item, "quantity"), period),
        };
        let product = text(&world.related(price, "product"), "name");
        let description = format!(
            "{quantity} × {product} (at {} / {})",
            money::written(number(price, "unit_amount"), &currency),
            text(&price["recurring"], "interval")
        );
        let item_id = text(&item, "id");
        let amount = prices::cost(price, quantity);
        let line = Line { price, quantity, amount, period, description, proration: false, of: Some((&id, &item_id)), item: None };
        lines.push(lines::make(world, &line, &currency));
    }
    lines
}
