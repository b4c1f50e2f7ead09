//! Prices: one-time and recurring, per unit.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::params::Params;
use crate::world::{World, text};
use crate::{money, page};

pub(crate) const FIELDS: &str = "active lookup_key metadata.* nickname tax_behavior transfer_lookup_key currency_options.*";
pub(crate) const NEW_FIELDS: &str = "active billing_scheme currency currency_options.* lookup_key metadata.* nickname product \
    product_data.name product_data.id product_data.metadata.* product_data.active product_data.tax_code product_data.unit_label \
    product_data.statement_descriptor recurring.interval recurring.interval_count recurring.usage_type recurring.meter \
    recurring.trial_period_days tax_behavior transfer_lookup_key unit_amount unit_amount_decimal";

pub(crate) fn create(call: &mut Call) -> Answer {
    if call.params.text("billing_scheme") == Some("tiered") {
        return Err(Failure::invalid("The simulator has no tiered prices.").param("billing_scheme"));
    }
    let product = match call.maybe_named("product", "product")? {
        Some(product) => text(&product, "id"),
        None => product_of(call.world, call.params)?,
    };
    let mut price = make(call.world, call.params, &product)?;
    if let Some(key) = call.params.text("lookup_key") {
        take_lookup_key(call, key)?;
        price["lookup_key"] = key.into();
        call.world.put(&price);
    }
    call.world.emit("price.created", &price);
    Ok(price)
}

/// The product that a price's data brings along.
pub(crate) fn product_of(world: &mut World, params: &Params) -> Result<String, Failure> {
    let Some(data) = params.nested("product_data") else { return Err(Failure::missing("product")) };
    let name = data.required("name")?.to_owned();
    let id = data.text("id").map_or_else(|| world.id("prod"), str::to_owned);
    let mut product = crate::products::from_name(world.clock.now(), &id, &name);
    data.change_texts(&mut product, "description unit_label tax_code statement_descriptor");
    data.change_metadata(&mut product);
    world.put(&product);
    world.emit("product.created", &product);
    Ok(id)
}

/// Makes a price of a product and keeps it, without an event: also for `price_data`.
pub(crate) fn make(world: &mut World, params: &Params, product: &str) -> Answer {
    let currency = money::currency(params.required("currency")?, "currency")?;
    let (amount, decimal) = amount(params)?;
    let recurring = recurring(world, params)?;
    let id = world.id("price");
    let mut price = json!({
        "id": id, "object": "price", "active": params.flag("active")?.unwrap_or(true), "billing_scheme": "per_unit",
        "created": world.clock.now(), "currency": currency, "custom_unit_amount": null, "livemode": false, "lookup_key": null,
        "metadata": {}, "nickname": params.value("nickname"), "product": product,
        "type": if recurring.is_null() { "one_time" } else { "recurring" }, "recurring": recurring,
        "tax_behavior": params.one_of("tax_behavior", &["inclusive", "exclusive", "unspecified"])?.unwrap_or("unspecified"),
        "tiers_mode": null, "transform_quantity": null, "unit_amount": amount, "unit_amount_decimal": decimal,
    });
    params.change_metadata(&mut price);
    world.put(&price);
    Ok(price)
}

/// The amount of one unit: whole, and in decimals of the smallest unit.
fn amount(params: &Params) -> Result<(Value, String), Failure> {
    if let Some(whole) = params.natural("unit_amount")? {
        return Ok((whole.into(), whole.to_string()));
    }
    let decimal = params.required("unit_amount_decimal").map_err(|_| Failure::missing("unit_amount"))?;
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || fraction.len() > 12 {
        return Err(Failure::invalid(format!("Invalid decimal: {decimal}")).param("unit_amount_decimal"));
    }
    let exact = fraction.bytes().all(|byte| byte == b'0').then(|| whole.parse::<i64>().ok()).flatten();
    Ok((exact.map_or(Value::Null, Value::from), decimal.to_owned()))
}

fn recurring(world: &World, params: &Params) -> Answer {
    let Some(sent) = params.nested("recurring") else { return Ok(Value::Null) };
    sent.required("interval")?;
    let interval = sent.one_of("interval", &["day", "week", "month", "year"])?;
    let count = sent.natural("interval_count")?.unwrap_or(1);
    let most = match interval {
        Some("day") => 1095,
        Some("week") => 156,
        Some("month") => 36,
        _ => 3,
    };
    if !(1..=most).contains(&count) {
        return Err(Failure::invalid("The maximum interval is three years.").param("recurring[interval_count]"));
    }
    let usage = sent.one_of("usage_type", &["licensed", "metered"])?.unwrap_or("licensed");
    let meter = sent.text("meter").map(|id| world.get("billing.meter", id, "recurring.meter")).transpose()?;
    if usage == "metered" && meter.is_none() {
        return Err(Failure::missing("recurring.meter"));
    }
    let meter = meter.map_or(Value::Null, |meter| meter["id"].clone());
    Ok(json!({ "interval": interval, "interval_count": count, "meter": meter, "trial_period_days": null, "usage_type": usage }))
}

/// A lookup key names one price; it is taken from another only where the caller says so.
fn take_lookup_key(call: &mut Call, key: &str) -> Result<(), Failure> {
    let Some(mut holder) = call.world.all("price").find(|price| price["lookup_key"] == key).cloned() else { return Ok(()) };
    if call.params.flag("transfer_lookup_key")? != Some(true) {
        let message = format!("A price (`{}`) already uses that lookup key.", text(&holder, "id"));
        return Err(Failure::invalid(message).code("resource_already_exists").param("lookup_key"));
    }
    holder["lookup_key"] = Value::Null;
    call.world.put(&holder);
    Ok(())
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut price = call.target("price")?;
    if let Some(key) = call.params.text("lookup_key")
        && price["lookup_key"] != key
    {
        take_lookup_key(call, key)?;
    }
    call.params.change_texts(&mut price, "lookup_key nickname tax_behavior");
    call.params.change_flags(&mut price, "active")?;
    call.params.change_metadata(&mut price);
    call.world.update("price.updated", &price);
    Ok(price)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("price")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    let keys = call.params.texts("lookup_keys");
    page::of(call, "price", |price| {
        let interval = call.params.text("recurring.interval").is_none_or(|interval| price["recurring"]["interval"] == interval);
        page::matches(call, price, "active currency product type")
            && interval
            && (keys.is_empty() || keys.contains(&text(price, "lookup_key")))
    })
}

/// What a quantity costs, rounded to the smallest unit with halves up.
pub(crate) fn cost(price: &Value, quantity: i64) -> i64 {
    if let Some(amount) = price["unit_amount"].as_i64() {
        return amount.saturating_mul(quantity);
    }
    let decimal = text(price, "unit_amount_decimal");
    let (whole, fraction) = decimal.split_once('.').unwrap_or((&decimal, ""));
    let scale = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let Ok(unscaled) = format!("{whole}{fraction}").parse::<i128>() else { return 0 };
    i64::try_from((unscaled * i128::from(quantity) + scale / 2) / scale).unwrap_or(i64::MAX)
}
