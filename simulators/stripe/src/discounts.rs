//! Discounts: a coupon at work on a subscription, an invoice or a session.

use serde_json::{Value, json};

use crate::error::Failure;
use crate::params::Params;
use crate::world::{World, number, text};
use crate::{calendar, coupons};

/// The coupon, and the code it came by, that an entry of `discounts` names.
pub(crate) fn coupon_of(world: &World, entry: &Params, customer: &Value) -> Result<(Value, Option<String>), Failure> {
    if let Some(id) = entry.text("coupon") {
        return Ok((coupons::usable(world, id, "coupon")?, None));
    }
    let id = entry.required("promotion_code")?;
    let code = world.get("promotion_code", id, "promotion_code")?;
    let late = code["expires_at"].as_i64().is_some_and(|at| at < world.clock.now());
    let spent = code["max_redemptions"].as_i64().is_some_and(|most| number(&code, "times_redeemed") >= most);
    let of_another = code["customer"].is_string() && code["customer"] != *customer;
    if code["active"] != true || late || spent || of_another {
        return Err(Failure::invalid("This promotion code is not active.").code("promotion_code_inactive").param("discounts"));
    }
    let coupon = coupons::usable(world, &text(&code["promotion"], "coupon"), "coupon")?;
    Ok((coupon, Some(id.to_owned())))
}

/// Makes the discounts of a `discounts` parameter; their ids.
pub(crate) fn from_params(world: &mut World, params: &Params, customer: &Value) -> Result<Vec<Value>, Failure> {
    let entries = params.list("discounts").iter().map(|entry| coupon_of(world, entry, &customer["id"])).collect::<Result<Vec<_>, _>>()?;
    Ok(entries.iter().map(|(coupon, code)| make(world, coupon, code.as_deref(), customer)["id"].clone()).collect())
}

/// Puts a coupon to work and counts its use.
pub(crate) fn make(world: &mut World, coupon: &Value, code: Option<&str>, customer: &Value) -> Value {
    let start = world.now_of(customer);
    let end = coupon["duration_in_months"].as_i64().map(|months| calendar::after(start, "month", months));
    let discount = json!({
        "id": world.id("di"), "object": "discount", "checkout_session": null, "customer": customer["id"], "end": end, "invoice": null,
        "invoice_item": null, "promotion_code": code, "source": { "type": "coupon", "coupon": coupon["id"] }, "start": start,
        "subscription": null, "subscription_item": null,
    });
    world.put(&discount);
    coupons::redeem(world, &text(coupon, "id"), code);
    discount
}

/// The discounts of a subscription that go on after an invoice: not those for once, and not those that have ended.
pub(crate) fn that_go_on(world: &World, ids: &Value, now: i64) -> Value {
    let kept = ids.as_array().into_iter().flatten().filter(|id| {
        let discount = id.as_str().and_then(|id| world.find(id)).cloned().unwrap_or_default();
        let once = world.related(&discount["source"], "coupon")["duration"] == "once";
        !once && discount["end"].as_i64().is_none_or(|end| end > now)
    });
    kept.cloned().collect()
}
