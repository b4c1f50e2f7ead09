//! The lines of invoices, and their sums.

use serde_json::{Value, json};

use crate::world::{World, number, text};
use crate::{coupons, money, page, tax_rates};

/// What a line is about.
#[derive(Debug, Clone)]
pub(crate) struct Line<'a> {
    pub(crate) price: &'a Value,
    pub(crate) quantity: i64,
    pub(crate) amount: i64,
    pub(crate) period: (i64, i64),
    pub(crate) description: String,
    pub(crate) proration: bool,
    /// The subscription and its item; none for an invoice item of its own.
    pub(crate) of: Option<(&'a str, &'a str)>,
    /// The invoice item that it comes from.
    pub(crate) item: Option<&'a str>,
}

/// Makes a line.
pub(crate) fn make(world: &mut World, line: &Line, currency: &str) -> Value {
    let details = match line.of {
        Some((subscription, item)) => json!({
            "type": "subscription_item_details", "invoice_item_details": null,
            "subscription_item_details": {
                "invoice_item": line.item, "proration": line.proration, "proration_details": { "credited_items": null },
                "subscription": subscription, "subscription_item": item,
            },
        }),
        None => json!({
            "type": "invoice_item_details", "subscription_item_details": null,
            "invoice_item_details": {
                "invoice_item": line.item.unwrap_or_default(), "proration": line.proration,
                "proration_details": { "credited_items": null }, "subscription": null,
            },
        }),
    };
    let pricing = if line.price.is_null() { Value::Null } else { pricing(line.price) };
    json!({
        "id": world.id("il"), "object": "line_item", "amount": line.amount, "currency": currency, "description": line.description,
        "discount_amounts": [], "discountable": !line.proration, "discounts": [], "invoice": null, "livemode": false, "metadata": {},
        "parent": details, "period": { "start": line.period.0, "end": line.period.1 }, "pretax_credit_amounts": [],
        "pricing": pricing, "quantity": line.quantity, "quantity_decimal": line.quantity.to_string(), "subtotal": line.amount, "taxes": [],
        "__tax_rates": [],
    })
}

/// How a price is named on lines.
pub(crate) fn pricing(price: &Value) -> Value {
    json!({
        "type": "price_details", "price_details": { "price": price["id"], "product": price["product"] },
        "unit_amount_decimal": price["unit_amount_decimal"],
    })
}

/// Computes all sums of an invoice from its lines, `__discounts` (ids) and tax rates.
pub(crate) fn sum_up(world: &World, invoice: &mut Value) {
    let currency = text(invoice, "currency");
    let mut lines = invoice["lines"]["data"].as_array().cloned().unwrap_or_default();
    let subtotal: i64 = lines.iter().map(|line| number(line, "amount")).sum();
    let mut left: Vec<i64> =
        lines.iter().map(|line| if line["discountable"] == true { number(line, "amount").max(0) } else { 0 }).collect();
    for line in &mut lines {
        line["discount_amounts"] = json!([]);
    }
    let mut discounts = Vec::new();
    for id in invoice["discounts"].as_array().cloned().unwrap_or_default() {
        let coupon =
            id.as_str().and_then(|id| world.find(id)).map(|discount| world.related(&discount["source"], "coupon")).unwrap_or_default();
        let off = coupons::off(&coupon, left.iter().sum(), &currency);
        let parts = money::allocate(off, &left);
        for ((part, left), line) in parts.into_iter().zip(&mut left).zip(&mut lines) {
            *left -= part;
            if let Some(list) = line["discount_amounts"].as_array_mut().filter(|_| part > 0) {
                list.push(json!({ "amount": part, "discount": id }));
            }
        }
        discounts.push(json!({ "amount": off, "discount": id }));
    }
    let off: i64 = discounts.iter().map(|discount| number(discount, "amount")).sum();
    let (exclusive, inclusive) = taxes(world, invoice, &mut lines);
    let total = subtotal - off + exclusive;
    for line in &mut lines {
        line["invoice"] = invoice["id"].clone();
    }
    invoice["lines"] = page::embedded(&lines, &format!("/v1/invoices/{}/lines", text(invoice, "id")));
    invoice["subtotal"] = subtotal.into();
    invoice["subtotal_excluding_tax"] = (subtotal - inclusive).into();
    invoice["total"] = total.into();
    invoice["total_excluding_tax"] = (total - exclusive - inclusive).into();
    invoice["total_discount_amounts"] = discounts.into();
    let due = total.max(0);
    invoice["amount_due"] = due.into();
    invoice["amount_remaining"] = due.into();
}

/// Puts taxes on the lines, after discounts; the sums on top of and within the amounts.
fn taxes(world: &World, invoice: &mut Value, lines: &mut [Value]) -> (i64, i64) {
    let (mut sums, mut totals) = ((0, 0), Vec::<Value>::new());
    for line in lines {
        let own = line["__tax_rates"].as_array().filter(|own| !own.is_empty()).cloned();
        let rates = own.unwrap_or_else(|| invoice["__tax_rates"].as_array().cloned().unwrap_or_default());
        let off: i64 = line["discount_amounts"].as_array().into_iter().flatten().map(|discount| number(discount, "amount")).sum();
        let base = number(line, "amount") - off;
        let mut taxes = Vec::new();
        let automatic = (invoice["__automatic_tax"] == true).then(|| tax_rates::automatic(world, &line["__tax_behavior"]));
        for rate in rates.iter().filter_map(|id| world.find(id.as_str()?)).chain(&automatic) {
            let (on_top, within) = tax_rates::on(rate, base);
            sums = (sums.0 + on_top, sums.1 + within);
            let tax = json!({
                "amount": on_top + within, "tax_behavior": if rate["inclusive"] == true { "inclusive" } else { "exclusive" },
                "tax_rate_details": { "tax_rate": rate["id"] }, "taxability_reason": "not_available",
                "taxable_amount": base - within, "type": "tax_rate_details",
            });
            match totals.iter_mut().find(|total| total["tax_rate_details"] == tax["tax_rate_details"]) {
                Some(total) => {
                    for field in ["amount", "taxable_amount"] {
                        total[field] = (number(total, field) + number(&tax, field)).into();
                    }
                }
                None => totals.push(tax.clone()),
            }
            taxes.push(tax);
        }
        line["taxes"] = taxes.into();
    }
    invoice["total_taxes"] = totals.into();
    sums
}
