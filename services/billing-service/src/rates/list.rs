//! `GET /internal/v1/rate-cards`: by what a gateway prices its requests.

use axum::Json;
use axum::extract::State;
use contracts::leases::SCOPE_LEASES_WRITE;
use contracts::rates::{PriceList, PricedModel};
use identity::CallingService;

use super::{StoredCard, store};
use crate::error::Error;
use crate::state::AppState;

/// All cards that are in force or will be.
pub async fn list(State(state): State<AppState>, caller: CallingService) -> Result<Json<PriceList>, Error> {
    caller.require(SCOPE_LEASES_WRITE)?;
    let cards = store::from(&state.pool, state.clock.now()).await?;
    Ok(Json(PriceList { data: cards.into_iter().map(PricedModel::from).collect() }))
}

impl From<StoredCard> for PricedModel {
    fn from(stored: StoredCard) -> Self {
        Self {
            rate_card_id: stored.id,
            model: stored.model,
            organization_id: stored.organization_id,
            valid_from: stored.valid_from,
            valid_to: stored.valid_to,
            price: stored.card.price,
        }
    }
}
