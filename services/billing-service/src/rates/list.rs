//! `GET /internal/v1/rate-cards`: by what a gateway prices its requests.

use axum::Json;
use axum::extract::State;
use contracts::leases::SCOPE_LEASES_WRITE;
use contracts::rates::{PriceList, PricedModel};
use identity::CallingService;
use money::Rates;

use crate::error::Error;
use crate::state::AppState;

/// All cards that are in force or will be.
pub async fn list(State(state): State<AppState>, caller: CallingService) -> Result<Json<PriceList>, Error> {
    caller.require(SCOPE_LEASES_WRITE)?;
    let rows = sqlx::query!(
        "select id, model, valid_from, valid_to, price_input, price_cached, price_cache_write, price_output, price_reasoning, price_audio_in,
           price_audio_out from rate_cards where valid_to is null or valid_to > $1 order by model, valid_from",
        state.clock.now()
    )
    .fetch_all(&state.pool)
    .await?;
    let data = rows.into_iter().map(|row| PricedModel {
        rate_card_id: row.id,
        model: row.model,
        organization_id: None,
        valid_from: row.valid_from,
        valid_to: row.valid_to,
        price: Rates {
            input: row.price_input,
            cached_input: row.price_cached,
            cache_write: row.price_cache_write,
            output: row.price_output,
            reasoning: row.price_reasoning,
            audio_input: row.price_audio_in,
            audio_output: row.price_audio_out,
        },
    });
    Ok(Json(PriceList { data: data.collect() }))
}
