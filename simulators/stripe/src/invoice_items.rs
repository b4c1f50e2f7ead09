//! Invoice items: amounts that wait for the next invoice.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::invoices::lines::{self, Line};
use crate::world::{World, number, text};
use crate::{money, page, prices};

pub(crate) const FIELDS: &str = "amount currency customer description discountable invoice metadata.* period.start period.end \
    pricing.price quantity subscription tax_rates tax_behavior price_data.currency price_data.product price_data.unit_amount unit_amount_decimal";

pub(crate) fn create(call: &mut Call) -> Answer {
    let customer = call.named("customer", "customer")?;
    let quantity = call.params.natural("quantity")?.unwrap_or(1);
    let price = match call.maybe_named("price", "pricing.price")? {
        Some(price) => price,
        None => match call.params.nested("price_data") {
            Some(data) => prices::make(call.world, &data, data.required("product")?)?,
            None => Value::Null,
        },
    };
    let (amount, currency) = if price.is_null() {
        (call.params.required_integer("amount")?, money::currency(call.params.required("currency")?, "currency")?)
    } else {
        (prices::cost(&price, quantity), text(&price, "currency"))
    };
    let invoice = call.maybe_named("invoice", "invoice")?;
    if invoice.as_ref().is_some_and(|invoice| invoice["status"] != "draft") {
        return Err(Failure::invalid("Items can only be added to draft invoices.").code("invoice_not_editable").param("invoice"));
    }
    let now = call.world.now_of(&customer);
    let period = (call.params.integer("period.start")?.unwrap_or(now), call.params.integer("period.end")?.unwrap_or(now));
    let mut item = make(call.world, &customer, amount, &currency, period);
    item["quantity"] = quantity.into();
    item["quantity_decimal"] = quantity.to_string().into();
    item["pricing"] = if price.is_null() { Value::Null } else { lines::pricing(&price) };
    item["description"] = call.params.value("description");
    item["__tax_rates"] = call.params.texts("tax_rates").into();
    item["__tax_behavior"] = call.params.value("tax_behavior");
    call.params.change_metadata(&mut item);
    call.world.put(&item);
    call.world.emit("invoiceitem.created", &item);
    if let Some(mut invoice) = invoice {
        let line = take(call.world, &item, &text(&invoice, "id"));
        if let Some(list) = invoice["lines"]["data"].as_array_mut() {
            list.push(line);
        }
        lines::sum_up(call.world, &mut invoice);
        call.world.update("invoice.updated", &invoice);
        item["invoice"] = invoice["id"].clone();
    }
    Ok(item)
}

/// An item that waits; not kept yet.
pub(crate) fn make(world: &mut World, customer: &Value, amount: i64, currency: &str, period: (i64, i64)) -> Value {
    json!({
        "id": world.id("ii"), "object": "invoiceitem", "amount": amount, "currency": currency, "customer": customer["id"],
        "date": world.now_of(customer), "description": null, "discountable": amount >= 0, "discounts": [], "invoice": null,
        "livemode": false, "metadata": {}, "net_amount": amount, "parent": null, "period": { "start": period.0, "end": period.1 },
        "pricing": null, "proration": false, "proration_details": { "discount_amounts": [] }, "quantity": 1, "quantity_decimal": "1",
        "tax_rates": [], "test_clock": customer["test_clock"], "__tax_rates": [], "__of": null,
    })
}

/// The lines of all items that wait for a customer; they belong to the invoice from then on, if one is named.
pub(crate) fn take_pending(world: &mut World, customer: &Value, currency: &str, invoice: Option<&str>) -> Vec<Value> {
    let waits = |item: &&Value| item["customer"] == customer["id"] && item["invoice"].is_null() && item["currency"] == currency;
    let pending: Vec<Value> = world.all("invoiceitem").filter(waits).cloned().collect();
    let mut lines = Vec::new();
    for item in &pending {
        lines.push(match invoice {
            Some(invoice) => take(world, item, invoice),
            None => line_of(world, item),
        });
    }
    lines
}

fn take(world: &mut World, item: &Value, invoice: &str) -> Value {
    let mut taken = item.clone();
    taken["invoice"] = invoice.into();
    world.put(&taken);
    line_of(world, item)
}

/// The line of an item.
pub(crate) fn line_of(world: &mut World, item: &Value) -> Value {
    let (id, subscription, place) = (text(item, "id"), text(&item["__of"], "subscription"), text(&item["__of"], "item"));
    let mut line = lines::make(
        world,
        &Line {
            price: &Value::Null,
            quantity: number(item, "quantity"),
            amount: number(item, "amount"),
            period: (number(&item["period"], "start"), number(&item["period"], "end")),
            description: text(item, "description"),
            proration: item["proration"] == true,
            of: item["__of"].is_object().then_some((subscription.as_str(), place.as_str())),
            item: Some(&id),
        },
        &text(item, "currency"),
    );
    line["pricing"] = item["pricing"].clone();
    line["metadata"] = item["metadata"].clone();
    line["discountable"] = item["discountable"].clone();
    line["__tax_rates"] = item["__tax_rates"].clone();
    line["__tax_behavior"] = item["__tax_behavior"].clone();
    line
}

/// Items of a draft that was deleted wait again.
pub(crate) fn give_back(world: &mut World, invoice: &str) {
    let taken: Vec<Value> = world.all("invoiceitem").filter(|item| item["invoice"] == invoice).cloned().collect();
    for mut item in taken {
        item["invoice"] = Value::Null;
        world.put(&item);
    }
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("invoiceitem")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    let pending = call.params.flag("pending")?;
    page::of(call, "invoiceitem", |item| {
        pending.is_none_or(|pending| item["invoice"].is_null() == pending) && page::matches(call, item, "customer invoice")
    })
}

/// Only while it waits.
pub(crate) fn delete(call: &mut Call) -> Answer {
    let item = call.target("invoiceitem")?;
    if !item["invoice"].is_null() {
        return Err(Failure::invalid("An invoice item that is on an invoice cannot be deleted.").code("invoice_not_editable"));
    }
    call.world.emit("invoiceitem.deleted", &item);
    Ok(call.world.delete(&text(&item, "id")))
}
