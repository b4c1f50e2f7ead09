//! Customers.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::page;
use crate::world::{World, number, text};

/// What a customer may be given at first and later.
pub(crate) const FIELDS: &str = "address.* balance description email invoice_prefix invoice_settings.default_payment_method \
    invoice_settings.custom_fields.* invoice_settings.footer metadata.* name phone preferred_locales shipping.* tax_exempt \
    tax.validate_location tax.ip_address";
/// What it may be given at first only.
pub(crate) const NEW_FIELDS: &str = "address.* balance description email invoice_prefix invoice_settings.default_payment_method \
    invoice_settings.custom_fields.* invoice_settings.footer metadata.* name phone preferred_locales shipping.* tax_exempt \
    tax.validate_location tax.ip_address payment_method test_clock tax_id_data.*";

pub(crate) fn create(call: &mut Call) -> Answer {
    let clock = call.maybe_named("test_helpers.test_clock", "test_clock")?;
    let created = clock.as_ref().map_or_else(|| call.world.clock.now(), |clock| number(clock, "frozen_time"));
    let id = call.world.id("cus");
    let mut customer = blank(&id, created, &Value::Null);
    let balance = call.params.integer("balance")?.unwrap_or(0);
    customer["test_clock"] = clock.map_or(Value::Null, |clock| clock["id"].clone());
    let method = call.maybe_named("payment_method", "payment_method")?;
    change(call, &mut customer)?;
    call.world.put(&customer);
    call.world.emit("customer.created", &customer);
    set_balance(call.world, &customer, balance, "initial");
    if let Some(method) = method {
        crate::payment_methods::attach_to(call.world, &method, &text(&customer, "id"))?;
    }
    call.world.get("customer", &id, "id")
}

/// The balance becomes this much; what it moved by is kept as every other move of it.
fn set_balance(world: &mut World, customer: &Value, balance: i64, kind: &str) {
    let moved = balance - number(customer, "balance");
    if moved != 0 {
        let currency = customer["currency"].as_str().unwrap_or("usd").to_owned();
        crate::balance::add(world, customer, moved, &currency, kind, &[]);
    }
}

/// A customer of whom nothing is known but perhaps an address.
pub(crate) fn blank(id: &str, created: i64, email: &Value) -> Value {
    let prefix = id.chars().skip(4).take(8).collect::<String>().to_ascii_uppercase();
    json!({
        "id": id, "object": "customer", "address": null, "balance": 0, "created": created, "currency": null, "default_source": null,
        "delinquent": false, "description": null, "discount": null, "email": email, "invoice_prefix": prefix,
        "invoice_settings": { "custom_fields": null, "default_payment_method": null, "footer": null, "rendering_options": null },
        "livemode": false, "metadata": {}, "name": null, "next_invoice_sequence": 1, "phone": null, "preferred_locales": [],
        "shipping": null, "tax_exempt": "none", "test_clock": null,
    })
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut customer = call.target("customer")?;
    change(call, &mut customer)?;
    call.world.update("customer.updated", &customer);
    let Some(balance) = call.params.integer("balance")? else { return Ok(customer) };
    set_balance(call.world, &customer, balance, "adjustment");
    call.target("customer")
}

fn change(call: &Call, customer: &mut Value) -> Result<(), Failure> {
    call.params.change_texts(customer, "description email name phone");
    call.params.change_metadata(customer);
    for field in ["address", "shipping"] {
        if call.params.has(field) {
            customer[field] = call.params.tree(field);
        }
    }
    if let Some(exempt) = call.params.one_of("tax_exempt", &["none", "exempt", "reverse"])? {
        customer["tax_exempt"] = exempt.into();
    }
    let default = "invoice_settings.default_payment_method";
    if call.params.unsets(default) {
        customer["invoice_settings"]["default_payment_method"] = Value::Null;
    } else if let Some(method) = call.maybe_named("payment_method", default)? {
        let attached = method["customer"] == customer["id"] || method["id"] == call.params.value("payment_method");
        if !attached {
            let message =
                "The customer does not have a payment method with the given ID. The payment method must be attached to the customer.";
            return Err(Failure::invalid(message).param("invoice_settings[default_payment_method]"));
        }
        customer["invoice_settings"]["default_payment_method"] = method["id"].clone();
    }
    Ok(())
}

/// Also a deleted customer is found, as `{"deleted": true}`.
pub(crate) fn retrieve(call: &mut Call) -> Answer {
    let found = call.world.find(call.id()).filter(|object| object["object"] == "customer").cloned();
    found.ok_or_else(|| Failure::no_such("customer", call.id(), "id"))
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "customer", |customer| page::matches(call, customer, "email test_clock"))
}

/// Ends its subscriptions too.
pub(crate) fn delete(call: &mut Call) -> Answer {
    let customer = call.target("customer")?;
    let id = text(&customer, "id");
    crate::subscriptions::cancel_all_of(call.world, &id);
    call.world.emit("customer.deleted", &customer);
    Ok(call.world.delete(&id))
}
