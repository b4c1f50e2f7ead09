//! What people read of an invoice, kept as it was seen last: with all of its lines, of which the first ones come with the invoice and the others
//! are asked for.

use chrono::{DateTime, Utc};
use identity::OrganizationId;
use money::Currency;
use serde_json::{Value, json};
use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::Sums;
use crate::error::Error;
use crate::sales::PaidBy;
use crate::stripe::call::Call;
use crate::stripe::object::Object;
use crate::stripe::transport::{Transport, TransportError};

const LINES: &str = "lines";
/// The longest page that Stripe gives.
const PAGE: usize = 100;

/// Adds to an invoice the lines that did not come with it: Stripe puts ten into it.
///
/// # Errors
/// Stripe's; [`TransportError::Unreadable`] for a page that says that there is more, and not after what.
pub(in crate::stripe::facts) async fn add_lines(stripe: &Transport, id: &str, invoice: &mut Value) -> Result<(), TransportError> {
    while invoice[LINES]["has_more"] == true {
        let last = Object(invoice).list(LINES).last().and_then(|line| line.text("id"));
        let last = last.ok_or_else(|| TransportError::Unreadable("more lines of an invoice, after none".to_owned()))?;
        let call = Call::get(format!("/invoices/{id}/lines")).with("limit", PAGE).with("starting_after", last);
        let mut page = stripe.ask(&call).await?;
        let more = page["has_more"] == true;
        match (page["data"].take(), invoice[LINES]["data"].as_array_mut()) {
            (Value::Array(mut found), Some(lines)) if !found.is_empty() || !more => lines.append(&mut found),
            _ => return Err(TransportError::Unreadable("more lines of an invoice, and none of them".to_owned())),
        }
        invoice[LINES]["has_more"] = more.into();
    }
    Ok(())
}

/// Writes the invoice as it was seen, unless a later look has written it already [B-17].
pub(super) async fn write(
    transaction: &mut Transaction<'static, Postgres>,
    organization: OrganizationId,
    invoice: Object<'_>,
    currency: Currency,
    sums: &Sums,
    collected: Option<(PaidBy, Uuid)>,
    fetched: i64,
) -> Result<(), Error> {
    let lines: Result<Vec<Value>, Error> = invoice
        .list(LINES)
        .map(|line| Ok(json!({"description": line.text("description"), "amount_micros": line.micros("amount", currency)?})))
        .collect();
    let (source, source_id) = collected.map(|(by, id)| (by.as_str(), id)).unzip();
    let paid_at: Option<DateTime<Utc>> = invoice.at("status_transitions").time("paid_at");
    sqlx::query!(
        "insert into stripe_invoices as i (invoice_id, organization_id, source, source_id, number, status, currency, subtotal_micros, discount_micros,
            tax_micros, total_micros, paid_micros, lines, hosted_url, pdf_url, fetched, created_at, paid_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
         on conflict (invoice_id) do update set number = excluded.number, status = excluded.status, subtotal_micros = excluded.subtotal_micros,
            discount_micros = excluded.discount_micros, tax_micros = excluded.tax_micros, total_micros = excluded.total_micros,
            paid_micros = excluded.paid_micros, lines = excluded.lines, hosted_url = excluded.hosted_url, pdf_url = excluded.pdf_url,
            fetched = excluded.fetched, paid_at = excluded.paid_at, source = excluded.source, source_id = excluded.source_id
         where i.fetched < excluded.fetched",
        invoice.needs("id")?,
        organization.uuid(),
        source,
        source_id,
        invoice.text("number"),
        invoice.needs("status")?,
        currency.code(),
        sums.subtotal,
        sums.discount,
        sums.tax,
        sums.total,
        invoice.micros("amount_paid", currency)?,
        Value::Array(lines?),
        invoice.text("hosted_invoice_url"),
        invoice.text("invoice_pdf"),
        fetched,
        invoice.time("created").ok_or(Error::Unreadable("created"))?,
        paid_at
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}
