//! `GET /v1/invoices`: Stripe's invoices of an organization with their credit notes, as they were last seen.

use axum::extract::State;
use chassis::cursor::{CursorKey, Page};
use chassis::http::Query;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use identity::{Authenticated, OrganizationId, Scope};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::{IntoParams, ToSchema};

use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;

/// An invoice.
#[derive(Debug, Serialize, ToSchema)]
pub struct Invoice {
    /// Stripe's id.
    id: String,
    /// What people call it.
    number: Option<String>,
    /// `open`, `paid`, `void` or `uncollectible`: a draft is no invoice yet, and may never be one.
    status: String,
    /// ISO 4217 code.
    currency: String,
    /// The sum of the lines, in micro-units.
    subtotal_micros: i64,
    /// What is taken off.
    discount_micros: i64,
    /// Tax on top.
    tax_micros: i64,
    /// What is to be paid.
    total_micros: i64,
    /// What was paid.
    paid_micros: i64,
    /// `description` and `amount_micros` of each.
    #[schema(value_type = Vec<Object>)]
    lines: serde_json::Value,
    /// The page on which it can be seen and paid.
    hosted_url: Option<String>,
    /// The same for a printer.
    pdf_url: Option<String>,
    /// When it was made.
    created_at: DateTime<Utc>,
    /// When it was paid.
    paid_at: Option<DateTime<Utc>>,
    /// What it was made less by after it was final, the oldest first.
    #[schema(value_type = Vec<CreditNote>)]
    credit_notes: Json<Vec<CreditNote>>,
}

/// A credit note: by what an invoice was made less. Amounts are in micro-units of the invoice's currency, with tax.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CreditNote {
    /// Stripe's id.
    id: String,
    /// What people call it.
    number: Option<String>,
    /// `issued` or `void`.
    status: String,
    /// `duplicate`, `fraudulent`, `order_change` or `product_unsatisfactory`, where somebody said so.
    reason: Option<String>,
    /// What is written on it.
    memo: Option<String>,
    /// How much, in all.
    amount_micros: i64,
    /// What of it made the invoice cheaper before it was paid.
    reduced_micros: i64,
    /// What of it pays the next invoices.
    balance_micros: i64,
    /// What of it went back the way it was paid.
    refunded_micros: i64,
    /// What of it was settled elsewhere.
    elsewhere_micros: i64,
    /// It, for a printer.
    pdf_url: Option<String>,
    /// When it was issued.
    created_at: DateTime<Utc>,
    /// When it was voided.
    voided_at: Option<DateTime<Utc>>,
}

/// Where a list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The invoices of the organization, newest first.
#[utoipa::path(get, path = "/v1/invoices", tag = "payments", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<Invoice>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<Invoice>>, Error> {
    principal.require(Scope::BillingRead)?;
    let cursors = CursorKey::derive(&state.config.secret, "invoices");
    let after: Option<(DateTime<Utc>, String)> = query.cursor.map(|cursor| cursors.decode(&cursor)).transpose()?;
    let rows = rows(&state, principal.organization_id, after).await?;
    Ok(axum::Json(cursors.page(rows, PAGE, |last| (last.created_at, last.id.clone()))))
}

async fn rows(state: &AppState, organization: OrganizationId, after: Option<(DateTime<Utc>, String)>) -> Result<Vec<Invoice>, Error> {
    let (time, id) = after.unzip();
    let rows = sqlx::query_as!(
        Invoice,
        r#"select invoice_id as id, number, status, currency, subtotal_micros, discount_micros, tax_micros, total_micros, paid_micros, lines,
             hosted_url, pdf_url, created_at, paid_at,
             (select coalesce(jsonb_agg(to_jsonb(n) || jsonb_build_object('id', n.credit_note_id) order by n.created_at, n.credit_note_id), '[]')
              from stripe_credit_notes n where n.organization_id = $1 and n.invoice_id = i.invoice_id) as "credit_notes!: Json<Vec<CreditNote>>"
           from stripe_invoices i where organization_id = $1 and status <> 'draft' and ($2::timestamptz is null or (created_at, invoice_id) < ($2, $3))
           order by created_at desc, invoice_id desc limit $4"#,
        organization.uuid(),
        time,
        id,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    );
    Ok(rows.fetch_all(&state.pool).await?)
}
