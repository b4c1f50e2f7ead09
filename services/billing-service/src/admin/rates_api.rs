//! `/v1/admin/rates/…`: rate cards, as `billing-service rates` has them.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chassis::Problem;
use chassis::http::{Json, Path, Query};
use chrono::{DateTime, Utc};
use http::{HeaderMap, header};
use identity::CallingService;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{List, Reason, SCOPE_READ, decision, refused};
use crate::error::{Error, check_instants};
use crate::rates;
use crate::state::AppState;

/// A price list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceList {
    /// Who and why; nothing is imported without.
    by: Option<Reason>,
    list: String,
    #[serde(default = "usual_markup")]
    markup_percent: i64,
    from: Option<DateTime<Utc>>,
}

const fn usual_markup() -> i64 {
    super::rates::USUAL_MARKUP
}

/// Imports a price list; without who and why, it only says what that would change.
pub async fn import(
    State(state): State<AppState>,
    caller: CallingService,
    headers: HeaderMap,
    Json(body): Json<PriceList>,
) -> Result<axum::Json<Value>, Error> {
    caller.require(SCOPE_READ)?;
    let decision = body.by.map(|by| decision(&state, &caller, &headers, by)).transpose()?;
    let list = rates::List { text: &body.list, markup_percent: body.markup_percent, from: body.from };
    let changes = rates::import(&state, &list, decision.as_ref()).await.map_err(|error| match error {
        rates::ImportError::Failed(error) => error,
        rates::ImportError::Refused(mistakes) => refused(mistakes.into_iter().map(|mistake| ("list".to_owned(), mistake))),
    })?;
    Ok(axum::Json(json!({"imported": decision.is_some(), "changes": changes})))
}

/// Which instant.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct At {
    at: Option<DateTime<Utc>>,
}

/// The cards that are valid, as YAML that an import reads.
pub async fn export(State(state): State<AppState>, caller: CallingService, Query(At { at }): Query<At>) -> Result<Response, Error> {
    caller.require(SCOPE_READ)?;
    let at = at.unwrap_or_else(|| state.clock.now());
    check_instants(&[at])?;
    let (text, left_out) = rates::export(&state.pool, at).await?;
    if !left_out.is_empty() {
        let which = format!("cards of another currency cannot be in the same file: {}", left_out.join(", "));
        return Err(Problem::conflict("several_currencies", &which).into());
    }
    Ok(([(header::CONTENT_TYPE, "application/yaml; charset=utf-8")], text).into_response())
}

/// Every card of a model, a text for each, the newest last.
pub async fn show(
    State(state): State<AppState>,
    caller: CallingService,
    Path(model): Path<String>,
) -> Result<axum::Json<List<String>>, Error> {
    caller.require(SCOPE_READ)?;
    let data = rates::show(&state.pool, &model).await?;
    if data.is_empty() { Err(Error::NotFound) } else { Ok(axum::Json(List { data })) }
}
