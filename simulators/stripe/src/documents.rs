//! What an invoice and a credit note say, to be printed. Where Stripe has a PDF this is a page that says the same, and prints as one.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;

use crate::html::{escaped, page};
use crate::money::written;
use crate::simulator::Simulator;
use crate::world::{number, text};

pub(crate) async fn invoice(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    document(&simulator, "invoice", &id, "Invoice", invoice_table)
}

pub(crate) async fn credit_note(State(simulator): State<Simulator>, Path(id): Path<String>) -> Response {
    document(&simulator, "credit_note", &id, "Credit note", credit_note_table)
}

fn document(simulator: &Simulator, kind: &str, id: &str, title: &str, table: fn(&Value) -> String) -> Response {
    // A draft has no number yet, and nothing to print.
    let found = simulator.act(|world| world.get(kind, id, "id").ok().filter(|object| object["number"].is_string()));
    match found {
        Some(object) => {
            let status = format!("<p>{}</p>", escaped(&text(&object, "status")));
            Html(page(&format!("{title} {}", text(&object, "number")), &format!("{status}{}", table(&object)))).into_response()
        }
        None => (StatusCode::NOT_FOUND, Html(page("No such document", ""))).into_response(),
    }
}

/// Whose it is, its lines and its sums.
pub(crate) fn invoice_table(invoice: &Value) -> String {
    let sum = |parts: &Value| parts.as_array().into_iter().flatten().map(|part| number(part, "amount")).sum::<i64>();
    // Sums that say nothing are left out.
    let parts = [("Discount", -sum(&invoice["total_discount_amounts"])), ("Tax", sum(&invoice["total_taxes"]))];
    let parts = parts.into_iter().filter(|(_, amount)| *amount != 0);
    let totals =
        [("Total", "total"), ("Amount due", "amount_due"), ("Paid", "amount_paid")].map(|(label, field)| (label, number(invoice, field)));
    let whose = escaped(invoice["customer_name"].as_str().or(invoice["customer_email"].as_str()).unwrap_or_default());
    format!("<p>{whose}</p>{}", table(invoice, parts.chain(totals)))
}

fn credit_note_table(note: &Value) -> String {
    format!("<p>Of invoice {}</p>{}", escaped(&text(note, "invoice")), table(note, [("Total", number(note, "total"))]))
}

fn table(object: &Value, sums: impl IntoIterator<Item = (&'static str, i64)>) -> String {
    let currency = text(object, "currency");
    let row = |what: &str, amount: i64| format!("<tr><td>{}</td><td>{}</td></tr>", escaped(what), written(amount, &currency));
    let lines = object["lines"]["data"].as_array().into_iter().flatten();
    let mut rows: String = lines.map(|line| row(&text(line, "description"), number(line, "amount"))).collect();
    rows.extend(sums.into_iter().map(|(label, amount)| row(label, amount)));
    format!("<table>{rows}</table>")
}
