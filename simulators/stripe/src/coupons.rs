//! Coupons and promotion codes.

use serde_json::{Number, Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::world::{World, number, text};
use crate::{money, page};

pub(crate) const FIELDS: &str = "amount_off currency duration duration_in_months id max_redemptions metadata.* name percent_off redeem_by";
pub(crate) const CODE_FIELDS: &str = "active code customer expires_at max_redemptions metadata.* promotion.type promotion.coupon";

pub(crate) fn create(call: &mut Call) -> Answer {
    let params = call.params;
    let duration = params.one_of("duration", &["forever", "once", "repeating"])?.unwrap_or("once");
    let months = params.natural("duration_in_months")?;
    if (duration == "repeating") != months.is_some() {
        return Err(Failure::invalid("You must pass duration_in_months exactly if duration is repeating.").param("duration_in_months"));
    }
    let amount = params.natural("amount_off")?;
    let percent = params.text("percent_off").map(percent_off).transpose()?;
    if amount.is_some() == percent.is_some() {
        return Err(Failure::invalid("Must provide either percent_off or amount_off, and not both.").param("percent_off"));
    }
    let currency = if amount.is_some() { Some(money::currency(params.required("currency")?, "currency")?) } else { None };
    let id = params.text("id").map(str::to_owned);
    if id.as_deref().is_some_and(|id| call.world.find(id).is_some()) {
        return Err(Failure::invalid("Coupon already exists.").code("resource_already_exists").param("id"));
    }
    let id = id.unwrap_or_else(|| call.world.id("co").split_off(3).chars().take(8).collect());
    let mut coupon = json!({
        "id": id, "object": "coupon", "amount_off": amount, "created": call.world.clock.now(), "currency": currency,
        "duration": duration, "duration_in_months": months, "livemode": false, "max_redemptions": params.natural("max_redemptions")?,
        "metadata": {}, "name": params.value("name"), "percent_off": percent.as_ref().map(|(shown, _)| shown),
        "redeem_by": params.integer("redeem_by")?, "times_redeemed": 0, "valid": true,
        "__percent": percent.map(|(_, exact)| exact),
    });
    params.change_metadata(&mut coupon);
    call.world.put(&coupon);
    call.world.emit("coupon.created", &coupon);
    Ok(coupon)
}

/// As the number that is shown, and in millionths of a percent.
fn percent_off(text: &str) -> Result<(Number, i64), Failure> {
    let refuse = || Failure::invalid(format!("Invalid percent_off: {text}")).param("percent_off");
    let exact = money::percentage(text).filter(|exact| *exact > 0).ok_or_else(refuse)?;
    Ok((serde_json::from_str(text).map_err(|_| refuse())?, exact))
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut coupon = call.target("coupon")?;
    call.params.change_texts(&mut coupon, "name");
    call.params.change_metadata(&mut coupon);
    call.world.update("coupon.updated", &coupon);
    Ok(coupon)
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("coupon")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "coupon", |_| true)
}

pub(crate) fn delete(call: &mut Call) -> Answer {
    let coupon = call.target("coupon")?;
    call.world.emit("coupon.deleted", &coupon);
    Ok(call.world.delete(&text(&coupon, "id")))
}

/// A coupon that can be used now.
pub(crate) fn usable(world: &World, id: &str, param: &str) -> Answer {
    let coupon = world.get("coupon", id, param)?;
    let late = coupon["redeem_by"].as_i64().is_some_and(|by| by < world.clock.now());
    let spent = coupon["max_redemptions"].as_i64().is_some_and(|most| number(&coupon, "times_redeemed") >= most);
    if late || spent {
        let message = format!("Coupon {id} is expired and cannot be applied.");
        return Err(Failure::invalid(message).code("coupon_expired").param(param));
    }
    Ok(coupon)
}

pub(crate) fn create_code(call: &mut Call) -> Answer {
    let coupon = usable(call.world, call.params.required("promotion.coupon")?, "promotion.coupon")?;
    let customer = call.maybe_named("customer", "customer")?;
    let code = call
        .params
        .text("code")
        .map_or_else(|| call.world.id("c").split_off(2).chars().take(8).collect(), str::to_owned)
        .to_ascii_uppercase();
    if call.world.all("promotion_code").any(|other| other["code"] == code && other["active"] == true) {
        return Err(Failure::invalid("An active promotion code with this code already exists.")
            .code("resource_already_exists")
            .param("code"));
    }
    let mut promotion = json!({
        "id": call.world.id("promo"), "object": "promotion_code", "active": call.params.flag("active")?.unwrap_or(true), "code": code,
        "created": call.world.clock.now(), "customer": customer.map(|customer| customer["id"].clone()),
        "expires_at": call.params.integer("expires_at")?, "livemode": false, "max_redemptions": call.params.natural("max_redemptions")?,
        "metadata": {}, "promotion": { "type": "coupon", "coupon": coupon["id"] },
        "restrictions": { "first_time_transaction": false, "minimum_amount": null, "minimum_amount_currency": null },
        "times_redeemed": 0,
    });
    call.params.change_metadata(&mut promotion);
    call.world.put(&promotion);
    call.world.emit("promotion_code.created", &promotion);
    Ok(promotion)
}

pub(crate) fn update_code(call: &mut Call) -> Answer {
    let mut promotion = call.target("promotion_code")?;
    call.params.change_flags(&mut promotion, "active")?;
    call.params.change_metadata(&mut promotion);
    call.world.update("promotion_code.updated", &promotion);
    Ok(promotion)
}

pub(crate) fn retrieve_code(call: &mut Call) -> Answer {
    call.target("promotion_code")
}

pub(crate) fn list_codes(call: &mut Call) -> Answer {
    page::of(call, "promotion_code", |promotion| {
        let coupon = call.params.text("coupon").is_none_or(|coupon| promotion["promotion"]["coupon"] == coupon);
        coupon && page::matches(call, promotion, "active code customer")
    })
}

/// What a coupon takes off an amount, never more than all of it.
pub(crate) fn off(coupon: &Value, amount: i64, currency: &str) -> i64 {
    let off = match (coupon["__percent"].as_i64(), coupon["amount_off"].as_i64()) {
        (Some(percent), _) => money::share(amount, percent),
        (None, Some(off)) if coupon["currency"] == currency => off,
        _ => 0,
    };
    off.clamp(0, amount.max(0))
}

/// Counts one use of a coupon and of the code it came by.
pub(crate) fn redeem(world: &mut World, coupon: &str, code: Option<&str>) {
    for id in [Some(coupon), code].into_iter().flatten() {
        if let Some(mut used) = world.find(id).cloned() {
            used["times_redeemed"] = (number(&used, "times_redeemed") + 1).into();
            world.put(&used);
        }
    }
}
