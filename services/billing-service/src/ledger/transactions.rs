//! `GET /v1/ledger/transactions`: the postings of the organization's own accounts.

use axum::extract::State;
use chassis::cursor::Page;
use chassis::http::Query;
use chassis::problem::ProblemBody;
use chrono::{DateTime, Utc};
use identity::{Authenticated, Scope};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::error::Error;
use crate::state::AppState;

const PAGE: usize = 100;

/// A transaction, as far as it touches the organization's accounts.
#[derive(Debug, Serialize, ToSchema)]
pub struct LedgerTransaction {
    /// Its id.
    id: Uuid,
    /// What it is about, such as `settlement`.
    kind: String,
    /// The fact that was posted, such as a request id.
    external_key: String,
    /// When it became true.
    occurred_at: DateTime<Utc>,
    /// The entries on the organization's accounts.
    entries: Vec<LedgerEntry>,
}

/// An entry.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// `wallet`, `holds` or `debt`.
    account: String,
    /// ISO 4217 code.
    currency: String,
    /// What the account got (positive) or gave, in micro-units.
    amount_micros: i64,
}

/// Where a list goes on.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// The organization's postings, newest first.
#[utoipa::path(get, path = "/v1/ledger/transactions", tag = "ledger", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = Page<LedgerTransaction>), (status = 400, body = ProblemBody), (status = 401, body = ProblemBody), (status = 403, body = ProblemBody)))]
pub async fn list(
    State(state): State<AppState>,
    Authenticated(principal): Authenticated,
    Query(query): Query<ListQuery>,
) -> Result<axum::Json<Page<LedgerTransaction>>, Error> {
    principal.require(Scope::BillingRead)?;
    let after: Option<i64> = query.cursor.map(|cursor| state.ledger_cursors.decode(&cursor)).transpose()?;
    let rows = sqlx::query!(
        r#"select t.id, t.position, t.kind, t.external_key, t.occurred_at,
             (select json_agg(json_build_object('account', a.kind, 'currency', a.currency, 'amount_micros', e.amount_micros) order by e.id)
              from ledger_entries e join accounts a on a.id = e.account_id where e.transaction_id = t.id and a.organization_id = $1) as entries
           from ledger_transactions t where t.organization_id = $1 and ($2::bigint is null or t.position < $2)
           order by t.position desc limit $3"#,
        principal.organization_id.uuid(),
        after,
        i64::try_from(PAGE + 1).unwrap_or(i64::MAX)
    )
    .fetch_all(&state.pool)
    .await?;
    let page = state.ledger_cursors.page(rows, PAGE, |last| last.position);
    Ok(axum::Json(page.map(|row| LedgerTransaction {
        id: row.id,
        kind: row.kind,
        external_key: row.external_key,
        occurred_at: row.occurred_at,
        entries: row.entries.and_then(|entries| serde_json::from_value(entries).ok()).unwrap_or_default(),
    })))
}
