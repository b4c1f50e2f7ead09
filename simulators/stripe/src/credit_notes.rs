//! Credit notes: what an invoice is reduced by after it was finalized.

use serde_json::{Value, json};

use crate::call::{Answer, Call};
use crate::error::Failure;
use crate::world::{World, number, text};
use crate::{balance, page, refunds};

pub(crate) const FIELDS: &str =
    "invoice amount credit_amount refund_amount out_of_band_amount memo reason metadata.* email_type effective_at";

/// Before payment it lowers what is due; after payment it is refunded, credited, or settled elsewhere.
pub(crate) fn create(call: &mut Call) -> Answer {
    let mut invoice = call.named("invoice", "invoice")?;
    let open = invoice["status"] == "open";
    if !open && invoice["status"] != "paid" {
        return Err(Failure::invalid("Credit notes are made of open or paid invoices only.").param("invoice"));
    }
    let sent = ["credit_amount", "refund_amount", "out_of_band_amount"].map(|name| call.params.natural(name));
    let [credit, refund, elsewhere] = [sent[0].clone()?, sent[1].clone()?, sent[2].clone()?].map(Option::unwrap_or_default);
    let amount = call.params.required_integer("amount")?;
    let noted = number(&invoice, "pre_payment_credit_notes_amount") + number(&invoice, "post_payment_credit_notes_amount");
    let most = if open { number(&invoice, "amount_remaining") } else { number(&invoice, "total") - noted };
    if amount <= 0 || amount > most {
        let message = format!("The credit note's amount must be positive and at most {most}.");
        return Err(Failure::invalid(message).param("amount"));
    }
    if !open && credit + refund + elsewhere != amount {
        let message = "The sum of credit amount, refund amount and out of band amount must equal the post payment amount.";
        return Err(Failure::invalid(message).param("credit_amount"));
    }
    let mut note = blank(call.world, &invoice, amount, open);
    note["memo"] = call.params.value("memo");
    note["reason"] = call.params.one_of("reason", &["duplicate", "fraudulent", "order_change", "product_unsatisfactory"])?.into();
    note["out_of_band_amount"] = if elsewhere > 0 { elsewhere.into() } else { Value::Null };
    call.params.change_metadata(&mut note);
    if open {
        reduce(call.world, &mut invoice, amount);
    } else {
        give_back(call.world, &mut invoice, &mut note, refund, credit, amount)?;
    }
    call.world.put(&note);
    call.world.emit("credit_note.created", &note);
    Ok(note)
}

fn blank(world: &mut World, invoice: &Value, amount: i64, open: bool) -> Value {
    let id = world.id("cn");
    let place = world.all("credit_note").filter(|note| note["invoice"] == invoice["id"]).count() + 1;
    let line = json!({
        "id": world.id("cnli"), "object": "credit_note_line_item", "amount": amount, "description": "Credit", "discount_amount": 0,
        "discount_amounts": [], "invoice_line_item": null, "livemode": false, "metadata": {}, "pretax_credit_amounts": [], "quantity": 1,
        "tax_rates": [], "taxes": [], "type": "custom_line_item", "unit_amount": amount, "unit_amount_decimal": amount.to_string(),
    });
    json!({
        "id": id, "object": "credit_note", "amount": amount, "amount_shipping": 0, "created": world.now_of(invoice),
        "currency": invoice["currency"], "customer": invoice["customer"], "customer_balance_transaction": null, "discount_amount": 0,
        "discount_amounts": [], "effective_at": null, "invoice": invoice["id"], "lines": page::embedded(&[line], &format!("/v1/credit_notes/{id}/lines")),
        "livemode": false, "memo": null, "metadata": {}, "number": format!("{}-CN-{place:02}", text(invoice, "number")),
        "out_of_band_amount": null, "pdf": format!("{}/credit_notes/{id}/pdf", world.public_url),
        "post_payment_amount": if open { 0 } else { amount }, "pre_payment_amount": if open { amount } else { 0 }, "pretax_credit_amounts": [],
        "reason": null, "refunds": [], "shipping_cost": null, "status": "issued", "subtotal": amount, "subtotal_excluding_tax": amount,
        "total": amount, "total_excluding_tax": amount, "total_taxes": [], "type": if open { "pre_payment" } else { "post_payment" }, "voided_at": null,
    })
}

/// Less is due; the intent asks for less too. Nothing left is as good as paid. Below zero it is taken back.
fn reduce(world: &mut World, invoice: &mut Value, amount: i64) {
    let left = number(invoice, "amount_remaining") - amount;
    invoice["pre_payment_credit_notes_amount"] = (number(invoice, "pre_payment_credit_notes_amount") + amount).into();
    invoice["amount_due"] = (number(invoice, "amount_due") - amount).into();
    invoice["amount_remaining"] = left.into();
    let mut intent = world.related(invoice, "__intent");
    if !intent.is_null() && left > 0 {
        intent["amount"] = left.into();
        world.put(&intent);
    }
    world.update("invoice.updated", invoice);
    if left == 0 {
        crate::invoices::settle_nothing(world, invoice);
    }
}

fn give_back(world: &mut World, invoice: &mut Value, note: &mut Value, refund: i64, credit: i64, amount: i64) -> Result<(), Failure> {
    if refund > 0 {
        let charge = world.related(&world.related(invoice, "__intent"), "latest_charge");
        let made = refunds::make(world, &charge, Some(refund))?;
        world.emit("refund.created", &made);
        let charge = world.related(&made, "charge");
        world.emit("charge.refunded", &charge);
        note["refunds"] = json!([{ "amount_refunded": refund, "refund": made["id"], "type": "refund" }]);
    }
    if credit > 0 {
        let customer = world.related(invoice, "customer");
        let of = [("credit_note", note["id"].clone()), ("invoice", invoice["id"].clone())];
        let moved = balance::add(world, &customer, -credit, &text(invoice, "currency"), "credit_note", &of);
        note["customer_balance_transaction"] = moved["id"].clone();
    }
    invoice["post_payment_credit_notes_amount"] = (number(invoice, "post_payment_credit_notes_amount") + amount).into();
    world.update("invoice.updated", invoice);
    Ok(())
}

/// Undoes one that lowered what is due of an invoice which is still open; what was given back is not undone.
pub(crate) fn void(call: &mut Call) -> Answer {
    let mut note = call.target("credit_note")?;
    let mut invoice = call.world.related(&note, "invoice");
    if note["status"] == "void" || invoice["status"] != "open" {
        return Err(Failure::invalid("You can only void issued credit notes of open invoices."));
    }
    reduce(call.world, &mut invoice, -number(&note, "pre_payment_amount"));
    note["status"] = "void".into();
    note["voided_at"] = call.world.now_of(&note).into();
    call.world.put(&note);
    call.world.emit("credit_note.voided", &note);
    Ok(note)
}

pub(crate) fn update(call: &mut Call) -> Answer {
    let mut note = call.target("credit_note")?;
    call.params.change_texts(&mut note, "memo");
    call.params.change_metadata(&mut note);
    call.world.update("credit_note.updated", &note);
    Ok(note)
}

pub(crate) fn list_lines(call: &mut Call) -> Answer {
    let note = call.target("credit_note")?;
    let all = note["lines"]["data"].as_array().cloned().unwrap_or_default();
    page::cut(call, &all.iter().collect::<Vec<_>>())
}

pub(crate) fn retrieve(call: &mut Call) -> Answer {
    call.target("credit_note")
}

pub(crate) fn list(call: &mut Call) -> Answer {
    page::of(call, "credit_note", |note| page::matches(call, note, "customer invoice"))
}
