//! What is sold, at Stripe: a product for each plan and pack with a price for each of ours, and coupons. Charges are computed here and
//! not there, so these are names and numbers for people and reports, and for checkouts made by hand.

use std::str::FromStr;

use money::Currency;
use serde_json::Value;

use super::call::Call;
use super::object::Object;
use super::sender::Due;
use super::transport::Transport;
use crate::error::Error;

/// A price as a definition has it: currency, interval (none for a pack), and the decimal.
type Price<'a> = (String, Option<&'a str>, &'a str);

/// Makes or changes a product and its prices; one that is no longer sold is archived.
pub(super) async fn product(stripe: &Transport, due: &Due) -> Result<Option<String>, Error> {
    let code = due.payload["code"].as_str().ok_or(Error::Unreadable("code"))?;
    let id = format!("{}_{code}", due.kind.replace('.', "_"));
    let definition = &due.payload["definition"];
    let fields = |call: Call| {
        let call = call.with("active", !definition.is_null()).metadata("code", code).metadata("operation", &due.operation);
        call.with_some("name", definition["name"].as_str())
    };
    let change = fields(Call::post(format!("/products/{id}"), format!("{}-change", due.key())));
    match stripe.ask(&change).await {
        Ok(_) => {}
        Err(error) if error.is_missing() && definition.is_null() => return Ok(None),
        Err(error) if error.is_missing() => {
            stripe.ask(&fields(Call::post("/products", format!("{}-product", due.key()))).with("id", &id)).await?;
        }
        Err(error) => return Err(error.into()),
    }
    let version = due.payload["version"].as_i64().unwrap_or_default();
    for (kind, prices) in [("base", &definition["prices"]), ("seat", &definition["seats"]["prices"])] {
        for (currency, interval, amount) in listed(prices) {
            price(stripe, due, &id, (code, version, kind), (currency, interval, amount)).await?;
        }
    }
    Ok(Some(id))
}

async fn price(
    stripe: &Transport,
    due: &Due,
    product: &str,
    (code, version, kind): (&str, i64, &str),
    (currency, interval, amount): Price<'_>,
) -> Result<(), Error> {
    let name = format!("{code}-v{version}-{kind}-{currency}-{}", interval.unwrap_or("once"));
    // Under a new key it could be made twice [B-64].
    if due.is_under_new_key() {
        let page = stripe.ask(&Call::get("/prices").with("lookup_keys[0]", &name)).await?;
        if Object(&page).list("data").next().is_some() {
            return Ok(());
        }
    }
    let call = Call::post("/prices", format!("{}-{name}", due.key()))
        .with("product", product)
        .with("currency", currency.to_lowercase())
        .with("unit_amount", minor(&currency, amount)?)
        .with("lookup_key", &name)
        .with("transfer_lookup_key", true)
        .with_some("recurring[interval]", interval);
    stripe.ask(&call).await?;
    Ok(())
}

/// Makes a coupon; each version is one of its own, since coupons of Stripe's cannot be changed.
pub(super) async fn coupon(stripe: &Transport, due: &Due) -> Result<Option<String>, Error> {
    let (code, definition) = (due.payload["code"].as_str().ok_or(Error::Unreadable("code"))?, &due.payload["definition"]);
    if definition.is_null() {
        return Ok(None);
    }
    let id = format!("{code}-v{}", due.payload["version"].as_i64().unwrap_or_default());
    let duration = match definition["duration"].as_str() {
        Some("months") => "repeating",
        Some(other) => other,
        None => "once",
    };
    let mut call = Call::post("/coupons", format!("{}-coupon", due.key()))
        .with("id", &id)
        .with_some("name", definition["name"].as_str())
        .with("duration", duration)
        .with_some("duration_in_months", definition["months"].as_i64())
        .with_some("percent_off", definition["percent_off"].as_i64());
    // One currency is the coupon's own; Stripe wants the others beside it, and only shows them.
    if let Some((currency, amount)) = definition["amount_off"].as_object().and_then(|amounts| amounts.iter().next()) {
        let amount = amount.as_str().ok_or(Error::Unreadable("amount_off"))?;
        call = call.with("currency", currency.to_lowercase()).with("amount_off", minor(currency, amount)?);
    }
    match stripe.ask(&call).await {
        Ok(made) => Ok(Object(&made).text("id").map(ToOwned::to_owned)),
        Err(error) if error.code() == Some("resource_already_exists") => Ok(Some(id)),
        Err(error) => Err(error.into()),
    }
}

/// `{USD: "10.00"}` or `{USD: {month: "20.00"}}`.
fn listed(prices: &Value) -> Vec<Price<'_>> {
    let mut found = Vec::new();
    for (currency, price) in prices.as_object().into_iter().flatten() {
        match price {
            Value::String(amount) => found.push((currency.clone(), None, amount.as_str())),
            Value::Object(intervals) => {
                found.extend(
                    intervals.iter().filter_map(|(interval, amount)| Some((currency.clone(), Some(interval.as_str()), amount.as_str()?))),
                );
            }
            _ => {}
        }
    }
    found
}

fn minor(currency: &str, amount: &str) -> Result<i64, Error> {
    let currency = Currency::from_str(currency).map_err(|_| Error::Unreadable("currency"))?;
    let micros = crate::catalog::amount::parse(amount, currency).map_err(|_| Error::Unreadable("amount"))?;
    Ok(money::minor_units(currency, micros))
}
