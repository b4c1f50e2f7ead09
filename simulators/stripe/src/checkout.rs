//! Checkout sessions: a page on which a customer pays, subscribes, or leaves a card.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::params::Params;
use crate::world::{World, number, text};
use crate::{coupons, discounts, money, page, prices, tax_rates};

mod completion;
pub(crate) mod pages;

pub(crate) use completion::{Outcome, complete, expire_session, payment_ended};

pub(crate) const FIELDS: &str = "metadata.* collected_information.*";
pub(crate) const NEW_FIELDS: &str = "mode line_items.price line_items.price_data.* line_items.quantity line_items.tax_rates \
    line_items.adjustable_quantity.* line_items.metadata.* metadata.* client_reference_id customer customer_email customer_creation \
    customer_update.* success_url cancel_url return_url expires_at ui_mode currency locale submit_type payment_method_types \
    payment_method_collection payment_intent_data.metadata.* payment_intent_data.description payment_intent_data.setup_future_usage \
    payment_intent_data.capture_method payment_intent_data.receipt_email payment_intent_data.statement_descriptor \
    payment_intent_data.statement_descriptor_suffix \
    subscription_data.metadata.* subscription_data.description subscription_data.trial_period_days subscription_data.trial_end \
    subscription_data.trial_settings.end_behavior.missing_payment_method subscription_data.default_tax_rates \
    subscription_data.billing_mode.* \
    setup_intent_data.metadata.* setup_intent_data.description \
    discounts.coupon discounts.promotion_code allow_promotion_codes automatic_tax.enabled tax_id_collection.enabled \
    billing_address_collection phone_number_collection.enabled \
    payment_method_options.* saved_payment_method_options.* consent_collection.* custom_text.* after_expiration.*";

const DAY: i64 = 86_400;
const SHORTEST: i64 = 30 * 60;

pub(crate) fn create(call: &mut Call) -> Answer {
    let modes = ["payment", "subscription", "setup"];
    call.params.required("mode")?;
    let mode = call.params.one_of("mode", &modes)?.unwrap_or_default().to_owned();
    let success = call.params.required("success_url")?.to_owned();
    let customer = call.maybe_named("customer", "customer")?.unwrap_or_default();
    let now = call.world.now_of(&customer);
    let expires = call.params.integer("expires_at")?.unwrap_or(now + DAY);
    if !(now + SHORTEST - 60..=now + DAY).contains(&expires) {
        let message = "The `expires_at` timestamp must be at least 30 minutes and less than 24 hours from Checkout Session creation.";
        return Err(Failure::invalid(message).param("expires_at"));
    }
    let items = line_items(call, &mode)?;
    let id = call.world.id("cs_test");
    let url = format!("{}/c/pay/{id}", call.world.public_url);
    let asked = call.params.texts("payment_method_types");
    let types = if asked.is_empty() { vec!["card".to_owned()] } else { asked };
    let currency = items.first().map_or(call.params.value("currency"), |item| item["currency"].clone());
    let mut session = json!({
        "id": id, "object": "checkout.session", "adaptive_pricing": { "enabled": false }, "after_expiration": null,
        "allow_promotion_codes": call.params.flag("allow_promotion_codes")?, "amount_subtotal": 0, "amount_total": 0,
        "automatic_tax": { "enabled": false, "liability": null, "provider": null, "status": null }, "billing_address_collection": call.params.value("billing_address_collection"),
        "cancel_url": call.params.value("cancel_url"), "client_reference_id": call.params.value("client_reference_id"),
        "client_secret": null, "collected_information": null, "consent": null, "consent_collection": null, "created": now,
        "currency": currency, "currency_conversion": null, "custom_fields": [],
        "custom_text": { "after_submit": null, "shipping_address": null, "submit": null, "terms_of_service_acceptance": null },
        "customer": customer["id"], "customer_creation": call.params.text("customer_creation").unwrap_or("if_required"),
        "customer_details": null, "customer_email": call.params.value("customer_email"), "discounts": [], "expires_at": expires,
        "invoice": null, "invoice_creation": { "enabled": false, "invoice_data": { "account_tax_ids": null, "custom_fields": null, "description": null, "footer": null, "issuer": null, "metadata": {}, "rendering_options": null } },
        "livemode": false, "locale": call.params.value("locale"), "metadata": {}, "mode": mode, "origin_context": null,
        "payment_intent": null, "payment_link": null, "payment_method_collection": if mode == "subscription" { "always" } else { "if_required" },
        "payment_method_configuration_details": null, "payment_method_options": {}, "payment_method_types": types,
        "payment_status": if mode == "setup" { "no_payment_required" } else { "unpaid" }, "permissions": null,
        "phone_number_collection": { "enabled": false }, "recovered_from": null, "saved_payment_method_options": null,
        "setup_intent": null, "shipping_address_collection": null, "shipping_cost": null, "shipping_options": [], "status": "open",
        "submit_type": call.params.value("submit_type"), "subscription": null, "success_url": success,
        "total_details": { "amount_discount": 0, "amount_shipping": 0, "amount_tax": 0 }, "ui_mode": "hosted_page", "url": url,
        "wallet_options": null, "__discounts": [], "__payment_data": call.params.tree("payment_intent_data"),
        "__customer_update": call.params.tree("customer_update"),
        "__asks_address": call.params.text("billing_address_collection") == Some("required") || call.params.flag("automatic_tax.enabled")? == Some(true),
        "__subscription_data": call.params.tree("subscription_data"), "__setup_data": call.params.tree("setup_intent_data"),
        "test_clock": customer["test_clock"],
    });
    call.params.change_metadata(&mut session);
    sum_up(call, &mut session, items)?;
    if mode == "payment" && session["amount_total"] != 0 {
        money::chargeable(number(&session, "amount_total"), &text(&session, "currency"))?;
    }
    // Not a field of Stripe's: it was for the session's time only.
    session.as_object_mut().map(|fields| fields.shift_remove("test_clock"));
    call.world.put(&session);
    call.world.wake(&session, expires);
    Ok(session)
}

fn line_items(call: &mut Call, mode: &str) -> Result<Vec<Value>, Failure> {
    let entries = call.params.list("line_items");
    if (mode == "setup") != entries.is_empty() {
        let message =
            if mode == "setup" { "You can not pass `line_items` in `setup` mode." } else { "Missing required param: line_items." };
        return Err(Failure::invalid(message).code("parameter_missing").param("line_items"));
    }
    let items = entries.iter().map(|entry| line_item(call.world, entry)).collect::<Result<Vec<_>, _>>()?;
    let recurring = items.iter().any(|item| !item["price"]["recurring"].is_null());
    if mode == "payment" && recurring {
        let message =
            "You specified `payment` mode but passed a recurring price. Either switch to `subscription` mode or use only one-time prices.";
        return Err(Failure::invalid(message).param("mode"));
    }
    if mode == "subscription" && !recurring {
        let message = "You must provide at least one recurring price in `subscription` mode when using prices.";
        return Err(Failure::invalid(message).param("mode"));
    }
    if items.iter().any(|item| item["currency"] != items[0]["currency"]) {
        return Err(Failure::invalid("All line items must have the same currency.").param("line_items"));
    }
    Ok(items)
}

fn line_item(world: &mut World, entry: &Params) -> Answer {
    let price = match (entry.text("price"), entry.nested("price_data")) {
        (Some(id), _) => world.get("price", id, "line_items.0.price")?,
        (None, Some(data)) => {
            let product = match data.text("product") {
                Some(product) => text(&world.get("product", product, "line_items.0.price_data.product")?, "id"),
                None => prices::product_of(world, &data)?,
            };
            let mut price = prices::make(world, &data, &product)?;
            // Prices of a session are not for others.
            price["active"] = price["recurring"].is_object().into();
            world.put(&price);
            price
        }
        (None, None) => return Err(Failure::missing("line_items.0.price")),
    };
    let metered = price["recurring"]["usage_type"] == "metered";
    let quantity = entry.natural("quantity")?;
    if quantity.is_none() && !metered {
        return Err(Failure::missing("line_items.0.quantity"));
    }
    let amount = if metered { 0 } else { prices::cost(&price, quantity.unwrap_or(1)) };
    let name = text(&world.related(&price, "product"), "name");
    Ok(json!({
        "id": world.id("li"), "object": "item", "adjustable_quantity": null, "amount_discount": 0, "amount_subtotal": amount, "amount_tax": 0,
        "amount_total": amount, "currency": price["currency"], "description": name, "metadata": {}, "price": price,
        "quantity": if metered { Value::Null } else { quantity.into() }, "__tax_rates": entry.texts("tax_rates"),
    }))
}

/// Puts the items, discounts, taxes and sums into a session. Nothing is paid now of what a trial defers.
fn sum_up(call: &mut Call, session: &mut Value, mut items: Vec<Value>) -> Result<(), Failure> {
    let trial = call.params.has("subscription_data.trial_period_days") || call.params.has("subscription_data.trial_end");
    for item in items.iter_mut().filter(|item| trial && !item["price"]["recurring"].is_null()) {
        item["amount_subtotal"] = 0.into();
    }
    let currency = text(session, "currency");
    let mut left: Vec<i64> = items.iter().map(|item| number(item, "amount_subtotal")).collect();
    let subtotal: i64 = left.iter().sum();
    for entry in call.params.list("discounts") {
        let (coupon, code) = discounts::coupon_of(call.world, &entry, &session["customer"])?;
        let off = coupons::off(&coupon, left.iter().sum(), &currency);
        let parts = money::allocate(off, &left);
        for (left, part) in left.iter_mut().zip(parts) {
            *left -= part;
        }
        for (list, entry) in [
            ("discounts", json!({ "coupon": coupon["id"], "promotion_code": code })),
            ("__discounts", json!({ "coupon": coupon["id"], "code": code })),
        ] {
            if let Some(list) = session[list].as_array_mut() {
                list.push(entry);
            }
        }
    }
    let (mut tax, mut total) = (0, 0);
    for (item, left) in items.iter_mut().zip(&left) {
        let rates = item["__tax_rates"].as_array().cloned().unwrap_or_default();
        let (mut on_top, mut within) = (0, 0);
        for id in rates.iter().filter_map(Value::as_str) {
            let (more, inside) = tax_rates::on(&call.world.get("tax_rate", id, "line_items.0.tax_rates")?, *left);
            on_top += more;
            within += inside;
        }
        if call.params.flag("automatic_tax.enabled")? == Some(true) {
            let rate = tax_rates::automatic(call.world, &item["price"]["tax_behavior"]);
            let (more, inside) = tax_rates::on(&rate, *left);
            on_top += more;
            within += inside;
        }
        item["amount_discount"] = (number(item, "amount_subtotal") - left).into();
        item["amount_tax"] = (on_top + within).into();
        item["amount_total"] = (left + on_top).into();
        tax += on_top + within;
        total += left + on_top;
    }
    session["amount_subtotal"] = subtotal.into();
    session["amount_total"] = total.into();
    session["total_details"] = json!({ "amount_discount": subtotal - left.iter().sum::<i64>(), "amount_shipping": 0, "amount_tax": tax });
    session["__line_items"] = page::embedded(&items, &format!("/v1/checkout/sessions/{}/line_items", text(session, "id")));
    Ok(())
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut session = call.target("checkout.session")?;
    call.params.change_metadata(&mut session);
    call.world.put(&session);
    Ok(session)
}

pub(crate) fn expire(call: &mut Call) -> Answer {
    let session = call.target("checkout.session")?;
    if session["status"] != "open" {
        let message = format!(
            "Only Checkout Sessions with a status in [\"open\"] can be expired. This Checkout Session has a status of {}.",
            text(&session, "status")
        );
        return Err(Failure::invalid(message));
    }
    Ok(expire_session(call.world, &session))
}

/// Expires a session whose time has come.
pub(crate) fn due(world: &mut World, session: &Value) {
    if session["status"] == "open" && number(session, "expires_at") <= world.now_of(session) {
        expire_session(world, session);
    }
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("checkout.session")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "checkout.session", |session| page::matches(call, session, "customer payment_intent subscription status"))
}

pub(crate) fn list_line_items(call: &mut Call) -> Answer {
    let session = call.target("checkout.session")?;
    let all = session["__line_items"]["data"].as_array().cloned().unwrap_or_default();
    page::cut(call, &all.iter().collect::<Vec<_>>())
}
